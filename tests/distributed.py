"""What `test_distribute.py` runs in processes of its own: fits under strategies, whose results are written as JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np

# Each has something of its own: several flows; a context net with state; draws of a loss; ActNorms,
# which are set from data, and noise in images.
STEPS = ("FlowMixture", "RealNVP, context net with BatchNormalization", "FlowMatching", "Glow")


def data():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(250, 2)) * 3.0 + 1.0).astype(np.float32), rng.random(250)


def small_flow(strategy, optimizer=None):
    import keras

    from tfflows import FlowModel, RealNVP

    keras.utils.set_random_seed(0)
    with strategy.scope():
        flow = FlowModel(RealNVP(2, n_layers=2, hidden=(8,)))
        if optimizer is not None:
            flow.compile(optimizer(), jit_compile=False)
    return flow


def fits(strategy):
    """The same fits with a strategy or without; returns what each ended with."""
    import keras

    x, weight = data()
    optimizers = {
        "SGD": lambda: keras.optimizers.SGD(0.1),
        "clipped and averaged": lambda: keras.optimizers.SGD(0.5, global_clipnorm=0.05, use_ema=True),
        # As under mixed precision; the scale is doubled after each step, and a step too far left out.
        "scaled": lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.5, clipvalue=0.02), initial_scale=2.0**126, dynamic_growth_steps=1
        ),
    }
    found = {}
    for name, optimizer in optimizers.items():
        flow = small_flow(strategy, optimizer)
        # The last batch has 50 rows and 50 fillers of weight zero, which one replica may have alone.
        history = flow.fit(
            x, sample_weight=weight, epochs=2, batch_size=100, shuffle=False, validation_split=0.4, verbose=0
        )
        found[name] = [history.history, [w.tolist() for w in flow.get_weights()]]
    return found


def steps(strategy):
    """Of each model, by how much a step differs from the oracle's, and replicas from each other."""
    import cases
    import replicated

    found = {}
    with cases.policy("float64"):
        for name in STEPS:
            weighted = name != "FlowMixture"
            made = replicated.step(name, strategy, weighted=weighted)
            expected = replicated.oracle(name, strategy.num_replicas_in_sync, weighted=weighted)
            difference = replicated.difference(made["weights"], expected["weights"])
            found[name] = {"weights": difference, "loss": made["loss"] - expected["loss"], "spread": made["spread"]}
            if "bits_per_dim" in made:
                numbers = np.prod(cases.IMAGE)
                found[name]["bits_per_dim"] = made["bits_per_dim"] - expected["loss"] / (numbers * np.log(2.0))
    return found


def few_rows(strategy):
    """Losses where one replica has no rows of the last batch, of which a `BatchNormalization` takes the mean."""
    import keras
    import replicated
    import tensorflow as tf

    x, _ = data()
    with strategy.scope():
        flow = replicated.normalised()
        flow.compile(keras.optimizers.SGD(0.01), jit_compile=False)
    rows = tf.data.Dataset.from_tensor_slices((x[:17], np.ones((17, 4), np.float32))).batch(8)
    losses = flow.fit(rows, epochs=2, verbose=0).history["loss"]
    return losses, all(np.all(np.isfinite(w)) for w in flow.get_weights())


def together(strategy, index, folder):
    """What is the same for workers only if they agree, and files, which all of them are told to write."""
    import keras
    import tensorflow as tf

    from tfflows import pipelines, plot, training

    class Own(keras.callbacks.Callback):
        """Logs what only this worker has, and stops it alone."""

        def on_epoch_end(self, epoch, logs=None):
            logs["own"] = index + 0.5
            self.model.stop_training = index == 1 and epoch == 2

    x, _ = data()
    np.random.seed(100 + index)  # of the rows held out, and of orders
    flow = small_flow(strategy)
    callbacks = [
        Own(),
        keras.callbacks.ModelCheckpoint(folder / f"checkpoint-{index}.keras"),
        plot.PlotDensity(folder=folder / f"pictures-{index}", every=3, n_grid=8),
    ]
    training.MAX_EPOCHS = 5
    history = flow.fit(x, batch_size=100, verbose=0, callbacks=callbacks)
    found = {"automatic": [history.history, [w.tolist() for w in flow.get_weights()]]}

    flow.save(folder / f"model-{index}.keras")
    flow.save_weights(folder / f"model-{index}.weights.h5")
    flow.export(folder / f"export-{index}", verbose=False)

    np.save(folder / f"rows-{index}.npy", np.arange(130.0)[:, np.newaxis])
    rows = pipelines.npy(folder / f"rows-{index}.npy", batch_size=64)
    shares = strategy.experimental_distribute_dataset(rows)
    found["epochs"] = []
    for _ in range(2):
        batches = [strategy.experimental_local_results(batch)[0] for batch in shares]
        found["epochs"].append([batch.numpy()[:, 0].tolist() for batch in batches])

    own = small_flow(strategy)
    try:
        own.fit(x + index, epochs=1, verbose=0)
    except ValueError as error:
        found["others"] = str(error)
    own.adapt(x + index)
    found["adapted"] = [w.tolist() for w in own.get_weights()]
    own = small_flow(strategy)
    own.fit(tf.data.Dataset.from_tensor_slices(x + index).batch(50), epochs=1, verbose=0)
    found["own pipelines"] = [w.tolist() for w in own.get_weights()]

    flow = small_flow(strategy, lambda: keras.optimizers.SGD(1e9))
    try:
        flow.fit(x, batch_size=100, epochs=3, verbose=0)
    except FloatingPointError as error:
        found["error"] = str(error)
    found["is finite"] = all(bool(tf.reduce_all(tf.math.is_finite(w))) for w in flow.get_weights())
    return found


def mirrored():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


if __name__ == "__main__":
    import tensorflow as tf

    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind == "mirrored":
        strategy = mirrored()
        found = {"mirrored": fits(strategy), "one": fits(tf.distribute.get_strategy()), "steps": steps(strategy)}
        found["few"] = few_rows(strategy)
    else:
        index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        found = {f"worker{index}": fits(strategy), f"together{index}": together(strategy, index, folder)}
    for name, each in found.items():
        (folder / f"{name}.json").write_text(json.dumps(each))
