"""An EDM network as data: its static description, its parameters, and the two as a denoiser.

The layers (``edm_layers``) take Flax along, so they are loaded where a network is used, not where it is only described.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

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
from dgu.core.keys import threefry
from dgu.core.labels import NO_ZEROS, checked_label, without_class
from dgu.core.typing import Event, Key, PyTree, Scalar
from dgu.models.architecture import Architecture
from dgu.models.edm2_config import EDM2Config
from dgu.models.preconditioning import EDMPreconditioning, IDDPMPreconditioning, Preconditioning, nearest


@dataclass(frozen=True)
class EDMNetwork:
    """A preconditioned U-Net (or DiT) without its parameters: hashable, so it is a static argument of jitted functions.

    ``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise, label)`` with the coefficients of ``preconditioning``.
    ``compute_dtype`` is ``"float32"`` (the dtype of ``x``, at least float32) or ``"bfloat16"`` for the U-Net's
    activations; parameters stay float32, the embedding and the preconditioning too. ``remat`` is for training:
    gradients compute the inside of each block again instead of keeping it, which saves memory and takes a third more
    arithmetic (not on CPUs, where XLA merges the two again).
    """

    unet: Architecture
    preconditioning: Preconditioning = field(default_factory=EDMPreconditioning)
    compute_dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        allowed = "'float32' or 'bfloat16'"
        require(self.compute_dtype in ("float32", "bfloat16"), "compute_dtype", self.compute_dtype, allowed)
        outputs = self.unet.in_channels * (2 if self.preconditioning.learns_variance else 1)
        require(self.unet.out_channels == outputs, "out_channels", self.unet.out_channels, f"{outputs} here")

    def __repr__(self) -> str:
        """What it is, in one line: an architecture has dozens of numbers."""
        height, width, channels = self.shape
        kinds = f"{type(self.unet).__name__}, {type(self.preconditioning).__name__}"
        return f"EDMNetwork({kinds}, {height} x {width} x {channels}, {self.unet.label_dim} classes)"

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data that EDM's loss weights by; 0.5 unless EDM's preconditioning says
        otherwise.
        """
        return getattr(self.preconditioning, "sigma_data", 0.5)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (H, W, C)."""
        return (self.unet.img_resolution, self.unet.img_resolution, self.unet.in_channels)

    @property
    def abstract_params(self) -> PyTree:
        """Shapes and dtypes of the parameters (``jax.ShapeDtypeStruct``), at no cost in memory."""
        from dgu.models.edm_layers import abstract_layers

        tables = {name: jax.ShapeDtypeStruct(table.shape, table.dtype) for name, table in self._tables().items()}
        return abstract_layers(self.unet, self.compute_dtype)[1] | tables

    @property
    def parameter_count(self) -> int:
        """How many numbers training moves: all of ``abstract_params`` but the constants (see ``is_constant``)."""
        leaves, _ = jax.tree_util.tree_flatten_with_path(self.abstract_params)
        return sum(math.prod(leaf.shape) for path, leaf in leaves if not is_constant(path))

    def _tables(self) -> dict[str, np.ndarray]:
        """Constants of the preconditioning, under the names that they have among the parameters."""
        return {"u": self.preconditioning.table} if isinstance(self.preconditioning, IDDPMPreconditioning) else {}

    def init(self, key: Key) -> PyTree:
        """Parameters as the reference initialises them: a nested dict of float32 arrays, constants among them."""
        from dgu.models.edm_layers import initial_params

        key = threefry(key)
        params = initial_params(self.unet, self.compute_dtype, key)
        return params | {name: jnp.asarray(table) for name, table in self._tables().items()}

    def raw(
        self,
        params: PyTree,
        x: Float[Array, "h w c"],
        c_noise: Float[Array, ""],
        label: Float[Array, " l"] | None = None,
        augment_label: Float[Array, " a"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "h w o"]:
        """The bare U-Net ``F(x; c_noise, label)``; its output has the U-Net's compute dtype."""
        from dgu.models.edm_layers import with_params

        key = None if key is None else threefry(key)
        own = {name: leaves for name, leaves in params.items() if name not in self._tables()}
        layers = with_params(self.unet, self.compute_dtype, own)
        return layers(x, c_noise, label, augment_label, key, remat=self.remat)

    def apply(
        self,
        params: PyTree,
        x: Float[Array, "h w c"],
        sigma: Scalar,
        labels: ArrayLike | None = None,
        augment_labels: ArrayLike | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "h w c"]:
        """``D(x; sigma)`` of one image; with ``key``, in training mode (dropout, label dropout).

        Args:
            params: nested dict of parameters, as from ``init``; the gradient of its constants is zero.
            x: noisy image (H, W, C).
            sigma: noise level, positive.
            labels: class index, or a vector of ``label_dim`` entries; None is the zero vector (no class).
            augment_labels: vector of ``augment_dim`` augmentation labels or None.
            key: switches training mode on.
        """
        key = None if key is None else threefry(key)
        dtype, x = x.dtype, as_jax_floats("x", x)
        wide = x.dtype
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else wide
        c = self.preconditioning.coefficients(jnp.asarray(sigma, wide), params.get("u"))
        compute = jnp.bfloat16 if self.compute_dtype == "bfloat16" else wide
        label = None if labels is None or not self.unet.label_dim else self._label_vector(labels, wide)
        augment = None if augment_labels is None else jnp.asarray(augment_labels, wide)
        out = self.raw(params, (c.inp * x).astype(compute), c.noise, label, augment, key=key)
        return (c.skip * x + c.out * out[..., : self.unet.in_channels].astype(wide)).astype(dtype)

    def log_variance(self, params: PyTree, sigma: Scalar) -> Float[Array, ""]:
        """``u(sigma)`` of an EDM2 network: at the optimum ``exp(u)`` is its weighted squared error of one entry,
        ``(sigma^2 + sd^2) / (sigma sd)^2 E (D - x0)^2`` (arXiv 2312.02696, equation 21).

        Raises:
            InputError: a network of another architecture, which estimates no uncertainty.
        """
        from dgu.models.edm_layers import with_params

        require(isinstance(self.unet, EDM2Config), "unet", type(self.unet).__name__, "an EDM2Config")
        layers = with_params(self.unet, self.compute_dtype, params)
        noise = self.preconditioning.coefficients(as_jax_floats("sigma", sigma)).noise
        u: Array = layers.log_variance(noise)
        return u

    def constrained(self, params: PyTree) -> PyTree:
        """The parameters that a gradient step of training starts from: of EDM2's networks, weights of unit magnitude
        (which change no output but by rounding, and keep the step's relative size); of others, as they are.
        """
        if not isinstance(self.unet, EDM2Config):
            return params
        from dgu.models.edm2 import with_unit_weights

        return with_unit_weights(params)

    def _label_vector(self, labels: ArrayLike, dtype: Any) -> Float[Array, " l"]:
        labels = jnp.asarray(labels)
        if jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 0:
            return jax.nn.one_hot(labels, self.unet.label_dim, dtype=dtype)
        return labels.astype(dtype)

    @property
    def needs_class(self) -> bool:
        """Whether the network has classes and was never trained without one: its ``label_dropout`` is 0."""
        return self.unet.label_dim > 0 and not self.unet.label_dropout

    def denoiser(self, params: PyTree) -> "EDMDenoiser":
        """The network with its parameters as a denoiser without a class; see ``EDMDenoiser.given``."""
        return EDMDenoiser(params=params, label=None, augment_labels=None, network=self)


