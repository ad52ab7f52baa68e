"""A stand-in for TensorFlow Serving, where its image cannot run: the same requests, and the same C++ loader below.

    python stand_in.py --models ../../saved_models        # gRPC on port 8500, REST on 8501

It understands `models.config`, `Predict` of the official PredictionService, and of the REST API `:predict` (row and
column format), the status and the metadata of a model. It does not join requests, reload models or hide its words: it
is for tests and for trying the client, on this machine only. Executing is done by TensorFlow's C library, as
`tfflows.export.verify` does.
"""

from __future__ import annotations

import argparse
import json
import re
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
from client import ANY_SIZE, from_proto, to_proto
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from tfflows.export.c_session import DTYPES, CSession

HOST = "127.0.0.1"
MAX_BYTES = 2**26  # of a request's body
PATH = re.compile(r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>\d+))?(?P<what>:predict|/metadata)?")


class RefusalError(Exception):
    """A request that cannot be answered: an HTTP status, and why."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


class Models:
    """The newest version of each model of a model config.

    Args:
      config: path of a `model_config_list`, in which base paths begin with /models.
      folder: what /models stands for.
    """

    def __init__(self, config: Path, folder: Path):
        parsed = text_format.Parse(config.read_text(), model_server_config_pb2.ModelServerConfig())
        self._sessions = {}
        for model in parsed.model_config_list.config:
            base = folder / Path(model.base_path).relative_to("/models")
            versions = sorted((path for path in base.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
            if not versions:
                raise SystemExit(f"Expected a numbered version of {model.name} in {base}; found none.")
            self._sessions[model.name] = (int(versions[-1].name), CSession(versions[-1]))

    def get(self, name: str, version: str | None = None) -> tuple[int, CSession]:
        found = self._sessions.get(name)
        if found is None or version not in (None, "", str(found[0])):
            raise RefusalError(404, f"Servable not found for request: {name}, version {version or 'latest'}")
        return found

    def predict(self, name, version, signature, inputs):
        _, session = self.get(name, version)
        try:
            return session(signature or "serving_default", **inputs)
        except ValueError as error:
            raise RefusalError(400, str(error)) from error


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict`; the service's other methods answer UNIMPLEMENTED."""

    def __init__(self, models: Models):
        self._models = models

    def Predict(self, request, context):
        spec = request.model_spec
        version = str(spec.version.value) if spec.HasField("version") else None
        try:
            inputs = {name: from_proto(tensor) for name, tensor in request.inputs.items()}
            self._check_types(spec.name, version, spec.signature_name, inputs)
            outputs = self._models.predict(spec.name, version, spec.signature_name, inputs)
        except (RefusalError, ValueError) as error:
            missing = getattr(error, "status", 400) == 404
            context.abort(grpc.StatusCode.NOT_FOUND if missing else grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = predict_pb2.PredictResponse(model_spec=spec)
        for name, value in outputs.items():
            answer.outputs[name].CopyFrom(to_proto(value, value.dtype.type))
        return answer

    def _check_types(self, name, version, signature, inputs):
        """The server takes a tensor of the graph's own type alone; a session here would convert it."""
        _, session = self._models.get(name, version)
        specs = session.signatures.get(signature or "serving_default", ({}, {}))[0]
        for key, value in inputs.items():
            if key in specs and value.dtype != DTYPES[specs[key][1]]:
                wanted = np.dtype(DTYPES[specs[key][1]]).name
                raise RefusalError(400, f"Expected {key} of type {wanted}; got {value.dtype.name}")


class Handler(BaseHTTPRequestHandler):
    """The REST API; `models` is set by `serve`."""

    models: Models
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        self._answer(self._post)

    def log_message(self, *_):
        pass

    def _answer(self, compute):
        # The body is read whatever is wrong: what is left of it would be taken for the next request.
        length = self.headers.get("Content-Length") or "0"
        try:
            if not length.isdecimal() or int(length) > MAX_BYTES:
                self.close_connection = True
                raise RefusalError(413, f"Expected a Content-Length of at most {MAX_BYTES}; got {length}")
            self._body = self.rfile.read(int(length))
            matched = PATH.fullmatch(self.path)
            if matched is None:
                raise RefusalError(404, f"Malformed request: {self.command} {self.path}")
            status, found = 200, compute(**matched.groupdict())
        except RefusalError as error:
            status, found = error.status, {"error": str(error)}
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _get(self, model, version, what):
        number, session = self.models.get(model, version)
        if what is None:
            ok = {"error_code": "OK", "error_message": ""}
            return {"model_version_status": [{"version": str(number), "state": "AVAILABLE", "status": ok}]}
        if what != "/metadata":
            raise RefusalError(405, f"Expected POST for {what}")
        signatures = {
            name: {"inputs": _names(inputs), "outputs": _names(outputs)}
            for name, (inputs, outputs) in session.signatures.items()
        }
        metadata = {"signature_def": {"signature_def": signatures}}
        return {"model_spec": {"name": model, "version": str(number)}, "metadata": metadata}

    def _post(self, model, version, what):
        if what != ":predict":
            raise RefusalError(404, f"Malformed request: {self.command} {self.path}")
        try:
            body = json.loads(self._body)
        except (ValueError, RecursionError) as error:
            raise RefusalError(400, f"JSON Parse error: {error}") from error
        if not isinstance(body, dict) or ("instances" in body) == ("inputs" in body):
            raise RefusalError(400, "Expected a JSON object with either 'instances' or 'inputs'")
        signature = body.get("signature_name", "serving_default")
        _, session = self.models.get(model, version)
        if not isinstance(signature, str) or signature not in session.signatures:
            known = ", ".join(session.signatures)
            raise RefusalError(400, f"Serving signature name: {signature!r} not found; there are {known}")
        specs = session.signatures[signature][0]
        by_row = "instances" in body
        inputs = _columns(body["instances"], specs) if by_row else _named(body["inputs"], specs)
        arrays = {name: _array(name, value, specs) for name, value in inputs.items()}
        outputs = {k: v.tolist() for k, v in self.models.predict(model, version, signature, arrays).items()}
        only = next(iter(outputs.values())) if len(outputs) == 1 else None
        if by_row:
            rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
            return {"predictions": rows if only is None else only}
        return {"outputs": outputs if only is None else only}


def _names(tensors):
    return {key: {"name": at} for key, (at, _) in tensors.items()}


def _named(inputs, specs):
    return inputs if isinstance(inputs, dict) else {next(iter(specs)): inputs}


def _columns(instances, specs):
    """The row format: a list of objects, or of the values of an only input."""
    if not isinstance(instances, list) or not instances:
        raise RefusalError(400, "Expected 'instances' to be a list of at least one row")
    rows = [row if isinstance(row, dict) else {next(iter(specs)): row} for row in instances]
    if any(set(row) != set(rows[0]) for row in rows):
        raise RefusalError(400, "Expected the same inputs in each of 'instances'")
    return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name, value, specs):
    if name not in specs:
        raise RefusalError(400, f"Expected inputs {sorted(specs)}; got {name!r}")
    dtype = DTYPES[specs[name][1]]
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "if" or (dtype == np.int32 and array.dtype.kind == "f"):
            raise TypeError(f"got {'fractions' if array.dtype.kind == 'f' else 'something else'}")
        return array.astype(dtype) if dtype != np.int32 else np.asarray(value, np.int32)
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusalError(400, f"Expected numbers of one shape in {name!r}: {error}") from error


