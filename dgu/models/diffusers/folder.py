"""Folders of diffusers: pipelines and the old flat form, with safetensors or PyTorch's zip archives."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from dgu.core.errors import CheckpointError, InputError, require
from dgu.core.reading import guarded, read_json
from dgu.core.safetensors_files import read_safetensors
from dgu.models.diffusers.config import unet_from_config
from dgu.models.diffusers.network import DiffusersDenoiser, DiffusersNetwork
from dgu.models.diffusers.schedulers import TimeRule, process_from_config
from dgu.models.layouts import check_names, tree_from_arrays, tree_sizes
from dgu.models.torch_zip import read_torch_zip

#: Names of a configuration file and of the weights without their end.
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model"
_SCHEDULER = "scheduler_config.json"
_READERS: dict[str, Callable[..., Any]] = {
    ".safetensors": lambda path: read_safetensors(path, error=CheckpointError)[0],
    ".bin": read_torch_zip,
}
_MOST_JSON = 2**24
#: Old names of the layers of an attention.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def diffusers_from_arrays(
    unet_config: Mapping[str, Any],
    scheduler_config: Mapping[str, Any],
    arrays: Mapping[str, ArrayLike],
    *,
    time: TimeRule = "interpolate",
    clip: bool = False,
) -> DiffusersDenoiser:
    """A diffusers UNet2DModel with its scheduler's process as a denoiser.

    ``denoiser(x, sigma)`` takes one NHWC example of the noise level ``sigma``, ``x0 + sigma eps``, and gives the clean
    example; ``denoiser.network(x, t, label=None)`` is the raw output at the network's own time;
    ``denoiser.given(label)`` chooses a class; ``denoiser.sigma_range`` are the lowest and highest level. All is
    computed in the dtype of ``x``, at least float32, from tables of noise levels in float64.

    Args:
        unet_config: ``config.json`` of the network.
        scheduler_config: ``scheduler_config.json``; see ``process_from_config`` for the schedulers that are known.
        arrays: tensors by the names of the state dictionary, in PyTorch's layouts; old names of attentions, too.
        time: the network's time of a noise level between two of a discrete schedule: ``"interpolate"``, linear in
            ``ln sigma``, or ``"nearest"``, the nearest entry's, as always with a learned table of times.
        clip: whether clean images are clipped where the scheduler's sampler does so. A posterior mean is not clipped.

    Raises:
        InputError: an unknown class, block, scheduler or option, or tensors that are missing, superfluous, misshapen or
            not finite.
    """
    unet = unet_from_config(unet_config)
    process = process_from_config(scheduler_config, "nearest" if unet.time_embedding_type == "learned" else time)
    network = DiffusersNetwork(unet, process.preconditioning, process.clip if clip else None)
    resnets = resnet_names("down_blocks", unet.block_out_channels, unet.layers_per_block)
    return network.denoiser(named_params(resnets, lambda: network.abstract_params, arrays))


def load_diffusers(
    folder: str | os.PathLike[str], *, time: TimeRule = "interpolate", clip: bool = False
) -> DiffusersDenoiser:
    """A diffusers folder as ``diffusers_from_arrays`` makes it: ``.denoiser``, ``.sigma_range``, ``.denoiser.network``.

    The folder is a pipeline's (``unet/`` and ``scheduler/``) or the old flat form (``config.json`` and
    ``scheduler_config.json`` beside the weights). The weights are ``diffusion_pytorch_model`` as ``.safetensors``, in
    one file or in several by an index, or as a ``.bin`` that is a zip archive, and may have a variant in their name
    (``.fp16.safetensors``). Half precision becomes float32. Nothing in the files is executed.

    Raises:
        CheckpointError: no such folder, a file that is missing or damaged, or what ``diffusers_from_arrays`` refuses.
    """
    root = Path(folder)
    with guarded(folder, "a folder of diffusers with a UNet2DModel and its scheduler", error=CheckpointError):
        home = root / "unet" if (root / "unet").is_dir() else root
        scheduler = root / "scheduler" / _SCHEDULER
        scheduler = scheduler if scheduler.exists() else root / _SCHEDULER
        unet_config, scheduler_config = read_config(home / CONFIG), read_config(scheduler)
        return in_file(folder, lambda: diffusers_from_arrays(
            unet_config, scheduler_config, read_weights(home), time=time, clip=clip))  # fmt: skip


def is_diffusers(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has the configuration of a diffusers network, in a pipeline or beside its scheduler's."""
    root = Path(folder)
    return (root / "unet" / CONFIG).is_file() or all((root / name).is_file() for name in (CONFIG, _SCHEDULER))


