"""Target: a density that is known but for a factor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfflows.bijectors import Bijector, Bounded
from tfflows.numerics import finite_gradient

tfb = tfp.bijectors

FAR = 1e4  # of unconstrained numbers; a float32 sigmoid is at its end at 90


class Target:
    """What is to be sampled: a log-density up to a constant, or a likelihood and a prior.

    Samplers work on unconstrained numbers z, x = `bijector`.forward(z); their density includes the Jacobian. Where
    log_prob is NaN or infinite the density counts as zero, and of a log_prob in NumPy `n_invalid` says how often that
    was. With log-densities beyond some 1e5 use float64, `keras.config.set_dtype_policy("float64")`: weights are their
    differences.

    Args:
      log_prob: of x `[n, n_dim]` to `[n]`, in TensorFlow; or in NumPy, then without gradients. With a prior it is the
        log-likelihood.
      n_dim: number of parameters; the prior's if None.
      prior: `tfd` distribution of event shape `[n_dim]`.
      domain: for each parameter (low, high), with None or infinity for no bound; of a prior that tells, None takes its
        support.
      names: of the parameters.

    Raises:
      ValueError: if log_prob does not give a number for each row, or something does not fit n_dim.
    """

    def __init__(
        self,
        log_prob: Callable,
        n_dim: int | None = None,
        *,
        prior=None,
        domain: Sequence[tuple[float | None, float | None]] | None = None,
        names: Sequence[str] | None = None,
    ):
        shape = None if prior is None else tuple(prior.event_shape)
        if shape is not None and (len(shape) != 1 or tuple(prior.batch_shape)):
            raise ValueError(
                f"Expected a prior of event shape [n_dim], without batch shape; got {shape} and batch shape "
                f"{tuple(prior.batch_shape)}. tfd.Independent or tfd.Blockwise join several."
            )
        if n_dim is None and shape is None:
            raise ValueError("Expected n_dim or a prior, which has it; got neither.")
        n_dim = shape[0] if n_dim is None else int(n_dim)
        if n_dim < 1 or (shape is not None and shape != (n_dim,)):
            raise ValueError(f"Expected n_dim >= 1, that of the prior; got {n_dim} and a prior of {shape}.")
        self.n_dim, self.prior = n_dim, prior
        self.names = [f"x{i}" for i in range(n_dim)] if names is None else [str(name) for name in names]
        if len(self.names) != n_dim or len(set(self.names)) != n_dim:
            raise ValueError(f"Expected {n_dim} different names; got {self.names}.")
        self.dtype = tf.as_dtype(keras.config.dtype_policy().variable_dtype)
        self.bijector = _bijector(domain, n_dim, prior)
        self._bounds = _bounds(domain)
        # TFP's bijectors of a prior have its type, and do not say so.
        self._support_dtype = self.dtype if domain is not None or prior is None else prior.dtype
        self._function = log_prob
        self._error = None
        self.n_invalid = 0
        self.has_gradient = self._is_tensorflow()

    # What is computed, in graph: of tensors [n, n_dim].

    def log_likelihood(self, x: tf.Tensor) -> tf.Tensor:
        """log_prob as it was given, `[n]`, of `x` `[n, n_dim]`: -inf where it is not finite."""
        if self.has_gradient:
            value = tf.cast(self._function(x), self.dtype)
        else:
            value = tf.numpy_function(self._in_numpy, [x], self.dtype, stateful=False)
            value.set_shape(x.shape[:1])
        return tf.where(tf.math.is_finite(value), value, tf.constant(-np.inf, self.dtype))

    def log_prior(self, x: tf.Tensor) -> tf.Tensor:
        """Of the prior at `x` `[n, n_dim]`, `[n]`; 0 without one."""
        if self.prior is None:
            return tf.zeros(tf.shape(x)[:1], self.dtype)
        value = tf.cast(self.prior.log_prob(tf.cast(x, self.prior.dtype)), self.dtype)
        return tf.where(tf.math.is_finite(value), value, tf.constant(-np.inf, self.dtype))

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """The log-density of `x` `[n, n_dim]` up to a constant, `[n]`; with a prior, log-likelihood and log-prior."""
        return self.log_likelihood(x) + self.log_prior(x)

    def constrain(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """x `[..., n_dim]` and log |det dx/dz| `[...]` of unconstrained numbers `z` `[..., n_dim]`."""
        if self.bijector is None:
            return z, tf.zeros(tf.shape(z)[:-1], z.dtype)
        if isinstance(self.bijector, Bijector):
            return self.bijector.forward_and_log_det(z)
        # The prior's own type; and a new tensor misses the cache of TFP's bijectors.
        wide = tf.identity(tf.cast(z, self._support_dtype))
        log_det = tf.cast(self.bijector.forward_log_det_jacobian(wide, event_ndims=1), z.dtype)
        return tf.cast(self.bijector.forward(wide), z.dtype), tf.broadcast_to(log_det, tf.shape(z)[:-1])

    def unconstrained_log_prob(self, z: tf.Tensor) -> tf.Tensor:
        """The log-density of `z` `[n, n_dim]`, `[n]`, up to the same constant."""
        x, log_det = self.constrain(finite_gradient(z))
        return self.log_prob(x) + log_det

    # Outside of graphs.

    def unconstrain(self, x) -> np.ndarray:
        """z `[n, n_dim]` of `x` `[n, n_dim]`; of numbers on their bounds, at most 1e4 from zero."""
        if self.bijector is None:
            return np.asarray(x, self.dtype.as_numpy_dtype)
        z = np.asarray(self.bijector.inverse(tf.cast(x, self._support_dtype)))
        # A number on its bound, where rounding may put it, is at infinity.
        return np.clip(z, -FAR, FAR).astype(self.dtype.as_numpy_dtype)

    def sample_prior(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws of the prior, `[n, n_dim]`.

        Args:
          n: how many.
          rng: NumPy's generator.

        Raises:
          ValueError: without a prior, or if some are outside of the domain: the evidence would be another one.
        """
        if self.prior is None:
            raise ValueError("Expected a target with a prior; got one without.")
        # A pair is stateless; TFP draws from one integer after what was drawn before.
        x = np.asarray(self.prior.sample(n, seed=tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32)))
        if self._bounds is not None:
            outside = np.any((x < self._bounds[0]) | (x > self._bounds[1]), axis=1)
            if outside.any():
                raise ValueError(
                    f"Expected a prior that is zero outside of the domain; {outside.sum()} of {n} draws are outside. "
                    "Truncate it, or leave the domain to the prior."
                )
        return x.astype(self.dtype.as_numpy_dtype)

    def run(self, function: Callable, *args):
        """A compiled function's result; an error of log_prob is told with the point it happened at.

        Args:
          function: that calls the target's densities.
          *args: its arguments.

        Raises:
          ValueError: if log_prob raised, with its error as the cause.
        """
        self._error = None
        try:
            return function(*args)
        except tf.errors.OpError:
            if self._error is None:
                raise
        raise ValueError(self._error[0]) from self._error[1]

    def _in_numpy(self, x):
        try:
            value = _checked(self._function(x), x)
        except Exception as error:
            # One by one, to tell which.
            for row in x:
                try:
                    _checked(self._function(row[np.newaxis]), row[np.newaxis])
                except Exception as cause:
                    point = np.array2string(row, precision=6)
                    self._error = (f"Expected that log_prob gives a number; at {point} it raised {cause!r}.", cause)
                    raise
            self._error = (f"Expected that log_prob gives a number for each row; it raised {error!r}.", error)
            raise
        self.n_invalid += int(np.sum(~np.isfinite(value)))
        return value.astype(self.dtype.as_numpy_dtype)

    def _is_tensorflow(self) -> bool:
        spec = tf.TensorSpec([None, self.n_dim], self.dtype)
        try:
            traced = tf.function(lambda x: self._function(x), autograph=False).get_concrete_function(spec)
            (output,) = tf.nest.flatten(traced.structured_outputs)
            # A NumPy function that looks at the shape alone would give a constant.
            if tf.is_tensor(output) and output.shape.rank in (1, None) and traced.graph.inputs[0].consumers():
                return True
            reason = f"of tensors [n, {self.n_dim}] it gives {output}"
        except Exception as error:
            reason = f"of tensors it raises {error!r}"
        x, _ = self.constrain(tf.zeros([2, self.n_dim], self.dtype))
        try:
            _checked(self._function(x.numpy()), x.numpy())
        except Exception as error:
            raise ValueError(
                f"Expected a log_prob of [n, {self.n_dim}] that gives [n], in TensorFlow or NumPy; {reason}, and of "
                f"arrays it raises {error!r}."
            ) from error
        return False


