"""Networks in files of PyTorch, with their configuration: what is loaded, and what is refused in one line."""

import io
import zipfile

import jax
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import diffusers_from_arrays, edm2_from_arrays, edm_from_arrays, load_checkpoint
from dgu.models.layouts import tree_to_arrays
from tests import parity
from tests.models import diffusers_folders as folders
from tests.models import networks
from tests.models.snapshots import TINY, Call, Global, Raw, dumps
from tests.models.torch_zips import torch_zip

EDM2 = parity.load("edm2_uncond.npz")
WEIGHTS = networks.random_arrays(TINY)
DIFFUSERS = folders.random_weights(folders.network())


def single(arrays):
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


NETWORKS = {
    "EDM": (TINY, WEIGHTS, edm_from_arrays),
    "EDM2": (parity.config(EDM2), single(parity.params(EDM2)), edm2_from_arrays),
    "diffusers": (
        {"unet": folders.UNET, "scheduler": folders.SCHEDULER},
        DIFFUSERS,
        lambda config, arrays: diffusers_from_arrays(config["unet"], config["scheduler"], arrays),
    ),
}


def load(tmp_path, content, name="x.pt"):
    (tmp_path / name).write_bytes(content)
    return load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_with_its_configuration_is_that_of_the_arrays(tmp_path, kind):
    config, arrays, make = NETWORKS[kind]
    if "precond" in config:
        config = {name: config[name] for name in ("precond", "kwargs")}
    found, expected = load(tmp_path, torch_zip(arrays, config=config)), make(config, arrays)
    assert found.network == expected.description and found.metadata["source"]["file"] == "x.pt"
    jax.tree.map(np.testing.assert_array_equal, found.denoiser.params, expected.params)
    assert len(tree_to_arrays(found.denoiser.params)) > 10


def test_a_class_is_needed_where_the_network_was_trained_with_classes(tmp_path):
    assert load(tmp_path, torch_zip(WEIGHTS, config=TINY)).denoiser.needs_class


def pickled(value):
    return torch_zip(WEIGHTS, data=dumps(value, 2))


def with_member(name):
    """The archive with one more member, such as programs have."""
    buffer = io.BytesIO(torch_zip(WEIGHTS, config=TINY))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"")
    return buffer.getvalue()


#: A list of 200 times the same list of 200 numbers, of which there is one in memory.
WIDE = Raw(b"](" + b"](" + b"K\x01" * 200 + b"eq\x00" + b"h\x00" * 199 + b"e")
HOSTILE = {
    "weights alone": (torch_zip(WEIGHTS), "a state dictionary without its configuration"),
    "a module": (pickled(Call(Global("__main__", "Network"), ())), "global '__main__' 'Network' is not allowed"),
    "a call": (pickled({"config": Call(Global("os", "system"), ("true",))}), "global 'os' 'system' is not allowed"),
    "TorchScript": (with_member("archive/constants.pkl"), "is a program of PyTorch, and none is run here"),
    "torch.export": (with_member("archive/archive_format"), "is a program of PyTorch, and none is run here"),
    "more than these": (pickled({"config": {}, "state_dict": {}, "ema": {}}), "it holds something else"),
    "a list": (pickled([1, 2]), "it holds something else"),
    "text for a config": (torch_zip(WEIGHTS, config="EDMPrecond"), "no dictionary of a few plain values"),
    "bytes in a config": (torch_zip(WEIGHTS, config={"precond": b"EDM"}), "something else than numbers, texts"),
    "a deep config": (torch_zip(WEIGHTS, config={"a": [[[[[1]]]]]}), "nested too deeply"),
    "a config that repeats itself": (torch_zip(WEIGHTS, config={"a": WIDE}), "no dictionary of a few plain values"),
    "an unknown class": (torch_zip(WEIGHTS, config=TINY | {"precond": "Other"}), "precond = 'Other': must be"),
    "one tensor less": (torch_zip(dict(list(WEIGHTS.items())[:-1]), config=TINY), "is missing"),
    "no tensors": (pickled({"config": TINY, "state_dict": [1]}), "something else than tensors by name"),
    "no unet": (torch_zip(DIFFUSERS, config={"unet": 3, "scheduler": {}}), "cannot be read"),
    "legacy": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(40), "legacy format"),
    "not PyTorch's": (b"{}", "a JSON text"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_network_is_refused_in_one_line(tmp_path, case):
    content, expected = HOSTILE[case]
    with pytest.raises(InputError) as caught:
        load(tmp_path, content)
    line = str(caught.value)
    assert expected in line and "x.pt" in line and "\n" not in line and len(line) < 700, line


@pytest.mark.parametrize("end", [".pt", ".pth", ".bin"])
def test_names_of_the_files(tmp_path, end):
    assert load(tmp_path, torch_zip(WEIGHTS, config=TINY), f"n{end}").network.unet.label_dim == 2


@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")
def test_pytorchs_own_files(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(np.array(array)) for name, array in WEIGHTS.items()}
    torch.save({"config": TINY, "state_dict": state}, tmp_path / "own.pt")
    expected = edm_from_arrays(TINY, WEIGHTS)
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(tmp_path / "own.pt").denoiser.params, expected.params)
    module = torch.nn.Linear(2, 2)
    torch.save(module, tmp_path / "module.pt")
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    torch.jit.save(torch.jit.script(module), tmp_path / "script.pt")
    torch.export.save(torch.export.export(module, (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    lines = {
        "module.pt": "is not allowed",
        "weights.pt": "without its configuration",
        "script.pt": "program of PyTorch",
        "program.pt2": "program of PyTorch",
    }
    for name, said in lines.items():
        with pytest.raises(InputError, match=said) as caught:
            load_checkpoint(tmp_path / name)
        assert "dgu.denoiser(module, ...) wraps any other PyTorch module" in str(caught.value)
