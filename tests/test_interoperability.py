"""Flows where TFP's joint distributions and variational inference, TensorBoard, or another Keras model want them."""

import keras
import numpy as np
import pytest
import tensorflow_probability as tfp

from tfflows import FlowModel, RealNVP

tfd = tfp.distributions
pytestmark = pytest.mark.usefixtures("without_xla")


@pytest.fixture(scope="module")
def flows():
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    plain, conditional = (FlowModel(RealNVP(2, n_layers=1, hidden=(4,), context_dim=dim)) for dim in (None, 2))
    plain.compile(jit_compile=False)
    conditional.compile(jit_compile=False)
    plain.fit(x, epochs=1, verbose=0)
    conditional.fit(x + 1.0, x, epochs=1, verbose=0)
    return plain, conditional


@pytest.mark.parametrize("n", [(), 5])
def test_joint_distributions(flows, n):
    plain, conditional = flows
    joint = tfd.JointDistributionNamed({"z": plain.distribution(), "y": lambda z: conditional.distribution(z)})
    drawn = joint.sample(n, seed=1)
    shape = () if n == () else (n,)
    assert drawn["y"].shape == (*shape, 2)
    z, y = (drawn[name].numpy().reshape(-1, 2) for name in ("z", "y"))
    expected = (plain.log_prob(z) + conditional.log_prob(y, z)).numpy().reshape(shape)
    np.testing.assert_allclose(joint.log_prob(drawn), expected, rtol=1e-5)


def test_wrapped_by_other_distributions(flows):
    plain, conditional = flows
    x = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    mixture = tfd.MixtureSameFamily(tfd.Categorical(probs=[0.3, 0.7]), conditional.distribution(x[:2]))
    parts = [conditional.log_prob(x, np.broadcast_to(x[k], x.shape)) + np.log(p) for k, p in ((0, 0.3), (1, 0.7))]
    np.testing.assert_allclose(mixture.log_prob(x), np.logaddexp(*parts), rtol=1e-5)
    warped = tfd.TransformedDistribution(plain.distribution(), tfp.bijectors.Exp())
    np.testing.assert_allclose(warped.log_prob(np.exp(x)), plain.log_prob(x) - x.sum(axis=-1), rtol=1e-4)
    assert tfd.Sample(plain.distribution(), 3).sample(2).shape == (2, 3, 2)


@pytest.mark.parametrize("weights", ["found", "given"])
def test_variational_inference_of_tfp_trains_a_flow(weights):
    flow = FlowModel(RealNVP(2, n_layers=2, hidden=(8,)))
    target = tfd.MultivariateNormalDiag([1.0, -2.0], [0.5, 2.0])
    surrogate = flow.distribution()
    assert len(surrogate.trainable_variables) == len(flow.trainable_weights)
    losses = tfp.vi.fit_surrogate_posterior(
        target.log_prob,
        surrogate,
        optimizer=keras.optimizers.Adam(2e-2),
        num_steps=150,
        sample_size=32,
        seed=1,
        trainable_variables=surrogate.trainable_variables if weights == "given" else None,
    )
    assert np.mean(losses[-20:]) < 0.1 < losses[0]  # both are normalised: the least is 0
    drawn = flow.sample(2000, seed=0).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), [1.0, -2.0], atol=0.3)


def test_tensorboard_shows_a_fit(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    flow = FlowModel(RealNVP(2, n_layers=1, hidden=(4,)))
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    history = flow.fit(x, epochs=2, validation_split=0.1, callbacks=[board], verbose=0)
    for part, name in (("train", "loss"), ("validation", "val_loss")):
        events = accumulator.EventAccumulator(str(tmp_path / part))
        events.Reload()
        written = [
            float(np.frombuffer(e.tensor_proto.tensor_content, np.float32)[0]) for e in events.Tensors("epoch_loss")
        ]
        np.testing.assert_allclose(written, history.history[name], rtol=1e-6)
    events = accumulator.EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    assert sum(tag.endswith("kernel/histogram") for tag in events.Tags()["tensors"]) == 2
