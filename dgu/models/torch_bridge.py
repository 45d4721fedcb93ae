"""PyTorch modules as networks of JAX, with derivatives forwards and backwards.

    module(x, t[, label]) -> y     torch, batched: x (B, *event), t (B,), label (B, ...), y (B, *out)

becomes a function of ONE example under ``jit``, ``vmap``, ``scan``, ``jvp``, ``vjp`` and what is made of them. Three
primitives reach PyTorch by a callback: the call, its derivative along a tangent (``torch.func.jvp``), and its pullback
(``torch.func.vjp``). The last two are linear and each other's transposes, from which JAX makes the rest; under ``vmap``
each is one callback with a batch. Second derivatives are not there.

All work of PyTorch is done in one thread: nesting levels of ``torch.func`` are of the process, and grad mode, numbers
of threads and default dtypes of each thread. The callback copies nothing by JAX, which on several CPU devices could
wait for a thread of XLA's own pool while all of these wait for callbacks.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require
from dgu.core.typing import Event

Shape = tuple[int, ...]


@lru_cache(maxsize=1)
def _worker() -> ThreadPoolExecutor:
    """The one thread in which PyTorch works."""
    return ThreadPoolExecutor(1, "dgu-torch")


class TorchFunction:
    """A module on the side of PyTorch; equal to itself alone, so that it is static in compiled programs.

    Args:
        module: a ``torch.nn.Module``; it is put in evaluation mode. Its parameters are used where and in the precision
            that they are, and may be changed between calls.
        threads: how many threads PyTorch uses for an operation.
    """

    def __init__(self, module: Any, threads: int = 1):
        self.module, self.threads = module.eval(), threads
        self._weights = {name: value.detach() for name, value in (*module.named_parameters(), *module.named_buffers())}
        like: Any = next((value for value in self._weights.values() if value.is_floating_point()), None)
        self._dtype, self._device = getattr(like, "dtype", None), getattr(like, "device", None)
        self._shapes: dict[Any, Shape] = {}

    def out_shape(self, event: Shape, labels: tuple[tuple[Shape, Any], ...]) -> Shape:
        """The shape of one output for an example of shape ``event``: the module is called once, with zeros.

        Raises:
            InputError: the module fails, or returns anything else than one tensor for a batch of one.
        """
        key = (event, labels)
        if key not in self._shapes:
            zeros = [np.zeros((1, *event), np.float32), np.ones(1, np.float32)]
            zeros += [np.zeros((1, *shape), dtype) for shape, dtype in labels]
            try:
                self._shapes[key] = _worker().submit(self._probe, zeros).result()
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"module: must take tensors of shapes {', '.join(str(z.shape) for z in zeros)} ({error})"
                ) from error
        return self._shapes[key]

    def _probe(self, zeros: list[np.ndarray]) -> Shape:
        import torch

        with torch.no_grad():
            out = self._call(*self._tensors(zeros))
        if not isinstance(out, torch.Tensor) or out.ndim == 0 or out.shape[0] != 1:
            found = (
                f"a tensor of shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else f"a {type(out).__name__}"
            )
            raise InputError(f"module: returns {found} for a batch of one; must return one tensor (1, ...)")
        return tuple(out.shape[1:])

    def _call(self, *arguments: Any) -> Any:
        import torch

        return torch.func.functional_call(self.module, self._weights, arguments)

    def _tensors(self, arrays: list[np.ndarray]) -> list[Any]:
        """Copies: the buffers of JAX are used again once a callback has returned."""
        import torch

        tensors = [torch.from_numpy(np.array(array)) for array in arrays]
        return [each.to(self._device, self._dtype if each.is_floating_point() else None) for each in tensors]

    def run(self, kind: str, labelled: bool, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """One callback: the arguments of a primitive, with leading axes, and its results."""
        return _worker().submit(self._run, kind, labelled, arrays).result()

    def _run(self, kind: str, labelled: bool, arrays: list[np.ndarray]) -> list[np.ndarray]:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        lead = arrays[1].shape
        flat = [array.reshape((math.prod(lead), *array.shape[len(lead) :])) for array in arrays]
        count = 3 if labelled else 2
        (x, t, *label), rest = (tensors := self._tensors(flat))[:count], tensors[count:]

        def call(x: Any, t: Any) -> Any:
            return self._call(x, t, *label)

        # The fused attention on CPUs has no forward mode.
        with nullcontext() if kind == "call" else sdpa_kernel(SDPBackend.MATH):
            if kind == "call":
                with torch.no_grad():
                    out = (call(x, t),)
            elif kind == "jvp":
                out = (torch.func.jvp(call, (x, t), tuple(rest))[1],)
            else:
                out = torch.func.vjp(call, x, t)[1](rest[0])
        return [each.detach().cpu().contiguous().numpy().reshape((*lead, *each.shape[1:])) for each in out]


# The primitives: call(x, t, label*), jvp(x, t, label*, dx, dt), vjp(x, t, label*, cotangent)
# ---------------------------------------------------------------------------------------------------------------------


def _shapes(kind: str, function: TorchFunction, labelled: bool, out: Shape, x: Any, t: Any) -> list[ShapedArray]:
    if kind == "vjp":
        return [ShapedArray(x.shape, x.dtype), ShapedArray(t.shape, x.dtype)]
    return [ShapedArray((*t.shape, *out), x.dtype)]


def _on_cpu(*arguments: Array, kind: str, function: TorchFunction, labelled: bool, out: Shape) -> list[Array]:
    """The callback that reads and writes the buffers in place."""
    from jax.experimental.buffer_callback import buffer_callback

    def host(context: Any, results: Any, *buffers: Any) -> None:
        found = function.run(kind, labelled, [np.asarray(buffer) for buffer in buffers])
        for result, array in zip(results, found):
            np.asarray(result)[...] = array

    shapes = _structs(_shapes(kind, function, labelled, out, *arguments[:2]))
    return list(buffer_callback(host, shapes)(*arguments))


def _elsewhere(*arguments: Array, kind: str, function: TorchFunction, labelled: bool, out: Shape) -> list[Array]:
    """The callback that copies to the host and back."""
    shapes = _shapes(kind, function, labelled, out, *arguments[:2])

    def host(*arrays: Any) -> tuple[np.ndarray, ...]:
        found = function.run(kind, labelled, [np.asarray(array) for array in arrays])
        return tuple(array.astype(shape.dtype, copy=False) for array, shape in zip(found, shapes))

    return list(jax.pure_callback(host, _structs(shapes), *arguments))


def _structs(shapes: list[ShapedArray]) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in shapes)


def _batched(primitive: Primitive, arguments: Any, axes: Any, **static: Any) -> tuple[list[Array], list[int]]:
    """``vmap``: one more leading axis, of all arguments."""
    size = next(np.shape(each)[axis] for each, axis in zip(arguments, axes) if axis is not None)
    wide = [
        jnp.broadcast_to(each[None], (size, *np.shape(each))) if axis is None else jnp.moveaxis(each, axis, 0)
        for each, axis in zip(arguments, axes)
    ]
    out = primitive.bind(*wide, **static)
    return out, [0] * len(out)


def _define(kind: str) -> Primitive:
    primitive = Primitive(f"torch_{kind}")
    primitive.multiple_results = True
    static = ("function", "labelled", "out")
    primitive.def_impl(jax.jit(lambda *args, **options: primitive.bind(*args, **options), static_argnames=static))
    primitive.def_abstract_eval(
        lambda *args, function, labelled, out: _shapes(kind, function, labelled, out, *args[:2])
    )
    batching.primitive_batchers[primitive] = partial(_batched, primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(partial(_elsewhere, kind=kind), multiple_results=True))
    on_cpu = mlir.lower_fun(partial(_on_cpu, kind=kind), multiple_results=True)
    mlir.register_lowering(primitive, on_cpu, platform="cpu")
    return primitive


_call, _jvp, _vjp = _define("call"), _define("jvp"), _define("vjp")


def _dense(tangent: Any, like: Any) -> Any:
    return jnp.zeros(like.shape, like.dtype) if type(tangent) is ad.Zero else tangent


def _call_derivative(primals: Any, tangents: Any, **static: Any) -> tuple[list[Array], list[Array]]:
    along = [_dense(tangent, primal) for tangent, primal in zip(tangents[:2], primals[:2])]
    return _call.bind(*primals, **static), _jvp.bind(*primals, *along, **static)


def _linear_derivative(primitive: Primitive, primals: Any, tangents: Any, **static: Any) -> tuple[Any, Any]:
    """Of a linear primitive by its linear arguments; by the others it would be a second derivative."""
    fixed = 3 if static["labelled"] else 2
    if any(type(tangent) is not ad.Zero for tangent in tangents[:2]):
        raise InputError("module: has no second derivatives; must be differentiated once, by JVP or VJP")
    along = [_dense(tangent, primal) for tangent, primal in zip(tangents[fixed:], primals[fixed:])]
    return primitive.bind(*primals, **static), primitive.bind(*primals[:fixed], *along, **static)


def _jvp_transpose(cotangents: Any, *arguments: Any, **static: Any) -> list[Any]:
    fixed, (cotangent,) = 3 if static["labelled"] else 2, cotangents
    if type(cotangent) is ad.Zero:
        return [None] * fixed + [
            ad.Zero(each.aval) if ad.is_undefined_primal(each) else None for each in arguments[fixed:]
        ]
    pulled = _vjp.bind(*arguments[:fixed], cotangent, **static)
    return [None] * fixed + [
        found if ad.is_undefined_primal(each) else None for found, each in zip(pulled, arguments[fixed:])
    ]


def _vjp_transpose(cotangents: Any, *arguments: Any, **static: Any) -> list[Any]:
    fixed = 3 if static["labelled"] else 2
    along = [_dense(cotangent, like) for cotangent, like in zip(cotangents, arguments[:2])]
    return [None] * fixed + _jvp.bind(*arguments[:fixed], *along, **static)


ad.primitive_jvps[_call] = _call_derivative
ad.primitive_jvps[_jvp], ad.primitive_jvps[_vjp] = partial(_linear_derivative, _jvp), partial(_linear_derivative, _vjp)
ad.primitive_transposes[_jvp], ad.primitive_transposes[_vjp] = _jvp_transpose, _vjp_transpose


# For users
# ---------------------------------------------------------------------------------------------------------------------


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TorchNetwork:
    """``network(x, t, label=None)`` of one example by a PyTorch module (see ``torch_network``); it has no leaves."""

    function: TorchFunction = field(metadata={"static": True})
    channels_first: bool = field(default=True, metadata={"static": True})

    def __call__(self, x: Event, t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "*out"]:
        """The module's output on one example, in the dtype of ``x``; differentiable in ``x`` and ``t``, once.

        Raises:
            InputError: the module fails on an example of this shape, or returns anything else than one tensor.
        """
        images = self.channels_first and x.ndim == 3
        state = jnp.moveaxis(x, -1, 0) if images else x
        labels = () if label is None else (jax.lax.stop_gradient(jnp.asarray(label)),)
        out = self.function.out_shape(state.shape, tuple((each.shape, np.dtype(each.dtype)) for each in labels))
        arguments = state, jnp.asarray(t, x.dtype), *labels
        (found,) = _call.bind(*arguments, function=self.function, labelled=bool(labels), out=out)
        return jnp.moveaxis(found, 0, -1) if images and found.ndim == 3 else found


def torch_network(module: Any, *, channels_first: bool = True, threads: int = 1) -> TorchNetwork:
    """Any ``torch.nn.Module`` as a network of one example, for ``dgu.denoiser(torch_network(module), ...)``.

    The module is called as ``module(x, t)`` or ``module(x, t, label)`` with batches: x (B, C, H, W), t (B,) and one
    label each. Compiled, mapped and scanned programs call it once for a whole batch; JVPs and VJPs in x and t are those
    of ``torch.func``, to first order. Needs PyTorch (the extra ``torch`` of this package).

    Args:
        module: it is put in evaluation mode; its parameters are not copied.
        channels_first: whether the module's images are (C, H, W); examples are (H, W, C), as everywhere in the library.
            Examples with another number of axes stay as they are.
        threads: how many threads PyTorch uses for an operation.

    Raises:
        InputError: ``module`` is no module.
    """
    usable = all(hasattr(module, name) for name in ("named_parameters", "named_buffers", "eval")) and callable(module)
    require(usable, "module", type(module).__name__, "a torch.nn.Module")
    require(threads >= 1, "threads", threads, "1 or more")
    return TorchNetwork(TorchFunction(module, threads), channels_first)
