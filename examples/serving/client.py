"""Asks a TensorFlow Serving for what a flow of float32 weights knows, over REST or gRPC; without tfflows.

    python client.py log_prob two_moons rows.npy              # one number a row, over REST
    python client.py sample two_moons --n 5 --seed 1 --grpc   # five new rows, over gRPC

As a library: `Rest("localhost:8501", "two_moons").predict("log_prob", x=x)["log_prob"]`, the same with `Grpc`.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

ROWS_PER_REQUEST = 1024  # not above max_batch_size in batching.config
TIMEOUT = 60.0  # seconds
ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]  # else 4 MB, a few images


class ServingError(RuntimeError):
    """What the server has against a request."""


class Client:
    """What both ways have in common: many rows go as several requests.

    Args:
      address: "host:port".
      model: its name in the server's model config.
    """

    def __init__(self, address: str, model: str):
        self.address, self.model = address, model

    def predict(self, signature: str, **inputs) -> dict[str, np.ndarray]:
        """The outputs of a signature by name, for arrays with one row for each row of every input.

        Raises:
          ValueError: for no or unequal numbers of rows, or numbers that are not finite; nothing is sent then.
          ServingError: with the server's words.
        """
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(f"Expected inputs with equally many rows, at least one; got {lengths}.")
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise ValueError(f"Expected numbers in {name}; got dtype {array.dtype}.")
            bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            if bad.size:
                raise ValueError(f"Expected finite numbers in {name}; got NaN or infinity in rows {bad[:5].tolist()}.")
        seeds = arrays.get("seed")
        if seeds is not None and not (seeds.dtype.kind in "iu" and np.all(np.abs(seeds.astype(np.int64)) < 2**31)):
            raise ValueError("Expected integers below 2^31 as seed; got others.")
        n = next(iter(lengths.values()))
        starts = range(0, n, ROWS_PER_REQUEST)
        parts = [self._request(signature, {k: v[i : i + ROWS_PER_REQUEST] for k, v in arrays.items()}) for i in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _request(self, signature, arrays):
        raise NotImplementedError


class Rest(Client):
    """Over HTTP, port 8501 by default: JSON, easy to look at."""

    def __init__(self, address: str, model: str):
        import requests

        super().__init__(address, model)
        self._session = requests.Session()

    def _request(self, signature, arrays):
        body = {"signature_name": signature, "inputs": {name: array.tolist() for name, array in arrays.items()}}
        url = f"http://{self.address}/v1/models/{self.model}:predict"
        answer = self._session.post(url, json=body, timeout=TIMEOUT)
        try:
            found = answer.json()
        except ValueError:
            raise ServingError(f"{answer.status_code}: {answer.text[:200]}") from None
        if answer.status_code != 200:
            raise ServingError(f"{answer.status_code}: {found.get('error', found)}")
        outputs = found["outputs"]
        if not isinstance(outputs, dict):  # the server leaves out the name of an only output
            outputs = {self._only_output(signature): outputs}
        return {name: np.asarray(value, np.float32) for name, value in outputs.items()}

    def _only_output(self, signature):
        answer = self._session.get(f"http://{self.address}/v1/models/{self.model}/metadata", timeout=TIMEOUT)
        signatures = answer.json()["metadata"]["signature_def"]["signature_def"]
        return next(iter(signatures[signature]["outputs"]))


class Grpc(Client):
    """Over gRPC, port 8500 by default: binary, faster for many rows. Needs `tensorflow-serving-api`."""

    def __init__(self, address: str, model: str):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        super().__init__(address, model)
        channel = grpc.insecure_channel(address, options=ANY_SIZE)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def _request(self, signature, arrays):
        import grpc
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self.model, signature
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(to_proto(array, np.int32 if name == "seed" else np.float32))
        try:
            answer = self._stub.Predict(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise ServingError(f"{error.code().name}: {error.details()}") from error
        return {name: from_proto(tensor) for name, tensor in answer.outputs.items()}


def to_proto(array, dtype):
    """An array as a `TensorProto` of float32 or int32."""
    from tensorflow.core.framework import tensor_pb2, types_pb2

    array = np.ascontiguousarray(array, dtype)
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32 if dtype == np.int32 else types_pb2.DT_FLOAT)
    for n in array.shape:
        tensor.tensor_shape.dim.add(size=n)
    tensor.tensor_content = array.tobytes()
    return tensor


def from_proto(tensor) -> np.ndarray:
    """A `TensorProto` of float32 or int32 as an array."""
    from tensorflow.core.framework import types_pb2

    dtypes = {types_pb2.DT_FLOAT: (np.float32, tensor.float_val), types_pb2.DT_INT32: (np.int32, tensor.int_val)}
    if tensor.dtype not in dtypes:
        raise ValueError(f"Expected float32 or int32; got {types_pb2.DataType.Name(tensor.dtype)}.")
    dtype, values = dtypes[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
    array = np.asarray(values, dtype)
    return np.broadcast_to(array, shape) if array.size == 1 else array.reshape(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signature", choices=["log_prob", "encode", "decode", "sample"])
    parser.add_argument("model", help="its name on the server")
    parser.add_argument("rows", nargs="?", help="a .npy file, for all but sample")
    parser.add_argument("--context", help="a .npy file with a row for each row, if the flow is conditional")
    parser.add_argument("--n", type=int, default=1, help="rows to sample")
    parser.add_argument("--seed", type=int, help="of the first row, those of the others follow; without it fresh rows")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, help="8501, with --grpc 8500")
    parser.add_argument("--grpc", action="store_true", help="gRPC in place of REST")
    args = parser.parse_args()
    if args.signature == "sample":
        seeds = np.full(args.n, -1) if args.seed is None else args.seed + np.arange(args.n)
        inputs = {"seed": seeds, "temperature": np.full(args.n, args.temperature, np.float32)}
    elif args.rows is None:
        parser.error(f"give the rows of {args.signature} as a .npy file")
    else:
        inputs = {"z" if args.signature == "decode" else "x": np.load(args.rows)}
    if args.context is not None:
        inputs["context"] = np.load(args.context)
    port = args.port or (8500 if args.grpc else 8501)
    client = (Grpc if args.grpc else Rest)(f"{args.host}:{port}", args.model)
    try:
        outputs = client.predict(args.signature, **inputs)
    except (ValueError, ServingError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(json.dumps({name: value.tolist() for name, value in outputs.items()}))


if __name__ == "__main__":
    main()
