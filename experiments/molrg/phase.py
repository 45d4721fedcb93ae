"""How many points does it take to find the subspaces of a mixture of low-rank Gaussians?"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from dgu.analysis.subspaces import BoundFit
from experiments import study
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
from experiments.molrg.subject import PAPER, Plan, Subject
from experiments.study import Claim, Cost, Figure, Measured, Noted, all_of, at_least, at_most, equivalent, within

#: Name of the phase map for each number of subspaces, and the paper's figure.
_MAPS = {1: ("one", "Fig 2"), 2: ("two", "Fig 3"), 3: ("three", "Fig 6")}
#: Id of the claim on each kind of random initial columns, and the kind in words.
_RANDOM_CLAIMS = {
    SHORT: ("phase-random-start", "columns of unit length"),
    LONG: ("phase-random-start-long", "columns with standard normal entries"),
}
_SUCCESSES = "(value: the share of trials that find the subspaces)"
_EXCEPTIONS = "(value: the share of trials that contradict this)"
#: Largest relative difference of the denoising loss from its closed form, and distances up to which subspaces agree.
_LOSS, _APART = 0.01, 0.01
#: Shares of exceptions and of successes: of PCA, of the K-subspaces method, and of SGD from good and from random columns.
_PCA, _K_SUBSPACES, _SGD, _RANDOM = (0.005, 0.95, 0.01), (0.01, 0.9), (0.05, 0.8), 0.2
#: Share of cells in which the dimension of the space may matter; gain in successes by orthonormal columns.
_OTHER, _GAIN = 0.05, 0.2
#: Ratio of the distance of projectors to sqrt(2 (d - N)).
_RATIO = (0.9, 1.02)

FIGURES = (
    *(
        Figure(
            f"phase_{count}",
            f"Share of trials in which {count} subspace{'s are' if k > 1 else ' is'} found from N points on each, by "
            "rank d and number of points N, an arm a panel.",
            source.lower().replace(" ", "-"),
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
        *_closed_form_claims(),
        *transition_claims(config),
        bound_claim("phase-bound-one", "Theorem 2", "PCA"),
        bound_claim("phase-bound-many", "Theorem 4", "the K-subspaces method with K = 2"),
        _samples_claim(config.samples),
    )


def _closed_form_claims() -> tuple[Claim, ...]:
    """Tweedie's identity, and what the minimum of the denoising loss is."""
    tweedie = (
        "A control: the closed forms of posterior mean and density, for a mixture of low-rank Gaussians that differ in "
        "rank, mean and variances, satisfy Tweedie's identity E[x0 | x] = x + sigma^2 grad log p(x) in float64 (value: "
        "the largest deviation)."
    )
    drawn = (
        "The denoising loss of a single subspace, averaged over drawn noise, equals its closed form, within "
        f"{100 * _LOSS:g} % (value: drawn over closed form, minus 1)."
    )
    minimum = (
        "Gradient descent over orthonormal columns on the closed form of the denoising loss converges to the subspace "
        "that PCA finds (value: the largest spectral norm of the projectors' difference over random starts)."
    )
    parts = all_of(
        Claim("phase-exact-loss-drawn", drawn, equivalent(_LOSS), "Theorem 1"),
        Claim("phase-exact-loss-minimum", minimum, at_most(_APART), "Theorem 1"),
    )
    pca = (
        "Training the denoiser of a single subspace is principal component analysis (PCA). (Two parts: the loss "
        f"averaged over drawn noise is its closed form, within {100 * _LOSS:g} %; gradient descent on the closed form "
        f"ends at most {_APART:g}, in the largest distance of the projectors, from the subspace that PCA finds.)"
    )
    return (
        Claim("phase-tweedie", tweedie, at_most(1e-10), "equation 4"),
        Claim("phase-exact-loss", pca, parts, "Theorem 1"),
    )


