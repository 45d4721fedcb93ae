"""A family of 1-Lipschitz functions: concentration of measure is a statement about their tails.

Each has a Lipschitz constant of at most 1 in the Euclidean norm, by construction (up to rounding):

- ``norm``: ``||x||``;
- ``projection``: ``<u, x>`` with a unit vector u;
- ``coordinate``: ``x_j``;
- ``distance``: ``min_a ||x - a||`` to a set of anchors, a minimum of 1-Lipschitz functions;
- ``max``: ``max_j x_j``, as ``|max x - max y| <= max |x - y|``;
- ``network``: ``w . tanh(W_2 tanh(W_1 x))`` with every layer divided by its largest singular value; tanh has slopes in
  [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_floats, as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LipschitzFamily:
    """Functions of one example, as data: a pytree. Make it with ``lipschitz_family``.

    Fields: ``directions`` (p, d) unit rows; ``coordinates`` (c,) positions in the flattened example; ``anchors`` (a,
    d), a may be 0; ``layers`` matrices (out, in) of largest singular value 1, the last with one row; an empty tuple for
    no network; ``maximum`` (static) whether ``max`` is among them.
    """

    directions: Any
    coordinates: Any
    anchors: Any
    layers: tuple[Any, ...]
    maximum: bool = field(metadata={"static": True})

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each function, in the order of the values."""
        return (
            "norm",
            *(("max",) if self.maximum else ()),
            *(f"projection {number}" for number in range(self.directions.shape[0])),
            *(f"coordinate {number}" for number in range(self.coordinates.shape[0])),
            *(("distance to anchors",) if self.anchors.shape[0] else ()),
            *(("network",) if self.layers else ()),
        )

    def __call__(self, x: Num[ArrayLike, "*event"]) -> Float[Array, " functions"]:
        """The functions' values at one example of any shape with d numbers; ``vmap`` it over a batch."""
        flat = as_jax_floats("x", x).reshape(-1)
        values = [
            _norm(flat)[None],
            *((jnp.max(flat)[None],) if self.maximum else ()),
            jnp.matmul(self.directions.astype(flat.dtype), flat, precision=_HIGHEST),
            flat[self.coordinates],
        ]
        if self.anchors.shape[0]:
            values.append(jnp.min(jax.vmap(lambda anchor: _norm(flat - anchor.astype(flat.dtype)))(self.anchors))[None])
        if self.layers:
            hidden = flat
            for number, layer in enumerate(self.layers):
                hidden = jnp.tanh(hidden) if number else hidden
                hidden = jnp.matmul(layer.astype(flat.dtype), hidden, precision=_HIGHEST)
            values.append(hidden)
        return jnp.concatenate(values)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x))


def lipschitz_family(
    key: Key,
    dimension: int,
    *,
    projections: int = 8,
    coordinates: int | Sequence[int] = 4,
    anchors: Num[ArrayLike, "a ..."] | None = None,
    directions: Num[ArrayLike, "p ..."] | None = None,
    maximum: bool = True,
    width: int = 32,
) -> LipschitzFamily:
    """A family with random members, drawn without looking at the data that it is applied to.

    Args:
        key: key of directions, coordinates and network.
        dimension: d, the numbers in one example.
        projections: directions uniform on the sphere.
        coordinates: how many different positions to draw, at most d; or the positions themselves, where some do not
            vary.
        anchors: examples to measure the distance to, such as held-out ones or the mean; None leaves the function out.
        directions: further directions, ahead of the random ones and scaled to length 1, such as eigenvectors of other
            data.
        maximum: whether the largest coordinate is among the functions; of bounded data it crowds at the bound.
        width: hidden units of the network of three layers; 0 leaves it out.

    Raises:
        InputError: sizes out of range, anchors or directions of another dimension, not finite, or a direction of length
            zero.
    """
    key = threefry(key)
    require(dimension >= 1, "dimension", dimension, "at least 1")
    require(projections >= 0, "projections", projections, "0 or more")
    if isinstance(coordinates, int):
        require(0 <= coordinates <= dimension, "coordinates", coordinates, f"0 to the dimension, {dimension}")
    else:
        inside = all(0 <= place < dimension for place in coordinates)
        require(inside, "coordinates", tuple(coordinates), f"positions from 0 to {dimension - 1}")
    require(width >= 0, "width", width, "0 or more")
    given = {}
    for name, rows in (("anchors", anchors), ("directions", directions)):
        flat = np.zeros((0, dimension), np.float32) if rows is None else as_floats(name, rows)
        flat = flat.reshape(len(flat), -1) if len(flat) else np.zeros((0, dimension), np.float32)
        require(flat.shape[1] == dimension, f"{name}.shape", flat.shape, f"rows of {dimension} numbers")
        require(bool(np.isfinite(flat).all()), name, "non-finite", "finite")
        given[name] = flat
    lengths = np.linalg.norm(given["directions"], axis=1, keepdims=True)
    require(bool((lengths > 0).all()), "directions", "a row of length 0", "directions of positive length")
    shapes = [(projections, dimension), *(((width, dimension), (width, width), (1, width)) if width else ())]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    # One draw for all: each shape of its own would be compiled for itself.
    drawn = np.split(np.asarray(jax.random.normal(stream(key, "family"), (int(ends[-1]),))), ends[:-1])
    unit, *layers = (part.reshape(shape) for part, shape in zip(drawn, shapes))
    unit = np.concatenate([given["directions"] / lengths, unit / np.linalg.norm(unit, axis=1, keepdims=True)])
    if isinstance(coordinates, int):
        chosen = np.argsort(np.asarray(jax.random.uniform(stream(key, "coordinates"), (dimension,))))[:coordinates]
    else:
        chosen = np.asarray(coordinates)
    return LipschitzFamily(
        jnp.asarray(unit, jnp.result_type(float)),
        jnp.asarray(chosen, jnp.int32),
        jnp.asarray(given["anchors"]),
        tuple(jnp.asarray(layer / np.linalg.norm(layer, 2)) for layer in layers),
        maximum,
    )


@jax.jit
def _values(family: LipschitzFamily, rows: Array) -> Array:
    return jax.vmap(family)(rows)


def lipschitz_values(
    family: LipschitzFamily, examples: Num[ArrayLike, " n *event"]
) -> Float[np.ndarray, "n functions"]:
    """Values of all functions at all examples, ``(n, functions)``.

    Raises:
        InputError: no examples, another dimension than the family's, or non-finite values.
    """
    shape = np.shape(examples)
    size = int(np.prod(shape[1:]))
    wanted = int(family.directions.shape[1])
    require(shape[0] >= 1 and size == wanted, "examples.shape", shape, f"(n, ...) with {wanted} numbers an example")
    values = np.asarray(_values(family, as_jax_floats("examples", examples).reshape(shape[0], -1)))
    require(bool(np.isfinite(values).all()), "examples", "non-finite", "finite")
    return values
