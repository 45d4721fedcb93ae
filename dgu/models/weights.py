"""Networks under the names, configurations and layouts of the EDM reference."""

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args

import jax
import numpy as np
from jax.typing import ArrayLike

from dgu.core.errors import InputError, require
from dgu.core.typing import PyTree
from dgu.models.edm import EDMDenoiser, EDMNetwork
from dgu.models.edm2_config import EDM2Config
from dgu.models.layouts import (
    Naming,
    Path,
    check_names,
    torch_name,
    tree_from_arrays,
    tree_sizes,
    tree_to_arrays,
)
from dgu.models.preconditioning import PRECONDITIONINGS, EDMPreconditioning
from dgu.models.tutorial_config import TutorialUNetConfig
from dgu.models.unet import ADMConfig, BlockSpec, SongUNetConfig, UNetConfig

_Described = UNetConfig | TutorialUNetConfig | EDM2Config
#: What EDM2's reference keeps beside its U-Net, at the root of its names.
_BESIDE_UNET = ("logvar_fourier", "logvar_linear")
_ARCHITECTURES: dict[str, type[_Described]] = {
    "DhariwalUNet": ADMConfig,
    "SongUNet": SongUNetConfig,
    "TutorialUNet": TutorialUNetConfig,
    "EDM2UNet": EDM2Config,
}
#: The architecture that each class of the reference takes unless told otherwise.
_USUAL = {
    "EDMPrecond": "DhariwalUNet",
    "VPPrecond": "SongUNet",
    "VEPrecond": "SongUNet",
    "iDDPMPrecond": "DhariwalUNet",
    "VESDEPrecond": "TutorialUNet",
    "Precond": "EDM2UNet",
}
#: EDM2's class has EDM's preconditioning.
_PRECONDITIONINGS = {**PRECONDITIONINGS, "Precond": EDMPreconditioning}


def network_from_config(config: Mapping[str, Any]) -> EDMNetwork:
    """The network that a reference-style ``config`` (``precond`` and ``kwargs``) describes; what is left out has its
    default.

    ``use_fp16`` is accepted and left aside: parameters are float32 either way, and the dtype of the activations is
    ``EDMNetwork.compute_dtype`` (``config["compute_dtype"]``, float32 by default).

    Raises:
        InputError: another preconditioner or network class, or an unknown or unusable option.
    """
    precond: Any = config.get("precond")
    require(isinstance(precond, str) and precond in _USUAL, "precond", precond, _one_of(_USUAL))
    given = config.get("kwargs", {})
    require(
        isinstance(given, Mapping) and all(isinstance(name, str) for name in given), "kwargs", given, "a dictionary"
    )
    kwargs = dict(given)
    model_type = kwargs.pop("model_type", _USUAL[precond])
    known = isinstance(model_type, str) and model_type in _ARCHITECTURES
    require(known, "model_type", model_type, _one_of(_ARCHITECTURES))
    fp16 = kwargs.pop("use_fp16", False)
    require(isinstance(fp16, bool), "use_fp16", fp16, "True or False")
    require(
        "img_channels" in kwargs and "img_resolution" in kwargs,
        "kwargs",
        sorted(kwargs),
        "with img_resolution and img_channels",
    )
    channels = _like("img_channels", kwargs.pop("img_channels"), 0)
    outer = _options(_PRECONDITIONINGS[precond], kwargs)
    options = _options(_ARCHITECTURES[model_type], kwargs, without=("in_channels", "out_channels"))
    if kwargs:
        raise InputError(f"kwargs: unexpected option {sorted(kwargs)[0]!r} of {precond} with {model_type}")
    preconditioning = _PRECONDITIONINGS[precond](**outer)
    outputs = channels * (2 if preconditioning.learns_variance else 1)
    unet = _ARCHITECTURES[model_type](in_channels=channels, out_channels=outputs, **options)
    return EDMNetwork(unet, preconditioning, config.get("compute_dtype", "float32"))


def _one_of(names: Mapping[str, Any]) -> str:
    return "one of " + ", ".join(names)


