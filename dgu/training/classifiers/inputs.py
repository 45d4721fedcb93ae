"""Checks and normal forms of the inputs of batched classifier training, on the host and before any work."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dgu.core.arrays import all_finite, as_jax_floats, as_labels, to_device
from dgu.core.errors import require
from dgu.core.typing import PyTree
from dgu.training.classifiers.losses import num_outputs
from dgu.training.classifiers.orders import MAX_ROWS
from dgu.training.classifiers.runs import Runs
from dgu.training.classifiers.schedules import Schedule, as_schedule
from dgu.training.classifiers.sgd import Recipe


def flat_pool(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """Features as (N, d) and labels as (N,) int32; finite, of equal length."""
    x = as_jax_floats("x", x)
    x = x.reshape(x.shape[0], -1)
    marks = as_labels("y", y)
    require(len(x) == len(marks), "y", f"{len(marks)} labels", f"as many as there are rows in x ({len(x)})")
    require(x.size > 0, "x", x.shape, "at least one row and one feature")
    # On the host, since a program of JAX would be compiled anew for each number of rows.
    finite = all_finite(np.asarray(x)) if x.is_fully_addressable else bool(jnp.isfinite(x).all())
    require(finite, "x", "non-finite values", "finite")
    return x, to_device(marks)


def row_indices(name: str, rows: ArrayLike, num_rows: int) -> np.ndarray:
    """Row indices as int32, -1 for padding, every training or evaluation set with one row at least."""
    rows = np.asarray(rows)
    require(rows.size > 0 and np.issubdtype(rows.dtype, np.integer), name, f"{rows.dtype} {rows.shape}", "row indices")
    require(rows.min() >= -1 and rows.max() < num_rows, name, f"{rows.min()} .. {rows.max()}",
            f"-1 (padding) or rows of x, 0 .. {num_rows - 1}")  # fmt: skip
    require(bool((rows >= 0).any(axis=-1).all()), name, "a set without rows", "at least one row for each run")
    return rows.astype(np.int32)


def class_lists(classes: ArrayLike | None, num_classes: int | None, y: np.ndarray, num_runs: int) -> np.ndarray:
    """(R, K) labels that each run tells apart."""
    if classes is None:
        known = int(y.max()) + 1 if num_classes is None else num_classes
        return np.broadcast_to(np.arange(known, dtype=np.int32), (num_runs, known))
    require(num_classes is None, "num_classes", num_classes, "left out when runs.classes says which classes there are")
    classes = np.asarray(classes)
    require(classes.ndim == 2 and len(classes) == num_runs, "runs.classes", classes.shape, f"({num_runs}, classes)")
    ordered = np.sort(classes, axis=1)
    require(
        bool((ordered[:, 1:] != ordered[:, :-1]).all()), "runs.classes", "a class twice", "distinct classes in each run"
    )
    return classes.astype(np.int32)


def require_members(name: str, rows: np.ndarray, y: np.ndarray, classes: np.ndarray) -> None:
    """Every row's label is one of its run's classes; ``rows`` (R, ...), ``classes`` (R, K)."""
    for run, (own, known) in enumerate(zip(rows.reshape(len(rows), -1), classes)):
        strangers = np.setdiff1d(y[own[own >= 0]], known)
        require(strangers.size == 0, name, f"rows of class {strangers[:3].tolist()} in run {run}",
                f"rows of the run's classes {known.tolist()}")  # fmt: skip


def as_runs(runs: Runs | Mapping[str, Any], x: Array, y: Array, num_classes: int | None) -> Runs:
    """Runs with every leaf checked, as NumPy arrays and with ``classes`` filled in."""
    runs = Runs(**runs) if isinstance(runs, Mapping) else runs
    labels = np.asarray(y)
    rows = row_indices("runs.rows", runs.rows, len(labels))
    require(rows.ndim == 2, "runs.rows", rows.shape, "of shape (runs, rows of the largest run)")
    require(rows.shape[1] <= MAX_ROWS, "runs.rows", rows.shape, f"at most {MAX_ROWS} rows a run")
    num_runs = len(rows)
    seed, rate = np.asarray(runs.seed), np.asarray(runs.learning_rate, x.dtype)
    integers = seed.shape == (num_runs,) and np.issubdtype(seed.dtype, np.integer)
    require(integers, "runs.seed", f"{seed.dtype} {seed.shape}", f"{num_runs} integers, one for each run")
    require(rate.shape == (num_runs,), "runs.learning_rate", rate.shape, f"{num_runs} numbers, one for each run")
    require(
        bool((np.isfinite(rate) & (rate > 0)).all()), "runs.learning_rate", rate.tolist()[:8], "positive and finite"
    )
    classes = class_lists(runs.classes, num_classes, labels, num_runs)
    require_members("runs.rows", rows, labels, classes)
    return dataclasses.replace(runs, rows=rows, seed=seed.astype(np.int32), learning_rate=rate, classes=classes)


def as_validation(validation: ArrayLike, runs: Runs, y: Array) -> np.ndarray:
    """(R, m) validation rows; one list of rows serves all runs."""
    rows = row_indices("validation", validation, len(y))
    num_runs = len(runs.seed)
    rows = np.broadcast_to(rows, (num_runs, len(rows))) if rows.ndim == 1 else rows
    require(
        rows.ndim == 2 and len(rows) == num_runs, "validation", rows.shape, f"of shape ({num_runs}, rows) or (rows,)"
    )
    require_members("validation", rows, np.asarray(y), runs.classes)
    return rows


def as_recipe(
    loss: str, schedule: str | Schedule, epochs: int, eval_interval: int, batch_size: int, momentum: float
) -> Recipe:
    """The shared recipe, checked."""
    require(epochs >= 1, "epochs", epochs, "at least 1")
    require(eval_interval >= 1, "eval_interval", eval_interval, "at least 1")
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    require(0.0 <= momentum < 1.0, "momentum", momentum, "in [0, 1)")
    return Recipe(loss, as_schedule(schedule), int(epochs), int(eval_interval), int(batch_size), float(momentum))


def prepare(
    x: ArrayLike,
    y: ArrayLike,
    runs: Runs | Mapping[str, Any],
    validation: ArrayLike,
    num_classes: int | None,
    loss: str,
) -> tuple[Array, Array, Runs, np.ndarray, int]:
    """Pool, labels, runs, validation rows and the number of outputs."""
    x, y = flat_pool(x, y)
    runs = as_runs(runs, x, y, num_classes)
    return x, y, runs, as_validation(validation, runs, y), num_outputs(loss, runs.classes.shape[1])


def leading_axis(tree: PyTree) -> int:
    """The number of models in a pytree of them."""
    return jax.tree.leaves(tree)[0].shape[0]