def serve(models: Models, grpc_port: int, rest_port: int):
    """Starts both servers and returns them; ports of 0 are chosen. The REST one is to be run by the caller."""
    service = grpc.server(futures.ThreadPoolExecutor(8), options=ANY_SIZE)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(models), service)
    grpc_port = service.add_insecure_port(f"{HOST}:{grpc_port}")
    service.start()
    server = type("Server", (ThreadingHTTPServer,), {"request_queue_size": 256, "daemon_threads": True})
    rest = server((HOST, rest_port), type("ModelHandler", (Handler,), {"models": models}))
    return service, grpc_port, rest


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=here / "../../saved_models", help="what /models stands for")
    parser.add_argument("--config", type=Path, default=here / "models.config")
    parser.add_argument("--grpc-port", type=int, default=8500, help="0 takes a free one")
    parser.add_argument("--rest-port", type=int, default=8501, help="0 takes a free one")
    args = parser.parse_args()
    service, grpc_port, rest = serve(Models(args.config, args.models), args.grpc_port, args.rest_port)
    print(f"Stand-in for TensorFlow Serving: gRPC on {HOST}:{grpc_port}, REST on {HOST}:{rest.server_port}", flush=True)
    try:
        rest.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        service.stop(grace=1.0)
        rest.server_close()


if __name__ == "__main__":
    main()
