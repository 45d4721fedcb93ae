"""An EDM network as data: its static description, its parameters, and the two as a denoiser."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.errors import InputError, require
from dgu.models.adm import ADM, ADMConfig
from dgu.models.preconditioning import edm_coefficients
from dgu.typing import Event, Key, PyTree, Scalar

_PATH = tuple[str, ...]


@dataclass(frozen=True)
class EDMNetwork:
    """A preconditioned U-Net without its parameters: hashable, so it is a static argument of jitted functions.

    ``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise, label)`` with the coefficients of
    ``dgu.models.preconditioning.edm_coefficients``. ``compute_dtype`` is ``"float32"`` (the dtype of ``x``, at least float32) or
    ``"bfloat16"`` for the U-Net's activations; parameters stay float32, the embedding and the preconditioning too.
    """

    unet: ADMConfig
    sigma_data: float = 0.5
    sigma_min: float = 0.0
    sigma_max: float = float("inf")
    compute_dtype: str = "float32"

    def __post_init__(self) -> None:
        require(self.sigma_data > 0, "sigma_data", self.sigma_data, "positive")
        allowed = "'float32' or 'bfloat16'"
        require(self.compute_dtype in ("float32", "bfloat16"), "compute_dtype", self.compute_dtype, allowed)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (H, W, C)."""
        return (self.unet.img_resolution, self.unet.img_resolution, self.unet.in_channels)

    @property
    def abstract_params(self) -> PyTree:
        """Shapes and dtypes of the parameters (``jax.ShapeDtypeStruct``), at no cost in memory."""
        return _abstract(self.unet, self.compute_dtype)[1]

    def init(self, key: Key) -> PyTree:
        """Parameters as the reference initialises them: a nested dict of float32 arrays."""
        _, state = nnx.split(_module(self.unet, self.compute_dtype, nnx.Rngs(params=key)))
        return nnx.to_pure_dict(state)

    def raw(
        self,
        params: PyTree,
        x: Float[Array, "h w c"],
        c_noise: Float[Array, ""],
        label: Float[Array, "l"] | None = None,
        augment_label: Float[Array, "a"] | None = None,
        *,
        key: Key | None = None,
    ) -> Float[Array, "h w o"]:
        """The bare U-Net ``F(x; c_noise, label)``; its output has the U-Net's compute dtype."""
        graph, _ = _abstract(self.unet, self.compute_dtype)
        return nnx.merge(graph, params)(x, c_noise, label, augment_label, key)

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
            params: nested dict of parameters, as from ``init``.
            x: noisy image (H, W, C).
            sigma: noise level, positive.
            labels: class index, or a vector of ``label_dim`` entries; None is the zero vector (no class).
            augment_labels: vector of ``augment_dim`` augmentation labels or None.
            key: switches training mode on.
        """
        dtype = x.dtype
        wide = jnp.promote_types(dtype, jnp.float32)
        x = x.astype(wide)
        c = edm_coefficients(jnp.asarray(sigma, wide), self.sigma_data)
        compute = jnp.bfloat16 if self.compute_dtype == "bfloat16" else wide
        label = None if labels is None or not self.unet.label_dim else self._label_vector(labels, wide)
        augment = None if augment_labels is None else jnp.asarray(augment_labels, wide)
        out = self.raw(params, (c.inp * x).astype(compute), c.noise, label, augment, key=key)
        return (c.skip * x + c.out * out[..., : self.unet.in_channels].astype(wide)).astype(dtype)

    def _label_vector(self, labels: ArrayLike, dtype: Any) -> Float[Array, "l"]:
        labels = jnp.asarray(labels)
        if jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 0:
            return jax.nn.one_hot(labels, self.unet.label_dim, dtype=dtype)
        return labels.astype(dtype)

    def denoiser(self, params: PyTree) -> "EDMDenoiser":
        """The network with its parameters as an (unconditional) denoiser; see ``EDMDenoiser.given``."""
        return EDMDenoiser(params=params, label=None, augment_labels=None, network=self)


@lru_cache(maxsize=32)
def _abstract(unet: ADMConfig, compute_dtype: str) -> tuple[Any, PyTree]:
    """Graph definition and shapes of the parameters, once per architecture and without computing anything."""
    graph, state = nnx.split(nnx.eval_shape(lambda: _module(unet, compute_dtype, _SameKey(jax.random.key(0)))))
    return graph, nnx.to_pure_dict(state)


class _SameKey(nnx.Rngs):
    """One key for every layer, where only shapes are asked for: counters, traced, take time quadratic in the layers."""

    def __init__(self, key: Key):
        self.params = lambda: key


def _module(unet: ADMConfig, compute_dtype: str, rngs: nnx.Rngs) -> ADM:
    return ADM(unet, jnp.bfloat16 if compute_dtype == "bfloat16" else None, rngs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EDMDenoiser:
    """``denoiser(x, sigma)`` on one NHWC example: a pytree whose leaves are the parameters and the label.

    ``label`` is an int32 scalar or a vector of ``label_dim`` entries, or None for no class (the zero vector). Leading axes on
    the leaves make an ensemble (of labels, of networks) under ``jax.vmap``.
    """

    params: PyTree
    label: Array | None
    augment_labels: Array | None
    network: EDMNetwork = field(metadata={"static": True})

    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean that the network estimates, of the shape and dtype of ``x`` (H, W, C)."""
        return self.network.apply(self.params, x, sigma, self.label, self.augment_labels)

    def given(self, label: ArrayLike, augment_labels: ArrayLike | None = None) -> "EDMDenoiser":
        """The denoiser conditioned on a class: an integer, or a vector of ``label_dim`` entries.

        Integers of any kind become int32 and vectors float, so that ``3`` and an int32 array share a trace.

        Raises:
            InputError: the network has no classes, the class is out of range, or the vector has another length.
        """
        unet = self.network.unet
        require(unet.label_dim > 0, "label", label, "left out: the network is unconditional")
        label = jnp.asarray(label)
        if jnp.issubdtype(label.dtype, jnp.integer):
            if not isinstance(label, jax.core.Tracer):
                inside = bool(jnp.all((label >= 0) & (label < unet.label_dim)))
                require(inside, "label", label.tolist(), f"a class index in 0..{unet.label_dim - 1}")
            label = label.astype(jnp.int32)
        else:
            require(
                label.shape[-1:] == (unet.label_dim,), "label", label.shape, f"a vector of {unet.label_dim} entries"
            )
        if augment_labels is not None:
            augment_labels = jnp.asarray(augment_labels)
            allowed = f"a vector of {unet.augment_dim} entries"
            require(augment_labels.shape[-1:] == (unet.augment_dim,), "augment_labels", augment_labels.shape, allowed)
        return replace(self, label=label, augment_labels=augment_labels)


