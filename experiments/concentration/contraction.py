"""Is the sampler a contraction? Measured Lipschitz constants of its steps and of the whole map, and what they bound."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgu import analysis, plots, samplers
from dgu.analysis.concentration.contraction import gaussian_expansion_errors
from dgu.analysis.concentration.two_points import two_point_gains, two_point_steps
from dgu.analysis.stats.estimates import Estimate, exactly
from dgu.analysis.stats.resampling import geometric_mean
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.samplers import Churn
from experiments import study
from experiments.concentration import scales
from experiments.concentration.subject import ARMS, PAPER, Plan, Subject, no_network
from experiments.study import Claim, Cost, Figure, Findings, Measured, Noted, Run, Table, at_least, at_most, option
from experiments.study.memory import gradient_bytes
from experiments.study.progress import Progress
from experiments.subjects import sampling_cost

#: Evaluations that a product with a step's J and J^T costs, in evaluations of the network: two levels, each with the
#: evaluation itself twice, once pushed forward and once pulled back.
_EVALUATIONS_A_PRODUCT = 8

FIGURES = (
    Figure(
        "step_gains",
        "Top singular value of the Jacobian of each step at states that samples pass through (median and range), with "
        "what happens to the distance of pairs of trajectories that share all noise of the steps, and the exact gain "
        "for the class's Gaussian. A step with a gain above 1 drives neighbours apart.",
    ),
    Figure(
        "scale_recursion",
        "Scales of concentration along the path: that of Theorem 2 (no noise in the steps, gain 1), the recursion "
        "with the noise that churn adds, and the recursion with measured gains; with the measured constant of the "
        "whole generator and the leading standard deviation of the samples.",
    ),
    Figure(
        "two_points",
        "A sampler of two points at +-a: below the noise level a its steps expand between the points (left) while "
        "norms fall (right; the few steps at low noise that lengthen the state cannot be shown on its logarithmic "
        "axis).",
    ),
)

CLAIMS = (
    Claim(
        "contraction-every-step",
        "Every step of the sampler is a contraction: at every state that the trajectories visit, the top singular "
        "value of the step's Jacobian is at most 1 (value: the largest of all states).",
        at_most(1.0),
        source="Theorem 2",
        one_network=True,
    ),
    Claim(
        "contraction-whole-map",
        "Without churn (no noise added during sampling), the whole map from the initial state, noise whose standard "
        "deviation is the largest noise level, to the sample contracts on average: the geometric mean over "
        "trajectories of the top singular value of its Jacobian is at most 1.",
        at_most(1.0),
        source="Theorem 2",
        one_network=True,
    ),
    Claim(
        "contraction-bounds-output",
        "As Poincare's inequality requires, the standard deviation of a class's samples in the direction of most "
        "variance (root mean square over classes) is at most the top singular value of the sampler's Jacobian with "
        "respect to all its noise, initial and churn, each of unit variance (value: the ratio; the singular value is a "
        "geometric mean over trajectories, below the root mean square that the inequality allows: a stricter test).",
        at_most(1.0),
        source="Theorem 2",
        paper="own",
        one_network=True,
    ),
    Claim(
        "contraction-gaussian-control",
        "A control: for Gaussian data with the exact denoiser, the measured top singular values of the Jacobians of "
        "the steps, of the map from initial state to sample, and of the map from all noise to sample equal their "
        "closed forms (value: the largest relative difference).",
        at_most(1e-6),
        source="control",
        paper="own",
        check=True,
    ),
    Claim(
        "contraction-two-points",
        "A step may shorten the state and still not be a contraction: with two points as data and their exact "
        "denoiser, at least 2 % of trajectories have a step in which the norm of the state falls although the top "
        "singular value of the step's Jacobian exceeds 1.",
        at_least(0.02),
        source="counter-example",
        unit="of trajectories",
        paper="own",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="contraction"):
    """Top singular values of the Jacobians of steps and of the whole sampler, without churn and with it."""

    samples: int = option(20, ge=2)
    """Trajectories at whose states steps are measured, dealt to the classes in turn."""
    whole: int = option(20, ge=2, le="samples")
    """Trajectories among them along which the whole map is measured."""
    pairs: int = option(40, ge=2)
    """Pairs of trajectories with the same noise in their steps."""
    nearness: float = option(0.01, gt=0.0, le=1.0)
    """Initial distance of near pairs, relative to that of independent ones."""
    tolerance: float = option(0.02, gt=0.0, lt=1.0)
    """Largest relative residual of the eigenvalues of J^T J."""
    max_products: int = option(12, ge=3)
    """Largest number of products with J^T J."""
    batch_size: int = option(20, ge=1)
    """States in one compiled call."""
    two_point_trajectories: int = option(256, ge=10)
    """Trajectories of the two-point mixture."""
    two_point_size: int = option(64, ge=2)
    """Dimension of the two-point mixture."""
    two_point_distance: float = option(0.5, gt=0.0)
    """a, of points at +a and -a on the first axis."""
    two_point_steps: int = option(40, ge=2)
    """Steps of the sampler of the two-point mixture."""


PRESETS = {
    "smoke": Config(
        samples=2,
        whole=2,
        pairs=2,
        max_products=3,
        batch_size=2,
        two_point_trajectories=32,
        two_point_size=16,
        two_point_steps=18,
    ),
    "default": Config(),
    "paper": Config(samples=200, whole=100, pairs=400, max_products=40, two_point_trajectories=2000),
}


def measure(config: Config, subject: Subject, run: Run) -> dict[str, Any]:
    """Gains of the trained sampler without churn and with it, their references, and the controls."""
    points = config.two_point_trajectories, config.two_point_size, config.two_point_distance, config.two_point_steps
    arms = subject.arms.items()
    return {
        "arms": {name: run.stage(_stored(name), gains, config, subject, run.key, churn) for name, churn in arms},
        "control": run.stage("gaussian", control, subject, run.key),
        "points": run.stage("two-points", two_point_steps, run.key, *points),
        "references": run.stage("references", references, subject),
    }


def report(config: Config, subject: Subject, found: Mapping[str, Any]) -> Findings:
    """Gains, the scales that follow from them, and the counter-example."""
    arms, sigmas, exact = found["arms"], subject.sigmas, found["references"]
    output = float(exact["output"])
    curves = {name: scales.recursions(arm["steps"], subject.arms[name], sigmas) for name, arm in arms.items()}
    # Without noise in the steps the generator is the whole map of scaled initial noise.
    whole = arms["churn off"]["generator"] / float(sigmas[0])
    return Findings(
        f"{_expanding(arms, sigmas)}. The whole map {'contracts' if np.median(whole) < 1 else 'expands'}: without "
        f"churn its top singular value is {np.median(whole):.4f} (median), which leaves a scale of "
        f"{sigmas[0] * np.median(whole):.1f} of the initial noise's {sigmas[0]:g}; the samples' leading deviation is "
        f"{output:.1f}, and the recursion over steps ends at {curves['churn off'][scales.WORST][-1]:.3g}.",
        claims=_measured(subject, found, whole),
        figures=_figures(config, subject, found, curves),
        tables=[_steps_table(arms, sigmas), scales.table(arms, curves)],
        metrics={
            "largest_step_gain": {name: arm["steps"].max() for name, arm in arms.items()},
            "median_step_gain": {name: np.median(arm["steps"], axis=0) for name, arm in arms.items()},
            "share_expanding": {name: (arm["steps"] > 1).mean() for name, arm in arms.items()},
            "generator_constant": {name: arm["generator"] for name, arm in arms.items()},
            "recursion_end": {name: {of: curve[-1] for of, curve in own.items()} for name, own in curves.items()},
            "largest_error": {
                name: max(arm["step_errors"].max(), arm["generator_errors"].max()) for name, arm in arms.items()
            },
            "output_scale": output,
        },
    )


def gains(config: Config, subject: Subject, key: Key, churn: Churn) -> dict[str, np.ndarray]:
    """Gains of the trained sampler with ``churn``: of steps, of the generator, and of distances of pairs of
    trajectories."""
    denoiser, sigmas = subject.denoiser, subject.sigmas
    common: dict[str, Any] = {"shape": subject.shape, "churn": churn, "batch_size": config.batch_size}
    path = analysis.trace_trajectories(
        denoiser, key, range(config.samples), sigmas, labels=_labels(subject, config.samples), **common
    )
    options: dict[str, Any] = {
        "key": stream(key, "lanczos"),
        "tolerance": config.tolerance,
        "max_products": config.max_products,
        "batch_size": config.batch_size,
    }
    with Progress("Jacobians of steps", total=config.samples * (len(sigmas) - 1), unit="states") as bar:
        steps = analysis.step_expansion(denoiser, path, progress=_shown_by(bar), **options)
    with Progress("Jacobians of the whole map", total=config.whole, unit="trajectories") as bar:
        generator = analysis.generator_expansion(denoiser, path.first(config.whole), progress=_shown_by(bar), **options)
    pairs = common | {"labels": _labels(subject, config.pairs)}
    near, far = (
        analysis.pair_distances(denoiser, stream(key, "pairs"), range(config.pairs), sigmas, nearness=nearness, **pairs)
        for nearness in (config.nearness, 1.0)
    )
    return {
        "steps": steps.values,
        "step_errors": steps.errors,
        "generator": generator.values,
        "generator_errors": generator.errors,
        "near": near.ratios,
        "far": far.ratios,
        "near_whole": near.end_to_end,
    }


def control(subject: Subject, key: Key) -> dict[str, float]:
    """Errors of measured gains if the denoiser is the Gaussian of the first class, and the largest of these gains."""
    images = subject.images if subject.real is None else subject.real
    return gaussian_expansion_errors(images[0], subject.sigmas, subject.arms["churn on"], key)


def references(subject: Subject) -> dict[str, np.ndarray]:
    """Exact gains of the steps for the first class's Gaussian, by arm; and the samples' deviation along their leading
    mode.

    The deviation is the root of the classes' mean top eigenvalue of the covariance.
    """
    gaussian, flat = subject.gaussian(0), subject.rows.astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    top = [np.linalg.norm(rows, 2) ** 2 / (flat.shape[1] - 1) for rows in centred]
    paths = {name: analysis.gaussian_path(gaussian, subject.sigmas, churn) for name, churn in subject.arms.items()}
    exact = {_stored(name): path.step_expansion for name, path in paths.items()}
    return exact | {"output": np.sqrt(np.mean(top))}


def _stored(arm: str) -> str:
    """The name of an arm in names of stages and arrays."""
    return arm.replace(" ", "-")


def _shown_by(bar: Progress) -> Callable[[int, int], None]:
    """Shows the progress of an analysis, which tells how much is done."""
    return lambda done, total: bar.update(done - bar.done)


def _labels(subject: Subject, count: int) -> list[int] | None:
    """Labels of ``count`` trajectories, dealt in turn."""
    return [subject.labels[place % len(subject.labels)] for place in range(count)] if subject.conditional else None


def _own_arm(subject: Subject) -> str:
    """The arm that samples as the subject does."""
    return ARMS[int(float(subject.churn.rate) > 0)]


def _expanding(arms: Mapping[str, Mapping[str, np.ndarray]], sigmas: np.ndarray) -> str:
    """Whether steps expand, and at which noise levels, in words."""
    expanding = {name: arm["steps"] > 1 + arm["step_errors"] for name, arm in arms.items()}
    most = max(float(arm["steps"].max()) for arm in arms.values())
    levels = sigmas[:-1][np.any([states.any(axis=0) for states in expanding.values()], axis=0)]
    if len(levels) == 0:
        return f"No step of the trained sampler is found to expand a direction: the largest gain is {most:.2f}"
    return (
        f"A step of the trained sampler expands some direction, by up to {most:.2f}, at "
        f"{expanding['churn on'].mean():.0%} of the states visited, at noise levels from {levels.min():.2g} to "
        f"{levels.max():.2g}"
    )


def _measured(subject: Subject, found: Mapping[str, Any], whole: np.ndarray) -> dict[str, Measured]:
    own, control, points = found["arms"][_own_arm(subject)], found["control"], found["points"]
    place = np.unravel_index(np.argmax(own["steps"]), own["steps"].shape)
    largest, error = float(own["steps"][place]), float(own["step_errors"][place])
    shares = analysis.t_interval((own["steps"] <= 1).mean(axis=1), bounds=(0, 1))
    constant, output = geometric_mean(own["generator"]), float(found["references"]["output"])
    gained, fell = points["gains"] > 1 + points["errors"], points["changes"] < 0
    return {
        # The largest of the states visited, known but for the error of the iteration.
        "contraction-every-step": Noted(
            Estimate(largest, max(0.0, largest - error), largest + error, exact=True),
            f"The largest of {own['steps'].size} states; its interval is the error of the numerical iteration. The "
            f"share of a trajectory's steps that contract is {shares.text('.1%')} on average.",
        ),
        "contraction-whole-map": Noted(
            geometric_mean(whole), f"The largest of the {len(whole)} trajectories' values is {whole.max():.3g}."
        ),
        "contraction-bounds-output": Estimate(
            output / constant.value, output / constant.high, output / constant.low, method=constant.method
        ),
        "contraction-gaussian-control": Noted(
            exactly(max(float(control[name]) for name in ("steps", "whole", "generator"))),
            f"Every step contracts: the largest singular value is 1 - {1 - float(control['largest']):.2g}.",
        ),
        "contraction-two-points": Noted(
            analysis.proportion((gained & fell).any(axis=1)),
            f"{int((gained & fell).sum())} of {int(gained.sum())} expanding steps shorten the state; the largest "
            f"singular value of a step is {points['gains'].max():.3g}.",
        ),
    }


def _figures(
    config: Config, subject: Subject, found: Mapping[str, Any], curves: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    arms, points, sigmas, exact = found["arms"], found["points"], subject.sigmas, found["references"]
    near, far = f"pairs of near starts (distance {config.nearness:g})", "pairs of independent starts"
    gained = [
        plots.GainPanel(name, sigmas[:-1], arm["steps"], exact[_stored(name)], {near: arm["near"], far: arm["far"]})
        for name, arm in arms.items()
    ]
    distance, grid = config.two_point_distance, samplers.karras_sigmas(config.two_point_steps)
    halfway = two_point_gains(grid, distance)
    counter = plots.counter_example(grid[:-1], points["gains"], points["changes"], halfway, distance)
    return {
        "step_gains": plots.step_gains(gained),
        "scale_recursion": scales.figure(arms, sigmas, curves, {_own_arm(subject): float(exact["output"])}),
        "two_points": (counter, f"Here a = {distance:g}, in {config.two_point_size} dimensions."),
    }


def _steps_table(arms: Mapping[str, Mapping[str, np.ndarray]], sigmas: np.ndarray) -> Table:
    columns: list[np.ndarray] = [sigmas[:-1]]
    for arm in arms.values():
        columns += [np.median(arm["steps"], axis=0), arm["steps"].max(axis=0), arm["near"].max(axis=0)]
    rows = [(step, *map(float, values)) for step, values in enumerate(zip(*columns))]
    heads = [f"{what}, {of}" for of in ("off", "on") for what in ("median", "largest", "largest near pair")]
    return Table("Expansion in each step", ("step", "sigma", *heads), rows)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Sampling of trajectories and pairs, and products with Jacobians at most."""
    if plan.network is None:
        return []
    trajectories = 2 * (config.samples + 4 * config.pairs) * (2 * plan.num_steps - 1)
    products = config.max_products * plan.num_steps * _EVALUATIONS_A_PRODUCT * 2 * (config.samples + config.whole)
    cost = sampling_cost(plan.network, 1, trajectories + products, 4 * config.batch_size)
    # A product with J^T keeps what a gradient does, of both evaluations of a step.
    memory = max(cost.memory, gradient_bytes(plan.network, 2 * config.batch_size))
    return [replace(cost, stage="contraction", memory=memory, disk=2 * config.samples * plan.num_steps * 8 * 4)]


PART = study.Part(
    name="contraction",
    title="Contraction of the sampler",
    question="Is every step of the sampler a contraction, and is the whole map from initial noise to sample?",
    paper=PAPER,
    presets=PRESETS,
    claims=CLAIMS,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    skips=no_network,
)
