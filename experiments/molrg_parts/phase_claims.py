"""What the phase transitions are claimed to be, and the shares of trials that the claims are held to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from experiments.molrg_parts.phase_arms import LONG, SHORT, Arm, Arms
from experiments.molrg_parts.phase_config import Config
from experiments.molrg_parts.subject import PAPER
from experiments.study.judged import JudgedClaim


@dataclass(frozen=True)
class Fraction:
    """A share of independent trials with its exact 95 % interval (Clopper and Pearson)."""

    hits: int
    total: int

    @classmethod
    def of(cls, hits: np.ndarray) -> "Fraction":
        """The share of True."""
        return cls(int(hits.sum()), int(hits.size))

    @property
    def value(self) -> float:
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        found = stats.binomtest(self.hits, self.total).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def theory(config: Config) -> np.ndarray:
    """(ranks, sizes) whether N >= d."""
    return np.asarray(config.sizes)[None] >= np.asarray(config.ranks)[:, None]


def share(config: Config, arm: Arm, gap: int) -> Fraction:
    """Successes where N = d + gap."""
    cells = [
        (row, config.sizes.index(rank + gap)) for row, rank in enumerate(config.ranks) if rank + gap in config.sizes
    ]
    return Fraction.of(np.stack([arm["success"][:, row, column] for row, column in cells]))


def found(config: Config, arm: Arm) -> Fraction:
    """Successes where N >= d."""
    return Fraction.of(arm["success"][:, theory(config)])


def against_theory(config: Config, arm: Arm) -> np.ndarray:
    """(trials, ranks, sizes) whether a trial does otherwise than succeed exactly where N >= d."""
    return arm["success"] != theory(config)[None]


def normal_interval(value: float, error: float) -> tuple[float, float]:
    """95 % interval of an estimate with a standard error."""
    return value - 1.96 * error, value + 1.96 * error


def joined(parts: Sequence[JudgedClaim], name: str, figure: str, statement: str) -> JudgedClaim:
    """All parts hold."""
    return JudgedClaim.all_of(parts, id=name, paper=PAPER, figure=figure, statement=statement)


def _held(
    make: Callable[..., JudgedClaim],
    measured: Fraction | float,
    threshold: float,
    name: str,
    figure: str,
    statement: str,
    note: str = "",
) -> JudgedClaim:
    """A share of trials, or the error of a deterministic computation, which is exact, against a threshold."""
    value = measured.value if isinstance(measured, Fraction) else measured
    interval = measured.interval if isinstance(measured, Fraction) else (measured, measured)
    return make(
        id=name,
        paper=PAPER,
        figure=figure,
        statement=statement,
        value=value,
        interval=interval,
        exact=not isinstance(measured, Fraction),
        threshold=threshold,
        unit="",
        note=note,
    )


def exact_claims(checks: dict[str, np.ndarray]) -> list[JudgedClaim]:
    """Tweedie's identity, and what the loss is that training lowers."""
    difference, error = float(checks["loss_difference"]), float(checks["loss_error"])
    tweedie = _held(
        JudgedClaim.at_most,
        float(checks["tweedie"]),
        1e-10,
        "phase-tweedie",
        "equation 4",
        "Posterior mean and density of a mixture of unequal ranks, means and variances satisfy Tweedie's identity in float64.",
    )
    drawn = JudgedClaim.equivalent(
        id="phase-exact-loss-drawn",
        paper=PAPER,
        figure="Theorem 1",
        statement="The loss with drawn noise is the exact one (relative difference).",
        estimate=difference,
        interval=normal_interval(difference, error),
        margin=0.01,
        unit="",
    )
    minimum = _held(
        JudgedClaim.at_most,
        float(checks["minimum_distance"].max()),
        0.01,
        "phase-exact-loss-minimum",
        "Theorem 1",
        "Gradient descent on the exact loss over orthonormal columns ends in PCA's subspace (distance of projectors).",
    )
    loss = joined([drawn, minimum], "phase-exact-loss", "Theorem 1", "Training the denoiser of one subspace is PCA.")
    return [tweedie, loss]


def transition_claims(config: Config, arms: Arms) -> list[JudgedClaim]:
    """Where each method succeeds."""
    return [
        pca_claim(config, arms.pca),
        dimension_claim(config, arms.pca[0.0], arms.wide),
        k_subspaces_claim(config, arms.k_subspaces),
        sgd_claim(config, arms.sgd),
        *random_start_claims(config, arms.random),
        straighten_claim(config, arms.sgd[1]),
    ]


def pca_claim(config: Config, pca: dict[float, Arm]) -> JudgedClaim:
    """At N = d, with noise a little later."""
    name, figure, noisy = "phase-pca", "Fig 2", pca[config.noise]
    wrong = Fraction.of(against_theory(config, pca[0.0]))
    below = Fraction.of(noisy["success"][:, ~theory(config)])
    clean = "Without noise PCA succeeds exactly where N >= d (share of trials that do otherwise)."
    late, early = (f"With noise {config.noise:g} it {end}." for end in ("succeeds at N = d + 2", "fails where N < d"))
    parts = [
        _held(JudgedClaim.at_most, wrong, 0.005, f"{name}-clean", figure, clean),
        _held(JudgedClaim.at_least, share(config, noisy, 2), 0.95, f"{name}-above", figure, late),
        _held(JudgedClaim.at_most, below, 0.01, f"{name}-below", figure, early),
    ]
    return joined(parts, name, figure, "PCA finds a subspace of rank d from N points if and only if N >= d.")


