"""Networks as safetensors files of dgu's own: the same weights, mapped, with the metadata in the header."""

import json

import jax
import numpy as np
import pytest
from safetensors import safe_open

from dgu.core.errors import InputError
from dgu.core.safetensors_files import read_safetensors, write_safetensors
from dgu.models import ADMConfig, EDMNetwork, export_network, load_checkpoint, save_network
from tests.models import diffusers_folders as folders

NETWORK = EDMNetwork(ADMConfig(4, 1, 1, 2, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), NETWORK.abstract_params)
    path = tmp_path_factory.mktemp("saved") / "network.npz"
    save_network(path, NETWORK, params, {"class_names": ["a", "b"]})
    return path


def test_an_exported_network_is_the_same_and_comes_from_the_mapped_file(saved, tmp_path):
    path = export_network(saved, tmp_path / "network.safetensors")
    found, expected = load_checkpoint(path), load_checkpoint(saved)
    assert found.sha256 == expected.sha256 and found.network == expected.network
    assert found.class_names == ("a", "b") and load_checkpoint(tmp_path).sha256 == found.sha256
    back = export_network(path, tmp_path / "back" / "network.npz")
    assert load_checkpoint(back).sha256 == found.sha256
    arrays, header = read_safetensors(path)
    assert not any(array.flags.writeable or array.flags.owndata for array in arrays.values())
    assert json.loads(header["dgu"])["format"] == "dgu-network-1"
    with safe_open(path, "numpy") as file:  # As others read it.
        name = "model.out_conv.weight"
        np.testing.assert_array_equal(file.get_tensor(name), arrays[name])
    halves = export_network(saved, tmp_path / "half.safetensors", "float16")
    assert read_safetensors(halves)[0][name].dtype == np.float16 and halves.stat().st_size < path.stat().st_size


def test_what_cannot_be_exported_or_is_another_file_is_refused_in_one_line(saved, tmp_path):
    with pytest.raises(InputError, match=r"a file \.safetensors or \.npz"):
        export_network(saved, tmp_path / "network.pt")
    with pytest.raises(InputError, match="diffusers has its own format"):
        export_network(folders.write(tmp_path / "d"), tmp_path / "network.npz")
    write_safetensors(tmp_path / "other.safetensors", {"a": np.ones(3)}, {"dgu": "[1]"})
    with pytest.raises(InputError, match="metadata is a list"):
        load_checkpoint(tmp_path / "other.safetensors")
    write_safetensors(tmp_path / "other.safetensors", {"a": np.ones(3)}, {})
    with pytest.raises(InputError, match="must be 'dgu-network-1'"):
        load_checkpoint(tmp_path / "other.safetensors")
