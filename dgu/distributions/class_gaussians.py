"""One Gaussian per class, with the class's own mean and covariance: the mixture that universality compares images with.

A Gaussian is held by its mean and a root of its covariance, ``root^T root = covariance``, and sampled as
``mean + root^T z`` with z standard normal. With n images of d pixels, n < d, the root is the centred data itself,
``Xc / sqrt(n - 1)``, exact and free (Ghane et al., arXiv 2501.07741, draw the same law from a d x d singular value
decomposition); otherwise it is the symmetric square root, from the singular values of that data. Sample ``i`` of a
class depends on the key, the class and ``i`` alone, so classes, arms and repeated calls never share noise unless the
same address is asked for twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.core import linalg
from dgu.core.arrays import as_floats, as_jax_floats, as_plain, check_squares
from dgu.core.chunks import check_chunk
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import stream, streams, threefry
from dgu.core.parallel import on_one_device, run_jobs
from dgu.core.typing import Key

_HIGHEST = jax.lax.Precision.HIGHEST

Label: TypeAlias = int | np.integer | Integer[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianRoot:
    """The Gaussian ``N(mean, root^T root)``: ``mean`` ``(d,)``, ``root`` ``(r, d)``, r = n rows of data or r = d."""

    mean: Any
    root: Any


def fit_gaussian(rows: Num[ArrayLike, "n d"]) -> GaussianRoot:
    """The Gaussian with the mean and the covariance (``ddof=1``) of ``rows``, n at least 2.

    For n < d the root is ``Xc / sqrt(n - 1)`` and no d x d matrix is formed. Otherwise it is ``V diag(s) V^T`` of the
    singular value decomposition ``Xc / sqrt(n - 1) = U diag(s) V^T``: the symmetric root is a continuous function of
    the data, which bare singular vectors (signs, degenerate pairs) are not. The covariance itself is never formed: the
    square root of an eigenvalue of rounding size would give a direction without variance a spread of 3e-4 in float32;
    here it keeps one of 1e-7. Pure: ``vmap`` it over classes of one size and over replicates.
    """
    check_squares(rows=rows)
    rows = as_jax_floats("rows", rows)
    n, d = rows.shape
    mean = jnp.mean(rows, axis=0, keepdims=True)
    mean = mean + jnp.mean(rows - mean, axis=0, keepdims=True)
    scaled = (rows - mean) / jnp.asarray((n - 1) ** 0.5, rows.dtype)
    if n < d:
        return GaussianRoot(mean[0], scaled)
    _, deviations, directions = linalg.svd(scaled)
    return GaussianRoot(mean[0], jnp.matmul(directions.T * deviations[None, :], directions, precision=_HIGHEST))


def draw_gaussian(gaussian: GaussianRoot, key: Key, indices: Integer[ArrayLike, " m"]) -> Float[Array, "m d"]:
    """Samples number ``indices`` of one Gaussian, ``(m, d)``. Pure: ``vmap`` it over classes and replicates.

    ``key`` is the Gaussian's own: ``class_key(key, label)`` gives what ``GaussianMixtureSampler`` uses. Sample ``i`` is
    ``mean + root^T z`` with ``z = normal(fold_in(key, i), (r,))``.

    Raises:
        InputError: indices (not traced ones) that are no integers from 0 to 2^31 - 1.
    """
    key = threefry(key)
    numbers = indices if isinstance(indices, jax.core.Tracer) else _checked_indices(indices)
    size, dtype = gaussian.root.shape[0], gaussian.root.dtype
    z = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (size,), dtype))(jnp.asarray(numbers))
    return gaussian.mean[None, :] + jnp.matmul(z, gaussian.root, precision=_HIGHEST)


def class_key(key: Key, label: Label) -> Key:
    """The key that ``GaussianMixtureSampler.sample(key, label, ...)`` draws class ``label`` from."""
    key = threefry(key)
    return stream(key, "gaussian mixture", label)


def class_keys(key: Key, count: int) -> Key:
    """``class_key`` of the classes 0 to ``count - 1``, ``(count,)``."""
    return streams(stream(key, "gaussian mixture"), range(count))


_fit = jax.jit(fit_gaussian)
_fit_classes = jax.jit(jax.vmap(fit_gaussian))
_draw_classes = jax.jit(jax.vmap(draw_gaussian, in_axes=(0, 0, None)))


def fit_gaussians(rows: Num[ArrayLike, "classes n d"]) -> GaussianRoot:
    """``fit_gaussian`` of the rows of each class: a ``GaussianRoot`` whose leaves have a leading axis of classes."""
    return _fit_classes(as_jax_floats("rows", rows))


def draw_gaussians(gaussians: GaussianRoot, key: Key, count: int) -> Float[np.ndarray, "classes count d"]:
    """Samples number 0 to ``count - 1`` of each class, from ``class_key(key, label)`` with the classes numbered from 0.

    Args:
        gaussians: as ``fit_gaussians`` returns them.
        key: of the mixture.
        count: samples of each class.

    Raises:
        InputError: ``count`` below 1.
    """
    key = threefry(key)
    require_whole("count", count, 1)
    return np.asarray(_draw_classes(gaussians, class_keys(key, len(gaussians.mean)), np.arange(count)))


@jax.jit
def _draw_chunk(gaussian: GaussianRoot, key: Key, indices: Array) -> Array:
    return draw_gaussian(gaussian, key, indices)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianMixtureSampler:
    """Per-class Gaussians fitted to labelled images. Make it with ``fit``; a pytree whose leaves are means and roots.

    Fitting again to what it samples (``fit(sampler.sample(...), ...)`` with the same number of images per class) gives
    the null arm: what the finite fit alone does to data that is exactly Gaussian.

    Fields: ``gaussians`` a ``GaussianRoot`` per class, ``classes`` their labels, ascending, ``shape`` of one image.
    """

    gaussians: tuple[Any, ...]
    classes: tuple[int, ...] = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})

    @classmethod
    def fit(cls, images: Num[ArrayLike, " n *event"], labels: Sequence[Any] | ArrayLike) -> "GaussianMixtureSampler":
        """Fit one Gaussian (mean, covariance with ``ddof=1``) to the images of each label.

        A class's fit depends on its own images alone, and classes are spread over all devices and hosts. They may
        differ in size and labels may be any integers; classes of one size share one compiled program (for many refits
        in a single call, ``vmap`` ``fit_gaussian``).
        For n < d the sampler keeps the centred images, as much memory as the data; otherwise d x d numbers per class.

        Args:
            images: ``(n, *event)``, of any event shape.
            labels: one integer per image.

        Raises:
            InputError: labels and images differ in number, a class has fewer than 2 images, or values are not finite.
        """
        size, shape = np.shape(images)[0], np.shape(images)[1:]
        labels = np.asarray(labels)
        require(labels.shape == (size,), "labels.shape", labels.shape, f"({size},), one label per image")
        require(size >= 1 and prod(shape) >= 1, "images.shape", np.shape(images), "(n, ...), n at least 2 per class")
        require(labels.dtype.kind in "iu", "labels.dtype", str(labels.dtype), "an integer type")
        classes, counts = np.unique(labels, return_counts=True)
        for label, count in zip(classes.tolist(), counts.tolist()):
            require(count >= 2, f"images of class {label}", count, "at least 2 for a covariance")
        images = (
            as_jax_floats("images", on_one_device(images)) if isinstance(images, Array) else as_floats("images", images)
        )

        def one(_: None, number: int) -> dict[str, Any]:
            rows = as_jax_floats("images", images[np.flatnonzero(labels == classes[number])]).reshape(-1, prod(shape))
            check_squares(images=rows)
            gaussian = _fit(rows)
            finite = bool(np.isfinite(np.asarray(gaussian.mean)).all())
            require(finite, f"images of class {classes[number]}", "non-finite", "finite")
            return {"mean": gaussian.mean, "root": gaussian.root}

        fits = run_jobs(one, len(classes), what="class number")
        gaussians = [GaussianRoot(jnp.asarray(fit["mean"]), jnp.asarray(fit["root"])) for fit in fits]
        return cls(tuple(gaussians), tuple(classes.tolist()), shape)

    def gaussian(self, label: Label) -> GaussianRoot:
        """The fitted Gaussian of class ``label``, over flattened images.

        Raises:
            InputError: ``label`` is not one of the fitted classes.
        """
        number = np.asarray(label)[()]
        known = np.ndim(number) == 0 and number in self.classes
        shown = number.item() if isinstance(number, np.generic) else number
        require(bool(known), "label", shown, f"one of the fitted classes {list(self.classes)}")
        return self.gaussians[self.classes.index(int(label))]

    def sample(
        self,
        key: Key,
        label: Label,
        indices: Sequence[Any] | ArrayLike,
        *,
        batch_size: int = 256,
    ) -> Float[Array, " m *event"]:
        """Samples number ``indices`` of class ``label``: ``(len(indices), *event)``, neither clipped nor quantised.

        Sample ``i`` depends on ``(key, label, i)`` alone; give every arm, split and replicate its own key
        (``dgu.keys.stream``). It is drawn in chunks of ``batch_size`` on the grid of absolute indices, with one
        compilation per root's shape: at one ``batch_size`` a sample is the same bit for bit from any subset or order
        of indices, and its draw is the same for every ``batch_size``. Memory: the result and ``batch_size * (r + d)``
        numbers.

        Args:
            key: typed key of the arm.
            label: the class.
            indices: the samples' numbers, 0 or more, in any order; not traced.
            batch_size: samples per compiled call.

        Raises:
            InputError: unknown label, a negative index, indices that are no list of integers, ``batch_size`` below 1.
        """
        key = threefry(key)
        gaussian = self.gaussian(label)
        check_chunk("batch_size", batch_size, (prod(self.shape),), gaussian.mean.dtype)
        numbers = _checked_indices(indices)
        key = class_key(key, label)
        out = np.empty((numbers.size, prod(self.shape)), gaussian.mean.dtype)
        chunks, offsets = np.divmod(numbers, batch_size)
        every = np.unique(chunks)

        def one(gaussian: GaussianRoot, number: int) -> dict[str, Array]:
            grid = (every[number] * batch_size + np.arange(batch_size)).astype(np.uint32)
            return {"drawn": _draw_chunk(gaussian, key, grid)}

        for chunk, found in zip(every, run_jobs(one, len(every), gaussian, what="chunk of samples")):
            wanted = chunks == chunk
            out[wanted] = found["drawn"][offsets[wanted]]
        return jnp.asarray(out.reshape(numbers.size, *self.shape))


def _checked_indices(indices: Any) -> np.ndarray:
    numbers = as_plain("indices", indices)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(f"indices = {indices!r}: must be a one-dimensional list of integers")
    numbers = numbers.astype(np.int64)
    low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
    require(low >= 0 and high < 2**31, "indices", (low, high), "from 0 to 2**31 - 1")
    return numbers
