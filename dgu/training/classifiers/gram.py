"""Linear classifiers trained through their Gram matrix: the same iterates as in weight space.

SGD moves the weights by combinations of training rows only: ``W = W0 + X^T A`` with ``A`` (n, K). The outputs on
training rows are then ``G A + X W0`` with ``G = X X^T``, and a step adds ``-lr`` times the loss's derivative to the
batch's rows of ``A``; momentum and bias go along. A step costs B n K instead of 2 B d K, so this pays when n < 2 d,
once ``G`` is there: it is formed once for all the runs that share a pool.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from dgu.core.parallel import batch_sharding
from dgu.core.typing import PyTree
from dgu.training.classifiers.linear import LinearClassifier, add_bias, initial_params
from dgu.training.classifiers.runs import Runs
from dgu.training.classifiers.sgd import Space

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
#: A Gram matrix of more elements than this (4 GB in float32) is never chosen by ``method="auto"``.
MAX_KERNEL = 2**30


@dataclasses.dataclass(frozen=True)
class GramSpace(Space):
    """Coefficients of the training rows. The pool is ``(x, used)``: rows of x, the ``num_train`` trained on first."""

    num_outputs: int
    bias: bool
    init: str
    num_train: int

    def share(self, pool: PyTree, mesh: Mesh) -> PyTree:
        """The used rows and their inner products with the training rows, each device making its part."""
        x, used = pool
        rows = x[used]
        part = jax.lax.with_sharding_constraint(rows, batch_sharding(mesh))
        return rows, _dot(part, rows[: self.num_train].T)

    def prepare(self, shared: PyTree, run: Runs, validation: Array) -> tuple[PyTree, PyTree, PyTree]:
        """Zero coefficients; the designs are the run's own Gram blocks and the outputs of its initial weights."""
        rows, kernel = shared
        initial = initial_params(run, rows.shape[1], self.num_outputs, self.bias, self.init, rows.dtype)
        params = {**initial, "weights": jnp.zeros((run.rows.shape[0], self.num_outputs), rows.dtype)}
        if run.initial is None and self.init == "zeros":
            start = jnp.zeros((rows.shape[0], self.num_outputs), rows.dtype)
        else:
            start = _dot(rows, initial["weights"].T)
        train, held = ((kernel[at][:, run.rows], start[at]) for at in (run.rows, validation))
        return params, train, held

    def fetch(self, shared: PyTree, design: PyTree, positions: Array) -> PyTree:
        """(B, n) rows of the Gram block and (B, K) initial outputs."""
        return design[0][positions], design[1][positions]

    def outputs(self, params: PyTree, features: PyTree) -> Array:
        """``G A + X W0 + b``."""
        return add_bias(_dot(features[0], params["weights"]) + features[1], params)

    def gradient(self, params: PyTree, features: PyTree, positions: Array, cotangent: Array) -> PyTree:
        """Coefficients of the weights' gradient ``X_b^T cotangent`` (padded rows have cotangent 0)."""
        grads = {"weights": jnp.zeros_like(params["weights"]).at[positions].add(cotangent)}
        if self.bias:
            grads["bias"] = jnp.sum(cotangent, axis=0)
        return grads

    def finish(self, shared: PyTree, run: Runs, params: PyTree) -> PyTree:
        """``W0 + X^T A``."""
        train = shared[0][: self.num_train]
        initial = initial_params(run, train.shape[1], self.num_outputs, self.bias, self.init, train.dtype)["weights"]
        spread = jnp.zeros((self.num_train, self.num_outputs), train.dtype).at[run.rows].add(params["weights"])
        return LinearClassifier(initial.T + _dot(train.T, spread), params.get("bias"))

    def elements(self, num_train: int, num_validation: int, num_features: int, batch_size: int) -> int:
        """The Gram blocks of training and validation rows."""
        return (num_train + num_validation) * num_train


def gram_layout(rows: np.ndarray, validation: np.ndarray, multiple: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Which rows of the pool a Gram matrix needs: training rows first, then other validation rows.

    Args:
        rows, validation: row indices, -1 for padding.
        multiple: the number of used rows is filled up (with row 0 of the pool) to a multiple of this.

    Returns:
        ``used`` rows; ``place`` of each row of the pool among them, with -1 for padding at the end (so that
        ``place[-1] == -1``); the number of training rows.
    """
    train = np.unique(rows[rows >= 0])
    others = np.setdiff1d(validation[validation >= 0], train)
    used = np.concatenate([train, others])
    place = np.full(int(max(rows.max(), validation.max())) + 2, -1, np.int32)
    place[used] = np.arange(len(used), dtype=np.int32)
    return np.pad(used, (0, -len(used) % multiple)).astype(np.int32), place, len(train)


def gram_is_cheaper(counts: np.ndarray, used: int, train: int, num_features: int, outputs: int, epochs: int) -> bool:
    """Whether the Gram path is the cheaper one by a margin: the rule of ``method="auto"``.

    Multiplications in weight space: ``epochs * sum_r 2 n_r d K``; in Gram space: ``used * train * d`` to form the
    matrix and ``epochs * sum_r n_r^2 K``. Gram is taken if twice its count is less (a step scatters and gathers more:
    measured at d = 196) and the matrix has at most ``MAX_KERNEL`` elements.
    """
    counts = counts.astype(np.float64)
    weight = epochs * outputs * 2.0 * num_features * counts.sum()
    gram = float(used) * train * num_features + epochs * outputs * np.square(counts).sum()
    return used * train <= MAX_KERNEL and bool(2 * gram < weight)
