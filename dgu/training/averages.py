"""Averages of another width than a training kept: ``python -m dgu.training.averages RUN OUT --std 0.075``.

A training with ``power_ema_stds`` stores the averaged network of each width at each checkpoint, in ``averages/``. From
these files the average of any other width, at the last checkpoint or at an earlier one, is put together afterwards
(arXiv 2312.02696, section 3.2). ``OUT`` is a network file as every ``--checkpoint`` option takes it.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dgu.core.arrays import is_number
from dgu.core.errors import InputError, require
from dgu.core.reading import guarded
from dgu.models.edm import EDMNetwork
from dgu.models.pretrained import load_checkpoint, save_network
from dgu.training.config import WIDEST_AVERAGE
from dgu.training.power_ema import power_ema_coefficients

#: The folder of the averaged networks in the directory of a training.
AVERAGES = "averages"
_NAME = re.compile(r"([0-9]{12})-(0\.[0-9]{1,17})\.npz")


def average_file(run: Path, images_seen: int, std: float) -> Path:
    """The file of the average of the width ``std`` after ``images_seen`` training images."""
    return run / AVERAGES / f"{images_seen:012d}-{np.format_float_positional(std)}.npz"


def stored_averages(run: str | os.PathLike[str]) -> list[tuple[int, float, Path]]:
    """The images seen, width and file of each average in the directory of a training, by time and width.

    Raises:
        InputError: there are none.
    """
    folder = Path(run) / AVERAGES
    with guarded(f"run = {os.fspath(run)!r}", "the directory of a training with power_ema_stds"):
        found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    require(bool(found), "run", os.fspath(run), f"a directory with networks in {AVERAGES}/")
    return sorted((int(match[1]), float(match[2]), path) for match, path in found)


def reconstruct_average(
    run: str | os.PathLike[str], out: str | os.PathLike[str], std: float, images_seen: int | None = None
) -> Path:
    """Write the network averaged with the width ``std``, from the averages of other widths that a training stored.

    Args:
        run: the directory of the training.
        out: the ``.npz`` to write, or a folder for its ``network.npz``.
        std: the relative standard deviation of the wanted average.
        images_seen: when it ends, in training images: a checkpoint's number; None is the last one.

    Returns:
        The file that was written.

    Raises:
        InputError: no stored averages, a width or a time out of range, or files of different networks.
    """
    require(is_number(std) and 0 < std <= WIDEST_AVERAGE, "std", std, f"above 0, at most {WIDEST_AVERAGE:.4f}")
    stored = stored_averages(run)
    times = sorted({seen for seen, _, _ in stored})
    end = times[-1] if images_seen is None else images_seen
    require(end in times, "images_seen", end, f"one of the checkpoints ({', '.join(map(str, times[:20]))})")
    used = [entry for entry in stored if entry[0] <= end]
    coefficients = power_ema_coefficients(
        np.asarray([seen for seen, _, _ in used]), np.asarray([width for _, width, _ in used]), float(end), std
    )
    networks = [load_checkpoint(path) for _, _, path in used]
    for found, (seen, width, path) in zip(networks, used):
        known = found.metadata.get("images_seen"), found.metadata.get("power_ema_std")
        same = found.network == networks[0].network and known == (seen, width)
        require(same, "average", path.name, "of the same training as the others, and of the width in its name")
    total = jax.tree.map(
        lambda *leaves: sum(c * np.asarray(leaf, np.float64) for c, leaf in zip(coefficients, leaves)),
        *(found.denoiser.params for found in networks),
    )
    path, about = Path(out) / "network.npz" if Path(out).is_dir() else Path(out), networks[-1].metadata
    kept = {name: value for name, value in about.items() if name not in ("format", "config")}
    network = networks[0].network
    if not isinstance(network, EDMNetwork):
        raise InputError(f"run = {os.fspath(run)!r}: must be a training of this package")
    save_network(path, network, total, {**kept, "power_ema_std": std})
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; bad input ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(
        "python -m dgu.training.averages",
        description="Put together the network averaged with another width than a training kept.",
    )
    parser.add_argument("run", help="the directory of a training with power_ema_stds")
    parser.add_argument("out", help="the .npz to write, or a folder for network.npz")
    parser.add_argument("--std", type=float, required=True, help=f"the width, above 0 and at most {WIDEST_AVERAGE:.4f}")
    parser.add_argument("--images-seen", type=int, help="the checkpoint at which the average ends; the last by default")
    options = parser.parse_args(argv)
    try:
        if not math.isfinite(options.std):
            raise InputError(f"std = {options.std}: must be a finite number")
        path = reconstruct_average(options.run, options.out, options.std, options.images_seen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB); pass it to the option --checkpoint of any experiment")


if __name__ == "__main__":
    main()
