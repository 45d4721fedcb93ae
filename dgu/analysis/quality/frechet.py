"""Frechet distance between the Gaussians that fit two sets of features, in float64 whatever JAX's precision.

Called FID only for the 2048 pool features of the Inception network of its authors: on other features (pixels, principal
components, another network) the number has another meaning and another scale. All linear algebra here is NumPy's and
SciPy's, on the host: accelerators lack float64, and the square root needs it.
"""

import contextlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Num

from dgu.core.arrays import as_doubles, as_floats, as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require, require_whole
from dgu.core.file_kinds import mismatch
from dgu.core.files import write_arrays, write_atomic
from dgu.core.keys import threefry
from dgu.core.reading import RAISE_LIMIT, SINGLE, array_names, byte_limit, expect, guarded, read_array, read_member
from dgu.core.typing import Key

#: Columns of the pool features that alone make a Frechet distance an FID.
INCEPTION_WIDTH = 2048
#: Arrays of a file of moments.
_STATISTICS = {"mu", "sigma"}
#: Names of arrays that an error shows.
_SHOWN = 6


@short_repr
@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """Mean ``(d,)`` and a root of the covariance, ``covariance = root root^T`` with ``root`` ``(d, r)``, in float64.

    Made by ``from_features`` or ``from_moments``. The root is kept, not the covariance, since squaring loses half the
    digits of small variances.
    """

    mean: np.ndarray
    root: np.ndarray

    @classmethod
    def from_features(cls, features: Num[ArrayLike, "n ..."]) -> "FeatureMoments":
        """Mean and unbiased covariance (``n - 1``) of rows; with fewer rows than columns no d x d matrix is formed.

        Args:
            features: ``(n, d)``, or ``(n, *event)``, taken flat.

        Raises:
            InputError: fewer than two rows, no columns, or values that are not finite.
        """
        rows = as_floats("features", features)
        require(rows.ndim >= 2 and len(rows) >= 2 and rows[0].size > 0, "features.shape", rows.shape, "(n, d), n >= 2")
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        require(bool(np.isfinite(rows).all()), "features", "an array with values that are not finite", "finite")
        check_squares(np.float64, features=rows)
        mean = rows.mean(axis=0)
        rows -= mean
        n, d = rows.shape
        triangle = rows if n <= d else scipy.linalg.qr(rows, mode="r", overwrite_a=True, check_finite=False)[0][:d]
        return cls(mean, triangle.T / np.sqrt(n - 1))

    @classmethod
    def from_moments(cls, mean: Num[ArrayLike, "..."], covariance: Num[ArrayLike, "..."]) -> "FeatureMoments":
        """The moments as given: ``mean`` ``(d,)`` and ``covariance`` ``(d, d)``.

        Raises:
            InputError: shapes that do not fit, values that are not finite, a covariance that is not symmetric or has a
                negative eigenvalue, each to 1e-6 of its largest entry or eigenvalue (reference files in float32 pass).
        """
        mean, covariance = as_doubles("mean", mean), as_doubles("covariance", covariance)
        require(mean.ndim == 1 and mean.size > 0, "mean.shape", mean.shape, "(d,)")
        require(covariance.shape == 2 * mean.shape, "covariance.shape", covariance.shape, str(2 * mean.shape))
        finite = bool(np.isfinite(mean).all() and np.isfinite(covariance).all())
        require(finite, "moments", "arrays with values that are not finite", "finite")
        skew, largest = np.abs(covariance - covariance.T).max(), np.abs(covariance).max()
        require(skew <= 1e-6 * largest, "covariance", f"off by {skew:.3g} from its transpose", "symmetric")
        variances, basis = scipy.linalg.eigh((covariance + covariance.T) / 2)
        negative = f"smallest eigenvalue {variances[0]:.6g}"
        require(variances[0] >= -1e-6 * np.abs(variances).max(), "covariance", negative, "positive semi-definite")
        return cls(mean, basis * np.sqrt(np.maximum(variances, 0)))

    @property
    def covariance(self) -> Float64[np.ndarray, "d d"]:
        """``(d, d)``."""
        return self.root @ self.root.T


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """``|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^{1/2})``: the squared 2-Wasserstein distance of two Gaussians.

    ``tr (A B)^{1/2}`` is the sum of the singular values of ``R_a^T R_b`` for roots ``A = R_a R_a^T``: no matrix square
    root, no complex numbers, and full accuracy for singular covariances. 0 for equal moments to rounding, which is
    relative to the traces; never below 0.

    Finite samples bias it upwards, by about ``tr A`` times the columns over the rows: compare numbers of equal counts.

    Raises:
        InputError: moments of different widths.

    Heusel et al. 2017 (arXiv 1706.08500), equation 6; Dowson and Landau 1982.
    """
    widths = (a.mean.size, b.mean.size)
    require(widths[0] == widths[1], "width of a and b", widths, "the same")
    shared = scipy.linalg.svdvals(a.root.T @ b.root).sum()
    spread = np.square(a.root).sum() + np.square(b.root).sum() - 2 * shared
    return float(max(np.square(a.mean - b.mean).sum() + spread, 0.0))


