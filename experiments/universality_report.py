"""Claims, figures and tables of the universality study from its stored results."""

from dataclasses import replace
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.resampling import corrected_t_interval, equivalence
from experiments.study.judged import JudgedClaim
from experiments.study.report import FigureEntry, Report, Table
from experiments.study.run_directory import RunDirectory
from experiments.universality_predictions import LINES, about_predictions, curve_tasks, predicted_lines
from experiments.universality_replicates import pool_order, sizes_per_class, two_layer_size

PAPER = "concentration"
ARMS = ("diffusion", "mixture", "null")
#: Ranks at which spectra are compared, as fractions of the number of eigenvalues.
QUANTILES = (0.25, 0.5, 0.9)
#: Ratios of eigenvalues, corrected by the null's, that count as equal.
SPECTRUM_BOUNDS = (0.8, 1.25)


def own_accuracy(results: dict[str, np.ndarray], task: str) -> np.ndarray:
    """Accuracy of every arm on its own test images, averaged over subsets: (replicates, arms, sizes)."""
    return np.einsum("raasz->raz", results[f"{task}.accuracy"]) / results[f"{task}.accuracy"].shape[3]


def largest_common_size(results: dict[str, np.ndarray], task: str) -> int:
    """Place of the largest size that every arm has images for; the smallest size where there is none."""
    return int(np.flatnonzero(np.isfinite(own_accuracy(results, task)).all((0, 1))).max(initial=0))


def gap(results: dict[str, np.ndarray], task: str, first: int = 0, second: int = 1) -> np.ndarray:
    """Difference of accuracy between two arms, each on its own test images, at the largest size: (replicates,)."""
    own = own_accuracy(results, task)
    return own[:, first, -1] - own[:, second, -1]


def compare_gaps(config: Any, gaps: np.ndarray, fresh: bool = False) -> Any:
    """Paired equivalence of two arms from the difference of accuracy of each replicate, in percentage points.

    Replicates that split one pool get the corrected resampled t; ``fresh`` ones share nothing.
    """
    sizes = config.splits
    shared: dict[str, Any] = (
        {} if fresh else {"n_train": sizes.fit + sizes.train + sizes.validation, "n_test": sizes.test}
    )
    return equivalence(
        100 * np.asarray(gaps, float),
        config.margin,
        max_standard_error=config.max_standard_error,
        bounds=(-100, 100),
        **shared,
    )


def equivalence_claim(compared: Any, **about: Any) -> JudgedClaim:
    """The claim that two arms are equivalent, from ``dgu.analysis.equivalence`` in percentage points."""
    return JudgedClaim.equivalent(
        estimate=compared.estimate,
        interval=(compared.interval.low, compared.interval.high),
        margin=compared.margin,
        standard_error=compared.standard_error,
        max_standard_error=compared.max_standard_error,
        unit="points",
        **about,
    )


def difference_claim(compared: Any, **about: Any) -> JudgedClaim:
    """The claim that two arms differ by more than the margin."""
    return JudgedClaim.different(
        estimate=compared.estimate,
        interval=(compared.interval.low, compared.interval.high),
        margin=compared.margin,
        unit="points",
        **about,
    )


def spectrum_claim(results: dict[str, np.ndarray], kind: str, about: dict[str, str], sizes: Any) -> JudgedClaim:
    """Eigenvalues of the mixture over the diffusion images', divided by the null's over the mixture's, at three ranks."""
    log = {arm: np.log(np.maximum(results[f"{kind}.{arm}"], 1e-12)) for arm in ARMS}
    corrected = (log["mixture"] - log["diffusion"]) - (log["null"] - log["mixture"])
    corrected = corrected.mean(axis=1) if kind == "covariance" else corrected
    # A mixture fitted to fewer images than pixels has no more eigenvalues in a class than images to fit it.
    ranks = min(corrected.shape[-1], sizes.fit - 1) if kind == "covariance" else corrected.shape[-1]
    parts = []
    for quantile in QUANTILES:
        values = corrected[:, round(quantile * (ranks - 1))]
        found = corrected_t_interval(values, sizes.fit + sizes.train + sizes.validation, sizes.test)
        parts.append(
            JudgedClaim.within(
                id=f"{about['id']}-{round(100 * quantile)}%",
                paper=about["paper"],
                figure=about["figure"],
                unit="",
                statement=f"the same at {quantile:.0%} of the ranks",
                value=float(np.exp(found.estimate)),
                interval=(float(np.exp(found.low)), float(np.exp(found.high))),
                low=SPECTRUM_BOUNDS[0],
                high=SPECTRUM_BOUNDS[1],
            )
        )
    return JudgedClaim.all_of(parts, **about)


