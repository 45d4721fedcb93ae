"""Distributions of unit initial noise (Gaussian, or heavy-tailed by Student's t), and addressed draws from them.

A base is ``(key, shape) -> noise`` and is given as ``base=`` to ``dgu.samplers.sample`` or ``dgu.keys.initial_noise``.
These are frozen dataclasses, equal where their values are, so that a new one of the same values compiles nothing anew.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Integer, Num

from dgu.core.arrays import as_floats
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import example_key
from dgu.core.prng import threefry
from dgu.core.typing import Key

Base = str | Callable[[Key, Sequence[int]], Array]


@dataclass(frozen=True)
class _StudentT:
    dof: float | int = 3.0
    scale_matched: bool = False

    def __post_init__(self) -> None:
        require(0 < self.dof < math.inf, "dof", self.dof, "positive and finite")
        matched = f"above 2 where scale_matched asks for unit variance, which t with {self.dof:g} degrees has not"
        require(not self.scale_matched or self.dof > 2, "dof", self.dof, matched)

    @property
    def variance(self) -> float:
        """Variance of each coordinate: ``dof / (dof - 2)``, 1 where scale-matched, infinite up to 2 degrees."""
        if self.scale_matched:
            return 1.0
        return self.dof / (self.dof - 2) if self.dof > 2 else math.inf

    @property
    def scale(self) -> float:
        """What a standard t variable is multiplied by: ``sqrt((dof - 2) / dof)`` where scale-matched, else 1."""
        return math.sqrt((self.dof - 2) / self.dof) if self.scale_matched else 1.0


@short_repr
@dataclass(frozen=True)
class StudentT(_StudentT):
    """Independent coordinates of Student's t law: each is heavy-tailed, their norm concentrates about ``sqrt(d)``
    slowly.

    The base of Ghane et al. (arXiv 2501.07741), there with 3 degrees of freedom and variance 3.

    Attributes:
        dof: degrees of freedom, positive.
        scale_matched: scale to unit variance, as of the Gaussian base; ``dof`` above 2 then.

    Raises:
        InputError: ``dof`` out of range, or a variance to match that is infinite.
    """

    def __call__(self, key: Key, shape: Sequence[int]) -> Float[Array, "..."]:
        """Noise of ``shape``, of JAX's default floating dtype."""
        key = threefry(key)
        return self.scale * jax.random.t(key, self.dof, tuple(shape))


@short_repr
@dataclass(frozen=True)
class MultivariateStudentT(_StudentT):
    """The multivariate t law ``z / sqrt(chi2_dof / dof)``, z standard normal: one radius for all coordinates.

    Each coordinate is distributed as ``StudentT``'s; here the *norm* is heavy-tailed however large d is: ``|x|^2 / d``
    follows the F law with d and ``dof`` degrees.

    Attributes:
        dof: degrees of freedom, positive.
        scale_matched: scale to unit variance of each coordinate; ``dof`` above 2 then.

    Raises:
        InputError: ``dof`` out of range, or a variance to match that is infinite.
    """

    def __call__(self, key: Key, shape: Sequence[int]) -> Float[Array, "..."]:
        """Noise of ``shape``, of JAX's default floating dtype."""
        key = threefry(key)
        direction, radius = jax.random.split(key)
        normal = jax.random.normal(direction, tuple(shape))
        chi2 = 2 * jax.random.gamma(radius, jnp.asarray(self.dof / 2, normal.dtype), dtype=normal.dtype)
        return normal * (self.scale * jnp.sqrt(self.dof / chi2))


def student_from_gaussian(
    rows: Num[ArrayLike, "n d"], mean: Num[ArrayLike, " e"], key: Key, degrees_of_freedom: int = 3
) -> Float[np.ndarray, "n d"]:
    """Rows of the multivariate t law from Gaussian ones: ``mean + (row - mean) / r``, ``r^2`` a chi-square variable.

    Rows of N(mean, Sigma) give the covariance ``Sigma / (degrees_of_freedom - 2)``, for 3 degrees the Gaussian's own.

    Args:
        rows: Gaussian rows.
        mean: their mean.
        key: of the radii, each the norm of ``degrees_of_freedom`` standard normal numbers.
        degrees_of_freedom: 1 or more.

    Raises:
        InputError: shapes that do not fit, or degrees of freedom below 1.
    """
    key = threefry(key)
    rows, mean = as_floats("rows", rows), as_floats("mean", mean)
    require(rows.ndim == 2 and mean.shape == rows.shape[1:], "mean.shape", mean.shape, f"{rows.shape[1:]}")
    require_whole("degrees_of_freedom", degrees_of_freedom)
    normal = np.asarray(jax.random.normal(key, (len(rows), degrees_of_freedom)))
    return mean + (rows - mean) / np.linalg.norm(normal, axis=1, keepdims=True)


#: The named distributions, with their default values.
NAMED: dict[str, Callable[[Key, Sequence[int]], Array]] = {
    "gaussian": jax.random.normal,
    "student_t": StudentT(),
    "multivariate_student_t": MultivariateStudentT(),
}


def named_base(base: str | Callable[[Key, Sequence[int]], Array]) -> Callable[[Key, Sequence[int]], Array]:
    """The distribution of a name, or the callable itself. ``InputError`` for anything else."""
    if callable(base):
        return base
    if not (isinstance(base, str) and base in NAMED):
        raise InputError(f"base = {base!r}: must be one of {', '.join(map(repr, NAMED))}, or (key, shape) -> noise")
    return NAMED[base]


def draw_initial(example: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32, base: Base = "gaussian") -> Array:
    """Unit initial noise from an example's key. See ``initial_noise``."""
    address = jax.random.fold_in(threefry(example, "example"), 0)
    if base == "gaussian":
        return jax.random.normal(address, tuple(shape), dtype)
    return jnp.asarray(named_base(base)(address, tuple(shape)), dtype)


def initial_noise(
    key: Key,
    index: Integer[ArrayLike, ""],
    shape: Sequence[int],
    dtype: DTypeLike = jnp.float32,
    base: Base = "gaussian",
) -> Array:
    """The unit noise that sample number ``index`` starts from (before scaling by ``sigmas[0]``).

    Args:
        key: the key given to ``dgu.samplers.sample``.
        index: the sample's number, 0 or more.
        shape: shape of one example.
        dtype: floating dtype of the draw; float32 and float64 draws of one address differ.
        base: ``"gaussian"``, ``"student_t"`` or ``"multivariate_student_t"`` (3 degrees of freedom, not scaled), or a
            callable ``(key, shape) -> noise``, such as those of ``dgu.bases``.

    Raises:
        InputError: ``base`` is another name, or ``index`` no whole number of 0 or more.
    """
    return draw_initial(example_key(key, index), shape, dtype, base)
