"""Minibatch SGD of many small models at once: one compiled program whatever the number of runs.

A *run* is one training: its own rows of a shared pool, its own order of them, its own learning rate and classes. Runs
that differ in their learning rates alone are a *family*: they see the same batches, which are put together once.
Families of similar size are trained together (``vmap``) in chunks, chunks follow each other (``lax.map``) and are
spread over the devices of the mesh. What a model is, and how its gradient is found, is a ``Space``: weights on pixels,
coefficients on a Gram matrix, a two-layer network.

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

from dgu.core.arrays import to_device
from dgu.core.parallel import data_mesh
from dgu.core.typing import PyTree
from dgu.training.classifiers.losses import example_losses
from dgu.training.classifiers.measure import local_labels, measure, num_blocks
from dgu.training.classifiers.orders import first_order, next_order
from dgu.training.classifiers.runs import Fit, Runs
from dgu.training.classifiers.schedules import Schedule

#: Cost of a step beside that of its families, in families (measured: 196 features, 4 classes, 4 learning rates).
_STEP = 3


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
    """Train C families of L runs together, whose learning rates are (C, L); returns chosen and final models, the chosen
    epoch and the curves, all with leading axes (C, L).
    """
    params, train_design, validation_design = jax.vmap(partial(space.prepare, shared))(
        dataclasses.replace(runs, rows=jnp.maximum(runs.rows, 0)), jnp.maximum(validation, 0)
    )
    train = Split(train_design, jax.vmap(partial(local_labels, labels))(runs.rows, runs.classes))
    held = Split(validation_design, jax.vmap(partial(local_labels, labels))(validation, runs.classes))
    optimizer, family = recipe.optimizer(), runs.learning_rate.shape
    params = jax.tree.map(lambda p: jnp.broadcast_to(p[:, None], (*family, *p.shape[1:])), params)
    buffer = jax.vmap(jax.vmap(optimizer.init))(params)

    valid = train.labels >= 0
    counts = jnp.sum(valid, axis=1, dtype=jnp.int32)
    batch = min(recipe.batch_size, valid.shape[1])
    padding = -valid.shape[1] % batch
    first = jax.vmap(first_order)(runs.seed, valid)
    # The trip count is that of the chunk's largest run, so that sizes from 20 to 2,000 can share the program.
    steps = -(-jnp.max(counts) // batch)

    def update(shared: PyTree, params: PyTree, buffer: PyTree, split: Split, here: Array, rates: Array) -> PyTree:
        inside = here >= 0
        at = jnp.maximum(here, 0)
        known = jnp.maximum(split.labels[at], 0)
        features = space.fetch(shared, split.design, at)
        count = jnp.maximum(jnp.sum(inside, dtype=jnp.int32), 1)

        def mean_loss(out: Array) -> Array:
            losses = example_losses(recipe.loss, out, known)
            return jnp.sum(jnp.where(inside, losses, jnp.zeros((), out.dtype))) / count.astype(out.dtype)

        def one(params: PyTree, buffer: PyTree, rate: Array) -> PyTree:
            grads = space.gradient(params, features, at, jax.grad(mean_loss)(space.outputs(params, features)))
            direction, moved = optimizer.update(grads, buffer)
            return jax.tree.map(lambda p, u: p - rate * u, params, direction), moved

        # A run without rows left in this epoch stands still, its momentum too.
        keep = partial(jax.tree.map, lambda new, old: jnp.where(jnp.any(inside), new, old))
        return keep(jax.vmap(one)(params, buffer, rates), (params, buffer))

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
        def family(params: PyTree, split: Split) -> tuple[Array, Array]:
            fetch = partial(space.fetch, shared, split.design)
            return jax.vmap(
                lambda params: measure(fetch, partial(space.outputs, params), split.labels, recipe.loss, blocks)
            )(params)

        return jax.vmap(family)(params, split)

    train_blocks, held_blocks = num_blocks(train.labels), num_blocks(held.labels)

    def segment(carry: PyTree, stop: Array) -> tuple[PyTree, PyTree]:
        start, state, best, lowest, chosen = carry
        state = lax.fori_loop(start, stop, epoch, state)
        scores = *score(state[0], train, train_blocks), *score(state[0], held, held_blocks)
        better = scores[2] < lowest
        best = jax.tree.map(
            lambda new, old: jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 2)), new, old), state[0], best
        )
        carry = stop, state, best, jnp.where(better, scores[2], lowest), jnp.where(better, stop, chosen)
        return carry, scores

    lowest = jnp.full(family, jnp.inf, runs.learning_rate.dtype)
    start = jnp.int32(0), (params, buffer), params, lowest, jnp.zeros(family, jnp.int32)
    (_, (params, _), best, _, chosen), curves = lax.scan(segment, start, jnp.asarray(recipe.eval_epochs, jnp.int32))
    finish = jax.vmap(lambda run, models: jax.vmap(partial(space.finish, shared, run))(models))
    return finish(runs, best), finish(runs, params), chosen, *(jnp.moveaxis(curve, 0, -1) for curve in curves)


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
    """The one compiled program: families (a multiple of ``mesh.size * chunk``) over the mesh, ``chunk`` at a time."""
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


def best_chunk(steps: np.ndarray, devices: int, most: int) -> int:
    """How many families, at most ``most``, are best trained together on a device.

    A chunk takes the steps of its largest family, so that families of other sizes in it wait; a step has a cost of its
    own beside that of its families.

    Args:
        steps: of an epoch of each family, ascending.
        devices: that the families are dealt out to.
        most: the largest chunk that memory allows.
    """

    def cost(chunk: int) -> int:
        largest = steps[::-1][:: chunk * devices]  # Chunks are filled from the largest family on.
        return int(largest.sum()) * (chunk + _STEP)

    return min(range(most, 0, -1), key=cost)


def families(runs: Runs, validation: np.ndarray) -> np.ndarray:
    """The runs of each family, (families, L): those that differ in their learning rates alone. Where families are of
    different sizes, each run is one of its own.
    """
    alike = jax.tree.leaves((dataclasses.replace(runs, learning_rate=None), validation))
    bytes_of = [b"".join(np.ascontiguousarray(leaf[run]).tobytes() for leaf in alike) for run in range(len(runs.seed))]
    _, family, sizes = np.unique(np.asarray(bytes_of, object), return_inverse=True, return_counts=True)
    together = int(sizes[0]) if len(set(sizes.tolist())) == 1 else 1
    order = np.argsort(family, kind="stable") if together > 1 else np.arange(len(family))
    return order.reshape(-1, together)


def fit_runs(
    space: Space,
    recipe: Recipe,
    pool: PyTree,
    labels: Array | np.ndarray,
    runs: Runs,
    validation: np.ndarray,
    *,
    chunk: int,
) -> Fit:
    """Sort the families of runs by size, fill up to whole chunks with empty runs, train, and undo both."""
    mesh = data_mesh(jax.local_devices())
    members = families(runs, validation)
    if chunk < members.shape[1] or len(members) < mesh.size:  # They would take more memory, or leave devices idle.
        members = np.arange(members.size)[:, None]
    number, together = members.shape
    own = jax.tree.map(lambda a: np.asarray(a)[members[:, 0]], (runs, validation))
    rates = np.asarray(runs.learning_rate)
    devices, sizes = mesh.size, np.sum(own[0].rows >= 0, axis=1)
    by_size = np.argsort(sizes, kind="stable")
    steps = -(-sizes[by_size] // recipe.batch_size)
    chunk = best_chunk(steps, devices, min(max(1, chunk // together), -(-number // devices)))
    total = -(-number // (chunk * devices)) * chunk * devices
    # Dealt round the devices like cards, so that each has its share of large runs; -1 is an empty family, which stands
    # beside the smallest ones.
    dealt = np.concatenate([np.full(total - number, -1), by_size]).reshape(-1, devices).T.reshape(-1)
    place = np.empty(number, np.int64)
    place[dealt[dealt >= 0]] = np.flatnonzero(dealt >= 0)
    padded, held = jax.tree.map(lambda a: a[np.maximum(dealt, 0)], own)
    padded = dataclasses.replace(
        padded,
        rows=np.where(dealt[:, None] >= 0, padded.rows, np.int32(-1)),
        learning_rate=rates[members[np.maximum(dealt, 0)]],
    )
    # To the host: taking rows of arrays that are spread over devices is a collective, in which the first device to have
    # trained its runs waits for the last, and on CPUs gives up after 40 seconds and ends the process.
    done = jax.device_get(train_runs(space, recipe, pool, labels, padded, held, chunk=chunk, mesh=mesh))
    where = np.empty(number * together, np.int64)
    where[members.reshape(-1)] = np.arange(number * together)
    model, final, chosen, *curves = jax.tree.map(lambda a: to_device(a[place].reshape(-1, *a.shape[2:])[where]), done)
    return Fit(model, final, to_device(rates), chosen, to_device(np.asarray(recipe.eval_epochs)), *curves)
