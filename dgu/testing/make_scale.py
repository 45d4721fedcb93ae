"""Measures the scale of trained networks: ``python -m dgu.testing.make_scale OUT.json [NETWORK ...]``.

The good networks are the bundled one and those named, by the files that ``python -m experiments.train`` wrote for
Fashion-MNIST at 14 x 14; the spoilt ones are made of the bundled one, and of images; the exact one is of Gaussian
classes.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core.files import write_atomic
from dgu.core.keys import seeded, stream, threefry
from dgu.core.plain_json import json_bytes
from dgu.core.typing import Key
from dgu.data import load
from dgu.models import EmpiricalDenoiser, gaussian_mixture, load_checkpoint
from dgu.models.pretrained import BUNDLED
from dgu.testing.network_measures import NetworkMeasures, network_measures
from dgu.testing.network_scale import NetworkScale
from dgu.testing.spoilt import spoilt

#: Every fifth image of the bundled set, 400 of them: from the first one on to measure, from the second to memorise.
STEP = 5


def main(path: str, networks: list[str]) -> None:
    """Write the scale as JSON."""
    bundled = load("fashion-mnist-mini", "test", 14)
    images, labels = bundled.images[::STEP], bundled.labels[::STEP]
    key, classes = seeded(0), len(bundled.class_names)

    good = {}
    for name in (*BUNDLED, *networks):
        denoiser = load_checkpoint(name).denoiser
        marks = labels if denoiser.label_dim else None
        good[name] = network_measures(denoiser, images, key, labels=marks)
    copies = spoilt(load_checkpoint(BUNDLED[0]).denoiser, classes)
    broken: dict[str, NetworkMeasures] = {
        name: network_measures(one, images, key, labels=labels) for name, one in copies.items() if name != "right"
    }
    others = jnp.asarray(bundled.images[1::STEP])
    broken["memorising"] = network_measures(EmpiricalDenoiser(others), images, key)
    exact = {"Gaussian classes": gaussian_classes(bundled.images, bundled.labels, len(images), key)}
    content = json_bytes(NetworkScale(good, broken, exact).to_json())
    write_atomic(Path(path), lambda file: file.write(content))


def gaussian_classes(images: np.ndarray, labels: np.ndarray, count: int, key: Key) -> NetworkMeasures:
    """The measures of the posterior mean of Gaussian classes, with the means and covariances of those of the images, on
    ``count`` draws from them.
    """
    key = threefry(key)
    classes = [images[labels == label].reshape(np.sum(labels == label), -1) for label in range(labels.max() + 1)]
    floor = 1e-3 * np.eye(classes[0].shape[1])  # Some pixels of a class are black in all of its images.
    covariances = np.stack([np.cov(rows.T) + floor for rows in classes])
    means = np.stack([rows.mean(axis=0) for rows in classes])
    marks = np.arange(count) % len(classes)
    normal = np.asarray(jax.random.normal(stream(key, "exact"), (count, means.shape[1])))
    drawn = means[marks] + np.einsum("nij,nj->ni", np.linalg.cholesky(covariances)[marks], normal)
    weights = np.full(len(classes), 1 / len(classes))
    denoiser = gaussian_mixture(weights, means.astype(np.float32), covariances)
    return network_measures(denoiser, drawn.astype(np.float32), key, labels=marks)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
