"""The tables that drive the tests: every transformer, bijector and preset, and a deliberately wrong one."""

from __future__ import annotations

import contextlib
import functools
import math
import resource
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfflows as tff
from tfflows import bijectors as tfb
from tfflows.nets import MADE, MLP, ConvNet, LipschitzMLP, Potential, Velocity
from tfflows.ode import RungeKutta4
from tfflows.transformers import (
    UMNN,
    Affine,
    Bernstein,
    DeepSigmoid,
    FreeKnotSpline,
    LinearRationalSpline,
    MixtureOfLogistics,
    RationalQuadraticSpline,
    Shift,
    SigmoidAffine,
    SumOfSquares,
)

D, C = 5, 3  # scalars and context width in every case that does not say otherwise
HIDDEN = (12, 12)

TRANSFORMERS = {
    "shift": Shift(),
    "rotation": Shift(circular_bound=np.pi),
    "affine": Affine(),
    "sigmoid_affine": SigmoidAffine(),
    "rq_spline": RationalQuadraticSpline(n_bins=5, bound=3.0),
    "rq_spline_one_bin": RationalQuadraticSpline(n_bins=1, bound=3.0),
    "rq_spline_circular": RationalQuadraticSpline(n_bins=5, bound=float(np.pi), circular=True),
    "lr_spline": LinearRationalSpline(n_bins=5, bound=3.0),
    "lr_spline_one_bin": LinearRationalSpline(n_bins=1, bound=3.0),
    "lr_spline_circular": LinearRationalSpline(n_bins=5, bound=float(np.pi), circular=True),
    "free_knot_spline": FreeKnotSpline(n_knots=5),
    "deep_sigmoid": DeepSigmoid(n_units=4, n_layers=2),
    "dense_sigmoid": DeepSigmoid(n_units=3, n_layers=3, dense=True),
    "mixture_of_logistics": MixtureOfLogistics(n_components=4),
    "bernstein": Bernstein(degree=7, bound=3.0),
    "sum_of_squares": SumOfSquares(n_polynomials=2, degree=2, bound=3.0),
}


def coupling(transformer, mask, context_dim=None, **kwargs):
    return tfb.Coupling(
        transformer, mask, MLP(int(np.sum(mask)) * transformer.n_parameters, HIDDEN, **kwargs), context_dim
    )


def autoregressive(transformer, context_dim=None, n_dim=D, hidden=HIDDEN, **kwargs):
    return tfb.MaskedAutoregressive(transformer, MADE(n_dim, transformer.n_parameters, hidden, **kwargs), context_dim)


def fine():
    """A solver whose error is below what the tests allow, about 1e-10, in float32 1e-7.

    Its directions are inverse to each other, and its log-det is that of the map it computes, up to that error.
    """
    return RungeKutta4(n_steps=250 if keras.config.dtype_policy().variable_dtype == "float64" else 40)


def continuous(context_dim=None, **kwargs):
    return tfb.ContinuousFlow(Velocity(D, HIDDEN, **kwargs), context_dim, solver=fine())


IMAGE = (4, 4, 3)


def image_coupling(transformer, mask, context_dim=None, plane=(2, 2), **kwargs):
    net = ConvNet(int(np.sum(mask)) * transformer.n_parameters, **{"hidden": 6, **kwargs})
    return tfb.Coupling(transformer, mask, net, context_dim, (*plane, len(mask)))


