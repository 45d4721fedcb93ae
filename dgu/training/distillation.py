"""The best affine map of a denoiser at each noise level: exactly, by second moments, or by Adam, as in the paper.

Both minimise ``E |W y + b - D(y)|^2`` over ``y = image + sigma eps`` at one level. Li et al., arXiv 2410.24060, (8),
(9).

On the choice of images: where D is the exact posterior mean of the same images, ``E[D(y) y^T] = E[x y^T]`` and the best
map is that of the images' Gaussian, whatever they are. Distil on images that the denoiser has not seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Float64, Int, Num

from dgu.core import doubles
from dgu.core.arrays import as_doubles, as_floats, to_device
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels, noisy_input
from dgu.core.parallel import run_jobs, shares
from dgu.core.typing import Denoiser, Key, PyTree
from dgu.models.linear import LinearDenoiser
from dgu.training.antithetic_moments import antithetic_moments
from dgu.training.second_moments import CrossMoments, block_size, cross_moments, merged

_HIGHEST = jax.lax.Precision.HIGHEST
_ADAM = optax.scale_by_adam()
#: The authors' learning rates down to these levels: geometric means of the neighbouring levels of their table.
_RATES = ((2.470, 5e-5), (0.2341, 5e-4), (0.04882, 5e-3), (0.0, 5e-2))


@short_repr
@dataclass(frozen=True, eq=False)
class ExactDistillation:
    """The best affine maps from second moments.

    Attributes:
        denoiser: the maps.
        ridges: the ridge rho of each level, ``(L,)``.
        residuals: mean squared difference ``|W y + b - D(y)|^2 / d`` on the examples used, ``(L,)``.
        examples: noisy examples used at each level.
        observed: what ``observe`` returned for the maps found without each group, ``observed[level][group]``.
    """

    denoiser: LinearDenoiser
    ridges: np.ndarray
    residuals: np.ndarray
    examples: int
    observed: list[list[dict[str, Any]]]


@short_repr
@dataclass(frozen=True, eq=False)
class AdamDistillation:
    """Affine maps after training by Adam.

    Attributes:
        denoiser: the maps.
        losses: mean loss (over all entries of outputs) of each epoch, ``(L, epochs)``.
        observed: ``(epoch, what observe returned)`` of each snapshot.
    """

    denoiser: LinearDenoiser
    losses: np.ndarray
    observed: list[tuple[int, PyTree]]


def distill_exactly(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    draws: int = 1,
    antithetic: bool = False,
    ridge: float | int | None = None,
    groups: int = 1,
    groups_of: str = "images",
    observe: Callable[[int, Float64[np.ndarray, "d d"]], Mapping[str, ArrayLike]] | None = None,
    batch_size: int = 512,
    progress: Callable[[int, int], object] | None = None,
) -> ExactDistillation:
    """``W = C_ty (C_yy + rho I)^-1`` and ``b = mean(t) - W mean(y)`` at each level, from one pass over the images.

    C_yy and C_ty are covariances over all noisy examples, ``n * draws`` or twice as many, accumulated in float64 (see
    ``cross_moments``); memory is a few d x d matrices a device, whatever the number of examples, and the solution an
    eigendecomposition of C_yy (see ``solve_moments``). Levels are spread over all devices and hosts
    (``dgu.parallel.run_jobs``).

    The ridge, unless given, minimises the generalised cross-validation

        GCV(rho) = R(rho) / (1 - (1 + sum_i s_i / (s_i + rho)) / N)^2

    over 0 and 200 values from ``d eps s_1`` to ``s_1``, with s the eigenvalues of C_yy, R the mean squared residual and
    N the number of noisy examples; 0 is left out where C_yy is singular. Many examples give 0 or next to it.

    Args:
        denoiser: the denoiser to imitate.
        images: clean images, two or more.
        sigmas: noise levels, positive.
        key: of the noise.
        draws: noisy versions of each image, or pairs of them.
        antithetic: whether each draw is a pair, of a noise and its negative (see ``antithetic_moments``). Where the
            error of the map hardly changes with the sign of the noise, a pair costs two evaluations and is worth about
            four independent noises.
        ridge: rho, 0 or more, or None for the rule above.
        groups: number of groups of examples; W is also found without each of them, as a delete-a-group jackknife needs
            (``dgu.analysis.jackknife_interval``). Memory grows by two matrices a group.
        groups_of: whether a group consists of ``"images"``, or of ``"draws"`` of all images, in both cases of every
            ``groups``-th one.
        observe: ``(place of the level, W without a group) -> arrays by name``, called for each group where there are
            two or more, of several levels at a time; what it returns is kept.
        batch_size: images at a time.
        progress: called as ``progress(levels done, levels)``.

    Raises:
        InputError: too few images, more groups than there are images or draws, a level or ridge out of range, an output
            of another shape than the input or with values that are not finite, or a ridge of 0 where the examples do
            not fix the map.

    Golub, Heath and Wahba (1979) for the rule.
    """
    key = threefry(key)
    require_whole("draws", draws)
    require(ridge is None or 0 <= ridge < np.inf, "ridge", ridge, "0 or more, or None")
    rows, levels = _checked(denoiser, images, sigmas)
    require(groups_of in ("images", "draws"), "groups_of", groups_of, "'images' or 'draws'")
    there = len(rows) if groups_of == "images" else draws
    require(groups == int(groups) and 1 <= groups <= there, "groups", groups, f"from 1 to {there}, the {groups_of}")
    chosen = [np.arange(start, there, groups) for start in range(groups)]
    by_images, moments_of = groups_of == "images", antithetic_moments if antithetic else cross_moments
    block = block_size(len(chosen[0]) if by_images else len(rows), batch_size)

    def moments(model: Denoiser, part: Int[np.ndarray, " members"], sigma: float, level: int) -> CrossMoments:
        options: dict[str, Any] = {"rows": part, "draws": draws} if by_images else {"draws": part.tolist()}
        return moments_of(model, rows, sigma, key, level=level, block=block, **options)

    def one(model: Denoiser, number: int) -> dict[str, Any]:
        parts = [moments(model, part, float(levels[number]), number) for part in chosen]
        found = merged(parts)
        weight, rho, residual = solve_moments(found, ridge)
        bias = (found.mean_output - weight @ found.mean_input).reshape(rows.shape[1:])
        result = {"weight": weight.astype(rows.dtype), "bias": bias.astype(rows.dtype), "ridge": rho, "left": residual}
        if observe is not None and groups > 1:
            without = (merged(parts[:group] + parts[group + 1 :]) for group in range(groups))
            for group, left in enumerate(without):
                seen = observe(number, solve_moments(left, ridge)[0])
                result |= {f"observed{group}.{name}": value for name, value in seen.items()}
        return result

    found = list(run_jobs(one, len(levels), as_pytree(denoiser), what="level", progress=progress))
    weights, biases, ridges, residuals = (
        np.stack([level[name] for level in found]) for name in ("weight", "bias", "ridge", "left")
    )
    seen = [[_of_group(level, group) for group in range(groups)] for level in found]
    return ExactDistillation(
        LinearDenoiser(levels, weights, biases),
        ridges,
        residuals,
        len(rows) * draws * (1 + antithetic),
        seen if observe is not None and groups > 1 else [],
    )


def _of_group(level: dict[str, Any], group: int) -> dict[str, Any]:
    """What was observed without one group, by name."""
    start = f"observed{group}."
    return {name.removeprefix(start): value for name, value in level.items() if name.startswith(start)}


def solve_moments(
    found: CrossMoments, ridge: float | int | None = None
) -> tuple[Float64[np.ndarray, "d d"], float, float]:
    """W, rho and the residual per entry, from moments; see ``distill_exactly``.

    The eigendecomposition and the products of whole matrices are those of ``dgu.core.doubles``, which an accelerator
    takes in float64 where there is one.
    """
    n, size = found.count, len(found.mean_input)
    variances, basis = doubles.eigh(found.inputs / n)
    variances = np.maximum(variances, 0.0)
    rotated = doubles.product(found.cross / n, basis)
    energy, total = (rotated**2).sum(axis=0), found.output_square / n
    floor = size * float(np.finfo(np.float64).eps) * float(variances[-1])

    def residual(rho: float) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = np.where(energy > 0, energy * (variances + 2 * rho) / (variances + rho) ** 2, 0.0)
        return max(total - float(explained.sum()), float(np.finfo(np.float64).eps) * total)

    regular = n > size + 1 and bool(variances[0] > floor)
    if ridge is None:
        grid = np.geomspace(floor, variances[-1], 200) if floor > 0 else np.array([1.0])
        candidates = np.append([0.0] if regular else [], grid)
        freedom = np.array([1 + float((variances / (variances + rho)).sum()) for rho in candidates])
        left = 1 - freedom / n
        scores = [residual(rho) / one**2 if one > 0 else np.inf for rho, one in zip(candidates, left)]
        rho = float(candidates[int(np.argmin(scores))])
    else:
        rho = float(ridge)
        require(
            rho > 0 or regular, "ridge", ridge, f"positive where {n} noisy examples do not fix a map of {size} pixels"
        )
    weight = doubles.product(rotated / (variances + rho), basis.T)
    return weight, rho, residual(rho) / size


def author_learning_rates(sigmas: Sequence[float] | Num[ArrayLike, " levels"]) -> Float64[np.ndarray, " levels"]:
    """Adam's learning rates of the authors' code (its table for EDM-VP): 5e-5 for the levels 80 to 4.07 of their grid,
    5e-4 for 1.50 and 0.47, 5e-3 for 0.117, 5e-2 below; a level between two of these has the nearer one's (in log)."""
    return np.array([next(rate for low, rate in _RATES if level > low) for level in as_doubles("sigmas", sigmas)])


