"""Far modes made wider (Remark 6 of the paper), and far modes whose inputs are scaled down (Remark 7)."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import plots
from dgu.analysis import Grid
from dgu.models import two_modes
from experiments.generalization.shift_options import Config
from experiments.generalization.statistics import (
    WORST,
    bootstrap,
    few_ranked,
    finite,
    ratio_of_medians,
    shown,
    trend,
    unless,
    untrained,
)
from experiments.generalization.trainings import NAMES, Arm, scaled_time
from experiments.study import Claim, Measured, Noted, at_most


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    small, large = config.input_scales[-1], config.input_scales[0]
    return (
        Claim(
            "mode-width",
            "With SGD, the KL falls as the modes become wider at the same distance (rank correlation of the median KL "
            "with their width).",
            at_most(0.0),
            source="Remark 6",
        ),
        Claim(
            "inputs-scaled",
            "Scaling the inputs down makes far modes easier to learn with SGD (ratio of the median KL with inputs "
            f"scaled by {small:g} to that with inputs scaled by {large:g}).",
            at_most(1.0),
            source="Remark 7",
        ),
    )


def arms(config: Config, t_eps: float) -> list[Arm]:
    """Wider modes at the largest distance, then the same mixture scaled down; the KL's noise is scaled with them."""
    mu = config.modes[-1]
    found = []
    for place, std in [(mu, std) for std in config.mode_widths] + [(mu * s, s) for s in config.input_scales]:
        # The grid reaches as far beyond wide modes as the paper's does beyond narrow ones.
        half = place + 15 * max(std, place / mu)
        grid = Grid(-half, half, config.points)
        found.append(Arm(two_modes(place, std=std), grid, scaled_time(std, t_eps)))
    return found


def report(config: Config, results: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[dict[str, Measured], Drawing]:
    """What was measured for the claims, and the figure; ``results`` are the trainings of all arms, by optimiser."""
    wide, scaled = len(config.mode_widths), len(config.input_scales)
    short = untrained(config.remark_epochs)
    level = {}
    for name, found in results.items():
        late = found["epochs"] >= config.remark_epochs / 2
        kl = np.median(finite(found["kl"])[:, late], axis=1)
        level[name] = kl.reshape(wide + scaled, config.remark_seeds)

    sgd = level["sgd"]
    widths = bootstrap(lambda rows: trend(config.mode_widths, rows), sgd[:wide].T)
    scales = bootstrap(ratio_of_medians, sgd[wide + scaled - 1], sgd[wide])
    measured: dict[str, Measured] = {
        "mode-width": unless(short or few_ranked(config.mode_widths, "widths"), widths),
        "inputs-scaled": unless(short, Noted(scales, "the noise at the time of the KL is scaled with the data")),
    }
    panels = [
        plots.SizePanel(
            title,
            label,
            "KL, nats",
            np.asarray(values),
            {NAMES[name]: shown(one[rows]) for name, one in level.items()},
            ceiling=WORST,
            lost="diverged",
        )
        for title, label, values, rows in (
            ("Remark 6", "standard deviation of the modes", config.mode_widths, slice(wide)),
            ("Remark 7", "factor of the inputs", config.input_scales, slice(wide, None)),
        )
    ]
    return measured, plots.against_size(panels, title=f"Modes at ±{config.modes[-1]:g}")
