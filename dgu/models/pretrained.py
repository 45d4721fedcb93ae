"""Networks as files: the bundled model, networks that ``python -m experiments.train`` wrote, NVIDIA's snapshots,
folders of diffusers, and networks of these that PyTorch saved with their configuration.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu.core.brief import short_repr
from dgu.core.checkpoint import load_arrays, save_arrays
from dgu.core.errors import CheckpointError, InputError, require
from dgu.core.file_kinds import folder_kind
from dgu.core.published import origin
from dgu.core.reading import guarded
from dgu.core.safetensors_files import read_safetensors, write_safetensors
from dgu.core.typing import PyTree
from dgu.models.diffusers.folder import diffusers_from_arrays, is_diffusers, load_diffusers
from dgu.models.diffusers.network import DiffusersDenoiser, DiffusersNetwork
from dgu.models.edm import EDMDenoiser, EDMNetwork
from dgu.models.snapshot import load_edm_pickle
from dgu.models.torch_zip import NETWORK, read_torch_network
from dgu.models.weights import (
    expected_sizes,
    network_config,
    network_from_arrays,
    network_from_config,
    params_from_arrays,
    params_to_arrays,
)

#: Names that ``load_checkpoint`` knows beside paths.
BUNDLED = ("fashion-mnist-14",)
#: Name of the text in the header of a safetensors file that is dgu's own: its metadata as JSON.
_HEADER = "dgu"
#: Layers that a network has only where it is told of classes or augmentation.
_OPTIONAL = ("map_label", "map_augment")
#: How the names of PyTorch's files end.
_TORCH = (".pt", ".pth", ".bin", ".pt2")


@short_repr
@dataclass(frozen=True)
class Pretrained:
    """A network with its weights and what is known of its training (``metadata["training"]``, class names, data
    hash).
    """

    denoiser: EDMDenoiser | DiffusersDenoiser
    metadata: dict[str, Any]

    @property
    def network(self) -> EDMNetwork | DiffusersNetwork:
        """The static description of the network."""
        return self.denoiser.description

    @property
    def sha256(self) -> str:
        """Hex digest of the weights, under their names; and of its description, for a network of diffusers."""
        digest = hashlib.sha256()
        if isinstance(self.network, DiffusersNetwork):  # Of EDM's, digests without it are in stores of samples.
            digest.update(repr(self.network).encode())
        for name, array in sorted(params_to_arrays(self.denoiser.params).items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array, np.float32).tobytes())
        return digest.hexdigest()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty when the network is unconditional."""
        return tuple(self.metadata.get("class_names", ()))


def save_network(
    path: str | os.PathLike[str],
    network: EDMNetwork,
    params: PyTree,
    metadata: Mapping[str, Any],
    dtype: str = "float32",
    *,
    compress: bool = True,
) -> None:
    """Write a network as one file: weights under the reference's names in ``dtype`` (float32 or float16), and metadata.

    A name that ends in ``.safetensors`` makes it a safetensors file, with the metadata as JSON in its header under the
    key ``"dgu"``; any other an npz. A safetensors file, and an npz without ``compress``, load by memory map: for
    networks of many millions of parameters.
    """
    require(dtype in ("float32", "float16"), "dtype", dtype, "'float32' or 'float16'")
    arrays = {name: array.astype(dtype) for name, array in params_to_arrays(params).items()}
    described = {**metadata, "format": "dgu-network-1", "config": network_config(network)}
    if Path(path).suffix == ".safetensors":
        write_safetensors(path, arrays, {_HEADER: json.dumps(described, sort_keys=True, allow_nan=False)})
    else:
        save_arrays(path, arrays, described, compress=compress)


def export_network(name_or_path: str | os.PathLike[str], out: str | os.PathLike[str], dtype: str = "float32") -> Path:
    """Write any network of EDM's that ``load_checkpoint`` reads as one file of dgu: ``.safetensors``, or ``.npz``
    without compression; both are mapped into memory when they are loaded. Returns the path of the file.

    Raises:
        InputError: the network cannot be read, is one of diffusers, which has a format of its own, or the file is of
            another kind or cannot be written.
    """
    require(Path(out).suffix in (".safetensors", ".npz"), "out", os.fspath(out), "a file .safetensors or .npz")
    model = load_checkpoint(name_or_path)
    if isinstance(model.network, DiffusersNetwork):
        raise InputError(
            f"checkpoint = {os.fspath(name_or_path)!r}: must be a network of EDM's; diffusers has its own format"
        )
    save_network(out, model.network, model.denoiser.params, model.metadata, dtype, compress=False)
    return Path(out)


