"""Heavy-tailed starts: what Student-t noise in place of Gaussian noise does to the tails of the samples."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import stats

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.models import MoLRGDenoiser
from dgu.samplers import Churn, MultivariateStudentT, StudentT
from dgu.samplers.trajectories import draw_starts
from experiments.concentration_parts.contraction import published_churn
from experiments.concentration_parts.norms import fitted
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.checkpoints import sampling_cost
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Heavy-tailed starts"
CLAIM_IDS = ("starts-multivariate", "starts-elementwise", "starts-churn-forgets", "starts-gaussian-control")
FIGURE_FILES = ("figures/start_tails.png",)
STARTS = {
    "gaussian": "Gaussian",
    "student_t": "Student-t, elementwise",
    "multivariate_student_t": "Student-t, multivariate",
}
DENOISERS = {"gaussian": "Gaussian", "molrg": "low-rank mixture", "trained": "trained network"}
ARMS = ("churn off", "churn on")
#: Samples count as far out beyond this multiple of the median distance from the class mean.
FAR = 2.0


@dataclass(frozen=True)
class Config:
    """Samples of the first class from Gaussian noise and from Student-t noise, by three denoisers."""

    trajectories: int = 400
    """Samples of each denoiser, start and setting; 20 or more."""
    dof: float = 3.0
    """Degrees of freedom of Student's t."""
    scale_matched: bool = True
    """Scale Student-t noise to unit variance, so that tails alone differ; the original does not (its variance is 3)."""
    rank: int = 8
    """Rank of each class in the low-rank mixture."""
    exact_draws: int = 10_000
    """Draws of the exact law that are shown for the Gaussian denoiser."""

    def __post_init__(self) -> None:
        check_options(self, "starts", trajectories=20, dof="(0, inf)", rank=1, exact_draws=100)
        least, why = (2, "above 2, where the variance is finite") if self.scale_matched else (0, "positive")
        require(least < self.dof < np.inf, "starts.dof", self.dof, why)

    @property
    def bases(self) -> dict[str, Any]:
        """The laws of the starts, by the names of ``STARTS``."""
        laws = {"student_t": StudentT, "multivariate_student_t": MultivariateStudentT}
        return {"gaussian": "gaussian"} | {name: law(self.dof, self.scale_matched) for name, law in laws.items()}


PRESETS = {
    "smoke": Config(trajectories=20, rank=2, exact_draws=200),
    "default": Config(),
    "paper": Config(trajectories=10_240, rank=64, scale_matched=False),
}


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section | None:
    """Tails of the norm about the class's mean, and of its leading mode; None without a denoiser."""
    if subject.denoiser is None or subject.sigmas is None:
        return None
    key = stream(seeded(seed), "starts")
    churns = dict(zip(ARMS, (Churn(), published_churn(subject))))
    bases = config.bases
    found, exact = {}, {}
    for arm, churn in churns.items():
        for name in DENOISERS:
            stage = f"starts/{name}-{arm.replace(' ', '-')}"
            found[name, arm] = directory.stage(stage, partial(_measure, config, subject, key, name, churn))
        exact[arm] = directory.stage(
            f"starts/exact-{arm.replace(' ', '-')}", partial(_exact, config, subject, key, churn)
        )
    far = {
        (name, arm, base): analysis.proportion(_over_median(values[f"{base}.norm"]) > FAR)
        for (name, arm), values in found.items()
        for base in bases
    }
    error = max(float(found["gaussian", "churn off"][f"{base}.error"]) for base in bases)

    panels = [
        [
            plots.StartPanel(
                f"{label}, {arm}",
                {STARTS[base]: found[name, arm][f"{base}.norm"] for base in bases},
                {STARTS[base]: exact[arm][base] for base in bases} if name == "gaussian" else {},
            )
            for name, label in DENOISERS.items()
        ]
        for arm in ARMS
    ]
    directory.save_figure(
        FIGURE_FILES[0], plots.start_tails(panels, quantity="distance from the class mean over its median")
    )

    rows = [
        (label, arm, STARTS[base], *_cells(found[name, arm], base, far[name, arm, base]))
        for name, label in DENOISERS.items()
        for arm in ARMS
        for base in bases
    ]
    shown = {(arm, base): f"{float(far['trained', arm, base].value):.1%}" for arm in ARMS for base in bases}
    off, on = ({base: shown[arm, base] for base in bases} for arm in ARMS)
    answer = (
        f"Without churn {off['multivariate_student_t']} of the trained network's samples lie further from the class mean than "
        f"{FAR:g} times the median when the start is multivariate Student-t noise of {config.dof:g} degrees of freedom, "
        f"{off['student_t']} with elementwise Student-t noise and {off['gaussian']} with Gaussian noise. With churn it is "
        f"{on['multivariate_student_t']}, {on['student_t']} and {on['gaussian']}."
    )  # fmt: skip
    head = ("denoiser", "sampler", "start", f"beyond {FAR:g} medians", "tail index of distance", "excess kurtosis of distance", "tail index of leading mode")  # fmt: skip
    caption = (
        "Share of samples whose distance from the class mean exceeds a multiple of the median, by denoiser and start; "
        "dashed, the exact law for the Gaussian denoiser. A power-law tail is straight."
    )
    return Section(
        TITLE,
        answer,
        _claims(config, far, error),
        [FigureEntry(FIGURE_FILES[0], caption)],
        [
            Table(
                f"Tails by start (Hill's index with its 95 % interval; {config.dof:g} for t with {config.dof:g} degrees of freedom)",
                head,
                rows,
            )
        ],
        {"share_beyond": {" / ".join(place): float(share.value) for place, share in far.items()}},
    )


