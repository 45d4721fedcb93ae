"""The training loop: EDM's arithmetic (Karras et al. 2022; learning-rate ramp, Adam, half-life EMA), resumable and
sharded.

Everything random is addressed by the number of the training image: which image comes when (one permutation per epoch),
its noise level, noise, dropout and augmentation. A run that was killed and started again, or cut into other
micro-batches, sees the same draws.
"""

import bisect
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from dgu.core import keys, parallel
from dgu.core.arrays import as_examples, as_labels
from dgu.core.chunks import check_chunk
from dgu.core.errors import InputError, require, require_whole
from dgu.core.typing import Key, PyTree
from dgu.models.edm import EDMNetwork, is_constant
from dgu.training.augment import AUGMENT_DIM
from dgu.training.config import TrainingConfig
from dgu.training.losses import sampled_loss
from dgu.training.power_ema import power_ema_share


def learning_rate_at(images_seen: Float[Array, ""], config: TrainingConfig) -> Float[Array, ""]:
    """``lr0 * min(images_seen / ramp, 1) / sqrt(max(images_seen / decay, 1))`` with the images seen *before* the
    update, so the first one is 0.
    """
    rate = jnp.full_like(images_seen, config.learning_rate)
    if config.rampup_kimg:
        rate = config.learning_rate * jnp.minimum(images_seen / (config.rampup_kimg * 1000), 1)
    if config.decay_kimg is not None:
        rate = rate / jnp.sqrt(jnp.maximum(images_seen / (config.decay_kimg * 1000), 1))
    return rate


def ema_decay_at(images_seen: Float[Array, ""], config: TrainingConfig) -> Float[Array, ""]:
    """``0.5^(batch / H)`` with the half-life ``H = min(halflife, ratio * images_seen)``; 0 (a copy) at the first
    update.
    """
    halflife = jnp.full_like(images_seen, config.ema_halflife_kimg * 1000)
    if config.ema_rampup_ratio is not None:
        halflife = jnp.minimum(halflife, config.ema_rampup_ratio * images_seen)
    return 0.5 ** (config.batch_size / jnp.maximum(halflife, 1e-8))


def ema_shares(step: Array, config: TrainingConfig) -> list[Float[Array, ""]]:
    """What the newest parameters contribute to each average after update number ``step`` (from 0): first that of the
    network's average (see ``ema_decay_at`` and ``power_ema_share``), then those of further widths.
    """
    done = step.astype(jnp.result_type(float))
    if config.power_ema_stds:
        return [power_ema_share(done, std) for std in config.power_ema_stds]
    return [1 - ema_decay_at(done * config.batch_size, config)]


def initial_state(network: EDMNetwork, config: TrainingConfig) -> PyTree:
    """``{"params", "ema", "optimizer", "step", "nonfinite"}`` before the first update; with several widths of
    ``power_ema_stds`` also ``"more_ema"``, a list of the averages after the first.
    """
    params = network.init(keys.stream(keys.seeded(config.seed), "init"))
    state = {
        "params": params,
        "ema": jax.tree.map(jnp.copy, params),
        "optimizer": jax.jit(optax.scale_by_adam().init)(params),  # Not a program for the shape of each parameter.
        "step": jnp.zeros((), jnp.int32),
        "nonfinite": jnp.zeros((), jnp.int32),
    }
    more = [jax.tree.map(jnp.copy, params) for _ in config.power_ema_stds[1:]]
    return {**state, "more_ema": more} if more else state