def load_checkpoint(name_or_path: str | os.PathLike[str]) -> Pretrained:
    """A network with its metadata: bundled, by name (``"fashion-mnist-14"``); a network file ``.npz`` or
    ``.safetensors``; the directory of a training run; one of NVIDIA's snapshots ``.pkl``, of EDM or EDM2 (see
    ``load_edm_pickle``); a folder of diffusers with a UNet2DModel and its scheduler (see ``load_diffusers``); or a
    network of EDM, EDM2 or diffusers that ``torch.save`` wrote with its configuration, ``.pt`` (see ``read_torch``).

    Raises:
        InputError: no such name or file, or the file holds something else.
    """
    text, path = os.fspath(name_or_path), network_file(name_or_path)
    if path is None:
        with resources.as_file(resources.files("dgu.models") / "bundled" / f"{text}.npz") as path:
            return _read(path)
    allowed = (
        f"one of {', '.join(BUNDLED)}, a network .npz or .safetensors, an EDM snapshot .pkl, a PyTorch file .pt, the "
        "directory of a training run, or a folder of diffusers"
    )
    with guarded(f"checkpoint = {text[:300]!r}", allowed):
        if not path.exists():
            found = f" (it is {folder_kind(text)})" if os.path.isdir(text) else " (there is nothing of this name)"
            known = origin(text)
            wanted = f"a file that is here; it is {known}" if known else allowed
            raise InputError(f"checkpoint = {text!r}: must be {wanted}{found}")
        if path.is_dir():
            return Pretrained(load_diffusers(path), {"source": {"folder": path.name}})
        if path.suffix in _TORCH:
            return read_torch(path)
        return read_pickle(path) if path.suffix == ".pkl" else _read(path)


def network_file(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The file, or folder of diffusers, that ``load_checkpoint`` reads, whether it is there or not; None for a bundled
    network.
    """
    text = os.fspath(name_or_path)
    if text in BUNDLED:
        return None
    path = Path(text)
    if not os.path.isdir(path) or is_diffusers(path):
        return path
    tensors = path / "network.safetensors"
    return tensors if tensors.exists() and not (path / "network.npz").exists() else path / "network.npz"


def shared_layers(found: Pretrained, network: EDMNetwork, source: str) -> dict[str, Any]:
    """The weights of ``found`` for the layers that ``network`` has, too: all layers, but for those of class labels and
    of augmentation, which either may lack.

    Raises:
        InputError: another layer is in one of them only, or has other shapes; the line begins with ``source``.
    """
    theirs, ours = dict(found.denoiser.params), dict(network.abstract_params)
    for layer in _OPTIONAL:
        if not (layer in theirs and layer in ours):
            theirs.pop(layer, None)
            ours.pop(layer, None)
    there, here = (
        {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(tree) for tree in (theirs, ours))
    )
    for leaf in sorted(there.keys() | here.keys()):
        if there.get(leaf) != here.get(leaf):
            shapes = f"{leaf} is {there.get(leaf, 'absent')} there and {here.get(leaf, 'absent')} here"
            raise InputError(f"{source}: must be a network of this architecture ({shapes})")
    return theirs


def read_pickle(path: str | os.PathLike[str]) -> Pretrained:
    """One of NVIDIA's EDM snapshots; ``metadata["source"]`` has its name and hash.

    Raises:
        CheckpointError: not such a snapshot, or one that is damaged or asks for anything else than data.
    """
    return Pretrained(load_edm_pickle(path), _source(path))


def read_torch(path: str | os.PathLike[str]) -> Pretrained:
    """A network of EDM, EDM2 or diffusers from what ``torch.save({"config": ..., "state_dict": network.state_dict()},
    path)`` wrote; ``metadata["source"]`` has its name and hash. PyTorch is not needed, and nothing in the file is run.

    The configuration is that of ``edm_from_arrays``, ``{"precond": type(network).__name__, "kwargs":
    dict(network.init_kwargs)}``, or for diffusers ``{"unet": dict(unet.config), "scheduler": dict(scheduler.config)}``,
    as ``diffusers_from_arrays`` takes them. A class-conditional network needs a class as in ``load_edm_pickle``.

    Raises:
        CheckpointError: no such file, a state dictionary alone, a whole module or a program, another network, or a file
            that is damaged or asks for anything else than data.
    """
    config, arrays = read_torch_network(path)
    try:
        with guarded(path, NETWORK, error=CheckpointError):
            if config.keys() == {"unet", "scheduler"}:
                found: Any = diffusers_from_arrays(config["unet"], config["scheduler"], arrays)
            else:
                found = network_from_arrays(config, arrays)
            return Pretrained(found, _source(path))
    except CheckpointError:
        raise
    except InputError as error:
        raise CheckpointError(f"{os.fspath(path)}: not a usable PyTorch file: {error}") from error


def _source(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What metadata say of a file that has none of its own."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"source": {"file": Path(path).name, "sha256": digest}}


def _read(path: Path) -> Pretrained:
    def choose(metadata: dict[str, Any], names: Collection[str]) -> dict[str, int]:
        return expected_sizes(_network(metadata), names)

    try:
        arrays, metadata = _tensors(path) if path.suffix == ".safetensors" else load_arrays(path, choose)
        network = _network(metadata)
        weights = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return Pretrained(network.denoiser(params_from_arrays(network, weights)), metadata)
    except InputError as error:
        text, wrong = str(error), f"checkpoint {path}: not a network file written by dgu"
        raise error if text.startswith(wrong) else InputError(f"{wrong}: {text}") from error


def _tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a safetensors file that ``save_network`` wrote."""
    arrays, header = read_safetensors(path)
    with guarded(path, "a safetensors file that dgu.models.save_network wrote"):
        metadata = json.loads(header.get(_HEADER, "{}"))
        if not isinstance(metadata, dict):
            raise InputError(f"metadata is a {type(metadata).__name__}; must be a dictionary")
    return arrays, metadata


def _network(metadata: dict[str, Any]) -> EDMNetwork:
    if metadata.get("format") != "dgu-network-1" or not isinstance(metadata.get("config"), dict):
        raise InputError(f"format {metadata.get('format')!r}; must be 'dgu-network-1', with a config")
    return network_from_config(metadata["config"])