def multiscale(context_dim=None):
    levels = []
    for n_channels, plane in ((12, (2, 2)), (24, (1, 1))):
        squeeze = tfb.Squeeze((2 * plane[0], 2 * plane[1], n_channels // 4))
        levels.append(tfb.Chain([squeeze, image_coupling(Affine(), tfb.half_mask(n_channels), context_dim, plane)]))
    return tfb.Multiscale(levels)


SPLINE = TRANSFORMERS["rq_spline"]
ORDER = [3, 0, 4, 1, 2]

BIJECTORS: dict[str, Callable[[], tfb.Bijector]] = {
    "elementwise_affine": lambda: tfb.Elementwise(Affine(), D),
    "elementwise_spline": lambda: tfb.Elementwise(SPLINE, D),
    "elementwise_context": lambda: tfb.Elementwise(SPLINE, D, MLP(D * SPLINE.n_parameters, HIDDEN), C),
    "elementwise_image": lambda: tfb.Elementwise(Affine(), (2, 2, 3)),
    "coupling_shift_half": lambda: coupling(Shift(), tfb.half_mask(D)),
    "coupling_affine_alternating": lambda: coupling(Affine(), tfb.alternating_mask(D)),
    "coupling_affine_context": lambda: coupling(Affine(), tfb.half_mask(D, flip=True), C),
    "coupling_spline_any_mask": lambda: coupling(SPLINE, [True, False, True, True, False]),
    "coupling_spline_residual_context": lambda: coupling(SPLINE, tfb.half_mask(D), C, residual=True),
    "coupling_circular": lambda: coupling(TRANSFORMERS["rq_spline_circular"], tfb.half_mask(D), circular=True),
    "coupling_some_circular": lambda: coupling(
        SPLINE, [True, False, True, True, False], circular=[True, False], circular_bound=3.0
    ),
    "coupling_keras_net": lambda: tfb.Coupling(
        Affine(), tfb.half_mask(D), keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(6)])
    ),
    "coupling_umnn_context": lambda: coupling(UMNN(3, (5,), bound=3.0), tfb.half_mask(D), C),
    "autoregressive_umnn": lambda: autoregressive(UMNN(3, (5,), bound=3.0), n_dim=3),
    "autoregressive_affine": lambda: autoregressive(Affine()),
    "autoregressive_affine_order": lambda: autoregressive(Affine(), order=ORDER),
    "autoregressive_affine_context": lambda: autoregressive(Affine(), C, order=ORDER),
    "autoregressive_spline": lambda: autoregressive(SPLINE),
    "autoregressive_spline_residual_context": lambda: autoregressive(SPLINE, C, residual=True, order=ORDER),
    "autoregressive_one_scalar_context": lambda: autoregressive(Affine(), C, n_dim=1),
    "autoregressive_some_circular_context": lambda: autoregressive(
        SPLINE, C, order=ORDER, circular=[True, False, True, False, False], circular_bound=3.0
    ),
    "autoregressive_two_circular": lambda: autoregressive(SPLINE, n_dim=2, circular=True, circular_bound=3.0),
    "inverse_autoregressive": lambda: tfb.Invert(autoregressive(Affine())),
    "permutation": lambda: tfb.Permutation(ORDER),
    "permutation_reverse": lambda: tfb.Permutation.reverse(D),
    "permutation_random": lambda: tfb.Permutation.random(D, seed=1),
    "lu": lambda: tfb.LU(D),
    "lu_random": lambda: tfb.LU(D, seed=2),
    "lu_image": lambda: tfb.LU(IMAGE),
    "qr": lambda: tfb.QR(D),
    "qr_image_two_reflections": lambda: tfb.QR((2, 2, 3), n_reflections=2),
    "householder": lambda: tfb.Householder(D),
    "matrix_exponential": lambda: tfb.MatrixExponential(D),
    "matrix_exponential_image": lambda: tfb.MatrixExponential((2, 2, 3)),
    "random_rotation": lambda: tfb.RandomRotation(D, seed=3),
    "planar": lambda: tfb.Planar(D),
    "planar_context": lambda: tfb.Planar(D, MLP(2 * D + 1, HIDDEN), C),
    "radial": lambda: tfb.Radial(D),
    "radial_context": lambda: tfb.Radial(D, MLP(D + 2, HIDDEN), C),
    "sylvester": lambda: tfb.Sylvester(D, 3),
    "sylvester_context": lambda: tfb.Sylvester(D, D, MLP(D * (2 * D + 1), HIDDEN), C),
    "residual": lambda: tfb.Residual(LipschitzMLP(D, HIDDEN, 0.5)),
    "residual_tanh_context": lambda: tfb.Residual(LipschitzMLP(D, HIDDEN, 0.5, "tanh"), C),
    "sliced": lambda: tfb.Sliced(D, n_layers=2, n_directions=2, n_knots=6),
    "standardize": lambda: tfb.Standardize(D),
    "standardize_whiten": lambda: tfb.Whiten(D),
    "standardize_image": lambda: tfb.Standardize((2, 2, 3)),
    "actnorm": lambda: tfb.ActNorm(D),
    "actnorm_image": lambda: tfb.ActNorm(IMAGE),
    "squeeze": lambda: tfb.Squeeze(IMAGE),
    "bounded": lambda: tfb.Bounded([-8.0, -math.inf, -9.0, -math.inf][:D], [9.0, 8.0, math.inf, math.inf][:D]),
    "positive": lambda: tfb.Positive([-4.0, -5.0]),
    "circle": lambda: tfb.Circle([7.0, 360.0], [-3.5, -20.0], 5.0),
    "blockwise_context": lambda: tfb.Blockwise(
        [coupling(SPLINE, tfb.half_mask(2), C), tfb.Elementwise(Affine(), 1)], [[4, 0], [2]], D
    ),
    "logit": lambda: tfb.Logit(D, margin=0.1),
    "squeeze_inverted": lambda: tfb.Invert(tfb.Squeeze(IMAGE)),
    "dequantize": lambda: tfb.Dequantize(IMAGE),
    "coupling_image": lambda: image_coupling(Affine(), tfb.half_mask(3), plane=(4, 4)),
    "coupling_image_residual_context": lambda: image_coupling(
        SPLINE, tfb.half_mask(4), C, hidden=(6, 6, 6), residual=True
    ),
    "coupling_checkerboard_context": lambda: tfb.Chain(
        [tfb.Squeeze((4, 4, 1)), image_coupling(Affine(), tfb.checkerboard_mask(1), C)]
    ),
    "multiscale": multiscale,
    "multiscale_context": lambda: multiscale(C),
    "chain_with_context": lambda: tfb.Chain([coupling(SPLINE, tfb.half_mask(D), C), autoregressive(Affine(), C)]),
    "chain_recomputed": lambda: tfb.Chain(
        [coupling(SPLINE, tfb.half_mask(D), C), autoregressive(Affine(), C)], recompute=True
    ),
    "chain_with_stock_tfp": lambda: tfb.Chain(
        [
            tfp.bijectors.Scale(_number(2.0)),
            coupling(Affine(), tfb.half_mask(D), C),
            tfb.Invert(tfp.bijectors.SinhArcsinh(_number(0.2), _number(1.1))),
        ]
    ),
    "continuous_residual_context": lambda: continuous(C, activation="tanh", residual=True),
    "continuous_inverted": lambda: tfb.Invert(continuous(activation="softplus")),
    "continuous_potential_context": lambda: tfb.ContinuousFlow(Potential(D, HIDDEN, rank=2), C, solver=fine()),
}