def is_constant(path: tuple[Any, ...]) -> bool:
    """Whether the leaf at this path (of ``jax.tree_util``) of the parameters is a constant: not trained, not averaged.

    Constants are the frequencies and phases of a Fourier embedding (``freqs``, ``phases``) and the noise levels of
    improved DDPM (``u``).
    """
    return path[-1].key in ("freqs", "phases", "u")


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EDMDenoiser:
    """``denoiser(x, sigma)`` on one NHWC example: a pytree whose leaves are the parameters and the label.

    ``label`` is an int32 scalar or a vector of ``label_dim`` entries, or None for no class (the zero vector). Leading
    axes on the leaves make an ensemble (of labels, of networks) under ``jax.vmap``.

    A network that has classes and was trained without label dropout has never seen the zero vector, and what it makes
    of it
    means nothing: without a class such a denoiser refuses to be called, unless the zero vector is asked for by
    ``given(None)`` (``zero_class``), as the denoisers of ``edm_from_arrays`` do, which stand for the reference's own
    calls.
    """

    params: PyTree
    label: Array | None
    augment_labels: Array | None
    network: EDMNetwork = field(metadata={"static": True})
    zero_class: bool = field(default=False, metadata={"static": True})

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean that the network estimates, of the shape and dtype of ``x`` (H, W, C).

        Raises:
            InputError: no class was given to a network that needs one (see above); ``x`` has another shape than the
                network takes, or ``sigma`` is a constant that is not positive and finite, or outside ``sigma_min`` to
                ``sigma_max``. A traced level is not looked at.
        """
        if self.label is None and self.network.needs_class and not self.zero_class:
            raise InputError(
                f"label: is missing; this network has {self.network.unet.label_dim} classes and was trained without "
                "label "
                "dropout, so that it knows no image without a class: give labels= or take denoiser.given(label) "
                "(denoiser.given(None) insists on the zero vector)"
            )
        require(x.shape == self.network.shape, "x.shape", x.shape, f"{self.network.shape}, one image of this network")
        if not isinstance(sigma, jax.core.Tracer):
            level = np.asarray(sigma)
            require(bool((level > 0) & np.isfinite(level)), "sigma", sigma, "positive and finite")
            check_range(self, "sigma", level)
        return self.network.apply(self.params, x, sigma, self.label, self.augment_labels)

    def log_variance(self, sigma: Scalar) -> Float[Array, ""]:
        """``u(sigma)`` of an EDM2 network; see ``EDMNetwork.log_variance``."""
        return self.network.log_variance(self.params, sigma)

    @property
    def description(self) -> EDMNetwork:
        """The network without its parameters, as of every denoiser that is loaded from a file."""
        return self.network

    @property
    def sigma_min(self) -> float:
        """The lowest noise level of the network's range."""
        levels = self._levels()
        return self.network.preconditioning.sigma_min if levels is None else float(levels[-2])

    @property
    def sigma_max(self) -> float:
        """The highest noise level of the network's range, perhaps infinite."""
        levels = self._levels()
        return self.network.preconditioning.sigma_max if levels is None else float(levels[0])

    def round_sigma(self, sigma: ArrayLike) -> Any:
        """The noise levels that the network knows nearest to ``sigma``: with iDDPM entries of its table, else
        ``sigma``.

        NumPy in, NumPy out, in float64; traced values stay in JAX.
        """
        traced, levels = isinstance(sigma, jax.core.Tracer), self._levels()
        if "u" not in self.params:
            return sigma if traced else np.asarray(sigma, np.float64)
        if levels is None or traced:
            values, table = jnp.asarray(sigma), jnp.asarray(self.params["u"])
            return jax.lax.stop_gradient(table)[nearest(values, table)].astype(values.dtype)
        return levels[np.abs(np.asarray(sigma, np.float64)[..., None] - levels).argmin(-1)]

    def _levels(self) -> np.ndarray | None:
        """The table of noise levels in float64; None where there is none, or none that can be looked at."""
        table = self.params.get("u") if isinstance(self.params, dict) else None
        if table is None or isinstance(table, jax.core.Tracer) or np.ndim(table) != 1:
            return None
        return np.asarray(table, np.float64)

    @property
    def label_dim(self) -> int:
        """How many classes there are, 0 where the network is unconditional."""
        return self.network.unet.label_dim

    @property
    def needs_class(self) -> bool:
        """Whether the network was never trained without a class; see ``EDMNetwork.needs_class``."""
        return self.network.needs_class

    def given(self, label: ArrayLike | None, augment_labels: ArrayLike | None = None) -> "EDMDenoiser":
        """The denoiser conditioned on a class: an integer, or a vector of ``label_dim`` entries; None is the zero
        vector.

        Integers of any kind become int32 and vectors float, so that ``3`` and an int32 array share a trace.
        ``jax.vmap`` this over labels for an ensemble. Of a traced class the range cannot be looked at: one outside it
        is the zero vector.

        Raises:
            InputError: the network has no classes or takes no augmentation labels, the class is out of range, or a
                vector has another length, is not finite, or is zero although the network needs a class (unless
                ``given(None)`` has asked for the zero vector before).
        """
        unet = self.network.unet
        if label is not None:
            require(unet.label_dim > 0, "label", label, "left out: the network is unconditional")
            label = checked_label(label, unet.label_dim)
            looked_at = self.needs_class and not self.zero_class and not isinstance(label, jax.core.Tracer)
            if looked_at and label.ndim == 1:
                require(not without_class(np.asarray(label)), "label", "a vector of zeros", f"{NO_ZEROS} insists)")
        if augment_labels is not None:
            shape = np.shape(augment_labels)
            require(unet.augment_dim > 0, "augment_labels", shape, "left out: the network takes none")
            require(
                shape[-1:] == (unet.augment_dim,), "augment_labels", shape, f"a vector of {unet.augment_dim} entries"
            )
            augment_labels = jnp.asarray(augment_labels)
        return replace(self, label=label, augment_labels=augment_labels, zero_class=label is None)
