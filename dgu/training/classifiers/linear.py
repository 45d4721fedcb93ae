"""Linear classifiers, trained in weight space: ``f(x) = x W + b``."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.typing import PyTree
from dgu.training.classifiers.orders import seed_key
from dgu.training.classifiers.runs import Runs
from dgu.training.classifiers.sgd import Space

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@short_repr
@partial(jax.tree_util.register_dataclass, data_fields=["weights", "bias"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class LinearClassifier:
    """``f(x) = x W + b`` with ``weights`` (d, K) and ``bias`` (K,) or None."""

    weights: Any
    bias: Any = None

    def __call__(self, x: Num[ArrayLike, "*n d"]) -> Float[Array, "*n k"]:
        """Raw outputs of one example or of many."""
        out = _dot(as_jax_floats("x", x), self.weights)
        return out if self.bias is None else out + jnp.broadcast_to(self.bias, out.shape)


def uniform_init(seed: Array, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any) -> Array:
    """PyTorch's default for linear layers, weights and biases alike: uniform in +-1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return jax.random.uniform(seed_key(seed, name), shape, dtype, -bound, bound)


def initial_params(run: Runs, num_features: int, num_outputs: int, bias: bool, init: str, dtype: Any) -> dict[str, Any]:
    """``weights`` (outputs, d), the layout a CPU multiplies fastest, and ``bias`` if there is one."""
    if run.initial is not None:
        weights = jnp.asarray(run.initial, dtype).T
    elif init == "torch":
        weights = uniform_init(run.seed, "weights", (num_outputs, num_features), num_features, dtype)
    else:
        weights = jnp.zeros((num_outputs, num_features), dtype)
    params = {"weights": weights}
    if bias:
        drawn = init == "torch" and run.initial is None
        shape = (num_outputs,)
        params["bias"] = (
            uniform_init(run.seed, "bias", shape, num_features, dtype) if drawn else jnp.zeros(shape, dtype)
        )
    return params


def add_bias(out: Array, params: dict[str, Any]) -> Array:
    """``out + b`` where there is a bias."""
    return out + params["bias"][None, :] if "bias" in params else out


class RowSpace(Space):
    """Models on the features themselves: a batch is gathered from the pool."""

    def share(self, pool: PyTree, mesh: Mesh) -> PyTree:
        """The pool's (N, d) features."""
        return pool

    def fetch(self, shared: PyTree, design: PyTree, positions: Array) -> PyTree:
        """(B, d) features."""
        return shared[design[positions]]


@dataclasses.dataclass(frozen=True)
class LinearSpace(RowSpace):
    """Weights and bias of a linear classifier."""

    num_outputs: int
    bias: bool
    init: str

    def prepare(self, shared: PyTree, run: Runs, validation: Array) -> tuple[PyTree, PyTree, PyTree]:
        """Initial weights; the designs are the row indices."""
        params = initial_params(run, shared.shape[1], self.num_outputs, self.bias, self.init, shared.dtype)
        return params, run.rows, validation

    def outputs(self, params: PyTree, features: PyTree) -> Array:
        """``x W + b``."""
        return add_bias(_dot(features, params["weights"].T), params)

    def finish(self, shared: PyTree, run: Runs, params: PyTree) -> PyTree:
        """The classifier."""
        return LinearClassifier(params["weights"].T, params.get("bias"))

    def elements(self, num_train: int, num_validation: int, num_features: int, batch_size: int) -> int:
        """A batch, and the weights, their best, gradient and momentum."""
        return (min(batch_size, num_train) + 4 * self.num_outputs) * num_features
