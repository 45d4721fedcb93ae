"""The training loop: EDM's arithmetic (Karras et al. 2022; learning-rate ramp, Adam, half-life EMA), resumable and
sharded.

Everything random is addressed by the number of the training image: which image comes when (one permutation per epoch),
its noise level, noise, dropout and augmentation. A run that was killed and started again, or cut into other
micro-batches, sees the same draws.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float

from dgu.core import keys, parallel
from dgu.core.arrays import as_examples, as_labels
from dgu.core.chunks import check_chunk
from dgu.core.errors import InputError, require
from dgu.core.typing import Key, PyTree
from dgu.models.edm import EDMNetwork, is_constant
from dgu.training.augment import AUGMENT_DIM
from dgu.training.losses import LossName, sampled_loss


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained. Image counts are in thousands (kimg), as in the reference."""

    duration_kimg: float = 200_000.0
    """Training images to see, in thousands."""
    batch_size: int = 512
    """Images per parameter update."""
    micro_batch: int | None = None
    """Images per gradient evaluation, to save memory; None is the whole batch."""
    learning_rate: float = 1e-3
    """Adam's step size after the ramp."""
    rampup_kimg: float = 10_000.0
    """The learning rate rises linearly from 0 over these images."""
    ema_halflife_kimg: float = 500.0
    """Half-life of the parameter average."""
    ema_rampup_ratio: float | None = 0.05
    """The half-life is at most this share of the images seen so far; None switches the ramp off."""
    loss: LossName = "edm"
    """Distribution and weights of the noise levels: EDM's, of the VP or VE process, or (vesde) of dx = 25^t dW."""
    p_mean: float = -1.2
    """Mean of ln sigma in training (EDM's loss)."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training (EDM's loss)."""
    augment_probability: float = 0.0
    """How often each kind of augmentation is done to an image (the network is told); 0 is none at all."""
    loss_scaling: float = 1.0
    """Factor on the loss before the gradient (the reference uses 100 with 16-bit floats)."""
    seed: int = 0
    """Seed of the initial parameters, the order of the data and the noise."""

    def __post_init__(self) -> None:
        for name in ("duration_kimg", "learning_rate", "p_std", "loss_scaling"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        for name in ("rampup_kimg", "ema_halflife_kimg"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "at least 0 and finite")
        ratio = self.ema_rampup_ratio
        require(ratio is None or 0 < ratio < math.inf, "ema_rampup_ratio", ratio, "positive and finite, or None")
        require(self.loss in get_args(LossName), "loss", self.loss, f"one of {', '.join(get_args(LossName))}")
        require(math.isfinite(self.p_mean), "p_mean", self.p_mean, "finite")
        probability = self.augment_probability
        require(0 <= probability <= 1, "augment_probability", probability, "in [0, 1]")
        require(1 <= self.batch_size < 2**31, "batch_size", self.batch_size, "at least 1, below 2**31")
        countable = self.duration_kimg * 1000 >= 1 and self.duration_kimg * 1000 / self.batch_size < 2**31
        allowed = "an image or more, and fewer than 2**31 updates of batch_size images"
        require(countable, "duration_kimg", self.duration_kimg, allowed)
        divides = self.micro_batch is None or (self.micro_batch >= 1 and self.batch_size % self.micro_batch == 0)
        require(divides, "micro_batch", self.micro_batch, f"a divisor of batch_size {self.batch_size}")
        require(0 <= self.seed < 2**32, "seed", self.seed, "in 0..2^32 - 1")

    @property
    def total_steps(self) -> int:
        """Parameter updates in the whole run."""
        return -(-round(self.duration_kimg * 1000) // self.batch_size)


def learning_rate_at(images_seen: Float[Array, ""], config: TrainingConfig) -> Float[Array, ""]:
    """``lr0 * min(images_seen / ramp, 1)`` with the images seen *before* the update, so the first one is 0."""
    if not config.rampup_kimg:
        return jnp.full_like(images_seen, config.learning_rate)
    return config.learning_rate * jnp.minimum(images_seen / (config.rampup_kimg * 1000), 1)


def ema_decay_at(images_seen: Float[Array, ""], config: TrainingConfig) -> Float[Array, ""]:
    """``0.5^(batch / H)`` with the half-life ``H = min(halflife, ratio * images_seen)``; 0 (a copy) at the first
    update.
    """
    halflife = jnp.full_like(images_seen, config.ema_halflife_kimg * 1000)
    if config.ema_rampup_ratio is not None:
        halflife = jnp.minimum(halflife, config.ema_rampup_ratio * images_seen)
    return 0.5 ** (config.batch_size / jnp.maximum(halflife, 1e-8))


def initial_state(network: EDMNetwork, config: TrainingConfig) -> PyTree:
    """``{"params", "ema", "optimizer", "step", "nonfinite"}`` before the first update."""
    params = network.init(keys.stream(keys.seeded(config.seed), "init"))
    return {
        "params": params,
        "ema": jax.tree.map(jnp.copy, params),
        "optimizer": optax.scale_by_adam().init(params),
        "step": jnp.zeros((), jnp.int32),
        "nonfinite": jnp.zeros((), jnp.int32),
    }


def update(state: PyTree, gradients: PyTree, config: TrainingConfig) -> PyTree:
    """One parameter update from the gradient of ``loss_scaling * sum over pixels, mean over the batch``.

    Non-finite gradients are replaced as the reference does (NaN by 0, infinities by +-1e5) and counted in
    ``nonfinite``; then Adam (0.9, 0.999, eps 1e-8) with the ramped learning rate, then the average ``ema <- b ema + (1
    - b) params``.
    """
    bad = jnp.asarray(sum(jnp.sum(~jnp.isfinite(g)) for g in jax.tree.leaves(gradients)))
    gradients = jax.tree.map(lambda g: jnp.nan_to_num(g, nan=0.0, posinf=1e5, neginf=-1e5), gradients)
    # Image counts pass 2^24, where float32 stops counting single images; ramps need no more than that precision.
    seen = state["step"].astype(jnp.result_type(float)) * config.batch_size
    direction, optimizer = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8).update(gradients, state["optimizer"])
    rate = learning_rate_at(seen, config)
    params = jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), state["params"], direction)
    ema = optax.incremental_update(params, state["ema"], 1 - ema_decay_at(seen, config))
    # Constants have no gradient, so that Adam leaves them alone; an average of equal numbers would still round.
    ema = jax.tree_util.tree_map_with_path(
        lambda path, e, p: p if is_constant(path) else e.astype(p.dtype), ema, params
    )
    return {
        "params": params,
        "ema": ema,
        "optimizer": optimizer,
        "step": state["step"] + 1,
        "nonfinite": state["nonfinite"] + bad.astype(jnp.int32),
    }


