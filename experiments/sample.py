"""Images from a network: ``python -m experiments.sample --checkpoint edm-cifar10-32x32-cond-vp.pkl --seeds 0-63``

The conventions are those of EDM's ``generate.py``: an image depends on its seed alone, whatever the batch or the
devices; its class is drawn from the seed unless ``--class`` is given; bytes are truncated; files are called by the
seed. (The random bits are JAX's: seed 7 here is not seed 7 of the reference.) A run that was killed goes on with the
images that are missing.
"""

import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from dgu.core import parallel
from dgu.core.errors import InputError, require
from experiments.decoding import DecoderOptions, decoder_of
from experiments.sampling import PAPER_SAMPLER, GuidanceOptions, Make, SamplerConfig, fill_class, image_maker
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.guide import Guide
from experiments.study.options import option
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Report, Table
from experiments.study.run_directory import RunDirectory

FIGURE_FILES = ("figures/samples.png",)
#: Rows and columns of the picture, at most.
_GRID = (8, 8)


@dataclass(frozen=True)
class Config(GuidanceOptions, DecoderOptions):
    """Sampling a network."""

    checkpoint: str = "fashion-mnist-14"
    """The bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a training run, one of
    NVIDIA's snapshots (.pkl), a folder of diffusers, or a network of these as PyTorch saved it (.pt)."""
    seeds: str = "0-63"
    """Seeds, one an image, as a list of numbers and ranges: 0-63 or 1,5,100-199."""
    class_: Annotated[int | None, tyro.conf.arg(name="class")] = option(None, ge=0)
    """Class of all images; None draws one for each seed."""
    format: Literal["png", "zip", "store"] = "png"
    """png: images/SEED.png; zip: one EDM data set, images.zip; store: float arrays in samples/ (one class, seeds from
    0).
    """
    subdirs: bool = False
    """Put the PNG files in folders of a thousand."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    seed: int = option(0, ge=0)
    """Base seed; changing it changes every image."""

    def check(self) -> None:
        """Seeds are a list of numbers and ranges; a store takes those from 0, in one folder."""
        seeds = parse_seeds(self.seeds)
        if self.format == "store":
            from_zero = np.array_equal(seeds, np.arange(len(seeds)))
            require(from_zero, "seeds", self.seeds, "a range from 0 with --format store")
        require(not self.subdirs or self.format != "store", "subdirs", True, "left out with --format store")
        keeps = "left out with --format store, which keeps what the network makes"
        require(self.decoder is None or self.format != "store", "decoder", self.decoder, keeps)


def parse_seeds(text: str) -> np.ndarray:
    """The seeds that ``0-63`` or ``1,5,100-199`` lists, sorted, each once.

    Raises:
        InputError: anything else, or seeds of 2^31 and above.
    """
    parts = [re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", part.strip()) for part in text.split(",")]
    allowed = "numbers and rising ranges separated by commas, such as 0-63 or 1,5,100-199, below 2147483648"
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part is not None]
    sound = len(ranges) == len(parts) and all(first <= last < 2**31 for first, last in ranges)
    require(sound, "seeds", text, allowed)
    require(sum(last - first + 1 for first, last in ranges) <= 10**8, "seeds", text, "at most a hundred million")
    return np.unique(np.concatenate([np.arange(first, last + 1) for first, last in ranges]))


GUIDE = Guide(
    first=("--checkpoint", "--seeds", "--class", "--format", "--sampler.num-steps", "--sampler.batch-size"),
    examples={
        "--seeds 0-63 --class 3 --out runs/dresses": "64 images of one class of the bundled network, as PNG files.",
        "--checkpoint runs/my-network --seeds 0-9999 --format zip --out runs/mine": "An EDM data set of 10,000 "
        "images of a network that you trained.",
    },
)
PRESETS = {
    "smoke": Config(seeds="0-11", sampler=SamplerConfig(num_steps=4, batch_size=12)),
    "default": Config(),
    "paper": Config(
        checkpoint="edm-imagenet-64x64-cond-adm.pkl",
        seeds="0-49999",
        subdirs=True,
        sampler=replace(PAPER_SAMPLER, batch_size=64),
    ),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """Make the images that are missing, write them as asked for, and show the first."""
    from dgu import plots
    from dgu.core import keys
    from dgu.data.export import to_uint8
    from experiments.subjects import load

    pretrained = load(config.checkpoint, guidance=config)
    network = pretrained.network
    decoder = decoder_of(config, network.shape)
    shape = network.shape if decoder is None else decoder.shape
    drawable = config.format == "store" or shape[-1] in (1, 3)
    allowed = f"store for images of {shape[-1]} channels, or --decoder with their autoencoder"
    require(drawable, "format", config.format, allowed)
    seeds = parse_seeds(config.seeds)
    labels = classes_of(config, seeds, network.unet.label_dim)
    sampled: Make = partial(image_maker(pretrained, config.sampler), keys.stream(keys.seeded(config.seed), "sample"))
    make = sampled if decoder is None else lambda labels, indices: decoder(sampled(labels, indices))
    # No image says which network made it: where that is not on record, none is used again.
    made_by = str(directory.stage("network", lambda: _begun(directory, pretrained.sha256))["sha256"])
    parallel.barrier("begun")
    if made_by != pretrained.sha256:
        made = f"the network {made_by[:12]}..., which made the images stored so far, not {pretrained.sha256[:12]}..."
        raise InputError(f"checkpoint = {config.checkpoint!r}: must be {made}; or give --out another directory")

    shown = seeds[: _GRID[0] * _GRID[1]]
    with Progress("sampling", total=len(seeds), unit="images") as bar:
        if config.format == "store":
            pictures = to_uint8(
                _fill_store(config, directory, network.shape, labels=labels, count=len(seeds), make=make, bar=bar)
            )
        else:
            pictures = _write_images(config, directory, shape, seeds=seeds, labels=labels, make=make, bar=bar)
    rows = -(-len(shown) // _GRID[1])
    blank = np.full((rows * _GRID[1] - len(shown), *shape), 255, np.uint8)
    grid = np.concatenate([pictures, blank]).reshape(rows, _GRID[1], *shape).astype(np.float32) / 127.5 - 1
    names = [f"{shown[row * _GRID[1]]}" for row in range(rows)]
    directory.save_figure(
        FIGURE_FILES[0], plots.image_grid(grid, names, [f"seeds from the one on the left, {_name(config)}"])
    )
    evaluations = config.sampler.evaluations
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
    return config.checkpoint.rstrip("/").rsplit("/", 1)[-1] + config.guided_by


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost."""
    from experiments.subjects import planned, sampling_cost

    network, sampler = planned(config.checkpoint, guidance=config), config.sampler
    images, decoder = len(parse_seeds(config.seeds)), decoder_of(config, network.shape)
    drawn = sampling_cost(network, images, sampler.evaluations, sampler.batch_size)
    if decoder is None:
        return [drawn]
    # Latents are not stored where their images are.
    disk = images * math.prod(decoder.shape)
    return [replace(drawn, disk=0), replace(decoder.cost(images, network.shape), disk=disk)]


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


