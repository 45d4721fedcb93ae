"""Networks as files: the bundled model, networks that ``python -m experiments.train`` wrote, and NVIDIA's snapshots."""

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dgu.core.checkpoint import load_arrays, save_arrays
from dgu.core.errors import InputError, require
from dgu.core.file_kinds import folder_kind
from dgu.core.published import origin
from dgu.core.reading import guarded
from dgu.core.typing import PyTree
from dgu.models.edm import EDMDenoiser, EDMNetwork
from dgu.models.snapshot import load_edm_pickle
from dgu.models.weights import (
    expected_sizes,
    network_config,
    network_from_config,
    params_from_arrays,
    params_to_arrays,
)

#: Names that ``load_checkpoint`` knows beside paths.
BUNDLED = ("fashion-mnist-14",)
#: Layers that a network has only where it is told of classes or augmentation.
_OPTIONAL = ("map_label", "map_augment")


@dataclass(frozen=True)
class Pretrained:
    """A network with its weights and what is known of its training (``metadata["training"]``, class names, data
    hash).
    """

    denoiser: EDMDenoiser
    metadata: dict[str, Any]

    @property
    def network(self) -> EDMNetwork:
        """The static description of the network."""
        return self.denoiser.network

    @property
    def sha256(self) -> str:
        """Hex digest of the weights, under their names."""
        digest = hashlib.sha256()
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
    """Write a network as one npz: weights under the reference's names in ``dtype`` (float32 or float16), and metadata.

    Without ``compress`` it loads by memory map: for networks of many millions of parameters.
    """
    require(dtype in ("float32", "float16"), "dtype", dtype, "'float32' or 'float16'")
    arrays = {name: array.astype(dtype) for name, array in params_to_arrays(params).items()}
    save_arrays(
        path, arrays, {**metadata, "format": "dgu-network-1", "config": network_config(network)}, compress=compress
    )


def load_checkpoint(name_or_path: str | os.PathLike[str]) -> Pretrained:
    """A network with its metadata: bundled, by name (``"fashion-mnist-14"``); a network file ``.npz``; the directory of
    a training run; or one of NVIDIA's EDM snapshots ``.pkl`` (see ``load_edm_pickle``).

    Raises:
        InputError: no such name or file, or the file holds something else.
    """
    text, path = os.fspath(name_or_path), network_file(name_or_path)
    if path is None:
        with resources.as_file(resources.files("dgu.models") / "bundled" / f"{text}.npz") as path:
            return _read(path)
    allowed = f"one of {', '.join(BUNDLED)}, a network .npz, an EDM snapshot .pkl, or the directory of a training run"
    with guarded(f"checkpoint = {text[:300]!r}", allowed):
        if not path.exists():
            found = f" (it is {folder_kind(text)})" if os.path.isdir(text) else " (there is nothing of this name)"
            known = origin(text)
            wanted = f"a file that is here; it is {known}" if known else allowed
            raise InputError(f"checkpoint = {text!r}: must be {wanted}{found}")
        return read_pickle(path) if path.suffix == ".pkl" else _read(path)


def network_file(name_or_path: str | os.PathLike[str]) -> Path | None:
    """The file that ``load_checkpoint`` reads, whether it is there or not; None for a bundled network."""
    text = os.fspath(name_or_path)
    if text in BUNDLED:
        return None
    path = Path(text)
    return path / "network.npz" if os.path.isdir(path) else path


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
    denoiser = load_edm_pickle(path)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Pretrained(denoiser, {"source": {"file": Path(path).name, "sha256": digest}})


def _read(path: Path) -> Pretrained:
    def choose(metadata: dict[str, Any], names: Collection[str]) -> dict[str, int]:
        return expected_sizes(_network(metadata), names)

    try:
        arrays, metadata = load_arrays(path, choose)
        network = _network(metadata)
        weights = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        return Pretrained(network.denoiser(params_from_arrays(network, weights)), metadata)
    except InputError as error:
        text, wrong = str(error), f"checkpoint {path}: not a network file written by dgu"
        raise error if text.startswith(wrong) else InputError(f"{wrong}: {text}") from error


def _network(metadata: dict[str, Any]) -> EDMNetwork:
    if metadata.get("format") != "dgu-network-1" or not isinstance(metadata.get("config"), dict):
        raise InputError(f"format {metadata.get('format')!r}; must be 'dgu-network-1', with a config")
    return network_from_config(metadata["config"])
