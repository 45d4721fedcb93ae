"""Heavy-tailed initial noise: what Student-t noise in place of Gaussian noise does to the tails of the samples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.distributions.bases import Base
from dgu.models import MoLRGDenoiser
from dgu.samplers import Churn, MultivariateStudentT, StudentT
from dgu.samplers.trajectories import draw_starts
from experiments import study
from experiments.concentration.subject import ARMS, PAPER, Plan, Subject, no_network
from experiments.study import Claim, Cost, Figure, Findings, Run, Table, at_least, at_most, option
from experiments.subjects import sampling_cost

STARTS = {
    "gaussian": "Gaussian",
    "student_t": "Student-t, elementwise",
    "multivariate_student_t": "Student-t, multivariate",
}
DENOISERS = {"gaussian": "Gaussian", "molrg": "low-rank mixture", "trained": "trained network"}
#: Samples count as far out beyond this multiple of the median distance from the class mean.
FAR = 2.0

FIGURES = (
    Figure(
        "start_tails",
        "Share of samples whose distance from the class mean exceeds a multiple of the median, by denoiser and "
        "initial noise; dashed, the exact distribution for the Gaussian denoiser. A power-law tail is straight.",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="starts"):
    """Samples of the first class from Gaussian and from Student-t initial noise, by three denoisers."""

    trajectories: int = option(400, ge=20)
    """Samples for each denoiser, initial noise and setting of churn."""
    dof: float = 3.0
    """Degrees of freedom of Student's t."""
    scale_matched: bool = True
    """Scale Student-t noise to unit variance, so that only the tails differ; the original does not (its variance is
    3)."""
    rank: int = option(8, ge=1)
    """Rank of each class in the low-rank mixture."""
    exact_draws: int = option(10_000, ge=100)
    """Draws from the exact distribution that are shown for the Gaussian denoiser."""

    def check(self) -> None:
        least, why = (2, "above 2, where the variance is finite") if self.scale_matched else (0, "positive")
        require(least < self.dof < np.inf, "starts.dof", self.dof, why)

    @property
    def bases(self) -> dict[str, Base]:
        """The distributions of the initial noise, by the names of ``STARTS``."""
        return {
            "gaussian": "gaussian",
            "student_t": StudentT(self.dof, self.scale_matched),
            "multivariate_student_t": MultivariateStudentT(self.dof, self.scale_matched),
        }


