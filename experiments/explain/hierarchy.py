"""A law that is far from Gaussian, with its exact denoiser: classes of the random hierarchy model are lost at a
threshold, and means and covariances tell next to nothing of them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu import analysis, plots
from dgu.core.errors import require
from dgu.core.keys import example_key, stream
from dgu.core.noisy import noisy_batch
from dgu.core.typing import Key
from dgu.models import RandomHierarchy, gaussian_mixture
from experiments.explain.subject import Subject
from experiments.study import Claim, Figure, Findings, NotTested, Options, Part, Run, Table, at_least, option
from experiments.study.progress import Progress

#: Least gap of the exact classifier's accuracy on the model and that on Gaussians with its moments.
GAP = 0.2
#: Shares of the range from certainty to chance between which the threshold lies.
_UPPER, _LOWER = 0.75, 0.25

FIGURES = (
    Figure(
        "hierarchy_kept",
        "The probability that a sample of the random hierarchy model keeps its class when it is noised to a level and "
        "drawn anew from its exact posterior, by the depth of the tree; mean over models with 95 % intervals.",
    ),
    Figure(
        "hierarchy_accuracy",
        "Accuracy of the best classifier of noisy samples: of the random hierarchy model by belief propagation, of "
        "Gaussians with the means and covariances of its classes by Bayes' rule, and of that rule on the model's "
        "samples; mean over models with 95 % intervals.",
    ),
)
CLAIMS = (
    Claim(
        "hierarchy-threshold",
        "The class of a sample of the random hierarchy model is lost at a threshold, the sharper the deeper the tree "
        "(value: the octaves of noise in which the probability of keeping it falls from three quarters to one quarter "
        "of its range, in the shallowest tree less those in the deepest, mean over models).",
        at_least(0.0),
    ),
    Claim(
        "hierarchy-universality",
        "A control that Gaussian universality must fail: the best classifier of noisy samples of the deepest random "
        f"hierarchy model is right more often, by {GAP:g} or more, than the best classifier of Gaussians with the "
        "means and covariances of its classes is on these (value: the difference of accuracies, mean over models).",
        at_least(GAP),
    ),
)


@dataclass(frozen=True)
class Config(Options, prefix="hierarchy"):
    """Random hierarchy models and their exact denoisers."""

    depths: tuple[int, ...] = option((1, 2, 4), ge=1, le=8)
    """Depths of the trees, rising; each node has two children."""
    symbols: int = option(4, ge=2, le=16)
    """Symbols, and classes."""
    rules: int = option(3, ge=1)
    """Rules of each symbol, at most as many as there are symbols."""
    models: int = option(6, ge=3)
    """Models, with rules of their own."""
    draws: int = option(1000, ge=16)
    """Samples of each model."""
    fitted: int = option(4000, ge=16)
    """Samples to which the Gaussians of the classes are fitted."""
    sigma: float = option(0.3, gt=0.0)
    """Noise level of the classifiers."""
    levels: int = option(14, ge=4)
    """Noise levels, from 0.1 to 4 in equal ratios."""

    def check(self) -> None:
        """Depths rise; no more rules than symbols, so that no two symbols share one."""
        rising = len(self.depths) >= 2 and list(self.depths) == sorted(set(self.depths))
        require(rising, self.name("depths"), self.depths, "two or more, rising")
        require(len(self.depths) <= 7, self.name("depths"), self.depths, "at most seven")
        require(
            self.rules <= self.symbols, self.name("rules"), self.rules, f"at most hierarchy.symbols = {self.symbols}"
        )


PRESETS = {
    "smoke": Config(depths=(1, 2), symbols=3, rules=2, models=3, draws=32, fitted=64, levels=6),
    "default": Config(),
    "paper": Config(depths=(1, 2, 3, 4, 5, 6), models=20, draws=4000, fitted=20_000),
}


def _sigmas(config: Config) -> np.ndarray:
    return np.geomspace(0.1, 4.0, config.levels)


def measure(config: Config, subject: Subject, run: Run) -> dict[int, dict[str, np.ndarray]]:
    """By depth: ``kept`` (models, levels) and ``accuracy`` (models, 3)."""
    found = {}
    with Progress("random hierarchies", total=len(config.depths) * config.models, unit="models") as bar:
        for depth in config.depths:
            found[depth] = run.stage(f"depth-{depth}", of_depth, config, depth, run.key, bar)
    return found


def of_depth(config: Config, depth: int, key: Key, bar: Progress) -> dict[str, np.ndarray]:
    """Probabilities of keeping the class, and accuracies, of the models of one depth."""
    kept, accuracy = [], []
    for model in range(config.models):
        own = stream(key, "model", model)
        law = RandomHierarchy.random(own, depth=depth, symbols=config.symbols, rules=config.rules)
        kept.append(analysis.class_kept(law, _sigmas(config), stream(own, "kept"), draws=config.draws).value)
        accuracy.append(accuracies(config, law, stream(own, "classes", depth)))
        bar.update(1)
    return {"kept": np.stack(kept), "accuracy": np.array(accuracy)}


def accuracies(config: Config, law: RandomHierarchy, key: Key) -> tuple[float, float, float]:
    """Of belief propagation on the model, of Bayes' rule on Gaussians with its moments, of that rule on the model."""
    symbols = config.symbols
    fitted, marks = drawn(law, stream(key, "fitted"), config.fitted)
    rows = fitted.reshape(len(fitted), -1).astype(np.float64)
    parts = [rows[marks == mark] for mark in range(symbols)]
    means = np.stack([part.mean(axis=0) for part in parts])
    # One-hot codes have no variance in some directions: the noise is made part of the Gaussians.
    noise = config.sigma**2 * np.eye(rows.shape[1])
    covariances = np.stack([np.cov(part, rowvar=False, ddof=0) + noise for part in parts])
    rule = gaussian_mixture(np.full(symbols, 1 / symbols), means.astype(np.float32), covariances)
    clean, labels = drawn(law, stream(key, "tested"), config.draws)
    noisy = np.asarray(noisy_batch(stream(key, "noise"), clean, np.float32(config.sigma)))
    by_propagation = classified(law, noisy, config.sigma)
    by_rule = classified(rule, noisy.reshape(len(noisy), -1), 0.0)
    gaussian, truth = drawn(rule, stream(key, "gaussian"), config.draws)
    on_gaussian = classified(rule, gaussian, 0.0)
    right = (np.mean(by_propagation == labels), np.mean(on_gaussian == truth), np.mean(by_rule == labels))
    return tuple(map(float, right))  # type: ignore[return-value]


