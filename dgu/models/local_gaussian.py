"""The Gaussian counterpart of local denoisers: a Wiener filter of finite support for each class of positions."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core import doubles
from dgu.core.arrays import as_doubles, as_floats, at_least_single, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.typing import Event, Scalar
from dgu.models.windows import canvas_of, check_window, position_classes, window_pixels, windows_of

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LocalGaussianDenoiser:
    """The posterior mean of each pixel given the window around it, where windows are Gaussian.

        denoiser(x, sigma)[p] = mu_p + C_{p,W} (C_WW + sigma^2 I)^{-1} (x_W - mu_W)
                              = mu_p + U_p diag(lam / (lam + sigma^2)) U^T (x_W - mu_W),    C_WW = U diag(lam) U^T

    with the rows ``U_p`` of the window's middle: the filter form keeps all digits at small ``sigma``. The windows at p
    in the images have the mean ``mu_W`` and the covariance ``C_WW``. Where ``equivariant``, they are those of the
    windows at all positions of the class of p, as ``LocalDenoiser`` defines it, mixed: what means differ by from
    position to position is part of the covariance. One class for all positions makes it a convolution.

    A window that is the whole image gives ``GaussianDenoiser``. ``LocalDenoiser`` of ever more images of a Gaussian
    tends to it where windows are not mixed.

    The window's Gaussian in place of the training windows of Kamb and Ganguli, arXiv 2412.20292.

    Attributes:
        mean: mu, ``(g, k, k, c)``, the window of each of g classes of positions, zeros beyond the border.
        basis: U, ``(g, k, k, c, r)``, orthonormal columns within a class.
        variances: lam, ``(g, r)``, 0 or more, and 0 for columns that fill up a class of smaller rank.
        classes: ``(h, w)``, the class of each pixel, 0 to g - 1.
        boundary: ``"zero"``, ``"circular"`` or ``"bordered"``. Static.
    """

    mean: Any
    basis: Any
    variances: Any
    classes: Any
    boundary: str = field(default="zero", metadata={"static": True}, kw_only=True)

    @classmethod
    def fit(
        cls, images: Num[ArrayLike, "..."], window: int, *, equivariant: bool = False, boundary: str = "zero"
    ) -> "LocalGaussianDenoiser":
        """The Gaussian of the windows of ``images``, their covariance divided by the number of images.

        Args:
            images: ``(n, h, w, c)``, n at least 2.
            window, equivariant, boundary: as in ``LocalDenoiser``.

        Raises:
            InputError: fewer than 2 images, values that are not finite, or a window that does not fit.
        """
        data = as_floats("images", images)
        require(data.ndim == 4, "images.shape", data.shape, "(n, h, w, c)")
        require(len(data) >= 2, "images", f"{len(data)} examples", "at least 2")
        check_window(window, boundary, data.shape[1:])
        require(bool(np.isfinite(data).all()), "images", "an array with values that are not finite", "finite")
        check_squares(images=data)
        rows = data.reshape(len(data), -1).astype(np.float64)
        mean = rows.mean(0)
        rows -= mean
        moments = mean.reshape(data.shape[1:]), rows.T @ rows / len(data)
        return cls._of(*moments, window, equivariant, boundary, data.dtype)

    @classmethod
    def from_moments(
        cls,
        mean: Num[ArrayLike, "..."],
        covariance: Num[ArrayLike, "..."],
        window: int,
        *,
        equivariant: bool = False,
        boundary: str = "zero",
    ) -> "LocalGaussianDenoiser":
        """The windows of images with a given ``mean`` ``(h, w, c)`` and ``covariance`` ``(d, d)`` or ``(*event,
        *event)``.

        Raises:
            InputError: moments of other shapes or not finite, or a window that does not fit.
        """
        centre, given = as_doubles("mean", mean), as_floats("covariance", covariance)
        require(centre.ndim == 3, "mean.shape", centre.shape, "(h, w, c)")
        check_window(window, boundary, centre.shape)
        d = centre.size
        fits = given.shape in ((d, d), (*centre.shape, *centre.shape))
        require(fits, "covariance.shape", given.shape, f"{(d, d)} or {(*centre.shape, *centre.shape)}")
        for name, values in {"mean": centre, "covariance": given}.items():
            require(bool(np.isfinite(values).all()), name, "an array with values that are not finite", "finite")
        return cls._of(centre, given.reshape(d, d).astype(np.float64), window, equivariant, boundary, given.dtype)

    @classmethod
    def _of(
        cls, mean: np.ndarray, covariance: np.ndarray, window: int, equivariant: bool, boundary: str, dtype: Any
    ) -> "LocalGaussianDenoiser":
        h, w, c = mean.shape
        down, right = (position_classes(n, window, boundary, equivariant) for n in (h, w))
        _, classes = np.unique(down[:, None] * w + right, return_inverse=True)
        classes = classes.reshape(h, w)
        # Numbers of the entries of each window, those beyond the border that of one more, which is always 0.
        pixels = window_pixels(h, w, window, boundary)
        entries = np.minimum(pixels[..., None] * c + np.arange(c), mean.size).reshape(h * w, -1)
        centre = np.append(mean.ravel(), 0.0)
        spread = np.pad(covariance, ((0, 1), (0, 1)))
        means, bases, variances = [], [], []
        for number in range(classes.max() + 1):
            members = entries[classes.ravel() == number]
            seen = (members < mean.size).any(axis=0)  # The others are 0 in all these windows.
            members = members[:, seen]
            middle = centre[members].mean(0)
            apart = centre[members] - middle
            matrix = sum(spread[np.ix_(one, one)] for one in members) / len(members) + apart.T @ apart / len(members)
            values, vectors = doubles.eigh((matrix + matrix.T) / 2)
            kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
            means.append(np.zeros(len(seen)))
            means[-1][seen] = middle
            bases.append(np.zeros((len(seen), kept.sum())))
            bases[-1][seen] = vectors[:, kept][:, ::-1]
            variances.append(values[kept][::-1])
        rank = max(1, *(len(one) for one in variances))
        shape = (len(means), window, window, c)
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        return cls(
            jnp.asarray(np.reshape(means, shape), dtype),
            jnp.asarray(np.reshape([_widened(one, rank) for one in bases], (*shape, rank)), dtype),
            jnp.asarray([_widened(one, rank) for one in variances], dtype),
            jnp.asarray(classes, jnp.int32),
            boundary=boundary,
        )

    def padded(self, rank: int) -> "LocalGaussianDenoiser":
        """The same with at least ``rank`` columns, those added with variance 0, so that several have one form."""
        basis, variances = (_widened(np.asarray(part), rank) for part in (self.basis, self.variances))
        return LocalGaussianDenoiser(self.mean, basis, variances, self.classes, boundary=self.boundary)

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one image ``(h, w, c)``, in the dtype of ``x``.

        Raises:
            InputError: ``x`` is of another shape than the images.
        """
        window, middle = self._check(x)
        mean, basis, variances = self._leaves(x)
        rows = basis[:, middle, middle]
        gain = _gain(variances, jnp.square(jnp.asarray(sigma, x.dtype)))
        kernel = jnp.einsum("gcr,gr,gijdr->gijdc", rows, gain, basis, precision=_HIGHEST)
        if len(mean) == 1:
            canvas = canvas_of(x, window, self.boundary)
            # The canvas holds the border of one side only, the torus that of the other.
            more = [(0, n + window - 1 - m) for n, m in zip(x.shape, canvas.shape[:2])]
            around = jnp.pad(canvas, [*more, (0, 0)], mode="wrap")
            filtered = jax.lax.conv_general_dilated(
                around[None], kernel[0], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=_HIGHEST
            )
            constant = mean[0, middle, middle] - jnp.einsum("ijd,ijdc->c", mean[0], kernel[0], precision=_HIGHEST)
            return filtered[0] + constant[None, None]
        centred = windows_of(x, window, self.boundary) - mean[self.classes]
        filtered = jnp.einsum("hwijd,hwijdc->hwc", centred, kernel[self.classes], precision=_HIGHEST)
        return mean[self.classes, middle, middle] + filtered

    @at_least_single
    def window_scores(self, x: Event, sigma: Scalar) -> tuple[Array, Array]:
        """The posterior mean ``(h, w, c)``, and ``(h, w)`` the log density of the noisy window of each pixel, ``sigma``
        above 0, up to ``-k^2 c log(2 pi sigma^2) / 2``, which depends on the size of the window alone.
        """
        window, middle = self._check(x)
        mean, basis, variances = (leaf[self.classes] for leaf in self._leaves(x))
        centred = windows_of(x, window, self.boundary) - mean
        coordinates = jnp.einsum("hwijdr,hwijd->hwr", basis, centred, precision=_HIGHEST)
        rest = centred - jnp.einsum("hwijdr,hwr->hwijd", basis, coordinates, precision=_HIGHEST)
        noise = jnp.maximum(jnp.square(jnp.asarray(sigma, x.dtype)), float(jnp.finfo(x.dtype).tiny) ** 0.5)
        total = variances + noise
        scores = jnp.sum(jnp.log(total / noise) + jnp.square(coordinates) / total, axis=-1)
        scores = -(scores + jnp.sum(jnp.square(rest), axis=(2, 3, 4)) / noise) / 2
        rows = basis[:, :, middle, middle]
        inside = jnp.einsum("hwcr,hwr->hwc", rows, variances / total * coordinates, precision=_HIGHEST)
        return mean[:, :, middle, middle] + inside, scores

    def _leaves(self, x: Array) -> tuple[Array, Array, Array]:
        mean, basis, variances = (jnp.asarray(leaf, x.dtype) for leaf in (self.mean, self.basis, self.variances))
        return mean, basis, variances

    def _check(self, x: Array) -> tuple[int, int]:
        """Side of the window, and its middle."""
        expected = (*np.shape(self.classes), np.shape(self.mean)[-1])
        require(x.shape == expected, "x.shape", x.shape, f"that of the images, {expected}")
        window = np.shape(self.mean)[1]
        return window, window // 2


def _gain(variances: Array, noise: Array) -> Array:
    total = variances + noise
    return variances / jnp.where(total > 0, total, jnp.ones_like(total))


def _widened(array: np.ndarray, width: int) -> np.ndarray:
    """The array with zeros after the last axis, up to a length of ``width``."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, max(0, width - array.shape[-1]))])
