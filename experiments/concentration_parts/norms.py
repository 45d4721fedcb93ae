"""Norms along the sampler (Figs 4 and 9): do they fall in every step, and as a Gaussian's would?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from dgu import analysis, plots, samplers
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.models import GaussianDenoiser
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.checkpoints import sampling_cost
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Norms along the sampler"
CLAIM_IDS = ("norms-fall", "norms-fall-on-average", "norms-gaussian-control")
FIGURE_FILES = ("figures/norm_panel.png", "figures/norm_changes.png")
#: What is compared with the exact law of a Gaussian.
QUANTITIES = ("x", "denoised", "slope")


@dataclass(frozen=True)
class Config:
    """Norms of the states, of what the denoiser returns, and of the slopes, at every step."""

    trajectories: int = 40
    """Trajectories of each class, 2 or more."""
    histogram_trajectories: int = 400
    """Trajectories of the first class, whose norms are shown as histograms; at least as many as of the others."""
    levels: int = 9
    """Noise levels shown in the panel of histograms and pictures, 2 or more; fewer where the sampler has fewer steps."""
    control: int = 2000
    """Trajectories of the Gaussian control, 100 or more."""
    falling: float = 0.95
    """Share of steps that must decrease the norm, for the claim that norms fall."""

    def __post_init__(self) -> None:
        check_options(self, "norms", trajectories=2, histogram_trajectories=2, levels=2, control=100, falling="(0, 1]")
        enough = self.histogram_trajectories >= self.trajectories
        require(enough, "norms.histogram_trajectories", self.histogram_trajectories, f"{self.trajectories} or more")


PRESETS = {
    "smoke": Config(trajectories=4, histogram_trajectories=8, levels=4, control=200),
    "default": Config(),
    "paper": Config(trajectories=400, histogram_trajectories=10_240),
}


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section | None:
    """Norms of fresh trajectories, beside those of the Gaussian with each class's moments; None without a denoiser."""
    if subject.denoiser is None or subject.sigmas is None:
        return None
    key = stream(seeded(seed), "norms")
    sigmas, num_steps = subject.sigmas, len(subject.sigmas) - 1
    steps = analysis.panel_steps(num_steps, min(config.levels, num_steps))
    measured = [
        directory.stage(f"norms/class-{label}", partial(_trajectories, config, subject, key, number))
        for number, label in enumerate(subject.labels)
    ]
    shown = directory.stage("norms/pictures", lambda: _pictures(subject, key, steps))
    control = directory.stage("norms/control", lambda: _control(config, subject, key))
    exact = directory.stage("norms/gaussian", lambda: _expected(subject))

    changes = [found["change"][: config.trajectories] for found in measured]
    pooled = np.concatenate(changes)
    share, shares = analysis.falling_share(pooled)
    first = {name: measured[0][name][:, list(steps)] for name in QUANTITIES}
    panel = plots.norm_panel(
        sigmas,
        steps,
        first,
        {name: shown[name] for name in QUANTITIES},
        {name: exact[name][0, list(steps)] for name in QUANTITIES},
        title=f"{subject.class_names[0]}: {config.histogram_trajectories} trajectories",
    )
    directory.save_figure(FIGURE_FILES[0], panel)
    expected_change = np.diff(exact["x"], axis=1)
    directory.save_figure(
        FIGURE_FILES[1],
        plots.norm_changes(sigmas[:-1], changes, subject.class_names, shares, list(expected_change)),
    )

    # One trajectory's steps depend on each other; the mean change of each step is over independent trajectories.
    mean, error = pooled.mean(axis=0), pooled.std(axis=0, ddof=1) / np.sqrt(len(pooled))
    least = int(np.argmax(mean / error))
    worst = float(np.abs(control["z"]).max())
    falls = [float(estimate.value) for estimate in shares]
    late = float(sigmas[:-1][np.array(falls) < config.falling].max(initial=0))
    claims = [
        JudgedClaim.at_least(
            id="norms-fall",
            paper=PAPER,
            figure="Fig 9, Empirical Observation 1",
            statement="A step of the sampler decreases the norm of the state.",
            value=float(share.value),
            interval=(float(share.low), float(share.high)),
            threshold=config.falling,
            unit="of steps",
            note=f"least often, {min(falls):.0%}, in the step from sigma = {sigmas[int(np.argmin(falls))]:.3g}",
        ),
        JudgedClaim.at_most(
            id="norms-fall-on-average",
            paper=PAPER,
            figure="Fig 9, Empirical Observation 1",
            statement="In every step the mean norm decreases (the step nearest to none is shown, relative to its standard error).",
            value=float(mean[least] / error[least]),
            interval=(float(mean[least] / error[least]) - 1.96, float(mean[least] / error[least]) + 1.96),
            threshold=0.0,
            unit="standard errors",
            note=f"in the step from sigma = {sigmas[least]:.3g}",
        ),
        JudgedClaim.at_most(
            id="norms-gaussian-control",
            paper="own",
            figure="control",
            statement="With the exact denoiser of a Gaussian, the mean squared norms of states, denoised images and slopes have their exact expectations at every step, within 3 standard errors.",
            value=worst,
            interval=(worst, worst),
            exact=True,  # The largest of the scores that the test looks at, not an estimate.
            threshold=3.0,
            unit="standard errors, the largest",
        ),
    ]
    real = "held-out real images" if subject.real is not None else "samples themselves"
    ratio = np.stack([found["x"][: config.trajectories].mean(axis=0) for found in measured]).mean(0) / exact["x"][
        :, :-1
    ].mean(0)
    answer = (
        f"{share.value:.1%} of steps [{share.low:.1%}, {share.high:.1%}] decrease the norm of the state"
        + (f"; from sigma = {late:.2g} down it is fewer, as noise so small hardly adds to the norm. " if late else ". ")
        + f"The mean norm stays within {100 * np.abs(ratio - 1).max():.1f} % of the exact expectation for the Gaussian with the "
        f"moments of the {real} at every step."
    )  # fmt: skip
    rows = [
        (step, float(sigmas[step]), *(float(measured[0][name][:, step].mean()) for name in QUANTITIES), float(exact["x"][0, step]), f"{falls[step]:.0%}")
        for step in steps
    ]  # fmt: skip
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Norms of states, denoised images and slopes at a few noise levels, and the same of one trajectory as pictures, each stretched to its own range (Fig 4)."),
            FigureEntry(FIGURE_FILES[1], "Change of the norm in each step, class by class, beside its exact expectation for the class's Gaussian; and how often it is a fall (Fig 9)."),
        ],
        [Table(f"Mean norms, {subject.class_names[0]}", ("step", "sigma", "|x|", "|D|", "|d|", "|x|, Gaussian", "norms that fall"), rows)],
        {
            "share_falling": share.value,
            "share_falling_by_step": falls,
            "norm_over_gaussian": [float(value) for value in ratio],
            "control_z": [float(value) for value in np.abs(control["z"]).max(axis=1)],
        },
    )  # fmt: skip


