"""A two-layer network beside the linear classifiers, trained by the same recipe over the same runs."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.typing import PyTree
from dgu.training.classifiers.inputs import as_recipe, prepare
from dgu.training.classifiers.linear import RowSpace, uniform_init
from dgu.training.classifiers.runs import Fit, Runs
from dgu.training.classifiers.schedules import Schedule
from dgu.training.classifiers.sgd import default_chunk, fit_runs

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _network(params: dict[str, Any], x: Array) -> Array:
    hidden = _dot(x, params["hidden"].T)
    hidden = jax.nn.relu(hidden + jnp.broadcast_to(params["hidden_bias"], hidden.shape))
    out = _dot(hidden, params["readout"].T)
    return out + jnp.broadcast_to(params["readout_bias"], out.shape)


@short_repr
@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class TwoLayerClassifier:
    """``f(x) = relu(x H^T + b) V^T + c``.

    ``params`` has ``hidden`` H (h, d), ``hidden_bias`` b (h,), ``readout`` V (K, h) and ``readout_bias`` c (K,).
    """

    params: Any

    def __call__(self, x: Num[ArrayLike, "*n d"]) -> Float[Array, "*n k"]:
        """Raw outputs of one example or of many."""
        return _network(self.params, as_jax_floats("x", x))


@dataclasses.dataclass(frozen=True)
class TwoLayerSpace(RowSpace):
    """Parameters of the network, from PyTorch's default initialisation of each layer."""

    num_outputs: int
    width: int

    def prepare(self, shared: PyTree, run: Runs, validation: Array) -> tuple[PyTree, PyTree, PyTree]:
        """Initial parameters from the run's seed; the designs are the row indices."""
        d, h, k = shared.shape[1], self.width, self.num_outputs
        shapes = {"hidden": ((h, d), d), "hidden_bias": ((h,), d), "readout": ((k, h), h), "readout_bias": ((k,), h)}
        params = {name: uniform_init(run.seed, name, *shape, shared.dtype) for name, shape in shapes.items()}
        return params, run.rows, validation

    def outputs(self, params: PyTree, features: PyTree) -> Array:
        """Raw outputs."""
        return _network(params, features)

    def finish(self, shared: PyTree, run: Runs, params: PyTree) -> PyTree:
        """The network."""
        return TwoLayerClassifier(params)

    def elements(self, num_train: int, num_validation: int, num_features: int, batch_size: int) -> int:
        """A batch, and the hidden layer, its best, gradient and momentum."""
        return (min(batch_size, num_train) + 4 * self.width) * num_features


def fit_two_layer(
    x: Num[ArrayLike, " n *event"],
    y: Integer[ArrayLike, " n"],
    runs: Runs | Mapping[str, Any],
    *,
    loss: str,
    schedule: str | Schedule,
    epochs: int,
    validation: Integer[ArrayLike, "*runs m"],
    width: int = 64,
    batch_size: int = 64,
    momentum: float = 0.0,
    num_classes: int | None = None,
    eval_interval: int = 5,
    chunk: int | None = None,
) -> Fit:
    """Train R networks Linear(d, width), ReLU, Linear(width, K) as ``fit_classifiers`` trains linear classifiers.

    Both layers have biases and start from U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), addressed by the run's seed.

    Args:
        width: hidden units.

    All other arguments are as in ``fit_classifiers``; ``runs.initial`` must be None.

    Returns:
        ``Fit`` whose ``model`` holds ``TwoLayerClassifier``.

    Raises:
        InputError: as ``fit_classifiers``.
    """
    recipe = as_recipe(loss, schedule, epochs, eval_interval, batch_size, momentum)
    require(width >= 1, "width", width, "at least 1")
    require(chunk is None or chunk >= 1, "chunk", chunk, "at least 1")
    x, y, runs, validation, outputs = prepare(x, y, runs, validation, num_classes, loss)
    require(runs.initial is None, "runs.initial", "given", "None for a two-layer network")
    space = TwoLayerSpace(outputs, width)
    elements = space.elements(runs.rows.shape[1], validation.shape[1], x.shape[1], recipe.batch_size)
    chunk = default_chunk(elements, len(runs.seed)) if chunk is None else chunk
    return fit_runs(space, recipe, x, y, runs, validation, chunk=chunk)
