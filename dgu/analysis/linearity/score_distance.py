"""How far apart are denoisers? Distances of their outputs on the same noisy images, over noise levels.

The choice of images matters. Where one denoiser is an exact posterior mean of these images, its best linear map is that
of the images' Gaussian whatever the images are (the Wiener filter, by orthogonality): comparisons of linear maps are
informative on images that the denoisers have not seen. So the caller states which they are, and the result records it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import InputError, require
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, over_levels, require_finite
from dgu.core.typing import Denoiser, Event, Key, Scalar

#: What the images of a comparison can be to the denoisers compared.
INPUTS = ("held-out", "training")


@short_repr
@dataclass(frozen=True, eq=False)
class ScoreDistances:
    """Distances between K denoisers at L noise levels on n noisy images.

    Attributes:
        names: names of the denoisers.
        sigmas: ``(L,)``.
        inputs: what the images were: ``"held-out"`` or ``"training"``.
        dimension: d of an image.
        differences: ``|D_i - D_j|``, ``(L, K, K, n)``, symmetric.
        norms: ``|D_i|``, ``(L, K, n)``.
    """

    names: tuple[str, ...]
    sigmas: np.ndarray
    inputs: str
    dimension: int
    differences: np.ndarray
    norms: np.ndarray

    def rmse(self, first: str, second: str) -> Estimate:
        """``E sqrt(|D_1 - D_2|^2 / d)`` at each level, with 95 % intervals over images. Li et al., (10)."""
        return t_interval(self.each_image(first, second), bounds=(0, np.inf))

    def each_image(self, first: str, second: str) -> Float[np.ndarray, "levels n"]:
        """``sqrt(|D_1 - D_2|^2 / d)`` at each level on each image: what ``rmse`` is the mean of."""
        return self._between(first, second) / np.sqrt(self.dimension)

    def nmse(self, first: str, second: str) -> Estimate:
        """``E |D_1 - D_2| / |D_1|`` at each level, with 95 % intervals over images. Not symmetric. Li et al., (53)."""
        return t_interval(self.each_nmse(first, second), bounds=(0, np.inf))

    def each_nmse(self, first: str, second: str) -> Float[np.ndarray, "levels n"]:
        """``|D_1 - D_2| / |D_1|`` at each level on each image: what ``nmse`` is the mean of."""
        return np.asarray(self._between(first, second) / self.norms[:, self._place(first)])

    def each_cosine(self, first: str, second: str) -> Float[np.ndarray, "levels n"]:
        """Cosine of the angle between ``D_1`` and ``D_2`` at each level on each image, from -1 to 1, by the law of
        cosines: ``(|D_1|^2 + |D_2|^2 - |D_1 - D_2|^2) / (2 |D_1| |D_2|)``. Li et al., Fig 15."""
        one, two = (self.norms[:, self._place(name)].astype(np.float64) for name in (first, second))
        apart = self._between(first, second).astype(np.float64)
        # As a square it keeps its digits where both nearly agree.
        cosine = 1 - (apart**2 - (one - two) ** 2) / (2 * one * two)
        return np.clip(cosine, -1.0, 1.0)

    @property
    def measured(self) -> dict[str, np.ndarray]:
        """What was measured, by the names of the fields: the differences and the norms."""
        return {"differences": self.differences, "norms": self.norms}

    def _between(self, first: str, second: str) -> np.ndarray:
        return self.differences[:, self._place(first), self._place(second)]

    def _place(self, name: str) -> int:
        require(name in self.names, "denoiser", name, f"one of {', '.join(self.names)}")
        return self.names.index(name)


def score_distances(
    denoisers: Mapping[str, Denoiser],
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    inputs: str,
    batch_size: int = 64,
) -> ScoreDistances:
    """Distances between all pairs of denoisers at all levels, on ``images + sigma eps``: one compiled program.

    The noise of an image depends on ``(key, level's place, image's number)`` alone: all denoisers see the same inputs.

    Args:
        denoisers: by name, two or more; any pytree that is called as ``denoiser(x, sigma)``.
        images: clean images, two or more.
        sigmas: noise levels, 0 or more, within the range of every denoiser.
        key: key of the noise.
        inputs: what the images are to the denoisers: ``"held-out"`` or ``"training"``.
        batch_size: images at a time.

    Raises:
        InputError: fewer than two denoisers or images, a level out of range, an output of another shape than the input,
            or one that is not finite (it names the denoiser, the level and the example).

    Li et al., arXiv 2410.24060, (10) and (53).
    """
    key = threefry(key)
    require(len(denoisers) >= 2, "denoisers", len(denoisers), "two or more")
    require(inputs in INPUTS, "inputs", inputs, f"one of {', '.join(INPUTS)}")
    rows = checked_images(images, 2)
    levels = checked_levels(sigmas, denoisers)
    blocks, numbers = in_blocks(rows, batch_size)
    models = tuple(as_pytree(denoiser) for denoiser in denoisers.values())
    found = _outputs(models, blocks, numbers, levels.astype(rows.dtype), key)
    between, norms = (np.asarray(part, np.float64) for part in found)
    # (levels and blocks, size, ...) -> (levels, ..., images)
    between, norms = (
        np.moveaxis(part.reshape(len(levels), -1, part.shape[-1])[:, : len(rows)], 1, -1) for part in (between, norms)
    )
    for place, name in enumerate(denoisers):
        require_finite(norms[:, place], levels, name)
    differences = np.zeros((len(levels), len(models), len(models), len(rows)))
    for number, (i, j) in enumerate(combinations(range(len(models)), 2)):
        differences[:, i, j] = differences[:, j, i] = between[:, number]
    if not np.isfinite(differences).all():
        raise InputError("denoisers: differences overflow: outputs must be of a moderate size")
    return ScoreDistances(tuple(denoisers), levels, inputs, rows[0].size, differences, norms)


@jax.jit
def _outputs(
    denoisers: tuple[Any, ...],
    blocks: Float[Array, "blocks size *event"],
    numbers: Int[Array, "blocks size"],
    sigmas: Float[Array, " levels"],
    key: Key,
) -> tuple[Float[Array, "places size pairs"], Float[Array, "places size k"]]:
    """Distances of all pairs ``i < j`` and norms of all outputs."""

    def one(image: Event, index: Array, sigma: Scalar, level: Array) -> tuple[Array, Array]:
        x = noisy_input(key, image, index, sigma, level)
        outputs = [denoise(denoiser, x, sigma).ravel() for denoiser in denoisers]
        between = jnp.stack([jnp.linalg.norm(a - b) for a, b in combinations(outputs, 2)])
        return between, jnp.stack([jnp.linalg.norm(output) for output in outputs])

    return over_levels(one, blocks, numbers, sigmas)