PRESETS = {
    "smoke": Config(trajectories=20, rank=2, exact_draws=200),
    "default": Config(),
    "paper": Config(trajectories=10_240, rank=64, scale_matched=False),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    far = f"far from the class mean (beyond {FAR:g} times their median distance from it)"
    return (
        *(
            Claim(
                f"starts-{word}",
                "Without churn (no noise added during sampling), more of the trained network's samples of a class lie "
                f"{far} if the initial noise is {noise} with {config.dof:g} degrees of freedom than if it is Gaussian "
                "(value: the first share of samples minus the second).",
                at_least(0.0),
                source="Theorem 2, heavy-tailed base",
                unit="of samples",
                one_network=True,
            )
            for word, noise in {
                "multivariate": "multivariate Student-t",
                "elementwise": "Student-t, independent in every pixel,",
            }.items()
        ),
        Claim(
            "starts-churn-forgets",
            "Churn (noise added during sampling) makes the sampler forget heavy-tailed initial noise: from "
            f"multivariate Student-t noise with {config.dof:g} degrees of freedom, fewer of a class's samples lie "
            f"{far} with churn than without (value: the share with churn minus the share without).",
            at_most(0.0),
            source="starts",
            unit="of samples",
            paper="own",
            one_network=True,
        ),
        Claim(
            "starts-gaussian-control",
            "A control: with the exact denoiser of Gaussian data and without churn, where the sampler is an affine map "
            "of its initial noise, samples from Gaussian and from Student-t noise equal the closed form of this map "
            "(value: the largest error, relative to the largest pixel; computed in float32).",
            at_most(1e-3),
            source="control",
            paper="own",
            check=True,
        ),
    )


def measure(config: Config, subject: Subject, run: Run) -> dict[str, dict[Any, dict[str, np.ndarray]]]:
    """Samples of each denoiser without churn and with it, and draws from the exact distribution of the Gaussian's."""
    measured, exact = {}, {}
    for arm, churn in subject.arms.items():
        stage = arm.replace(" ", "-")
        for name in DENOISERS:
            measured[name, arm] = run.stage(f"{name}-{stage}", tails_of, config, subject, run.key, name, churn)
        exact[arm] = run.stage(f"exact-{stage}", exact_distances, config, subject, run.key, churn)
    return {"samples": measured, "exact": exact}


def report(config: Config, subject: Subject, found: Mapping[str, Mapping[Any, dict[str, np.ndarray]]]) -> Findings:
    """Tails of the distance from the class's mean, and of the leading mode."""
    samples, exact = found["samples"], found["exact"]
    far = {
        (*place, base): analysis.proportion(values[f"{base}.norm"] / np.median(values[f"{base}.norm"]) > FAR)
        for place, values in samples.items()
        for base in STARTS
    }
    panels = [
        [
            plots.StartPanel(
                f"{label}, {arm}",
                {text: samples[name, arm][f"{base}.norm"] for base, text in STARTS.items()},
                {text: exact[arm][base] for base, text in STARTS.items()} if name == "gaussian" else {},
            )
            for name, label in DENOISERS.items()
        ]
        for arm in ARMS
    ]
    rows = [
        (label, arm, text, far[name, arm, base].text(".1%"), *_tail_cells(samples[name, arm], base))
        for name, label in DENOISERS.items()
        for arm in ARMS
        for base, text in STARTS.items()
    ]
    head = (
        *("denoiser", "sampler", "initial noise", f"beyond {FAR:g} medians", "tail index of distance"),
        *("excess kurtosis of distance", "tail index of leading mode"),
    )
    title = f"Hill's index with its 95 % interval; {config.dof:g} for t with {config.dof:g} degrees of freedom"
    off, on = ({base: f"{far['trained', arm, base].value:.1%}" for base in STARTS} for arm in ARMS)
    return Findings(
        f"Without churn, {off['multivariate_student_t']} of the trained network's samples lie further from the class "
        f"mean than {FAR:g} times the median if the initial noise is multivariate Student-t with {config.dof:g} "
        f"degrees of freedom, {off['student_t']} if it is elementwise Student-t and {off['gaussian']} if it is "
        f"Gaussian. With churn, the shares are {on['multivariate_student_t']}, {on['student_t']} and {on['gaussian']}.",
        claims=_measured(samples, far),
        figures={"start_tails": plots.start_tails(panels, quantity="distance from the class mean over its median")},
        tables=[Table(f"Tails by initial noise ({title})", head, rows)],
        metrics={"share_beyond": {" / ".join(place): share.value for place, share in far.items()}},
    )


def _measured(
    samples: Mapping[Any, dict[str, np.ndarray]], far: Mapping[tuple[str, str, str], Estimate]
) -> dict[str, study.Measured]:
    off, on = ARMS
    gaussian, heavy = far["trained", off, "gaussian"], far["trained", off, "multivariate_student_t"]
    return {
        "starts-multivariate": analysis.share_difference(heavy, gaussian),
        "starts-elementwise": analysis.share_difference(far["trained", off, "student_t"], gaussian),
        "starts-churn-forgets": analysis.share_difference(far["trained", on, "multivariate_student_t"], heavy),
        # The error of a deterministic computation.
        "starts-gaussian-control": exactly(max(float(samples["gaussian", off][f"{base}.error"]) for base in STARTS)),
    }


def _tail_cells(values: Mapping[str, np.ndarray], base: str) -> tuple[str, str, str]:
    """Cells of the table: Hill's index and the kurtosis of the distance, and Hill's index of the leading mode."""
    indices = []
    for column in (values[f"{base}.norm"], values[f"{base}.leading"]):
        index = float(analysis.hill_index(column[:, None])[0])
        indices.append(normal_estimate(index, index / np.sqrt(int(np.sqrt(len(column))))).text(".2f"))
    return indices[0], f"{scipy.stats.kurtosis(values[f'{base}.norm']):.2f}", indices[1]


def tails_of(config: Config, subject: Subject, key: Key, name: str, churn: Churn) -> dict[str, np.ndarray]:
    """Distance from the class mean, and coordinate along its leading mode, of samples from each initial noise.

    The low-rank mixture has a component for each class. For the Gaussian denoiser without churn also the largest
    relative error of the samples.
    """
    gaussian, count = subject.gaussian(0), config.trajectories
    denoiser: Any = {"gaussian": gaussian, "trained": subject.denoiser}.get(name)
    if name == "molrg":
        gaussians = [subject.gaussian(number) for number in range(len(subject.labels))]
        denoiser = MoLRGDenoiser.from_gaussians(gaussians, config.rank)
    options: dict[str, Any] = {"churn": churn, "batch_size": min(subject.batch_size, count)}
    if name == "trained" and subject.conditional:
        options["label"] = subject.labels[0]
    values = {}
    for base in STARTS:
        # Each initial noise has its own draws; the denoisers share them, so that they can be compared.
        own = stream(key, base)
        start = initial_states(config, subject, own, base, count)
        x0 = analysis.sample_from(denoiser, own, start, subject.sigmas, **options)
        centred = (x0 - np.asarray(gaussian.mean)).reshape(count, -1)
        values[f"{base}.norm"] = np.linalg.norm(centred, axis=1)
        values[f"{base}.leading"] = centred @ np.asarray(gaussian.basis)[:, 0]
        if name == "gaussian" and churn.rate == 0:
            path = analysis.gaussian_path(gaussian, subject.sigmas)
            expected = analysis.gaussian_outputs(gaussian, path, start, own)
            values[f"{base}.error"] = np.abs(x0 - expected).max() / np.abs(expected).max()
    return values


def initial_states(config: Config, subject: Subject, key: Key, base: str, count: int) -> np.ndarray:
    """Initial states number 0 to ``count`` - 1 from a distribution, drawn in chunks of one size."""
    size, level, noise = config.trajectories, np.float32(subject.sigmas[0]), config.bases[base]
    places = [first + jnp.arange(size) for first in range(0, count, size)]
    drawn = [np.asarray(draw_starts(key, chunk, level, shape=subject.shape, base=noise)) for chunk in places]
    return np.concatenate(drawn)[:count]


def exact_distances(config: Config, subject: Subject, key: Key, churn: Churn) -> dict[str, np.ndarray]:
    """Draws of the distance from the mean under the exact distribution of the Gaussian's samples, without the
    sampler."""
    gaussian = subject.gaussian(0)
    path = analysis.gaussian_path(gaussian, subject.sigmas, churn)
    values = {}
    for base in STARTS:
        own = stream(key, "exact", base)
        start = initial_states(config, subject, own, base, config.exact_draws)
        outputs = analysis.gaussian_outputs(gaussian, path, start, stream(own, "noise"))
        values[base] = np.linalg.norm((outputs - np.asarray(gaussian.mean)).reshape(config.exact_draws, -1), axis=1)
    return values


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Samples of the trained network from three kinds of initial noise, without churn and with it."""
    if plan.network is None:
        return []
    count = 2 * len(STARTS) * config.trajectories
    cost = sampling_cost(plan.network, count, 2 * plan.num_steps - 1, min(plan.batch_size, config.trajectories))
    return [replace(cost, stage="starts", disk=6 * count * 4 * len(DENOISERS))]


PART = study.Part(
    name="starts",
    title="Heavy-tailed initial noise",
    question="What does Student-t initial noise in place of Gaussian noise do to the tails of the samples?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    skips=no_network,
)
