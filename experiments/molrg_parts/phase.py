"""How many points does it take to find the subspaces of a mixture of low-rank Gaussians?"""

from functools import partial
from typing import Any

import jax

from dgu import plots
from dgu.core.keys import seeded, stream
from experiments.molrg_parts.phase_arms import LONG, RANDOM_STARTS, SHORT, Arm, Arms, bound_errors
from experiments.molrg_parts.phase_bounds import Bound, error_figure
from experiments.molrg_parts.phase_checks import checks
from experiments.molrg_parts.phase_claims import (
    against_theory,
    exact_claims,
    found,
    samples_claim,
    share,
    transition_claims,
)
from experiments.molrg_parts.phase_config import PRESETS as PRESETS
from experiments.molrg_parts.phase_config import Config as Config
from experiments.study.costs import Cost
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Phase transitions of subspace recovery"
CLAIM_IDS = (
    "phase-tweedie",
    "phase-exact-loss",
    "phase-pca",
    "phase-dimension",
    "phase-k-subspaces",
    "phase-sgd",
    "phase-random-start",
    "phase-random-start-long",
    "phase-straighten",
    "phase-bound-one",
    "phase-bound-many",
    "phase-samples",
)
FIGURE_FILES = (
    "figures/phase_one.png",
    "figures/phase_two.png",
    "figures/phase_three.png",
    "figures/subspace_errors.png",
)


def run(config: Config, subject: Any, directory: RunDirectory, seed: int) -> Section:
    """All arms, stored one by one; the subject takes no part."""
    key = stream(seeded(seed), "phase")
    arms = Arms.run(config, directory, key)
    checked = directory.stage("phase/checks", partial(checks, config, key))
    errors = {k: directory.stage(f"phase/errors-{k}", partial(bound_errors, config, key, k)) for k in (1, 2)}

    panels = arms.panels(config)
    for file, shown in zip(FIGURE_FILES, panels.values()):
        shares = {name: arm["success"].mean(axis=0) for name, arm in shown.items()}
        directory.save_figure(file, plots.phase_maps(shares, config.ranks, config.sizes))
    bounds = {k: Bound.fitted(config, errors[k]) for k in errors}
    directory.save_figure(FIGURE_FILES[3], error_figure(config, errors, bounds))
    claims = [
        *exact_claims(checked),
        *transition_claims(config, arms),
        bounds[1].claim("phase-bound-one", "Theorem 2", "PCA"),
        bounds[2].claim("phase-bound-many", "Theorem 4", "K-subspaces with K = 2"),
        samples_claim(checked),
    ]
    named = {f"K = {k}: {name}": arm for k, shown in panels.items() for name, arm in shown.items()}
    metrics = {
        "success": {name: arm["success"].mean(axis=0).tolist() for name, arm in named.items()},
        "reseeded": sum(int(arm["reseeded"].sum()) for arm in arms.k_subspaces.values()),
        "diverged": _diverged(arms)[0],
        "bound_constants": {str(k): bound.constant for k, bound in bounds.items()},
    }
    return Section(TITLE, _answer(config, arms), claims, _figures(config), [_table(config, named)], metrics)


def _diverged(arms: Arms) -> tuple[int, int]:
    """Runs of SGD that diverged, and all."""
    runs = (*arms.sgd.values(), *arms.random.values())
    return sum(int(arm["diverged"].sum()) for arm in runs), sum(arm["success"].size for arm in runs)


def _answer(config: Config, arms: Arms) -> str:
    clean, (diverged, runs) = arms.pca[0.0], _diverged(arms)
    random = [100 * found(config, arms.random[start]).value for start in (SHORT, LONG)]
    one, two = ([100 * share(config, arms.sgd[k], gap).value for gap in (0, 3)] for k in (1, 2))
    return (
        "Without noise PCA finds a subspace of rank d from N points where N >= d and nowhere else: "
        f"{int(against_theory(config, clean).sum())} exceptions in {clean['success'].size:,} trials. "
        f"SGD on the denoising loss ({config.steps:,} steps) finds it in {one[0]:.0f} % of trials at N = d and {one[1]:.0f} % at N = d + 3; "
        f"of two subspaces, starting near them, in {two[0]:.0f} % and {two[1]:.0f} %, from a random start "
        f"of columns of unit length in {random[0]:.0f} % of trials with N >= d, from standard normal entries in {random[1]:.0f} %. "
        f"SGD diverged in {diverged} of {runs:,} trials, which count as failures."
    )


def _figures(config: Config) -> list[FigureEntry]:
    trials = f"n = {config.dimension}: {config.trials} trials a cell, {config.sgd_trials} for SGD."
    fitted = config.ranks[(len(config.ranks) - 1) // 2]
    maps = [
        FigureEntry(file, f"Share of trials in which {what}, {trials}")
        for file, what in zip(
            FIGURE_FILES, ("the subspace is found", "two subspaces are found", "three subspaces are found")
        )
    ]
    errors = (
        f"Frobenius distance between the estimated and the true projector, noise {config.noise:g}, {config.bound_trials} trials a cell, "
        f"against the bounds of Theorems 2 and 4 with constants fitted on ranks up to {fitted}."
    )
    return [*maps, FigureEntry(FIGURE_FILES[3], errors)]


def _table(config: Config, arms: dict[str, Arm]) -> Table:
    gaps = range(-2, 5)
    rows = [(name, *(share(config, arm, gap).value for gap in gaps)) for name, arm in arms.items()]
    return Table("Share of trials with success by N - d", ("arm", *(f"{gap:+d}" for gap in gaps)), rows)


def costs(config: Config, subject: Any) -> list[Cost]:
    """SGD's products of noise and bases, twice each; the rest is seconds."""
    cells = len(config.ranks) * len(config.sizes)
    columns = cells * config.ranks[-1]
    a_step = 2 * 2 * config.batch * config.dimension * columns
    # K = 1, 2, 3, and 2 from random starts.
    flop = float(config.sgd_trials) * config.steps * a_step * (1 + 2 + 3 + 2 * len(RANDOM_STARTS))
    memory = 4.0 * 3 * columns * (config.dimension + 4 * config.batch) * jax.local_device_count()
    return [Cost("phase: SGD", 0, flop, memory, 0)]