def update(state: PyTree, gradients: PyTree, config: TrainingConfig) -> PyTree:
    """One parameter update from the gradient of ``loss_scaling * sum over pixels, mean over the batch``.

    Non-finite gradients are replaced as the reference does (NaN by 0, infinities by +-1e5, with EDM2's loss by 0) and
    counted in ``nonfinite``; then Adam (0.9, ``adam_b2``, eps 1e-8) with the scheduled learning rate, then the averages
    ``ema <- b ema + (1 - b) params``.
    """
    bad = jnp.asarray(sum(jnp.sum(~jnp.isfinite(g)) for g in jax.tree.leaves(gradients)))
    limit = 0.0 if config.loss == "edm2" else 1e5
    gradients = jax.tree.map(lambda g: jnp.nan_to_num(g, nan=0.0, posinf=limit, neginf=-limit), gradients)
    # Image counts pass 2^24, where float32 stops counting single images; ramps need no more than that precision.
    seen = state["step"].astype(jnp.result_type(float)) * config.batch_size
    adam = optax.scale_by_adam(b1=0.9, b2=config.adam_b2, eps=1e-8)
    direction, optimizer = adam.update(gradients, state["optimizer"])
    rate = learning_rate_at(seen, config)
    params = jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), state["params"], direction)

    def averaged(average: PyTree, share: Float[Array, ""]) -> PyTree:
        moved = optax.incremental_update(params, average, share)
        # Constants have no gradient, so that Adam leaves them alone; an average of equal numbers would still round.
        return jax.tree_util.tree_map_with_path(
            lambda path, e, p: p if is_constant(path) else e.astype(p.dtype), moved, params
        )

    share, *shares = ema_shares(state["step"], config)
    new = {
        "params": params,
        "ema": averaged(state["ema"], share),
        "optimizer": optimizer,
        "step": state["step"] + 1,
        "nonfinite": state["nonfinite"] + bad.astype(jnp.int32),
    }
    return {**new, "more_ema": [averaged(*pair) for pair in zip(state["more_ema"], shares)]} if shares else new


def _gradients(
    params: PyTree,
    images: Array,
    labels: Array,
    numbers: Array,
    key: Key,
    network: EDMNetwork,
    config: TrainingConfig,
) -> tuple[Array, PyTree]:
    """Mean loss per element over a batch (micro-batches, examples, ...), and the gradient of the scaled loss, summed
    over the batch.
    """

    def one(params: PyTree, image: Array, label: Array, number: Array) -> Array:
        one_key = jax.random.fold_in(key, number)
        return sampled_loss(
            network, params, image, label, one_key, loss=config.loss, p_mean=config.p_mean, p_std=config.p_std,
            augment_probability=config.augment_probability,
        )  # fmt: skip

    def objective(params: PyTree, *examples: Array) -> tuple[Array, Array]:
        losses = jax.vmap(one, (None, 0, 0, 0))(params, *examples)
        return jnp.sum(losses) * (config.loss_scaling / config.batch_size), jnp.mean(losses)

    gradient = jax.grad(objective, has_aux=True)
    if len(images) == 1:
        gradients, loss = gradient(params, images[0], labels[0], numbers[0])
        return loss, gradients

    def accumulate(total: PyTree, examples: tuple[Array, ...]) -> tuple[PyTree, Array]:
        gradients, loss = gradient(params, *examples)
        return jax.tree.map(jnp.add, total, gradients), loss

    gradients, losses = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), (images, labels, numbers))
    return jnp.mean(losses), gradients


def _compiled(network: EDMNetwork, config: TrainingConfig, mesh: Mesh) -> Callable[..., Any]:
    """The compiled program of a run: some updates.

    Neither seed nor length is in it: runs of one network that differ in these (and in their images) share the program.
    """
    return _program(network, replace(config, seed=0, duration_kimg=1.0), mesh)


