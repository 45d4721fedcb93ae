"""Network files: what comes back, what is refused, and that nothing in them is run."""

import json
import os
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.checkpoint import TrainingCheckpoints, load_arrays, save_arrays
from dgu.core.errors import InputError
from dgu.models import ADMConfig, EDMNetwork, EDMPreconditioning, load_checkpoint, save_network

NETWORK = EDMNetwork(
    ADMConfig(4, 1, 1, label_dim=2, model_channels=4, channel_mult=(1,), num_blocks=1, label_dropout=0.1),
    EDMPreconditioning(sigma_data=0.4),
    compute_dtype="bfloat16",
)
METADATA = {"class_names": ["cat", "dog"], "images_seen": 7, "training": {"seed": 3}}


@pytest.fixture(scope="module")
def params():
    """Parameters without any zeros, made without compiling an initialiser."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), NETWORK.abstract_params)


@pytest.fixture
def stored(tmp_path, params):
    """A network file, and its arrays and metadata."""
    save_network(tmp_path / "network.npz", NETWORK, params, METADATA)
    return (tmp_path / "network.npz", *load_arrays(tmp_path / "network.npz"))


def test_a_network_comes_back_as_it_was(tmp_path, params, stored):
    path, _, _ = stored
    for place in (path, str(path), tmp_path):
        model = load_checkpoint(place)
        chex.assert_trees_all_equal(model.denoiser.params, params)
        assert model.network == NETWORK
        assert model.class_names == ("cat", "dog")
        assert {name: model.metadata[name] for name in METADATA} == METADATA
    save_network(tmp_path / "again.npz", model.network, model.denoiser.params, METADATA)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()
    moved = jax.tree.map(lambda leaf: leaf + 1e-6, params)
    save_network(tmp_path / "moved.npz", NETWORK, moved, METADATA)
    assert load_checkpoint(tmp_path / "moved.npz").sha256 != model.sha256


def test_half_precision_storage_halves_the_file_and_rounds_once(tmp_path, params, stored):
    path, _, _ = stored
    save_network(tmp_path / "half.npz", NETWORK, params, METADATA, dtype="float16")
    shrunk = path.stat().st_size - (tmp_path / "half.npz").stat().st_size
    assert shrunk > sum(
        leaf.size for leaf in jax.tree.leaves(params)
    )  # of the two bytes saved, the compressor takes its share
    loaded = load_checkpoint(tmp_path / "half.npz")
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), params)
    chex.assert_trees_all_equal(loaded.denoiser.params, rounded)
    # The file's own rounding is idempotent, so its name of the weights is that of what it gives.
    save_network(tmp_path / "twice.npz", NETWORK, loaded.denoiser.params, METADATA, dtype="float16")
    assert (tmp_path / "twice.npz").read_bytes() == (tmp_path / "half.npz").read_bytes()
    with pytest.raises(InputError, match="dtype = 'int8'"):
        save_network(tmp_path / "no.npz", NETWORK, params, METADATA, dtype="int8")


class Bomb:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_what_is_no_network_file_is_refused_and_not_run(tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    path, arrays, metadata = stored
    text = {"metadata": np.asarray(json.dumps(metadata))}
    np.savez("objects.npz", **{**arrays, **text, "bomb": np.array([Bomb()], object)})
    np.savez("pickled.npz", **arrays, metadata=np.array([Bomb()], object))
    np.savez("bare.npz", **arrays)
    np.savez("list.npz", **arrays, metadata=np.asarray("[1, 2]"))
    np.savez("no-json.npz", **arrays, metadata=np.asarray("{"))
    np.array([Bomb()], object).dump("pickle.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:-200])
    np.save("array", arrays["model.out_conv.weight"])
    os.rename("array.npy", "array.npz")
    damaged = bytearray(path.read_bytes())
    damaged[2000:2400] = bytes(400)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    for name in ("array", "damaged", "objects", "pickled", "bare", "list", "no-json", "pickle", "text", "empty", "cut"):
        with pytest.raises(InputError, match=f"^checkpoint {name}.npz: not a network file written by dgu") as error:
            load_checkpoint(f"{name}.npz")
        assert "\n" not in str(error.value), name
    assert not (tmp_path / "executed").exists()
    with pytest.raises(InputError, match=r"checkpoint = 'absent': must be one of fashion-mnist-14, a network \.npz"):
        load_checkpoint("absent")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="checkpoint = 'folder': must be"):
        load_checkpoint("folder")


def test_other_formats_and_architectures_are_refused(tmp_path, stored):
    _, arrays, metadata = stored
    kwargs = metadata["config"]["kwargs"]
    first = next(iter(arrays))
    cases = {
        "format 'dgu-network-9'": (arrays, metadata | {"format": "dgu-network-9"}),
        "format None": (arrays, {key: metadata[key] for key in metadata if key != "format"}),
        "not a network file": (arrays, metadata | {"config": None}),
        "precond = 'Prepared'": (arrays, metadata | {"config": metadata["config"] | {"precond": "Prepared"}}),
        "unexpected option 'sigma_data' of VPPrecond": (
            arrays,
            metadata | {"config": metadata["config"] | {"precond": "VPPrecond"}},
        ),
        "aux_conv.* is missing": (
            arrays,
            metadata | {"config": {"precond": "EDMPrecond", "kwargs": kwargs | {"model_type": "SongUNet"}}},
        ),
        "of another architecture": (
            arrays,
            metadata | {"config": metadata["config"] | {"kwargs": kwargs | {"model_channels": 8}}},
        ),
        "is missing": ({name: arrays[name] for name in arrays if name != first}, metadata),
        "does not belong": (arrays | {"model.extra.weight": np.zeros(3)}, metadata),
        "must be finite": (arrays | {first: np.full_like(arrays[first], np.nan)}, metadata),
    }
    for message, (weights, described) in cases.items():
        save_arrays(tmp_path / "other.npz", weights, described)
        with pytest.raises(InputError, match=message) as error:
            load_checkpoint(tmp_path / "other.npz")
        assert "\n" not in str(error.value), message


def test_a_network_of_a_million_parameters_loads_in_a_second(tmp_path):
    network = EDMNetwork(ADMConfig(14, 1, 1, label_dim=10, model_channels=32, channel_mult=(1, 2), num_blocks=2))
    network.denoiser(network.abstract_params)  # the shapes, once per architecture, are not the file's doing
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), network.abstract_params)
    save_network(tmp_path / "network.npz", network, params, METADATA)
    load_checkpoint(tmp_path / "network.npz")
    started = time.process_time()
    load_checkpoint(tmp_path / "network.npz")
    assert time.process_time() - started < 1.0


def test_the_bundled_network_says_what_it_is():
    model = load_checkpoint("fashion-mnist-14")
    assert model.network.shape == (14, 14, 1) and len(model.class_names) == 10
    assert model.metadata["images_seen"] > 0 and len(model.metadata["data"]["sha256"]) == 64
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.denoiser.params))


def test_checkpoints_keep_the_newest_and_refuse_another_network(tmp_path):
    state = {"params": {"w": jnp.arange(3.0)}, "step": jnp.asarray(0, jnp.int32)}
    with TrainingCheckpoints(tmp_path / "c", keep=2) as checkpoints:
        with pytest.raises(InputError, match="there is none"):
            checkpoints.load(state)
        for step in (1, 2, 3):
            later = jax.tree.map(lambda leaf, step=step: leaf + step, state)
            checkpoints.save(step, later)
    assert sorted(entry.name for entry in (tmp_path / "c").iterdir()) == ["2", "3"]
    with TrainingCheckpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.latest_step() == 3
        chex.assert_trees_all_equal(checkpoints.load(state), later)
        wide = {"params": {"w": jnp.arange(4.0)}, "step": state["step"]}
        more = replace_params(state, {"w": state["params"]["w"], "b": jnp.zeros(2)})
        whole = replace_params(state, {"w": jnp.arange(3)})
        for other, name in (
            (wide, r"params.w is float32\[3\] there and float32\[4\] here"),
            (more, "params.b is absent"),
            (whole, "int32"),
        ):
            with pytest.raises(InputError, match=f"not of this network.*{name}"):
                checkpoints.load(other)


def replace_params(state, params):
    return {**state, "params": params}


@pytest.fixture
def steps(tmp_path):
    """A state, and a directory of checkpoints that holds its steps 1 and 2."""
    rng = np.random.default_rng(0)
    state = {"params": {"w": jnp.asarray(rng.normal(size=(32, 32)), jnp.float32)}, "step": jnp.asarray(0, jnp.int32)}
    with TrainingCheckpoints(tmp_path / "c", about={"seed": 1, "data": {"sha256": "a"}}) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state)
    return state, tmp_path / "c"


def test_no_damage_of_a_checkpoint_goes_unnoticed(steps, capfd):
    """Of each file: a flipped bit, zeros in its place, nothing in it, half of it, and no such file."""
    state, folder = steps
    rng = np.random.default_rng(0)
    for file in sorted(path for path in (folder / "2").rglob("*") if path.is_file()):
        good = file.read_bytes()
        flipped = bytearray(good)
        flipped[rng.integers(len(good))] ^= 1 << rng.integers(8)
        for damaged in (bytes(flipped), bytes(len(good)), b"", good[: len(good) // 2], None):
            if damaged is None and file.name == "checksums.json":
                continue  # As an early version left it.
            file.unlink() if damaged is None else file.write_bytes(damaged)
            with pytest.raises(InputError) as error:
                TrainingCheckpoints(folder)
            assert str(folder / "2") in str(error.value) and "remove this folder" in str(error.value)
            file.write_bytes(good)
    with TrainingCheckpoints(folder) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.load(state), state)
    assert capfd.readouterr().err == ""  # Orbax was not asked, and did not complain.


def test_a_step_that_a_kill_left_half_deleted_or_without_checksums_stops_nothing(steps):
    state, folder = steps
    next(path for path in (folder / "1").rglob("*") if path.is_file()).unlink()
    (folder / "2/checksums.json").unlink()
    with TrainingCheckpoints(folder) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.load(state), state)
        checkpoints.save(3, state)
    assert (folder / "3/checksums.json").exists()


def test_a_checkpoint_of_another_training_is_refused(steps):
    state, folder = steps
    for about, words in (
        ({"seed": 1, "data": {"sha256": "b"}}, "data.sha256 is 'a' there and 'b' here"),
        ({"seed": 2, "data": {"sha256": "a"}}, "seed is 1 there and 2 here"),
    ):
        with TrainingCheckpoints(folder, about=about) as checkpoints, pytest.raises(InputError, match=words):
            checkpoints.load(state)


def test_a_checkpoint_that_cannot_be_written_is_one_line(steps, monkeypatch):
    """A full disk, and a directory that was removed, which is not made anew."""
    import errno
    import shutil

    state, folder = steps
    with TrainingCheckpoints(folder) as checkpoints:

        def full(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with (
            monkeypatch.context() as patch,
            pytest.raises(InputError, match=r"^checkpoint .*3: .*No space left") as error,
        ):
            patch.setattr(checkpoints._checkpointer, "save", full)
            checkpoints.save(3, state)
        assert "\n" not in str(error.value)
        shutil.rmtree(folder)
        with pytest.raises(InputError, match="cannot be written"):
            checkpoints.save(3, state)
    assert not folder.exists()


def test_a_file_in_the_place_of_the_checkpoints_is_found_before_the_training(tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    with pytest.raises(InputError, match=r"checkpoints: is no folder; must be"):
        TrainingCheckpoints(tmp_path / "checkpoints")