SMALL = {"n_layers": 2, "hidden": HIDDEN}

# Two layers show how they follow each other; of one with a context the second would be the first again.
PRESETS: dict[str, Callable[[], tfb.Bijector]] = {
    f"{preset.__name__}{suffix}": functools.partial(preset, **{"n_dim": D, **SMALL, **kwargs})
    for preset in (
        tff.NICE,
        tff.RealNVP,
        tff.MAF,
        tff.IAF,
        tff.CouplingRQNSF,
        tff.MaskedAutoregressiveRQNSF,
        tff.InverseAutoregressiveRQNSF,
        tff.CouplingLRS,
        tff.MaskedAutoregressiveLRS,
        tff.InverseAutoregressiveLRS,
        tff.UMNNMAF,
        tff.CouplingUMNN,
        tff.NAF,
        tff.CouplingNAF,
        tff.InverseNAF,
        tff.SOSPF,
        tff.BPF,
        tff.FlowPlusPlus,
        tff.GaussianizationFlow,
        tff.Planar,
        tff.Radial,
        tff.Sylvester,
    )
    for suffix, kwargs in (("", {}), ("_context", {"context_dim": C, "n_layers": 1}))
}
PRESETS["CouplingRQNSF_one_scalar"] = lambda: tff.CouplingRQNSF(1, **SMALL)
PRESETS["MAF_one_scalar_context"] = lambda: tff.MAF(1, **SMALL, context_dim=C)
PRESETS["CouplingRQNSF_rotated"] = lambda: tff.CouplingRQNSF(D, **SMALL, linear=tfb.MatrixExponential)
PRESETS["InvertibleResNet"] = lambda: tff.InvertibleResNet(3, **SMALL, coefficient=0.5)
PRESETS["ResidualFlow_context"] = lambda: tff.ResidualFlow(
    3, **SMALL, coefficient=0.5, log_det=tfb.ExactLogDet(), context_dim=C
)
for preset in (tff.InverseUMNNMAF, tff.InverseSOSPF, tff.InverseBPF):
    PRESETS[f"{preset.__name__}_context"] = functools.partial(preset, 3, n_layers=1, hidden=HIDDEN, context_dim=C)
