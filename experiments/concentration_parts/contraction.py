"""Is the sampler a contraction? Measured Lipschitz constants of its steps and of the whole, and what follows from them."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots, samplers
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.models import EmpiricalDenoiser
from dgu.samplers import Churn
from experiments.concentration_parts.norms import fitted
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.checkpoints import sampling_cost
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.progress import Progress
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Is the sampler a contraction?"
CLAIM_IDS = (
    "contraction-every-step",
    "contraction-whole-map",
    "contraction-bounds-output",
    "contraction-gaussian-control",
    "contraction-two-points",
)
FIGURE_FILES = ("figures/step_gains.png", "figures/scale_recursion.png", "figures/two_points.png")
#: Evaluations that a product with a step's J and J^T costs, in evaluations of the network: two levels, each with the
#: evaluation itself twice, once pushed forward and once pulled back.
_EVALUATIONS_A_PRODUCT = 8


@dataclass(frozen=True)
class Config:
    """Top singular values of the Jacobians of steps and of the whole sampler, churn off and on."""

    samples: int = 20
    """Trajectories at whose states steps are measured, dealt to the classes in turn; 2 or more."""
    whole: int = 20
    """Of these, the trajectories along which the whole map is measured; 2 or more."""
    pairs: int = 40
    """Pairs of trajectories with the same noise, 2 or more."""
    nearness: float = 0.01
    """Distance of the starts of near pairs, relative to that of independent ones."""
    tolerance: float = 0.02
    """Largest relative residual of the eigenvalues of J^T J."""
    max_products: int = 12
    """Products with J^T J at most."""
    batch_size: int = 20
    """States in one compiled call."""
    two_point_trajectories: int = 256
    """Trajectories of the two-point mixture."""
    two_point_size: int = 64
    """Dimensions of the two-point mixture, 2 or more."""
    two_point_distance: float = 0.5
    """a, of points at +a and -a on the first axis."""
    two_point_steps: int = 40
    """Steps of the sampler on it, 2 or more."""

    def __post_init__(self) -> None:
        check_options(
            self, "contraction", samples=2, whole=2, pairs=2, nearness="(0, 1]", tolerance="(0, 1)", max_products=3, batch_size=1,
            two_point_trajectories=10, two_point_size=2, two_point_distance="(0, inf)", two_point_steps=2,
        )  # fmt: skip
        require(2 <= self.whole <= self.samples, "contraction.whole", self.whole, f"2 to {self.samples}")


PRESETS = {
    "smoke": Config(samples=2, whole=2, pairs=2, max_products=3, batch_size=2, two_point_trajectories=32, two_point_size=16, two_point_steps=18),
    "default": Config(),
    "paper": Config(samples=200, whole=100, pairs=400, max_products=40, two_point_trajectories=2000),
}  # fmt: skip


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section | None:
    """Measured gains of steps, of the whole map and of the generator, and the recursion; None without a denoiser."""
    if subject.denoiser is None or subject.sigmas is None:
        return None
    key = stream(seeded(seed), "contraction")
    sigmas = np.asarray(subject.sigmas)
    arms = {"churn off": Churn(), "churn on": published_churn(subject)}
    found = {
        name: directory.stage(f"contraction/{name.replace(' ', '-')}", partial(_measure, config, subject, key, churn))
        for name, churn in arms.items()
    }  # fmt: skip
    control = directory.stage("contraction/gaussian", lambda: _gaussian_control(subject, key))
    points = directory.stage("contraction/two-points", lambda: _two_points(config, key))
    exact = {name: analysis.gaussian_path(fitted(subject, 0), sigmas, churn) for name, churn in arms.items()}

    near, far = f"pairs of near starts (distance {config.nearness:g})", "pairs of independent starts"
    gains = [
        plots.GainPanel(name, sigmas[:-1], arm["steps"], exact[name].step_expansion, {near: arm["near"], far: arm["far"]})
        for name, arm in found.items()
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[0], plots.step_gains(gains))
    output = _output_scale(subject)
    scales = {name: _scales(arm, churn, sigmas) for (name, arm), churn in zip(found.items(), arms.values())}
    panels = [
        plots.ScalePanel(
            name, sigmas, scales[name], {"measured: Lipschitz constant in all noise": _rms(arm["generator"])}
            | ({"measured: leading deviation of the samples": output} if name == _own_arm(subject) else {}),
        )
        for name, arm in found.items()
    ]  # fmt: skip
    directory.save_figure(FIGURE_FILES[1], plots.scale_recursions(panels))
    distance = config.two_point_distance
    grid = samplers.karras_sigmas(config.two_point_steps)
    picture = plots.counter_example(grid[:-1], points["gains"], points["changes"], _halfway(grid, distance), distance)
    directory.save_figure(FIGURE_FILES[2], picture)

    claims = _claims(sigmas, subject, found, control, points, output)
    off, on = found["churn off"], found["churn on"]
    expanding = on["steps"] > 1 + on["step_errors"]
    # Without noise in the steps the generator is the whole map of a scaled start.
    whole, largest = off["generator"] / float(sigmas[0]), float(off["steps"].max())
    levels = sigmas[:-1][(expanding.any(axis=0)) | (off["steps"] > 1 + off["step_errors"]).any(axis=0)]
    where = f", at noise levels from {levels.min():.2g} to {levels.max():.2g}" if len(levels) else ""
    most = max(largest, float(on["steps"].max()))
    if len(levels):
        steps = f"A step of the trained sampler expands some direction, by up to {most:.2f}, at {expanding.mean():.0%} of the states visited{where}"
    else:
        steps = f"No step of the trained sampler is found to expand a direction: the largest gain is {most:.2f}"
    answer = (
        f"{steps}. The whole map {'contracts' if np.median(whole) < 1 else 'expands'}: without churn its top singular value is {np.median(whole):.4f} (median), "
        f"which leaves a scale of {sigmas[0] * np.median(whole):.1f} of the start's {sigmas[0]:g}; the samples' leading "
        f"deviation is {output:.1f}, and the recursion over steps ends at {scales['churn off'][_WORST][-1]:.3g}."
    )
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Top singular value of the Jacobian of each step at states that samples pass through (median and range), beside what happens to pairs of trajectories with the same noise, and the exact gain for the class's Gaussian. Above 1 a step drives neighbours apart."),
            FigureEntry(FIGURE_FILES[1], "Scales of concentration along the path: Theorem 2's own (no noise in the steps, gain 1), the recursion with the noise that churn adds, and with measured gains, beside the measured constant of the whole generator and the leading standard deviation of the samples."),
            FigureEntry(FIGURE_FILES[2], f"Two points at +-{distance:g} in {config.two_point_size} dimensions: steps below sigma = {distance:g} expand between the points, while norms fall (right; the few steps at small noise that lengthen the state have no place on its axis)."),
        ],
        _tables(sigmas, found, scales),
        {
            "largest_step_gain": {name: float(arm["steps"].max()) for name, arm in found.items()},
            "median_step_gain": {name: np.median(arm["steps"], axis=0).tolist() for name, arm in found.items()},
            "share_expanding": {name: float((arm["steps"] > 1).mean()) for name, arm in found.items()},
            "generator_constant": {name: arm["generator"].tolist() for name, arm in found.items()},
            "recursion_end": {name: {label: float(curve[-1]) for label, curve in one.items()} for name, one in scales.items()},
            "largest_error": {name: float(max(arm[f"{of}_errors"].max() for of in ("step", "generator"))) for name, arm in found.items()},
            "output_scale": output,
        },
    )  # fmt: skip


def published_churn(subject: Subject) -> Churn:
    """The subject's churn, or where it has none the published one at its number of steps."""
    assert subject.sigmas is not None
    rate = float(subject.churn.rate)
    return subject.churn if rate > 0 else Churn(40 / 256 * (len(subject.sigmas) - 1), 0.05, 50.0, 1.003)


