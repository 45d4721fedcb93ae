"""Norms along the sampler (Figs 4 and 9 of the paper): do they fall at every step, and as those of a Gaussian would?"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis, plots, samplers
from dgu.analysis.concentration.norms import gaussian_norm_scores
from dgu.analysis.stats.estimates import normal_estimate
from dgu.analysis.stats.joint import joint_p_value
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.concentration.subject import PAPER, Plan, Subject, no_network
from experiments.study import Claim, Cost, Figure, Findings, Noted, Options, Part, Run, Table, at_least, at_most, option
from experiments.subjects import sampling_cost

#: Quantities that are compared with their exact distribution under a Gaussian.
QUANTITIES = ("x", "denoised", "slope")
#: Probability with which chance alone lets the claim of the control fail.
FALSE_ALARM = 0.01

FIGURES = (
    Figure(
        "norm_panel",
        "Norms of states, denoised images and slopes at selected noise levels, with the images of one trajectory, "
        "each stretched to its own range (Fig 4 of the paper).",
        "fig-4",
    ),
    Figure(
        "norm_changes",
        "Change of the norm at each step, by class, with its exact expectation for the class's Gaussian, and the "
        "share of trajectories whose norm decreases (Fig 9 of the paper).",
        "fig-9",
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="norms"):
    """Norms of the states, the denoised images and the slopes at every step."""

    trajectories: int = option(40, ge=2)
    """Trajectories of each class."""
    histogram_trajectories: int = option(400, ge="trajectories")
    """Trajectories of the first class, whose norms are shown as histograms."""
    levels: int = option(9, ge=2)
    """Noise levels in the panel of histograms and images; fewer if the sampler has fewer steps."""
    control: int = option(2000, ge=100)
    """Trajectories of the Gaussian control."""
    falling: float = option(0.95, gt=0.0, le=1.0)
    """Share of steps that must decrease the norm, for the claim that norms fall."""


PRESETS = {
    "smoke": Config(trajectories=4, histogram_trajectories=8, levels=4, control=200),
    "default": Config(),
    "paper": Config(trajectories=400, histogram_trajectories=10_240),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "norms-fall",
            f"At least {100 * config.falling:g} % of the sampler's steps decrease the norm of the state, the noisy "
            "image (value: the share of the steps, mean over trajectories of all classes).",
            at_least(config.falling),
            source="Fig 9, Empirical Observation 1",
            unit="of steps",
            one_network=True,
        ),
        Claim(
            "norms-fall-on-average",
            "At every step of the sampler the norm of the state, the noisy image, falls on average over trajectories "
            "(value: the mean change of the norm at the step where it is nearest to rising, in its standard errors; "
            "negative where the norm falls).",
            at_most(0.0),
            source="Fig 9, Empirical Observation 1",
            unit="standard errors",
            one_network=True,
        ),
        Claim(
            "norms-gaussian-control",
            "A control: for Gaussian data with the exact denoiser, the mean squared norms of the sampler's states, of "
            "its denoised images and of its slopes (dx / d sigma, the right-hand side of the sampling ODE) are their "
            "closed-form expectations at every step (value: Bonferroni's p value of the normal tests of all of them, "
            f"which is at least {FALSE_ALARM:g}; chance alone makes the claim fail for at most "
            f"{100 * FALSE_ALARM:g} % of seeds).",
            at_least(FALSE_ALARM),
            source="control",
            paper="own",
            check=True,
            changed="until 30 November 2026 the largest of all deviations was held to 3 standard errors, which chance "
            "alone exceeds for about 2 % of seeds with 18 steps, and for more of them with more steps.",
        ),
    )


def measure(config: Config, subject: Subject, run: Run) -> dict[str, Any]:
    """Norms of new trajectories, the images of one trajectory, and the Gaussian with the moments of each class."""
    classes = enumerate(subject.labels)
    return {
        "classes": [run.stage(f"class-{label}", trajectories, config, subject, run.key, k) for k, label in classes],
        "pictures": run.stage("pictures", pictures, config, subject, run.key),
        "control": run.stage("control", control, config, subject, run.key)["z"],
        "exact": run.stage("gaussian", expected, subject),
    }


def report(config: Config, subject: Subject, found: dict[str, Any]) -> Findings:
    """The measured norms beside those of the Gaussian."""
    sigmas, steps, exact = subject.sigmas, list(shown_steps(config, subject)), found["exact"]
    changes = [norms["change"][: config.trajectories] for norms in found["classes"]]
    pooled = np.concatenate(changes)
    share, by_step = analysis.falling_share(pooled)
    falls = np.array([each.value for each in by_step])
    # Steps of one trajectory depend on each other; the mean change at each step is over independent trajectories.
    scores = pooled.mean(axis=0) / (pooled.std(axis=0, ddof=1) / np.sqrt(len(pooled)))
    closest = int(np.argmax(scores))
    late = float(sigmas[:-1][falls < config.falling].max(initial=0))
    mean = np.stack([norms["x"][: config.trajectories].mean(axis=0) for norms in found["classes"]]).mean(0)
    ratio = mean / exact["x"][:, :-1].mean(0)
    first = found["classes"][0]
    panel = plots.norm_panel(
        sigmas,
        steps,
        {name: first[name][:, steps] for name in QUANTITIES},
        {name: found["pictures"][name] for name in QUANTITIES},
        {name: exact[name][0, steps] for name in QUANTITIES},
        title=f"{subject.class_names[0]}: {config.histogram_trajectories} trajectories",
    )
    changed = plots.norm_changes(sigmas[:-1], changes, subject.class_names, by_step, list(np.diff(exact["x"], axis=1)))
    rows = [
        (
            step,
            float(sigmas[step]),
            *(float(first[name][:, step].mean()) for name in QUANTITIES),
            float(exact["x"][0, step]),
            f"{falls[step]:.0%}",
        )
        for step in steps
    ]
    header = ("step", "sigma", "|x|", "|D|", "|d|", "|x|, Gaussian", "norms that fall")
    least = f"Least often, {falls.min():.0%}, in the step from sigma = {sigmas[int(falls.argmin())]:.3g}."
    return Findings(
        f"{share.value:.1%} of steps [{share.low:.1%}, {share.high:.1%}] decrease the norm of the state"
        + (f"; below sigma = {late:.2g} fewer do, as the noise barely contributes to the norm. " if late else ". ")
        + f"At every step the mean norm is within {100 * np.abs(ratio - 1).max():.1f} % of its exact expectation for a "
        "Gaussian with the moments of the "
        f"{'held-out real images' if subject.real is not None else 'samples themselves'}.",
        claims={
            "norms-fall": Noted(share, least),
            "norms-fall-on-average": Noted(
                normal_estimate(float(scores[closest]), 1.0), f"In the step from sigma = {sigmas[closest]:.3g}."
            ),
            "norms-gaussian-control": Noted(
                joint_p_value(found["control"]),
                f"The largest of {found['control'].size} deviations is {np.abs(found['control']).max():.2f} standard "
                "errors.",
            ),
        },
        figures={"norm_panel": panel, "norm_changes": changed},
        tables=[Table(f"Mean norms, {subject.class_names[0]}", header, rows)],
        metrics={
            "share_falling": share.value,
            "share_falling_by_step": falls,
            "norm_over_gaussian": ratio,
            "control_z": np.abs(found["control"]).max(axis=1),
        },
    )


def shown_steps(config: Config, subject: Subject) -> tuple[int, ...]:
    """Steps shown in the panel."""
    num_steps = len(subject.sigmas) - 1
    return tuple(analysis.panel_steps(num_steps, min(config.levels, num_steps)))


def _sampling(subject: Subject, number: int, count: int) -> dict[str, Any]:
    """Options of ``dgu.samplers.sample`` for ``count`` samples of class number ``number``."""
    return {
        "shape": subject.shape,
        "labels": [subject.labels[number]] * count if subject.conditional else None,
        "churn": subject.churn,
        "solver": subject.solver,
        "batch_size": subject.batch_size,
    }


def trajectories(config: Config, subject: Subject, key: Key, number: int) -> dict[str, np.ndarray]:
    """Norms along new trajectories of class number ``number``."""
    count = config.histogram_trajectories if number == 0 else config.trajectories
    options = _sampling(subject, number, count) | {"batch_size": min(subject.batch_size, config.trajectories)}
    own, sigmas = stream(key, "class", subject.labels[number]), subject.sigmas
    _, seen = samplers.sample(subject.denoiser, own, range(count), sigmas, observe=analysis.observe_norms, **options)
    return seen


def pictures(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """The images along one trajectory of the first class."""
    own, options = stream(key, "class", subject.labels[0]), _sampling(subject, 0, 1) | {"batch_size": 1}
    shown = analysis.snapshots(subject.denoiser, own, [0], subject.sigmas, shown_steps(config, subject), **options)
    return {name: value[0] for name, value in shown.items()}


def expected(subject: Subject) -> dict[str, np.ndarray]:
    """Exact expected norms under the Gaussian of each class with the same steps."""
    classes = range(len(subject.labels))
    paths = [analysis.gaussian_path(subject.gaussian(k), subject.sigmas, subject.churn) for k in classes]
    return {name: np.stack([path.norm(name) for path in paths]) for name in QUANTITIES}


def control(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """Standard scores of the mean squared norms if the Gaussian itself is the denoiser: (quantities, steps)."""
    gaussian, own = subject.gaussian(0), stream(key, "control")
    return {"z": gaussian_norm_scores(gaussian, own, subject.sigmas, subject.churn, count=config.control)}


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Sampling, by far the largest share."""
    if plan.network is None:
        return []
    count = config.histogram_trajectories + (plan.classes - 1) * config.trajectories + 1
    cost = sampling_cost(plan.network, count, 2 * plan.num_steps - 1, min(plan.batch_size, config.trajectories))
    return [replace(cost, stage="norms", disk=count * plan.num_steps * 5 * 4)]


PART = Part(
    name="norms",
    title="Norms along the sampler",
    question="Do the norms of the sampler's states fall at every step, and as those of a Gaussian would?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    skips=no_network,
)
