"""Images from a network: ``python -m experiments.sample --checkpoint edm-cifar10-32x32-cond-vp.pkl --seeds 0-63``

The conventions are those of EDM's ``generate.py``: an image depends on its seed alone, whatever the batch or the
devices; its class is drawn from the seed unless ``--class`` is given; bytes are truncated; files are called by the
seed. (The random bits are JAX's: seed 7 here is not seed 7 of the reference.) A run that was killed goes on with the
images that are missing.
"""

import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from dgu.core import parallel
from dgu.core.errors import InputError, require
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Report, Table
from experiments.study.run_directory import RunDirectory

FIGURE_FILES = ("figures/samples.png",)
#: Rows and columns of the picture, at most.
_GRID = (8, 8)


@dataclass(frozen=True)
class SamplerConfig:
    """How images are made from noise."""

    method: Literal["edm", "ablation", "dpm-solver"] = "edm"
    """edm: Algorithm 2, stochastic where churn > 0; ablation: the family below; dpm-solver: DPM-Solver++(2M), for few
    steps.
    """
    num_steps: int = 18
    """Noise levels before 0; the network is evaluated 2 num_steps - 1 times (once a step by Euler and DPM-Solver++)."""
    sigma_min: float | None = None
    """Smallest noise level, one that the network takes; None is the method's (0.002 for edm), raised to the
    network's.
    """
    sigma_max: float | None = None
    """Largest noise level, one that the network takes; None is the method's (80 for edm), lowered to the network's."""
    rho: float = 7.0
    """Curvature of EDM's noise levels."""
    churn: float = 0.0
    """S_churn: noise added per step; 0 is deterministic."""
    s_min: float = 0.0
    """Noise is added above this level."""
    s_max: float = math.inf
    """Noise is added below this level."""
    s_noise: float = 1.0
    """Standard deviation of the noise added, relative to what the step removes."""
    solver: Literal["heun", "euler"] = "heun"
    """Of the ablation sampler: second or first order."""
    disc: Literal["vp", "ve", "iddpm", "edm"] = "edm"
    """Of the ablation sampler: noise levels."""
    schedule: Literal["vp", "ve", "linear"] = "linear"
    """Of the ablation sampler: noise level over time."""
    scaling: Literal["vp", "none"] = "none"
    """Of the ablation sampler: scaling over time."""
    alpha: float = 1.0
    """Of the ablation sampler: place of the second evaluation (1 Heun, 0.5 midpoint, 2/3 Ralston)."""

    def __post_init__(self) -> None:
        check_options(
            self,
            "sampler",
            num_steps=2,
            sigma_min="(0, inf)",
            sigma_max="(0, inf)",
            rho="(0, inf)",
            churn="[0, inf)",
            s_min="[0, inf)",
            s_max="[0, inf]",
            s_noise="[0, inf)",
            alpha="(0, 1]",
        )
        low, high = self.sigma_min or 0.0, self.sigma_max or math.inf
        require(low < high, "sampler.sigma_min", low, f"below sampler.sigma_max = {high:g}")
        require(self.method != "dpm-solver" or self.churn == 0, "sampler.churn", self.churn, "0 with dpm-solver")
        default = SamplerConfig.__dataclass_fields__
        for name in ("solver", "disc", "schedule", "scaling", "alpha"):
            value = getattr(self, name)
            unused = self.method == "ablation" or value == default[name].default
            require(unused, f"sampler.{name}", value, "left out, or --sampler.method ablation given")


@dataclass(frozen=True)
class Config:
    """Sampling a network."""

    checkpoint: str = "fashion-mnist-14"
    """A bundled network, a network.npz, the directory of a training run, or one of NVIDIA's snapshots (.pkl)."""
    seeds: str = "0-63"
    """Seeds, one an image, as a list of numbers and ranges: 0-63 or 1,5,100-199."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = None
    """Class of all images; None draws one for each seed."""
    format: Literal["png", "zip", "store"] = "png"
    """png: images/SEED.png; zip: one EDM data set, images.zip; store: float arrays in samples/ (one class, seeds from
    0).
    """
    subdirs: bool = False
    """Put the PNG files in folders of a thousand."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    batch_size: int = 64
    """Images per device and chunk."""
    seed: int = 0
    """Another value gives every seed another image."""

    def __post_init__(self) -> None:
        check_options(self, class_=0, batch_size=1, seed=0)
        seeds = parse_seeds(self.seeds)
        if self.format == "store":
            from_zero = np.array_equal(seeds, np.arange(len(seeds)))
            require(from_zero, "seeds", self.seeds, "a range from 0 with --format store")
        require(not self.subdirs or self.format != "store", "subdirs", True, "left out with --format store")