def transition_claims(config: Config) -> tuple[Claim, ...]:
    """Where each method succeeds."""
    noise, steps = f"noise of standard deviation {config.noise:g}", f"{config.steps:,} steps of SGD"
    noisy, one = f"With {noise},", _MAPS[1][1]
    clean = f"Without noise, PCA succeeds exactly where N >= d {_EXCEPTIONS}."
    exceptions, above, below = _PCA
    pca = (
        Claim("phase-pca-clean", clean, at_most(exceptions), one),
        Claim("phase-pca-above", f"{noisy} PCA succeeds at N = d + 2 {_SUCCESSES}.", at_least(above), one),
        Claim("phase-pca-below", f"{noisy} PCA fails where N < d {_SUCCESSES}.", at_most(below), one),
    )
    if_pca = (
        "PCA finds a subspace of dimension d from N points on it if and only if N >= d. (Three parts: without noise, "
        f"the share of trials that are exceptions is at most {exceptions:g}; with {noise}, the share of trials that "
        f"find it is at least {above:g} at N = d + 2 and at most {below:g} where N < d.)"
    )
    k_subspaces, sgd = [], []
    for k in (2, 3):
        method, source = f"K-subspaces with K = {k}", _MAPS[k][1]
        exact = f"Without noise, {method} and d >= 3 succeeds exactly where N >= d {_EXCEPTIONS}."
        two_more = f"{noisy} {method} succeeds at N = d + 2 {_SUCCESSES}."
        k_subspaces += [
            Claim(f"phase-k-subspaces-{k}-clean", exact, at_most(_K_SUBSPACES[0]), source),
            Claim(f"phase-k-subspaces-{k}-noisy", two_more, at_least(_K_SUBSPACES[1]), source),
        ]
    if_k = (
        "The K-subspaces method finds K subspaces of dimension d from N points on each if and only if N >= d. (Two "
        "parts for K = 2 and two for K = 3: without noise and for d >= 3, the share of trials that are exceptions is "
        f"at most {_K_SUBSPACES[0]:g}; with {noise}, at N = d + 2, the share that find them is at least "
        f"{_K_SUBSPACES[1]:g}.)"
    )
    for k, (_, source) in _MAPS.items():
        method = f"SGD on the denoising loss with K = {k}"
        few, many = f"{method} fails at N = d - 1 {_SUCCESSES}.", f"{method} succeeds at N = d + 3 {_SUCCESSES}."
        sgd += [
            Claim(f"phase-sgd-{k}-below", few, at_most(_SGD[0]), source),
            Claim(f"phase-sgd-{k}-above", many, at_least(_SGD[1]), source),
        ]
    near = (
        f"{steps} on the denoising loss, which for K > 1 begin near the true subspaces, find K subspaces of dimension "
        "d from N points on each only if N is about d or more. (Two parts each for K = 1, 2 and 3: the share of trials "
        f"that find them is at most {_SGD[0]:g} at N = d - 1, and at least {_SGD[1]:g} at N = d + 3.)"
    )
    dimension = (
        "When PCA finds a subspace of dimension d from N points on it does not depend on the dimension of the space, "
        f"{config.dimension} or {2 * config.dimension} (value: the share of the pairs of d and N in which any trial has "
        f"another outcome, which is at most {_OTHER:g})."
    )
    random = (
        f"From random initial {{}}, {steps} on the denoising loss seldom find two subspaces, even with N >= d points "
        f"on each: the share of trials that do is at most {_RANDOM:g}."
    )
    straighten = (
        "The columns that SGD finds should be made orthonormal before they are compared with the true subspace: at d = "
        f"{config.ranks[-1]}, N = {config.sizes[-1]} this raises the share of trials that find it by at least "
        f"{_GAIN:g} (value: the share with minus the share without)."
    )
    return (
        Claim("phase-pca", if_pca, all_of(*pca), one),
        Claim("phase-dimension", dimension, at_most(_OTHER), one),
        Claim("phase-k-subspaces", if_k, all_of(*k_subspaces), "Figs 3 and 6"),
        Claim("phase-sgd", near, all_of(*sgd), "Figs 2, 3 and 6"),
        *(Claim(name, random.format(kind), at_most(_RANDOM), "equation 45") for name, kind in _RANDOM_CLAIMS.values()),
        Claim("phase-straighten", straighten, at_least(_GAIN), "Algorithm 1", paper="own"),
    )


