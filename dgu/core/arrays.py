"""The gate that arrays from users pass: a floating dtype in which differences do not wrap and sums do not overflow.

Integers and float16 or bfloat16 become float32, or float64 where float32 does not hold all values of their dtype
(32-bit integers and wider); float32 and float64 stay what they are. Booleans, text, complex numbers, Python objects and
masked
arrays are refused: a mask or an imaginary part would be lost without a word.

JAX is imported by the functions that need it: what only reads and writes arrays starts without it.
"""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dgu.core.errors import InputError, require

if TYPE_CHECKING:
    from jax import Array
else:
    Array: TypeAlias = Any

#: Spread of rows beside which the rounding of a cast counts as a loss of it, in units of that rounding.
_ROUNDINGS_KEPT = 1000
#: Powers of ten between which the squares of examples are kept, by the size of the dtype in bytes.
_SQUARES = {4: 30, 8: 300}


def working_dtype(name: str, dtype: Any) -> np.dtype:
    """The dtype that numbers of ``dtype`` are computed in: float32 or float64.

    Raises:
        InputError: ``dtype`` holds no real numbers.
    """
    dtype = np.dtype(dtype).newbyteorder("=")  # JAX knows the machine's own order of bytes alone.
    if is_integral(dtype) or is_floating(dtype):
        return np.dtype(np.float64) if is_integral(dtype) and dtype.itemsize >= 4 else _at_least_single(dtype)
    raise InputError(f"{name}: has dtype {dtype}; must be integers or floating-point numbers")


def is_floating(dtype: Any) -> bool:
    """Whether a dtype is one of floating-point numbers, those of ``ml_dtypes`` (bfloat16 and smaller ones) included."""
    dtype = np.dtype(dtype)
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def is_integral(dtype: Any) -> bool:
    """Whether a dtype is one of integers, those of ``ml_dtypes`` (of 4 and 2 bits) included."""
    dtype = np.dtype(dtype)
    return dtype.kind in "iu" or dtype.name.startswith(("int", "uint"))


def is_number(value: Any) -> bool:
    """Whether ``value`` is one real number: of Python, NumPy or JAX, and no truth value."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"


def as_number(value: Any) -> Any:
    """A NumPy or JAX number as Python's, which neither wraps nor overflows; anything else, traced numbers included, as
    it is.
    """
    import jax

    concrete = isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, jax.core.Tracer)
    return value.item() if concrete and is_number(value) else value


def _at_least_single(dtype: np.dtype) -> np.dtype:
    if dtype.itemsize > 8:  # Extended precision: nothing here computes in it.
        return np.dtype(np.float64)
    return np.dtype(np.promote_types(dtype, np.float32)) if dtype.kind in "iuf" else np.dtype(np.float32)


def require_numbers(**arrays: Any) -> None:
    """Raise ``InputError`` where an array, perhaps a traced one, is not of real numbers."""
    for name, value in arrays.items():
        working_dtype(name, value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype)


def as_plain(name: str, value: Any) -> np.ndarray:
    """``value`` as a NumPy array of whatever dtype it has.

    Raises:
        InputError: ``value`` is masked or ragged.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{name}: is a masked array, whose mask would be lost; must be a plain array")
    try:
        return np.asarray(value)
    except ValueError as error:  # Lists of unequal length.
        raise InputError(f"{name}: is no array ({error}); must be a plain array of numbers") from None


def as_floats(name: str, value: Any) -> np.ndarray:
    """``value`` as a NumPy array of float32 or float64; not copied where it is one already.

    Raises:
        InputError: ``value`` is masked, ragged, not of real numbers, or holds integers beyond 2^53.
    """
    array = as_plain(name, value)
    floats = array.astype(working_dtype(name, array.dtype), copy=False)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        largest = max(int(array.max()), -int(array.min())) if array.size else 0
        require(largest <= 2**53, f"largest absolute value of {name}", largest, "at most 2^53: float64 rounds integers")
    return floats


def as_doubles(name: str, value: Any) -> np.ndarray:
    """``as_floats`` in float64, for what is computed on the host in full precision.

    Raises:
        InputError: ``value`` is masked, ragged, or not of real numbers.
    """
    return as_floats(name, value).astype(np.float64, copy=False)


def as_examples(name: str, value: Any) -> np.ndarray:
    """``as_floats`` for examples that JAX computes with: integers in its precision, float32 unless 64 bits are enabled.

    Raises:
        InputError: ``value`` is masked, ragged, not of real numbers, or loses its spread in JAX's precision.
    """
    import jax

    array = as_floats(name, value)
    check_cast(name, array)
    integers = not is_floating(getattr(value, "dtype", array.dtype))
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False) if integers else array


