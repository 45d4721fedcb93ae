"""The memory that a compiled program holds at its peak, from its trace: what ``--dry-run`` prints.

Compiling the papers' networks takes minutes and as much memory as running them; tracing takes seconds. So the order of
the operations is taken from the trace, and what a compiler does to it is put in by three rules: an array is given back
after its last use; elementwise chains are computed where they are needed, without an array for their links; and the
result of an elementwise operation takes the place of an operand of its size that nobody needs any more.
``benchmarks/memory.py`` holds the result to what programs were measured to hold.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from dgu.models import DiffusersNetwork, EDMNetwork

#: Operations that a compiler computes again, or as they are read, in whatever needs their result.
_FUSED = frozenset(
    "abs add add_any and broadcast_in_dim ceil clamp convert_element_type copy cos div eq erf erf_inv exp exp2 "
    "expand_dims expm1 floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne neg "
    "nextafter not or pad pow real reduce_precision rem reshape rev round rsqrt select_n shift_left "
    "shift_right_arithmetic shift_right_logical sign sin slice split sqrt square squeeze stop_gradient sub tan "
    "tanh transpose xor".split()
)
#: Operations that a compiler computes such chains into: sums and extremes along axes.
_FUSED_INTO = ("reduce_", "argmax", "argmin")
#: Operations that only stand for the program inside them.
_CALLS = frozenset(
    "jit pjit closed_call core_call custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr remat2 checkpoint".split()
)


#: A function, and the arguments of one call or their shapes.
Program = tuple[Callable[..., Any], Sequence[Any]]


def held_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes that one call holds at its peak: its arguments, its results, and what lies between.

    Args:
        function: traced, never run.
        arguments: arrays, or ``jax.ShapeDtypeStruct`` in their place, in pytrees.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    program = _Program(closed.jaxpr)
    return sum(program.sizes[value] for value in program.inputs) + program.peak()


def evaluation(network: DiffusersNetwork | EDMNetwork, batch: int) -> Program:
    """Evaluations of a network, ``batch`` images at once, and the shapes that they take."""
    return lambda params, *rest: _together(network, params, rest), _abstract(network, batch)


def gradient(network: DiffusersNetwork | EDMNetwork, batch: int) -> Program:
    """The gradient by a network's parameters of a loss over ``batch`` images at once, and the shapes that it takes."""

    def loss(params: Any, *rest: Any) -> Any:
        return jnp.mean(jnp.square(_together(network, params, rest) - rest[0]))

    return jax.value_and_grad(loss), _abstract(network, batch)


def jacobians(network: DiffusersNetwork | EDMNetwork, vectors: int, batch: int) -> Program:
    """Products of the transposed Jacobians at ``batch`` images with ``vectors`` vectors each, and the shapes that they
    take: what an iteration for singular vectors holds most in.
    """
    from dgu.analysis.linearity.jacobians import transposed_products

    params, images, levels, *labels = _abstract(network, batch)
    model: Any = network.denoiser(params)
    model = model.given(np.int32(0)) if labels else model
    block = jax.ShapeDtypeStruct((batch, vectors, *network.shape), jnp.float32)
    return transposed_products, [model, images, levels, block]


@lru_cache(maxsize=32)
def evaluation_bytes(network: DiffusersNetwork | EDMNetwork, batch: int) -> int:
    """``held_bytes`` of ``evaluation``."""
    function, arguments = evaluation(network, batch)
    return held_bytes(function, *arguments)


@lru_cache(maxsize=32)
def gradient_bytes(network: DiffusersNetwork | EDMNetwork, batch: int) -> int:
    """``held_bytes`` of ``gradient``."""
    function, arguments = gradient(network, batch)
    return held_bytes(function, *arguments)


