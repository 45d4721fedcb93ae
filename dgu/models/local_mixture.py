"""The mixture among local denoisers: windows are a Gaussian in each class of the images."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.arrays import as_floats, as_plain, at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.typing import Event, Scalar
from dgu.models.local_gaussian import LocalGaussianDenoiser


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LocalMixtureDenoiser:
    """The posterior mean of each pixel given the window around it, where windows are a mixture of Gaussians.

        denoiser(x, sigma)[p] = sum_k w_pk D_k(x, sigma)[p]
        w_p = softmax_k(log pi_k + log N(x_W; mu_k, C_k + sigma^2 I))

    with the ``LocalGaussianDenoiser`` ``D_k`` of each class of the images and the windows' moments ``mu_k`` and ``C_k``
    at p. Each pixel weighs the classes by its own window. One class gives ``LocalGaussianDenoiser``.

    Attributes:
        weights: pi, ``(K,)``, positive; they need not sum to 1.
        gaussians: those of the K classes, stacked along a leading axis of their leaves.
    """

    weights: Any
    gaussians: LocalGaussianDenoiser

    @classmethod
    def fit(
        cls,
        images: Num[ArrayLike, "..."],
        labels: Num[ArrayLike, "..."],
        window: int,
        *,
        equivariant: bool = False,
        boundary: str = "zero",
    ) -> "LocalMixtureDenoiser":
        """A Gaussian of the windows of each class, weighted by the number of its images.

        Args:
            images: ``(n, h, w, c)``, at least 2 of each class.
            labels: ``(n,)``, the class of each.
            window, equivariant, boundary: as in ``LocalDenoiser``.

        Raises:
            InputError: labels that are not one for each image, a class of 1 image, and what
                ``LocalGaussianDenoiser.fit`` refuses.
        """
        data, marks = as_floats("images", images), as_plain("labels", labels)
        require(data.ndim == 4, "images.shape", data.shape, "(n, h, w, c)")
        whole = marks.dtype.kind in "iu" and marks.shape == data.shape[:1]
        require(whole, "labels", f"{marks.dtype} {marks.shape}", f"{len(data)} whole numbers, one an image")
        values, counts = np.unique(marks, return_counts=True)
        require(
            bool((counts >= 2).all()), "labels", f"images of a class: {counts.tolist()}", "at least 2 images of each"
        )
        options: dict[str, Any] = {"equivariant": equivariant, "boundary": boundary}
        parts = [LocalGaussianDenoiser.fit(data[marks == value], window, **options) for value in values]
        rank = max(part.variances.shape[-1] for part in parts)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(part.padded(rank) for part in parts))
        return cls(jnp.asarray(counts / len(data), stacked.mean.dtype), stacked)

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one image ``(h, w, c)``, in the dtype of ``x``.

        Raises:
            InputError: ``x`` is of another shape than the images.
        """
        means, scores = jax.vmap(lambda part: part.window_scores(x, sigma))(self.gaussians)
        shares = jax.nn.softmax(scores + jnp.log(jnp.asarray(self.weights, x.dtype))[:, None, None], axis=0)
        return jnp.sum(shares[..., None] * means, axis=0)