def _own_arm(subject: Subject) -> str:
    return "churn on" if float(subject.churn.rate) > 0 else "churn off"


def _labels(subject: Subject, count: int) -> list[int] | None:
    return [subject.labels[place % len(subject.labels)] for place in range(count)] if subject.conditional else None


def _measure(config: Config, subject: Subject, key: Any, churn: Churn) -> dict[str, np.ndarray]:
    """Gains of the trained sampler under one churn."""
    denoiser, sigmas = subject.denoiser, subject.sigmas
    assert denoiser is not None and sigmas is not None
    common: dict[str, Any] = {"shape": subject.shape, "churn": churn, "batch_size": config.batch_size}
    path = analysis.trace_trajectories(
        denoiser, key, range(config.samples), sigmas, labels=_labels(subject, config.samples), **common
    )
    first = replace(
        path,
        x_hat=path.x_hat[: config.whole],
        labels=None if path.labels is None else path.labels[: config.whole],
        samples=path.samples[: config.whole],
    )
    options: dict[str, Any] = {
        "key": stream(key, "lanczos"),
        "tolerance": config.tolerance,
        "max_products": config.max_products,
        "batch_size": config.batch_size,
    }
    with Progress("Jacobians of steps", total=config.samples * (len(sigmas) - 1), unit="states") as bar:
        steps = analysis.step_expansion(denoiser, path, progress=lambda done, _: bar.update(done - bar.done), **options)
    with Progress("Jacobians of the whole map", total=config.whole, unit="trajectories") as bar:
        progress = lambda done, _: bar.update(done - bar.done)  # noqa: E731
        generator = analysis.generator_expansion(denoiser, first, progress=progress, **options)
    pairs = {
        name: analysis.pair_distances(
            denoiser, stream(key, "pairs"), range(config.pairs), sigmas,
            labels=_labels(subject, config.pairs), nearness=nearness, **common,
        )
        for name, nearness in (("near", config.nearness), ("far", 1.0))
    }  # fmt: skip
    return {
        "steps": steps.values,
        "step_errors": steps.errors,
        "generator": generator.values,
        "generator_errors": generator.errors,
        "near": pairs["near"].ratios,
        "far": pairs["far"].ratios,
        "near_whole": pairs["near"].end_to_end,
    }


