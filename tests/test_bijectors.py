"""What every bijector and preset of the tables must do, in float64 with random weights."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from cases import (
    MAPS,
    PARTS,
    PRESETS,
    D,
    WrongLogDet,
    autoregressive,
    build,
    context,
    coupling,
    latents,
    points,
    policy,
    randomise,
)

from tfflows import MAF, CouplingRQNSF, FlowModel
from tfflows import bijectors as tfb
from tfflows.nets import MLP, LipschitzMLP
from tfflows.transformers import UMNN, Affine, FreeKnotSpline, RationalQuadraticSpline

pytestmark = pytest.mark.usefixtures("without_xla")  # where XLA is tested it is asked for


# The tests of one name run one after another: they share what `build` and TensorFlow made for it.
def each(names):
    return pytest.mark.parametrize("name", list(names), scope="module")


EACH_PART = each(PARTS)
# XLA compiles one that hears a context in the same way.
EACH_MAP = each(name for name in PARTS if name not in {f"{part}_context" for part in PARTS})
# A preset with a context has one layer, of which it has two without.
LAYERS = each(name for name in MAPS if name not in {f"{preset}_context" for preset in PRESETS})


def check_round_trip(bijector, tolerance=1e-9):
    x, c = points(bijector), context(bijector)
    z, inverse_log_det = bijector.inverse_and_log_det(x, c)
    again, forward_log_det = bijector.forward_and_log_det(z, c)
    # Pixels are 256 times as large as the numbers that everything else is computed with.
    unit = 256.0 if bijector.is_discrete else 1.0
    np.testing.assert_allclose(again, x, atol=tolerance * unit)
    np.testing.assert_allclose(forward_log_det, -inverse_log_det, atol=tolerance, rtol=1e-6 * tolerance / 1e-4)
    z = latents(bijector)
    x_of_z, _ = bijector.forward_and_log_det(z, c)
    np.testing.assert_allclose(bijector.inverse_and_log_det(x_of_z, c)[0], z, atol=tolerance)


def jacobian(bijector, x, c):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z, log_det = bijector.inverse_and_log_det(x, c)
    n = int(np.prod(x.shape[1:]))
    return np.reshape(tape.batch_jacobian(z, x), (-1, n, n)), log_det


def check_log_det(bijector):
    """Rows are repeated for each latent, so that one gradient is the Jacobian: pfor takes seconds to trace."""
    n = int(np.prod(bijector.event_shape))
    x, c = points(bijector), context(bijector)
    rows = tf.constant(np.repeat(x, n, axis=0))
    with tf.GradientTape() as tape:
        tape.watch(rows)
        z, log_det = bijector.inverse_and_log_det(rows, None if c is None else np.repeat(c, n, axis=0))
    one_latent = np.reshape(np.tile(np.eye(n), (len(x), 1)), z.shape)
    matrix = np.reshape(tape.gradient(z, rows, output_gradients=tf.constant(one_latent)), (len(x), n, n))
    np.testing.assert_allclose(log_det[::n], np.linalg.slogdet(matrix)[1], atol=1e-9)


@LAYERS
def test_round_trip_both_ways(name):
    check_round_trip(build(name))


@LAYERS
def test_log_det_equals_autodiff(name):
    check_log_det(build(name))


def test_harness_catches_a_wrong_log_det():
    with policy("float64"):
        wrong = WrongLogDet()
    check_round_trip(wrong)  # both directions agree with each other: only the Jacobian tells
    with pytest.raises(AssertionError):
        check_log_det(wrong)


@EACH_PART
def test_batch_shapes_agree(name):
    bijector = build(name)
    x, c = points(bijector, (2, 8)), context(bijector, (2, 8))
    n = len(bijector.event_shape)
    z, log_det = bijector.inverse_and_log_det(x, c)
    assert z.shape == (2, 8, *bijector.latent_shape)
    assert log_det.shape == (2, 8)
    one = bijector.inverse_and_log_det(x[1, 2], None if c is None else c[1, 2])
    assert one[0].shape == bijector.latent_shape
    assert one[1].shape == ()
    row = bijector.inverse_and_log_det(x[1], None if c is None else c[1])
    np.testing.assert_allclose(one[0], z[1, 2], atol=1e-12)
    np.testing.assert_allclose(row[0], z[1], atol=1e-12)
    np.testing.assert_allclose(row[1], log_det[1], atol=1e-12)
    back, forward_log_det = bijector.forward_and_log_det(z[1, 2], None if c is None else c[1, 2])
    assert back.shape == (*x.shape[-n:],)
    assert forward_log_det.shape == ()


@pytest.mark.parametrize("name", [name for name in MAPS if "context" in name or name == "chain_with_stock_tfp"])
def test_context_is_heard_broadcasts_and_is_needed(name):
    bijector = build(name)
    x, c = points(bijector), context(bijector)
    z, _ = bijector.inverse_and_log_det(x, c)
    other, _ = bijector.inverse_and_log_det(x, -c)
    assert np.all(np.max(np.abs(z - other), axis=tuple(range(1, z.ndim))) > 1e-6)
    same, _ = bijector.inverse_and_log_det(x, np.broadcast_to(c[:1], c.shape))
    np.testing.assert_allclose(bijector.inverse_and_log_det(x, c[0])[0], same, atol=1e-12)
    # One row of data, many contexts.
    many, many_log_det = bijector.forward_and_log_det(z[0], c)
    assert many.shape == x.shape
    assert many_log_det.shape == (len(c),)
    with pytest.raises(ValueError, match="Expected a context of width"):
        bijector.inverse_and_log_det(x)


@LAYERS
def test_keras_file_every_weight_and_gradient(name, tmp_path):
    bijector = build(name)
    with policy("float64"):
        flow = FlowModel(bijector)
        x, c = points(bijector), context(bijector)
        flow.save(tmp_path / "flow.keras")
        from keras.saving import load_model

        again = load_model(tmp_path / "flow.keras")
    for kept, weight in zip(again.weights, flow.weights, strict=True):
        np.testing.assert_array_equal(kept, weight)
    # The last bit of a sum depends on where in memory its terms are.
    np.testing.assert_allclose(again._log_prob(x, c), flow._log_prob(x, c), rtol=1e-13)
    assert {w.path for layer in bijector.layers for w in layer.weights} <= {w.path for w in flow.weights}
    weights = flow.trainable_weights
    assert len(weights) == sum(len(layer.trainable_weights) for layer in bijector.layers)
    with tf.GradientTape() as tape:
        # Elementwise squares: a sum of log-densities alone has zero gradient in some directions.
        z, log_det = bijector.inverse_and_log_det(x, c)
        loss = tf.reduce_sum(tf.sin(z)) + tf.reduce_sum(log_det)
    for weight, gradient in zip(weights, tape.gradient(loss, [w.value for w in weights]), strict=True):
        # A single scalar's masked kernel hears nothing, by design.
        if "one_scalar" in name and "first_kernel" in weight.path:
            continue
        assert gradient is not None, weight.path
        assert np.any(gradient != 0.0), weight.path


@EACH_MAP
def test_xla_gives_the_same(name):
    bijector = build(name)
    inputs = [v if v is None else tf.constant(v) for v in (points(bijector), latents(bijector), context(bijector))]

    def both(x, z, c):
        return *bijector.inverse_and_log_det(x, c), *bijector.forward_and_log_det(z, c)

    for a, b in zip(both(*inputs), tf.function(both, jit_compile=True, autograph=False)(*inputs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


@LAYERS
def test_float32_stays_finite_far_out(name):
    bijector = build(name, "float32")
    values = np.float32([1e4, -1e4, 0.0, 1e-8, 3.0, -3.0, float(np.pi), -float(np.pi)])
    c = context(bijector, (len(values),))
    for method, shape, numbers in (
        # No pixel is beyond 0 and 255.
        (
            bijector.inverse_and_log_det,
            bijector.event_shape,
            np.clip(values, 0, 255) if bijector.is_discrete else values,
        ),
        (bijector.forward_and_log_det, bijector.latent_shape, values),
    ):
        x = tf.constant(np.stack([np.full(shape, v) for v in numbers]))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, log_det = method(x, c)
            total = tf.reduce_sum(y) + tf.reduce_sum(log_det)
        assert np.all(np.isfinite(y))
        assert np.all(np.isfinite(log_det))
        weights = [w.value for layer in bijector.layers for w in layer.trainable_weights]
        for gradient in tape.gradient(total, [x, *weights]):
            assert gradient is None or np.all(np.isfinite(gradient))


@LAYERS
def test_round_trip_in_float32(name):
    check_round_trip(build(name, "float32"), tolerance=1e-4)


FIXED = (
    "standardize",
    "logit",
    "bounded",
    "positive",
    "circle",
    "some_circular",
    "permutation",
    "random",
    "Gaussianiz",
)


@pytest.mark.parametrize("name", [n for n in MAPS if not any(word in n for word in FIXED)])
def test_starts_as_the_identity(name):
    if name in ("chain_with_stock_tfp", "coupling_keras_net"):
        return  # their fixed or foreign parts are not
    with policy("float64"):
        bijector = MAPS[name]()
    parts = bijector.bijectors if isinstance(bijector, tfb.Chain) else [bijector]
    fresh = tfb.Chain([p for p in parts if not isinstance(p, tfb.Permutation)])
    if fresh.latent_shape != fresh.event_shape or fresh.is_discrete:
        return  # moves or scales pixels
    x, c = points(bijector), context(bijector)
    z, log_det = fresh.inverse_and_log_det(x, c)
    np.testing.assert_allclose(z, x, atol=1e-12)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-12)


@pytest.mark.parametrize("name", ["coupling_spline_any_mask", "coupling_affine_alternating"])
def test_coupling_depends_on_the_passed_scalars_only(name):
    bijector = build(name)
    mask = bijector.parameters["mask"]
    matrix, _ = jacobian(bijector, points(bijector), None)
    expected = np.eye(D, dtype=bool) | np.outer(mask, ~np.asarray(mask))
    np.testing.assert_array_equal(np.any(matrix != 0.0, axis=0), expected)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("order", [None, [3, 0, 4, 1, 2]])
@pytest.mark.parametrize("context_dim", [None, 3])
def test_autoregressive_depends_on_all_before_and_nothing_else(order, residual, context_dim):
    with policy("float64"):
        bijector = randomise(autoregressive(Affine(), context_dim, order=order, residual=residual))
    matrix, _ = jacobian(bijector, points(bijector, (50,)), context(bijector, (50,)))
    position = np.arange(D) if order is None else np.asarray(order)
    expected = position[:, None] >= position[None, :]
    np.testing.assert_array_equal(np.any(matrix != 0.0, axis=0), expected)


def test_spline_maf_equals_tfp_given_the_same_net():
    with policy("float64"):
        ours = randomise(autoregressive(Affine()))
    net = ours._net

    def parameters(x):
        shift, raw = tf.unstack(net(x), axis=-2)
        return shift, raw / (1.0 + tf.abs(raw) / 5.0)

    theirs = tfp.bijectors.MaskedAutoregressiveFlow(shift_and_log_scale_fn=parameters)
    x = points(ours)
    np.testing.assert_allclose(ours.inverse(x), theirs.inverse(tf.constant(x)), atol=1e-11)
    np.testing.assert_allclose(ours.forward(x), theirs.forward(tf.constant(x)), atol=1e-11)
    np.testing.assert_allclose(
        ours.inverse_log_det_jacobian(x, 1), theirs.inverse_log_det_jacobian(tf.constant(x), 1), atol=1e-11
    )


def test_stands_in_tfp():
    with policy("float64"):
        bijector = build("RealNVP_context")
        base = tfp.distributions.MultivariateNormalDiag(np.zeros(D), np.ones(D))
        flow = FlowModel(bijector)
    x, c = points(bijector), context(bijector)
    theirs = tfp.distributions.TransformedDistribution(base, bijector)
    np.testing.assert_allclose(theirs.log_prob(x, bijector_kwargs={"context": c}), flow.log_prob(x, c), atol=1e-10)
    z = bijector.inverse(x, context=c)
    np.testing.assert_allclose(tfp.bijectors.Invert(bijector).forward(x, context=c), z, atol=1e-12)
    extra = bijector.inverse_log_det_jacobian(x, event_ndims=2, context=c)
    np.testing.assert_allclose(extra, np.sum(bijector.inverse_log_det_jacobian(x, event_ndims=1, context=c)))


def test_stands_in_tfp_mcmc():
    with policy("float64"):
        bijector = randomise(PRESETS["RealNVP"](), scale=0.2)
    target = tfp.distributions.MultivariateNormalDiag(np.full(D, 0.5), np.ones(D))
    kernel = tfp.mcmc.TransformedTransitionKernel(
        tfp.mcmc.HamiltonianMonteCarlo(target.log_prob, np.float64(0.3), 4), bijector
    )
    draws = tf.function(
        lambda: tfp.mcmc.sample_chain(
            400, current_state=np.zeros([20, D]), kernel=kernel, num_burnin_steps=100, trace_fn=None, seed=1
        )
    )()
    np.testing.assert_allclose(np.mean(draws, axis=(0, 1)), 0.5, atol=0.1)
    np.testing.assert_allclose(np.std(draws, axis=(0, 1)), 1.0, atol=0.1)


def test_values_are_never_stale():
    """TFP caches per tensor object; after a weight update the old value would be wrong."""
    bijector = randomise(coupling(Affine(), tfb.half_mask(D)))
    chain = tfb.Chain([tfp.bijectors.Shift(1.0), bijector])
    x = tf.constant(points(bijector))
    before = chain.inverse(x).numpy()
    randomise(bijector, seed=5)
    after = chain.inverse(x).numpy()
    assert np.max(np.abs(before - after)) > 1e-3
    np.testing.assert_allclose(chain.inverse(tf.identity(x)), after)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_recomputing_runs_parts_again_and_gives_the_same_gradients(jit_compile, monkeypatch):
    kept = build("chain_with_context")
    with policy("float64"):
        chains = [kept, tfb.Chain(kept.bijectors, recompute=True)]
    x, c = tf.constant(points(kept)), tf.constant(context(kept))
    runs = []
    for part in (tfb.Coupling, tfb.MaskedAutoregressive):
        original = part._inverse_and_log_det
        monkeypatch.setattr(part, "_inverse_and_log_det", lambda *args, f=original: (runs.append(1), f(*args))[1])

    def gradient(chain):
        runs.clear()

        @tf.function(jit_compile=jit_compile)
        def function(x, c):
            with tf.GradientTape() as tape:
                tape.watch([x, c])
                log_det = chain.inverse_and_log_det(x, c)[1]
            return tape.gradient(log_det, [x, c, *chain.trainable_variables])

        return function(x, c), len(runs)

    (expected, once), (found, twice) = map(gradient, chains)
    assert twice == 2 * once
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_standardize_keeps_the_digits_of_float64_data():
    rng = np.random.default_rng(0)
    x = rng.normal(5e3, 2e-2, size=(1000, 2))
    bijector = tfb.Standardize(2)
    bijector.adapt(x)
    z = bijector.inverse(x)
    assert z.dtype == tf.float32
    expected = (x - x.mean(axis=0)) / x.std(axis=0)
    # The location is stored in float32, so all rows may be shifted by the same half step of 2.4e-4.
    np.testing.assert_allclose(z - np.mean(z, axis=0), expected, atol=2e-5)


def test_adapt_names_constant_and_unresolved_columns():
    x = np.stack([np.arange(10.0), np.full(10, 3.0), 1e6 + 1e-3 * np.arange(10)], axis=1)
    with (
        pytest.warns(UserWarning, match=r"Columns \[1\] are constant"),
        pytest.warns(UserWarning, match=r"Columns \[2\] spread so little"),
    ):
        tfb.Standardize(3).adapt(x)


def test_actnorm_after_other_layers_standardises_what_reaches_it():
    chain = tfb.Chain([tfb.Standardize(D), randomise(coupling(Affine(), tfb.half_mask(D))), tfb.ActNorm(D)])
    assert chain.needs_adapt
    x = np.random.default_rng(0).normal(4.0, 3.0, size=(500, D)).astype(np.float32)
    chain.adapt(x)
    assert not chain.needs_adapt
    z = chain.inverse(x)
    np.testing.assert_allclose(np.mean(z, axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.std(z, axis=0), 1.0, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfb.Coupling(Affine(), [True, True], MLP(4)), "at least one True and one False"),
        (lambda: tfb.Coupling(Affine(), [1, 0], MLP(4)), "mask of booleans"),
        (lambda: tfb.Coupling(Affine(), [True, False], MLP(5)), "Expected a net with 2 outputs; got MLP"),
        (lambda: tfb.Coupling(Affine(), [True, False], None), "Expected a Keras layer"),
        (lambda: tfb.MaskedAutoregressive(Affine(), MLP(4)), "Expected a MADE"),
        (lambda: tfb.Elementwise(Affine(), 2, MLP(4)), "both or neither"),
        (lambda: tfb.Elementwise(Affine(), ()), "at least one axis"),
        (lambda: tfb.Permutation([0, 2]), "Expected a permutation of 0"),
        (lambda: tfb.Chain([]), "at least one bijector"),
        (lambda: tfb.Chain(["exp"]), "Expected bijectors of tfflows or TFP"),
        (lambda: tfb.Chain([tfb.Permutation([1, 0]), tfb.Standardize(3)]), "parts of one event shape"),
        (lambda: tfb.Chain([tfp.bijectors.Shift(tf.Variable(1.0))]), "without variables"),
        (lambda: tfb.Chain([tfp.bijectors.Invert(tfb.Standardize(3))]), "own Chain and Invert"),
        (lambda: tfb.LU(()), "at least one axis"),
        (lambda: tfb.Householder(1), "something to rotate"),
        (lambda: tfb.QR(4, n_reflections=3), "even n_reflections"),
        (lambda: tfb.Planar(0), "n_dim >= 1"),
        (lambda: tfb.Planar(2, context_dim=3), "both or neither"),
        (lambda: tfb.Sylvester(3, 4), "n_ridges in 1 .. n_dim"),
        (lambda: tfb.Residual(MLP(2)), "Expected a LipschitzMLP"),
        (lambda: tfb.Residual(LipschitzMLP(2), log_det="exact"), "Expected ExactLogDet"),
        (lambda: tfb.Residual(LipschitzMLP(2), tolerance=0.0), "tolerance > 0"),
        (lambda: LipschitzMLP(2, coefficient=1.0), "coefficient in"),
        (lambda: LipschitzMLP(2, activation="relu"), "Expected one of lipswish"),
        (lambda: tfb.PowerSeries(0), "n_terms >= 1"),
        (lambda: tfb.PowerSeries("a"), "n_terms=a"),
        (lambda: tfb.Sliced("a"), "n_dim=a"),
        (lambda: tfb.RussianRoulette(n_exact=9, n_terms=3), "n_exact <= n_terms"),
        (lambda: tfb.Sliced(2, n_directions=3), "n_directions in 1 .. 2"),
        (lambda: tfb.Sliced(2, step=0.0), "step in"),
        (lambda: FreeKnotSpline(1), "n_knots >= 2"),
        (lambda: CouplingRQNSF(3, circular=True, linear=tfb.LU), "no linear map of angles"),
        (lambda: MAF(2.5), "integers n_dim >= 1"),
        (lambda: MLP(4, hidden=64), "hidden=64"),
        (lambda: MLP(4, hidden="a"), "positive widths; got hidden='a'"),
        (lambda: UMNN(hidden=(8, 0)), "positive widths"),
        (lambda: RationalQuadraticSpline(n_bins=0), "n_bins >= 1"),
        (lambda: RationalQuadraticSpline(min_bin=0.2), "min_bin in"),
        (lambda: RationalQuadraticSpline(bound=-1.0), "bound > 0"),
        (lambda: Affine(max_log_scale=0.0), "max_log_scale > 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