def training_bytes(
    network: DiffusersNetwork | EDMNetwork, batch: int, *, averages: int = 1, accumulates: bool = False
) -> int:
    """What a training of a network holds: a gradient, and averages and two moments of the parameters beside them.

    With micro-batches (``accumulates``) the gradient so far is one more copy of the parameters.
    """
    copies = 2 + averages + accumulates
    return gradient_bytes(network, batch) + copies * tree_bytes(network.abstract_params)


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a pytree, or of their shapes."""
    return sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _together(network: DiffusersNetwork | EDMNetwork, params: Any, rest: Sequence[Any]) -> Any:
    return jax.vmap(lambda *one: network.apply(params, *one))(*rest)


def _abstract(network: DiffusersNetwork | EDMNetwork, batch: int) -> list[Any]:
    """Shapes of the parameters, and of images, noise levels and, for a network with classes, labels."""
    shape = jax.ShapeDtypeStruct
    labels = [shape((batch,), jnp.int32)] if network.unet.label_dim else []
    return [
        network.abstract_params,
        shape((batch, *network.shape), jnp.float32),
        shape((batch,), jnp.float32),
        *labels,
    ]


@dataclass(frozen=True)
class _Step:
    """An operation of a program whose calls are written out: values by their numbers."""

    name: str
    reads: list[int]
    makes: list[int]
    inside: int
    """The most bytes that a loop or a branch holds beside what it reads."""


class _Program:
    """A program with its calls written out, and the sizes of its values, in bytes."""

    def __init__(self, jaxpr: core.Jaxpr) -> None:
        self.sizes: list[int] = []
        self.steps: list[_Step] = []
        known = {value: self._new(value) for value in (*jaxpr.invars, *jaxpr.constvars)}
        self.inputs = set(known.values())
        self._write_out(jaxpr, known)
        self.results = {known[value] for value in jaxpr.outvars if not isinstance(value, core.Literal)}

    def _new(self, value: Any) -> int:
        self.sizes.append(prod(value.aval.shape) * getattr(value.aval.dtype, "itemsize", 4))
        return len(self.sizes) - 1

    def _write_out(self, jaxpr: core.Jaxpr, known: dict[Any, int]) -> None:
        """The operations of ``jaxpr``, whose inputs have the numbers ``known``, to which its own values are added."""
        for equation in jaxpr.eqns:
            given = [None if isinstance(value, core.Literal) else known[value] for value in equation.invars]
            inner = list(inner_programs(equation.params))
            if equation.primitive.name in _CALLS and inner and len(inner[0].invars) == len(given):
                called = inner[0]
                own = {value: self._new(value) if at is None else at for value, at in zip(called.invars, given)}
                own |= {value: self._new(value) for value in called.constvars}
                self._write_out(called, own)
                for out, value in zip(equation.outvars, called.outvars):
                    known[out] = self._new(out) if isinstance(value, core.Literal) else own[value]
                continue
            known |= {out: self._new(out) for out in equation.outvars}
            inside = max((_Program(each).peak() for each in inner), default=0)
            reads = [at for at in given if at is not None]
            self.steps.append(_Step(equation.primitive.name, reads, [known[out] for out in equation.outvars], inside))

    def peak(self) -> int:
        """The most bytes held at once beside the inputs."""
        whole = set(self.results)  # Values that lie in memory, not only in a chain.
        for step in self.steps:
            if step.name not in _FUSED and not step.name.startswith(_FUSED_INTO):
                whole.update(step.reads)
        roots: dict[int, frozenset[int]] = {}  # Of a value that does not: those that its chain starts from.
        last: dict[int, int] = {}
        for place, step in enumerate(self.steps):
            needed = frozenset[int]().union(*(roots.get(value, frozenset((value,))) for value in step.reads))
            last |= dict.fromkeys(needed, place)
            if step.name in _FUSED:
                roots |= {value: needed for value in step.makes if value not in whole}
        ends: list[list[int]] = [[] for _ in self.steps]
        for value, place in last.items():
            if value not in self.inputs and value not in self.results:
                ends[place].append(value)
        held = most = 0
        for step, going in zip(self.steps, ends):
            kept = (value for value in step.makes if value not in roots and (value in last or value in self.results))
            new, old = self._bytes(kept), self._bytes(going)
            replaced = min(new, old) if step.name in _FUSED else 0
            most = max(most, held + new - replaced + step.inside)
            held += new - old
        return most

    def _bytes(self, values: Iterable[int]) -> int:
        return sum(self.sizes[value] for value in values)


def inner_programs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs among the parameters of an equation of a trace: of a call, a loop's body, a branch's sides."""
    for value in params.values():
        for entry in value if isinstance(value, tuple | list) else (value,):
            if isinstance(entry, core.ClosedJaxpr):
                yield entry.jaxpr
            elif isinstance(entry, core.Jaxpr):
                yield entry