def _gradients(
    params: PyTree,
    images: Array,
    labels: Array | None,
    numbers: Array,
    key: Key,
    network: EDMNetwork,
    config: TrainingConfig,
) -> tuple[Array, PyTree]:
    """Mean loss per element and the gradient of the scaled loss over one micro-batch, summed over it."""

    def objective(params: PyTree) -> tuple[Array, Array]:
        def one(image: Array, label: Array | None, number: Array) -> Array:
            one_key = jax.random.fold_in(key, number)
            return sampled_loss(
                network, params, image, label, one_key, loss=config.loss, p_mean=config.p_mean, p_std=config.p_std,
                augment_probability=config.augment_probability,
            )  # fmt: skip

        losses = jax.vmap(one)(images, labels, numbers)
        return jnp.sum(losses) * (config.loss_scaling / config.batch_size), jnp.mean(losses)

    gradients, loss = jax.grad(objective, has_aux=True)(params)
    return loss, gradients


def _compiled(
    network: EDMNetwork, config: TrainingConfig, mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """The jitted programs of a run: a whole step; and for micro-batches, a gradient that accumulates, and an update.

    Neither seed nor length is in them: runs of one network that differ in these (and in their images) share the
        programs.
    """
    return _programs(network, replace(config, seed=0, duration_kimg=1.0), mesh)


@lru_cache(maxsize=8)
def _programs(
    network: EDMNetwork, config: TrainingConfig, mesh: Mesh
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    everywhere, batch = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    inputs = (batch, batch, batch, everywhere)

    @partial(jax.jit, donate_argnums=0, in_shardings=(everywhere, *inputs), out_shardings=everywhere)
    def whole(state: PyTree, images: Array, labels: Array, numbers: Array, key: Key) -> tuple[PyTree, Array]:
        loss, gradients = _gradients(state["params"], images, labels, numbers, key, network, config)
        return update(state, gradients, config), loss

    @partial(jax.jit, donate_argnums=1, in_shardings=(everywhere, everywhere, *inputs), out_shardings=everywhere)
    def accumulate(
        params: PyTree, total: PyTree, images: Array, labels: Array, numbers: Array, key: Key
    ) -> tuple[Array, PyTree]:
        loss, gradients = _gradients(params, images, labels, numbers, key, network, config)
        return loss, jax.tree.map(jnp.add, total, gradients)

    finish = jax.jit(lambda state, gradients: update(state, gradients, config), donate_argnums=0)
    return whole, accumulate, finish


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
) -> Iterator[tuple[PyTree, dict[str, Any]]]:
    """Yield ``(state, {"step", "loss"})`` after each update until ``config.total_steps``; ``state`` is donated to the
    next one.

    Args:
        network: the network.
        state: from ``initial_state`` or a checkpoint; its ``step`` says where to go on.
        images: (n, H, W, C) in [-1, 1], of the network's shape.
        labels: (n,) class indices; None (or a network without classes) trains unconditionally.
        config: the optimisation.
        mesh: devices to spread each batch over; all by default, those of other processes included: each process makes
            the same calls with the same arrays.

    The loss yielded is a device array (elementwise mean over the batch): as long as it is rarely read, the loop does
    not wait for the device.

    Raises:
        InputError: images, labels or augmentation do not fit the network, or the devices do not divide the micro-batch.
    """
    mesh = parallel.data_mesh() if mesh is None else mesh
    images = as_examples("images", images)
    labels = None if labels is None else as_labels("labels", labels)
    check_data(network, images, labels)
    check_batch(config, mesh, images.shape[1:])
    check_augmentation(network, config)
    micro = config.micro_batch or config.batch_size
    whole, accumulate, finish = _compiled(network, config, mesh)
    key = keys.stream(keys.seeded(config.seed), "loss")
    batch_sharding = parallel.batch_sharding(mesh)
    state = parallel.put(state, parallel.replicated(mesh))
    if labels is None or not network.unet.label_dim:
        labels = np.zeros(len(images), np.int32)
    for step in range(int(state["step"]), config.total_steps):
        start = step * config.batch_size
        rows = image_order(config.seed, len(images), start, config.batch_size)
        # Numbers wrap at 2^31, after two thousand million images.
        numbers = (np.arange(start, start + config.batch_size) % 2**31).astype(np.int32)

        def put(part: slice, rows: np.ndarray = rows, numbers: np.ndarray = numbers) -> tuple[Array, ...]:
            return parallel.put(
                (images[rows[part]], labels[rows[part]].astype(np.int32), numbers[part]), batch_sharding
            )

        if micro == config.batch_size:
            state, loss = whole(state, *put(slice(None)), key)
        else:
            # Not a scan: the gradient of a convolution inside one runs ten times slower on CPU.
            total, losses = jax.tree.map(jnp.zeros_like, state["params"]), []
            for at in range(0, config.batch_size, micro):
                loss, total = accumulate(state["params"], total, *put(slice(at, at + micro)), key)
                losses.append(loss)
            state = finish(state, total)
            loss = jnp.stack(losses).mean()
        yield state, {"step": step + 1, "loss": loss}


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
    losses = []
    for state, info in train_steps(network, initial_state(network, config), images, None, config):  # noqa: B007
        losses.append(info["loss"])
        if len(losses) > 1:
            losses[-2].block_until_ready()  # One step stays in flight.
        progress(1)
    tail = [float(loss) for loss in losses[-max(1, len(losses) // 10) :]]
    return jax.device_get(state["ema"]), float(np.mean(tail))


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
