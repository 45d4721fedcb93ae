"""A network of diffusers as data: its static description, its parameters, and the two as a denoiser."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.core.arrays import as_jax_floats, at_least_single
from dgu.core.brief import short_repr
from dgu.core.denoisers import check_range
from dgu.core.errors import InputError, require
from dgu.core.keys import seeded, threefry
from dgu.core.labels import checked_label
from dgu.core.typing import Event, Key, PyTree, Scalar
from dgu.models.diffusers.config import UNet2DConfig
from dgu.models.diffusers.schedulers import Preconditioning
from dgu.models.layouts import tree_sizes
from dgu.models.predictions import ConsistencyPreconditioning

if TYPE_CHECKING:  # Flax is loaded with the layers, where a network is used and not where it is described.
    from dgu.models.diffusers.unet import UNet2D


@dataclass(frozen=True)
class DiffusersNetwork:
    """A UNet2DModel and its process without parameters: hashable, so it is a static argument of jitted functions.

    ``D(x; sigma) = skip x + out F(inp x; time, label)`` with the coefficients of ``preconditioning``; with ``clip``, a
    bound, what comes out is clipped to it as diffusers' samplers do.
    """

    unet: UNet2DConfig
    preconditioning: Preconditioning
    clip: float | None = None

    def __post_init__(self) -> None:
        usable = self.clip is None or 0 < self.clip < np.inf
        require(usable, "clip_sample_range", self.clip, "positive and finite")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (H, W, C).

        Raises:
            InputError: the configuration leaves it open (``sample_size`` null); the network takes any size.
        """
        if self.unet.shape is None:
            raise InputError("sample_size = None: must be a number, for the size of the network's images to be known")
        return self.unet.shape

    @property
    def abstract_params(self) -> PyTree:
        """Shapes and dtypes of the parameters (``jax.ShapeDtypeStruct``), at no cost in memory."""
        return _abstract(self.unet)[1]

    @property
    def parameter_count(self) -> int:
        """How many numbers there are."""
        return sum(tree_sizes(self.abstract_params).values())

    def init(self, key: Key) -> PyTree:
        """Fresh parameters: a nested dict of float32 arrays."""
        key = threefry(key)
        from flax import nnx

        return nnx.to_pure_dict(nnx.split(_layers(self.unet, nnx.Rngs(params=key)))[1])

    def raw(
        self, params: PyTree, x: Float[Array, "h w c"], t: Float[Array, ""], label: Array | None = None
    ) -> Float[Array, "h w o"]:
        """The bare network ``F(x; t, label)``, in the dtype of ``x``."""
        from flax import nnx

        return nnx.merge(_abstract(self.unet)[0], params)(x, t, label)

    def apply(
        self, params: PyTree, x: Float[Array, "h w c"], sigma: Scalar, label: ArrayLike | None = None
    ) -> Float[Array, "h w c"]:
        """``D(x; sigma)`` of one image (H, W, C), with a label where the network has labels."""
        x = as_jax_floats("x", x)
        c = self.preconditioning.coefficients(jnp.asarray(sigma, x.dtype))
        label = None if label is None else jnp.asarray(label)
        out = self.raw(params, c.inp * x, c.noise, label)[..., : self.unet.in_channels]
        image = c.skip * x + c.out * out
        return image if self.clip is None else jnp.clip(image, -self.clip, self.clip)

    @property
    def needs_class(self) -> bool:
        """Whether the network has labels: it knows no image without one."""
        return self.unet.class_labels is not None

    def denoiser(self, params: PyTree) -> "DiffusersDenoiser":
        """The network with its parameters as a denoiser; see ``DiffusersDenoiser.given``."""
        return DiffusersDenoiser(params=params, label=None, description=self)


def _layers(unet: UNet2DConfig, rngs: Any) -> "UNet2D":
    from dgu.models.diffusers.unet import UNet2D

    return UNet2D(unet, rngs)


