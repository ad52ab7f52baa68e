"""Continuous flows: solvers, traces, losses that only they have, and what they train to."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import C, policy, randomise
from scipy import linalg

import tfflows as tff
from tfflows import FlowModel, bases, losses
from tfflows.bijectors import Chain, ContinuousFlow, ExactTrace, HutchinsonTrace, Invert, Standardize
from tfflows.bijectors.continuous import bending, kinetic_energy
from tfflows.nets import Potential, Velocity
from tfflows.ode import DormandPrince, RungeKutta4
from tfflows.randomness import training_randomness

COSTS = (kinetic_energy, bending)
MATRIX = np.array([[0.3, -0.8, 0.1], [0.5, 0.2, -0.4], [-0.2, 0.6, -0.9]])


class LinearVelocity(Velocity):
    """v = x A, whose flow is known: x exp(A)."""

    def with_derivatives(self, x, time, context, directions):
        matrix = tf.constant(MATRIX, x.dtype)
        changes = tf.einsum("knd,de->kne", directions, matrix)
        return tf.matmul(x, matrix), changes + tf.zeros_like(x)


def flow_of(n_dim, hidden=(8, 8), context_dim=None, random=True, **kwargs):
    flow = ContinuousFlow(Velocity(n_dim, hidden), context_dim, **kwargs)
    return randomise(flow) if random else flow


def normal(*shape, dtype=np.float64):
    return np.random.default_rng(3).normal(size=shape).astype(dtype)


# Solvers and traces.


@pytest.mark.parametrize("solver", [RungeKutta4(100), DormandPrince(1e-10, 1e-10)], ids=str)
def test_linear_equation_has_the_known_solution_and_trace(float64, solver):
    flow = ContinuousFlow(LinearVelocity(3), solver=solver)
    x = normal(6, 3)
    z, log_det = flow.inverse_and_log_det(x)
    np.testing.assert_allclose(z, x @ linalg.expm(MATRIX), atol=1e-7)
    np.testing.assert_allclose(log_det, np.trace(MATRIX), atol=1e-8)
    np.testing.assert_allclose(flow.forward(z), x, atol=1e-7)
    _, log_det, bent = flow.inverse_with_costs(x, costs=[bending])
    np.testing.assert_allclose(log_det, np.trace(MATRIX), atol=1e-8)
    np.testing.assert_allclose(bent, np.sum(MATRIX**2), atol=1e-8)


def test_error_falls_with_the_fourth_power_of_the_steps():
    def solution(n_steps):
        def rate(time, state, constants):
            return (constants[0] * tf.cos(time) * state[0],)

        state, constants = (tf.ones([1], tf.float64),), (tf.constant(1.5, tf.float64),)
        return RungeKutta4(n_steps).solve(rate, state, constants, start=0.0, stop=2.0)[0].numpy()[0]

    errors = [abs(solution(n) - np.exp(1.5 * np.sin(2.0))) for n in (20, 40)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["silu", "softplus", "tanh"])
def test_derivatives_of_the_velocity_equal_autodiff(float64, activation, residual):
    net = Velocity(3, (6, 6), activation, residual=residual)
    randomise(ContinuousFlow(net, 2))
    x, time, context = (tf.constant(normal(5, width)) for width in (3, 1, 2))
    with tf.GradientTape() as tape:
        tape.watch(x)
        velocity = net(x, time, context)
    jacobian = tape.batch_jacobian(velocity, x)
    directions = ExactTrace().directions(x)
    again, changes = net.with_derivatives(x, time, context, directions)
    np.testing.assert_allclose(again, velocity, atol=1e-12)
    np.testing.assert_allclose(changes, np.transpose(jacobian, [2, 0, 1]), atol=1e-12)


@pytest.mark.parametrize("hidden", [(6,), (6, 6, 6)])
def test_potential_velocity_is_its_slope(float64, hidden):
    """Against the formula of the potential itself, differentiated by TensorFlow."""
    net = Potential(3, hidden, rank=2)
    randomise(ContinuousFlow(net, 2))
    x, time, context = (tf.constant(normal(5, width)) for width in (3, 1, 2))

    def potential(x, time):
        s = tf.concat([x, time, context], axis=-1)
        value = 0.0
        for i, (kernel, bias) in enumerate(zip(net.kernels, net.biases, strict=True)):
            activated = tf.math.log(2.0 * tf.cosh((s if i == 0 else value) @ kernel + bias))
            value = activated if i == 0 else value + activated / (len(hidden) - 1)
        quadratic = tf.reduce_sum((s @ net.left) * (s @ net.right), axis=-1)
        return (value @ net.outputs)[:, 0] + quadratic + tf.linalg.matvec(s, net.linear)

    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch([x, time])
            value = potential(x, time)
        slope, rate = tape.gradient(value, [x, time])
    directions = ExactTrace().directions(x)
    velocity, changes = net.with_derivatives(x, time, context, directions)
    np.testing.assert_allclose(velocity, -slope, atol=1e-12)
    np.testing.assert_allclose(changes, -np.transpose(outer.batch_jacobian(slope, x), [2, 0, 1]), atol=1e-12)
    np.testing.assert_allclose(net(x, time, context), velocity, atol=1e-12)
    expected = rate[:, 0] - 0.5 * np.sum(slope**2, axis=-1)
    np.testing.assert_allclose(net.hamilton_jacobi(x, time, context), expected, atol=1e-12)


def test_hutchinson_is_right_on_average_and_fixed_outside_training(float64):
    exact = flow_of(12, trace=ExactTrace())
    assert "HutchinsonTrace" in flow_of(12).describe()
    assert "ExactTrace" in flow_of(8).describe()
    estimate = ContinuousFlow(exact._net, trace=HutchinsonTrace(2))
    x = normal(40, 12)
    _, log_det, kinetic, bent = exact.inverse_with_costs(x, costs=COSTS)
    z, first = estimate.inverse_and_log_det(x)
    np.testing.assert_allclose(z, exact.inverse(x), atol=1e-12)
    np.testing.assert_array_equal(estimate.inverse_and_log_det(x)[1], first)
    np.testing.assert_allclose(estimate.inverse_and_log_det(x[3:5])[1], first[3:5], atol=1e-12)

    @tf.function(jit_compile=True, autograph=False)
    def draw(seed):
        with training_randomness(seed):
            return estimate.inverse_with_costs(x, costs=COSTS)[1:]

    draws = [draw(tf.constant([0, i])) for i in range(400)]
    assert np.all(np.std([d[0] for d in draws], axis=0) > 0.0)
    for i, truth in enumerate((log_det, kinetic, bent)):
        values = np.mean([d[i] for d in draws], axis=1)  # of all rows, for each seed
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - np.mean(truth)) < 4.0 * error + 1e-9


SEED = tf.constant([3, 4])


@pytest.mark.parametrize("trace", [ExactTrace(), HutchinsonTrace(3)], ids=str)
@pytest.mark.parametrize("solver", [RungeKutta4(8), DormandPrince(1e-9, 1e-9)], ids=str)
def test_gradients_equal_differences(float64, solver, trace):
    flow = flow_of(2, (4, 4), 1, trace=trace, solver=solver)
    x, context = tf.constant(normal(3, 2)), tf.constant(normal(3, 1))
    weights = flow.layers[0].trainable_weights

    @tf.function(jit_compile=isinstance(solver, RungeKutta4), autograph=False)
    def objective(x, context):
        with training_randomness(SEED):  # elsewhere the signs of an estimate jump from row to row
            z, log_det = flow.inverse_and_log_det(x, context)
            return tf.reduce_sum(tf.sin(z)) + tf.reduce_sum(log_det)

    @tf.function(jit_compile=isinstance(solver, RungeKutta4), autograph=False)
    def gradients(x, context):
        with training_randomness(SEED), tf.GradientTape() as tape:
            tape.watch([x, context])
            value = objective(x, context)
            return tape.gradient(value, [x, context, *(w.value for w in weights)])

    found = gradients(x, context)
    step = 1e-5
    for i, value in enumerate((x, context)):
        up, down = ([x, context] for _ in range(2))
        push = step * normal(*value.shape)
        up[i], down[i] = value + push, value - push
        slope = (objective(*up) - objective(*down)) / 2.0
        assert float(slope) == pytest.approx(float(tf.reduce_sum(found[i] * push)), rel=1e-4)
    for weight, gradient in zip(weights, found[2:], strict=True):
        before, push = weight.numpy(), step * normal(*weight.shape)
        weight.assign(before + push)
        up = objective(x, context)
        weight.assign(before - push)
        slope = (up - objective(x, context)) / 2.0
        weight.assign(before)
        assert float(slope) == pytest.approx(float(np.sum(gradient * push)), rel=1e-4, abs=1e-10), weight.path


@pytest.mark.parametrize("recompute", [False, True])
def test_second_derivatives_are_right_or_refused(float64, recompute):
    flow = flow_of(2, (4, 4), solver=RungeKutta4(5, recompute=recompute))

    def score(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            z, log_det = flow.inverse_and_log_det(x)
            value = log_det - 0.5 * tf.reduce_sum(z**2, axis=-1)
        return tape.gradient(value, x)

    @tf.function(autograph=False)
    def hessian_product(x, direction):
        with tf.GradientTape() as tape:
            tape.watch(x)
            slope = tf.reduce_sum(score(x) * direction)
        return tape.gradient(slope, x)

    x, direction = tf.constant(normal(3, 2)), tf.constant(normal(2, 3, 2)[1])
    if recompute:
        with pytest.raises(NotImplementedError):
            hessian_product(x, direction)
        return
    expected = (score(x + 1e-5 * direction) - score(x - 1e-5 * direction)) / 2e-5
    np.testing.assert_allclose(hessian_product(x, direction), expected, atol=1e-6)


# Training.


def test_default_loss_is_what_the_bijector_names():
    def fresh(bijector):
        flow = FlowModel(bijector)
        flow.compile()
        return flow

    assert isinstance(fresh(tff.FlowMatching(2)).flow_loss, losses.FlowMatching)
    loss = fresh(tff.RNODE(2, kinetic=0.3, jacobian=0.2)).flow_loss
    assert (loss.kinetic, loss.jacobian) == (0.3, 0.2)
    assert type(fresh(Chain([tff.RNODE(2)])).flow_loss) is losses.RegularizedLikelihood
    for other in (tff.FFJORD(2), tff.RealNVP(2), Invert(flow_of(2, default_loss=losses.FlowMatching()))):
        assert type(fresh(other).flow_loss) is losses.NegativeLogLikelihood
    flow = FlowModel(tff.FlowMatching(2))
    flow.compile(loss=losses.NegativeLogLikelihood())
    assert type(flow.flow_loss) is losses.NegativeLogLikelihood


@pytest.mark.usefixtures("without_xla")
def test_files_keep_the_flow_its_settings_and_its_loss(tmp_path):
    x, context = normal(30, 2, dtype=np.float32), normal(30, C, dtype=np.float32)
    bijector = tff.RNODE(2, hidden=(8,), trace=HutchinsonTrace(2), solver=RungeKutta4(3), kinetic=0.5, context_dim=C)
    flow = FlowModel(bijector)
    flow.fit(x, context, epochs=1, verbose=0)
    flow.save(tmp_path / "flow.keras")
    again = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(again.log_prob(x, context), flow.log_prob(x, context))
    assert again.flow_loss.kinetic == 0.5
    assert again.bijector.default_loss.kinetic == 0.5
    assert again.bijector.bijectors[1].describe() == flow.bijector.bijectors[1].describe()
    again.fit(x, context, epochs=1, verbose=0)


def test_regularized_likelihood_adds_its_prices(float64):
    bijector = Chain([Standardize(2), flow_of(2), randomise(tff.RealNVP(2, n_layers=2, hidden=(4,)), 0.2), flow_of(2)])
    x = normal(20, 2)
    bijector.adapt(x)
    flow = FlowModel(bijector)
    nll = losses.NegativeLogLikelihood()(flow, x, None)
    np.testing.assert_allclose(losses.RegularizedLikelihood(0.0, 0.0)(flow, x, None), nll, atol=1e-10)
    z = bijector.bijectors[0].inverse(x)
    z, _, kinetic, bending = bijector.bijectors[1].inverse_with_costs(z, costs=COSTS)
    last = bijector.bijectors[3].inverse_with_costs(bijector.bijectors[2].inverse(z), costs=COSTS)
    expected = nll + 0.3 * (kinetic + last[2]) + 0.2 * (bending + last[3])
    np.testing.assert_allclose(losses.RegularizedLikelihood(0.3, 0.2)(flow, x, None), expected, atol=1e-10)


@pytest.mark.usefixtures("without_xla")
def test_regularized_ways_are_shorter():
    x = tff.datasets.TwoMoons().sample(600, seed=0)
    costs = []
    for weight in (0.0, 1.0):
        keras.utils.set_random_seed(1)
        flow = FlowModel(tff.RNODE(2, hidden=(16, 16), kinetic=weight, jacobian=weight, solver=RungeKutta4(4)))
        flow.compile(keras.optimizers.Adam(1e-2))
        flow.fit(x, epochs=20, verbose=0)
        standardize, ode = flow.bijector.bijectors
        costs.append(
            [float(tf.reduce_mean(c)) for c in ode.inverse_with_costs(standardize.inverse(x), costs=COSTS)[2:]]
        )
    assert costs[1][0] < 0.8 * costs[0][0]
    assert costs[1][1] < 0.8 * costs[0][1]


def test_potential_flow_pays_for_its_equation(float64):
    """The third price is the integral of what the potential's net says it is."""
    flow = FlowModel(randomise(tff.OTFlow(2, hidden=(6, 6), kinetic=0.0, hjb=0.7, solver=RungeKutta4(40))))
    x = normal(20, 2)
    standardize, ode = flow.bijector.bijectors
    loss = flow.bijector.default_loss(flow, x, None) - losses.NegativeLogLikelihood()(flow, x, None)
    # The way itself in 100 pieces, by midpoints.
    state, total, n = tf.constant(standardize.inverse(x)), 0.0, 100
    for i in range(n):
        slope = ode.velocity(state, tf.constant([[(i + 0.5) / n]], tf.float64))
        middle = state + slope / (2 * n)
        time = tf.constant([[(i + 0.5) / n]], tf.float64)
        total += abs(ode.layers[0].hamilton_jacobi(middle, time, None)) / n
        state = state + ode.velocity(middle, time) / n
    np.testing.assert_allclose(loss, 0.7 * total, rtol=1e-2)
    with pytest.raises(ValueError, match="a Potential"):
        losses.RegularizedLikelihood(hjb=1.0)(FlowModel(flow_of(2)), x, None)


