"""The serving example: the very client, against the stand-in that runs the server's C++ loader."""

import http.client
import json
import re
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import requests
from tensorflow_serving.apis import predict_pb2

from tfflows import datasets

ROOT = Path(__file__).parents[1]
SERVING = ROOT / "examples" / "serving"
sys.path.insert(0, str(SERVING))

import client  # noqa: E402


def loaded(name):
    flow = keras.saving.load_model(ROOT / "saved_models" / name / f"{name}.keras")
    flow.compile(jit_compile=False)  # compiles faster
    return flow


@pytest.fixture(scope="module")
def ports():
    command = [sys.executable, "stand_in.py", "--grpc-port", "0", "--rest-port", "0"]
    server = subprocess.Popen(command, cwd=SERVING, stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    yield dict(re.findall(r"(gRPC|REST) on (\S+:\d+)", line))
    assert server.poll() is None, "the stand-in has ended"
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="module")
def flow():
    return loaded("two_moons")


@pytest.fixture(params=["REST", "gRPC"])
def serving(request, ports):
    kind = {"REST": client.Rest, "gRPC": client.Grpc}[request.param]
    return lambda model: kind(ports[request.param], model)


X = datasets.TwoMoons().sample(2500, seed=3).astype(np.float32)


def test_numbers_are_the_flows(serving, flow):
    moons = serving("two_moons")
    np.testing.assert_allclose(moons.predict("log_prob", x=X)["log_prob"], flow.log_prob(X), rtol=1e-4, atol=1e-4)
    z = moons.predict("encode", x=X[:5])["z"]
    np.testing.assert_allclose(moons.predict("decode", z=z)["x"], X[:5], atol=1e-4)
    asked = {"seed": np.arange(50, dtype=np.int32), "temperature": np.ones(50, np.float32)}
    drawn = moons.predict("sample", **asked)["x"]
    np.testing.assert_array_equal(moons.predict("sample", **asked)["x"], drawn)
    assert np.mean(flow.log_prob(drawn)) > -2.0


@pytest.fixture(scope="module")
def glow():
    return loaded("digits")


def test_conditional_images_are_served(serving, glow):
    data = datasets.digits()
    x, context = data.test[:3].astype(np.float32), np.eye(10, dtype=np.float32)[data.test_labels[:3]]
    digits = serving("digits")
    found = digits.predict("log_prob", x=x, context=context)["log_prob"]
    np.testing.assert_allclose(found, glow.log_prob(x, context), rtol=1e-4)
    np.testing.assert_array_equal(digits.predict("log_prob", x=data.test[:3], context=context)["log_prob"], found)
    way = {"x0": x[[0, 0]], "x1": x[[1, 1]], "t": np.float32([0.0, 1.0]), "context": context[[0, 0]]}
    np.testing.assert_allclose(digits.predict("interpolate", **way)["x"], x[:2], atol=0.1)


def test_many_at_once(ports, flow):
    clients = [client.Rest(ports["REST"], "two_moons"), client.Grpc(ports["gRPC"], "two_moons")]
    expected = flow.log_prob(X).numpy()

    def ask(i):
        start, n = 10 * i, 1 + i % 10
        return expected[start : start + n] - clients[i % 2].predict("log_prob", x=X[start : start + n])["log_prob"]

    with futures.ThreadPoolExecutor(200) as pool:
        for difference in pool.map(ask, range(200)):
            assert np.abs(difference).max() < 1e-4


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        ("log_prob", {"x": np.zeros((3, 3))}, r"\[3,3\]"),
        ("log_prob", {"x": np.zeros((3, 1))}, r"\[3,1\]"),
        ("log_prob", {"x": np.zeros((3, 2, 1))}, r"\[3,2,1\]"),
        ("density", {"x": np.zeros((3, 2))}, "density"),
        ("log_prob", {"y": np.zeros((3, 2))}, "'y'"),
        ("sample", {"seed": np.arange(3)}, "temperature"),
    ],
)
def test_the_server_says_what_is_wrong(serving, flow, signature, inputs, message):
    moons = serving("two_moons")
    with pytest.raises(client.ServingError, match=message):
        moons.predict(signature, **inputs)
    np.testing.assert_allclose(moons.predict("log_prob", x=X[:2])["log_prob"], flow.log_prob(X[:2]), rtol=1e-4)


