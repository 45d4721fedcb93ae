"""A mixture of low-rank Gaussians from labelled examples: each class's mean and truncated covariance."""

from collections.abc import Sequence

import jax
import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Integer, Num

from dgu.core.arrays import as_floats, as_labels, check_squares
from dgu.core.errors import require
from dgu.models.molrg import MoLRG


def fit_classes(
    images: Num[ArrayLike, " n *event"],
    labels: Integer[ArrayLike, " n"],
    rank: int | Sequence[int],
    *,
    components: int | None = None,
    residual: bool = False,
) -> MoLRG:
    """The mixture with a component for each label: ``pi_k = N_k / N``, the class mean, and the ``rank`` leading
    eigenpairs of the class covariance ``Xc^T Xc / N_k`` (Wang et al., arXiv 2409.02426, Appendix C).

    Computed on the host in float64, from the singular vectors of the centred rows where a class has fewer examples than
    dimensions; returned in the dtype of ``images``.

    Args:
        images: ``(n, *event)``.
        labels: ``(n,)`` components 0 to K - 1.
        rank: of every component, or one for each.
        components: K; by default the largest label plus 1.
        residual: whether what the truncation leaves becomes noise off the subspaces, ``noise_std^2`` its mean variance
            over all components and directions. Otherwise the mixture lies on its subspaces.

    Raises:
        InputError: a component without examples, a rank below 1, above the dimension or above ``N_k - 1``, labels out
            of range, values that are not finite.
    """
    data = as_floats("images", images)
    require(data.ndim >= 2 and len(data) >= 1, "images.shape", data.shape, "(n, *event), n at least 1")
    marks = as_labels("labels", labels, len(data))
    require(bool(np.isfinite(data).all()), "images", "values that are not finite", "finite")
    check_squares(images=data)
    count = int(marks.max()) + 1 if components is None else components
    require(count >= 1, "components", count, "1 or more")
    strangers = np.setdiff1d(marks, np.arange(count))
    require(len(strangers) == 0, "labels", strangers[:5].tolist(), f"components, 0 to {count - 1}")
    rows = data.reshape(len(data), -1)
    sizes, d = np.bincount(marks, minlength=count), rows.shape[1]
    empty = np.flatnonzero(sizes == 0)
    require(
        len(empty) == 0, "labels", f"no example of component {empty[:5].tolist()}", f"at least one of each of {count}"
    )
    ranks = [rank] * count if isinstance(rank, int | np.integer) else list(rank)
    require(len(ranks) == count, "rank", f"{len(ranks)} ranks", f"one, or {count}, one for each component")
    means, bases, variances, left = [], [], [], 0.0
    for number, (size, r) in enumerate(zip(sizes, ranks)):
        allowed = f"from 1 to {min(d, size - 1)}: {d} dimensions, {size} examples of component {number}"
        require(1 <= r <= min(d, size - 1), "rank", r, allowed)
        own = rows[marks == number].astype(np.float64)
        mean = own.mean(0)
        vectors, values, total = _leading(own - mean, int(r))
        means.append(mean.reshape(data.shape[1:]))
        bases.append(vectors.reshape(*data.shape[1:], int(r)))
        variances.append(values)
        left += size / len(rows) * max(0.0, total - values.sum())
    rest = sum(size / len(rows) * (d - r) for size, r in zip(sizes, ranks))
    std = float(np.sqrt(left / rest)) if residual and rest > 0 else 0.0
    dtype = jax.dtypes.canonicalize_dtype(data.dtype)
    parts = (np.stack(means).astype(dtype), [b.astype(dtype) for b in bases], [v.astype(dtype) for v in variances])
    return MoLRG.of(sizes / len(rows), *parts, std)


def _leading(centred: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Leading eigenvectors (d, rank) and eigenvalues of the covariance of centred rows, and its trace."""
    n, d = centred.shape
    total = float(np.square(centred).sum() / n)
    if n < d:
        _, singular, right = scipy.linalg.svd(centred, full_matrices=False)
        return right[:rank].T, np.square(singular[:rank]) / n, total
    values, vectors = scipy.linalg.eigh(centred.T @ centred / n, subset_by_index=(d - rank, d - 1))
    return vectors[:, ::-1], np.maximum(values[::-1], 0), total
