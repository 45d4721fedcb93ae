"""Arms of a universality comparison, and classifiers that are trained on each of them and tested on all.

An arm is a source of labelled images: the diffusion samples; the Gaussian mixture fitted to some of them; the *null*, a
mixture fitted again, with the same number of images, to samples of the mixture, which shows what the finite fit alone
does; or real images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.analysis.universality.recipe import Recipe
from dgu.core.arrays import as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.parallel import on_one_device, run_jobs, shares
from dgu.core.typing import Key
from dgu.distributions.class_gaussians import class_keys, draw_gaussian, fit_gaussian
from dgu.training import classifiers

PARTS = ("train", "validation", "test")


@partial(jax.jit, static_argnames="count")
def _gaussian_arms(rows: Array, keys: dict[str, Array], *, count: int) -> dict[str, Array]:
    fit, draw = jax.vmap(fit_gaussian), jax.vmap(draw_gaussian, in_axes=(0, 0, None))
    indices = jnp.arange(count)
    mixture = fit(rows)
    again = draw(mixture, keys["refit"], jnp.arange(rows.shape[1]))
    return {"mixture": draw(mixture, keys["mixture"], indices), "null": draw(fit(again), keys["null"], indices)}


@partial(jax.jit, static_argnames="count")
def _gaussian_arm(rows: Array, keys: Array, *, count: int) -> Array:
    return jax.vmap(draw_gaussian, in_axes=(0, 0, None))(jax.vmap(fit_gaussian)(rows), keys, jnp.arange(count))


def gaussian_arms(
    rows: Num[ArrayLike, "classes n d"], key: Key, count: int, *, low_rank: int = 0
) -> dict[str, Float[Array, "classes count d"]]:
    """``count`` samples per class of the Gaussian mixture fitted to ``rows``, and of its null. Classes are spread over
    all devices and hosts, those of one device in one program.

    Args:
        rows: (K, n, d) images of each class that the mixture is fitted to.
        key: every arm and class draws from a stream of its own under it.
        count: samples per class and arm.
        low_rank: also give an arm ``"low rank"``, the mixture fitted to only so many of the rows; 0 leaves it out.

    Returns:
        In this order ``"mixture"``; ``"null"``, fitted with the same n to samples of the mixture (other samples than
        those returned); and ``"low rank"`` if asked for.
    """
    key = threefry(key)
    rows = as_jax_floats("rows", on_one_device(rows))
    check_squares(rows=rows)
    require(low_rank == 0 or 2 <= low_rank <= rows.shape[1], "low_rank", low_rank, f"0, or from 2 to {rows.shape[1]}")
    names = ("mixture", "refit", "null", "low rank")
    classes = range(rows.shape[0])
    keys = {name: class_keys(stream(key, name), len(classes)) for name in names}
    groups = shares(len(classes))

    def one(_: None, number: int) -> dict[str, Array]:
        few, own = rows[groups[number]], {name: keys[name][groups[number]] for name in names}
        drawn = _gaussian_arms(few, own, count=count)
        return drawn | (
            {"low rank": _gaussian_arm(few[:, :low_rank], own["low rank"], count=count)} if low_rank else {}
        )

    found = list(run_jobs(one, len(groups), what="group of classes"))
    # A compiled function sorts the keys of a dict; arms have an order of their own.
    return {name: jnp.concatenate([drawn[name] for drawn in found]) for name in names if name in found[0]}


@short_repr
@dataclass(frozen=True)
class Pool:
    """The images of all arms of one replicate as one matrix.

    Attributes:
        x: (N, d) float32.
        y: (N,) labels 0 .. K - 1.
        rows: by arm and part, (K, n) rows of ``x`` class by class.
    """

    x: np.ndarray
    y: np.ndarray
    rows: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in order."""
        return tuple(self.rows)

    def only(self, arms: Sequence[str]) -> "Pool":
        """The pool of these arms alone."""
        return Pool(self.x, self.y, {arm: self.rows[arm] for arm in arms})


def assemble(arms: Mapping[str, Mapping[str, Float[Any, "classes n d"]]]) -> Pool:
    """A ``Pool`` from the images ``arms[arm][part]`` of shape (K, n, d), for the parts train, validation and test."""
    xs, ys, start = [], [], 0
    rows: dict[str, dict[str, np.ndarray]] = {}
    for arm, parts in arms.items():
        rows[arm] = {}
        for part in PARTS:
            images = np.asarray(parts[part])
            k, n, d = images.shape
            xs.append(images.reshape(k * n, d))
            ys.append(np.repeat(np.arange(k, dtype=np.int32), n))
            rows[arm][part] = start + np.arange(k * n).reshape(k, n)
            start += k * n
    return Pool(np.concatenate(xs), np.concatenate(ys), rows)


def cut_parts(
    images: Num[ArrayLike, "classes n d"], sizes: Mapping[str, int]
) -> dict[str, Num[np.ndarray, "classes part d"]]:
    """The first images of each class cut into the parts train, validation and test of the given ``sizes``, one after
    the other.

    Raises:
        InputError: fewer images than the parts need.
    """
    given, ends = np.asarray(images), np.cumsum([sizes[part] for part in PARTS])
    require(given.shape[1] >= ends[-1], "images of each class", given.shape[1], f"at least {ends[-1]}")
    return {part: given[:, end - sizes[part] : end] for part, end in zip(PARTS, ends)}