def distill_by_adam(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    learning_rates: Sequence[float] | Num[ArrayLike, " levels"] | None = None,
    snapshot_every: int = 5,
    observe: Callable[[int, LinearDenoiser], PyTree] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> AdamDistillation:
    """The authors' distillation: the noise levels trained together, a share of them on each device of every host.

    The model is ``V y / sqrt(d) + b`` with V and b from 0 (so ``W = V / sqrt(d)``), the loss the mean over all entries
    of a batch, the images in their own order, with fresh noise in each epoch; the last batch of an epoch may be
    smaller.

    Args:
        denoiser: the denoiser to imitate.
        images: clean images, two or more.
        sigmas: noise levels, positive.
        key: of the noise, addressed by level, image and epoch.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rates: one for each level; ``author_learning_rates`` by default.
        snapshot_every: epochs between calls of ``observe``.
        observe: ``(epochs done, maps) -> anything``, called before the first epoch (0), every ``snapshot_every`` epochs
            and after the last; what it returns is kept.
        progress: called as ``progress(epochs done, epochs)``.

    Raises:
        InputError: too few images, values out of range, or losses that are not finite (it names level and epoch).

    Li et al., arXiv 2410.24060, section 3 and Algorithm 1, where the noise's variance ``sigma`` is a misprint.
    """
    key = threefry(key)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("snapshot_every", snapshot_every)):
        require_whole(name, value)
    rows, levels = _checked(denoiser, images, sigmas)
    rates = as_floats(
        "learning_rates", author_learning_rates(levels) if learning_rates is None else learning_rates
    ).astype(rows.dtype)
    require(rates.shape == levels.shape, "learning_rates", rates.shape, f"one for each of {len(levels)} levels")
    require(bool((np.isfinite(rates) & (rates > 0)).all()), "learning_rates", rates.tolist(), "positive and finite")
    blocks, numbers, counts = _batches(rows, batch_size)
    size, kind = rows[0].size, rows.dtype
    groups = shares(len(levels))
    states: dict[int, PyTree] = {}

    def start(group: np.ndarray) -> PyTree:
        params = {"v": jnp.zeros((len(group), size, size), kind), "b": jnp.zeros((len(group), size), kind)}
        return params, jax.vmap(_ADAM.init)(params)

    def maps_of(group: np.ndarray, params: PyTree) -> dict[str, np.ndarray]:
        weights = np.array(params["v"]) / np.sqrt(size).astype(kind)
        return {"weights": weights, "biases": np.array(params["b"]).reshape(len(group), *rows.shape[1:])}

    def one(fixed: tuple[Any, ...], number: int, epoch: int, seen: bool) -> dict[str, Any]:
        """An epoch of a group of levels, whose state stays on the device of the group."""
        group = groups[number]
        at = levels[group].astype(kind), group, rates[group]
        state = states.pop(number, None) or start(group)
        states[number], loss = _adam_epoch(state, *fixed, *at, key, np.int32(epoch))
        return {"losses": loss} | (maps_of(group, states[number][0]) if seen else {})

    def together(parts: Sequence[Mapping[str, Any]]) -> LinearDenoiser:
        return LinearDenoiser(levels, *(np.concatenate([one[name] for one in parts]) for name in ("weights", "biases")))

    fixed = as_pytree(denoiser), to_device(blocks), to_device(numbers), to_device(counts)
    nothing = {
        "weights": np.zeros((len(levels), size, size), kind),
        "biases": np.zeros((len(levels), *rows.shape[1:]), kind),
    }
    observed = [] if observe is None else [(0, observe(0, together([nothing])))]
    losses = np.empty((len(levels), epochs))
    for epoch in range(epochs):
        done = epoch + 1
        last, seen = done == epochs, observe is not None and done % snapshot_every == 0
        job = partial(one, epoch=epoch, seen=seen or last)
        found = list(run_jobs(job, len(groups), fixed, what="group of levels"))
        losses[:, epoch] = np.concatenate([part["losses"] for part in found])
        bad = np.flatnonzero(~np.isfinite(losses[:, epoch]))
        if bad.size:
            where = f"sigma = {levels[bad[0]]:.6g}, epoch {epoch}"
            raise InputError(
                f"denoiser {type(denoiser).__name__!r}: non-finite distillation loss at {where}: must be finite"
            )
        if observe is not None and (seen or last):
            observed.append((done, observe(done, together(found))))
        if progress is not None:
            progress(done, epochs)
    return AdamDistillation(together(found), losses, observed)