class GivenVelocity(Velocity):
    """The best velocity from N(0, diag(scale^2)) to N(0, I) along straight lines, which is linear in x."""

    SCALE = np.array([2.0, 0.5])

    def call(self, x, time, context=None):
        scale = tf.constant(self.SCALE, x.dtype)
        # E[z - x | x_t], for independent normals.
        return x_t_slope(time, scale) * x


def x_t_slope(time, scale):
    return (time - (1.0 - time) * scale**2) / ((1.0 - time) ** 2 * scale**2 + time**2)


def test_flow_matching_of_normals_is_least_at_the_known_velocity(float64):
    x = normal(20_000, 2) * GivenVelocity.SCALE
    flow = FlowModel(ContinuousFlow(GivenVelocity(2)))
    loss = losses.FlowMatching()
    found = float(tf.reduce_mean(loss(flow, x, None)))
    np.testing.assert_array_equal(loss(flow, x, None), loss(flow, x, None))  # held-out losses can be compared
    # Var[z - x | x_t], averaged over t: scale^2 / ((1 - t)^2 scale^2 + t^2).
    t = (np.arange(10_000) + 0.5) / 10_000
    scale = GivenVelocity.SCALE[:, None]
    least = np.mean(scale**2 / ((1.0 - t) ** 2 * scale**2 + t**2), axis=1).sum()
    assert found == pytest.approx(least, rel=0.02)

    # A fit comes near to it, and its likelihood near to the truth's.
    keras.utils.set_random_seed(0)
    with policy("float32"):
        fitted = FlowModel(ContinuousFlow(Velocity(2, (32, 32)), default_loss=losses.FlowMatching()))
        fitted.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 1600)))
        fitted.fit(x[:10_000], epochs=40, verbose=0)
        reached = fitted.evaluate(x[10_000:], verbose=0)
        log_prob = np.mean(fitted.log_prob(x[10_000:]))
    assert reached == pytest.approx(least, rel=0.03)
    truth = np.mean(np.sum(-0.5 * (x[10_000:] / scale.T) ** 2 - np.log(scale.T * np.sqrt(2.0 * np.pi)), axis=1))
    assert log_prob == pytest.approx(truth, abs=0.02)


