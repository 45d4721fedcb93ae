"""Linear classifiers beside scikit-learn's: the same data, the same optimum or number of epochs, time and accuracy.

    python -m benchmarks.scikit [--quick] [--json PATH]

Two sets of ``runs`` trainings, four classes each, every run with training rows of its own from one pool. *Tall*: 4,096
rows of 256 features, which overlap, so that the cross-entropy has an optimum. *Wide*: 1,024 rows of 3,072 features, as
images have, which a linear classifier separates. No penalty, no bias, float32.

- ``dgu, SGD``: ``fit_classifiers`` of cross-entropy, all runs together, batches of 64, ``epochs`` epochs, cosine rate.
- ``SGDClassifier``: one-vs-rest logistic losses, as many epochs, one row a step (it has no batches), a run at a time.
- ``LogisticRegression``: the optimum of the same cross-entropy by L-BFGS, to its default tolerance. Where there is an
  optimum, ``dgu``'s loss must be within 2 % of it, which is checked.
- ``dgu, least squares``: ``least_squares_classifier`` with a small ridge, exact, in float64, a run at a time.
- ``RidgeClassifier``: the same, whose optimum is checked to be ours to 1e-5 of the largest weight.

Programs take turns in each round; ratios are taken within a round. Time is that of a run; accuracy is that on 4,096
other rows, the loss the mean cross-entropy on the training rows, both averaged over the runs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tyro
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier

from benchmarks import provenance
from benchmarks.timing import alternate, relative_throughput, seconds, spread, use_cores
from dgu.analysis import Runs, fit_classifiers, least_squares_classifier

CLASSES, TEST, RIDGE, BATCH = 4, 4096, 1e-3, 64
#: Rows, features, distance of two means in standard deviations, and rates of dgu's SGD and of SGDClassifier.
SETS = {"tall": (4096, 256, 2.0, 16.0, 0.125), "wide": (1024, 3072, 6.0, 64.0, 0.25)}
Weights = list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    runs: int = 10
    """Classifiers trained."""
    epochs: int = 30
    """Epochs of both stochastic programs."""
    rounds: int = 3
    """Times that each is measured, in turn."""
    threads: int = 2
    """Cores the process may use; jobs of scikit-learn, CPU devices of JAX."""
    quick: bool = False
    """Two runs, an eighth of the rows and features, one round: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


