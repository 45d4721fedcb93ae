"""The sets of an audit as its options name them, each checked; the network is sampled last."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dgu.core.errors import InputError, require
from experiments.audit_parts.images import (
    NEEDS,
    Images,
    Sets,
    check_apart,
    check_features,
    check_pair,
    check_set,
    clipped,
    read,
    set_aside,
)
from experiments.study.checkpoints import load as load_network
from experiments.study.inputs import note_choice, reading
from experiments.study.pool import sample_pool
from experiments.study.run_directory import RunDirectory

#: The network that is sampled where no samples are given.
BUNDLED = "fashion-mnist-14"


def gather(config: Any, directory: RunDirectory | None) -> Sets:
    """The sets, checked; without a directory the network is not sampled, and real images stand in for its samples.

    Whatever can be refused is refused before the network is sampled.
    """
    _check_files(config)
    network = None
    if config.samples is None or config.checkpoint is not None:
        network = load_network(config.checkpoint or BUNDLED)
    size = config.size
    if size is None and network is not None and config.samples is None:
        size = _reducible(config, network.network.shape)
    reference, names = read("reference", config.reference, config.reference_split, size, config.reference_range)
    held, held_option = _held_out(config, size, reference)
    aside = set_aside(reference, config.seed) if held is None else None
    check_set("reference", reference, "reference")
    if held is not None:
        check_set(held_option, held, "holdout")
        check_pair((held_option, held), ("the reference", reference))
        check_apart((held_option, held), ("the reference", reference))
    if config.features is not None:
        reference, held = _with_features(config, reference, held)
    if aside is not None:
        held = reference.rows(aside)
    assert held is not None

    if config.samples is not None:
        samples, own_names = read("samples", config.samples, config.samples_split, None, config.samples_range)
        fits = samples.labels is None or int(samples.labels.max()) < len(names)
        same = not own_names or len(own_names) == len(names)
        samples = samples if fits and same else replace(samples, labels=None)
        check_set("samples", samples, "samples")
        for option, other in (("the reference", reference), ("the held-out images", held)):
            check_pair(("samples", samples), (option, other))
            check_apart(("samples", samples), (option, other))
        if config.features is not None:
            samples = replace(samples, features=_features("features", config.features, len(samples)))
            widths = samples.features.shape[1], reference.features.shape[1]
            require(widths[0] == widths[1], "features: columns", widths[0], f"{widths[1]}, as in --reference-features")
        return Sets(samples, reference, held, aside, names, network)

    assert network is not None
    shape, classes = network.network.shape, network.network.unet.label_dim
    wanted = f"{shape}, the network's (see --size)"
    require(reference.pixels.shape[1:] == shape, "reference: shape of an image", reference.pixels.shape[1:], wanted)
    total = config.per_class * max(classes, 1)
    least, statistic = NEEDS["samples"]
    require(
        total >= least, "per_class", config.per_class, f"so many that there are {least} samples or more: {statistic}"
    )
    labels = np.repeat(np.arange(max(classes, 1), dtype=np.int32), config.per_class)
    if directory is None:
        pixels = np.zeros((total, *shape), np.float32)
    else:
        pool = sample_pool(
            directory, network, tuple(range(max(classes, 1))), config.per_class, config.sampler, config.seed
        )
        pixels = clipped(pool.reshape(-1, *shape))
        check_set("samples", Images(pixels, None), "samples")
    known = labels if classes == len(names) and classes > 1 else None
    return Sets(Images(pixels, known), reference, held, aside, names, network)


def _reducible(config: Any, shape: tuple[int, ...]) -> int | None:
    """The network's size, where the reference has to be reduced to it; images of another size are refused later on."""
    first, _ = read("reference", config.reference, config.reference_split, None, config.reference_range)
    height, width = first.pixels.shape[1:3]
    larger = height == width and shape[0] == shape[1] < height and height % shape[0] == 0
    return shape[0] if larger else None


def _check_files(config: Any) -> None:
    """No set may be the file of another."""
    sources = {
        "samples": (config.samples, config.samples_split),
        "holdout": (None if config.holdout == "auto" else config.holdout, config.holdout_split),
        "reference": (config.reference, config.reference_split),
    }
    resolved = {
        name: (str(Path(value).resolve()) if Path(value).exists() else value, split)
        for name, (value, split) in sources.items()
        if value is not None
    }
    for name, other in (("samples", "reference"), ("samples", "holdout"), ("holdout", "reference")):
        if name in resolved and resolved[name] == resolved.get(other):
            raise InputError(f"{name} = {sources[name][0]!r}: must be another set than --{other}")
    for name, other in (("features", "reference_features"), ("features", "holdout_features")):
        given = getattr(config, name), getattr(config, other)
        if None not in given and Path(given[0]).resolve() == Path(given[1]).resolve():
            raise InputError(f"{name} = {given[0]!r}: must be another file than --{other.replace('_', '-')}")


def _held_out(config: Any, size: int | None, reference: Images) -> tuple[Images | None, str]:
    """The held-out images, or None where part of the reference has to do."""
    if config.holdout is None:
        return None, ""
    if config.holdout != "auto":
        held, _ = read("holdout", config.holdout, config.holdout_split, size, config.reference_range)
        return held, "holdout"
    if config.reference_split == config.holdout_split:
        return None, ""
    try:
        held, _ = read("holdout", config.reference, config.holdout_split, size, config.reference_range)
    except InputError:  # It has no such split.
        note_choice("holdout", "auto", "a part of the reference")
        return None, ""
    note_choice("holdout", "auto", f"the split {config.holdout_split}")
    return held, "holdout (auto)"


def _features(option: str, path: str, count: int) -> Any:
    from dgu.analysis import read_features

    try:
        with reading(option, path, path):
            found = read_features(path)
    except InputError as error:
        raise InputError(f"{option} = {path!r}: {error}") from error
    return check_features(f"{option} = {path!r}", found, count)


def _with_features(config: Any, reference: Images, held: Images | None) -> tuple[Images, Images | None]:
    """Both with the rows of their files."""
    assert config.reference_features is not None
    reference = replace(reference, features=_features("reference_features", config.reference_features, len(reference)))
    if held is None:
        require(
            config.holdout_features is None, "holdout_features", config.holdout_features, "left out without --holdout"
        )
        return reference, None
    if config.holdout_features is None:
        raise InputError(
            "holdout_features = None: must be given with --features, or --holdout None sets reference images aside"
        )
    held = replace(held, features=_features("holdout_features", config.holdout_features, len(held)))
    width = reference.features.shape[1]
    require(held.features.shape[1] == width, "holdout_features: columns", held.features.shape[1], str(width))
    return reference, held
