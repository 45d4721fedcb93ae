"""Several processes on one machine do what one process does."""

import json
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dgu.analysis import GaussianMixtureSampler
from dgu.analysis.universality.arms import gaussian_arms
from dgu.core import parallel
from dgu.core.errors import InputError
from dgu.data import SampleStore
from tests import two_processes
from tests.experiments.universality_study import ROOT, environment

_NUMBER = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_together(command, count=2, devices=2, timeout=240):
    """The outputs of ``count`` processes of one cluster on the loopback interface."""
    port = free_port()
    running = []
    for number in range(count):
        cluster = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(number),
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_PLATFORMS": "cpu",
            "PJRT_NPROC": "8",  # threads: with no more than devices, programs that wait for each other can hold them all
        }
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment() | cluster,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    done = [process.communicate(timeout=timeout) for process in running]
    assert [process.returncode for process in running] == [0] * count, done
    return done


@pytest.mark.slow
def test_two_processes_sample_and_train_like_one(tmp_path):
    outputs = run_together(["tests.two_processes", str(tmp_path)])
    assert [out.split()[-4:] for out, _ in outputs] == [["0", "2", "4", "2"], ["1", "2", "4", "2"]]
    together = SampleStore.existing(tmp_path / "samples")
    alone = two_processes.fill(tmp_path / "alone")
    for label in two_processes.LABELS:
        np.testing.assert_array_equal(together.read(label, two_processes.COUNT), alone.read(label, two_processes.COUNT))
    expected = two_processes.trained()
    with np.load(tmp_path / "trained.npz") as arrays:
        assert set(arrays.files) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(arrays[name], value, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_two_processes_run_one_experiment(tmp_path):
    """The lead alone prints and writes; all take part; the result is that of one process."""
    command = ["experiments.train", "--preset", "smoke", "--out"]
    outputs = run_together([*command, str(tmp_path / "two")], devices=1)
    assert "report: " in outputs[0][0] and "preset" in outputs[0][0] and "preset" not in outputs[1][0]
    alone = [sys.executable, "-m", *command, str(tmp_path / "one")]
    subprocess.run(alone, cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=240)
    with np.load(tmp_path / "one" / "network.npz") as one, np.load(tmp_path / "two" / "network.npz") as two:
        for name in set(one.files) - {"metadata"}:
            np.testing.assert_allclose(two[name], one[name], atol=2e-5, err_msg=name)  # eight steps of Adam


def test_processes_share_out_every_shard_once(tmp_path):
    made = []
    for index in (1, 0, 2):
        store = SampleStore.open(tmp_path, {}, (2,), shard_size=4)

        def make(labels, indices):
            made.extend(zip(labels.tolist(), indices.tolist()))
            return np.stack([labels, indices], axis=1).astype(np.float32)

        store.fill(make, (5, 2), 10, process=(index, 3))
    assert sorted(made) == [(label, number) for label in (2, 5) for number in range(10)]
    np.testing.assert_array_equal(store.read(5, 10)[:, 1], np.arange(10))
    with pytest.raises(InputError, match=r"process = \(3, 3\): must be"):
        store.fill(make, (5,), 1, process=(3, 3))


def test_put_keeps_what_is_in_place_and_splits_the_rest():
    mesh = parallel.data_mesh()
    everywhere, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    rows = np.arange(16.0).reshape(8, 2)
    placed = parallel.put({"a": rows}, split)["a"]
    np.testing.assert_array_equal(placed, rows)
    assert placed.sharding == split and placed.addressable_shards[1].data.shape == (4, 2)
    assert parallel.put(placed, split) is placed
    np.testing.assert_array_equal(parallel.put(placed, everywhere).addressable_shards[1].data, rows)


@pytest.mark.parametrize("missing", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_a_coordinator_needs_numbers(monkeypatch, missing):
    for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(missing, "two")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=f"{missing} = 'two': must be a whole number"):
        parallel.initialize()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"JAX_PROCESS_ID": "5"}, "JAX_PROCESS_ID = 5: must be below JAX_NUM_PROCESSES = 2"),
        ({"JAX_NUM_PROCESSES": "0"}, "JAX_PROCESS_ID = 1: must be below JAX_NUM_PROCESSES = 0"),
        ({"JAX_PROCESS_ID": "9" * 5000}, "JAX_PROCESS_ID = '99+ .*: must be a whole number"),
        ({"JAX_COORDINATOR_ADDRESS": "127.0.0.1"}, "JAX_COORDINATOR_ADDRESS = '127.0.0.1': must be host:port"),
        (
            {"JAX_COORDINATOR_ADDRESS": None, "SLURM_STEP_NUM_TASKS": "two"},
            "SLURM_STEP_NUM_TASKS = 'two': must be a whole",
        ),
        ({"JAX_COORDINATOR_ADDRESS": None, "OMPI_COMM_WORLD_SIZE": ""}, "OMPI_COMM_WORLD_SIZE = '': must be a whole"),
    ],
)
def test_processes_that_cannot_be_are_named(monkeypatch, given, words):
    usual = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    for name, value in (usual | given).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *about: pytest.fail("joined"))
    with pytest.raises(InputError, match=words):
        parallel.initialize()