def test_flow_matching_sees_what_the_equation_sees(float64):
    """Parts before the equation act on the data, parts after it on the draws; new draws at every training step."""
    x, context = normal(50, 2) * 3.0 + 5.0, normal(50, C)
    before = Standardize(2)
    before.adapt(x)
    after = randomise(tff.RealNVP(2, n_layers=2, hidden=(4,), context_dim=C).bijectors[1])
    seen = []

    class Recording(Velocity):
        def call(self, x, time, context=None):
            seen.append((x, time, context))
            return super().call(x, time, context)

    ode = ContinuousFlow(Recording(2, (4,)), C)
    flow = FlowModel(Chain([before, ode, after]), bases.DiagonalNormal(2))
    loss = losses.FlowMatching()
    value = loss(flow, x, context)
    (x_t, time, heard), standardized = seen[-1], before.inverse(x)
    target = (x_t - standardized) / time  # = z - x
    np.testing.assert_allclose(value, np.sum(target**2, axis=-1), rtol=1e-6)  # the velocity is zero
    np.testing.assert_array_equal(heard, context)
    np.testing.assert_allclose(np.sort(np.floor(time[:, 0] * 50)), np.arange(50))
    z = after.inverse(standardized + target, context=context)
    np.testing.assert_allclose(np.std(z, axis=0), 1.0, atol=0.3)
    steps = []
    for seed in ([0, 1], [0, 2], [0, 2]):
        with training_randomness(tf.constant(seed)):
            steps.append(loss(flow, x, context).numpy())
    assert np.all(steps[0] != steps[1])
    np.testing.assert_array_equal(steps[1], steps[2])
    for parts in ([before], [flow_of(2), flow_of(2)]):
        with pytest.raises(ValueError, match="Expected a bijector with one ContinuousFlow"):
            loss(FlowModel(Chain(parts)), x, None)