def _options(kind: Any, kwargs: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Take the options that the dataclass ``kind`` has fields for out of ``kwargs``, each of the type of its
    default.
    """
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in kwargs and field.name not in without:
            value = kwargs.pop(field.name)
            if value is None and type(None) in get_args(field.type):
                found[field.name] = None
            else:
                default = 0 if field.default in (MISSING, None) else field.default
                found[field.name] = _like(field.name, value, default)
    return found


def _like(name: str, value: Any, default: Any) -> Any:
    """``value`` as the type of ``default``: an integer, a number (also as text: "inf"), a name, or several of these."""
    if isinstance(default, tuple):
        usable = isinstance(value, list | tuple) and len(value) <= 1024
        require(usable, name, value if isinstance(value, str | int | float) else type(value).__name__, "a list")
        return tuple(_like(name, entry, default[0]) for entry in value)
    if isinstance(default, str):
        require(isinstance(value, str), name, value, "a name")
        return value
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if isinstance(default, int):
        require(number and value == value and abs(value) < 2**62 and int(value) == value, name, value, "an integer")
        return int(value)
    try:
        require(number or isinstance(value, str), name, value, "a number")
        result = float(value)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} = {str(value)[:80]!r}: must be a number") from error
    require(not math.isnan(result), name, value, "a number")
    return result


def network_config(network: EDMNetwork) -> dict[str, Any]:
    """The inverse of ``network_from_config``: a dict of JSON values. ``InputError`` for a network that is no U-Net."""
    unet, outer = _unet(network), network.preconditioning
    values = {f.name: getattr(part, f.name) for part in (unet, outer) for f in fields(part)}
    del values["in_channels"], values["out_channels"]
    kwargs = {name: _plain(value) for name, value in values.items()}
    kwargs["img_channels"] = unet.in_channels
    kwargs["model_type"] = next(name for name, kind in _ARCHITECTURES.items() if isinstance(unet, kind))
    return {"precond": outer.name, "kwargs": kwargs, "compute_dtype": network.compute_dtype}


def _unet(network: EDMNetwork) -> _Described:
    """The U-Net of a network; ``InputError`` for another architecture, which the reference has no names for."""
    if not isinstance(network.unet, _Described):
        raise InputError(
            f"unet = {type(network.unet).__name__}: must be a U-Net's, to be read from a file or written to one"
        )
    return network.unet


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return "inf" if value == math.inf else value


def _naming(tree: PyTree) -> Naming:
    """How the reference calls these parameters."""
    return _edm2_name if _BESIDE_UNET[0] in tree else _edm_name


def _edm_name(path: Path) -> str:
    return path[0] if len(path) == 1 else "model." + torch_name(path)  # The short ones are the preconditioner's own.


def _edm2_name(path: Path) -> str:
    return torch_name(path) if path[0] in _BESIDE_UNET else "unet." + torch_name(path)


def params_to_arrays(params: PyTree) -> dict[str, np.ndarray]:
    """Parameters under the reference's names and layouts (``model.enc.16x16_conv.weight``, OIHW)."""
    return tree_to_arrays(params, _naming(params))


def expected_sizes(network: EDMNetwork, names: Collection[str]) -> dict[str, int]:
    """How many entries each array of a file must have to give the network's parameters; ``names`` are those there are.

    Raises:
        InputError: one is missing or superfluous.
    """
    unet = _unet(network)
    _check_blocks(unet, names)
    abstract = network.abstract_params
    sizes = tree_sizes(abstract, _naming(abstract))
    taps = len(getattr(unet, "resample_filter", (1, 1)))
    sizes |= {name: taps**2 for name in _filter_names(unet) & set(names)}
    check_names(sizes, dict.fromkeys(names))
    return sizes


def params_from_arrays(network: EDMNetwork, arrays: Mapping[str, ArrayLike], dtype: Any = np.float32) -> PyTree:
    """Parameters from arrays under the reference's names and layouts, as float32 (always copies) or another ``dtype``.

    ``resample_filter`` buffers may be there; they are checked against the network's filter and otherwise left aside.

    Raises:
        InputError: a tensor is missing, superfluous, misshapen or not finite.
    """
    unet = _unet(network)
    expected_sizes(network, arrays)
    abstract = network.abstract_params
    params = tree_from_arrays(abstract, arrays, _naming(abstract), dtype)
    for name in sorted(_filter_names(unet) & set(arrays)):
        _check_filter(unet, name, np.asarray(arrays[name]))
    return params


def _check_blocks(unet: _Described, names: Collection[str]) -> None:
    """Compare the names of blocks first: shapes of an absurdly deep network would take minutes to work out."""
    present = {".".join(name.split(".")[:3]) for name in names}
    root = "unet" if isinstance(unet, EDM2Config) else "model"
    for name in [f"{root}.enc.{name}" for name, _ in unet.encoder] + [
        f"{root}.dec.{name}" for name, _, _ in unet.decoder
    ]:
        if name not in present:
            raise InputError(f"arrays: {name} is missing: the weights are of another architecture")


def _filter_names(unet: _Described) -> set[str]:
    """Names of the buffers that hold a copy of the resampling filter."""
    specs = [("enc", name, spec) for name, spec in unet.encoder] + [
        ("dec", name, spec) for name, spec, _ in unet.decoder
    ]
    layers = []
    for side, name, spec in specs:
        if isinstance(spec, BlockSpec) and spec.resample:
            resolution = name.split("_")[0]
            layers += [f"{side}.{name}.conv0", f"{side}.{name}.skip"]
            layers += [f"{side}.{resolution}_aux_{kind}" for kind in ("down", "residual", "up")]
    return {f"model.{layer}.resample_filter" for layer in layers}


def _check_filter(unet: _Described, name: str, value: np.ndarray) -> None:
    taps = np.asarray(getattr(unet, "resample_filter", (1, 1)), np.float64)
    expected = np.outer(taps, taps) / taps.sum() ** 2
    same = value.shape == (1, 1, *expected.shape) and np.allclose(value, expected, rtol=1e-3, atol=1e-6)
    described = "the 2 x 2 mean" if taps.tolist() == [1, 1] else f"the filter of taps {taps.tolist()}"
    shown = value[0, 0].tolist() if value.size <= 16 and value.ndim == 4 else value.shape
    require(same, name, shown, f"{described} in shape {(1, 1, *expected.shape)}")


def edm_from_arrays(config: Mapping[str, Any], arrays: Mapping[str, ArrayLike]) -> EDMDenoiser:
    """A network of the EDM reference as a denoiser, from its configuration and its weights under the reference's names.

    Without a class it takes the zero vector, as the reference does where ``class_labels`` is None.

    Args:
        config: ``{"precond": ..., "kwargs": {...}}``: the class, ``"EDMPrecond"``, ``"VPPrecond"``, ``"VEPrecond"`` or
            ``"iDDPMPrecond"``, and its constructor arguments, those of the network (``model_type`` ``"DhariwalUNet"``
            or ``"SongUNet"``) among them; ``"inf"`` is infinity.
        arrays: ``{"model.map_layer0.weight": ...}`` in the reference's layouts: convolutions OIHW, dense layers (out,
            in).

    Raises:
        InputError: unknown class or option, or tensors that are missing, superfluous, misshapen or not finite.
    """
    return network_from_arrays(config, arrays).given(None)


def network_from_arrays(config: Mapping[str, Any], arrays: Mapping[str, ArrayLike]) -> EDMDenoiser:
    """As ``edm_from_arrays``, for a trained network: without a class it may be called only if it was trained so,
    too.
    """
    network = network_from_config(config)
    return network.denoiser(params_from_arrays(network, arrays))


def edm2_from_arrays(config: Mapping[str, Any], arrays: Mapping[str, ArrayLike]) -> EDMDenoiser:
    """A network of EDM2 (arXiv 2312.02696) as a denoiser, from its configuration and its weights under the reference's
    names.

    It is an ``EDMDenoiser`` whose architecture is an ``EDM2Config``; ``.log_variance(sigma)`` is its own estimate of
    its error. Without a class it takes the zero vector, as the reference does where ``class_labels`` is None. Where
    JAX computes in float64 and all arrays are float64, the parameters are, too.

    Args:
        config: ``{"precond": "Precond", "kwargs": {...}}`` with the constructor's arguments; those left out have the
            published networks' values.
        arrays: ``{"unet.enc.64x64_conv.weight": ..., "logvar_linear.weight": ...}`` in the reference's layouts:
            convolutions OIHW, dense layers (out, in).

    Raises:
        InputError: another class, an unknown option, or tensors that are missing, superfluous, misshapen or not
            finite.
    """
    asked = "'Precond', the class of EDM2, in a configuration {'precond': 'Precond', 'kwargs': {...}}"
    require(config.get("precond") == "Precond", "precond", config.get("precond"), asked)
    network = network_from_config(config)
    wide = jax.config.jax_enable_x64 and all(np.asarray(array).dtype == np.float64 for array in arrays.values())  # type: ignore[attr-defined]
    return network.denoiser(params_from_arrays(network, arrays, np.float64 if wide else np.float32)).given(None)
