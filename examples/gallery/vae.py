"""A flow as a layer of another Keras model: a variational autoencoder, its posterior or its prior a flow.

    python examples/gallery/vae.py [--output DIR] [--quick]

    ELBO(x) = E log p(x | z) + log p(z) - log q(z | x),  z ~ q(z | x), a lower bound of log p(x)

Plain: q is a Gaussian whose means and deviations the encoder gives, p(z) a standard normal. Flow posterior: inverse
autoregressive layers on top of that Gaussian, which hear what the encoder says. Flow prior: p(z) is a coupling flow.
All go on from one plain autoencoder of handwritten digits, black or white, since a new flow is the identity: trained
from the start together with an encoder, the posterior's layers slowed it down. Printed are held-out ELBOs in nats, and
the tighter bound of 100 draws an image.

References:
  Kingma & Welling (2014), https://arxiv.org/abs/1312.6114; posterior: Kingma et al. (2016), inverse autoregressive
  flow, https://arxiv.org/abs/1606.04934; prior: Chen et al. (2017), variational lossy autoencoder,
  https://arxiv.org/abs/1611.02731; 100 draws: Burda et al. (2016), https://arxiv.org/abs/1509.00519
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from gallery import falling, run, with_error
from scipy.special import logsumexp

from tfflows import IAF, Chain, FlowModel, RealNVP, datasets, plot
from tfflows.bijectors import Elementwise, Standardize
from tfflows.transformers import Affine

LATENT, HEARD = 16, 64  # numbers of a latent, and of what the encoder says
KINDS = {"plain": (False, False), "flow posterior": (True, False), "flow prior": (False, True)}


class VAE(keras.Model):
    """A variational autoencoder of binary images `[n, 784]`, with flows of latents `[n, LATENT]`."""

    def __init__(self, posterior: FlowModel, prior: FlowModel, at_base: keras.layers.Layer, width: int):
        super().__init__()
        dense = [keras.layers.Dense(width, activation="relu") for _ in range(4)]
        self.encoder = keras.Sequential([keras.Input((784,)), *dense[:2], keras.layers.Dense(HEARD, "relu")])
        self.decoder = keras.Sequential([keras.Input((LATENT,)), *dense[2:], keras.layers.Dense(784)])
        self.posterior, self.prior = posterior, prior  # Keras finds their weights
        self.shared = [self.encoder, self.decoder, at_base]  # what models of all kinds have
        self.built = True

    def call(self, x, n_draws: int = 1):
        """log p(x, z) - log q(z | x) of fresh z, `[n_draws, n]`: their mean is the ELBO."""
        z, log_q = self.posterior.sample_and_log_prob(n_draws, self.encoder(x))
        log_prior = self.prior(tf.reshape(z, [-1, LATENT]))
        logits = tf.reshape(self.decoder(tf.reshape(z, [-1, LATENT])), [n_draws, -1, 784])
        wrong = tf.nn.sigmoid_cross_entropy_with_logits(tf.broadcast_to(x, tf.shape(logits)), logits)
        return tf.reshape(log_prior, [n_draws, -1]) - log_q - tf.reduce_sum(wrong, axis=-1)

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        return -tf.reduce_mean(y_pred)


def model(kind: str, *, quick: bool) -> VAE:
    has_posterior, has_prior = KINDS[kind]
    hidden, n_layers = ((16,), 2) if quick else ((128,), 6)
    # Next to the base: means and deviations from what the encoder says; on top, what IAF makes of the draws.
    at_base = keras.layers.Dense(2 * LATENT)
    gaussian = Elementwise(Affine(), LATENT, at_base, context_dim=HEARD)
    on_top = [IAF(LATENT, n_layers=2, hidden=hidden, context_dim=HEARD)] if has_posterior else []
    # A `Standardize` that has seen no data changes nothing: the standard normal.
    prior = RealNVP(LATENT, n_layers=n_layers, hidden=hidden) if has_prior else Standardize(LATENT)
    return VAE(FlowModel(Chain([*on_top, gaussian])), FlowModel(prior), at_base, width=32 if quick else 300)


def fit(vae: VAE, x, epochs: int, learning_rate: float, *, quick: bool) -> VAE:
    vae.compile(falling(learning_rate, len(x), epochs, 128), jit_compile=not quick, run_eagerly=quick)
    vae.fit(x, batch_size=128, epochs=epochs, verbose=0)
    return vae


def bounds(vae: VAE, x, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """The ELBO of each image, and the tighter bound of all draws together, `[n]` in nats."""
    log_weights = tf.function(lambda rows: vae(rows, n_draws=n_draws), jit_compile=True)
    if vae.run_eagerly:
        log_weights = log_weights.python_function
    found = np.concatenate([log_weights(rows).numpy() for rows in np.split(x, len(x) // 100)], axis=1)
    return found.mean(axis=0), logsumexp(found, axis=0) - math.log(n_draws)


def main(output: Path, *, quick: bool) -> None:
    rng, digits = np.random.default_rng(0), datasets.digits()
    n_copies, n_train, epochs = (1, 200, (1, 1)) if quick else (5, 6000, (4, 16))
    train, test = (np.reshape(x, (-1, 784)) / 255.0 for x in (digits.train[:n_train], digits.test[: n_train // 2]))
    train = np.repeat(train, n_copies, axis=0)  # a pixel is white with the probability that its grey says
    train, test = ((rng.random(x.shape) < x).astype(np.float32) for x in (train, test))
    print(f"{'nats':<16}{'ELBO':>20}{'more than plain':>18}{'100 draws':>20}{'more than plain':>18}{'seconds':>9}")
    begun = fit(model("plain", quick=quick), train, epochs[0], 2e-3, quick=quick)
    plain, strips, names = None, [test[:12]], ["test"]
    for kind in KINDS:
        keras.utils.set_random_seed(0)
        vae, start = model(kind, quick=quick), time.perf_counter()
        for ours, theirs in zip(vae.shared, begun.shared, strict=True):
            ours.set_weights(theirs.get_weights())
        fit(vae, train, epochs[1], 2e-3, quick=quick)
        seconds = time.perf_counter() - start
        found = bounds(vae, test, 2 if quick else 100)
        plain = plain or found
        more = ["" if kind == "plain" else with_error(a - b) for a, b in zip(found, plain, strict=True)]
        elbo, tighter = map(with_error, found)
        print(f"{kind:<16}{elbo:>20}{more[0]:>18}{tighter:>20}{more[1]:>18}{seconds:>9.0f}", flush=True)
        strips.append(tf.sigmoid(vae.decoder(vae.prior.sample(12, seed=1))).numpy())
        names.append(f"{kind}\nELBO {found[0].mean():.1f}")
    images = 255.0 * np.reshape(strips, (-1, 12, 28, 28, 1))
    plot.images(images, rows=names, title="test images, and draws of each model", path=output / "vae.png")
    print(f"Picture: {output / 'vae.png'}")


if __name__ == "__main__":
    run(main, __doc__)