@lru_cache(maxsize=32)
def _abstract(unet: UNet2DConfig) -> tuple[Any, PyTree]:
    """Graph definition and shapes of the parameters, once per architecture and without computing anything."""
    from flax import nnx

    from dgu.models.edm_layers import SameKey

    try:
        graph, state = nnx.split(nnx.eval_shape(lambda: _layers(unet, SameKey(seeded(0)))))
    except InputError:
        raise
    except ValueError as error:  # Channels that groups do not divide, where levels meet.
        raise InputError(
            f"block_out_channels = {unet.block_out_channels}: must fit the other options ({error})"
        ) from error
    return graph, nnx.to_pure_dict(state)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class RawNetwork:
    """``network(x, t, label=None)``: the raw output on one NHWC example; a pytree whose leaves are the parameters."""

    params: PyTree
    description: DiffusersNetwork = field(metadata={"static": True})

    @at_least_single
    def __call__(self, x: Float[Array, "h w c"], t: ArrayLike, label: ArrayLike | None = None) -> Float[Array, "h w o"]:
        """The output F, of ``out_channels`` channels, at time ``t``: any number, whole ones with a table of times.

        Raises:
            InputError: an image of another kind, a label for a network without labels or none for one with, or a time
                that is not in the network's table.
        """
        unet = self.description.unet
        check_image(unet, x)
        label = None if label is None else label_of(unet, label)
        check_labelled(unet, label)
        if unet.time_embedding_type == "learned" and not isinstance(t, jax.core.Tracer):
            known = unet.num_train_timesteps or 0
            time = np.asarray(t)
            inside = bool((time == np.floor(time)) & (time >= 0) & (time < known))
            require(inside, "t", t, f"a whole number from 0 to {known - 1}, a row of the network's table of times")
        return self.description.raw(self.params, x, jnp.asarray(t, x.dtype), label)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DiffusersDenoiser:
    """``denoiser(x, sigma)`` on one NHWC example: a pytree whose leaves are the parameters and the label.

    ``network(x, t, label=None)`` is the raw output. ``is_posterior_mean`` is False for consistency models, whose
    function is the end of the probability flow's path and no posterior mean.
    """

    params: PyTree
    label: Array | None
    description: DiffusersNetwork = field(metadata={"static": True})

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The denoised image, of the shape and dtype of ``x`` (H, W, C).

        Raises:
            InputError: no label was given to a network that has labels; ``x`` is no image of this network; ``sigma`` is
                a constant outside ``sigma_min`` to ``sigma_max``. A traced level is not looked at.
        """
        unet = self.description.unet
        check_labelled(unet, self.label)
        check_image(unet, x)
        check_range(self, "sigma", sigma)
        return self.description.apply(self.params, x, sigma, self.label)

    @property
    def denoiser(self) -> "DiffusersDenoiser":
        """The denoiser itself: what ``load_diffusers`` gives is asked for it."""
        return self

    @property
    def network(self) -> RawNetwork:
        """The raw network, with its parameters."""
        return RawNetwork(self.params, self.description)

    @property
    def sigma_min(self) -> float:
        """The lowest noise level of the schedule."""
        return self.description.preconditioning.sigma_min

    @property
    def sigma_max(self) -> float:
        """The highest noise level of the schedule, infinite for flow matching."""
        return self.description.preconditioning.sigma_max

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Lowest and highest noise level."""
        return self.sigma_min, self.sigma_max

    def round_sigma(self, sigma: ArrayLike) -> Any:
        """``sigma`` itself, NumPy's in float64: the network takes every level of its range."""
        return sigma if isinstance(sigma, jax.core.Tracer) else np.asarray(sigma, np.float64)

    @property
    def label_dim(self) -> int | None:
        """How many classes there are: 0 for an unconditional network, None where labels are no classes."""
        unet = self.description.unet
        return unet.label_dim if unet.class_labels in (None, "index") else None

    @property
    def needs_class(self) -> bool:
        """Whether the network has labels: it knows no image without one."""
        return self.description.needs_class

    @property
    def is_posterior_mean(self) -> bool:
        """Whether what it returns is meant as ``E[x0 | x]``."""
        return not isinstance(self.description.preconditioning, ConsistencyPreconditioning)

    def given(self, label: ArrayLike | None) -> "DiffusersDenoiser":
        """The denoiser of one label: a class index, for ``class_embed_type`` "timestep" any number, and for "identity"
        a vector as long as the embedding. ``jax.vmap`` this over labels for an ensemble.

        Raises:
            InputError: a label for an unconditional network, None for one with labels, or one that is none of its.
        """
        unet = self.description.unet
        checked = None if label is None else label_of(unet, label)
        check_labelled(unet, checked)
        return replace(self, label=checked)


def label_of(unet: UNet2DConfig, label: ArrayLike) -> Array:
    """A label as the network takes it: an int32 class, a float32 number, or a vector of floats.

    Raises:
        InputError: it is none of these, or the network has no labels.
    """
    kind, concrete = unet.class_labels, not isinstance(label, jax.core.Tracer)
    require(kind is not None, "label", label, "left out: the network is unconditional")
    if kind == "index":
        array = checked_label(label, unet.num_class_embeds or 0)
        require(array.ndim == 0, "label", f"a vector of {array.size} entries", "a class index: the network takes one")
        return array
    shape = () if kind == "timestep" else (unet.embedding,)
    allowed = "a number" if kind == "timestep" else f"a vector of {unet.embedding} entries, the network's embedding"
    array = as_jax_floats("label", label)
    require(array.shape == shape, "label.shape", array.shape, f"{shape}, {allowed}")
    require(not concrete or bool(np.isfinite(np.asarray(array)).all()), "label", label, f"{allowed}, finite")
    return array


def check_labelled(unet: UNet2DConfig, label: Array | None) -> None:
    """``InputError`` where a network with labels has none."""
    if label is None and unet.class_labels is not None:
        known = f"it has {unet.num_class_embeds} classes" if unet.class_labels == "index" else "it has labels"
        raise InputError(
            f"label: is missing; this network knows no image without one ({known}): give labels= or take "
            "denoiser.given(label)"
        )


def check_image(unet: UNet2DConfig, x: Array) -> None:
    """``InputError`` unless ``x`` is one image (H, W, C) whose sides the network can halve."""
    fits = x.ndim == 3 and x.shape[-1] == unet.in_channels and all(s > 0 and s % unet.step == 0 for s in x.shape[:2])
    allowed = f"(H, W, {unet.in_channels}), one image with sides divisible by {unet.step}"
    require(fits, "x.shape", x.shape, allowed)
