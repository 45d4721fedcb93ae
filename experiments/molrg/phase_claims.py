"""The claims on the phase transitions of subspace recovery, and the shares of trials that are measured for them."""

import numpy as np
from scipy import stats

from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from experiments.molrg.phase_arms import LONG, SHORT, Arm, Arms
from experiments.molrg.phase_checks import WEIGHTS
from experiments.molrg.phase_config import Config
from experiments.study import Claim, Noted, all_of, at_least, at_most, equivalent
from experiments.study.claims import Measured

#: Figure of the paper for each number of subspaces.
_FIGURES = {1: "Fig 2", 2: "Fig 3", 3: "Fig 6"}
#: Id of the claim on each kind of random initial columns, and the kind in words.
_RANDOM_CLAIMS = {
    SHORT: ("phase-random-start", "columns of unit length"),
    LONG: ("phase-random-start-long", "columns with standard normal entries"),
}
_SUCCESSES = "(shown: the share of successful trials)"
_EXCEPTIONS = "(shown: the share of trials that contradict this)"


def share(hits: np.ndarray) -> Estimate:
    """The share of True among independent trials, with its exact 95 % interval (Clopper and Pearson)."""
    count, total = int(hits.sum()), int(hits.size)
    found = stats.binomtest(count, total).proportion_ci(0.95, "exact")
    return Estimate(count / total, float(found.low), float(found.high), method="Clopper-Pearson", n=total)


def theory(config: Config) -> np.ndarray:
    """(ranks, sizes) whether N >= d."""
    return np.asarray(config.sizes)[None] >= np.asarray(config.ranks)[:, None]


def share_at(config: Config, arm: Arm, gap: int) -> Estimate:
    """Share of successes where N = d + gap."""
    cells = [
        (row, config.sizes.index(rank + gap)) for row, rank in enumerate(config.ranks) if rank + gap in config.sizes
    ]
    return share(np.stack([arm["success"][:, row, column] for row, column in cells]))


def share_found(config: Config, arm: Arm) -> Estimate:
    """Share of successes where N >= d."""
    return share(arm["success"][:, theory(config)])


def against_theory(config: Config, arm: Arm) -> np.ndarray:
    """(trials, ranks, sizes) whether a trial does otherwise than succeed exactly where N >= d."""
    return arm["success"] != theory(config)[None]


def closed_form_claims() -> tuple[Claim, ...]:
    """Tweedie's identity, and what the minimum of the denoising loss is."""
    return (
        Claim(
            "phase-tweedie",
            "The posterior mean and the density of a mixture whose components differ in rank, mean and variances "
            "satisfy Tweedie's identity in float64 (shown: the largest deviation).",
            at_most(1e-10),
            source="equation 4",
        ),
        Claim(
            "phase-exact-loss",
            "Training the denoiser of a single subspace is principal component analysis (PCA).",
            all_of(
                Claim(
                    "phase-exact-loss-drawn",
                    "The denoising loss averaged over drawn noise equals its closed form (shown: their relative "
                    "difference).",
                    equivalent(0.01),
                    source="Theorem 1",
                ),
                Claim(
                    "phase-exact-loss-minimum",
                    "Gradient descent over orthonormal columns on the closed form of the denoising loss converges to "
                    "the subspace that PCA finds (shown: the largest distance between the projectors).",
                    at_most(0.01),
                    source="Theorem 1",
                ),
            ),
            source="Theorem 1",
        ),
    )


def transition_claims(config: Config) -> tuple[Claim, ...]:
    """Where each method succeeds."""
    return (
        _pca_claim(config),
        _dimension_claim(config),
        _k_subspaces_claim(config),
        _sgd_claim(config),
        *(_random_start_claim(config, name, words) for name, words in _RANDOM_CLAIMS.values()),
        Claim(
            "phase-straighten",
            "The columns that SGD finds must be made orthonormal before they are compared with the true subspace: at d "
            f"= {config.ranks[-1]}, N = {config.sizes[-1]} this raises the share of successful trials (shown: by how "
            "much).",
            at_least(0.2),
            source="Algorithm 1",
            paper="own",
        ),
    )


def _pca_claim(config: Config) -> Claim:
    noisy, source = f"With noise of standard deviation {config.noise:g},", _FIGURES[1]
    return Claim(
        "phase-pca",
        "PCA finds a subspace of rank d from N points on it if and only if N >= d.",
        all_of(
            Claim(
                "phase-pca-clean",
                f"Without noise, PCA succeeds exactly where N >= d {_EXCEPTIONS}.",
                at_most(0.005),
                source=source,
            ),
            Claim(
                "phase-pca-above",
                f"{noisy} PCA succeeds at N = d + 2 {_SUCCESSES}.",
                at_least(0.95),
                source=source,
            ),
            Claim("phase-pca-below", f"{noisy} PCA fails where N < d {_SUCCESSES}.", at_most(0.01), source=source),
        ),
        source=source,
    )


def _dimension_claim(config: Config) -> Claim:
    return Claim(
        "phase-dimension",
        f"PCA's phase transition is the same in {2 * config.dimension} dimensions as in {config.dimension} (shown: the "
        "share of cells of d and N in which any trial has another outcome).",
        at_most(0.05),
        source=_FIGURES[1],
    )