def as_jax_floats(name: str, value: Any) -> Array:
    """``value`` as a JAX array of float32, or of float64 where 64 bits are enabled; traced arrays pass.

    Raises:
        InputError: ``value`` is not of real numbers, or has rows of float64 that lose their spread in float32.
    """
    import jax

    wide = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer) and value.is_fully_addressable
    if not isinstance(value, jax.Array) or (wide and is_integral(value.dtype) and value.dtype.itemsize >= 4):
        array = as_floats(name, value)
        check_cast(name, array)
        return to_device(array)
    value = whole(value)
    return value.astype(jax.dtypes.canonicalize_dtype(working_dtype(name, value.dtype)))


def to_device(array: np.ndarray) -> Array:
    """A copy of a NumPy array as one of JAX, float64 and 64-bit integers in JAX's precision.

    ``jnp.asarray`` does the same by a program that is compiled for each shape; and ``jax.device_put`` alone may take
    the memory itself on CPU, to which the caller may write later.
    """
    import jax

    return jax.device_put(np.array(array))


def check_cast(name: str, rows: np.ndarray) -> None:
    """Raise ``InputError`` where float64 rows differ by less than what JAX's precision rounds them by.

    Rows about 1e9 that differ by 1 are equal in float32: their variances would be 0, without a word.
    """
    import jax

    dtype = jax.dtypes.canonicalize_dtype(rows.dtype)
    if dtype == rows.dtype or rows.ndim < 2 or len(rows) < 2 or rows.size == 0:
        return
    largest = _largest(rows)
    if not 0 < largest < np.finfo(dtype).max:
        return
    spread = float(np.ptp(rows, axis=0).max())
    # Not the rounding of values that are equal but for it, nor of such as the narrower dtype holds as they are.
    if largest * np.finfo(rows.dtype).eps * 16 < spread < largest * np.finfo(dtype).eps / 2 * _ROUNDINGS_KEPT:
        error = float(np.abs(rows - rows.astype(dtype)).max())
        if error * _ROUNDINGS_KEPT > spread:
            raise InputError(
                f"{name}: differ by up to {spread:.3g} beside values of up to {largest:.3g}, which {dtype} rounds by "
                f"{error:.2g}; must have their mean subtracted first (or set jax_enable_x64)"
            )


