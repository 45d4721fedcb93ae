"""Data and networks in words and pictures: what the reports of all studies say of what they looked at."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu.core.errors import InputError
from dgu.data import SampleStore
from dgu.models import Pretrained
from experiments.decoding import Decoder, pictures
from experiments.sampling import SamplerConfig
from experiments.study.materials import SHOWN, in_turn
from experiments.study.run_directory import RunDirectory
from experiments.subjects import BUNDLED_IMAGES, UNTRAINED

#: What the description of a network is an instance of, in words.
_ARCHITECTURES = {
    "ADMConfig": "a U-Net of ADM",
    "SongUNetConfig": "a U-Net of the family of DDPM++ and NCSN++ (SongUNet)",
    "EDM2Config": "a U-Net of EDM2",
    "DiTConfig": "a diffusion transformer (DiT)",
    "TutorialUNetConfig": "a U-Net of a tutorial on diffusion models",
}
_SOLVERS = {"edm": "EDM's sampler", "ablation": "the ablation sampler", "dpm-solver": "DPM-Solver++(2M)"}


def network_in_words(name: str, found: Pretrained, guided_by: str = "") -> str:
    """Architecture, size, classes, and what the network was trained on as far as its file says it.

    Args:
        name: what ``--checkpoint`` names it.
        found: the network; of a guided one what is said is about the one that is guided.
        guided_by: what ``GuidanceOptions.guided_by`` says.
    """
    network = found.network
    kind = _ARCHITECTURES.get(type(network.unet).__name__, "a U-Net of diffusers")
    height, width, channels = network.shape
    what = "images" if channels in (1, 3) else "latents"
    classes = network.unet.label_dim
    told = f"that is told which of {classes:,} classes to make" if classes else "without classes"
    return (
        f"The network {name}{guided_by} is {kind} with {network.parameter_count:,} parameters for {what} of {height} x "
        f"{width} x {channels} numbers, {told}. {_training(name, found.metadata)}"
    )


def _training(name: str, metadata: Any) -> str:
    """What the network was trained on; files of others say nothing about it, or anything."""
    if name == UNTRAINED:
        return "Its weights are random: what it makes means nothing."
    data, seen = metadata.get("data"), metadata.get("images_seen")
    if not (isinstance(data, dict) and isinstance(data.get("name"), str) and isinstance(data.get("images"), int)):
        return "Its file does not say what it was trained on."
    size = data.get("size")
    reduced = f", reduced to {size} x {size} pixels" if size else ""
    long = f", and saw {seen:,} in all, each counted as often as it came" if isinstance(seen, int) else ""
    images = f"{data['images']:,} images of {data['name']} ({data.get('split', 'all')})"
    return f"By its file it was trained on the {images}{reduced}{long}."


def sampler_in_words(config: SamplerConfig) -> str:
    """How samples were made."""
    churned = f" with churn {config.churn:g}" if config.churn else ""
    return f"{config.num_steps} steps of {_SOLVERS[config.method]}{churned}"


def class_samples_in_words(images: tuple[int, ...], config: Any) -> str:
    """Of a study of images by class: how many (K, n) of which size are studied, given by ``--samples`` or sampled by
    the network.
    """
    classes, count, height, width, channels = images
    each = f" of each of {classes:,} classes" if classes > 1 else ""
    size = f"{height} x {width} x {channels} numbers each"
    if config.samples is not None:
        return f"Studied are the images of {config.samples}: {count:,}{each}, {size}."
    return f"{count:,} samples{each}, {size}, were drawn from it by {sampler_in_words(config.sampler)}."


def class_images_in_words(real: np.ndarray | None, config: Any) -> str:
    """Of a study of images by class: the real images (K, n, H, W, C) that its options name; empty without any."""
    if real is None:
        return ""
    name = BUNDLED_IMAGES if config.real == "auto" else config.real
    classes, count, height, width, _ = real.shape
    each = f" of each of {classes:,} classes" if classes > 1 else ""
    return f"Real images beside them: {count:,}{each} of {name} ({config.real_split}), {height} x {width} pixels."


def in_pictures(rows: Mapping[str, np.ndarray], decoder: Decoder | None = None) -> dict[str, np.ndarray]:
    """The pictures of ``Materials``, of the kinds that there are any images of."""
    return {name: pictures(images[:SHOWN], decoder) for name, images in rows.items() if len(images)}


def stored_samples(directory: RunDirectory, labels: Sequence[int]) -> np.ndarray:
    """The first samples in the store of a run, of all classes in turn; none where they are not there any more."""
    each = -(-SHOWN // len(labels))
    with contextlib.suppress(InputError):
        store = SampleStore.existing(directory.path / "samples")
        return in_turn(np.stack([store.read(label, each) for label in labels]))
    return np.empty(0)
