"""Many linear classifiers as one compiled program: seeds, training sizes, learning rates, class subsets, arms."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require
from dgu.core.typing import PyTree
from dgu.training.classifiers.choices import INITS
from dgu.training.classifiers.gram import GramSpace, gram_is_cheaper, gram_layout
from dgu.training.classifiers.inputs import (
    as_recipe,
    class_lists,
    flat_pool,
    leading_axis,
    prepare,
    require_members,
    row_indices,
)
from dgu.training.classifiers.linear import LinearSpace
from dgu.training.classifiers.losses import num_outputs, predicted_labels
from dgu.training.classifiers.measure import local_labels, measure, num_blocks
from dgu.training.classifiers.runs import Fit, Runs
from dgu.training.classifiers.schedules import Schedule
from dgu.training.classifiers.sgd import default_chunk, fit_runs

METHODS = ("auto", "weight", "gram")


def fit_classifiers(
    x: Num[ArrayLike, " n *event"],
    y: Integer[ArrayLike, " n"],
    runs: Runs | Mapping[str, Any],
    *,
    loss: str,
    schedule: str | Schedule,
    epochs: int,
    validation: Integer[ArrayLike, "*runs m"],
    method: str = "auto",
    batch_size: int = 64,
    momentum: float = 0.0,
    bias: bool = False,
    init: str = "zeros",
    num_classes: int | None = None,
    eval_interval: int = 5,
    chunk: int | None = None,
) -> Fit:
    """Train R linear classifiers by minibatch SGD; the stopping epoch of each is chosen on its validation rows.

    One compiled program trains all runs. The order of the data is ``epoch_order(seed, epoch, rows >= 0)``, so a run
    does not depend, up to rounding, on the other runs, on the padding of its rows or on the number of devices. The
    models are evaluated after every ``eval_interval`` epochs and after the last; the lowest validation loss decides,
    the earliest of equals.

    Args:
        x: pool of N examples, images or vectors; float32, or float64 under x64.
        y: labels, 0 or more.
        runs: ``Runs``, or a mapping with its fields.
        loss: ``"softmax_mse"``, ``"logit_mse"``, ``"cross_entropy"``, or ``"sigmoid_mse"`` (two classes, one column).
        schedule: a ``Schedule``, or the name of one that needs no numbers.
        epochs: passes over the training rows.
        validation: (R, m) rows of the pool, -1 for padding, or (m,) for all runs. They should be neither training rows
            nor test rows, which the caller has to ensure.
        method: ``"weight"``; ``"gram"``, the same iterates through the Gram matrix; ``"auto"``, the cheaper one by
            the rule of ``dgu.training.classifiers.gram.gram_is_cheaper``.
        batch_size: rows a step; the last batch of an epoch may be smaller.
        momentum: momentum as in PyTorch's SGD, without dampening.
        bias: whether the classifiers have a bias, initialised as ``init`` says.
        init: ``"zeros"``, or ``"torch"``: uniform in +-1 / sqrt(d), from the run's seed; ``runs.initial`` overrides.
        num_classes: K if ``runs.classes`` is None; by default the largest label plus one.
        eval_interval: epochs between evaluations.
        chunk: runs trained at the same time on a device; by default what fits a cache. Memory grows with it.

    Returns:
        ``Fit`` with ``weights`` (R, d, K), ``bias``, ``chosen_epoch`` and curves.

    Raises:
        InputError: anything out of its range, a row outside of the pool, a label that is not among the run's classes.
    """
    recipe = as_recipe(loss, schedule, epochs, eval_interval, batch_size, momentum)
    require(method in METHODS, "method", method, f"one of {', '.join(METHODS)}")
    require(init in INITS, "init", init, f"one of {', '.join(INITS)}")
    require(chunk is None or chunk >= 1, "chunk", chunk, "at least 1")
    x, y, runs, validation, outputs = prepare(x, y, runs, validation, num_classes, loss)
    if runs.initial is not None:
        wanted = (len(runs.seed), x.shape[1], outputs)
        require(runs.initial.shape == wanted, "runs.initial", runs.initial.shape, f"of shape {wanted}")

    used, place, num_train = gram_layout(runs.rows, validation, len(jax.local_devices()))
    counts = np.sum(runs.rows >= 0, axis=1)
    cheaper = gram_is_cheaper(counts, len(used), num_train, x.shape[1], outputs, recipe.epochs)
    sizes = runs.rows.shape[1], validation.shape[1], x.shape[1], recipe.batch_size
    if method == "weight" or (method == "auto" and not cheaper):
        space: LinearSpace | GramSpace = LinearSpace(outputs, bias, init)
        pool: PyTree = x
        labels = y
    else:
        space = GramSpace(outputs, bias, init, num_train)
        pool, labels = (x, used), np.asarray(y)[used]
        runs = Runs(place[runs.rows], runs.seed, runs.learning_rate, runs.classes, runs.initial)
        validation = place[validation]
    chunk = default_chunk(space.elements(*sizes), len(runs.seed)) if chunk is None else chunk
    return fit_runs(space, recipe, pool, labels, runs, validation, chunk=chunk)


@partial(jax.jit, static_argnames=("loss", "chunk"))
def _evaluate(model: PyTree, x: Array, y: Array, rows: Array, classes: Array, *, loss: str, chunk: int) -> PyTree:
    blocks = num_blocks(jnp.where(rows >= 0, 0, -1))

    def one_set(model: PyTree, rows: Array, labels: Array) -> tuple[Array, Array]:
        return measure(lambda at: x[jnp.maximum(rows[at], 0)], model, labels, loss, blocks)

    def one_run(args: PyTree) -> tuple[Array, Array]:
        model, rows, classes = args
        labels = jax.vmap(lambda own: local_labels(y, own, classes))(rows)
        return jax.vmap(one_set, in_axes=(None, 0, 0))(model, rows, labels)

    return jax.lax.map(one_run, (model, rows, classes), batch_size=chunk)


def evaluate(
    model: PyTree,
    x: Num[ArrayLike, " n *event"],
    y: Integer[ArrayLike, " n"],
    rows: Integer[ArrayLike, "runs *sets m"],
    *,
    loss: str,
    classes: Integer[ArrayLike, "runs k"] | None = None,
    num_classes: int | None = None,
    chunk: int = 16,
) -> tuple[Float[Array, " runs *sets"], Float[Array, " runs *sets"]]:
    """Accuracy and mean loss of R classifiers, each on its own rows, or on several sets of rows (train x test matrix).

    Args:
        model: classifiers with a leading axis R, as ``Fit.model``: any callable pytree from features to outputs.
        x, y: a pool, not necessarily that of the training.
        rows: (R, m) rows of the pool, or (R, S, m) for S sets; -1 for padding.
        loss: name of the loss, which also says how outputs become a class.
        classes: (R, K), as in ``Runs``.
        num_classes: K where ``classes`` is None; by default the largest label plus one.
        chunk: runs at a time.

    Returns:
        ``(accuracy, loss)``, both (R,) or (R, S).

    Raises:
        InputError: as ``fit_classifiers``.
    """
    x, y = flat_pool(x, y)
    rows = row_indices("rows", rows, len(y))
    num_runs = leading_axis(model)
    require(
        rows.ndim in (2, 3) and len(rows) == num_runs, "rows", rows.shape, f"({num_runs}, m) or ({num_runs}, sets, m)"
    )
    require(chunk >= 1, "chunk", chunk, "at least 1")
    known = class_lists(classes, num_classes, np.asarray(y), num_runs)
    num_outputs(loss, known.shape[1])
    require_members("rows", rows, np.asarray(y), known)
    sets = rows.reshape(num_runs, -1, rows.shape[-1])
    mean_loss, accuracy = _evaluate(model, x, y, sets, known, loss=loss, chunk=min(chunk, num_runs))
    return accuracy.reshape(rows.shape[:-1]), mean_loss.reshape(rows.shape[:-1])


@partial(jax.jit, static_argnames=("loss",))
def _predict(model: PyTree, x: Array, *, loss: str) -> Array:
    return jax.vmap(lambda one: predicted_labels(loss, one(x)))(model)


def predict(model: PyTree, x: Num[ArrayLike, " n *event"], *, loss: str) -> Int[Array, "runs n"]:
    """Predicted class (the position in the run's classes) of every example by each of R classifiers."""
    x = as_jax_floats("x", x)
    return _predict(model, x.reshape(x.shape[0], -1), loss=loss)


def choose_learning_rate(fit: Fit, groups: Integer[ArrayLike, " runs"]) -> tuple[np.ndarray, np.ndarray]:
    """The learning rate of each group of runs, chosen on validation.

    Runs of one group differ in learning rate (and seed). A rate's score is the mean, over its runs in the group, of the
    validation loss at the chosen epoch; the lowest wins, the smaller rate among equals. A rate with a run that never
    had a finite validation loss is excluded.

    Args:
        fit: the result of ``fit_classifiers`` or ``fit_two_layer``.
        groups: (R,) group of each run.

    Returns:
        ``(rates, selected)``: the rate of each group in the order of ``np.unique(groups)``, and (R,) booleans that mark
        the runs trained at their group's rate.

    Raises:
        InputError: ``groups`` of another length, or a group in which no rate ever gave finite losses.
    """
    groups = np.asarray(groups)
    rates = np.asarray(fit.learning_rate)
    require(groups.shape == rates.shape, "groups", groups.shape, f"of shape {rates.shape}, one for each run")
    curves = np.asarray(fit.validation_loss)
    lowest = np.where(np.isfinite(curves), curves, np.inf).min(axis=1)
    best = []
    for group in np.unique(groups):
        candidates = np.unique(rates[groups == group])
        scores = [lowest[(groups == group) & (rates == rate)].mean() for rate in candidates]
        require(bool(np.isfinite(scores).any()), "runs.learning_rate", candidates.tolist(),
                f"small enough for group {group}, in which every rate diverged")  # fmt: skip
        best.append(candidates[int(np.argmin(scores))])
    chosen = np.asarray(best)
    return chosen, rates == chosen[np.searchsorted(np.unique(groups), groups)]