# Weights under the reference's names and layouts ------------------------------------------------------------------------


def network_from_config(config: Mapping[str, Any]) -> EDMNetwork:
    """The network that a reference-style ``config`` (``precond`` and ``kwargs``) describes.

    Raises:
        InputError: another preconditioner or network class, or an unknown or unusable option.
    """
    require(config.get("precond") == "EDMPrecond", "precond", config.get("precond"), "'EDMPrecond'")
    kwargs = dict(config.get("kwargs", {}))
    require(
        kwargs.pop("model_type", "DhariwalUNet") == "DhariwalUNet",
        "model_type",
        config["kwargs"].get("model_type"),
        "'DhariwalUNet'",
    )
    outer = {k: float(kwargs.pop(k)) for k in ("sigma_data", "sigma_min", "sigma_max") if k in kwargs}
    compute = "bfloat16" if kwargs.pop("use_fp16", False) else "float32"
    channels = kwargs.pop("img_channels", None)
    require(isinstance(channels, int), "img_channels", channels, "an integer")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in kwargs.items()}
    fields |= {k: float(fields[k]) for k in ("dropout", "label_dropout") if k in fields}
    try:
        unet = ADMConfig(in_channels=channels, out_channels=channels, **fields)
    except TypeError as error:
        raise InputError(f"config kwargs: {error}") from error
    return EDMNetwork(unet, compute_dtype=compute, **outer)