@lru_cache(maxsize=8)
def _program(network: EDMNetwork, config: TrainingConfig, mesh: Mesh) -> Callable[..., Any]:
    everywhere, batches = parallel.replicated(mesh), _batches(mesh)

    @partial(
        jax.jit,
        donate_argnums=0,
        in_shardings=(everywhere, batches, batches, batches, everywhere, everywhere),
        out_shardings=everywhere,
    )
    def updates(
        state: PyTree, images: Array, labels: Array, numbers: Array, count: Array, key: Key
    ) -> tuple[PyTree, Array]:
        """The first ``count`` of the updates that the batches are for, and the mean of their losses."""

        def one(at: Array, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
            state, total = carry
            batch = images[at], labels[at], numbers[at]
            state = {**state, "params": network.constrained(state["params"])}
            loss, gradients = _gradients(state["params"], *batch, key, network, config)
            return update(state, gradients, config), total + loss

        state, total = jax.lax.fori_loop(0, count, one, (state, jnp.zeros((), jnp.result_type(float))))
        return state, total / count

    return updates


def _batches(mesh: Mesh) -> NamedSharding:
    """The examples of arrays (updates, micro-batches, examples, ...) split over the mesh."""
    return NamedSharding(mesh, PartitionSpec(None, None, *parallel.batch_sharding(mesh).spec))


def image_order(seed: int, size: int, start: int, count: int) -> np.ndarray:
    """Rows of the data set for training images number ``start`` to ``start + count``: one permutation per epoch."""
    numbers = np.arange(start, start + count)
    rows = np.empty(count, np.int64)
    for epoch in np.unique(numbers // size):
        order = np.random.default_rng([seed, int(epoch)]).permutation(size)
        here = numbers // size == epoch
        rows[here] = order[numbers[here] % size]
    return rows


def train_steps(
    network: EDMNetwork,
    state: PyTree,
    images: np.ndarray,
    labels: np.ndarray | None,
    config: TrainingConfig,
    mesh: Mesh | None = None,
    *,
    together: int = 1,
    stops: Collection[int] = (),
) -> Iterator[tuple[PyTree, dict[str, Any]]]:
    """Yield ``(state, {"step", "updates", "loss"})`` after each call of the compiled program until
    ``config.total_steps``; ``state`` is donated to the next one.

    Args:
        network: the network.
        state: from ``initial_state`` or a checkpoint; its ``step`` says where to go on.
        images: (n, H, W, C) in [-1, 1], of the network's shape.
        labels: (n,) class indices; None (or a network without classes) trains unconditionally.
        config: the optimisation.
        mesh: devices to spread each batch over; all by default, those of other processes included: each process makes
            the same calls with the same arrays.
        together: updates in a call of the compiled program, at most: it then pays once for handing the state in and
            out. By default one: the state after every update is yielded. How the updates are cut into calls does not
            change them.
        stops: numbers of updates after which the state is yielded in any case.

    The loss yielded is a device array, the mean over the elements of the call's batches. One call stays in flight: each
    is begun before the loop waits for the end of the one before.

    Raises:
        InputError: images, labels or augmentation do not fit the network, the devices do not divide the micro-batch, or
            ``together`` is below 1.
    """
    mesh = parallel.data_mesh() if mesh is None else mesh
    images = as_examples("images", images)
    labels = None if labels is None else as_labels("labels", labels)
    require_whole("together", together)
    check_data(network, images, labels)
    check_batch(config, mesh, images.shape[1:])
    check_augmentation(network, config)
    program = _compiled(network, config, mesh)
    key = keys.stream(keys.seeded(config.seed), "loss")
    state = parallel.put(state, parallel.replicated(mesh))
    if labels is None or not network.unet.label_dim:
        labels = np.zeros(len(images), np.int32)
    size, micro = config.batch_size, config.micro_batch or config.batch_size
    shape = (together, size // micro, micro)
    step, loss, ends = int(state["step"]), None, sorted(stops)
    while step < config.total_steps:
        # One shape for all calls: what is behind the last update of a shorter one is not looked at.
        rows = image_order(config.seed, len(images), step * size, together * size)
        # Numbers wrap at 2^31, after two thousand million images.
        numbers = (np.arange(step * size, (step + together) * size) % 2**31).astype(np.int32)
        given = (
            images[rows].reshape(*shape, *images.shape[1:]),
            labels[rows].astype(np.int32).reshape(shape),
            numbers.reshape(shape),
        )
        place = bisect.bisect_right(ends, step)
        end = min(step + together, config.total_steps, *ends[place : place + 1])
        before = loss
        state, loss = program(state, *parallel.put(given, _batches(mesh)), np.int32(end - step), key)
        jax.block_until_ready(before)
        yield state, {"step": end, "updates": end - step, "loss": loss}
        step = end


def update_program(network: EDMNetwork, batch: int, config: TrainingConfig) -> tuple[Any, list[Any]]:
    """The program of one update on one device, of ``batch`` images at once, and the arguments that it takes.

    For a look at what a training costs: nothing is computed. Where ``config`` cuts batches into micro-batches, the
    update has two of them.

    Returns:
        A compiled function, and its arguments, as ``jax.ShapeDtypeStruct`` wherever they are arrays of numbers.
    """
    shape, params = jax.ShapeDtypeStruct, network.abstract_params
    count = 2 if (config.micro_batch or config.batch_size) < config.batch_size else 1
    own = replace(config, batch_size=count * batch, micro_batch=batch if count > 1 else None)
    whole = shape((), jnp.int32)
    optimizer = jax.eval_shape(optax.scale_by_adam().init, params)
    state = {"params": params, "ema": params, "optimizer": optimizer, "step": whole, "nonfinite": whole}
    more = [params for _ in config.power_ema_stds[1:]]
    state = {**state, "more_ema": more} if more else state
    examples = [
        shape((1, count, batch, *of), kind) for of, kind in ((network.shape, jnp.float32), *[((), jnp.int32)] * 2)
    ]
    program = _compiled(network, own, parallel.data_mesh(jax.local_devices()[:1]))
    return program, [state, *examples, np.int32(1), keys.stream(keys.seeded(0), "loss")]


def updates_together(config: TrainingConfig, shape: tuple[int, ...]) -> int:
    """How many updates a call of ``train_steps`` may well make: eight, if their images of ``shape`` take at most
    64 MB.
    """
    return max(1, min(8, 2**24 // (config.batch_size * math.prod(shape))))


def train_network(
    network: EDMNetwork,
    images: np.ndarray,
    config: TrainingConfig,
    progress: Callable[[int], object] = lambda steps: None,
) -> tuple[PyTree, float]:
    """Train a network without classes from its initial state to the end, keeping nothing on disk.

    Args:
        network: the network.
        images: (n, H, W, C) in [-1, 1], of the network's shape.
        config: the optimisation.
        progress: called with the number of updates done since the last call.

    Returns:
        The averaged parameters, on the host, and the loss averaged over the last tenth of the updates.

    Raises:
        InputError: as ``train_steps``.
    """
    tail, calls = config.total_steps - max(1, config.total_steps // 10), []
    together = updates_together(config, network.shape)
    start = initial_state(network, config)
    for state, info in train_steps(network, start, images, None, config, together=together, stops=(tail,)):  # noqa: B007
        calls.append(info)
        progress(info["updates"])
    return jax.device_get(state["ema"]), mean_loss([call for call in calls if call["step"] > tail])


def mean_loss(calls: Sequence[dict[str, Any]]) -> float:
    """The mean loss over all updates of some calls, of which ``train_steps`` yielded these accounts."""
    losses = jax.device_get([call["loss"] for call in calls])
    return float(np.average(losses, weights=[call["updates"] for call in calls]))


def check_batch(config: TrainingConfig, mesh: Mesh, shape: tuple[int, ...]) -> None:
    """Raise ``InputError`` unless the devices divide the number of images of ``shape`` evaluated at once, and one
    program can hold that many.
    """
    name = "batch_size" if config.micro_batch is None else "micro_batch"
    require(
        getattr(config, name) % mesh.size == 0, name, getattr(config, name), f"a multiple of the {mesh.size} devices"
    )
    check_chunk(name, getattr(config, name), shape)
    check_chunk("batch_size", config.batch_size)


def check_augmentation(network: EDMNetwork, config: TrainingConfig) -> None:
    """Raise ``InputError`` unless the network takes the labels of augmented images."""
    takes = not config.augment_probability or network.unet.augment_dim == AUGMENT_DIM
    require(takes, "augment_dim", network.unet.augment_dim, f"{AUGMENT_DIM} with augment_probability above 0")


def check_data(network: EDMNetwork, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Raise ``InputError`` unless the images and labels fit the network."""
    if images.shape[1:] != network.shape:
        raise InputError(f"images of shape {images.shape[1:]}: the network takes {network.shape} (see img_resolution)")
    require(len(images) > 0, "images", len(images), "at least one")
    if labels is not None and network.unet.label_dim:
        require(len(labels) == len(images), "labels", len(labels), f"one per image ({len(images)})")
        inside = int(labels.min()) >= 0 and int(labels.max()) < network.unet.label_dim
        require(
            inside, "labels", [int(labels.min()), int(labels.max())], f"in 0..{network.unet.label_dim - 1} (label_dim)"
        )
