"""Two distributions with the same mean and covariance that no Gaussian mixture tells apart, but their norms do."""

import jax
import numpy as np
from jaxtyping import Float

from dgu.core.errors import require_whole
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key


def equal_moments(key: Key, count: int, dimension: int) -> Float[np.ndarray, "2 count d"]:
    """``count`` draws of each of two distributions with mean 0 and covariance I in d dimensions.

    The first is uniform on the sphere of radius ``sqrt(d)``; the second has a uniform direction and, by a fair coin,
    the radius ``sqrt(d / 2)`` or ``sqrt(3 d / 2)``. A Gaussian mixture with these moments carries no label at all.
    Functions of the norm tell the two apart, such as a linear one of ``|x|^2`` and ``|x|^4``; products of two
    coordinates have equal means in both: the negative control of a comparison with Gaussian mixtures.

    Raises:
        InputError: ``count`` or ``dimension`` below 1.
    """
    key = threefry(key)
    require_whole("count", count, 1)
    require_whole("dimension", dimension, 1)
    normal = np.asarray(jax.random.normal(stream(key, "direction"), (2, count, dimension)))
    on_sphere = np.sqrt(dimension) * normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    coin = np.asarray(jax.random.bernoulli(stream(key, "radius"), 0.5, (count, 1)))
    radii = np.stack([np.ones(coin.shape), np.where(coin, 0.5, 1.5) ** 0.5]).astype(np.float32)
    return on_sphere * radii
