"""Samples: a few images of each class beside real ones and those of the mixture (Figs 2 and 10 of the paper)."""

import numpy as np

from dgu import plots
from dgu.core.keys import seeded, stream
from dgu.distributions import draw_gaussians, fit_gaussians
from experiments.decoding import pictures
from experiments.study import Figure, Findings, Part, Run
from experiments.universality.features import PIXELS
from experiments.universality.options import Options
from experiments.universality.subject import PAPER, Subject

#: Images of each class and source in the picture.
SHOWN = 4
#: How the stored arrays are called in the picture, in its order.
COLUMNS = {"real": "real", "diffusion": "diffusion", "mixture": "Gaussian mixture"}

FIGURES = (
    Figure(
        "samples",
        "Real images (if given), diffusion samples, and samples of the Gaussian mixture fitted to the diffusion "
        "samples (if pixels are studied); each row is a class.",
        "fig-2 fig-10",
    ),
)


def measure(options: Options, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """The images to show."""
    return run.stage("shown", first_images, options, subject)


def report(options: Options, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """The picture."""
    blocks = {label: found[name] for name, label in COLUMNS.items() if name in found}
    shown = pictures(np.concatenate(list(blocks.values()), axis=1), subject.decoder)
    grid = plots.image_grid(shown, subject.class_names, list(blocks))
    return Findings("", figures={"samples": grid})


def first_images(options: Options, subject: Subject) -> dict[str, np.ndarray]:
    """The first images of each class and source, (K, SHOWN, H, W, C); pixels of the mixture are brought to [-1, 1]."""
    images = {"diffusion": subject.samples[:, :SHOWN]}
    if subject.real is not None:
        images["real"] = subject.real[:, :SHOWN]
    if subject.source.kind == PIXELS:
        key = stream(stream(seeded(options.seed), "control-positive"), 0)
        drawn = draw_gaussians(fit_gaussians(subject.examples.rows), key, SHOWN)
        low, high = options.pixel_range
        images["mixture"] = ((drawn - low) / (high - low) * 2 - 1).reshape(images["diffusion"].shape)
    return images


PART = Part("samples", "Samples", "What do the images look like?", PAPER, (), FIGURES, measure, report)