def network_config(network: EDMNetwork) -> dict[str, Any]:
    """The inverse of ``network_from_config``: a dict of JSON values."""
    unet = network.unet
    names = [f for f in unet.__dataclass_fields__ if f not in ("in_channels", "out_channels")]
    kwargs = {n: list(v) if isinstance(v := getattr(unet, n), tuple) else v for n in names}
    kwargs |= {"img_channels": unet.in_channels, "model_type": "DhariwalUNet", "sigma_data": network.sigma_data}
    kwargs |= {"sigma_min": network.sigma_min, "sigma_max": "inf" if np.isinf(network.sigma_max) else network.sigma_max}
    return {"precond": "EDMPrecond", "kwargs": kwargs | {"use_fp16": network.compute_dtype == "bfloat16"}}


def _reference_name(path: _PATH) -> str:
    leaf = {"kernel": "weight", "scale": "weight", "bias": "bias"}[path[-1]]
    return ".".join(("model", *path[:-1], leaf))


def _from_reference(path: _PATH, array: np.ndarray) -> np.ndarray:
    """Convolutions OIHW -> HWIO, dense weights (out, in) -> (in, out)."""
    if path[-1] != "kernel":
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_reference(path: _PATH, array: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _paths(tree: PyTree) -> tuple[list[_PATH], list[Any], Any]:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [tuple(k.key for k in path) for path, _ in leaves], [leaf for _, leaf in leaves], treedef


def params_to_arrays(params: PyTree) -> dict[str, np.ndarray]:
    """Parameters under the reference's names and layouts (``model.enc.16x16_conv.weight``, OIHW)."""
    paths, leaves, _ = _paths(params)
    return {_reference_name(p): _to_reference(p, np.asarray(leaf)) for p, leaf in zip(paths, leaves)}


def params_from_arrays(network: EDMNetwork, arrays: Mapping[str, ArrayLike]) -> PyTree:
    """Parameters from arrays under the reference's names and layouts, as float32.

    ``resample_filter`` buffers are checked to be the 2 x 2 mean and otherwise left aside.

    Raises:
        InputError: a tensor is missing, superfluous, misshapen or not finite.
    """
    paths, leaves, treedef = _paths(network.abstract_params)
    rest = {name: np.asarray(array) for name, array in arrays.items()}
    values = []
    for path, leaf in zip(paths, leaves):
        name = _reference_name(path)
        if name not in rest:
            raise InputError(f"arrays: {name} is missing: the weights are of another architecture")
        value = rest.pop(name)
        expected = tuple(_to_reference(path, np.empty(leaf.shape, bool)).shape)
        require(
            value.shape == expected, name, value.shape, f"of shape {expected}: the weights are of another architecture"
        )
        require(bool(np.isfinite(value).all()), name, "non-finite", "finite numbers")
        values.append(jnp.asarray(_from_reference(path, value), jnp.float32))
    for name, value in rest.items():
        if not name.endswith("resample_filter"):
            raise InputError(f"arrays: {name} does not belong to this architecture")
        plain = value.shape[-2:] == (2, 2) and np.allclose(value, 0.25)
        require(plain, name, value.tolist(), "the 2 x 2 mean [[0.25, 0.25], [0.25, 0.25]]")
    return jax.tree_util.tree_unflatten(treedef, values)


def edm_from_arrays(config: Mapping[str, Any], arrays: Mapping[str, ArrayLike]) -> EDMDenoiser:
    """An EDM network as a denoiser from its configuration and its weights under the reference's names.

    Args:
        config: ``{"precond": "EDMPrecond", "kwargs": {...}}`` with the constructor arguments of the reference.
        arrays: ``{"model.map_layer0.weight": ...}`` in the reference's layouts: convolutions OIHW, dense layers (out, in).

    Raises:
        InputError: unknown class or option, or tensors that are missing, superfluous, misshapen or not finite.
    """
    network = network_from_config(config)
    return network.denoiser(params_from_arrays(network, arrays))