def _over_median(values: np.ndarray) -> np.ndarray:
    return values / np.median(values)


def _cells(values: dict[str, np.ndarray], base: str, far: Any) -> list[str]:
    distance, leading = values[f"{base}.norm"], values[f"{base}.leading"]
    half = 1.96 / np.sqrt(int(np.sqrt(len(distance))))
    indices = [float(analysis.hill_index(column[:, None])[0]) for column in (distance, leading)]
    first, second = (f"{index:.2f} [{index * (1 - half):.2f}, {index * (1 + half):.2f}]" for index in indices)
    share = f"{float(far.value):.1%} [{float(far.low):.1%}, {float(far.high):.1%}]"
    return [share, first, f"{stats.kurtosis(distance):.2f}", second]


def _mixture(config: Config, subject: Subject) -> MoLRGDenoiser:
    """A low-rank Gaussian a class: its leading directions, and what is left spread evenly over the others."""
    gaussians = [fitted(subject, number) for number in range(len(subject.labels))]
    size = int(np.prod(subject.shape))
    rank = min(config.rank, *(len(gaussian.variances) for gaussian in gaussians))
    left = np.mean([np.asarray(gaussian.variances)[rank:].sum() for gaussian in gaussians]) / max(1, size - rank)
    return MoLRGDenoiser(
        jnp.full(len(gaussians), 1 / len(gaussians)),
        jnp.stack([gaussian.mean for gaussian in gaussians]),
        jnp.stack([gaussian.basis[:, :rank].reshape(*subject.shape, rank) for gaussian in gaussians]),
        jnp.stack([gaussian.variances[:rank] for gaussian in gaussians]),
        jnp.asarray(np.sqrt(left), jnp.float32),
    )


def _measure(config: Config, subject: Subject, key: Any, name: str, churn: Churn) -> dict[str, np.ndarray]:
    """Distance from the class mean and coordinate along its leading mode, of samples from every start."""
    assert subject.sigmas is not None
    gaussian, count = fitted(subject, 0), config.trajectories
    denoiser = {"gaussian": gaussian, "molrg": None, "trained": subject.denoiser}[name] or _mixture(config, subject)
    options: dict[str, Any] = {"churn": churn, "batch_size": min(subject.batch_size, count)}
    if name == "trained" and subject.conditional:
        options["label"] = subject.labels[0]
    values = {}
    for base in config.bases:
        # Each start has its own draws; the denoisers share them, so that they can be compared.
        own = stream(key, base)
        start = _starts(config, subject, own, base, count)
        x0 = analysis.sample_from(denoiser, own, start, subject.sigmas, **options)
        centred = (x0 - np.asarray(gaussian.mean)).reshape(count, -1)
        values[f"{base}.norm"] = np.linalg.norm(centred, axis=1)
        values[f"{base}.leading"] = centred @ np.asarray(gaussian.basis)[:, 0]
        if name == "gaussian" and churn.rate == 0:
            path = analysis.gaussian_path(gaussian, subject.sigmas)
            expected = analysis.gaussian_outputs(gaussian, path, start, own)
            values[f"{base}.error"] = np.abs(x0 - expected).max() / np.abs(expected).max()
    return values


