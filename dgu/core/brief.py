"""Short reprs: what an object that holds arrays is, in one line, with shapes in place of numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from dgu.core.errors import shortened

T = TypeVar("T")
#: Most entries of a list that are shown, and most characters of what has no shorter form.
_ENTRIES, _TEXT = 6, 80


def short_repr(kind: type[T]) -> type[T]:
    """Class decorator, above ``dataclass``: ``repr`` gives the class and its fields, each as ``brief`` shows it.

    ``GaussianDenoiser(mean=float32[14, 14, 1], ...)``
    """

    def __repr__(self: Any) -> str:
        shown = (f"{field.name}={brief(getattr(self, field.name))}" for field in dataclasses.fields(self) if field.repr)
        return f"{type(self).__name__}({', '.join(shown)})"

    kind.__repr__ = __repr__  # type: ignore[method-assign]
    return kind


def brief(value: Any) -> str:
    """A value in a few words: arrays by dtype and shape (``float32[14, 14, 1]``), pytrees of arrays by how many numbers
    they hold, long lists by their first entries, other mappings by their keys.
    """
    if _is_array(value):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, Mapping):
        arrays = list(_arrays(value))
        if arrays:
            return f"<{_counted(len(arrays), 'array')}, {_counted(sum(array.size for array in arrays), 'number')}>"
        keys = list(map(str, value))
        return f"{{{shortened(', '.join(keys), _TEXT)}}}"
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        left = [f"... {len(value)} in all"] * (len(value) > _ENTRIES)
        inside = ", ".join([*map(brief, value[:_ENTRIES]), *left])
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return shortened(repr(value), 3 * _TEXT)
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    return shortened(repr(value), _TEXT)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and isinstance(value.shape, tuple)


def _arrays(tree: Any) -> Any:
    """The arrays in nested mappings, lists and tuples."""
    if _is_array(tree):
        yield tree
    elif isinstance(tree, Mapping):
        for entry in tree.values():
            yield from _arrays(entry)
    elif isinstance(tree, tuple | list):
        for entry in tree:
            yield from _arrays(entry)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
