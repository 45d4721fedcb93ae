"""Minibatch SGD of many small models at once: one compiled program whatever the number of runs.

A *run* is one training: its own rows of a shared pool, its own order of them, its own learning rate and classes. Runs
of similar size are trained together (``vmap``) in chunks, chunks follow each other (``lax.map``) and are spread over
the devices of the mesh. What a model is, and how its gradient is found, is a ``Space``: weights on pixels, coefficients
on a Gram matrix, a two-layer network.

Reproduced from PyTorch: the last batch of an epoch may be smaller and its loss is the mean over what it holds; momentum
is ``v <- m v + g; w <- w - lr v``; the learning rate changes once per epoch.
"""

import abc
import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from dgu.core.parallel import data_mesh
from dgu.core.typing import PyTree
from dgu.training.classifiers.losses import example_losses
from dgu.training.classifiers.measure import local_labels, measure, num_blocks
from dgu.training.classifiers.orders import first_order, next_order
from dgu.training.classifiers.runs import Fit, Runs
from dgu.training.classifiers.schedules import Schedule


@partial(jax.tree_util.register_dataclass, data_fields=["design", "labels"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Split:
    """One run's rows in the layout its training method needs (``design``), and their labels: -1 for padding."""

    design: Any
    labels: Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What all runs of a call share; static."""

    loss: str
    schedule: Schedule
    epochs: int
    eval_interval: int
    batch_size: int
    momentum: float

    @property
    def eval_epochs(self) -> tuple[int, ...]:
        """Epochs done at each evaluation; the last epoch is always evaluated."""
        return tuple(min(e + self.eval_interval, self.epochs) for e in range(0, self.epochs, self.eval_interval))

    def optimizer(self) -> optax.GradientTransformation:
        """The step's direction from the gradient."""
        return optax.trace(self.momentum) if self.momentum else optax.identity()


class Space(abc.ABC):
    """A family of models and the coordinates they are trained in. Hashable and without arrays; methods see ONE run."""

    @abc.abstractmethod
    def share(self, pool: PyTree, mesh: Mesh) -> PyTree:
        """What all runs need, from the pool's arrays; computed once."""

    @abc.abstractmethod
    def prepare(self, shared: PyTree, run: Runs, validation: Array) -> tuple[PyTree, PyTree, PyTree]:
        """Initial parameters, and the designs of the training and validation rows (padded rows arrive as 0)."""

    @abc.abstractmethod
    def fetch(self, shared: PyTree, design: PyTree, positions: Array) -> PyTree:
        """Features of the rows at ``positions`` of a split."""

    @abc.abstractmethod
    def outputs(self, params: PyTree, features: PyTree) -> Array:
        """(B, outputs) of the model."""

    def gradient(self, params: PyTree, features: PyTree, positions: Array, cotangent: Array) -> PyTree:
        """Direction of descent in ``params`` for the loss's derivative ``cotangent`` (B, outputs)."""
        return jax.vjp(lambda p: self.outputs(p, features), params)[1](cotangent)[0]

    @abc.abstractmethod
    def finish(self, shared: PyTree, run: Runs, params: PyTree) -> PyTree:
        """The trained model that users get."""

    @abc.abstractmethod
    def elements(self, num_train: int, num_validation: int, num_features: int, batch_size: int) -> int:
        """Numbers that one run keeps at hand during training: decides how many runs go together."""


def _train_chunk(space: Space, recipe: Recipe, shared: PyTree, labels: Array, runs: Runs, validation: Array) -> PyTree:
    """Train C runs together; returns chosen and final models, the chosen epoch and the curves."""
    params, train_design, validation_design = jax.vmap(partial(space.prepare, shared))(
        dataclasses.replace(runs, rows=jnp.maximum(runs.rows, 0)), jnp.maximum(validation, 0)
    )
    train = Split(train_design, jax.vmap(partial(local_labels, labels))(runs.rows, runs.classes))
    held = Split(validation_design, jax.vmap(partial(local_labels, labels))(validation, runs.classes))
    optimizer = recipe.optimizer()
    buffer = jax.vmap(optimizer.init)(params)

    valid = train.labels >= 0
    counts = jnp.sum(valid, axis=1, dtype=jnp.int32)
    batch = min(recipe.batch_size, valid.shape[1])
    padding = -valid.shape[1] % batch
    first = jax.vmap(first_order)(runs.seed, valid)
    # The trip count is that of the chunk's largest run, so that sizes from 20 to 2,000 can share the program.
    steps = -(-jnp.max(counts) // batch)

    def update(shared: PyTree, params: PyTree, buffer: PyTree, split: Split, here: Array, rate: Array) -> PyTree:
        inside = here >= 0
        at = jnp.maximum(here, 0)
        known = split.labels[at]
        features = space.fetch(shared, split.design, at)
        out = space.outputs(params, features)
        held_rows = jnp.maximum(jnp.sum(inside, dtype=jnp.int32), 1).astype(out.dtype)

        def mean_loss(out: Array) -> Array:
            losses = example_losses(recipe.loss, out, jnp.maximum(known, 0))
            return jnp.sum(jnp.where(inside, losses, jnp.zeros((), out.dtype))) / held_rows

        grads = space.gradient(params, features, at, jax.grad(mean_loss)(out))
        direction, moved = optimizer.update(grads, buffer)
        stepped = jax.tree.map(lambda p, u: p - rate * u, params, direction)
        # A run without rows left in this epoch stands still, its momentum too.
        keep = partial(jax.tree.map, lambda new, old: jnp.where(jnp.any(inside), new, old))
        return keep(stepped, params), keep(moved, buffer)

    def epoch(number: Array, state: PyTree) -> PyTree:
        order = jax.vmap(next_order, in_axes=(0, None, 0, 0))(runs.seed, number, first, counts)
        order = jnp.pad(order, ((0, 0), (0, padding)), constant_values=-1)
        rate = recipe.schedule.rate(runs.learning_rate, number, recipe.epochs)

        def step(index: Array, state: PyTree) -> PyTree:
            here = lax.dynamic_slice_in_dim(order, index * batch, batch, axis=1)
            params, buffer = state
            return jax.vmap(update, in_axes=(None, 0, 0, 0, 0, 0))(shared, params, buffer, train, here, rate)

        return lax.fori_loop(jnp.int32(0), steps, step, state)

    def score(params: PyTree, split: Split, blocks: Array) -> tuple[Array, Array]:
        def one(params: PyTree, split: Split) -> tuple[Array, Array]:
            fetch = partial(space.fetch, shared, split.design)
            return measure(fetch, partial(space.outputs, params), split.labels, recipe.loss, blocks)

        return jax.vmap(one)(params, split)

    train_blocks, held_blocks = num_blocks(train.labels), num_blocks(held.labels)

    def segment(carry: PyTree, stop: Array) -> tuple[PyTree, PyTree]:
        start, state, best, lowest, chosen = carry
        state = lax.fori_loop(start, stop, epoch, state)
        scores = *score(state[0], train, train_blocks), *score(state[0], held, held_blocks)
        better = scores[2] < lowest
        best = jax.tree.map(
            lambda new, old: jnp.where(better.reshape((-1,) + (1,) * (new.ndim - 1)), new, old), state[0], best
        )
        carry = stop, state, best, jnp.where(better, scores[2], lowest), jnp.where(better, stop, chosen)
        return carry, scores

    lowest = jnp.full(counts.shape, jnp.inf, runs.learning_rate.dtype)
    start = jnp.int32(0), (params, buffer), params, lowest, jnp.zeros_like(counts)
    (_, (params, _), best, _, chosen), curves = lax.scan(segment, start, jnp.asarray(recipe.eval_epochs, jnp.int32))
    finish = jax.vmap(partial(space.finish, shared))
    return finish(runs, best), finish(runs, params), chosen, *(curve.T for curve in curves)


@partial(jax.jit, static_argnames=("space", "recipe", "chunk", "mesh"))
def train_runs(
    space: Space,
    recipe: Recipe,
    pool: PyTree,
    labels: Array,
    runs: Runs,
    validation: Array,
    *,
    chunk: int,
    mesh: Mesh,
) -> PyTree:
    """The one compiled program: R runs (a multiple of ``mesh.size * chunk``) over the mesh, ``chunk`` at a time."""
    shared = space.share(pool, mesh)

    def on_device(shared: PyTree, labels: Array, runs: Runs, validation: Array) -> PyTree:
        split = jax.tree.map(lambda a: a.reshape(-1, chunk, *a.shape[1:]), (runs, validation))
        done = lax.map(lambda part: _train_chunk(space, recipe, shared, labels, *part), split)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), done)

    everywhere, by_run = PartitionSpec(), PartitionSpec(mesh.axis_names[0])
    spread = jax.shard_map(
        on_device, mesh=mesh, in_specs=(everywhere, everywhere, by_run, by_run), out_specs=by_run, check_vma=False
    )
    return spread(shared, labels, runs, validation)


def default_chunk(elements: int, num_runs: int) -> int:
    """Runs trained together: as many as keep their working set in a CPU's cache (8 MB of float32), else in 1 GB."""
    budget = 2**21 if jax.default_backend() == "cpu" else 2**28
    return int(np.clip(budget // max(elements, 1), 1, max(num_runs, 1)))


def fit_runs(
    space: Space, recipe: Recipe, pool: PyTree, labels: Array, runs: Runs, validation: np.ndarray, *, chunk: int
) -> Fit:
    """Sort the runs by size, fill up to whole chunks with empty runs, train, and undo both."""
    mesh = data_mesh(jax.local_devices())
    num_runs, devices = len(runs.seed), mesh.size
    chunk = min(chunk, -(-num_runs // devices))
    total = -(-num_runs // (chunk * devices)) * chunk * devices
    by_size = np.argsort(np.sum(np.asarray(runs.rows) >= 0, axis=1), kind="stable")
    # Dealt round the devices like cards, so that each has its share of large runs; -1 is an empty run.
    dealt = np.concatenate([by_size, np.full(total - num_runs, -1)]).reshape(-1, devices).T.reshape(-1)
    place = np.empty(num_runs, np.int64)
    place[dealt[dealt >= 0]] = np.flatnonzero(dealt >= 0)
    padded = jax.tree.map(lambda a: np.asarray(a)[np.maximum(dealt, 0)], (runs, validation))
    empty = dataclasses.replace(padded[0], rows=np.where(dealt[:, None] >= 0, padded[0].rows, np.int32(-1)))
    done = train_runs(space, recipe, pool, labels, empty, padded[1], chunk=chunk, mesh=mesh)
    model, final, chosen, *curves = jax.tree.map(lambda a: a[place], done)
    return Fit(model, final, jnp.asarray(runs.learning_rate), chosen, jnp.asarray(recipe.eval_epochs), *curves)