class Recorded(losses.Loss):
    """The first row's draw, as the loss."""

    def __call__(self, flow, x, context):
        return HutchinsonTrace().directions(x)[0, :, 0] + 0.0 * flow.log_prob(x)


def test_steps_of_a_fit_draw_anew_and_the_seed_fixes_them():
    x = normal(64, 2, dtype=np.float32)

    def history(seed, jit_compile):
        keras.utils.set_random_seed(seed)
        flow = FlowModel(flow_of(2, random=False, solver=RungeKutta4(1)))
        flow.compile(keras.optimizers.SGD(0.0), Recorded(), jit_compile=jit_compile)
        return flow.fit(x, epochs=6, validation_data=x, verbose=0).history

    first, second = history(5, True), history(5, False)
    assert len(set(first["loss"])) > 2
    np.testing.assert_allclose(first["loss"], second["loss"], atol=1e-6)
    assert first["loss"] != history(6, True)["loss"]
    assert len(set(first["val_loss"])) == 1


@pytest.mark.parametrize("preset", [tff.FFJORD, tff.FlowMatching])
def test_a_fit_hears_its_context(preset, rng):
    context = rng.uniform(-1.0, 1.0, size=(1000, 1)).astype(np.float32)
    x = (2.0 * context + 0.3 * rng.normal(size=(1000, 1))).astype(np.float32)
    flow = FlowModel(preset(1, hidden=(32, 32), solver=RungeKutta4(6), context_dim=1))
    flow.compile(keras.optimizers.Adam(1e-2))
    flow.fit(x, context, epochs=60, verbose=0)
    truth = np.log(0.3) + 0.5 * np.log(2.0 * np.pi * np.e)
    assert -np.mean(flow.log_prob(x, context)) == pytest.approx(truth, abs=0.15)
    draws = flow.sample(500, np.array([0.5], np.float32), seed=0).numpy()
    assert np.mean(draws) == pytest.approx(1.0, abs=0.15)