def parse_seeds(text: str) -> np.ndarray:
    """The seeds that ``0-63`` or ``1,5,100-199`` lists, sorted, each once.

    Raises:
        InputError: anything else, or seeds of 2^31 and above.
    """
    parts = [re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part.strip()) for part in text.split(",")]
    allowed = "numbers and rising ranges separated by commas, such as 0-63 or 1,5,100-199, below 2147483648"
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    sound = len(ranges) == len(parts) and all(first <= last < 2**31 for first, last in ranges)
    require(sound, "seeds", text, allowed)
    require(sum(last - first + 1 for first, last in ranges) <= 10**8, "seeds", text, "at most a hundred million")
    return np.unique(np.concatenate([np.arange(first, last + 1) for first, last in ranges]))


PRESETS = {
    "smoke": Config(seeds="0-11", sampler=SamplerConfig(num_steps=4), batch_size=12),
    "default": Config(),
    "paper": Config(
        checkpoint="edm-imagenet-64x64-cond-adm.pkl",
        seeds="0-49999",
        subdirs=True,
        sampler=SamplerConfig(num_steps=256, churn=40, s_min=0.05, s_max=50, s_noise=1.003),
    ),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """Make the images that are missing, write them as asked for, and show the first."""
    from dgu import plots, samplers
    from dgu.core import keys
    from dgu.data.export import to_uint8
    from experiments.study.checkpoints import load
    from experiments.study.progress import Progress

    pretrained = load(config.checkpoint)
    network, denoiser = pretrained.network, pretrained.denoiser
    drawable = config.format == "store" or network.shape[-1] in (1, 3)
    require(drawable, "format", config.format, f"store for images of {network.shape[-1]} channels")
    seeds = parse_seeds(config.seeds)
    labels = classes_of(config, seeds, network.unet.label_dim)
    sigmas, solver, churn = build_sampler(config.sampler, denoiser)
    key = keys.stream(keys.seeded(config.seed), "sample")
    # No image says which network made it: where that is not on record, none is used again.
    made_by = str(directory.stage("network", lambda: _begun(directory, pretrained.sha256))["sha256"])
    parallel.barrier("begun")
    if made_by != pretrained.sha256:
        made = f"the network {made_by[:12]}..., which made the images stored so far, not {pretrained.sha256[:12]}..."
        raise InputError(f"checkpoint = {config.checkpoint!r}: must be {made}; or give --out another directory")

    def make(of: np.ndarray | None, which: np.ndarray) -> np.ndarray:
        return samplers.sample(
            denoiser,
            key,
            which,
            sigmas,
            shape=network.shape,
            labels=of,
            churn=churn,
            solver=solver,
            batch_size=config.batch_size,
        )

    shown = seeds[: _GRID[0] * _GRID[1]]
    with Progress("sampling", total=len(seeds), unit="images") as bar:
        if config.format == "store":
            pictures = _fill_store(config, directory, network.shape, labels, len(seeds), make, bar)[: len(shown)]
            pictures = to_uint8(pictures)
        else:
            pictures = _write_images(config, directory, network.shape, seeds, labels, make, bar)[: len(shown)]
    rows = -(-len(shown) // _GRID[1])
    blank = np.full((rows * _GRID[1] - len(shown), *network.shape), 255, np.uint8)
    grid = np.concatenate([pictures, blank]).reshape(rows, _GRID[1], *network.shape).astype(np.float32) / 127.5 - 1
    names = [f"{shown[row * _GRID[1]]}" for row in range(rows)]
    directory.save_figure(
        FIGURE_FILES[0], plots.image_grid(grid, names, [f"seeds from the one on the left, {_name(config)}"])
    )
    evaluations = evaluations_of(config.sampler)
    metrics = {
        "images": len(seeds),
        "evaluations_per_image": evaluations,
        "network_sha256": pretrained.sha256,
        "mean": float(pictures.mean() / 127.5 - 1),
        "classes": np.bincount(labels, minlength=network.unet.label_dim).tolist() if labels is not None else None,
    }
    directory.write_json("metrics.json", metrics)
    where = {"png": "images/", "zip": "images.zip", "store": "samples/"}[config.format]
    answer = f"{len(seeds):,} images of {_name(config)}, {evaluations} evaluations of the network each, are in {where}."
    caption = "The first images; a row is labelled by its first seed."
    shown_metrics = [(name.replace("_", " "), value) for name, value in metrics.items() if name != "classes"]
    return Report(
        "Samples",
        answer,
        claims=(),
        figures=[FigureEntry(FIGURE_FILES[0], caption)],
        tables=[Table("Result", ("", ""), shown_metrics)],
    )


def _begun(directory: RunDirectory, sha256: str) -> dict[str, str]:
    """What is on record of the network ``sha256`` that makes the images from now on; those of an unknown one go."""
    if parallel.is_lead():
        for folder in ("images", "samples"):
            shutil.rmtree(directory.path / folder, ignore_errors=True)
        (directory.path / "images.zip").unlink(missing_ok=True)
    return {"sha256": sha256}


def _name(config: Config) -> str:
    return config.checkpoint.rstrip("/").rsplit("/", 1)[-1]


def evaluations_of(config: SamplerConfig) -> int:
    """Evaluations of the network for an image: one a step, or two but for the last."""
    first_order = config.method == "dpm-solver" or (config.method == "ablation" and config.solver == "euler")
    return config.num_steps if first_order else 2 * config.num_steps - 1


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost."""
    from experiments.study.checkpoints import planned, sampling_cost

    network = planned(config.checkpoint)
    return [sampling_cost(network, len(parse_seeds(config.seeds)), evaluations_of(config.sampler), config.batch_size)]


def classes_of(config: Config, seeds: np.ndarray, label_dim: int) -> np.ndarray | None:
    """The class of each image: the one asked for, else drawn from the seed; None for a network without classes.

    Raises:
        InputError: a class that the network does not have; several classes in one store.
    """
    import jax

    from dgu.core import keys

    if config.class_ is not None:
        allowed = f"in 0..{label_dim - 1}" if label_dim else "left out: the network is unconditional"
        require(config.class_ < label_dim, "class", config.class_, allowed)
        return np.full(len(seeds), config.class_, np.int32)
    if not label_dim:
        return None
    require(config.format != "store", "class", None, f"in 0..{label_dim - 1} with --format store")
    key = keys.stream(keys.seeded(config.seed), "class")
    draw = jax.jit(jax.vmap(lambda seed: jax.random.randint(jax.random.fold_in(key, seed), (), 0, label_dim)))
    return np.asarray(draw(seeds.astype(np.uint32)), np.int32)


def build_sampler(config: SamplerConfig, denoiser: Any) -> tuple[np.ndarray, Callable[..., Any], Any]:
    """Noise levels within the network's range, the solver of ``dgu.samplers.sample``, and the churn.

    Raises:
        InputError: a smallest or largest level asked for is not one of the network's.
    """
    from dgu import samplers
    from dgu.core.denoisers import check_range

    for name in ("sigma_min", "sigma_max"):
        asked = getattr(config, name)
        if asked is not None:
            check_range(denoiser, f"sampler.{name}", asked)
    churn = samplers.Churn(config.churn, config.s_min, config.s_max, config.s_noise)
    rounds = not np.array_equal(denoiser.round_sigma(np.asarray([0.3, 7.1])), np.asarray([0.3, 7.1]))
    if config.method == "ablation" or rounds:
        require(config.method != "dpm-solver" or not rounds, "sampler.method", config.method,
                "edm or ablation: the network rounds noise levels")  # fmt: skip
        solver = samplers.Ablation(
            solver=config.solver,
            discretization=config.disc,
            schedule=config.schedule,
            scaling=config.scaling,
            alpha=config.alpha,
            rho=config.rho,
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            network_range=(denoiser.sigma_min, denoiser.sigma_max),
            round_sigma=(lambda sigma: denoiser.round_sigma(sigma)) if rounds else None,
        )
        return solver.sigmas(config.num_steps), solver, churn
    low = max(config.sigma_min or 0.002, denoiser.sigma_min)
    high = min(config.sigma_max or 80.0, denoiser.sigma_max)
    require(low < high, "sampler.sigma_min", low, f"below {high:g}, the largest level of sampler and network")
    sigmas = samplers.karras_sigmas(config.num_steps, low, high, config.rho)
    return sigmas, samplers.DPMSolver() if config.method == "dpm-solver" else samplers.heun, churn


Make = Callable[[np.ndarray | None, np.ndarray], np.ndarray]


def _fill_store(
    config: Config,
    directory: RunDirectory,
    shape: tuple[Any, ...],
    labels: np.ndarray | None,
    count: int,
    make: Make,
    bar: Any,
) -> np.ndarray:
    """The first images of the store ``samples/``, filled by all processes."""
    import jax

    from dgu.data import SampleStore

    store = SampleStore.open(directory.path / "samples", {"run": "config.json"}, shape, shard_size=config.batch_size)
    label = 0 if labels is None else int(labels[0])
    store.fill(
        lambda of, which: make(None if labels is None else of, which),
        [label],
        count,
        batch_size=config.batch_size * jax.local_device_count(),
        process=(jax.process_index(), jax.process_count()),
        progress=lambda done, _: bar.update(done - bar.done),
    )
    parallel.barrier("stored")
    return store.read(label, min(count, _GRID[0] * _GRID[1]))


def _write_images(
    config: Config,
    directory: RunDirectory,
    shape: tuple[Any, ...],
    seeds: np.ndarray,
    labels: np.ndarray | None,
    make: Make,
    bar: Any,
) -> np.ndarray:
    """Write the PNG files that are missing or damaged, each process its part, and pack them if asked; the bytes of the
    first ones.
    """
    import jax

    from dgu.data.export import image_name, to_uint8, write_png
    from dgu.data.folders import first_images

    folder, packed = directory.path / "images", directory.path / "images.zip"
    if config.format != "zip" or not packed.exists():
        mine = np.arange(len(seeds))[jax.process_index() :: jax.process_count()]
        paths = {int(row): folder / image_name(int(seeds[row]), subdirs=config.subdirs) for row in mine}
        missing = np.asarray([row for row in mine if not _is_whole(paths[int(row)], shape)], np.int64)
        bar.update(len(mine) - len(missing))
        together = config.batch_size * jax.local_device_count()
        for at in range(0, len(missing), together):
            rows = missing[at : at + together]
            pixels = to_uint8(make(None if labels is None else labels[rows], seeds[rows]))
            directory.check_there()
            for row, image in zip(rows, pixels):
                if paths[int(row)].is_fifo():  # No image, and nothing that could be lost.
                    paths[int(row)].unlink()
                write_png(paths[int(row)], image)
            bar.update(len(rows))
        parallel.barrier("written")
    if config.format == "png":
        return _read_images(config, directory, seeds[: _GRID[0] * _GRID[1]])
    if parallel.is_lead():
        _pack(config, directory, seeds, labels)
    parallel.barrier("packed")
    try:
        return first_images(packed, _GRID[0] * _GRID[1])
    except InputError as error:
        raise InputError(f"{error} (remove it to make the images again)") from error


def _read_images(config: Config, directory: RunDirectory, seeds: np.ndarray) -> np.ndarray:
    """Bytes (n, H, W, C) of the images of ``seeds``."""
    from dgu.data.export import image_name
    from dgu.data.image_files import read_image

    files = [directory.path / "images" / image_name(int(seed), subdirs=config.subdirs) for seed in seeds]
    return np.stack([read_image(file) for file in files])


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether there is an image of the shape that can be read; one that was damaged is made again."""
    from dgu.data.image_files import read_image

    try:
        return read_image(path).shape == tuple(shape)
    except InputError:
        return False


def _pack(config: Config, directory: RunDirectory, seeds: np.ndarray, labels: np.ndarray | None) -> None:
    """The folder of PNG files as an EDM zip, in its place."""
    from dgu.data.folders import write_edm_zip

    folder, path = directory.path / "images", directory.path / "images.zip"
    if folder.exists():
        if not path.exists():
            write_edm_zip(path, _read_images(config, directory, seeds), labels)
        shutil.rmtree(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_experiment(
        PRESETS,
        run,
        name="sample",
        description="Sample a network, one image a seed: PNG files, an EDM data set, or arrays.",
        dry_run=dry_run,
        claim_ids=(),
        figure_files=FIGURE_FILES,
        argv=argv,
    )


if __name__ == "__main__":
    begin("sample", parallel.start)
    main()
