"""What `test_distribute.py` runs in processes of its own: fits, whose histories and weights are written as JSON."""

import json
import os
import sys
from pathlib import Path

import numpy as np


def fits(strategy_of):
    """The same fits with a strategy or without; returns what each ended with."""
    import keras
    import tensorflow as tf

    from tfflows import FlowModel, RealNVP

    rng = np.random.default_rng(0)
    x = (rng.normal(size=(250, 2)) * 3.0 + 1.0).astype(np.float32)
    weight = rng.random(250)
    optimizers = {
        "SGD": lambda: keras.optimizers.SGD(0.1),
        "clipped and averaged": lambda: keras.optimizers.SGD(0.5, global_clipnorm=0.05, use_ema=True),
    }
    found = {}
    strategy = strategy_of(tf)
    for name, optimizer in optimizers.items():
        keras.utils.set_random_seed(0)
        with strategy.scope():
            flow = FlowModel(RealNVP(2, n_layers=2, hidden=(8,)))
            flow.compile(optimizer(), jit_compile=False)
        # The last batch has 50 rows and 50 fillers of weight zero, which one replica may have alone.
        history = flow.fit(
            x, sample_weight=weight, epochs=2, batch_size=100, shuffle=False, validation_split=0.4, verbose=0
        )
        found[name] = [history.history, [w.tolist() for w in flow.get_weights()]]
    return found


def mirrored(tf):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def workers(tf):
    return tf.distribute.MultiWorkerMirroredStrategy()


if __name__ == "__main__":
    kind, folder = sys.argv[1:]
    if kind == "mirrored":
        found = {"mirrored": fits(mirrored), "one": fits(lambda tf: tf.distribute.get_strategy())}
    else:
        index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        found = {f"worker{index}": fits(workers)}
    for name, each in found.items():
        Path(folder, f"{name}.json").write_text(json.dumps(each))
