"""How many points does it take to find the subspaces of a mixture of low-rank Gaussians?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from dgu.analysis.subspaces import BoundFit
from experiments import study
from experiments.molrg import phase_equivalence
from experiments.molrg.phase_arms import (
    LONG,
    PRESETS,
    RANDOM_STARTS,
    SHORT,
    WEIGHTS,
    Arm,
    Arms,
    Config,
    bound_errors,
    checks,
)
from experiments.molrg.phase_claims import MAPS, RANDOM_CLAIMS, claims
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Cost, Figure, Measured, Noted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

FIGURES = (
    *(
        Figure(
            f"phase_{count}",
            f"Share of trials in which {count} subspace{'s are' if k > 1 else ' is'} found from N points on each, by "
            "rank d and number of points N, an arm a panel.",
            source.lower().replace(" ", "-"),
        )
        for k, (count, source) in MAPS.items()
    ),
    Figure(
        "subspace_errors",
        "Frobenius distance between the estimated and the true projector from noisy points (median, and 5th to 95th "
        "percentile of the trials), against the bounds of Theorems 2 and 4 with fitted constants.",
    ),
)


@dataclass(frozen=True)
class Found:
    """What the part measures: the arms, the checks of closed forms, and by the number of subspaces the errors of
    projectors and the two ways of Theorem 3."""

    arms: Arms
    checks: dict[str, np.ndarray]
    errors: dict[int, dict[str, np.ndarray]]
    equivalence: dict[int, dict[str, np.ndarray]]


def measure(config: Config, subject: Subject, run: study.Run) -> Found:
    """All arms and checks; the subject takes no part."""
    return Found(
        Arms.measure(config, run),
        run.stage("checks", checks, config, run.key),
        {k: run.stage(f"errors-{k}", bound_errors, config, run.key, k) for k in (1, 2)},
        {
            k: run.stage(f"equivalence-{k}", phase_equivalence.equivalence, config, run.key, k)
            for k in phase_equivalence.COUNTS
        },
    )


def share(hits: np.ndarray) -> Estimate:
    """The share of True among independent trials, with its exact 95 % interval."""
    return analysis.proportion(hits.ravel(), exact=True)


def theory(config: Config) -> np.ndarray:
    """(ranks, sizes) whether N >= d."""
    return np.asarray(config.sizes)[None] >= np.asarray(config.ranks)[:, None]


def share_at(config: Config, arm: Arm, gap: int) -> Estimate:
    """Share of successes where N = d + gap."""
    return share(arm["success"][:, np.subtract.outer(config.sizes, config.ranks).T == gap])


def transitions(config: Config, arms: Arms) -> dict[str, Measured]:
    """What was measured for ``transition_claims``."""
    clean, noisy, noise = arms.pca[0.0], arms.pca[config.noise], config.noise
    enough, high = theory(config), np.asarray(config.ranks) >= 3
    k_subspaces: dict[str, Measured] = {}
    for k in (2, 3):
        exceptions = arms.k_subspaces[k, 0.0]["success"] != enough
        k_subspaces[f"phase-k-subspaces-{k}-clean"] = share(exceptions[:, high])
        k_subspaces[f"phase-k-subspaces-{k}-noisy"] = share_at(config, arms.k_subspaces[k, noise], 2)
    sgd: dict[str, Measured] = {}
    for k, arm in arms.sgd.items():
        sgd |= {f"phase-sgd-{k}-below": share_at(config, arm, -1), f"phase-sgd-{k}-above": share_at(config, arm, 3)}
    return {
        "phase-pca": {
            "phase-pca-clean": share(clean["success"] != enough),
            "phase-pca-above": share_at(config, noisy, 2),
            "phase-pca-below": share(noisy["success"][:, ~enough]),
        },
        "phase-dimension": share((clean["success"] != arms.wide["success"]).any(axis=0)),
        "phase-k-subspaces": k_subspaces,
        "phase-sgd": sgd,
        **{name: _random(config, arms.random[kind]) for kind, (name, _) in RANDOM_CLAIMS.items()},
        "phase-straighten": _straightened(arms.sgd[1]),
    }


def _random(config: Config, arm: Arm) -> Measured:
    """Share of successes where N >= d, with a note by rank and on the runs that diverged."""
    shares = [arm["success"][:, row, enough].mean() for row, enough in enumerate(theory(config))]
    by_rank = ", ".join(f"{100 * one:.0f} % at d = {d}" for d, one in zip(config.ranks, shares))
    found = share(arm["success"][:, theory(config)])
    return Noted(found, f"by rank: {by_rank}; {100 * arm['diverged'].mean():.0f} % of runs diverged")


def _straightened(arm: Arm) -> Estimate:
    """Gain in successes at the largest rank and size, each trial with and without orthonormal columns."""
    straight, raw = (arm[name][:, -1, -1].astype(float) for name in ("success", "raw"))
    gain = straight - raw
    error = float(np.sqrt(max(gain.var(), 0.25 / len(gain)) / len(gain)))
    return normal_estimate(float(gain.mean()), error, bounds=(-1.0, 1.0))


def bounded(claim: str, bound: BoundFit) -> Measured:
    """Both parts of the claim ``claim`` that ``bound_claim`` declares."""
    broken = bound.broken.map(lambda found: found - bound.allowed)
    return {
        f"{claim}-above": Noted(broken, f"The fitted constant is {bound.constant:.2f}."),
        f"{claim}-below": bound.ratio,
    }


def _checked(found: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for the claims on closed forms and on samples. Errors of deterministic computations are
    exact."""
    return {
        "phase-tweedie": exactly(float(found["tweedie"])),
        "phase-exact-loss": {
            "phase-exact-loss-drawn": normal_estimate(float(found["loss_difference"]), float(found["loss_error"])),
            "phase-exact-loss-minimum": exactly(float(found["minimum_distance"].max())),
        },
        "phase-samples": {
            "phase-samples-near": exactly(float(found["off"].max())),
            "phase-samples-share": share(found["component"] == 0).map(lambda found: found - WEIGHTS[0]),
        },
    }


