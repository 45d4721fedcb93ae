"""Training of many small score networks at once, with measurements on the way: one compiled program for all runs.

A *run* is one training: its own data, seed, learning rate, hidden units, and whatever else ``measure`` needs for it.
The runs of a chunk are trained together by ``vmap``; chunks of one size, run by the same single-device program, are
dealt to all devices. Loss (5) of Li et al., arXiv 2311.01797: minibatches in a new order each epoch, a new time and a
new noise for each example each epoch, the last batch as small as it comes out, as PyTorch's loaders do it.

The caller chooses what is measured: ``measure(score, aux)`` of each run's network, every ``every`` epochs inside the
compiled loop. If the parameters of a run stop being finite, they stay so, and the step is recorded.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_examples, as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.chunks import check_chunk
from dgu.core.errors import require, require_whole
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key, PyTree
from dgu.distributions.draws import draw_examples
from dgu.models.shallow import ShallowNet, ShallowScore
from dgu.samplers.sde import LinearSDE

Weighting = Literal["variance", "deviation", "likelihood"]
#: ``measure(score, aux) -> pytree`` of one run; hashable: a function, or a frozen dataclass registered as static.
Measure = Callable[[ShallowScore, PyTree], PyTree]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Recipe:
    """What all runs of a call share.

    Attributes:
        net: sizes of the network.
        sde: the process.
        epochs: passes over the data.
        every: epochs between measurements; a divisor of ``epochs``.
        batch_size: examples a step.
        optimizer: plain SGD, or Adam (beta 0.9 and 0.999, epsilon 1e-8).
        t_eps: earliest time trained on, in (0, T); times are uniform from there to T.
        weighting: lambda(t) of the loss: ``std^2``, ``std`` (the paper's equation 6), or ``g^2`` (which bounds the KL).
    """

    net: ShallowNet
    sde: LinearSDE
    epochs: int = 2000
    every: int = 100
    batch_size: int = 32
    optimizer: Literal["sgd", "adam"] = "sgd"
    t_eps: float = 1e-5
    weighting: Weighting = "variance"

    def __post_init__(self) -> None:
        for name in ("epochs", "every", "batch_size"):
            value = getattr(self, name)
            require_whole(name, value)
        require(self.epochs % self.every == 0, "every", self.every, f"a divisor of epochs = {self.epochs}")
        require(self.optimizer in ("sgd", "adam"), "optimizer", self.optimizer, "sgd or adam")
        require(self.weighting in get_args(Weighting), "weighting", self.weighting, "variance, deviation or likelihood")
        self.sde.check_time("t_eps", self.t_eps)

    @property
    def measured_epochs(self) -> np.ndarray:
        """Epochs done at each measurement, 0 among them."""
        return np.arange(0, self.epochs + 1, self.every)

    def direction(self) -> optax.GradientTransformation:
        """The step's direction from the gradient; it is then multiplied by the learning rate of each run."""
        return optax.scale_by_adam() if self.optimizer == "adam" else optax.identity()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a call; every leaf has one leading axis, R.

    Attributes:
        data: training examples, (R, n, d); all runs have equally many.
        keys: the key of each run, (R,): its initialisation, orders, times and noise depend on it alone.
        rates: learning rates, (R,).
        units: hidden units in use, (R,) integers, at most the width of the network.
        aux: what ``measure`` is given for a run, any pytree with leading axis R, or None.
    """

    data: Any
    keys: Any
    rates: Any
    units: Any
    aux: Any = None


def seeded_runs(
    key: Key, targets: Sequence[Any], aux: Sequence[PyTree], *, seeds: int, n: int, units: Sequence[int], rate: float
) -> Runs:
    """Runs on draws of several targets: targets x units x seeds, in this order.

    The data of a target and seed, and what is drawn in training on them, are the same whatever the number of hidden
    units, the learning rate and the optimiser; smaller training sets are the beginning of larger ones.

    Args:
        key: of all draws.
        targets: distributions with ``draw(key)``.
        aux: what ``measure`` is told of a run, a pytree for each target.
        seeds: number of seeds.
        n: training examples of each run.
        units: numbers of hidden units.
        rate: learning rate of every run.

    Raises:
        InputError: no target, another number of entries in ``aux``, no units, or fewer than one seed or example.
    """
    key = threefry(key)
    require_whole("seeds", seeds)
    require(len(targets) >= 1 and len(units) >= 1, "(targets, units)", (len(targets), len(units)), "1 or more each")
    require(len(aux) == len(targets), "number of aux", len(aux), f"{len(targets)}, one for each target")
    drawn = [
        [np.asarray(draw_examples(target, stream(key, "data", place, seed), n)) for seed in range(seeds)]
        for place, target in enumerate(targets)
    ]
    every = list(itertools.product(range(len(targets)), units, range(seeds)))
    return Runs(
        np.stack([drawn[place][seed] for place, _, seed in every]),
        jnp.stack([stream(key, "train", place, seed) for place, _, seed in every]),
        np.full(len(every), rate, np.float32),
        np.asarray([count for _, count, _ in every], np.int32),
        jax.tree.map(lambda *leaves: np.stack(leaves), *(aux[place] for place, _, _ in every)),
    )


@short_repr
@dataclass(frozen=True)
class Dynamics:
    """The results of R runs, as NumPy arrays.

    Attributes:
        epochs: (E,) epochs done at each measurement, the first 0.
        measured: what ``measure`` returned, each leaf (R, E, ...); non-finite where a run has diverged.
        losses: (R, E - 1) mean training loss between measurements.
        first_nonfinite: (R,) number of the first step (1 for the first) after which a parameter was not finite, -1 for
            none.
        params, frozen: trained and frozen parameters of the networks at the end, each leaf (R, ...).
    """

    epochs: np.ndarray
    measured: Any
    losses: np.ndarray
    first_nonfinite: np.ndarray
    params: dict[str, np.ndarray]
    frozen: dict[str, np.ndarray]

    @property
    def diverged(self) -> np.ndarray:
        """(R,) whether a run has diverged."""
        return self.first_nonfinite >= 0

    def score(self, run: int, recipe: Recipe) -> ShallowScore:
        """The score of one run's network at the end."""
        params, frozen = jax.tree.map(lambda leaf: jnp.asarray(leaf[run]), (self.params, self.frozen))
        return ShallowScore(params, frozen, recipe.net, recipe.sde)


def train_dynamics(
    runs: Runs,
    recipe: Recipe,
    measure: Measure,
    *,
    chunk_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> Dynamics:
    """Train every run and measure it every ``recipe.every`` epochs, epoch 0 included.

    Runs of a chunk advance together. The results of a run do not depend on which others there are, but for the rounding
    of kernels that differ with ``chunk_size``.

    Args:
        runs: data, keys, rates and sizes, which differ between runs.
        recipe: the training that all runs share.
        measure: ``measure(score, aux)``, the measurement of one run.
        chunk_size: runs a program holds; fewer runs are padded.
        progress: called as ``progress(done, total)`` when a chunk has come back.

    Raises:
        InputError: shapes that do not fit each other, units that exceed the width, rates that are not positive, 2^31
            steps.
    """
    data, rates, units = (
        as_examples("runs.data", runs.data),
        as_examples("runs.rates", runs.rates),
        np.asarray(runs.units),
    )
    runs = replace(runs, data=data, rates=rates)
    net, runs = recipe.net, replace(runs, keys=threefry(runs.keys, "runs.keys", shape=None))
    require(data.ndim == 3 and data.shape[1] >= 1, "runs.data.shape", data.shape, "(R, n, d), n at least 1")
    count = len(data)
    require(data.shape[2] == net.dimension, "runs.data.shape", data.shape, f"(R, n, {net.dimension}) for the network")
    for name, leaf in (("keys", runs.keys), ("rates", rates), ("units", units)):
        require(leaf.shape == (count,), f"runs.{name}.shape", leaf.shape, f"({count},), one for each run")
    for leaf in jax.tree.leaves(runs.aux):
        require(np.shape(leaf)[:1] == (count,), "runs.aux", np.shape(leaf), f"leaves with a leading axis of {count}")
    require(bool(np.isfinite(data).all()), "runs.data", "non-finite", "finite")
    require(bool((rates > 0).all()), "runs.rates", float(rates.min()), "positive")
    inside = bool(((units >= 1) & (units <= net.width)).all())
    require(inside, "runs.units", (int(units.min()), int(units.max())), f"from 1 to the width {net.width}")
    require_whole("chunk_size", chunk_size)

    check_chunk("recipe.batch_size", recipe.batch_size, data.shape[2:], data.dtype)
    steps = -(-data.shape[1] // recipe.batch_size) * recipe.epochs
    require(steps < 2**31, "steps of a run", steps, "below 2**31, to be counted")

    size = min(int(chunk_size), count)
    devices = jax.local_devices()
    pending, done = [], 0
    for place, start in enumerate(range(0, count, size)):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], runs)
        part = jax.device_put(part, devices[place % len(devices)])
        pending.append(_train_chunk(part, recipe=recipe, measure=measure))
    results = []
    for result in pending:
        results.append(jax.device_get(result))
        done = min(done + size, count)
        if progress is not None:
            progress(done, count)
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *results)
    return Dynamics(recipe.measured_epochs, *joined)