def bound_claim(claim: str, source: str, method: str) -> Claim:
    """The claim ``claim``, that the error of a method obeys the bounds of a theorem."""
    above = (
        f"For {method} with N >= d and the bound's constant fitted on the smaller dimensions d, the larger ones "
        "violate the bound no more often than the theorem allows (value: the share of violations minus the allowed "
        "share)."
    )
    below = (
        f"For {method} with N < d, the distance between the estimated and the true projector is sqrt(2 (d - N)) "
        "(value: the ratio of the two; directions that the points leave undetermined may agree with the true ones by "
        "chance)."
    )
    parts = all_of(
        Claim(f"{claim}-above", above, at_most(0.0), source),
        Claim(f"{claim}-below", below, within(*_RATIO), source),
    )
    both = (
        f"The subspaces of dimension d that {method} finds from N noisy points on each are as near to the true ones as "
        f"{source} says. (Two parts: where N >= d, with the bound's constant fitted on the smaller dimensions d, the "
        "larger ones violate the bound no more often than the theorem allows; where N < d, the projectors' Frobenius "
        f"distance is {_RATIO[0]:g} to {_RATIO[1]:g} times sqrt(2 (d - N)).)"
    )
    return Claim(claim, both, parts, source)


def _samples_claim(count: int) -> Claim:
    """Samples lie on the subspaces, as many on each as its weight says."""
    near = "Every sample lies on one of the mixture's subspaces (value: the largest distance to the nearest subspace)."
    often = (
        f"Among {count:,} samples, components occur as often as their weights say, to 3 standard errors (value: the "
        "share of the first component minus its weight)."
    )
    error = float(np.sqrt(WEIGHTS[0] * (1 - WEIGHTS[0]) / count))
    parts = all_of(
        Claim("phase-samples-near", near, at_most(_APART), "Lemma 1"),
        # The difference lies within 3 standard errors: its 95 % interval inside 5.
        Claim("phase-samples-share", often, equivalent(5 * error), "Lemma 1"),
    )
    whole = (
        "Heun's method with the exact posterior mean of a mixture of low-rank Gaussians samples that mixture. (Two "
        f"parts: every sample lies within {_APART:g} of one of the subspaces; among {count:,} samples, the share on "
        "the first subspace is its weight to 3 standard errors, so that the 95 % interval of their difference lies "
        "inside 5.)"
    )
    return Claim("phase-samples", whole, parts, "Lemma 1")


def measure(config: Config, subject: Subject, run: study.Run) -> Found:
    """All arms and checks; the subject takes no part."""
    return Found(
        Arms.measure(config, run),
        run.stage("checks", checks, config, run.key),
        {k: run.stage(f"errors-{k}", bound_errors, config, run.key, k) for k in (1, 2)},
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
        **{name: _random(config, arms.random[kind]) for kind, (name, _) in _RANDOM_CLAIMS.items()},
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
    return normal_estimate(float(gain.mean()), float(np.sqrt(max(gain.var(), 0.25 / len(gain)) / len(gain))))


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
        f"phase_{_MAPS[k][0]}": (plots.phase_maps(shown, config.ranks, config.sizes), trials)
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
        },
        figures={**maps, "subspace_errors": (_error_figure(config, found.errors, bounds), about_bounds)},
        tables=[study.Table("Share of successful trials by N - d", ("arm", *(f"{gap:+d}" for gap in gaps)), rows)],
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


def _error_figure(config: Config, errors: dict[int, dict[str, np.ndarray]], bounds: dict[int, BoundFit]) -> Drawing:
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
