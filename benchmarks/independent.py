"""The headline of the universality study once more, by other hands: NumPy and scikit-learn on the images of a run.

    python -m benchmarks.independent runs/universality [--quick] [--json PATH]

Nothing of the study is used but its stored images (``samples/``) and, to be compared with, its claims: the Gaussian
mixture is ``numpy.cov`` and ``multivariate_normal`` of all images of a class, the splits are NumPy's permutations, the
classifiers are scikit-learn's ``LogisticRegression`` (C = 1, 300 iterations) and ``RidgeClassifier`` on pixels, without
any choice on validation images. Each split gives the null-corrected gap of accuracy with all classes: (images - mixture) - (mixture -
null), each arm trained and tested on its own examples, mixture and null averaged over two draws. Standard errors are
those of the mean over splits: the variation between pools is not in them.
"""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import tyro
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from benchmarks import provenance

#: Images of each class that classifiers are trained on, of the default study; the test images are all others but 60.
TRAIN, SPARED, DRAWS, GAUSSIAN_TEST = 490, 60, 2, 1000


@dataclasses.dataclass(frozen=True)
class Config:
    """What to compare with."""

    run: tyro.conf.Positional[str]
    """Directory of a finished run of the universality study."""
    splits: int = 6
    """Splits of the images."""
    seed: int = 0
    """Seed of splits and draws."""
    quick: bool = False
    """Two splits with an eighth of the images: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def images_of(run: Path) -> np.ndarray:
    """The stored images of each class as rows, (K, P, d)."""
    shards: dict[str, list[np.ndarray]] = {}
    for file in sorted((run / "samples").glob("class-*.npy")):
        shards.setdefault(file.stem.split("_")[0], []).append(np.load(file, allow_pickle=False))
    if not shards:
        raise SystemExit(f"run = {str(run)!r}: must be a finished run with images in samples/")
    classes = [np.concatenate(parts) for _, parts in sorted(shards.items())]
    return np.stack([one.reshape(len(one), -1) for one in classes]).astype(np.float64)


def drawn(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of the Gaussian with the mean and covariance of each class's rows."""
    return np.stack([rng.multivariate_normal(one.mean(axis=0), np.cov(one.T), count, method="eigh") for one in rows])


def accuracies(train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Accuracy in percent of both classifiers."""
    labels, truth = (np.repeat(np.arange(len(rows)), rows.shape[1]) for rows in (train, test))
    x, held = train.reshape(len(labels), -1), test.reshape(len(truth), -1)
    models = {"logistic regression": LogisticRegression(max_iter=300), "ridge": RidgeClassifier(alpha=1.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # It is stopped early, as all arms are.
        return {name: 100 * float(model.fit(x, labels).score(held, truth)) for name, model in models.items()}


def one_split(rows: np.ndarray, rng: np.random.Generator, shrink: int) -> dict[str, float]:
    """The null-corrected gap by each classifier."""
    train, test = TRAIN // shrink, GAUSSIAN_TEST // shrink
    order = np.stack([rng.permutation(rows.shape[1]) for _ in rows])
    mixed = np.take_along_axis(rows, order[:, :, None], axis=1)
    images = accuracies(mixed[:, :train], mixed[:, train + SPARED :])
    of_mixture, of_null = [], []
    for _ in range(DRAWS):
        mixture = drawn(rows, train + test, rng)
        null = drawn(drawn(rows, rows.shape[1], rng), train + test, rng)
        of_mixture.append(accuracies(mixture[:, :train], mixture[:, train:]))
        of_null.append(accuracies(null[:, :train], null[:, train:]))
    return {
        name: images[name]
        - 2 * float(np.mean([one[name] for one in of_mixture]))
        + float(np.mean([one[name] for one in of_null]))
        for name in images
    }


def main(config: Config) -> None:
    """Measure, print beside the claims of the run, write the file."""
    run = Path(config.run)
    rows = images_of(run)
    splits, shrink = (2, 8) if config.quick else (config.splits, 1)
    if splits < 2:
        raise SystemExit(f"splits = {splits}: must be 2 or more")
    found = [one_split(rows, np.random.default_rng([config.seed, number]), shrink) for number in range(splits)]
    results = {}
    for name in found[0]:
        values = np.asarray([one[name] for one in found])
        results[name] = {"gap": float(values.mean()), "standard_error": float(values.std(ddof=1) / np.sqrt(splits))}
        print(f"{name:22}{results[name]['gap']:+.2f} +- {results[name]['standard_error']:.2f} (standard error)")
    claims = {claim["id"]: claim for claim in json.loads((run / "claims.json").read_text())}
    for claim in ("universality-all-classes", "universality-cross-entropy"):
        if claim in claims:
            low, high = claims[claim]["interval"]
            print(f"{claim:28}{claims[claim]['value']:+.2f} [{low:+.2f}, {high:+.2f}]")
            results[claim] = {"gap": claims[claim]["value"], "interval": [low, high]}
    if config.json:
        provenance.write(config.json, {"config": dataclasses.asdict(config), "results": results})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