@functools.partial(jax.jit, static_argnames=("recipe", "measure"))
def _train_chunk(runs: Runs, *, recipe: Recipe, measure: Measure) -> tuple[Any, ...]:
    """(measured, losses, first_nonfinite, params, frozen) of a chunk of runs."""
    return jax.vmap(lambda run: _train(run, recipe, measure))(runs)


def _train(run: Runs, recipe: Recipe, measure: Measure) -> tuple[Any, ...]:
    """One run. Everything random of an epoch is drawn at its start, so that a step is arithmetic alone."""
    net, sde = recipe.net, recipe.sde
    init_key, epoch_key = (jax.random.fold_in(run.keys, number) for number in range(2))
    params, frozen = net.init(init_key, run.units)
    direction = recipe.direction()

    def observe(params: PyTree) -> PyTree:
        return measure(ShallowScore(params, frozen, net, sde), run.aux)

    def loss(params: PyTree, batch: dict[str, Array]) -> Array:
        out = jax.vmap(lambda x, embedding: net.apply(params, frozen, x, embedding))(batch["x"], batch["embedding"])
        return jnp.sum(batch["weight"] * jnp.sum(jnp.square(out + batch["eps"]), axis=1))

    def step(carry: tuple[Any, ...], batch: dict[str, Array]) -> tuple[tuple[Any, ...], Array]:
        params, state, number, first = carry
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = direction.update(gradient, state)
        params = jax.tree.map(lambda p, u: p - run.rates * u, params, updates)
        finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))
        first = jnp.where((first < 0) & ~finite, number, first)
        return (params, state, number + 1, first), value

    def epoch(carry: tuple[Any, ...], number: Array) -> tuple[tuple[Any, ...], Array]:
        batches = _epoch_batches(jax.random.fold_in(epoch_key, number), run.data, frozen, recipe)
        carry, values = jax.lax.scan(step, carry, batches)
        return carry, jnp.mean(values)

    def interval(carry: tuple[Any, ...], number: Array) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        numbers = number * recipe.every + jnp.arange(recipe.every)
        carry, values = jax.lax.scan(epoch, carry, numbers)
        return carry, (observe(carry[0]), jnp.mean(values))

    carry = (params, direction.init(params), jnp.int32(1), jnp.int32(-1))
    (params_end, _, _, first), (later, losses) = jax.lax.scan(
        interval, carry, jnp.arange(recipe.epochs // recipe.every)
    )
    measured = jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), observe(params), later)
    return measured, losses, first, params_end, frozen


