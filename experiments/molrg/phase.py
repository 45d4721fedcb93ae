"""How many points does it take to find the subspaces of a mixture of low-rank Gaussians?"""

from dataclasses import dataclass

import jax
import numpy as np

from dgu import plots
from experiments.molrg.phase_arms import LONG, RANDOM_STARTS, SHORT, Arm, Arms, bound_errors
from experiments.molrg.phase_bounds import Bound, bound_claim, error_figure
from experiments.molrg.phase_checks import checks
from experiments.molrg.phase_claims import (
    against_theory,
    closed_form_claims,
    closed_forms,
    samples,
    samples_claim,
    share_at,
    share_found,
    transition_claims,
    transitions,
)
from experiments.molrg.phase_config import PRESETS, Config
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Findings, Part, Run, Table

#: Name and figure of the paper of each phase map, by the number of subspaces.
_MAPS = {1: ("one", "fig-2"), 2: ("two", "fig-3"), 3: ("three", "fig-6")}

FIGURES = (
    *(
        Figure(
            f"phase_{count}",
            f"Share of trials in which {count} subspace{'s are' if k > 1 else ' is'} found from N points on each, by "
            "rank d and number of points N, an arm a panel.",
            source,
        )
        for k, (count, source) in _MAPS.items()
    ),
    Figure(
        "subspace_errors",
        "Frobenius distance between the estimated and the true projector from noisy points (median, and 5th to 95th "
        "percentile of the trials), against the bounds of Theorems 2 and 4 with fitted constants.",
    ),
)


@dataclass(frozen=True)
class Found:
    """What the part measures: the arms, the checks of closed forms, and the errors of projectors by the number of
    subspaces."""

    arms: Arms
    checks: dict[str, np.ndarray]
    errors: dict[int, dict[str, np.ndarray]]


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        *closed_form_claims(),
        *transition_claims(config),
        bound_claim("phase-bound-one", "Theorem 2", "PCA"),
        bound_claim("phase-bound-many", "Theorem 4", "the K-subspaces method with K = 2"),
        samples_claim(config),
    )


def measure(config: Config, subject: Subject, run: Run) -> Found:
    """All arms and checks; the subject takes no part."""
    return Found(
        Arms.measure(config, run),
        run.stage("checks", checks, config, run.key),
        {k: run.stage(f"errors-{k}", bound_errors, config, run.key, k) for k in (1, 2)},
    )


def report(config: Config, subject: Subject, found: Found) -> Findings:
    """Shares of success against d and N, and errors against their bounds."""
    arms, errors = found.arms, found.errors
    panels = arms.panels(config)
    bounds = {k: Bound.fitted(config, errors[k]) for k in errors}
    named = {f"K = {k}: {name}": arm for k, shown in panels.items() for name, arm in shown.items()}
    trials = f"n = {config.dimension}: {config.trials} trials a cell, {config.sgd_trials} for SGD."
    fitted = config.ranks[(len(config.ranks) - 1) // 2]
    maps = {
        f"phase_{_MAPS[k][0]}": (plots.phase_maps(_shares(shown), config.ranks, config.sizes), trials)
        for k, shown in panels.items()
    }
    about_bounds = (
        f"The noise is {config.noise:g}, with {config.bound_trials} trials a cell; the constants are fitted on ranks "
        f"up to {fitted}."
    )
    return Findings(
        _answer(config, arms),
        claims={
            **closed_forms(found.checks),
            **transitions(config, arms),
            "phase-bound-one": bounds[1].measured("phase-bound-one"),
            "phase-bound-many": bounds[2].measured("phase-bound-many"),
            **samples(found.checks),
        },
        figures={**maps, "subspace_errors": (error_figure(config, errors, bounds), about_bounds)},
        tables=[_table(config, named)],
        metrics={
            "success": {name: shares.tolist() for name, shares in _shares(named).items()},
            "reseeded": sum(int(arm["reseeded"].sum()) for arm in arms.k_subspaces.values()),
            "diverged": arms.diverged[0],
            "bound_constants": {str(k): bound.constant for k, bound in bounds.items()},
        },
    )


def _shares(arms: dict[str, Arm]) -> dict[str, np.ndarray]:
    """The share of successful trials of each arm, (ranks, sizes)."""
    return {name: arm["success"].mean(axis=0) for name, arm in arms.items()}


def _answer(config: Config, arms: Arms) -> str:
    clean, (diverged, trained) = arms.pca[0.0], arms.diverged
    random = [100 * float(share_found(config, arms.random[kind]).value) for kind in (SHORT, LONG)]
    one, two = ([100 * float(share_at(config, arms.sgd[k], gap).value) for gap in (0, 3)] for k in (1, 2))
    return (
        "Without noise PCA finds a subspace of rank d from N points where N >= d and nowhere else: "
        f"{int(against_theory(config, clean).sum())} exceptions in {clean['success'].size:,} trials. SGD on the "
        f"denoising loss ({config.steps:,} steps) finds it in {one[0]:.0f} % of trials at N = d and {one[1]:.0f} % at "
        f"N = d + 3. Two subspaces are found in {two[0]:.0f} % and {two[1]:.0f} % of trials from initial columns near "
        f"the true ones; from random columns of unit length in {random[0]:.0f} % of trials with N >= d, from standard "
        f"normal entries in {random[1]:.0f} %. SGD diverged in {diverged} of {trained:,} trials, which count as "
        "failures."
    )


def _table(config: Config, arms: dict[str, Arm]) -> Table:
    gaps = range(-2, 5)
    rows = [(name, *(share_at(config, arm, gap).value for gap in gaps)) for name, arm in arms.items()]
    return Table("Share of successful trials by N - d", ("arm", *(f"{gap:+d}" for gap in gaps)), rows)


def costs(config: Config, plan: Plan) -> list[Cost]:
    """SGD's products of noise and bases, twice each; the rest is seconds."""
    cells = len(config.ranks) * len(config.sizes)
    columns = cells * config.ranks[-1]
    a_step = 2 * 2 * config.batch * config.dimension * columns
    # K = 1, 2, 3, and 2 from random initial columns.
    flop = float(config.sgd_trials) * config.steps * a_step * (1 + 2 + 3 + 2 * len(RANDOM_STARTS))
    memory = 4.0 * 3 * columns * (config.dimension + 4 * config.batch) * jax.local_device_count()
    return [Cost("phase: SGD", 0, flop, memory, 0)]


PART = Part(
    name="phase",
    title="Phase transitions of subspace recovery",
    question="How many points does it take to find the subspaces of a mixture of low-rank Gaussians?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
)