def test_a_program_that_cannot_join_the_others_says_so_in_one_line():
    command = [sys.executable, "-m", "experiments.molrg", "--preset", "smoke"]
    own = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(command, cwd=ROOT, env=environment() | own, capture_output=True, text=True, timeout=120)
    line = "molrg: JAX_NUM_PROCESSES = '': must be a whole number, beside JAX_COORDINATOR_ADDRESS\n"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", line)


def test_one_process_joins_nothing(monkeypatch):
    """Also inside a SLURM allocation of many tasks, as long as this is no step of several."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    parallel.initialize()
    assert not jax.distributed.is_initialized()
    assert parallel.is_lead()
    parallel.barrier("alone")


def differences(one, two, within):
    """Where two values read from JSON differ: numbers by more than ``within`` of the larger of 1 and themselves, texts
    in other places than their numbers.
    """
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return [f"{key}: {found}" for key in one for found in differences(one[key], two[key], within)]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [f"{at}: {found}" for at, pair in enumerate(zip(one, two)) for found in differences(*pair, within)]
    if one == two:
        return []
    if within and isinstance(one, float) and isinstance(two, float) and abs(one - two) <= within * max(1, abs(one)):
        return []
    if within and isinstance(one, str) and isinstance(two, str) and _NUMBER.sub("#", one) == _NUMBER.sub("#", two):
        return []
    return [f"{one!r} and {two!r}"]


def test_differences_are_found():
    one = {"claims": [{"verdict": "supported", "value": 1.0, "text": "at 0.312 of it"}]}
    near = {"claims": [{"verdict": "supported", "value": 1.0009, "text": "at 0.313 of it"}]}
    assert differences(one, one, 0) == [] and differences(one, near, 1e-3) == []
    assert len(differences(one, near, 0)) == 2 and len(differences(one, near, 1e-4)) == 1
    other = {"claims": [{"verdict": "undecided", "value": 1.0, "text": "at 0.312 of them"}]}
    assert len(differences(one, other, 1.0)) == 2 and len(differences(one, {"claims": []}, 1.0)) == 1


def same_report(tmp_path, module, *options, devices=4, within=0.0):
    """The claims and metrics of a study run by two processes are those of one, up to ``differences``."""
    command = [f"experiments.{module}", "--preset", "smoke", *options, "--out"]
    run_together([*command, str(tmp_path / "two")], devices=devices, timeout=1500)
    alone = [sys.executable, "-m", *command, str(tmp_path / "one")]
    own = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "PJRT_NPROC": "8"}
    subprocess.run(alone, cwd=ROOT, env=environment() | own, check=True, capture_output=True, timeout=1500)
    for name in ("claims.json", "metrics.json"):
        one, two = (json.loads((tmp_path / which / name).read_text()) for which in ("one", "two"))
        assert differences(one, two, within) == [], name


def test_two_processes_find_the_claims_of_one(tmp_path):
    """Of the cheapest part of all studies."""
    same_report(tmp_path, "generalization", "--parts", "capacity", devices=1)


def test_two_processes_recover_what_one_does(tmp_path):
    """What is spread over the devices of a process stays within it: the other's cannot be read."""
    run_together(["tests.two_processes", str(tmp_path), "recover"])
    alone = two_processes.recovered()
    assert alone[0].any() and not alone[0].all()
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as arrays:
            for found, expected in zip(arrays.values(), alone, strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_two_processes_find_the_claims_of_one_device_each(tmp_path):
    """Of the study whose work is spread over all devices of a process, as small as it can be."""
    least = {"dimension": 12, "trials": 1, "bound-trials": 10, "sgd-trials": 1, "steps": 3, "samples": 50}
    options = [part for name, value in least.items() for part in (f"--phase.{name}", str(value))]
    same_report(tmp_path, "molrg", "--parts", "phase", *options, devices=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["universality", "concentration", "audit", "hidden_gaussian", "generalization", "molrg", "explain"]
)
def test_two_processes_find_the_claims_of_one_in_every_study(tmp_path, module):
    # Eight devices add up the gradients of a batch in another order than four: the second network of this study is
    # trained by all of them.
    same_report(tmp_path, module, within=1e-2 if module == "explain" else 0.0)


def test_an_array_over_a_mesh_comes_to_one_device():
    rows = np.random.default_rng(0).normal(size=(8, 12, 6)).astype(np.float32)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(kind,))
        split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
        found = gaussian_arms(split, jax.random.key(0), 5, low_rank=4)
        for name, expected in gaussian_arms(rows, jax.random.key(0), 5, low_rank=4).items():
            np.testing.assert_array_equal(found[name], expected)
        images, labels = rows.reshape(96, 6), np.repeat([0, 1], 48)
        flat = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
        for one, two in zip(*(GaussianMixtureSampler.fit(x, labels).gaussians for x in (images, flat))):
            np.testing.assert_array_equal(one.root, two.root)
