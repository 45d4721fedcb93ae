"""Parameters of our layers as arrays in PyTorch's names and layouts, and back."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dgu.core.errors import InputError, require
from dgu.core.typing import PyTree

#: Names of a parameter's place in a tree, from the outside in.
Path = tuple[str, ...]
#: How a parameter is called in a file.
Naming = Callable[[Path], str]


def torch_name(path: Path) -> str:
    """``conv_in.weight`` of ``("conv_in", "kernel")``: kernels and scales are weights there."""
    leaf = {"kernel": "weight", "scale": "weight"}.get(path[-1], path[-1])
    return ".".join((*path[:-1], leaf))


def tree_paths(tree: PyTree) -> tuple[list[Path], list[Any], Any]:
    """The paths of a nested dict's leaves, the leaves, and its structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [tuple(k.key for k in path) for path, _ in leaves], [leaf for _, leaf in leaves], treedef


def tree_to_arrays(params: PyTree, name: Naming = torch_name) -> dict[str, np.ndarray]:
    """Parameters by name: convolutions HWIO -> OIHW, dense weights (in, out) -> (out, in)."""
    paths, leaves, _ = tree_paths(params)
    return {name(path): _to_torch(path, np.asarray(leaf)) for path, leaf in zip(paths, leaves)}


def tree_sizes(abstract: PyTree, name: Naming = torch_name) -> dict[str, int]:
    """How many entries the array of each parameter has, by name."""
    paths, leaves, _ = tree_paths(abstract)
    return {name(path): math.prod(leaf.shape) for path, leaf in zip(paths, leaves)}


def tree_from_arrays(
    abstract: PyTree, arrays: Mapping[str, Any], name: Naming = torch_name, dtype: Any = np.float32
) -> PyTree:
    """Parameters of the shapes of ``abstract`` from arrays in PyTorch's layouts, as ``dtype`` (always copies).

    Raises:
        InputError: a tensor is missing, misshapen, not of real numbers or not finite.
    """
    paths, leaves, treedef = tree_paths(abstract)
    values = []
    for path, leaf in zip(paths, leaves):
        label = name(path)
        if label not in arrays:
            raise InputError(f"arrays: {label} is missing: the weights are of another architecture")
        value, expected = np.asarray(arrays[label]), _torch_shape(path, leaf.shape)
        same = value.shape == expected
        require(same, label, value.shape, f"of shape {expected}: the weights are of another architecture")
        require(value.dtype.kind in "fiu", label, str(value.dtype), "real numbers")
        # Extremes say it without a second array of the tensor's size.
        finite = not value.size or math.isfinite(float(value.min()) - float(value.max()))
        require(finite, label, "non-finite", "finite numbers")
        # Copied and cast by NumPy: a file that is mapped may change later, and JAX would compile a cast for each shape.
        values.append(jax.device_put(np.array(_from_torch(path, value), dtype, order="C")))
    return jax.tree_util.tree_unflatten(treedef, values)


def check_names(expected: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """``InputError`` where a name is in one of the two only."""
    for label in sorted(expected.keys() ^ set(given)):
        problem = "is missing: the weights are of another" if label in expected else "does not belong to this"
        raise InputError(f"arrays: {label} {problem} architecture")


def _from_torch(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_torch(path: Path, array: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _torch_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    if path[-1] != "kernel":
        return shape
    return tuple(shape[axis] for axis in ((3, 2, 0, 1) if len(shape) == 4 else (1, 0)))