def _gaussian_control(subject: Subject, key: Any) -> dict[str, np.ndarray]:
    """Measured against exact gains with a Gaussian as denoiser, in float64; the largest relative difference of each kind."""
    with jax.enable_x64(True):
        gaussian = fitted(subject, 0, np.float64)
        churn = published_churn(subject)
        sigmas = np.asarray(subject.sigmas)
        path = analysis.trace_trajectories(
            gaussian, key, range(2), sigmas, shape=subject.shape, churn=churn, batch_size=2, dtype=jnp.float64
        )
        options: dict[str, Any] = {
            "key": key,
            "tolerance": 1e-6,
            "max_products": 300,
            "batch_size": 2 * (len(sigmas) - 1),
        }
        exact = analysis.gaussian_path(gaussian, sigmas, churn)
        steps = analysis.step_expansion(gaussian, path, **options).values
        whole = analysis.path_expansion(gaussian, path, **options | {"batch_size": 2}).values
        generator = analysis.generator_expansion(gaussian, path, **options | {"batch_size": 2}).values
    return {
        "steps": np.abs(steps / exact.step_expansion - 1).max(),
        "whole": np.abs(whole / exact.path_expansion - 1).max(),
        "generator": np.abs(generator / exact.generator_expansion - 1).max(),
        "largest": steps.max(),
    }