def _k_subspaces_claim(config: Config) -> Claim:
    parts = []
    for k in (2, 3):
        method = f"K-subspaces with K = {k}"
        parts += [
            Claim(
                f"phase-k-subspaces-{k}-clean",
                f"Without noise, {method} and d >= 3 succeeds exactly where N >= d {_EXCEPTIONS}.",
                at_most(0.01),
                source=_FIGURES[k],
            ),
            Claim(
                f"phase-k-subspaces-{k}-noisy",
                f"With noise of standard deviation {config.noise:g}, {method} succeeds at N = d + 2 {_SUCCESSES}.",
                at_least(0.9),
                source=_FIGURES[k],
            ),
        ]
    statement = "The K-subspaces method finds K subspaces of rank d from N points on each if and only if N >= d."
    return Claim("phase-k-subspaces", statement, all_of(*parts), source="Figs 3 and 6")


def _sgd_claim(config: Config) -> Claim:
    parts = []
    for k in (1, 2, 3):
        name, method = f"phase-sgd-{k}", f"SGD on the denoising loss with K = {k}"
        below, above = f"{method} fails at N = d - 1 {_SUCCESSES}.", f"{method} succeeds at N = d + 3 {_SUCCESSES}."
        parts += [
            Claim(f"{name}-below", below, at_most(0.05), source=_FIGURES[k]),
            Claim(f"{name}-above", above, at_least(0.8), source=_FIGURES[k]),
        ]
    return Claim(
        "phase-sgd",
        f"{config.steps:,} steps of SGD on the denoising loss, which for K > 1 subspaces begin near the true ones, "
        "have the phase transition of subspace clustering.",
        all_of(*parts),
        source="Figs 2, 3 and 6",
    )


def _random_start_claim(config: Config, name: str, words: str) -> Claim:
    return Claim(
        name,
        f"From random initial {words}, {config.steps:,} steps of SGD on the denoising loss rarely find two subspaces "
        f"even where N >= d: the phase transition requires initial columns near the true ones {_SUCCESSES}.",
        at_most(0.2),
        source="equation 45",
    )


def samples_claim(config: Config) -> Claim:
    """Samples lie on the subspaces, as many on each as its weight says."""
    error = float(np.sqrt(WEIGHTS[0] * (1 - WEIGHTS[0]) / config.samples))
    return Claim(
        "phase-samples",
        "Heun's method with the exact posterior mean of a mixture of low-rank Gaussians samples that mixture.",
        all_of(
            Claim(
                "phase-samples-near",
                "Every sample lies on one of the mixture's subspaces (shown: the largest distance to the nearest "
                "subspace).",
                at_most(0.01),
                source="Lemma 1",
            ),
            Claim(
                "phase-samples-share",
                f"Among {config.samples:,} samples, components occur as often as their weights say, to 3 standard "
                "errors (shown: the share of the first component less its weight).",
                # The difference lies within 3 standard errors: its 95 % interval inside 5.
                equivalent(5 * error),
                source="Lemma 1",
            ),
        ),
        source="Lemma 1",
    )


def closed_forms(checks: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for ``closed_form_claims``. Errors of deterministic computations are exact."""
    return {
        "phase-tweedie": exactly(float(checks["tweedie"])),
        "phase-exact-loss": {
            "phase-exact-loss-drawn": normal_estimate(float(checks["loss_difference"]), float(checks["loss_error"])),
            "phase-exact-loss-minimum": exactly(float(checks["minimum_distance"].max())),
        },
    }


def transitions(config: Config, arms: Arms) -> dict[str, Measured]:
    """What was measured for ``transition_claims``."""
    clean, noisy = arms.pca[0.0], arms.pca[config.noise]
    high = np.asarray(config.ranks) >= 3
    return {
        "phase-pca": {
            "phase-pca-clean": share(against_theory(config, clean)),
            "phase-pca-above": share_at(config, noisy, 2),
            "phase-pca-below": share(noisy["success"][:, ~theory(config)]),
        },
        "phase-dimension": share((clean["success"] != arms.wide["success"]).any(axis=0)),
        "phase-k-subspaces": {
            f"phase-k-subspaces-{k}-{name}": found
            for k in (2, 3)
            for name, found in (
                ("clean", share(against_theory(config, arms.k_subspaces[k, 0.0])[:, high])),
                ("noisy", share_at(config, arms.k_subspaces[k, config.noise], 2)),
            )
        },
        "phase-sgd": {
            f"phase-sgd-{k}-{name}": share_at(config, arm, gap)
            for k, arm in arms.sgd.items()
            for name, gap in (("below", -1), ("above", 3))
        },
        **{name: _random(config, arms.random[kind]) for kind, (name, _) in _RANDOM_CLAIMS.items()},
        "phase-straighten": _straightened(arms.sgd[1]),
    }


def _random(config: Config, arm: Arm) -> Measured:
    """Share of successes where N >= d, with a note by rank and on the runs that diverged."""
    shares = [arm["success"][:, row, enough].mean() for row, enough in enumerate(theory(config))]
    by_rank = ", ".join(f"{100 * one:.0f} % at d = {d}" for d, one in zip(config.ranks, shares))
    return Noted(share_found(config, arm), f"by rank: {by_rank}; {100 * arm['diverged'].mean():.0f} % of runs diverged")


def _straightened(arm: Arm) -> Estimate:
    """Gain in successes at the largest rank and size, each trial with and without orthonormal columns."""
    straight, raw = (arm[name][:, -1, -1].astype(float) for name in ("success", "raw"))
    gain = straight - raw
    return normal_estimate(float(gain.mean()), float(np.sqrt(max(gain.var(), 0.25 / len(gain)) / len(gain))))


def samples(checks: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for ``samples_claim``."""
    return {
        "phase-samples": {
            "phase-samples-near": exactly(float(checks["off"].max())),
            "phase-samples-share": share(checks["component"] == 0).map(lambda found: found - WEIGHTS[0]),
        }
    }
