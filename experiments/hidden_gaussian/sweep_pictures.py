"""Held-out images, noisy versions of them and pure noise, and what the denoisers of the sweeps make of these."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dgu.core.denoisers import as_pytree, map_batch
from dgu.core.typing import Denoiser
from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser
from experiments.hidden_gaussian.arms import Arm, Design
from experiments.hidden_gaussian.subject import GAUSSIAN, NETWORK, POINTS
from experiments.hidden_gaussian.trainer import load
from experiments.study import Run

#: The noise level whose denoised images are shown, as in the paper, and one at which all denoisers should agree.
DENOISED_AT, HIGH = 4.0, 42.4
#: Images that are shown at most.
SHOWN = 8


@dataclass(frozen=True, eq=False)
class Denoised:
    """Inputs of denoisers, and their outputs.

    Attributes:
        sigma, high: the two noise levels.
        inputs: ``clean``, ``noise`` (of unit variance), ``noisy`` (clean with noise of level ``sigma``), ``pure``
            (noise of this level alone) and ``high`` (clean with noise of level ``high``), ``(n, H, W, C)`` each.
        outputs: ``noisy_NAME``, ``pure_NAME`` and ``high_NAME`` for the denoiser NAME: see ``of_size``, ``of_width``
            and ``of_time``.
    """

    sigma: float
    high: float
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def of_size(model: str, size: int) -> str:
    """The name of the first seed's wide network, or of a closed form, of a training set of this size."""
    return f"{model}-{size}"


def of_width(width: int) -> str:
    """The name of the network of this width on little data."""
    return f"width-{width}"


def of_time(place: int) -> str:
    """The name of the widest network on little data at its checkpoint number ``place``."""
    return f"time-{place}"


def denoised(design: Design, run: Run, sizes: Sequence[int], widths: Sequence[Arm]) -> Denoised:
    """Outputs of the networks and closed forms of some sizes, of networks of all widths on little data, and of the
    widest of these (the last) at its checkpoints; all of the first seed."""
    config, wide = design.config, design.arm(sizes[0], 0)
    grid = design.sigmas(wide)[:-1]
    sigma, high = (float(grid[np.argmin(np.abs(np.log(grid / level)))]) for level in (DENOISED_AT, HIGH))
    clean = design.images.held[: min(SHOWN, config.held_out)].astype(np.float32)
    key = design.key("denoised")
    noise = np.stack([np.asarray(initial_noise(key, index, clean.shape[1:])) for index in range(len(clean))])
    inputs = {"noisy": clean + sigma * noise, "pure": sigma * noise, "high": clean + high * noise}
    levels = {"noisy": sigma, "pure": sigma, "high": high}

    def outputs(name: str, model: Denoiser) -> dict[str, np.ndarray]:
        together = np.concatenate(list(inputs.values()))
        each = np.repeat(np.array(list(levels.values()), np.float32), len(clean))
        made = np.split(np.asarray(map_batch(as_pytree(model), together, each)), len(inputs))
        return {f"{kind}_{name}": images for kind, images in zip(inputs, made)}

    def closed_forms(arm: Arm) -> dict[str, np.ndarray]:
        points = EmpiricalDenoiser(design.subset(arm))
        found = outputs(of_size(GAUSSIAN, arm.size), design.gaussian(arm))
        return found | outputs(of_size(POINTS, arm.size), points)

    def compute() -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for size in sizes:
            arm = design.arm(size, 0)
            found |= outputs(of_size(NETWORK, size), load(design, run.directory, arm)) | closed_forms(arm)
        if widths[0].size not in sizes:
            found |= closed_forms(widths[0])
        for arm in widths:
            found |= outputs(of_width(arm.width), load(design, run.directory, arm))
        for place, step in enumerate(config.marks):
            found |= outputs(of_time(place), load(design, run.directory, widths[-1], step))
        return found

    return Denoised(sigma, high, {"clean": clean, "noise": noise, **inputs}, run.stage("denoised", compute))