def make_claims(
    config: Any, images: Any, results: dict[str, Any], positive: dict[str, Any], negative: dict
) -> list[JudgedClaim]:
    """All claims of the study; each verdict is computed from its interval."""

    def universality(task: str, **about: Any) -> JudgedClaim:
        return equivalence_claim(compare_gaps(config, gap(results, task)), paper=PAPER, **about)

    same = "trained and tested on diffusion samples and on the Gaussian mixture, differ in accuracy by less than the margin"
    subsets = [
        universality(
            f"{k}-classes", id=f"{k}-classes", figure="Fig 5", statement=f"Linear classifiers of {k} classes, {same}."
        )
        for k in config.subset_sizes
    ]
    corrected = gap(results, "all-classes") - gap(results, "all-classes", 1, 2)
    two_layer = compare_gaps(config, gap(results, "two-layer"))
    # A control's replicates are fresh samples: they share no pool.
    return [
        JudgedClaim.all_of(
            subsets,
            id="universality-subsets",
            paper=PAPER,
            figure="Fig 5",
            statement=f"Linear classifiers (softmax + MSE) of random subsets of classes, {same}.",
        ),
        universality(
            "all-classes",
            id="universality-all-classes",
            figure="Fig 5",
            statement=f"Linear classifiers (softmax + MSE) of all {len(images.class_names)} classes, {same}.",
        ),
        universality(
            "pairs",
            id="universality-pairs",
            figure="Fig 5",
            statement=f"Linear classifiers of pairs of classes (sigmoid + MSE), {same}.",
        ),
        universality(
            "cross-entropy",
            id="universality-cross-entropy",
            figure="Fig 7",
            statement=f"Linear classifiers trained on cross entropy, {same}.",
        ),
        equivalence_claim(
            compare_gaps(config, corrected),
            id="universality-null-corrected",
            paper="own",
            figure="",
            statement="The difference between diffusion and mixture is that between mixture and null: what the finite fit alone does.",
        ),
        spectrum_claim(
            results,
            "covariance",
            {
                "id": "spectrum-covariance",
                "paper": PAPER,
                "figure": "Fig 6",
                "statement": "Class covariance spectra of diffusion samples and of the mixture agree as well as those of mixture and null.",
            },
            config.splits,
        ),
        spectrum_claim(
            results,
            "gram",
            {
                "id": "spectrum-gram",
                "paper": PAPER,
                "figure": "Fig 8",
                "statement": "Gram spectra of the balanced mixture of classes agree as well as those of mixture and null.",
            },
            config.splits,
        ),
        difference_claim(
            two_layer,
            id="two-layer-breaks",
            paper="own",
            figure="",
            statement="Two-layer networks see more than two moments: their accuracies on diffusion samples and mixture differ by more than the margin.",
        ),
        equivalence_claim(
            compare_gaps(config, positive["gaps"], fresh=True),
            id="control-positive",
            paper="own",
            figure="",
            statement="Where the truth is exactly Gaussian, truth and fitted mixture are found equivalent.",
        ),
        difference_claim(
            compare_gaps(config, negative["gaps"], fresh=True),
            id="control-negative",
            paper="own",
            figure="",
            statement="Data far from Gaussian are told apart from their mixture by classifiers on quadratic features.",
        ),
    ]