def _options(subject: Subject, number: int, count: int) -> dict[str, Any]:
    labels = [subject.labels[number]] * count if subject.conditional else None
    return {
        "shape": subject.shape,
        "labels": labels,
        "churn": subject.churn,
        "solver": subject.solver,
        "batch_size": subject.batch_size,
    }


def _trajectories(config: Config, subject: Subject, key: Any, number: int) -> dict[str, np.ndarray]:
    assert subject.denoiser is not None and subject.sigmas is not None
    count = config.histogram_trajectories if number == 0 else config.trajectories
    own = stream(key, "class", subject.labels[number])
    options = _options(subject, number, count) | {"batch_size": min(subject.batch_size, config.trajectories)}
    _, seen = samplers.sample(
        subject.denoiser, own, range(count), subject.sigmas, observe=analysis.observe_norms, **options
    )
    return seen


def _pictures(subject: Subject, key: Any, steps: Sequence[int]) -> dict[str, np.ndarray]:
    assert subject.denoiser is not None and subject.sigmas is not None
    own = stream(key, "class", subject.labels[0])
    options = _options(subject, 0, 1) | {"batch_size": 1}
    shown = analysis.snapshots(subject.denoiser, own, [0], subject.sigmas, steps, **options)
    return {name: value[0] for name, value in shown.items()}


def fitted(subject: Subject, number: int, dtype: Any = np.float32) -> GaussianDenoiser:
    """The Gaussian with the moments of a class: of its held-out real images, or without these of its samples."""
    images = subject.images if subject.real is None else subject.real
    return GaussianDenoiser.fit(images[number].astype(dtype))


def _expected(subject: Subject) -> dict[str, np.ndarray]:
    """Exact expectations of the norms for each class's Gaussian under the same steps."""
    assert subject.sigmas is not None
    found = [
        analysis.gaussian_path(fitted(subject, k), subject.sigmas, subject.churn) for k in range(len(subject.labels))
    ]
    return {name: np.stack([path.norm(name) for path in found]) for name in QUANTITIES}


def _control(config: Config, subject: Subject, key: Any) -> dict[str, np.ndarray]:
    """Standard scores of measured mean squared norms with the Gaussian itself as denoiser: (quantities, steps)."""
    assert subject.sigmas is not None
    gaussian = fitted(subject, 0)
    options: dict[str, Any] = {
        "shape": subject.shape,
        "churn": subject.churn,
        "observe": analysis.observe_norms,
        "batch_size": 200,
    }
    _, seen = samplers.sample(gaussian, stream(key, "control"), range(config.control), subject.sigmas, **options)
    path = analysis.gaussian_path(gaussian, subject.sigmas, subject.churn)
    scores = []
    for name in QUANTITIES:
        mean, deviation = path.squared_norm(name)
        num_steps = len(subject.sigmas) - 1
        scores.append(analysis.norm_z_scores(seen[name], (mean[:num_steps], deviation[:num_steps])))
    return {"z": np.stack(scores)}


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Sampling, by far the most of it."""
    if plan.network is None:
        return []
    count = config.histogram_trajectories + (plan.classes - 1) * config.trajectories + 1
    cost = sampling_cost(plan.network, count, 2 * plan.num_steps - 1, min(plan.batch_size, config.trajectories))
    return [replace(cost, stage="norms", disk=count * plan.num_steps * 5 * 4)]