def test_adaptive_solver_trains_without_xla():
    x = normal(200, 2, dtype=np.float32) * [0.2, 3.0] + 1.0
    flow = FlowModel(tff.FFJORD(2, hidden=(8,), solver=DormandPrince(1e-3, 1e-3), context_dim=None))
    flow.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    losses_seen = flow.fit(x, epochs=2, batch_size=100, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses_seen))
    z = flow.encode(x)
    np.testing.assert_allclose(flow.decode(z), x, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ContinuousFlow(tff.nets.MLP(2)), "Expected a Velocity or a Potential"),
        (lambda: flow_of(2, trace="exact"), "Expected ExactTrace"),
        (lambda: flow_of(2, solver="rk4"), "Expected a solver"),
        (lambda: Velocity(2, activation="relu"), "Expected one of tanh, softplus, silu"),
        (lambda: Potential(2, (4, 5)), "of one width"),
        (lambda: Potential(2, rank=0), "rank >= 1"),
        (lambda: Velocity(2, n_frequencies=-1), "n_frequencies >= 0"),
        (lambda: RungeKutta4(0), "n_steps >= 1"),
        (lambda: RungeKutta4(2.5), "n_steps=2.5"),
        (lambda: DormandPrince(rtol=0.0), "rtol > 0"),
        (lambda: HutchinsonTrace(0), "n_probes >= 1"),
        (lambda: losses.RegularizedLikelihood(-1.0), "kinetic >= 0"),
        (lambda: tff.FFJORD(0), "n_dim >= 1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_estimates_agree_in_both_directions_beyond_exact_ones():
    """In float32, behind a layer that rounds: at the same points draws and densities have the same estimate."""
    flow = FlowModel(tff.FFJORD(12, hidden=(16,)))
    randomise(flow.bijector, scale=0.3)
    x, log_prob = flow.sample_and_log_prob(400, seed=0)
    difference = np.abs(flow.log_prob(x) - log_prob)
    exact = FlowModel(tff.FFJORD(12, hidden=(16,), trace=ExactTrace()))
    exact.set_weights(flow.get_weights())
    noise = np.std(flow.log_prob(x).numpy() - exact.log_prob(x).numpy())
    assert noise > 0.01
    # A row whose numbers were rounded across a step of the signs is another estimate; few are.
    assert np.mean(difference > 0.1 * noise) < 0.05
    one_by_one = np.concatenate([flow.log_prob(row[None]) for row in x.numpy()[:40]])
    assert np.mean(np.abs(one_by_one - flow.log_prob(x)[:40]) > 0.1 * noise) <= 0.05