def _two_points(config: Config, key: Any) -> dict[str, np.ndarray]:
    """Gains of the steps of a two-point mixture, and changes of the norm in the same steps."""
    size, count = config.two_point_size, config.two_point_trajectories
    points = np.zeros((2, size), np.float32)
    points[:, 0] = config.two_point_distance, -config.two_point_distance
    pair, own = EmpiricalDenoiser(jnp.asarray(points)), stream(key, "two points")
    sigmas = samplers.karras_sigmas(config.two_point_steps)
    path = analysis.trace_trajectories(pair, own, range(count), sigmas, shape=(size,), batch_size=count)
    found = analysis.step_expansion(pair, path, key=key, tolerance=1e-3, max_products=20, batch_size=4 * count)
    options: dict[str, Any] = {"shape": (size,), "batch_size": count}
    _, seen = samplers.sample(pair, own, range(count), sigmas, observe=analysis.observe_norms, **options)
    return {"gains": found.values, "errors": found.errors, "changes": seen["change"]}


def _halfway(sigmas: np.ndarray, distance: float) -> np.ndarray:
    """The step's derivative halfway between the points, where that of the denoiser is ``a^2 / sigma^2``."""
    now, after = sigmas[:-1], sigmas[1:]
    factor = lambda s: (1 - distance**2 / s**2) / s  # noqa: E731
    euler = 1 + (after - now) * factor(now)
    inner = after[:-1]
    heun = 1 + (inner - now[:-1]) * (factor(now[:-1]) + factor(inner) * euler[:-1]) / 2
    return np.append(heun, euler[-1])


def _log_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean with its 95 % interval."""
    found = analysis.t_interval(np.log(values))
    return math.exp(float(found.estimate)), math.exp(float(found.low)), math.exp(float(found.high))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _output_scale(subject: Subject) -> float:
    """Root of the classes' mean top eigenvalue of the covariance: the deviation of the samples along their leading mode."""
    count = subject.images.shape[1]
    flat = subject.images.reshape(*subject.images.shape[:2], -1).astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    top = [np.linalg.norm(rows, 2) ** 2 / (count - 1) for rows in centred]
    return float(np.sqrt(np.mean(top)))


_PUBLISHED, _NOISE, _WORST = "Theorem 2: gain 1, no noise", "gain 1, noise of the churn", "largest measured gains"
_TYPICAL = "median measured gains"