def check_squares(dtype: Any = None, power: int = 2, **examples: Any) -> None:
    """Raise ``InputError`` where the squares of examples would leave the range of the dtype that they are computed in.

    Args:
        dtype: float64 for what is computed on the host; by default JAX's precision for the dtype of the examples.
        power: 4 for what takes fourth powers.
        examples: arrays by name. Traced ones, and values that are not finite, are left to others, as are arrays of
            which other processes hold a part.
    """
    import jax

    for name, value in examples.items():
        if isinstance(value, jax.core.Tracer):
            continue
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            continue
        array = as_plain(name, value)  # Of a JAX array, too: its methods would be steps of a program that is traced.
        used = jax.dtypes.canonicalize_dtype(working_dtype(name, array.dtype)) if dtype is None else np.dtype(dtype)
        largest, bound = _largest(array), 10.0 ** (_SQUARES[used.itemsize] // power)
        if largest and np.isfinite(largest):
            allowed = (
                f"0, or from {1 / bound:g} to {bound:g}: powers of examples leave the range of {used} (rescale them)"
            )
            require(
                1 / bound <= largest <= bound, f"largest absolute value of {name}", float(f"{largest:.6g}"), allowed
            )


def _largest(array: Any) -> float:
    """The largest absolute value, 0 of none, without a copy of the array."""
    return max(abs(float(array.min())), abs(float(array.max()))) if array.size else 0.0


def whole(value: Array) -> Array:
    """A JAX array whose rows are split over a mesh by its type (axes of type Explicit), on one device; others as they
    are.

    JAX refuses products of such arrays as ambiguous. Those on a mesh of type Auto stay where they are, traced ones as
    well.
    """
    import jax

    from dgu.core.parallel import on_one_device

    split = not isinstance(value, jax.core.Tracer) and any(part is not None for part in jax.typeof(value).sharding.spec)
    return on_one_device(value) if split else value


def as_native(name: str, value: Any) -> Array:
    """``value`` as a JAX array of the dtype it has, whatever its order of bytes.

    Raises:
        InputError: ``value`` is masked, ragged, or not of real numbers.
    """
    import jax

    require_numbers(**{name: value})
    if isinstance(value, jax.Array):
        return whole(value)
    array = as_plain(name, value)
    return to_device(array.astype(array.dtype.newbyteorder("="), copy=False))


def at_least_single(closed_form: Callable[..., Any]) -> Callable[..., Any]:
    """The method ``(self, x, ...)`` of a closed form, computed in float32 or wider whatever the dtype of ``x``.

    In half precision squares of noise levels underflow and sums overflow. What it returns has the dtype of ``x`` where
    that is a floating one, and the one computed in for integers, which cannot hold it.

    On the way a noise level, the argument ``sigma`` or ``noise``, is refused with an ``InputError`` where it is no
    scalar, or is negative or NaN; a traced one must be a scalar.
    """
    names = list(signature(closed_form).parameters)[2:]

    @wraps(closed_form)
    def wide(self: Any, x: Any, *rest: Any, **options: Any) -> Any:
        import jax

        for name, value in (dict(zip(names, rest)) | options).items():
            if name in ("sigma", "noise"):
                level = isinstance(value, jax.core.Tracer) or np.ndim(value) != 0 or bool(np.asarray(value) >= 0)
                require(level and np.ndim(value) == 0, name, value, "one noise level, 0 or more")
        inside = as_jax_floats("x", x)
        found = closed_form(self, inside, *rest, **options)
        given = jax.dtypes.canonicalize_dtype(np.dtype(getattr(x, "dtype", inside.dtype)).newbyteorder("="))
        same = given == inside.dtype or not is_floating(given)
        return found if same else jax.tree.map(lambda part: part.astype(given), found)

    return wide


def checked_rows(**sets: Any) -> list[np.ndarray]:
    """The sets as arrays ``(n, d)`` of float32 or float64, all of one width and finite, with a row each.

    Raises:
        InputError: a set that is not a matrix of real numbers, is empty or not finite, or sets of different widths.
    """
    rows = [as_floats(name, value) for name, value in sets.items()]
    for name, row in zip(sets, rows):
        require(row.ndim == 2, f"{name}.shape", row.shape, "(n, d): one row of numbers for each example")
    widths = tuple(row.shape[1] for row in rows)
    same = len(set(widths)) == 1 and widths[0] >= 1
    require(same, f"width of {' and '.join(sets)}", widths, "the same, 1 or more")
    for name, row in zip(sets, rows):
        require(len(row) > 0 and all_finite(row), name, f"{len(row)} rows", "at least 1, all finite")
    return rows


def all_finite(rows: np.ndarray) -> bool:
    """Whether an array of floats holds neither NaN nor infinities."""
    # A sum is finite where all its terms are, and needs no array of truth values; it may also just overflow.
    with np.errstate(all="ignore"):
        return bool(np.isfinite(rows.sum())) or bool(np.isfinite(rows).all())


def rounding(given: Any) -> float:
    """The relative spacing of the numbers of an array as it was given, that of float64 for integers."""
    import jax

    dtype = np.dtype(given.dtype if isinstance(given, jax.Array) else np.asarray(given).dtype).newbyteorder("=")
    return float(jax.numpy.finfo(dtype if is_floating(dtype) else np.float64).eps)


def as_labels(name: str, value: Any, count: int | None = None) -> np.ndarray:
    """Class labels as int32 of shape ``(n,)``, 0 or more; ``count`` of them where it is given.

    Raises:
        InputError: ``value`` is not one integer for each row, or holds negative or enormous ones.
    """
    labels = as_plain(name, value)
    wanted = "integers (n,)" if count is None else f"{count} integers, one for each row"
    if not is_integral(labels.dtype) or labels.ndim != 1 or (count is not None and len(labels) != count):
        raise InputError(f"{name}: has dtype {labels.dtype} and shape {labels.shape}; must be {wanted}")
    if labels.size:
        labels = labels if labels.dtype.kind in "iu" else labels.astype(np.int64)
        wrong = labels[(labels < 0) | (labels > np.iinfo(np.int32).max)]
        require(not wrong.size, name, wrong[:1].tolist(), "class labels, 0 or more")
    return labels.astype(np.int32)


def as_indices(name: str, value: Any) -> np.ndarray:
    """Numbers of samples as int32 of shape ``(n,)``, one or more, from 0 to 2^31 - 1.

    Raises:
        InputError: ``value`` is masked, not a list of integers, or one of them is out of range.
    """
    values = as_plain(name, value)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu":
        raise InputError(f"{name} of shape {values.shape}, dtype {values.dtype}: must be one integer or more, (n,)")
    require(values.min() >= 0, name, int(values.min()), "0 or more")
    require(values.max() < 2**31, name, int(values.max()), "below 2^31")
    return values.astype(np.int32)