@short_repr
@dataclass(frozen=True)
class Task:
    """One classification problem.

    Attributes:
        name: its name in results.
        classes: (S, K) subsets of classes to tell apart.
        per_class: training images per class at each size, increasing.
        loss: name of a loss of ``fit_classifiers``.
        two_layer: a two-layer network in place of the linear classifier.
    """

    name: str
    classes: np.ndarray
    per_class: tuple[int, ...]
    loss: str
    two_layer: bool = False


def train_and_test(pool: Pool, task: Task, recipe: Recipe, seed: int, *, cross: bool = True) -> dict[str, np.ndarray]:
    """Train classifiers on every arm at every size and test each on every arm, as one compiled program a task.

    All arms of a (subset, size) share their initial weights and the order in which examples are visited, so differences
    between arms are paired. Learning rate and stopping epoch are chosen on the validation images of the *training* arm;
    no test images are used.

    Args:
        pool: images of all arms.
        task: the problem.
        recipe: the training.
        seed: the order and the initial weights depend on it and on the numbers of the subset and of the size.
        cross: test on every arm; otherwise on the arm's own test images alone.

    Returns:
        ``accuracy`` and ``loss`` (train arm, test arm, subset, size), without the second axis where ``cross`` is
        False; ``rate`` and ``epoch`` (train arm, subset, size); NaN where an arm has too few images for the size.
    """
    arms, subsets, sizes, rates = pool.arms, len(task.classes), task.per_class, recipe.learning_rates
    shape = (len(arms), subsets, len(sizes))
    plan = [place for place in np.ndindex(*shape) if pool.rows[arms[place[0]]]["train"].shape[1] >= sizes[place[2]]]
    k = task.classes.shape[1]

    def chosen(arm: str, part: str, subset: int, n: int | None = None) -> np.ndarray:
        return pool.rows[arm][part][task.classes[subset], :n].reshape(-1)

    train = _padded([chosen(arms[a], "train", s, sizes[z]) for a, s, z in plan], k * max(sizes))
    widest = {part: k * max(pool.rows[arm][part].shape[1] for arm in arms) for part in ("validation", "test")}
    held = _padded([chosen(arms[a], "validation", s) for a, s, _ in plan], widest["validation"])
    tested = {a: arms if cross else arms[a : a + 1] for a in range(len(arms))}
    tests = np.stack([_padded([chosen(arm, "test", s) for arm in tested[a]], widest["test"]) for a, s, _ in plan])
    seeds = np.asarray([(seed * 10_007 + s * 101 + z) % 2**31 for _, s, z in plan], np.int32)
    classes = task.classes[[s for _, s, _ in plan]].astype(np.int32)

    def each_rate(a: np.ndarray) -> np.ndarray:
        return np.repeat(a, len(rates), axis=0)

    runs = classifiers.Runs(
        rows=each_rate(train),
        seed=each_rate(seeds),
        learning_rate=np.tile(np.asarray(rates, np.float32), len(plan)),
        classes=each_rate(classes),
    )
    common: dict[str, Any] = {
        "loss": task.loss,
        "schedule": classifiers.Schedule(recipe.schedule, recipe.period, recipe.eta_min),
        "epochs": recipe.epochs,
        "validation": each_rate(held),
        "batch_size": recipe.batch_size,
        "momentum": recipe.momentum,
        "eval_interval": recipe.eval_interval,
    }
    x = as_jax_floats("x", pool.x)  # Once for the training and the test.
    if task.two_layer:
        fit = classifiers.fit_two_layer(x, pool.y, runs, width=recipe.width, **common)
    else:
        # Overlapping random subsets use another number of rows in each replicate: a Gram matrix would be compiled anew.
        method = "auto" if subsets == 1 else "weight"
        fit = classifiers.fit_classifiers(x, pool.y, runs, method=method, bias=recipe.bias, init=recipe.init, **common)
    _, selected = classifiers.choose_learning_rate(fit, np.repeat(np.arange(len(plan)), len(rates)))
    best = np.flatnonzero(selected)
    # Taken on the host: on the device it would be a program for each shape.
    model = jax.tree.map(lambda leaf: np.asarray(leaf)[best], fit.model)
    accuracy, loss = classifiers.evaluate(model, x, pool.y, tests, loss=task.loss, classes=classes)

    results = {
        "accuracy": np.full((*shape, tests.shape[1]), np.nan, np.float32),
        "loss": np.full((*shape, tests.shape[1]), np.nan, np.float32),
        "rate": np.full(shape, np.nan, np.float32),
        "epoch": np.full(shape, np.nan, np.float32),
    }
    where = tuple(np.asarray(plan).T)
    for name, values in (("accuracy", accuracy), ("loss", loss)):
        results[name][where] = np.asarray(values)
        results[name] = np.moveaxis(results[name], -1, 1) if cross else results[name][..., 0]
    results["rate"][where] = np.asarray(fit.learning_rate)[best]
    results["epoch"][where] = np.asarray(fit.chosen_epoch)[best]
    return results


def _padded(rows: Sequence[np.ndarray], width: int) -> Int[np.ndarray, "runs width"]:
    """Rows of different lengths as one array, -1 behind the last."""
    out = np.full((len(rows), width), -1, np.int32)
    for target, row in zip(out, rows):
        target[: len(row)] = row
    return out
