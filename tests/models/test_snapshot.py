"""EDM snapshots: what a genuine one gives, the converter, and the forms that tensors may take."""

import hashlib
import json
import lzma
import subprocess
import sys
import tracemalloc

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import samplers
from dgu.core.checkpoint import load_arrays
from dgu.core.errors import CheckpointError, InputError
from dgu.models import edm_import, load_checkpoint, load_edm_pickle
from dgu.models.snapshot import read_snapshot
from dgu.models.weights import edm_from_arrays
from tests import parity
from tests.models import networks, snapshots

EXPECTED = parity.load("snapshot_expected.npz")
CONFIG = {
    "precond": "EDMPrecond",
    "kwargs": networks.SMALL
    | {"model_type": "SongUNet", "img_resolution": 4, "model_channels": 4, "attn_resolutions": [], "label_dim": 0}
    | {"embedding_type": "fourier", "channel_mult": [1, 1]},
}


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    """A snapshot that the reference wrote (its source replaced by one that raises)."""
    path = tmp_path_factory.mktemp("snapshot") / "network-snapshot-000001.pkl"
    path.write_bytes(lzma.decompress((parity.FIXTURES / "snapshot.pkl.xz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def arrays():
    return networks.random_arrays(CONFIG)


@jax.jit
def evaluate(denoiser, x, sigma, labels, augment):
    return jax.vmap(lambda x, s, label, a: denoiser.given(label, a)(x, s))(x, sigma, labels, augment)


def inputs(dtype):
    names = ("sigma", "class_labels", "augment_labels")
    return [jnp.asarray(parity.nhwc(EXPECTED["x"]), dtype), *(jnp.asarray(EXPECTED[n], dtype) for n in names)]


WITHOUT = """
import builtins, sys
sys.modules["torch"] = None
import jax, numpy as np
from dgu.models import edm_layers, load_edm_pickle
jax.device_put(np.zeros(3))  # JAX looks for its devices when first used.
before, real = set(sys.modules), builtins.__import__
def known(name, globals=None, locals=None, fromlist=(), level=0):
    if level == 0 and name not in sys.modules:
        raise SystemExit(f"import of {name}")
    return real(name, globals, locals, fromlist, level)
def refuse(*args, **kwargs):
    raise SystemExit("execution")
saved = {name: getattr(builtins, name) for name in ("exec", "eval", "compile", "__import__")}
builtins.__import__ = known
for name in ("exec", "eval", "compile"):
    setattr(builtins, name, refuse)
denoiser = load_edm_pickle(sys.argv[1])
for name, value in saved.items():
    setattr(builtins, name, value)
assert set(sys.modules) == before, set(sys.modules) - before
print(denoiser.network.parameter_count)
"""


def test_loads_without_pytorch_and_without_executing_anything(genuine):
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(genuine)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and int(done.stdout) == 189_603, done.stderr


def test_tensors_and_configuration_of_a_genuine_snapshot(genuine):
    snapshot = read_snapshot(genuine)
    recorded = parity.config(EXPECTED)
    assert snapshot.config["precond"] == recorded["precond"]
    assert {name: snapshot.config["kwargs"][name] for name in recorded["init_kwargs"]} == recorded["init_kwargs"]
    expected = json.loads(str(EXPECTED["tensors"]))
    assert snapshot.arrays.keys() == expected.keys()
    for name, (*shape, total, magnitude, first, last) in expected.items():
        got = snapshot.arrays[name].astype(np.float64)
        assert got.shape == tuple(shape), name
        np.testing.assert_array_equal(
            [got.sum(), np.abs(got).sum(), got.flat[0], got.flat[-1]], [total, magnitude, first, last]
        )
    assert len(snapshot.source_sha256) == 64


def test_outputs_of_a_genuine_snapshot(genuine, x64):
    """Without a label or augmentation labels means zeros, in one program; that none is zeros, other tests show."""
    denoiser = load_edm_pickle(genuine)
    x, sigma, labels, augment = inputs(jnp.float64)
    both, nolabel, noaugment = (
        parity.nchw(evaluate(denoiser, x, sigma, *given))
        for given in ((labels, augment), (0 * labels, augment), (labels, 0 * augment))
    )
    c = denoiser.network.preconditioning.coefficients(sigma)
    skip, out = (np.asarray(values)[:, None, None, None] for values in (c.skip, c.out))
    assert parity.relative((both - skip * EXPECTED["x"]) / out, EXPECTED["F64"]) < 1e-9
    assert parity.relative(both, EXPECTED["D64"]) < 1e-9
    assert parity.relative(nolabel[:2], EXPECTED["D64_nolabel"]) < 1e-9
    assert parity.relative(noaugment[:2], EXPECTED["D64_noaugment"]) < 1e-9


def test_outputs_in_float32(genuine):
    got = evaluate(load_edm_pickle(genuine), *inputs(jnp.float32))
    assert got.dtype == jnp.float32 and parity.relative(parity.nchw(got), EXPECTED["D64"]) < 1e-4


@pytest.mark.slow
def test_a_trajectory_of_a_genuine_snapshot(genuine, x64):
    sigmas = samplers.karras_sigmas(8)
    x = jnp.asarray(parity.nhwc(EXPECTED["heun8:latents"]), jnp.float64) * sigmas[0]
    labels = jnp.asarray(EXPECTED["sampler:class_labels"], jnp.float64)
    run = jax.jit(lambda d, x, labels: jax.vmap(lambda x, label: samplers.heun(d.given(label), x, sigmas))(x, labels))
    assert parity.relative(parity.nchw(run(load_edm_pickle(genuine), x, labels)), EXPECTED["heun8:x64"][-1]) < 1e-8


def test_conversion_keeps_the_network_and_maps_it(genuine, tmp_path, capsys):
    edm_import.main([str(genuine), str(tmp_path / "new" / "edm.npz")])
    assert "edm.npz" in capsys.readouterr().out
    direct, converted = load_checkpoint(genuine), load_checkpoint(tmp_path / "new" / "edm.npz")
    chex.assert_trees_all_equal(direct.denoiser.params, converted.denoiser.params)
    assert direct.network == converted.network and direct.sha256 == converted.sha256
    digest = hashlib.sha256(genuine.read_bytes()).hexdigest()
    for model in (direct, converted):
        assert model.metadata["source"] == {"file": genuine.name, "sha256": digest} and model.class_names == ()
    assert edm_import.convert(genuine, tmp_path) == tmp_path / "network.npz"
    assert load_checkpoint(tmp_path).network == direct.network
    # Loading maps the file: hardly any memory is taken for arrays of 800 kB.
    tracemalloc.start()
    arrays, _ = load_arrays(tmp_path / "network.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250_000 < sum(array.nbytes for array in arrays.values()) / 2
    damaged = bytearray((tmp_path / "network.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "network.npz").write_bytes(damaged)
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_conversion_of_rubbish_leaves_nothing(tmp_path, capsys):
    (tmp_path / "rubbish.pkl").write_bytes(b"\x80\x04N.")
    for source, message in (("rubbish.pkl", "there is no network 'ema'"), ("absent.pkl", "no such file")):
        with pytest.raises(SystemExit) as stop:
            edm_import.main([str(tmp_path / source), str(tmp_path / "out.npz")])
        text = capsys.readouterr().err
        assert stop.value.code == 2 and message in text and text.count("\n") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["rubbish.pkl"]
    with pytest.raises(InputError, match="an EDM snapshot"):
        load_checkpoint(tmp_path / "absent.pkl")


@pytest.mark.parametrize("precond", ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"])
def test_written_snapshots_of_each_class(tmp_path, precond):
    config = CONFIG | {"precond": precond}
    arrays = networks.random_arrays(config)
    (tmp_path / "n.pkl").write_bytes(snapshots.snapshot(config, arrays))
    read = read_snapshot(tmp_path / "n.pkl")
    assert read.config == config and read.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
    chex.assert_trees_all_equal(load_edm_pickle(tmp_path / "n.pkl").params, edm_from_arrays(config, arrays).params)


def test_tensors_in_other_types_and_layouts(tmp_path, arrays):
    rounded = {name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()}
    coarse = {name: (array.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, array in arrays.items()}

    def strided(name, array):
        # Inside a larger storage, transposed, every other element, from an offset.
        wide = np.zeros((*array.T.shape, 2), np.float32)
        wide[..., 1] = array.T
        flat = np.concatenate([np.full(3, np.nan, np.float32), wide.ravel()])
        strides = tuple(s // 4 for s in wide[..., 1].T.strides)
        storage = snapshots.storage(flat)
        return snapshots.parameter(snapshots.tensor(array, offset=4, stride=strides, of=storage))

    def bfloat16(name, array):
        return snapshots.parameter(snapshots.tensor((array.view(np.uint32) >> 16).astype(np.uint16)))

    cases = [
        (arrays, strided),
        (arrays, lambda name, array: snapshots.parameter(snapshots.tensor(array.astype(np.float64)))),
        (rounded, lambda name, array: snapshots.parameter(snapshots.tensor(array.astype(np.float16)))),
        (coarse, bfloat16),
    ]
    for values, make in cases:
        (tmp_path / "n.pkl").write_bytes(snapshots.snapshot(CONFIG, values, make=make))
        params = load_edm_pickle(tmp_path / "n.pkl").params
        chex.assert_trees_all_equal(params["enc"], edm_from_arrays(CONFIG, values).params["enc"])
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "absent.pkl", tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
            load_edm_pickle(path)
