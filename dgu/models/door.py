"""One door for every model: from a function, a module and its variables, whatever it predicts, to a denoiser."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dgu.core.arrays import as_doubles
from dgu.core.denoisers import as_pytree, is_torch
from dgu.core.errors import InputError, require, require_whole
from dgu.core.typing import PyTree
from dgu.models.adapted import AdaptedDenoiser, OneExample
from dgu.models.preconditioning import Preconditioning
from dgu.models.predictions import PREDICTED, ConsistencyPreconditioning, Prediction
from dgu.models.time_schedules import FlowSchedule, SigmaSchedule, as_schedule
from dgu.models.torch_bridge import torch_network

#: What networks of the second kind bring along themselves.
_PREDICTS = (*PREDICTED, "consistency")


def denoiser(
    model: Any,
    params: PyTree = None,
    *,
    predicts: str = "x0",
    schedule: Any = None,
    preconditioning: Preconditioning | None = None,
    batched: bool = False,
    channels_first: bool = False,
    num_classes: int = 0,
    no_class: int | Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
) -> AdaptedDenoiser:
    """Any model as a denoiser ``D(x, sigma)`` that every function of the library takes.

    It is called as ``model(z, t)`` or, with ``params``, as ``model(params, z, t)``, with the state z and the time t of
    its schedule, and as ``model(z, t, label)`` where there are classes. Of a Flax module (Linen with ``params`` its
    variables, NNX with or without a state) ``apply`` and the merged module are called; an Equinox module, or any other
    callable pytree, is called as it is; a PyTorch module by ``torch_network``, with batches whose channels come first,
    as there, so that ``batched`` and ``channels_first`` are left out. Arrays in ``model`` and ``params`` become
    arguments of the compiled programs, the rest constants of these; arrays that a plain function closes over are
    constants, too.

    Networks are called as in evaluation: an NNX module by its ``eval()``; of others dropout must be off, as in
    ``functools.partial(module.apply, train=False)``.

    Args:
        model: the function or module.
        params: parameters, as the first argument of a function; the variables of a Linen module; the state of an NNX
            one.
        predicts: ``x0``, ``epsilon``, ``v``, ``velocity``, ``score`` (see ``dgu.models.Prediction``), or
            ``consistency``: the raw network of a consistency model, whose function is no posterior mean.
        schedule: which state and time the network is given: a ``SigmaSchedule`` (the default), ``DiscreteSchedule``,
            ``FlowSchedule`` (the default for ``velocity``) or ``ProcessSchedule``, all of ``dgu.models``; a linear SDE
            such as ``dgu.samplers.VPSDE()``; or the ``alphas_cumprod`` of discrete times. For ``consistency`` a
            ``ConsistencyPreconditioning``.
        preconditioning: four coefficients of sigma in place of ``predicts`` and ``schedule``, such as
            ``dgu.models.EDMPreconditioning()``.
        batched: whether the model wants a leading axis of examples on z, t and label.
        channels_first: whether its images are (C, H, W); x is (H, W, C), as everywhere in the library.
        num_classes: how many classes it is told of; 0 for none. A label is an int32 scalar or a vector of so many
            floats.
        no_class: the label that stands for no class, such as ``num_classes``; None where it knows none, so that calls
            without a class are refused.
        shape: the shape of an example, to refuse others.

    Raises:
        InputError: what cannot be called, an unknown prediction or schedule, options that exclude each other.
    """
    coefficients = _coefficients(predicts, schedule, preconditioning)
    require_whole("num_classes", num_classes, 0)
    if no_class is not None:
        require(num_classes > 0, "no_class", no_class, "left out: the network has no classes")
        no_class = _label("no_class", no_class, num_classes)
    if shape is not None:
        for size in shape:
            require_whole("a size of shape", size)
    if is_torch(model):
        require(not (batched or channels_first), "batched", True, "left out for a PyTorch module, as channels_first is")
        require(params is None, "params", "given", "left out for a PyTorch module, which has its own")
        model = torch_network(model)
    call, before = _called(model, params)
    return AdaptedDenoiser(
        network=OneExample(as_pytree(call, "model"), before, batched, channels_first),
        preconditioning=coefficients,
        label_dim=int(num_classes),
        no_class=no_class,
        shape=None if shape is None else tuple(int(size) for size in shape),
    )


def _coefficients(predicts: str, schedule: Any, preconditioning: Any) -> Any:
    require(predicts in _PREDICTS, "predicts", predicts, f"one of {', '.join(_PREDICTS)}")
    if preconditioning is not None:
        alone = schedule is None and predicts == "x0" and hasattr(preconditioning, "coefficients")
        shown = type(preconditioning).__name__
        require(alone, "preconditioning", shown, "a preconditioning of dgu.models, without predicts and schedule")
        return preconditioning
    if predicts == "consistency":
        given = ConsistencyPreconditioning() if schedule is None else schedule
        of_kind = isinstance(given, ConsistencyPreconditioning)
        require(of_kind, "schedule", type(given).__name__, "a ConsistencyPreconditioning for predicts = 'consistency'")
        return given
    if schedule is None:
        schedule = FlowSchedule() if predicts == "velocity" else SigmaSchedule()
    return Prediction(predicts, as_schedule(schedule))


def _label(name: str, label: Any, num_classes: int) -> int | tuple[float, ...]:
    vector = as_doubles(name, label)
    if vector.ndim == 1:
        require(vector.shape == (num_classes,), name, vector.shape, f"one number, or {num_classes} of them")
        return tuple(vector.tolist())
    require_whole(name, label, 0)
    return int(np.asarray(label))


def _called(model: Any, params: PyTree) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What is called, and its arguments before the state: the rules of each kind of module."""
    from jax.tree_util import Partial

    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(model).__mro__}
    if any(kind.startswith("flax.linen.") for kind in kinds):
        require(params is not None, "params", None, "the variables of the Linen module, as its init returns them")
        return Partial(type(model).apply, model), (params,)
    if any(kind.startswith("flax.nnx.") for kind in kinds):
        from flax import nnx

        graph, state = nnx.split(model)
        merged = nnx.merge(graph, state if params is None else params)
        merged.eval()
        return merged, ()
    if not callable(model):
        raise InputError(f"model = {type(model).__name__}: must be callable, or a Flax module with its variables")
    return model, () if params is None else (params,)