def in_file(folder: str | os.PathLike[str], make: Callable[[], Any]) -> Any:
    """What ``make()`` gives, its complaints under the name of the folder."""
    try:
        return make()
    except CheckpointError:
        raise
    except InputError as error:
        raise CheckpointError(f"{os.fspath(folder)}: not a usable diffusers folder: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises:
        CheckpointError: it is missing, damaged or no dictionary.
    """
    try:
        found = read_json(path, "a configuration of diffusers, as JSON", limit=_MOST_JSON)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}; must be a configuration of diffusers")
    return found


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of the folder's ``diffusion_pytorch_model``, whichever form it has, as views of mapped files.

    Raises:
        CheckpointError: there is none, or it is damaged, or an index and its files do not fit together.
    """
    for end, read in _READERS.items():
        if (folder / f"{WEIGHTS}{end}").exists():
            return read(folder / f"{WEIGHTS}{end}")
        if (folder / f"{WEIGHTS}{end}.index.json").exists():
            return _sharded(folder, folder / f"{WEIGHTS}{end}.index.json", read)
    variants = sorted(
        path.name
        for path in folder.glob(f"{WEIGHTS}.*")
        if re.fullmatch(rf"{WEIGHTS}\.(\w+\.(safetensors|bin)|(safetensors|bin)\.index\.\w+\.json)", path.name)
    )
    if len(variants) != 1:
        shown = f"of {', '.join(variants)}, one" if variants else f"{WEIGHTS}.safetensors or .bin"
        raise CheckpointError(f"{folder}: has {len(variants)} networks; must hold {shown}")
    path = folder / variants[0]
    end = ".safetensors" if ".safetensors" in path.name else ".bin"
    return _sharded(folder, path, _READERS[end]) if path.suffix == ".json" else _READERS[end](path)


def _sharded(folder: Path, index: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The tensors that an index finds in several files of the folder; each file holds those that it should."""
    places = read_config(index).get("weight_map")
    usable = isinstance(places, dict) and all(isinstance(file, str) and _plain(file) for file in places.values())
    if not usable or not places:
        raise CheckpointError(f"{index}: has no usable weight_map; must give a file of this folder for each tensor")
    arrays: dict[str, np.ndarray] = {}
    for file in sorted(set(places.values())):
        found = read(folder / file)
        expected = {name for name, place in places.items() if place == file}
        for name in sorted(expected ^ found.keys()):
            raise CheckpointError(f"{folder / file}: {name[:100]} is in it or in {index.name}; must be in both")
        arrays |= found
    return arrays


def _plain(file: str) -> bool:
    return bool(file) and len(file) <= 255 and not file.startswith(".") and not re.search(r"[/\\\0]", file)


def resnet_names(levels: str, widths: tuple[int, ...], layers: int) -> Iterator[str]:
    """Names of the residual blocks on one way, such as ``down_blocks.0.resnets.1``."""
    return (f"{levels}.{level}.resnets.{layer}" for level in range(len(widths)) for layer in range(layers))


def named_params(resnets: Iterable[str], abstract: Callable[[], Any], arrays: Mapping[str, ArrayLike]) -> Any:
    """Parameters from a state dictionary, whose attentions may have their old names and 1 x 1 kernels.

    Args:
        resnets: names of residual blocks that there must be, compared before ``abstract`` is called: the shapes of an
            absurdly deep network would take minutes to work out.
        abstract: gives the shapes of the parameters.
        arrays: the state dictionary.

    Raises:
        InputError: a tensor is missing, superfluous, misshapen or not finite, or there under both names.
    """
    renamed: dict[str, Any] = {}
    for name, array in arrays.items():
        new = re.sub(
            r"(attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$",
            lambda found: f"{found[1]}.{_OLD[found[2]]}.{found[3]}",
            name,
        )
        require(new not in renamed, "arrays", name, f"there once, not as {new} as well")
        attends = re.search(r"attentions\.\d+\.to_\w+(\.0)?\.weight$", new) and np.ndim(array) == 4
        renamed[new] = np.asarray(array)[..., 0, 0] if attends and np.shape(array)[2:] == (1, 1) else array
    for name in resnets:
        if f"{name}.norm1.weight" not in renamed:
            raise InputError(f"arrays: {name} is missing: the weights are of another architecture")
    shapes = abstract()
    check_names(tree_sizes(shapes), renamed)
    return tree_from_arrays(shapes, renamed)