def _starts(config: Config, subject: Subject, key: Any, base: str, count: int) -> np.ndarray:
    """Starts number 0 to ``count`` of a law, drawn in chunks of one size."""
    assert subject.sigmas is not None
    size, level, law = config.trajectories, np.float32(subject.sigmas[0]), config.bases[base]
    chunks = [
        np.asarray(draw_starts(key, first + jnp.arange(size), level, shape=subject.shape, base=law))
        for first in range(0, count, size)
    ]
    return np.concatenate(chunks)[:count]


def _exact(config: Config, subject: Subject, key: Any, churn: Churn) -> dict[str, np.ndarray]:
    """Distances from the mean under the exact law of the Gaussian denoiser's samples, without running the sampler."""
    gaussian = fitted(subject, 0)
    path = analysis.gaussian_path(gaussian, np.asarray(subject.sigmas), churn)
    values = {}
    for base in config.bases:
        own = stream(key, "exact", base)
        start = _starts(config, subject, own, base, config.exact_draws)
        outputs = analysis.gaussian_outputs(gaussian, path, start, stream(own, "noise"))
        values[base] = np.linalg.norm((outputs - np.asarray(gaussian.mean)).reshape(config.exact_draws, -1), axis=1)
    return values


def _difference(first: Any, second: Any) -> dict[str, Any]:
    """Difference of two shares with Newcombe's interval, from Wilson's of each."""
    (a, la, ha), (b, lb, hb) = ((float(of.value), float(of.low), float(of.high)) for of in (first, second))
    interval = a - b - float(np.hypot(a - la, hb - b)), a - b + float(np.hypot(ha - a, b - lb))
    return {"value": a - b, "interval": interval, "threshold": 0.0, "unit": "of samples"}


def _claims(config: Config, far: dict, error: float) -> list[JudgedClaim]:
    gaussian = far["trained", "churn off", "gaussian"]
    beyond = f"lie beyond {FAR:g} times the median distance from the class mean"
    return [
        JudgedClaim.at_least(
            id=f"starts-{word}",
            paper=PAPER,
            figure="Theorem 2, heavy-tailed base",
            statement=f"With {word} Student-t starting noise of {config.dof:g} degrees of freedom more of the trained network's samples {beyond} than with Gaussian noise (churn off).",
            **_difference(far["trained", "churn off", base], gaussian),
        )
        for word, base in (("multivariate", "multivariate_student_t"), ("elementwise", "student_t"))
    ] + [
        JudgedClaim.at_most(
            id="starts-churn-forgets",
            paper="own",
            figure="starts",
            statement=f"Churn makes the sampler forget a heavy-tailed start: with it fewer of the samples from multivariate Student-t noise {beyond}.",
            **_difference(*(far["trained", arm, "multivariate_student_t"] for arm in reversed(ARMS))),
        ),
        JudgedClaim.at_most(
            id="starts-gaussian-control",
            paper="own",
            figure="control",
            statement="With a Gaussian's exact denoiser, samples from any start are the exact linear image of it (without churn, in float32).",
            value=error,
            interval=(error, error),
            exact=True,  # The error of a deterministic computation.
            threshold=1e-3,
            unit="of the largest value",
        ),
    ]  # fmt: skip


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Samples of the trained network from three starts, churn off and on."""
    if plan.network is None:
        return []
    count = 2 * len(STARTS) * config.trajectories
    cost = sampling_cost(plan.network, count, 2 * plan.num_steps - 1, min(plan.batch_size, config.trajectories))
    return [replace(cost, stage="starts", disk=6 * count * 4 * len(DENOISERS))]
