"""Measures the scale of trained networks: ``python -m dgu.testing.make_scale OUT.json [NETWORK ...]``.

The good networks are the bundled one and those named, by the files that ``python -m experiments.train`` wrote for
Fashion-MNIST at 14 x 14; the spoilt ones are made of the bundled one, and of images.
"""

import sys
from pathlib import Path

import jax.numpy as jnp

from dgu.core.files import write_atomic
from dgu.core.keys import seeded
from dgu.core.plain_json import json_bytes
from dgu.data import load
from dgu.models import EmpiricalDenoiser, load_checkpoint
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
    content = json_bytes(NetworkScale(good, broken).to_json())
    write_atomic(Path(path), lambda file: file.write(content))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
