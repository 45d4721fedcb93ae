"""An ADM and a network of EDM2 of equal size, trained for equal images on Fashion-MNIST at 14 x 14: what did each learn?

    python -m benchmarks.architectures [--quick] [--json PATH]

Both are trained by their presets of ``experiments.train`` (``default`` and ``default-edm2``), only shorter, or read
where a training in the folder is over; one that was killed goes on. Then, of each:

- ``samples`` images, as many of each class, by 18 deterministic Heun steps from the same noise for both networks;
- their Frechet distance and KID from as many held-out images, both on pixels (as ``experiments.metrics`` takes them,
  and with its blocks of KID), with intervals of the sampling of images; other held-out images, as many again, show what
  images without any fault would have;
- on held-out images with their classes: the squared error of denoising and the asymmetry of the Jacobian
  (``dgu.testing.network_measures``), and, as distance from a linear map, 1 less the cosine of ``D(a x1 + b x2)`` and ``a D(x1) + b D(x2)`` of two images of
  one class, with equal weights (``dgu.analysis.linearity``).

The tables go between the marks of ``architectures.md`` beside this file.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks import provenance
from benchmarks.page_tables import digits, put, table

PAGE = Path(__file__).with_name("architectures.md")
MARKS = ("<!-- measured -->", "<!-- end of what was measured -->")
#: By preset of ``experiments.train``.
NETWORKS = {"default": "ADM", "default-edm2": "EDM2"}
SIGMAS = (0.1, 0.3, 1.0, 3.0, 10.0)
STEPS = 18
#: Blocks of KID.
BLOCKS = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained and measured."""

    folder: str = "runs/architectures"
    """Folder of the two trainings."""
    duration_kimg: float = 40.0
    """Training images that each network sees, in thousands."""
    per_class: int = 200
    """Samples of each class, and held-out images of each on either side; at most half of those of a class."""
    pairs: int = 20
    """Pairs of held-out images of each class, for linearity; error and asymmetry are measured on as many images twice."""
    seed: int = 0
    """Seed of samples and noises."""
    quick: bool = False
    """Very short trainings on the bundled images, which then are those held out, too: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""
    page: str | None = None
    """Page to put the tables in; by default architectures.md beside this file, with --quick none."""


def made_small(config: Config) -> Config:
    """The sizes of ``--quick``, in a folder of their own."""
    return dataclasses.replace(config, folder=f"{config.folder}-quick", duration_kimg=0.256, per_class=20, pairs=4)


def trained(preset: str, config: Config, data: str, split: str) -> tuple[Any, dict[str, Any]]:
    """The averaged network of a preset, and what its training was."""
    from dgu.models import load_checkpoint
    from experiments.subjects import training_cost
    from experiments.train import train
    from experiments.train_config import PRESETS

    recipe = PRESETS[preset]
    training = dataclasses.replace(recipe.training, duration_kimg=config.duration_kimg)
    recipe = dataclasses.replace(recipe, data=data, split=split, training=training)
    out = Path(config.folder) / preset
    begun, start = (out / "network.npz").exists(), time.process_time()
    train(recipe, out)
    busy = time.process_time() - start
    model = load_checkpoint(out)
    cost = training_cost(model.network, "training", training, runs=1, devices=1)
    return model.denoiser, {
        "parameters": model.network.parameter_count,
        "images_seen": int(model.metadata["images_seen"]),
        "flop_an_image": cost.flop / cost.network_evaluations,
        "training_processor_seconds": None if begun else busy,
    }


def drawn(denoiser: Any, shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """Samples, of the classes in turn; number i starts from the same noise whatever the network."""
    from dgu.core.keys import seeded, stream
    from dgu.samplers import karras_sigmas, sample

    key, numbers = stream(seeded(seed), "architectures"), np.arange(count)
    return sample(
        denoiser, key, numbers, karras_sigmas(STEPS), shape=shape, labels=numbers % denoiser.label_dim, batch_size=256
    )


def apart(images: np.ndarray, held_out: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Frechet distance and KID on pixels: value and ends of the interval of each."""
    from dgu.analysis import frechet_interval, kernel_distance
    from dgu.core.keys import seeded, stream

    a, b = (np.float64(each.reshape(len(each), -1)) for each in (images, held_out))
    key = seeded(seed)
    found = {
        "frechet_distance": frechet_interval(a, b, stream(key, "frechet")),
        "kid": kernel_distance(a, b, stream(key, "kid"), block_size=len(a) // BLOCKS),
    }
    return {name: interval(estimate) for name, estimate in found.items()}


def interval(estimate: Any) -> list[float]:
    """Value and ends."""
    return [float(estimate.value), float(estimate.low), float(estimate.high)]


def by_level(denoiser: Any, images: np.ndarray, config: Config) -> dict[str, Any]:
    """Squared error and asymmetry at each noise level, and 1 less the cosine of each pair, ``(levels, pairs)``.

    Args:
        denoiser: of classes.
        images: held out, ``(classes, n, h, w, c)``.
        config: of the program.
    """
    from dgu.analysis import linearity
    from dgu.core.keys import seeded, stream
    from dgu.testing import network_measures

    key, used = seeded(config.seed), images[:, : 2 * config.pairs]
    bent = [
        1
        - linearity(
            denoiser.given(label), own, np.asarray(SIGMAS), stream(key, "linearity", label), pairs=config.pairs
        ).each_cosine("code")[:, 0]
        for label, own in enumerate(used)
    ]
    labels = np.repeat(np.arange(len(used)), used.shape[1])
    flat = used.reshape(-1, *used.shape[2:])
    measures = network_measures(denoiser, flat, stream(key, "measures"), labels=labels, sigmas=SIGMAS).to_json()
    return {"error": measures["error"], "asymmetry": measures["asymmetry"], "bent": np.concatenate(bent, axis=1)}


def measured(config: Config) -> dict[str, Any]:
    """Figures of both networks, and of images held out."""
    from dgu import data
    from dgu.analysis.stats import t_interval

    name, split = ("fashion-mnist-mini", "test") if config.quick else ("fashion-mnist", "train")
    tests = data.load(name, "test", 14)
    rows = [tests.images[tests.labels == label] for label in range(len(tests.class_names))]
    least = min(len(own) for own in rows)
    if not BLOCKS * 2 <= 2 * config.per_class <= least or not 2 <= config.pairs <= config.per_class // 2:
        raise SystemExit(
            f"per_class = {config.per_class}, pairs = {config.pairs}: must be {BLOCKS} to {least // 2}, and 2 to half of "
            "per_class"
        )
    reference, others = (
        np.stack([own[start : start + config.per_class] for own in rows]) for start in (0, config.per_class)
    )
    shape = reference.shape[2:]
    flat = [each.reshape(-1, *shape) for each in (reference, others)]
    networks, bent = {}, {}
    for preset, title in NETWORKS.items():
        denoiser, about = trained(preset, config, name, split)
        print(f"{title}: trained, {about['images_seen']:,} images", flush=True)
        images = drawn(denoiser, shape, len(flat[0]), config.seed)
        levels = by_level(denoiser, reference, config)
        bent[title] = levels.pop("bent")
        spreads = [interval(each) for each in t_interval(bent[title], bounds=(0, 2))]
        networks[title] = {**about, **apart(images, flat[0], config.seed), **levels, "linearity": spreads}
        print(f"{title}: {networks[title]}", flush=True)
    first, second = bent.values()
    return {
        "config": dataclasses.asdict(config),
        "data": name,
        "images": len(flat[0]),
        "networks": networks,
        "held_out": apart(flat[1], flat[0], config.seed),
        "linearity_difference": [interval(each) for each in t_interval(second - first)],
    }


def shown(found: list[float], scale: float = 1.0) -> str:
    """A value with its interval."""
    value, low, high = (digits(scale * each) for each in found)
    return f"{value} ({low} to {high})"


def lines(figures: dict[str, Any]) -> list[str]:
    """The two tables."""
    networks = figures["networks"]
    samples = [
        [
            name,
            f"{one['parameters']:,}",
            f"{one['images_seen']:,}",
            digits(one["flop_an_image"] / 1e9),
            "-" if (busy := one["training_processor_seconds"]) is None else f"{busy / 60:.1f}",
            shown(one["frechet_distance"]),
            shown(one["kid"], 1000),
        ]
        for name, one in networks.items()
    ]
    held_out = figures["held_out"]
    samples.append(["held-out images", *"----", shown(held_out["frechet_distance"]), shown(held_out["kid"], 1000)])
    header = ["images of", "parameters", "trained on images", "GFLOP a training image", "minutes of a core to train"]
    measures = {"error": "squared error", "linearity": "1 less the cosine", "asymmetry": "asymmetry"}
    levels = [
        [
            measures[measure],
            f"{sigma:g}",
            *(shown(one[measure][place]) for one in networks.values()),
            shown(figures["linearity_difference"][place]) if measure == "linearity" else "-",
        ]
        for measure in measures
        for place, sigma in enumerate(SIGMAS)
    ]
    first, second = networks
    return [
        *table([*header, "Frechet distance", "KID x 1000"], samples),
        "",
        *table(["measure", "sigma", first, second, f"{second} less {first}, paired"], levels),
    ]


def main(config: Config) -> None:
    """Train or read, measure, print, write the files."""
    config = made_small(config) if config.quick else config
    figures = measured(config)
    tables = lines(figures)
    print("\n".join(tables))
    if config.json is not None:
        provenance.write(config.json, figures)
    page = Path(config.page) if config.page else None if config.quick else PAGE
    if page is not None:
        origin = provenance.origin()
        versions = ", ".join(f"{name} {origin['versions'][name]}" for name in ("dgu", "jax", "jaxlib"))
        made = f"`{origin['command']}`, {origin['day']}; {versions}, {origin['processor']}, {origin['cores']} cores."
        page.write_text(put(page.read_text(), MARKS, [made, "", *tables]))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