def intervals(values: np.ndarray, sizes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and 95 % interval over the leading axis, for splits of a shared pool; NaN where an entry was not measured."""
    moved = np.moveaxis(np.asarray(values, float), 0, -1)
    measured = np.isfinite(moved).all(axis=-1)
    found = corrected_t_interval(
        np.where(measured[..., None], moved, 0.0), sizes.fit + sizes.train + sizes.validation, sizes.test
    )
    mean, low, high = (np.where(measured, np.asarray(part), np.nan) for part in (found.estimate, found.low, found.high))
    return mean, low, high


def curve_panel(
    results: dict[str, Any], task: str, what: str, arms: tuple[str, ...], n: np.ndarray, d: int, sizes: Any
) -> Any:
    """One panel of accuracy (%) or loss of every arm on its own test images against training size."""
    values = np.einsum("raasz->raz", results[f"{task}.{what}"]) / results[f"{task}.{what}"].shape[3]
    mean, low, high = intervals(values * (100 if what == "accuracy" else 1), sizes)
    return plots.CurvePanel(task.replace("-", " "), n, mean, low, high, arms, dimension=d)


def build(
    config: Any,
    directory: RunDirectory,
    images: Any,
    results: dict[str, Any],
    positive: dict[str, Any],
    negative: dict[str, Any],
    predicted: dict[str, np.ndarray] | None,
) -> Report:
    """Write metrics and figures and return the report; ``predicted`` as ``predictions`` returns it, None where not computed."""

    arms, sizes = pool_order(config, images), config.splits
    d, k_all = images.dimension, len(images.class_names)
    unit = "pixel" if images.features is None else "feature"
    claims = make_claims(config, images, results, positive, negative)
    counts = {f"{k}-classes": k for k in config.subset_sizes} | {
        "all-classes": k_all,
        "pairs": 2,
        "cross-entropy": k_all,
    }
    n = {task: k * np.asarray(sizes_per_class(config, k, d)) for task, k in counts.items()}
    labels = {
        "mixture": f"mixture, n_fit/d = {sizes.fit / d:.2g}",
        "null": f"null, n_fit/d = {sizes.fit / d:.2g}",
        "low rank": f"low rank, n_fit/d = {config.low_rank_fit / d:.2g}",
    }
    curves = list(curve_tasks(config))

    def learning(tasks: list[str], what: str) -> Any:
        panels = [curve_panel(results, task, what, arms, n[task], d, sizes) for task in tasks]
        if what == "accuracy":
            panels = [
                replace(panel, predictions=predicted_lines(predicted, task)) for panel, task in zip(panels, tasks)
            ]
        return plots.learning_curves(
            panels, quantity={"accuracy": "test accuracy (%)", "loss": "test loss"}[what], labels=labels
        )

    # The train x test matrix is shown at the largest size that every arm reaches.
    common = {task: largest_common_size(results, task) for task in curves}
    cross = {task: intervals(100 * results[f"{task}.accuracy"][..., common[task]].mean(-1), sizes) for task in curves}
    show = f"{config.subset_sizes[0]}-classes"
    figures = [
        (
            "samples.png",
            _grid(images, config, positive["shown"]),
            "Real images (where given), diffusion samples, and samples of the Gaussian mixture fitted to diffusion samples (where pixels "
            "are studied), a row a class.",
        ),
        (
            "accuracy_vs_n.png",
            learning(curves, "accuracy"),
            "Accuracy of linear classifiers (softmax + MSE; pairs: sigmoid + MSE) on test images of the arm that they were trained on, "
            f"against training size n (upper axis: n over {unit}s d). Bands: 95 % intervals over replicates, corrected for the pool they share. "
            + about_predictions(predicted, config, d),
        ),
        ("loss_vs_n.png", learning(curves, "loss"), "Test loss of the same classifiers."),
        (
            "accuracy_vs_n_ce.png",
            learning(["cross-entropy"], "accuracy"),
            "Accuracy of linear classifiers trained on cross entropy, all classes.",
        ),
        (
            "equivalence.png",
            _forest(claims, config.margin),
            f"Differences of accuracy with 95 % intervals; the band is the margin of {config.margin:g} points.",
        ),
        (
            "cross_matrix.png",
            plots.cross_matrix(
                cross[show][0],
                (cross[show][2] - cross[show][1]) / 2,
                arms,
                arms,
                title=f"linear, {show.replace('-', ' ')}",
            ),
            f"Accuracy of classifiers trained on one arm (rows) and tested on another (columns), {show.replace('-', ' ')}, n = {n[show][common[show]]} (the largest "
            "that every arm reaches), with half-widths of the 95 % intervals.",
        ),
        (
            "covariance_spectra.png",
            _class_spectra(images, results),
            "Covariance spectra of each class. Lower panels: eigenvalue ratios; null over mixture shows what the finite fit alone does.",
        ),
        (
            "gram_spectra.png",
            plots.spectra(
                [plots.SpectrumPanel("balanced mixture of all classes", {arm: results[f"gram.{arm}"] for arm in ARMS})],
                ratios=(("mixture", "diffusion"), ("null", "mixture")),
                quantity=f"eigenvalue (squared {unit} units)",
            ),
            f"Spectrum of the Gram matrix X X^T of {sizes.test} uncentred images of each class.",
        ),
        (
            "two_layer.png",
            _two_layer(results, config, images),
            "Accuracy differences of two-layer networks and of linear classifiers on the same classes and sizes, diffusion against mixture and mixture against null.",
        ),
        (
            "controls.png",
            plots.forest(
                ["positive: truth is Gaussian", "negative: same moments, quadratic features"],
                np.asarray([c.value for c in claims[-2:]]),
                np.asarray([c.interval for c in claims[-2:]]),
                config.margin,
                verdicts=[c.verdict for c in claims[-2:]],
                quantity="difference of test accuracy, truth - mixture (percentage points)",
            ),
            "The two controls. The positive one must lie inside the margin, the negative one outside.",
        ),
    ]
    for name, figure, _ in figures:
        directory.save_figure(f"figures/{name}", figure)

    accuracies = {task: intervals(100 * own_accuracy(results, task), sizes) for task in counts}
    directory.write_json(
        "metrics.json",
        {
            "arms": list(arms),
            "dimension": d,
            "n": {task: values.tolist() for task, values in n.items()},
            "accuracy": {task: _lists(found) for task, found in accuracies.items()},
            "cross": {task: _lists(found) for task, found in cross.items()},
            "gaps": {task: (100 * gap(results, task)).tolist() for task in (*counts, "two-layer")},
            "null_gaps": {task: (100 * gap(results, task, 1, 2)).tolist() for task in (*counts, "two-layer")},
            "predicted_accuracy": {
                task: {line: _plain((100 * (1 - predicted[f"{task}.{line}"])).tolist()) for line in LINES}
                | {"n": predicted[f"{task}.n"].tolist(), "best_ridge": predicted[f"{task}.best"].tolist()}
                for task in curves
            }
            if predicted
            else None,
            "learning_rates": {task: _counts(results[f"{task}.rate"]) for task in counts},
            "claims": {
                claim.id: {"value": claim.value, "interval": claim.interval, "verdict": claim.verdict}
                for claim in claims
            },
        },
    )
    rows = [
        (task, arm, int(n[task][z]), round(n[task][z] / d, 2), *(round(float(part[a, z]), 2) for part in found))
        for task, found in accuracies.items()
        for a, arm in enumerate(arms)
        for z in np.flatnonzero(np.isfinite(found[0][a]))[-1:]
    ]
    table = Table(
        "Accuracy (%) at the largest n of each arm", ("task", "arm", "n", "n/d", "accuracy", "low", "high"), rows
    )
    return Report(
        "Gaussian universality of diffusion samples"
        + ("" if config.features == "pixels" else f": {config.features} features"),
        _answer(claims, config, images),
        claims,
        [FigureEntry(f"figures/{name}", caption) for name, _, caption in figures],
        [table],
    )


def _answer(claims: list[JudgedClaim], config: Any, images: Any) -> str:
    by_id = {claim.id: claim for claim in claims}
    main = by_id["universality-all-classes"]
    assert main.value is not None and main.interval is not None  # Every replicate has accuracies.
    word = {"supported": "Yes", "not supported": "No", "undecided": "Undecided"}[main.verdict]
    return (
        f"{word}: with all {len(images.class_names)} classes, linear classifiers reach {abs(main.value):.2f} points {'more' if main.value > 0 else 'less'} on diffusion samples "
        f"than on the Gaussian mixture fitted to them (95 % interval of the difference {main.interval[0]:+.2f} to {main.interval[1]:+.2f}, margin {config.margin:g}); "
        f"after correction by the null, {by_id['universality-null-corrected'].value:+.2f}. Pairs: {by_id['universality-pairs'].value:+.2f}; subsets: "
        f"{by_id['universality-subsets'].value:+.2f}. Two-layer networks differ by {by_id['two-layer-breaks'].value:+.2f} points. "
        f"{config.replicates} replicates, each a new split of {config.splits.total} images a class."
    )


def _lists(found: tuple[np.ndarray, ...]) -> dict[str, list[Any]]:
    """Mean and interval as nested lists."""
    return {name: _plain(part.tolist()) for name, part in zip(("mean", "low", "high"), found)}


def _plain(value: Any) -> Any:
    """Nested lists with None where nothing was measured (JSON has no NaN)."""
    return [_plain(entry) for entry in value] if isinstance(value, list) else value if np.isfinite(value) else None


def _counts(rates: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(rates[np.isfinite(rates)], return_counts=True)
    return {f"{value:g}": int(count) for value, count in zip(values, counts)}


def _forest(claims: list[JudgedClaim], margin: float) -> Any:
    flat = [part for claim in claims[:5] for part in (claim.parts or (claim,))]
    return plots.forest(
        [part.id.removeprefix("universality-").replace("-", " ") for part in flat],
        np.asarray([part.value for part in flat]),
        np.asarray([part.interval for part in flat]),
        margin,
        verdicts=[part.verdict for part in flat],
    )


def _two_layer(results: dict[str, Any], config: Any, images: Any) -> Any:

    task = f"{config.subset_sizes[0]}-classes"
    d = images.dimension
    place = sizes_per_class(config, config.subset_sizes[0], d).index(two_layer_size(config, d))
    own = {
        "two-layer": own_accuracy(results, "two-layer")[..., 0],
        # The linear classifiers of the same classes and size: the first subset is the two-layer networks' own.
        "linear": np.einsum("raa->ra", results[f"{task}.accuracy"][:, :, :, 0, place]),
    }
    rows, found = [], []
    for name, values in own.items():
        for label, (first, second) in {"diffusion - mixture": (0, 1), "mixture - null": (1, 2)}.items():
            rows.append(f"{name}: {label}")
            found.append(compare_gaps(config, values[:, first] - values[:, second]))
    return plots.forest(
        rows,
        np.asarray([f.estimate for f in found]),
        np.asarray([(f.interval.low, f.interval.high) for f in found]),
        config.margin,
        verdicts=[f.verdict for f in found],
        quantity="difference of test accuracy (percentage points)",
    )


def _class_spectra(images: Any, results: dict[str, Any]) -> Any:
    panels = [
        plots.SpectrumPanel(name, {arm: results[f"covariance.{arm}"][:, label] for arm in ARMS})
        for label, name in enumerate(images.class_names)
    ]
    unit = "pixel" if images.features is None else "feature"
    ratios = (("mixture", "diffusion"), ("null", "mixture"))
    return plots.spectra(panels, ratios=ratios, quantity=f"eigenvalue (squared {unit} units)")


def _grid(images: Any, config: Any, shown: np.ndarray) -> Any:
    blocks = {"real": images.real, "diffusion": images.samples}
    if images.features is None:
        low, high = config.pixel_range
        gaussian = (shown - low) / (high - low) * 2 - 1
        blocks["Gaussian mixture"] = gaussian.reshape(*shown.shape[:2], *images.samples.shape[2:])
    given = {name: block[:, : shown.shape[1]] for name, block in blocks.items() if block is not None}
    return plots.image_grid(np.concatenate(list(given.values()), axis=1), images.class_names, list(given))