def report(config: Config, subject: Subject, found: Found) -> study.Findings:
    """Shares of success against d and N, and errors against their bounds."""
    arms, panels = found.arms, found.arms.panels(config.noise)
    bounds = {k: analysis.fit_bound(config.ranks, config.sizes, **errors) for k, errors in found.errors.items()}
    trials = f"n = {config.dimension}: {config.trials} trials a cell, {config.sgd_trials} for SGD."
    shares = {k: {name: arm["success"].mean(axis=0) for name, arm in shown.items()} for k, shown in panels.items()}
    maps = {
        f"phase_{MAPS[k][0]}": (plots.phase_maps(shown, config.ranks, config.sizes), trials)
        for k, shown in shares.items()
    }
    gaps = range(-2, 5)
    rows = [
        (f"K = {k}: {name}", *(share_at(config, arm, gap).value for gap in gaps))
        for k, shown in panels.items()
        for name, arm in shown.items()
    ]
    about_bounds = (
        f"The noise is {config.noise:g}, with {config.bound_trials} trials a cell; the constants are fitted on ranks "
        f"up to {config.ranks[(len(config.ranks) - 1) // 2]}."
    )
    return study.Findings(
        _answer(config, arms),
        claims={
            **transitions(config, arms),
            "phase-bound-one": bounded("phase-bound-one", bounds[1]),
            "phase-bound-many": bounded("phase-bound-many", bounds[2]),
            **_checked(found.checks),
            "phase-equivalence": phase_equivalence.measured(found.equivalence),
        },
        figures={**maps, "subspace_errors": (_error_figure(config, found.errors, bounds), about_bounds)},
        tables=[
            study.Table("Share of successful trials by N - d", ("arm", *(f"{gap:+d}" for gap in gaps)), rows),
            phase_equivalence.table(found.equivalence),
        ],
        metrics={
            "success": {f"K = {k}: {name}": of.tolist() for k, shown in shares.items() for name, of in shown.items()},
            "reseeded": sum(int(arm["reseeded"].sum()) for arm in arms.k_subspaces.values()),
            "diverged": arms.diverged[0],
            "bound_constants": {str(k): bound.constant for k, bound in bounds.items()},
        },
    )


def _answer(config: Config, arms: Arms) -> str:
    clean, (diverged, trained), enough = arms.pca[0.0]["success"], arms.diverged, theory(config)
    random = [100 * arms.random[kind]["success"][:, enough].mean() for kind in (SHORT, LONG)]
    one, two = ([100 * share_at(config, arms.sgd[k], gap).value for gap in (0, 3)] for k in (1, 2))
    return (
        "Without noise PCA finds a subspace of rank d from N points where N >= d and nowhere else: "
        f"{int((clean != enough).sum())} exceptions in {clean.size:,} trials. SGD on the denoising loss "
        f"({config.steps:,} steps) finds it in {one[0]:.0f} % of trials at N = d and {one[1]:.0f} % at N = d + 3. Two "
        f"subspaces are found in {two[0]:.0f} % and {two[1]:.0f} % of trials from initial columns near the true ones; "
        f"from random columns of unit length in {random[0]:.0f} % of trials with N >= d, from standard normal entries "
        f"in {random[1]:.0f} %. SGD diverged in {diverged} of {trained:,} trials, which count as failures."
    )


def _error_figure(config: Config, errors: dict[int, dict[str, np.ndarray]], bounds: dict[int, BoundFit]) -> "Drawing":
    """A small, a middle and the largest rank."""
    shown = (config.ranks[0], config.ranks[len(config.ranks) // 2], config.ranks[-1])
    sizes, titles = np.asarray(config.sizes), {1: "PCA, one subspace", 2: "K-subspaces, two subspaces"}
    panels: dict[str, dict[int, Any]] = {title: {} for title in titles.values()}
    lines: dict[str, dict[int, Any]] = {title: {} for title in titles.values()}
    for k, title in titles.items():
        for d in shown:
            row = config.ranks.index(d)
            distance = errors[k]["distance"][:, row].mean(axis=2)
            panels[title][d] = tuple(np.quantile(distance, q, axis=0) for q in (0.5, 0.05, 0.95))
            above = bounds[k].constant * np.median(errors[k]["unit"][:, row], axis=(0, 2))
            lines[title][d] = np.where(sizes >= d, above, np.sqrt(2.0 * np.maximum(d - sizes, 0)))
    return plots.subspace_errors(panels, lines, config.sizes)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """SGD's products of noise and bases, twice each; the rest is seconds."""
    cells = len(config.ranks) * len(config.sizes)
    columns = cells * config.ranks[-1]
    a_step = 2 * 2 * config.batch * config.dimension * columns
    # K = 1, 2, 3, and 2 from random initial columns.
    flop = float(config.sgd_trials) * config.steps * a_step * (1 + 2 + 3 + 2 * len(RANDOM_STARTS))
    memory = 4.0 * 3 * columns * (config.dimension + 4 * config.batch) * jax.local_device_count()
    return [Cost("phase: SGD", 0, flop, memory, 0)]


PART = study.Part(
    "phase", "Phase transitions of subspace recovery",
    "How many points does it take to find the subspaces of a mixture of low-rank Gaussians?",
    PAPER, claims, FIGURES, measure, report, PRESETS, costs,
)  # fmt: skip
