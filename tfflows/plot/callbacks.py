"""Keras callbacks that draw and test a flow between the epochs of `fit`. None of them slows its steps down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfflows import replicas
from tfflows.plot import canvas
from tfflows.plot.density import density
from tfflows.plot.diagnostics import latents

MOST_LOGGED = 8  # latents with a log each


class _Drawing(keras.callbacks.Callback):
    """Pictures after every so many epochs, as files and to TensorBoard."""

    def __init__(self, name: str, folder, log_dir, every: int):
        super().__init__()
        self.name, self.every = str(name), canvas.check_count(every, "every")
        self.folder = None if folder is None else Path(folder)
        self.log_dir = log_dir
        self._writer = None
        canvas.module()
        if log_dir is not None:
            try:
                import tensorboard  # noqa: F401
            except ImportError as error:
                raise ImportError("Expected TensorBoard for log_dir: pip install tensorboard") from error

    def on_train_begin(self, logs=None):
        if not replicas.is_chief(self.model.distribute_strategy):  # the first of several workers writes
            self.folder = self.log_dir = None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _is_due(self, epoch) -> bool:
        return (epoch + 1) % self.every == 0

    def _keep(self, drawn, epoch) -> None:
        if self.folder is not None:
            canvas.save(drawn, self.folder / f"{self.name}_{epoch + 1:04d}.png")
        if self._writer is not None:
            with self._writer.as_default():
                tf.summary.image(self.name, canvas.pixels(drawn)[np.newaxis], step=epoch + 1)


class PlotDensity(_Drawing):
    """Draws the flow after every so many epochs of `fit`: by default its `plot.density`.

    The weights are those that are validated: averaged ones, where `fit` averages. The last picture is of the last
    epoch; early stopping may put better weights back after it. Training is the same with and without it.

    Args:
      x: data to draw with it, or None; they also fix the limits, so that pictures can be compared.
      context: one condition, if the flow is conditional.
      folder: where PNGs go, named density_0001.png and so on, by epoch; it is made.
      log_dir: where TensorBoard finds the pictures.
      every: epochs from picture to picture, >= 1.
      name: of files and of TensorBoard's images.
      picture: a function of the flow that returns axes or a figure, for flows of more numbers, such as
        `lambda flow: plot.corner(flow.sample(2000, seed=0), x)`; it should have a seed.
      **kwargs: of `plot.density`.

    Raises:
      ValueError: without folder and log_dir; for data with a picture of yours. Later, as `plot.density` does.
      ImportError: if matplotlib, or for a log_dir TensorBoard, is missing.
    """

    def __init__(
        self,
        x=None,
        *,
        context=None,
        folder: str | Path | None = None,
        log_dir: str | Path | None = None,
        every: int = 1,
        name: str = "density",
        picture: Callable | None = None,
        **kwargs,
    ):
        super().__init__(name, folder, log_dir, every)
        if folder is None and log_dir is None:
            raise ValueError("Expected a folder or a log_dir, where pictures go; got neither.")
        if picture is not None and (x is not None or context is not None or kwargs):
            raise ValueError("Expected data, context and options in the picture's function; got them beside it.")
        self.x, self.context, self.picture, self.kwargs = x, context, picture, kwargs

    def on_epoch_end(self, epoch, logs=None):
        if not self._is_due(epoch) or (self.folder is None and self._writer is None):
            return
        if self.picture is not None:
            drawn = self.picture(self.model)
        else:
            options = {"title": f"epoch {epoch + 1}"} | self.kwargs
            drawn = density(self.model, self.x, context=self.context, **options)
        self._keep(drawn, epoch)


class LatentDiagnostics(_Drawing):
    """Tests the latents of held-out data after every so many epochs of `fit`, and adds the results to its history.

    The logs `latent_ks` and `latent_ks_mean` are the largest and the mean Kolmogorov-Smirnov distance between a latent
    scalar and the base, in [0, 1]; up to 8 latents also have one each, `latent_ks_0` and so on. In epochs that are left
    out they are NaN. n rows of a right flow have distances of about 0.9 / sqrt(n). For `EarlyStopping("latent_ks",
    mode="min")` it comes first in the list of callbacks.

    Args:
      x: `[n, *event]`, data that are not fitted to; a thousand rows cost little.
      context: `[n, *context_shape]`, if the flow is conditional.
      folder: where pictures of `plot.latents` go as PNGs, or None for none.
      log_dir: where TensorBoard finds the distances and the pictures, or None.
      every: epochs from test to test, >= 1.
      name: of files and of TensorBoard's images.
      **kwargs: of `plot.latents`.

    Raises:
      ImportError: if SciPy, or matplotlib, or for a log_dir TensorBoard, is missing.
      ValueError: when `fit` begins, for a flow without a single latent space, or data that do not fit.
    """

    def __init__(
        self,
        x,
        context=None,
        *,
        folder: str | Path | None = None,
        log_dir: str | Path | None = None,
        every: int = 1,
        name: str = "latents",
        **kwargs,
    ):
        super().__init__(name, folder, log_dir, every)
        self.x, self.context, self.kwargs = x, context, kwargs

    def on_train_begin(self, logs=None):
        self._names = list(self._distances())  # says what does not fit before anything is trained
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        is_due = self._is_due(epoch)
        found = self._distances() if is_due else dict.fromkeys(self._names, float("nan"))
        if logs is not None:
            logs.update(found)
        if not is_due:
            return
        if self._writer is not None:
            with self._writer.as_default():
                for name, value in found.items():
                    tf.summary.scalar(name, value, step=epoch + 1)
        if self.folder is not None or self._writer is not None:
            options = {"title": f"epoch {epoch + 1}"} | self.kwargs
            self._keep(latents(self.model, self.x, self.context, **options), epoch)

    def _distances(self) -> dict[str, float]:
        canvas.module("scipy")
        from tfflows.inference.calibration import latent_tests

        each = latent_tests(self.model, self.x, self.context).distance
        found = {"latent_ks": float(np.max(each)), "latent_ks_mean": float(np.mean(each))}
        if len(each) <= MOST_LOGGED:
            found |= {f"latent_ks_{i}": float(distance) for i, distance in enumerate(each)}
        return found