def _scales(arm: dict[str, np.ndarray], churn: Churn, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    _, added = analysis.churn_levels(sigmas, churn)
    ones = np.ones(len(added))
    curves = {
        _PUBLISHED: (ones, np.zeros(len(added))),
        _NOISE: (ones, added),
        _WORST: (arm["steps"].max(axis=0), added),
        _TYPICAL: (np.median(arm["steps"], axis=0), added),
    }
    return {name: analysis.scale_recursion(*values, float(sigmas[0])) for name, values in curves.items()}


def _tables(sigmas: np.ndarray, found: dict, scales: dict) -> list[Table]:
    off, on = found["churn off"], found["churn on"]
    rows = [
        (step, float(sigmas[step]), *(float(value) for arm in (off, on) for value in (np.median(arm["steps"][:, step]), arm["steps"][:, step].max(), arm["near"][:, step].max())))
        for step in range(len(sigmas) - 1)
    ]  # fmt: skip
    head = ("step", "sigma", "median, off", "largest, off", "largest near pair, off", "median, on", "largest, on", "largest near pair, on")  # fmt: skip
    ends = [
        (label, *(float(scales[name][label][-1]) for name in found)) for label in (_PUBLISHED, _NOISE, _WORST, _TYPICAL)
    ]
    ends += [
        ("measured: constant in all noise, rms", *(_rms(arm["generator"]) for arm in found.values())),
    ]  # fmt: skip
    return [Table("Expansion in each step", head, rows), Table("Scale of the output", ("", *found), ends)]


def _claims(
    sigmas: np.ndarray, subject: Subject, found: dict, control: dict, points: dict, output: float
) -> list[JudgedClaim]:
    own = found[_own_arm(subject)]
    place = np.unravel_index(np.argmax(own["steps"]), own["steps"].shape)
    largest, error = float(own["steps"][place]), float(own["step_errors"][place])
    shares = analysis.t_interval((own["steps"] <= 1).mean(axis=1), bounds=(0, 1))
    gains = found["churn off"]["generator"] / float(sigmas[0])
    whole = _log_interval(gains)
    # Logarithms: the constants differ between trajectories by factors. Jensen: their mean is below the root mean square's.
    constant, least, most = _log_interval(own["generator"])
    gained, fell = points["gains"] > 1 + points["errors"], points["changes"] < 0
    counter = analysis.proportion((gained & fell).any(axis=1))
    worst = max(float(control[name]) for name in ("steps", "whole", "generator"))
    return [
        JudgedClaim.at_most(
            id="contraction-every-step",
            paper=PAPER,
            figure="Theorem 2",
            statement="Every step of the sampler is a contraction: at no state visited is the top singular value of its Jacobian above 1.",
            value=largest,
            # The largest of the states visited, known but for the error of the iteration.
            interval=(max(0.0, largest - error), largest + error),
            exact=True,
            threshold=1.0,
            unit="",
            note=f"the largest of {own['steps'].size} states, with the error of the iteration; the share of a trajectory's steps that contract is {float(shares.estimate):.1%} [{float(shares.low):.1%}, {float(shares.high):.1%}]",
        ),
        JudgedClaim.at_most(
            id="contraction-whole-map",
            paper=PAPER,
            figure="Theorem 2",
            statement="The whole map from start to sample, without churn, is a contraction (geometric mean over trajectories of the top singular value).",
            value=whole[0],
            interval=whole[1:],
            threshold=1.0,
            unit="",
            note=f"the largest of {len(gains)} is {gains.max():.3g}",
        ),
        JudgedClaim.at_most(
            id="contraction-bounds-output",
            paper="own",
            figure="Theorem 2",
            statement="The leading standard deviation of the samples is at most the Lipschitz constant of the generator in all its noise (geometric mean over trajectories, which is below the root mean square that Poincare's inequality asks for).",
            value=output / constant,
            interval=(output / most, output / least),
            threshold=1.0,
            unit="of the constant",
        ),
        JudgedClaim.at_most(
            id="contraction-gaussian-control",
            paper="own",
            figure="control",
            statement="With a Gaussian's exact denoiser the measured gains of the steps, of the whole map and of the generator are the exact ones.",
            value=worst,
            interval=(worst, worst),
            exact=True,  # The error of a deterministic computation.
            threshold=1e-6,
            unit="relative difference, the largest",
            note=f"every step contracts: the largest gain is 1 - {1 - float(control['largest']):.2g}",
        ),
        JudgedClaim.at_least(
            id="contraction-two-points",
            paper="own",
            figure="counter-example",
            statement="Falling norms do not make a contraction: with two points as data, a trajectory meets a step that expands while its norm falls.",
            value=float(counter.value),
            interval=(float(counter.low), float(counter.high)),
            threshold=0.02,
            unit="of trajectories",
            note=f"{int((gained & fell).sum())} of {int(gained.sum())} expanding steps shorten the state; the largest gain is {points['gains'].max():.3g}",
        ),
    ]  # fmt: skip


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Sampling of trajectories and pairs, and products with Jacobians at most."""
    if plan.network is None:
        return []
    trajectories = 2 * (config.samples + 4 * config.pairs) * (2 * plan.num_steps - 1)
    products = config.max_products * plan.num_steps * _EVALUATIONS_A_PRODUCT * 2 * (config.samples + config.whole)
    cost = sampling_cost(plan.network, 1, trajectories + products, 4 * config.batch_size)
    return [replace(cost, stage="contraction", disk=2 * config.samples * plan.num_steps * 8 * 4)]