@dataclasses.dataclass(frozen=True)
class Data:
    """A pool of training rows, rows of the pool for each run, and test rows."""

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    def run(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Training rows and labels of one run."""
        return self.x[self.rows[number]], self.y[self.rows[number]]


def make_data(rows: int, features: int, distance: float, runs: int) -> Data:
    """Classes of unit covariance about random means, divided by the root of the number of features."""
    rng = np.random.default_rng(0)
    pool = 5 * rows // 4
    y = np.arange(pool + TEST) % CLASSES
    means = rng.standard_normal((CLASSES, features)) * distance / (2 * features) ** 0.5
    x = ((rng.standard_normal((len(y), features)) + means[y]) / features**0.5).astype(np.float32)
    own = np.stack([rng.permutation(pool)[:rows] for _ in range(runs)]).astype(np.int32)
    return Data(x[:pool], y[:pool], own, x[pool:], y[pool:])


def by_sgd(data: Data, epochs: int, rate: float) -> Weights:
    """Ours, all runs together; evaluated once, at the end."""
    count = len(data.rows)
    x, y = np.concatenate([data.x, data.test_x[:BATCH]]), np.concatenate([data.y, data.test_y[:BATCH]])
    fit = fit_classifiers(
        x, y, Runs(data.rows, np.arange(count), np.full(count, rate, np.float32)), loss="cross_entropy",
        schedule="cosine", epochs=epochs, validation=np.arange(len(data.x), len(x)), batch_size=BATCH,
        eval_interval=epochs,
    )  # fmt: skip
    return list(np.asarray(fit.final.weights))


def by_scikit(data: Data, make: Callable[[int], Any]) -> Weights:
    """One of scikit-learn's classifiers for each run, in turn."""
    return [make(number).fit(*data.run(number)).coef_.T for number in range(len(data.rows))]


def by_least_squares(data: Data) -> Weights:
    """Ours, exactly."""
    return [least_squares_classifier(*data.run(number), CLASSES, ridge=RIDGE) for number in range(len(data.rows))]


def accuracy(weights: Weights, data: Data) -> float:
    """Mean share of test rows whose largest output is that of their class."""
    return float(np.mean([((data.test_x @ w).argmax(axis=1) == data.test_y).mean() for w in weights]))


def cross_entropy(weights: Weights, data: Data) -> float:
    """Mean over runs and training rows."""
    losses = []
    for number, w in enumerate(weights):
        x, y = data.run(number)
        out = x.astype(np.float64) @ w
        losses.append(np.mean(np.logaddexp.reduce(out, axis=1) - out[np.arange(len(y)), y]))
    return float(np.mean(losses))


def centred(weights: np.ndarray) -> np.ndarray:
    """Weights less their mean over the classes, which changes no decision."""
    return weights - weights.mean(axis=1, keepdims=True)


def measure_set(config: Config, name: str) -> dict:
    """Figures of one set of data, in seconds of a run."""
    rows, features, distance, rate, peer_rate = SETS[name]
    if config.quick:
        rows, features, rate = rows // 8, features // 8, rate / 8
    data = make_data(rows, features, distance, config.runs)
    stochastic = dict(
        loss="log_loss", penalty=None, fit_intercept=False, learning_rate="invscaling", eta0=peer_rate, power_t=0.5,
        max_iter=config.epochs, tol=None, n_jobs=config.threads,
    )  # fmt: skip
    optimum = dict(C=np.inf, fit_intercept=False, max_iter=10_000)
    programs: dict[str, Callable[[], Weights]] = {
        "dgu, SGD": functools.partial(by_sgd, data, config.epochs, rate),
        "SGDClassifier": lambda: by_scikit(data, lambda run: SGDClassifier(random_state=run, **stochastic)),
        "LogisticRegression": lambda: by_scikit(data, lambda run: LogisticRegression(**optimum)),
        "dgu, least squares": functools.partial(by_least_squares, data),
        "RidgeClassifier": lambda: by_scikit(
            data, lambda run: RidgeClassifier(alpha=RIDGE * rows, fit_intercept=False)
        ),
    }
    weights: dict[str, Weights] = {}
    first = {
        program: seconds(lambda work=work, program=program: weights.update({program: work()}))[0]
        for program, work in programs.items()
    }
    losses = {program: cross_entropy(weights[program], data) for program in ("dgu, SGD", "LogisticRegression")}
    # One-hot targets are half of those of +-1, and a constant.
    apart = max(
        float(np.abs(2 * centred(ours) - centred(theirs)).max() / np.abs(theirs).max())
        for ours, theirs in zip(weights["dgu, least squares"], weights["RidgeClassifier"])
    )
    if not apart < (1e-3 if config.quick else 1e-5):
        raise SystemExit(
            f"{name}: the weights of least squares differ by {apart:.1e} of the largest: not the same work"
        )
    excess = losses["dgu, SGD"] / losses["LogisticRegression"] - 1
    if name == "tall" and not config.quick and not excess < 0.02:
        raise SystemExit(f"{name}: dgu's loss is {100 * excess:.1f} % above the optimum: not the same work")
    times = alternate(programs, config.rounds)
    pairs = {
        f"{ours} to {theirs}": (ours, theirs)
        for ours, theirs in (
            ("dgu, SGD", "SGDClassifier"),
            ("dgu, SGD", "LogisticRegression"),
            ("dgu, least squares", "RidgeClassifier"),
        )
    }
    return {
        "set": name,
        "rows": rows,
        "features": features,
        "seconds_per_run": {
            program: spread([wall / config.runs for wall, _ in values]) for program, values in times.items()
        },
        "accuracy": {program: accuracy(found, data) for program, found in weights.items()},
        "cross_entropy": losses,
        "largest_difference_of_least_squares": apart,
        "relative_throughput": relative_throughput(times, pairs),
        "relative_throughput_by_processor_time": relative_throughput(times, pairs, clock=1),
        "first_calls_with_compilation": first,
        "times": times,
    }


def print_set(result: dict) -> None:
    """A table of one set of data."""
    print(
        f"{result['set']}: {CLASSES} classes, {result['rows']:,} rows of {result['features']:,} features; weights of "
        f"least squares differ by {result['largest_difference_of_least_squares']:.1e} of the largest"
    )
    print(f"{'':22}{'s per run':>12}{'quartiles':>20}{'accuracy':>10}{'cross-entropy':>15}")
    for name, at in result["seconds_per_run"].items():
        quartiles = f"{at['quartile_low']:.4f} .. {at['quartile_high']:.4f}"
        loss = result["cross_entropy"].get(name)
        shown = "-" if loss is None else f"{loss:.4f}"
        print(f"{name:22}{at['median']:12.4f}{quartiles:>20}{result['accuracy'][name]:10.3f}{shown:>15}")
    for name, at in result["relative_throughput"].items():
        busy = result["relative_throughput_by_processor_time"][name]["median"]
        quartiles = f"{at['quartile_low']:.2f} .. {at['quartile_high']:.2f}"
        print(f"  {name:38}{at['median']:7.2f} ({quartiles}); by processor time {busy:.2f}", flush=True)


def main(config: Config) -> None:
    """Measure, print tables, write the file."""
    if config.quick:
        config = dataclasses.replace(config, runs=2, rounds=1)
    if min(config.runs, config.epochs, config.rounds, config.threads) < 1:
        raise SystemExit("runs, epochs, rounds and threads must be 1 or more")
    use_cores(config.threads)
    results = []
    for name in SETS:
        results.append(measure_set(config, name))
        print_set(results[-1])
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "results": results})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