def _fill_store(
    config: Config,
    directory: RunDirectory,
    shape: tuple[int, ...],
    *,
    labels: np.ndarray | None,
    count: int,
    make: Make,
    bar: Progress,
) -> np.ndarray:
    """The first images of the store ``samples/``, filled by all processes."""
    from dgu.data import SampleStore

    size = config.sampler.batch_size
    store = SampleStore.open(directory.path / "samples", {"run": "config.json"}, shape, shard_size=size)
    label = 0 if labels is None else int(labels[0])
    fill_class(store, make, label, count, size, bar)
    parallel.barrier("stored")
    return store.read(label, min(count, _GRID[0] * _GRID[1]))


def _write_images(
    config: Config,
    directory: RunDirectory,
    shape: tuple[int, ...],
    *,
    seeds: np.ndarray,
    labels: np.ndarray | None,
    make: Make,
    bar: Progress,
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
        together = config.sampler.batch_size * jax.local_device_count()
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
        renamed={"--batch-size": "--sampler.batch-size"},
        guide=GUIDE,
        argv=argv,
    )


def command(argv: Sequence[str] | None = None) -> None:
    """What ``python -m experiments.sample`` does: join the other processes, if any, and run the command line."""
    begin("sample", parallel.start)
    main(argv)


if __name__ == "__main__":
    command()