def drawn(law: Any, key: Key, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws of a law and their classes."""
    rows, labels = _drawn(law, key, count=count)
    return np.asarray(rows), np.asarray(labels)


@partial(jax.jit, static_argnames="count")
def _drawn(law: Any, key: Key, *, count: int) -> tuple[Any, Any]:
    keys = jax.vmap(lambda number: example_key(key, number))(jnp.arange(count))
    return jax.vmap(law.draw)(keys), jax.vmap(law.draw_label)(keys)


def classified(law: Any, rows: np.ndarray, sigma: float) -> np.ndarray:
    """The most probable class of noisy rows."""
    return np.asarray(_classified(law, rows, np.asarray(sigma, rows.dtype)))


@jax.jit
def _classified(law: Any, rows: Any, sigma: Any) -> Any:
    return jnp.argmax(jax.vmap(law.responsibilities, (0, None))(rows, sigma), axis=1)


def widths(config: Config, kept: np.ndarray) -> np.ndarray:
    """Octaves of noise in which each model's probability of keeping the class falls through its range, (models,)."""
    chance, sigmas = 1 / config.symbols, _sigmas(config)
    ends = [chance + share * (1 - chance) for share in (_LOWER, _UPPER)]
    crossings = np.array([[analysis.crossing_level(sigmas, own, end) for end in ends] for own in kept])
    return np.asarray(np.log2(crossings[:, 0] / crossings[:, 1]))


def report(config: Config, subject: Subject, found: dict[int, dict[str, np.ndarray]]) -> Findings:
    """Thresholds and accuracies by depth."""
    by_depth = {depth: widths(config, own["kept"]) for depth, own in found.items()}
    shallow, deep = by_depth[config.depths[0]], by_depth[config.depths[-1]]
    last = found[config.depths[-1]]["accuracy"]
    curves = {f"depth {depth}": analysis.t_interval(own["kept"].T, bounds=(0, 1)) for depth, own in found.items()}
    names = ("model, belief propagation", "Gaussians, Bayes' rule", "model, the Gaussians' rule")
    series = {
        name: list(analysis.t_interval(np.stack([own["accuracy"][:, place] for own in found.values()]), bounds=(0, 1)))
        for place, name in enumerate(names)
    }
    known = bool(np.isfinite(shallow).all() and np.isfinite(deep).all())
    mean = {depth: float(own.mean()) for depth, own in by_depth.items() if np.isfinite(own).all()}
    rows = [(depth, mean.get(depth, "unknown"), *own["accuracy"].mean(axis=0).tolist()) for depth, own in found.items()]
    threshold = " and ".join(f"{width:.2f} octaves of noise wide at depth {depth}" for depth, width in mean.items())
    return Findings(
        f"In trees of depth {config.depths[-1]} noisy samples tell their class to belief propagation in "
        f"{100 * last[:, 0].mean():.0f} % of cases, where Gaussians with the same means and covariances tell theirs "
        f"in {100 * last[:, 1].mean():.0f} % (chance: {100 / config.symbols:.0f} %). The threshold at which the class "
        f"is lost is {threshold or 'outside the levels studied'}.",
        claims={
            "hierarchy-threshold": analysis.t_interval(shallow - deep)
            if known
            else NotTested("a probability does not fall through its range within the levels studied"),
            "hierarchy-universality": analysis.t_interval(last[:, 0] - last[:, 1], bounds=(-1, 1)),
        },
        figures={
            "hierarchy_kept": (
                plots.level_curves(
                    [plots.LevelPanel("random hierarchy models", "probability of the same class", _sigmas(config),
                                      curves, marks={"chance": 1 / config.symbols})]
                ),
                f"{config.models} models of {config.symbols} symbols with {config.rules} rules each.",
            ),
            "hierarchy_accuracy": (
                plots.interval_dots([f"depth {depth}" for depth in found], series, quantity="accuracy",
                                    marks={"chance": 1 / config.symbols}),
                f"Noise level {config.sigma:g}.",
            ),
        },
        tables=[
            Table("Threshold and accuracies, mean over models", ("depth", "width of threshold (octaves)", *names), rows)
        ],
        metrics={"width": {str(depth): width for depth, width in mean.items()}},
    )  # fmt: skip


PART = Part(
    "hierarchy", "A law far from Gaussian",
    "When is the class of a random hierarchy lost, and what do means and covariances tell of it?",
    "own", CLAIMS, FIGURES, measure, report, PRESETS,
)  # fmt: skip