def _checked(value, x):
    value = np.asarray(value, np.float64)
    if value.shape != x.shape[:1]:
        raise ValueError(f"Expected a log_prob of shape {x.shape[:1]} for x of shape {x.shape}; got {value.shape}.")
    return value


def _bijector(domain, n_dim, prior):
    """From unconstrained numbers to the domain: a bijector of ours or of TFP, or None where they are the same."""
    if domain is not None:
        if len(domain) != n_dim:
            raise ValueError(f"Expected a domain of {n_dim} pairs (low, high); got {len(domain)}.")
        low, high = _bounds(domain)
        return Bounded(low, high) if np.isfinite([low, high]).any() else None
    if prior is None:
        return None
    bijector = _support(prior)
    return None if isinstance(bijector, tfb.Identity) else bijector


def _bounds(domain):
    """Lower and upper bounds, infinite where there are none; None without a domain."""
    if domain is None:
        return None
    low = np.array([-np.inf if pair[0] is None else float(pair[0]) for pair in domain])
    return low, np.array([np.inf if pair[1] is None else float(pair[1]) for pair in domain])


def _support(prior):
    if isinstance(prior, tfp.distributions.Blockwise):  # whose own answer maps a list of blocks
        parts = prior.parameters["distributions"]
        sizes = [part.event_shape.num_elements() for part in parts]
        return tfb.Blockwise([_support(part) for part in parts], block_sizes=sizes)
    try:
        return prior.experimental_default_event_space_bijector()
    except NotImplementedError:
        return tfb.Identity()
