"""tfflows itself, and TFP's own bijectors with Keras 2 nets."""

from __future__ import annotations

import time

import numpy as np

from contest.cases import BOUND, FIT_BATCH, FIT_EPOCHS, FIT_LAYERS, FIT_WIDTH, LEARNING_RATE, Case, Verbs


def build_tfflows(case: Case, x: np.ndarray) -> Verbs:
    """tfflows; training is `fit`, timed from the beginning to the end of its compiled loop."""
    import keras

    import tfflows

    class Stopwatch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.seconds = time.perf_counter() - self.started

    options = {"n_bins": case.bins, "bound": BOUND} if case.is_spline else {}
    preset = getattr(tfflows, case.architecture)
    flow = tfflows.FlowModel(preset(case.n_dim, n_layers=case.n_layers, hidden=case.hidden, **options))
    flow.compile(keras.optimizers.Adam(LEARNING_RATE), steps_per_execution=case.n_steps)
    stopwatch = Stopwatch()

    def train():
        history = flow.fit(x, batch_size=case.batch_size, epochs=1, verbose=0, callbacks=[stopwatch])
        return stopwatch.seconds, history.history["loss"][-1]

    return Verbs(
        lambda rows: flow.log_prob(rows).numpy(),
        lambda seed: flow.sample(case.batch_size, seed=seed).numpy(),
        train,
        sum(int(np.prod(weight.shape)) for weight in flow.trainable_weights),
    )


def fit_tfflows(x: np.ndarray) -> list[float]:
    """Fits in a fresh process. Returns the time at the end of each epoch."""
    import keras

    from tfflows import FlowModel, RealNVP

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append(time.perf_counter())

    flow = FlowModel(RealNVP(2, n_layers=FIT_LAYERS, hidden=(FIT_WIDTH,)))
    flow.fit(x, epochs=FIT_EPOCHS, batch_size=FIT_BATCH, verbose=0, callbacks=[Clock()])
    return ends


def build_tfp(case: Case, x: np.ndarray) -> Verbs:
    """TFP's own bijectors with Keras 2 nets, every verb one XLA-compiled function."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras

    tfb, tfd = tfp.bijectors, tfp.distributions
    n_parameters = 3 * case.bins - 1 if case.is_spline else 2

    def transformer(parameters):
        """A bijector of each scalar, `[..., n_dim, n_parameters]`; its inverse is the cheap direction of a spline."""
        if not case.is_spline:
            shift, log_scale = tf.unstack(parameters, axis=-1)
            return tfb.Shift(shift)(tfb.Scale(log_scale=log_scale))
        widths, heights, slopes = tf.split(parameters, [case.bins, case.bins, case.bins - 1], axis=-1)
        widths, heights = (
            1e-3 + (2.0 * BOUND - 1e-3 * case.bins) * tf.nn.softmax(sizes) for sizes in (widths, heights)
        )
        return tfb.Invert(tfb.RationalQuadraticSpline(widths, heights, 1e-3 + tf.nn.softplus(slopes), -BOUND))

    def coupling():
        n_out = case.n_dim - case.n_dim // 2
        net = tf_keras.Sequential([tf_keras.layers.Dense(width, "relu") for width in case.hidden])
        net.add(tf_keras.layers.Dense(n_out * n_parameters))
        net.add(tf_keras.layers.Reshape((n_out, n_parameters)))
        net.build((None, case.n_dim // 2))
        return net, tfb.RealNVP(case.n_dim // 2, bijector_fn=lambda inputs, n_out: transformer(net(inputs)))

    def autoregressive():
        net = tfb.AutoregressiveNetwork(n_parameters, [case.n_dim], hidden_units=list(case.hidden), activation="relu")
        net.build((None, case.n_dim))
        return net, tfb.MaskedAutoregressiveFlow(bijector_fn=lambda inputs: transformer(net(inputs)))

    nets, layers = [], []
    for i in range(case.n_layers):
        if i > 0:
            layers.append(tfb.Permute(list(range(case.n_dim))[::-1]))
        net, layer = coupling() if case.is_coupling else autoregressive()
        nets.append(net)
        layers.append(layer)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [case.n_dim])
    flow = tfd.TransformedDistribution(base, tfb.Chain(layers))
    weights = [weight for net in nets for weight in net.trainable_variables]
    optimizer = tf_keras.optimizers.Adam(LEARNING_RATE)
    optimizer.build(weights)
    batches = tf.split(tf.constant(x), case.n_steps)

    @tf.function(jit_compile=True)
    def step(rows):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(flow.log_prob(rows))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    log_prob = tf.function(flow.log_prob, jit_compile=True)
    sample = tf.function(lambda seed: flow.sample(case.batch_size, seed=seed), jit_compile=True)

    def train():
        started = time.perf_counter()
        for rows in batches:
            loss = step(rows)
        loss = float(loss)
        return time.perf_counter() - started, loss

    return Verbs(
        lambda rows: log_prob(tf.constant(rows)).numpy(),
        lambda seed: sample(tf.constant([0, seed])).numpy(),
        train,
        sum(int(np.prod(weight.shape)) for weight in weights),
    )