def dimension_claim(config: Config, usual: Arm, wide: Arm) -> JudgedClaim:
    """The dimension of the space plays no part."""
    return _held(
        JudgedClaim.at_most,
        Fraction.of((usual["success"] != wide["success"]).any(axis=0)),
        0.05,
        "phase-dimension",
        "Fig 2",
        f"PCA's transition is the same in dimension {2 * config.dimension} (share of cells of d and N in which any trial differs).",
    )


def k_subspaces_claim(config: Config, many: dict[tuple[int, float], Arm]) -> JudgedClaim:
    """At N = d for two and three subspaces, without noise for ranks of 3 or more."""
    parts, high = [], np.asarray(config.ranks) >= 3
    for k, figure in ((2, "Fig 3"), (3, "Fig 6")):
        name, noisy = f"phase-k-subspaces-{k}", share(config, many[k, config.noise], 2)
        wrong = Fraction.of(against_theory(config, many[k, 0.0])[:, high])
        clean = f"K = {k}, no noise, d >= 3: success exactly where N >= d (share of trials that do otherwise)."
        late = f"K = {k}, noise {config.noise:g}: success at N = d + 2."
        parts += [
            _held(JudgedClaim.at_most, wrong, 0.01, f"{name}-clean", figure, clean),
            _held(JudgedClaim.at_least, noisy, 0.9, f"{name}-noisy", figure, late),
        ]
    statement = "K-subspaces find K subspaces of rank d from N points on each if and only if N >= d."
    return joined(parts, "phase-k-subspaces", "Figs 3 and 6", statement)


def sgd_claim(config: Config, sgd: dict[int, Arm]) -> JudgedClaim:
    """Between N = d - 1 and N = d + 3."""
    parts = []
    for k, figure in ((1, "Fig 2"), (2, "Fig 3"), (3, "Fig 6")):
        below, above = share(config, sgd[k], -1), share(config, sgd[k], 3)
        name, late = f"phase-sgd-{k}", f"K = {k}: it succeeds at N = d + 3."
        parts += [
            _held(JudgedClaim.at_most, below, 0.05, f"{name}-below", figure, f"K = {k}: it fails at N = d - 1."),
            _held(JudgedClaim.at_least, above, 0.8, f"{name}-above", figure, late),
        ]
    statement = (
        f"{config.steps:,} steps of SGD on the denoising loss, for K > 1 from a start near the truth, have the phase transition of "
        "subspace clustering."
    )
    return joined(parts, "phase-sgd", "Figs 2, 3 and 6", statement)


def random_start_claims(config: Config, random: dict[str, Arm]) -> list[JudgedClaim]:
    """From either random start, hardly anywhere; by rank, and with how many runs diverged."""
    said = (
        (SHORT, "phase-random-start", "columns of unit length"),
        (LONG, "phase-random-start-long", "standard normal entries"),
    )
    claims = []
    for start, name, words in said:
        arm = random[start]
        shares = [arm["success"][:, row, enough].mean() for row, enough in enumerate(theory(config))]
        by_rank = ", ".join(f"{100 * one:.0f} % at d = {d}" for d, one in zip(config.ranks, shares))
        note = f"by rank: {by_rank}; {100 * arm['diverged'].mean():.0f} % of runs diverged"
        statement = (
            f"From a random start of {words} {config.steps:,} steps of SGD do not find two subspaces, though N >= d: "
            "the transition needs the start near the truth."
        )
        claims.append(_held(JudgedClaim.at_most, found(config, arm), 0.2, name, "equation 45", statement, note=note))
    return claims


def straighten_claim(config: Config, arm: Arm) -> JudgedClaim:
    """At the largest rank and size, each trial with and without orthonormal columns."""
    straight, raw = (arm[name][:, -1, -1].astype(float) for name in ("success", "raw"))
    gain = straight - raw
    error = float(np.sqrt(max(gain.var(), 0.25 / len(gain)) / len(gain)))
    return JudgedClaim.at_least(
        id="phase-straighten",
        paper="own",
        figure="Algorithm 1",
        statement=f"SGD's columns must be made orthonormal before the test: at d = {config.ranks[-1]}, N = {config.sizes[-1]} that raises the share of successes.",
        value=float(gain.mean()),
        interval=normal_interval(float(gain.mean()), error),
        threshold=0.2,
        unit="",
    )


def samples_claim(checks: dict[str, np.ndarray]) -> JudgedClaim:
    """Samples lie on the subspaces, as many on each as its weight says."""
    name, figure = "phase-samples", "Lemma 1"
    near, first = float(checks["off"].max()), Fraction.of(checks["component"] == 0)
    weight = float(checks["weights"][0])
    low, high = (end - weight for end in first.interval)
    error = float(np.sqrt(weight * (1 - weight) / first.total))
    parts = [
        _held(
            JudgedClaim.at_most,
            near,
            0.01,
            f"{name}-near",
            figure,
            "Every sample lies on a subspace (largest distance).",
        ),
        JudgedClaim.equivalent(
            id=f"{name}-share",
            paper=PAPER,
            figure=figure,
            # The difference lies within 3 standard errors: its 95 % interval inside 5.
            statement=f"Components come as often as their weights say, to 3 standard errors ({first.total:,} samples).",
            estimate=first.value - weight,
            interval=(low, high),
            margin=5 * error,
            unit="",
        ),
    ]
    return joined(parts, name, figure, "Heun's method on the exact posterior mean samples the mixture.")