def choose_rows(features: Num[ArrayLike, "n ..."], count: int | None, key: Key) -> Num[np.ndarray, "m ..."]:
    """``count`` rows at random without repetition, in their order, by ``key``; all of them for None.

    Raises:
        InputError: fewer rows than asked for.
    """
    key = threefry(key)
    rows = as_floats("features", features)
    if count is None or count == len(rows):
        return rows
    require_whole("count", count)
    count = int(count)
    require(count <= len(rows), "count", count, f"at most the number of rows, {len(rows)}")
    return rows[np.sort(np.asarray(jax.random.permutation(key, len(rows))[:count]))]


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PCAFeatures:
    """Principal components as features: ``(x - mean) @ basis`` of flattened images, for ``extract_features``.

    Fields: ``mean`` ``(d,)``, ``basis`` ``(d, k)`` with orthonormal columns, of falling variance.
    """

    mean: Any
    basis: Any

    @classmethod
    def fit(cls, reference: Num[ArrayLike, " n *event"], components: int) -> "PCAFeatures":
        """The leading components of the reference images (never of the generated ones), found in float64.

        Raises:
            InputError: more components than ``min(n - 1, d)``, or none; values that are not finite.
        """
        images = as_floats("reference", reference)
        rows = images.reshape(len(images), -1).astype(np.float64)
        most = min(len(rows) - 1, rows.shape[1])
        require(1 <= components <= most, "components", components, f"1 to {most}")
        require(bool(np.isfinite(rows).all()), "reference", "an array with values that are not finite", "finite")
        check_squares(np.float64, reference=rows)
        mean = rows.mean(axis=0)
        rows -= mean
        if rows.shape[0] < rows.shape[1]:
            basis = scipy.linalg.svd(rows, full_matrices=False, overwrite_a=True)[2].T
        else:
            basis = scipy.linalg.eigh(rows.T @ rows)[1][:, ::-1]
        dtype = jax.dtypes.canonicalize_dtype(images.dtype)
        return cls(jnp.asarray(mean, dtype), jnp.asarray(basis[:, :components], dtype))

    def __call__(self, images: Num[ArrayLike, " n *event"]) -> Float[Array, "n k"]:
        """Coordinates of each image."""
        x = as_jax_floats("images", images)
        rows = x.reshape(x.shape[0], -1) - self.mean[None]
        return jnp.matmul(rows, self.basis, precision=jax.lax.Precision.HIGHEST)


def read_features(path: str | Path) -> Float[np.ndarray, "n ..."]:
    """Features of images from a file, ``(n, d)`` or ``(n, *event)``: npy, or npz with one array or one named features.

    Integers, such as pixels, are returned as float32, those of 32 bits and more as float64. Other arrays in an npz
    are not read.

    Raises:
        InputError: no such file, another format, Python objects in it, more than ``dgu.core.reading.byte_limit`` as
            float32, or no rows.
    """
    with _opened(path) as file:
        if isinstance(file, zipfile.ZipFile):
            names = array_names(file)
            name = "features" if "features" in names else next(iter(names), "")
            one = len(names) == 1 or name == "features"
            shown = f"{len(names):,}: {', '.join(sorted(names)[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}"
            require(one, f"{path}: arrays", shown, "a single one, or one called features")
            content = read_member(file, name, path, byte_limit(), RAISE_LIMIT, SINGLE)
        else:
            content = read_array(file, os.fstat(file.fileno()).st_size, str(path), byte_limit(), RAISE_LIMIT, SINGLE)
    numeric = content.ndim >= 2 and len(content) > 0 and content.dtype.kind in "fiu"
    require(numeric, f"{path}", f"{content.dtype} {content.shape}", "numbers of shape (n, d) or (n, ...)")
    return content if content.dtype.kind == "f" else as_floats(f"{path}: features", content)


def read_statistics(path: str | Path) -> FeatureMoments:
    """Reference statistics as EDM publishes them: an npz with ``mu`` ``(d,)`` and ``sigma`` ``(d, d)``.

    Raises:
        InputError: no such file, arrays missing, or moments that ``FeatureMoments.from_moments`` refuses.
    """
    with _opened(path) as file:
        have = sorted(array_names(file)) if isinstance(file, zipfile.ZipFile) else "one array"
        shown = have[:_SHOWN] if isinstance(have, list) else have
        require(_STATISTICS <= set(have), str(path), shown, "an npz with mu and sigma")
        assert isinstance(file, zipfile.ZipFile)
        mean = read_member(file, "mu", path, byte_limit(), RAISE_LIMIT)
        covariance = read_member(file, "sigma", path, 16 * max(1, mean.size) ** 2)
    for name, array in (("mu", mean), ("sigma", covariance)):
        require(array.dtype.kind == "f", f"{path}: {name}.dtype", str(array.dtype), "a floating dtype")
    try:
        return FeatureMoments.from_moments(mean, covariance)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def holds_statistics(path: str | Path) -> bool:
    """Whether a file is an npz with ``mu`` and ``sigma``, rather than features.

    Raises:
        InputError: no such file, or another format.
    """
    with _opened(path) as file:
        return isinstance(file, zipfile.ZipFile) and _STATISTICS <= set(array_names(file))


def write_statistics(path: str | Path, moments: FeatureMoments) -> None:
    """The file that ``read_statistics`` reads.

    Raises:
        InputError: the folder is missing or cannot be written to.
    """
    arrays = {"mu": moments.mean, "sigma": moments.covariance}
    write_atomic(Path(path), lambda file: write_arrays(file, arrays))


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[zipfile.ZipFile | BinaryIO]:
    """An npz file as its archive, or an npy file; whatever goes wrong with it inside the block is one line."""
    allowed = "an npy or npz file of numbers"
    with guarded(path, allowed), open(expect(path, ("npy", "npz", "zip"), allowed), "rb") as file:
        if mismatch(path, ("npy",)):
            with zipfile.ZipFile(file) as archive:
                yield archive
        else:
            yield file