CIRCULAR = np.array([True, False, False, True, False])
for preset in (tff.CouplingRQNSF, tff.MaskedAutoregressiveRQNSF, tff.InverseAutoregressiveRQNSF):
    PRESETS[f"{preset.__name__}_some_circular"] = functools.partial(
        lambda preset: tff.domains.on_circles(preset(D, **SMALL), CIRCULAR, 5.0)[0], preset
    )
PRESETS["SINF"] = lambda: tff.SINF(D, n_layers=2, n_knots=8)
PRESETS["CouplingRQNSF_circular"] = lambda: tff.CouplingRQNSF(D, **SMALL, circular=True)
PRESETS["FFJORD"] = lambda: tff.FFJORD(2, hidden=(6, 6), solver=fine())
PRESETS["RNODE_context"] = lambda: tff.RNODE(2, hidden=(6, 6), solver=fine(), context_dim=C)
PRESETS["OTFlow"] = lambda: tff.OTFlow(2, hidden=(6, 6), solver=fine())
PRESETS["FlowMatching_context"] = lambda: tff.FlowMatching(2, hidden=(6, 6), solver=fine(), context_dim=C)

IMAGE_PRESETS: dict[str, Callable[[], tfb.Bijector]] = {
    "Glow": lambda: tff.Glow(IMAGE, levels=2, steps=1, hidden=6),
    "Glow_context": lambda: tff.Glow((4, 4, 1), levels=1, steps=2, hidden=6, context_dim=C, logit=True),
    "Glow_spline_recomputed": lambda: tff.Glow(
        (4, 4, 1), levels=1, steps=2, hidden=(6, 6), residual=True, transformer=lambda: SPLINE, recompute=True
    ),
    "MultiscaleRealNVP": lambda: tff.MultiscaleRealNVP(IMAGE, levels=2, steps=1, hidden=(6, 6)),
    "MultiscaleRealNVP_context": lambda: tff.MultiscaleRealNVP(
        (4, 4, 1), levels=1, steps=1, hidden=6, residual=False, context_dim=C
    ),
}
PRESETS |= IMAGE_PRESETS

MAPS = {**BIJECTORS, **PRESETS}
# All kinds of parts there are: of most presets `BIJECTORS` has them. A new one with a part of its own belongs here.
PARTS = [
    *BIJECTORS,
    "CouplingLRS_context",
    "MaskedAutoregressiveLRS_context",
    "NAF_context",
    "CouplingNAF_context",
    "SOSPF_context",
    "BPF_context",
    "FlowPlusPlus_context",
    "GaussianizationFlow_context",
    "Glow_context",
    "Glow_spline_recomputed",
    "MultiscaleRealNVP",
]