def test_unknown_model(serving):
    with pytest.raises(client.ServingError, match=r"(?i)not.found"):
        serving("three_moons").predict("log_prob", x=X[:2])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": [[0.0, np.nan]]}, r"NaN or infinity in rows \[0\]"),
        ({"x": np.zeros((0, 2))}, "at least one"),
        ({"x": X[:3], "context": X[:2]}, "equally many"),
        ({"x": [["a", "b"]]}, "Expected numbers"),
        ({"seed": [1, 2**31], "temperature": [1.0, 1.0]}, "below 2"),
        ({"seed": [0.5], "temperature": [1.0]}, "Expected integers"),
    ],
)
def test_the_client_sends_no_nonsense(serving, inputs, message):
    with pytest.raises(ValueError, match=message):
        serving("two_moons").predict("log_prob", **inputs)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{not json", 400),
        (b"", 400),
        (b"[1, 2]", 400),
        (b'{"instances": []}', 400),
        (b'{"instances": [{"x": [0, 1]}], "inputs": {}}', 400),
        (b'{"instances": [{"x": [0, 1]}, {"x": [0]}]}', 400),
        (b'{"instances": [{"x": ["a", 1]}]}', 400),
        (b'{"instances": [{"x": [null, 1]}]}', 400),
        (b'{"instances": [{"x": ["0.5", 1]}]}', 400),
        (b'{"instances": [{"seed": 1.9, "temperature": 1}], "signature_name": "sample"}', 400),
        (b"[" * 100_000, 400),
        (b'{"instances": [[0.5, 0.5]], "signature_name": "density"}', 400),
        (b'{"instances": [[0.5, 0.5]], "signature_name": ["log_prob"]}', 400),
        (b'{"instances": [[0.5, 0.5]]}', 200),
        (b'{"instances": [{"x": [0.5, 0.5]}, {"x": [NaN, 0.5]}]}', 200),
    ],
)
def test_raw_requests(ports, flow, body, status):
    """The REST API's row format, and what no client of ours would send."""
    url = f"http://{ports['REST']}/v1/models/two_moons:predict"
    answer = requests.post(url, data=body, timeout=30)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["error"]
        return
    first, *others = answer.json()["predictions"]
    assert first == pytest.approx(float(flow.log_prob(np.float32([[0.5, 0.5]]))[0]), rel=1e-4)
    assert all(np.isnan(other) for other in others)  # that row alone


@pytest.mark.parametrize("length", ["abc", "-1", str(2**40)])
def test_wrong_lengths(ports, length):
    connection = http.client.HTTPConnection(ports["REST"], timeout=10)
    connection.putrequest("POST", "/v1/models/two_moons:predict")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_grpc_takes_any_size_and_refuses_other_types(ports, monkeypatch):
    monkeypatch.setattr(client, "ROWS_PER_REQUEST", 2000)  # all in one
    digits = client.Grpc(ports["gRPC"], "digits")
    x, context = datasets.digits().train[:1350], np.eye(10)[np.arange(1350) % 10]  # 4.2 MB of float32, there and back
    z = digits.predict("encode", x=x, context=context)["z"]
    assert z.nbytes > 2**22  # more than gRPC takes by itself
    np.testing.assert_allclose(z[-5:], digits.predict("encode", x=x[-5:], context=context[-5:])["z"], atol=1e-4)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "two_moons"
    request.inputs["x"].CopyFrom(client.to_proto(np.zeros((1, 2)), np.int32))
    with pytest.raises(grpc.RpcError, match="Expected x of type float32; got int32"):
        digits._stub.Predict(request)


def test_status(ports):
    url = f"http://{ports['REST']}/v1/models/two_moons"
    assert requests.get(url, timeout=30).json()["model_version_status"][0]["state"] == "AVAILABLE"
    assert requests.get(url + "/versions/7", timeout=30).status_code == 404
    assert requests.get(f"http://{ports['REST']}/", timeout=30).status_code == 404


def test_client_as_a_command(ports, tmp_path, monkeypatch, capsys, flow):
    np.save(tmp_path / "rows.npy", X[:3])
    host, port = ports["REST"].split(":")
    where = ["--host", host, "--port", port]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["client.py", *arguments, *where])
        client.main()
        return json.loads(capsys.readouterr().out)

    found = run("log_prob", "two_moons", str(tmp_path / "rows.npy"))["log_prob"]
    np.testing.assert_allclose(found, flow.log_prob(X[:3]), rtol=1e-4)
    assert run("sample", "two_moons", "--n", "4", "--seed", "1") == run(
        "sample", "two_moons", "--n", "4", "--seed", "1"
    )
    assert run("sample", "two_moons") != run("sample", "two_moons")
    with pytest.raises(SystemExit):
        run("log_prob", "nothing", str(tmp_path / "rows.npy"))
    assert "404" in capsys.readouterr().err


def test_configuration_fits_the_client():
    batching = (SERVING / "batching.config").read_text()
    assert int(re.search(r"max_batch_size \{ value: (\d+)", batching)[1]) >= client.ROWS_PER_REQUEST
    named = re.findall(r'name: "(\w+)"', (SERVING / "models.config").read_text())
    assert sorted(named) == sorted(path.name for path in (ROOT / "saved_models").iterdir() if path.is_dir())
