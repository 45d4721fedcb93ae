"""Any network as a denoiser: what it predicts, under which schedule, of which classes."""

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dgu.core.arrays import at_least_single
from dgu.core.brief import short_repr
from dgu.core.denoisers import check_range
from dgu.core.errors import InputError, require
from dgu.core.labels import checked_label
from dgu.core.typing import Event, Scalar
from dgu.models.preconditioning import Preconditioning
from dgu.models.predictions import ConsistencyPreconditioning, Prediction
from dgu.models.time_schedules import SigmaSchedule


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AdaptedDenoiser:
    """``D(x; sigma) = skip x + out F(inp x, time[, label])`` of any network F, with the four coefficients of ``sigma``.

    Attributes:
        network: F, a pytree, called on one example as ``network(z, time)``, or ``network(z, time, label)`` where there
            are classes; what it returns has the shape of the example.
        label: the class, an int32 scalar or a vector of ``label_dim`` floats; None where none was given.
        preconditioning: the coefficients, such as ``Prediction("epsilon", DiscreteSchedule.linear())``.
        label_dim: how many classes there are; 0 for an unconditional network.
        no_class: the label that stands for no class, in classifier-free guidance often ``label_dim``; None where the
            network knows no image without a class.
        shape: the shape of an example, where it is known.
    """

    network: Any
    label: Array | None = None
    preconditioning: Prediction | ConsistencyPreconditioning | Preconditioning = field(
        default=Prediction("x0", SigmaSchedule()), metadata={"static": True}
    )
    label_dim: int = field(default=0, metadata={"static": True})
    no_class: int | tuple[float, ...] | None = field(default=None, metadata={"static": True})
    shape: tuple[int, ...] | None = field(default=None, metadata={"static": True})

    def __repr__(self) -> str:
        """What it is, in one line: a schedule has a thousand numbers."""
        kind = getattr(self.preconditioning, "kind", type(self.preconditioning).__name__)
        low, high = self.sigma_range
        return f"AdaptedDenoiser({kind}, sigma from {low:g} to {high:g}, {self.label_dim} classes, shape {self.shape})"

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The denoised example, of the shape and dtype of ``x``.

        Raises:
            InputError: no class was given to a network that knows none but its classes; the network returns another
                shape; ``x`` is of another shape than is known; a constant level outside the schedule's. Of a traced
                level the range is not looked at.
        """
        if self.shape is not None:
            require(x.shape == self.shape, "x.shape", x.shape, f"{self.shape}, one example of this network")
        if not isinstance(sigma, jax.core.Tracer):
            check_range(self, "sigma", sigma)
        c = self.preconditioning.coefficients(jnp.asarray(sigma, x.dtype))
        labels = () if self.label_dim == 0 else (self._label(x.dtype),)
        out = self.network(c.inp * x, c.noise, *labels)
        found = getattr(out, "shape", type(out).__name__)
        if found != x.shape:
            raise InputError(
                f"network: called with ONE example, of shape {x.shape}, a time and a label where there are classes, it "
                f"returned {found}; must return an array of the example's shape"
            )
        return c.skip * x + c.out * out.astype(x.dtype)

    def _label(self, dtype: Any) -> Array:
        if self.label is None:
            if self.no_class is None:
                raise InputError(
                    f"label: is missing; this network has {self.label_dim} classes and none that stands for no class: "
                    "give labels= or take denoiser.given(label)"
                )
            label = jnp.asarray(self.no_class)
            return label.astype(jnp.int32 if label.ndim == 0 else dtype)
        return self.label.astype(dtype) if jnp.issubdtype(self.label.dtype, jnp.floating) else self.label

    @property
    def sigma_min(self) -> float:
        """The lowest noise level that the network was made for."""
        return self.preconditioning.sigma_min

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the network was made for, perhaps infinite."""
        return self.preconditioning.sigma_max

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level."""
        return self.sigma_min, self.sigma_max

    @property
    def needs_class(self) -> bool:
        """Whether the network knows no image without a class."""
        return self.label_dim > 0 and self.no_class is None

    @property
    def is_posterior_mean(self) -> bool:
        """Whether what it returns is meant as ``E[x0 | x]``; the end of a path, of a consistency model, is not."""
        return not isinstance(self.preconditioning, ConsistencyPreconditioning)

    def given(self, label: ArrayLike | None) -> "AdaptedDenoiser":
        """The denoiser of one class, an integer or a vector of ``label_dim`` entries; None is no class.

        Raises:
            InputError: the network has no classes, the label is none of them, or None for a network that needs one.
        """
        if label is None:
            require(not self.needs_class, "label", None, "a class: the network knows no image without one")
            return replace(self, label=None)
        require(self.label_dim > 0, "label", label, "left out: the network is unconditional")
        return replace(self, label=checked_label(label, self.label_dim))


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class OneExample:
    """A model as a network of one example: parameters first, an axis of one example where it wants a batch, channels
    first where it wants them there.

    Attributes:
        model: a pytree, called as ``model(*params, z, time, *label)``.
        params: a tuple of pytrees.
        batched: static; whether every argument but the parameters has a leading axis of examples.
        channels_first: static; whether images are (C, H, W) to the model, as (H, W, C) is what the library has.
    """

    model: Any
    params: tuple[Any, ...] = ()
    batched: bool = field(default=False, metadata={"static": True})
    channels_first: bool = field(default=False, metadata={"static": True})

    def __call__(self, z: Event, time: Scalar, *label: Array) -> Any:
        """The model's output on one example."""
        state, arguments = z, (time, *label)
        if self.channels_first:
            require(z.ndim == 3, "x.shape", z.shape, "(H, W, C), as the network wants channels first")
            state = jnp.moveaxis(state, -1, 0)
        if self.batched:
            state, arguments = state[None], tuple(jnp.asarray(each)[None] for each in arguments)
        out = self.model(*self.params, state, *arguments)
        if self.batched and np.ndim(out) == state.ndim and np.shape(out)[0] == 1:
            out = out[0]
        return jnp.moveaxis(out, 0, -1) if self.channels_first and np.ndim(out) == 3 else out
