"""Classes given to denoisers, looked at on the host: before JAX shortens integers to 32 bits, and before they are
traced.

What knows its classes has the attribute ``label_dim``, their number (0 for none), and perhaps ``needs_class``: that the
zero vector, which stands for no class, means nothing to it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dgu.core.arrays import as_jax_floats, as_labels, as_plain
from dgu.core.errors import InputError, require


def checked_label(label: Any, label_dim: int) -> Array:
    """One class as an int32 scalar, or as a vector ``(label_dim,)`` of floats; of traced ones the shape and dtype are
    checked.

    Raises:
        InputError: it is neither, is out of range, or is not finite.
    """
    allowed = f"a class index in 0..{label_dim - 1}, or a vector of {label_dim} entries"
    given = label if isinstance(label, jax.Array) else as_plain("label", label)
    integer, concrete = jnp.issubdtype(given.dtype, jnp.integer), not isinstance(given, jax.core.Tracer)
    shown = label if concrete else f"traced {given.dtype}{list(given.shape)}"
    if given.shape == (label_dim,) and given.dtype != bool:
        vector = as_jax_floats("label", given)
        finite = not concrete or bool(np.isfinite(np.asarray(vector)).all())
        require(finite, "label", shown, f"{allowed}, all finite")
        return vector
    inside = not concrete or given.ndim > 0 or (integer and bool((given >= 0) & (given < label_dim)))
    require(integer and given.ndim == 0 and inside, "label", shown, allowed)
    return jnp.asarray(given).astype(jnp.int32)


def checked_labels(denoiser: Any, labels: Any, count: int) -> np.ndarray | None:
    """One class for each of ``count`` examples: int32 ``(count,)``, or vectors ``(count, label_dim)`` of their own
    dtype.

    Raises:
        InputError: a denoiser without ``given(label)`` or without classes; labels of another shape or number, masked,
            out of range or not finite; a vector of zeros for a denoiser that needs a class, for which ``given(None)``
            is the way.
    """
    if labels is None:
        return None
    require(hasattr(denoiser, "given"), "labels", "given", "left out: this denoiser has no given(label)")
    label_dim = getattr(denoiser, "label_dim", None)
    require(label_dim != 0, "labels", "given", "left out: the network is unconditional")
    values = as_plain("labels", labels)
    kinds = {1: "iu", 2: "iuf"}.get(values.ndim, "")
    if values.dtype.kind not in kinds or len(values) != count:
        width = "label_dim" if label_dim is None else label_dim
        raise InputError(
            f"labels of shape {values.shape}, dtype {values.dtype}: must be ({count},) integers or ({count}, "
            f"{width}) vectors"
        )
    if values.ndim == 1:
        if label_dim is not None:
            wrong = values[(values < 0) | (values >= label_dim)]
            require(not wrong.size, "labels", wrong[:1].tolist(), f"class indices in 0..{label_dim - 1}")
        return as_labels("labels", values, count)
    wide = label_dim in (None, values.shape[1])
    require(wide, "labels.shape", values.shape, f"({count}, {label_dim}), a vector for each example")
    require(bool(np.isfinite(values).all()), "labels", "vectors with entries that are not finite", "finite")
    require(
        not (getattr(denoiser, "needs_class", False) and without_class(values).any()),
        "labels", "vectors of zeros among them", f"{NO_ZEROS}, without labels, insists)",
    )  # fmt: skip
    return values


#: What is allowed where a network knows no image without a class.
NO_ZEROS = "classes: the network knows no image without one (denoiser.given(None)"


def without_class(vectors: np.ndarray) -> np.ndarray:
    """Which of the vectors (along the last axis) are zeros, or would be in single precision."""
    return np.asarray(~(np.abs(vectors) >= np.finfo(np.float32).tiny).any(axis=-1))