@partial(jax.jit, donate_argnums=0)
def _adam_epoch(
    state: PyTree,
    denoiser: Denoiser,
    blocks: Float[Array, "blocks b *event"],
    numbers: Int[Array, "blocks b"],
    counts: Bool[Array, "blocks b"],
    sigmas: Float[Array, " levels"],
    places: Int[Array, " levels"],
    rates: Float[Array, " levels"],
    key: Key,
    epoch: Array,
) -> tuple[PyTree, Float[Array, " levels"]]:
    """One epoch of every level, whose noise is addressed by its place: the new state and each level's mean loss."""
    root = blocks[0, 0].size ** 0.5

    def step(state: PyTree, batch: tuple[Any, ...]) -> tuple[PyTree, Array]:
        images, number, count = batch
        weights = count.astype(images.dtype)

        def teacher(at: tuple[Array, Array]) -> tuple[Array, Array]:
            sigma, level = at
            noisy = jax.vmap(lambda image, i: noisy_input(key, image, i, sigma, level, epoch))(images, number)
            targets = jax.vmap(lambda x: denoise(denoiser, x, sigma))(noisy).reshape(len(images), -1)
            return noisy.reshape(targets.shape) / root, targets

        def one_level(params: PyTree, adam: PyTree, scaled: Array, targets: Array, rate: Array) -> tuple[Any, ...]:
            def loss(params: PyTree) -> Array:
                out = jnp.matmul(scaled, params["v"].T, precision=_HIGHEST) + params["b"][None]
                each = jnp.mean(jnp.square(out - targets), axis=1)
                return jnp.sum(each * weights) / jnp.sum(weights)

            value, slope = jax.value_and_grad(loss)(params)
            move, adam = _ADAM.update(slope, adam, params)
            return jax.tree.map(lambda p, m: p - rate * m, params, move), adam, value

        # The teacher may be a large network: one level's batch at a time, then all levels' updates together.
        scaled, targets = jax.lax.map(teacher, (sigmas, places))
        params, adam, values = jax.vmap(one_level)(state[0], state[1], scaled, targets, rates)
        return (params, adam), values * jnp.sum(weights)

    state, sums = jax.lax.scan(step, state, (blocks, numbers, counts))
    return state, jnp.sum(sums, axis=0) / jnp.sum(counts.astype(sums.dtype))


def _batches(rows: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Batches in the images' order, all full but the last; places that count for nothing fill it up."""
    size = min(batch_size, len(rows))
    places = np.arange(-(-len(rows) // size) * size)
    counts = (places < len(rows)).reshape(-1, size)
    numbers = np.minimum(places, len(rows) - 1).astype(np.int32).reshape(-1, size)
    return rows[numbers], numbers, counts


def _checked(denoiser: Denoiser, images: ArrayLike, sigmas: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    rows = checked_images(images, 2)
    levels = checked_levels(sigmas, {"denoiser": denoiser})
    require(bool((levels > 0).all()), "sigmas", levels.tolist(), "positive")
    return rows, levels
