"""`check_bijector` passes what is right and catches what is wrong in libraries of today."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from cases import C, D, autoregressive, context, points, policy, randomise
from keras.saving import register_keras_serializable

import tfflows as tff
from tfflows import bijectors as tfb
from tfflows.nets import MADE, LipschitzMLP
from tfflows.testing import check_bijector
from tfflows.transformers import Affine


def failures(bijector, **kwargs):
    with pytest.raises(AssertionError) as error:
        check_bijector(bijector, points(bijector), context(bijector), print_fn=None, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tff.RealNVP(D, n_layers=2, hidden=(8,), context_dim=C),
        lambda: tff.Planar(D, n_layers=2),
        lambda: tfb.Chain([tfb.ActNorm(D), tfb.LU(D)]),
        lambda: tfb.LU((2, 2, 3)),
    ],
)
def test_passes_what_is_right_and_prints_a_table(float64, make):
    bijector = randomise(make(), 0.3)
    lines = []
    checks = check_bijector(bijector, points(bijector), context(bijector), print_fn=lines.append)
    assert len(lines) == len(checks) + 1
    assert all(line.startswith("ok") for line in lines[1:])
    assert ("context is heard" in {check.name for check in checks}) == (bijector.context_dim is not None)


def test_float32_passes_too():
    bijector = randomise(tff.CouplingRQNSF(3, n_layers=2, hidden=(8,)), 0.3)
    check_bijector(bijector, points(bijector), print_fn=None)


# The bugs of other libraries, planted.


@register_keras_serializable("tests")
class NoFactor(tfb.LU):
    """A 1x1 convolution whose log-det lacks height times width."""

    def _apply(self, value, matrix, sign):
        mapped, log_det = super()._apply(value, matrix, sign)
        return mapped, log_det / (self.event_shape[0] * self.event_shape[1])


@register_keras_serializable("tests")
class Deaf(tfb.MaskedAutoregressive):
    """A masked autoregressive net that ignores its context."""

    def _forward_and_log_det(self, z, context):
        return super()._forward_and_log_det(z, tf.zeros_like(context))

    def _inverse_and_log_det(self, x, context):
        return super()._inverse_and_log_det(x, tf.zeros_like(context))


@register_keras_serializable("tests")
class WrongPoint(tfb.Elementwise):
    """The log-det of the inverse, taken at the data instead of the latents."""

    def _forward_and_log_det(self, z, context):
        x, _ = super()._forward_and_log_det(z, context)
        return x, -super()._inverse_and_log_det(z, context)[1]


@register_keras_serializable("tests")
class WrongSign(tfb.Residual):
    """A fixed-point iteration x <- z + g(x)."""

    def _forward_rows(self, z, context=None):
        x = self._fixed_point(lambda x: z + self._net(x, context), z)
        return x, -self._log_det(self._net.linearize(x, context)[1], x)


@register_keras_serializable("tests")
class Unbounded(LipschitzMLP):
    """A contraction whose bound is never enforced."""

    def kernels(self):
        return [layer.masked_kernel() for layer in self.linears]


@register_keras_serializable("tests")
class Forgetful(tfb.ActNorm):
    """Remembers in an attribute that it was adapted: a file does not."""

    done = False

    @property
    def needs_adapt(self):
        return not self.done

    def adapt(self, x, context=None, **kwargs):
        super().adapt(x, context, **kwargs)
        self.done = True


PLANTED = {
    "missing factor": (lambda: NoFactor((2, 2, 3)), 0.5, "log-det of inverse"),
    "deaf": (lambda: Deaf(Affine(), MADE(D, 2, (8,)), C), 0.5, "context is heard"),
    "wrong point": (lambda: WrongPoint(tff.transformers.RationalQuadraticSpline(4, 3.0), D), 0.5, "log-det of forward"),
    "wrong sign": (lambda: WrongSign(LipschitzMLP(D, (8,), 0.7)), 0.5, "round trip from data"),
    "no bound": (lambda: tfb.Residual(Unbounded(D, (8,), 0.7)), 3.0, "round trip"),
    "initialised again": (lambda: Forgetful(D), 0.5, "adapt is done once"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_catches_planted_bugs(float64, name):
    make, scale, check = PLANTED[name]
    bijector = randomise(make(), scale)
    found = failures(bijector)
    assert check in found
    # It is the mistake that is caught, not an accident on the way.
    assert "Error" not in found


def test_the_same_without_the_bugs_passes(float64):
    spline = tff.transformers.RationalQuadraticSpline(4, 3.0)
    right = [
        autoregressive(Affine(), C, hidden=(8,)),
        tfb.Elementwise(spline, D),
        tfb.Residual(LipschitzMLP(D, (8,), 0.7)),
    ]  # the others are above
    for bijector in right:
        randomise(bijector)
        check_bijector(bijector, points(bijector), context(bijector), print_fn=None)


def test_bad_arguments():
    with pytest.raises(ValueError, match="Expected a bijector of tfflows"):
        check_bijector("exp", np.zeros([2, 2]))
    with pytest.raises(ValueError, match="at least two rows"):
        check_bijector(tfb.LU(2), np.zeros([1, 2]))
    with pytest.raises(ValueError, match="Expected x of shape"):
        check_bijector(tfb.LU(2), np.zeros([4, 3]))


def test_page_write_your_own_bijector(capsys):
    text = (Path(__file__).parents[1] / "docs" / "how_to" / "write_your_own_bijector.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    own = [line for line in blocks[0].split("class Stretch")[1].splitlines() if line.strip()]
    assert len(own) <= 20
    with policy("float32"):
        exec("\n".join(blocks), {})  # the page's code, as a reader runs it
    shown = re.search(r"```\n(Stretch.*?)```", text, flags=re.DOTALL).group(1)
    names = [line[8:39].strip() for line in shown.splitlines()[1:]]
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
