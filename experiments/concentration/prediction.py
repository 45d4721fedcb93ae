"""Universality applied: test errors of least squares predicted from means and covariances, simulated and on images.

What is measured on images is the error of least squares on splits of some of the samples, less what theory predicts
from the moments of the others. All splits share these moments and their pool of samples, and in the null the one draw
of Gaussian images: that variation between pools comes from the same measurement, which is itself in closed form, on
pools that are drawn anew from the samples, each with a null of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.analysis.universality.fit_size import mixture_samples
from dgu.analysis.universality.least_squares import simulated_errors
from dgu.analysis.universality.least_squares_splits import predicted_and_split_errors
from dgu.analysis.universality.resampled import on_new_pool
from dgu.core.errors import require
from dgu.core.keys import seed_of, seeded, stream
from dgu.core.typing import Key
from experiments import study
from experiments.concentration.subject import PAPER, Plan, Subject, points, single_class
from experiments.pools import CORRECTED_POINTS, POINTS, VARIANCE_CHANGED, Resampling, interval, on_resampled_pools
from experiments.study import Claim, Cost, Figure, Findings, Noted, NotTested, Run, Table, each, equivalent, option
from experiments.study.progress import progress

#: The two classifiers, and what they are called.
LINES = {"ridge": "best ridge", "min_norm": "no ridge"}
#: Without a ridge the error peaks at n = d, and a finite d rounds the peak off: claims are about sizes n for which n /
#: d is at least this factor away from 1.
AWAY = 1.5
#: What each part of a claim says of one training size and classifier.
_PARTS = {
    "prediction-simulation": "classifiers of the mixture err as often as predicted",
    "prediction-images": "classifiers of samples err as much more often than predicted as those of Gaussian images do",
}

FIGURES = (
    Figure(
        "prediction",
        "Test error of one-vs-all least squares against training size (upper axis: n over d): theory from the moments "
        "of a part of the samples (grey), simulation on the Gaussian mixture with these moments, and training and "
        "testing on other samples. Bands: 95 % intervals, variation between pools of samples included. The moments are "
        "themselves estimates, which makes the classes of the mixture easier to tell apart than those of the samples.",
    ),
)


@dataclass(frozen=True)
class Config(Resampling, prefix="prediction"):
    """One-vs-all least squares: asymptotic theory, simulation on the mixture, and training on the samples."""

    ratios: tuple[float, ...] = option((0.5, 0.8, 1.25, 2.0, 4.0), gt=0.0)
    """Training sizes as multiples of d, increasing, not 1; those at least a factor of 1.5 away from 1 enter the
    claims."""
    between: int = option(9, ge=2)
    """Further sizes at which theory is drawn, evenly spread on a logarithmic axis."""
    simulations: int = option(200, ge=2)
    """Training sets drawn from the mixture at each size."""
    replicates: int = option(20, ge=2)
    """Random splits of the samples at each size."""
    fit_share: float = option(0.4, gt=0.0, lt=1.0)
    """Share of the samples that means and covariances are computed from."""
    test_share: float = option(0.2, gt=0.0, lt=1.0)
    """Share of the samples that classifiers are tested on."""
    max_dimension: int = option(1600, ge=1)
    """Largest number of pixels: theory and simulation use a d x d matrix for each class."""
    tolerance: float = option(1.0, gt=0.0)
    """Differences between theory and simulation below this count as none, in percentage points."""
    margin: float = option(2.5, gt=0.0)
    """Differences between theory and images, beyond those of the null, below this count as none, in percentage
    points."""

    def check(self) -> None:
        sound = len(self.ratios) >= 1 and all(a < b for a, b in pairwise(self.ratios)) and 1 not in self.ratios
        require(sound, "prediction.ratios", self.ratios, "one or more, increasing, positive, and not 1")
        far = any(max(ratio, 1 / ratio) >= AWAY for ratio in self.ratios)
        require(far, "prediction.ratios", self.ratios, f"with one at least a factor of {AWAY:g} away from 1")
        shares = self.fit_share, self.test_share
        require(sum(shares) < 1, "(prediction.fit_share, prediction.test_share)", shares, "positive, together below 1")

    def parts(self, count: int, shown: str = "per_class") -> dict[str, int]:
        """Images per class for moments, tests and training, of ``count``, which is called ``shown`` if it is too
        small."""
        fit, test = (max(2, round(share * count)) for share in (self.fit_share, self.test_share))
        require(count - fit - test >= 1, shown, count, "6 or more for prediction")
        return {"fit": fit, "test": test, "train": count - fit - test}

    def sizes(self, d: int, k: int, train: int) -> np.ndarray:
        """Training images per class at the ratios that the samples reach; all of them if they reach none."""
        asked = sorted({max(1, round(ratio * d / k)) for ratio in self.ratios})
        return np.asarray([n for n in asked if n <= train] or [train])


PRESETS = {
    "smoke": Config(ratios=(0.25,), between=2, simulations=2, replicates=2, resampled_pools=2),
    "default": Config(),
    "paper": Config(replicates=20, simulations=20),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    parts = (
        f"a part for each number n of training images that is a factor of {AWAY:g} or more away from the number d of "
        "pixels, with the best ridge penalty and with none"
    )
    return (
        Claim(
            "prediction-simulation",
            "The asymptotic formula for least squares, from class means and covariances alone, predicts the test error "
            f"of classifiers trained on draws of the Gaussian mixture that has these, within "
            f"{points(config.tolerance)} (value: simulated minus predicted error; {parts}).",
            each(equivalent(config.tolerance)),
            unit="points",
        ),
        Claim(
            "prediction-images",
            "The asymptotic formula for least squares, from the class means and covariances of other samples, predicts "
            "the test error on samples as well as on equally many exactly Gaussian images, the null: the two "
            f"differences, measured minus predicted error, are within {points(config.margin)} of each other (value: "
            f"the samples' difference minus the null's; {parts}).",
            each(equivalent(config.margin)),
            source="Theorem 1",
            unit="points",
            one_network=True,
            changed="the interval was the corrected resampled t, which leaves out that "
            f"all splits share the moments and the null's draw. {VARIANCE_CHANGED}",
        ),
    )


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    config.parts(subject.per_class, subject.bounded_by)


def skips(config: Config, subject: Subject) -> str:
    """Skips a single class, and large images."""
    largest = f"it requires images of at most {config.max_dimension} pixels"
    return single_class(config, subject) or (largest if subject.dimension > config.max_dimension else "")


def measure(config: Config, subject: Subject, run: Run) -> dict[str, Any]:
    """Theory and errors on samples and on the null, exactly Gaussian images; and simulations at each training size."""
    pools = {
        name: run.stage(name, predict, config, subject, run.seed, null, allow_nonfinite=True)
        for name, null in (("samples", None), ("null", stream(run.key, "null")))
    }
    again = on_resampled_pools(config, run, partial(resampled, config, subject, run.seed, run.key))
    n, predicted = len(subject.labels) * _per_class(config, subject), pools["samples"]
    ridges = predicted["best"][predicted["at"]].tolist()
    simulated = [
        run.stage(f"simulated-{size}", simulate, config, predicted, size, ridge, stream(run.key, size))["errors"]
        for size, ridge in progress(list(zip(n.tolist(), ridges)), "simulations", unit="training sizes")
    ]
    return pools | {"simulated": np.stack(simulated), "resampled": again}


def report(config: Config, subject: Subject, found: Mapping[str, Any]) -> Findings:
    """Theory beside simulation and images, at each training size."""
    n, d = len(subject.labels) * _per_class(config, subject), subject.dimension
    parts = config.parts(subject.per_class)
    # In percentage points, (replicates, sizes, lines); of pools drawn anew (pools, splits, sizes, lines).
    theory = {name: 100 * found[name]["theory"] for name in ("samples", "null")}
    errors = {name: 100 * np.moveaxis(found[name]["errors"], -1, 0) for name in theory}
    off = {name: errors[name] - theory[name] for name in theory}
    simulation, again = 100 * np.moveaxis(found["simulated"], 1, -1), found["resampled"]
    off_again = {name: 100 * (again[f"{name}.errors"] - again[f"{name}.theory"]) for name in theory}
    drawn = t_interval(simulation, bounds=(0, 100))
    seen = interval(lambda error: error, errors["samples"], 100 * again["samples.errors"], (0, 100))
    alone = interval(lambda one: one["null"], off, off_again, POINTS)

    # Training sets of a pool too small for the ratios may all lie near the peak: then no claim is tested.
    far = np.flatnonzero(np.maximum(n / d, d / n) >= AWAY * 0.98)
    near = "" if len(far) else f"All training sizes lie near the peak: n / d {_span(n / d)}."
    far = np.arange(len(n)) if near else far
    where = "near the peak at 1" if near else f"n / d a factor of {AWAY:g} or more away from the peak at 1"
    compared: dict[str, Estimate] = {
        "prediction-simulation": t_interval((simulation - theory["samples"][..., None])[far], bounds=POINTS),
        "prediction-images": interval(
            lambda one: (one["samples"] - one["null"])[..., far, :], off, off_again, CORRECTED_POINTS
        ),
    }
    expected = theory["samples"]
    offs = (drawn.value - expected, seen.value - expected, alone.value)
    worst = [float(np.abs(np.asarray(values)[far]).max()) for values in offs]
    return Findings(
        f"From means and covariances alone, the test error of least squares is predicted to within {worst[0]:.2f} "
        f"points on samples of the Gaussian mixture (d = {d}, n / d {_span(n / d)}, with and without a ridge, "
        f"{where}), and to within {worst[1]:.1f} points on the samples themselves; if the images are exactly "
        f"Gaussian, the moments of {parts['fit']} images of each class leave it {worst[2]:.1f} points off.",
        claims={
            name: NotTested(near) if near else _by_size(estimate, n[far], _PARTS[name])
            for name, estimate in compared.items()
        },
        figures={
            "prediction": (
                _figure(n, d, found["samples"], (drawn, seen)),
                f"The moments are those of {parts['fit']} samples of each class.",
            )
        },
        tables=[_table(n, expected, (drawn, seen), alone)],
        metrics={
            "n": n,
            "theory": expected,
            "simulated": drawn.value,
            "samples": seen.value,
            "null_minus_theory": alone.value,
        },
    )


def predict(config: Config, subject: Subject, seed: int, null: Key | None) -> dict[str, np.ndarray]:
    """What ``predicted_and_split_errors`` finds on the samples, or where ``null`` is given on draws with this key from
    the Gaussian mixture with the moments of all samples; splits are made from ``seed``."""
    return _on_pool(config, subject.rows, seed, null, config.between, config.replicates)


def resampled(config: Config, subject: Subject, seed: int, key: Key, number: int) -> dict[str, np.ndarray]:
    """``errors`` and ``theory`` of samples and null, (splits, sizes, 2) each, on pool ``number`` of those drawn
    anew.
    """
    splits, own = config.resampled_splits, stream(key, "null", "resampled", number)

    def both(sets: Sequence[np.ndarray], _: int) -> dict[str, np.ndarray]:
        out = {}
        for name, null in (("samples", None), ("null", own)):
            found = _on_pool(config, sets[0], seed, null, 2, splits)
            out[f"{name}.errors"] = np.moveaxis(found["errors"], -1, 0)
            out[f"{name}.theory"] = np.broadcast_to(found["theory"], out[f"{name}.errors"].shape)
        return out

    # With as many dimensions as there are: errors depend on n / d. One call makes all splits of a pool.
    rng, d = np.random.default_rng(seed_of(seeded(seed), "resampled", number)), subject.dimension
    return {name: values[0] for name, values in on_new_pool([subject.rows], rng, 1, both, most_dimensions=d).items()}


def _on_pool(
    config: Config, rows: np.ndarray, seed: int, null: Key | None, between: int, replicates: int
) -> dict[str, np.ndarray]:
    k, per_class, d = rows.shape
    images = rows if null is None else mixture_samples(rows, null, per_class)
    parts = config.parts(per_class)
    sizes = config.sizes(d, k, parts["train"])
    return predicted_and_split_errors(
        images, sizes, fit=parts["fit"], test=parts["test"], between=between, replicates=replicates, seed=seed
    )


def simulate(
    config: Config, predicted: Mapping[str, np.ndarray], n: int, ridge: float, key: Key
) -> dict[str, np.ndarray]:
    """Errors (simulations, lines) of least squares trained on n draws from the mixture with the predicted moments.

    Each size has its own key: intervals at different sizes are independent.
    """
    means, covariances = predicted["means"], predicted["covariances"]
    return {"errors": simulated_errors(means, covariances, n, (ridge, 0.0), key, config.simulations)}


def _per_class(config: Config, subject: Subject) -> np.ndarray:
    """Training sizes: images of each class."""
    train = config.parts(subject.per_class)["train"]
    return config.sizes(subject.dimension, len(subject.labels), train)


def _by_size(estimate: Estimate, n: np.ndarray, statement: str) -> dict[str, study.Measured]:
    """The entries of arrays (sizes, lines), by size and classifier, of which a ``statement`` of ``_PARTS`` holds."""
    return {
        f"{size}-{line}": Noted(estimate[i, j], statement=f"Trained on {size} images with {text}, {statement}.")
        for i, size in enumerate(n.tolist())
        for j, (line, text) in enumerate(LINES.items())
    }


def _figure(n: np.ndarray, d: int, predicted: Mapping[str, np.ndarray], found: Sequence[Estimate]) -> Any:
    panels = []
    for place, (line, text) in enumerate(LINES.items()):
        mean, low, high = np.stack([one[:, place].stacked(axis=0) for one in found], axis=1)
        curve = {"theory for the mixture": (predicted["n"], 100 * predicted[line])}
        panels.append(plots.CurvePanel(text, n, mean, low, high, ("mixture", "diffusion"), d, curve))
    labels = {"mixture": "simulation on the mixture", "diffusion": "trained and tested on samples"}
    return plots.learning_curves(panels, quantity="test error (%)", labels=labels)


def _table(n: np.ndarray, expected: np.ndarray, found: Sequence[Estimate], alone: Estimate) -> Table:
    columns = [expected, *(part for one in found for part in one.stacked(axis=0)), alone.value]
    values = np.stack([np.asarray(column) for column in columns], axis=-1)
    rows = [
        (int(size), text, *values[i, j].tolist()) for i, size in enumerate(n) for j, text in enumerate(LINES.values())
    ]
    header = ("n", "classifier", "theory", "mixture", "low", "high", "samples", "low", "high", "null - its theory")
    return Table("Test error of least squares (%)", header, rows)


def _span(ratios: np.ndarray) -> str:
    """The least and the largest of rising ratios, or the only one."""
    return f"= {ratios[0]:.2g}" if ratios[0] == ratios[-1] else f"from {ratios[0]:.2g} to {ratios[-1]:.2g}"


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Products of d x d matrices for the theory; Gram matrices and their solution for the classifiers."""
    d, k = plan.dimension, plan.classes
    if k < 2 or d > config.max_dimension:
        return []
    parts = config.parts(plan.per_class)
    n = k * config.sizes(d, k, parts["train"]).astype(float)
    theory = (len(n) + config.between) * 12 * 6 * (2 * k + 2) * float(d) ** 3
    fits = sum(2 * size * d * min(size, d) + min(size, d) ** 3 for size in n)
    again = config.resampled_pools
    flop = 2 * (1 + again) * theory
    flop += 2 * (config.simulations + 2 * config.replicates + 2 * again * config.resampled_splits) * fits
    return [Cost("prediction", 0, flop, 8 * (4 * k * d * d + max(n) * d), 0)]


PART = study.Part(
    name="prediction",
    title="Test errors predicted from means and covariances",
    question="Do means and covariances alone predict the test error of least squares, on mixture and samples?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
    skips=skips,
)