def _epoch_batches(key: Key, data: Float[Array, "n d"], frozen: PyTree, recipe: Recipe) -> dict[str, Array]:
    """An epoch's batches, each leaf (steps, batch, ...); the weights of a batch sum to one if lambda is ``std^2``."""
    net, sde = recipe.net, recipe.sde
    (n, d), size = data.shape, recipe.batch_size
    slots = math.ceil(n / size) * size
    order_key, time_key, noise_key = jax.random.split(key, 3)
    order = jnp.pad(_order(order_key, n), (0, slots - n))
    t = jax.random.uniform(time_key, (slots,), data.dtype, recipe.t_eps, sde.t_max)
    eps = jax.random.normal(noise_key, (slots, d), data.dtype)
    x = jax.vmap(sde.perturb)(data[order], t, eps)
    lengths = np.minimum(size, n - size * np.arange(slots // size))
    weight = np.repeat(1 / lengths, size) * (np.arange(slots) < n)
    batches = {
        "x": x,
        "eps": eps,
        "embedding": jax.vmap(lambda one: net.embed(frozen, one))(t),
        "weight": jnp.asarray(weight, data.dtype) * loss_weight(sde, recipe.weighting, t),
    }
    return jax.tree.map(lambda leaf: leaf.reshape(slots // size, size, *leaf.shape[1:]), batches)


def _order(key: Key, n: int) -> Array:
    """A permutation of n rows: one word per row is sorted, random bits above the row's number.

    Rows whose bits agree (two of 1,000 in one epoch of nine) keep their order.
    """
    slot_bits = max(1, (n - 1).bit_length())
    low = jnp.uint32((1 << slot_bits) - 1)
    words = (jax.random.bits(key, (n,), jnp.uint32) & ~low) | jnp.arange(n, dtype=jnp.uint32)
    return (jnp.sort(words, stable=False) & low).astype(jnp.int32)


def loss_weight(sde: LinearSDE, weighting: Weighting, t: Num[ArrayLike, "*t"]) -> Float[Array, "*t"]:
    """``lambda(t) / std(t)^2``: what ``|std s + eps|^2`` is weighted by for the loss with ``lambda(t) |s - target|^2``.

    lambda is ``std^2`` ("variance"), ``std`` ("deviation": the inverse root of the expected squared target, arXiv
    2311.01797, equation 6, up to the root of d) or ``g^2`` ("likelihood").
    """
    t = as_jax_floats("t", t)
    if weighting == "variance":
        return jnp.ones_like(t)
    std = sde.std(t)
    return 1 / std if weighting == "deviation" else jnp.square(sde.diffusion(t) / std)