class WrongLogDet(tfb.Bijector):
    """Doubles its input and forgets one scalar in the log-det: what the harness must catch."""

    def __init__(self):
        super().__init__(dict(locals()), event_shape=(D,))

    def _forward_and_log_det(self, z, context):
        return 2.0 * z, (D - 1) * np.log(2.0) + tf.zeros_like(z[..., 0])

    def _inverse_and_log_det(self, x, context):
        return 0.5 * x, -(D - 1) * np.log(2.0) + tf.zeros_like(x[..., 0])


@contextlib.contextmanager
def policy(name: str):
    """Builds what is built inside under a Keras dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _number(x):
    return tf.constant(x, keras.config.dtype_policy().variable_dtype)


def randomise(bijector: tfb.Bijector, scale: float = 0.5, seed: int = 0) -> tfb.Bijector:
    """Gives every trained weight a random value, and data-dependent layers random data."""
    rng = np.random.default_rng(seed)
    for layer in bijector.layers:
        for weight in layer.trainable_weights:
            weight.assign(scale * rng.normal(size=weight.shape))
    if bijector.needs_adapt:
        x = points(bijector, (50,)) if bijector.is_discrete else rng.normal(0.3, 1.7, size=(50, *bijector.event_shape))
        bijector.adapt(x.astype(bijector.dtype.as_numpy_dtype), context(bijector, (50,), seed))
    return bijector


@functools.lru_cache(maxsize=4)
def build(name: str, dtype: str = "float64") -> tfb.Bijector:
    """The table's entry with random weights; the last few are kept, not all, because each holds the graphs it ran."""
    with policy(dtype):
        # At 0.5 two layers stretch by up to 1e4, and no formula has digits left for that in float32. A convolution sums
        # nine times as many products.
        bijector, scale = MAPS[name](), 0.5 if dtype == "float64" else 0.3
        has_convolutions = any(isinstance(layer, ConvNet) for layer in bijector.layers)
        return randomise(bijector, scale / 3.0 if has_convolutions else scale)


def points(bijector: tfb.Bijector, batch_shape=(8,), seed: int = 1) -> np.ndarray:
    """Data to try a bijector on, inside [-pi, pi) so that circular ones need no wrapping; pixels are 0 to 255."""
    rng = np.random.default_rng(seed)
    if bijector.is_discrete:
        x = rng.integers(0, 256, size=(*batch_shape, *bijector.event_shape))
        return x.astype(bijector.dtype.as_numpy_dtype)
    x = np.clip(rng.normal(size=(*batch_shape, *bijector.event_shape)), -3.0, 3.0)
    return x.astype(bijector.dtype.as_numpy_dtype)


def latents(bijector: tfb.Bijector, batch_shape=(8,)) -> np.ndarray:
    """Latents to try a bijector on: `points`, in the latent's shape."""
    rng = np.random.default_rng(1)
    z = np.clip(rng.normal(size=(*batch_shape, *bijector.latent_shape)), -3.0, 3.0)
    return z.astype(bijector.dtype.as_numpy_dtype)


def context(bijector: tfb.Bijector, batch_shape=(8,), seed: int = 2) -> np.ndarray | None:
    """A context for `points`, or None."""
    if bijector.context_dim is None:
        return None
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*batch_shape, bijector.context_dim)).astype(bijector.dtype.as_numpy_dtype)


class CountedLoss(tff.losses.NegativeLogLikelihood):
    """Counts how often it is traced: once for each compilation."""

    def __init__(self):
        self.n_traces = 0

    def __call__(self, flow, x, context):
        self.n_traces += 1
        return super().__call__(flow, x, context)


@contextlib.contextmanager
def room_for(n_bytes):
    """Inside, no file may grow beyond that, as on a full disk."""
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # what is imported here would be cut off for all who come later
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = before
