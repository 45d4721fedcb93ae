"""Independent jobs over devices and hosts: in order, each on its device; errors name them; what is stored is not done
again.
"""

import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core import parallel
from dgu.core.errors import InputError
from tests.core.test_parallel import run_together
from tests.experiments.universality_study import ROOT, environment


def squared(shared, number):
    return {"square": shared * number**2, "device": jnp.zeros(()).device.id}


def test_jobs_come_in_order_from_all_devices_to_the_same_bits():
    shown, shared = [], jnp.linspace(0, 1, 7)
    found = list(parallel.run_jobs(squared, 5, shared, progress=lambda *at: shown.append(at)))
    for number, result in enumerate(found):
        assert list(result) == ["square", "device"] and all(isinstance(part, np.ndarray) for part in result.values())
        np.testing.assert_array_equal(result["square"], np.asarray(shared * number**2))
    assert [int(result["device"]) for result in found] == [0, 1, 0, 1, 0]
    assert shown == [(done, 5) for done in range(1, 6)]
    assert list(parallel.run_jobs(squared, 0, shared)) == []
    # From a later one on.
    later = list(parallel.run_jobs(squared, 5, shared, first=3))
    np.testing.assert_array_equal([one["square"][-1] for one in later], [9, 16])


def test_jobs_run_at_the_same_time_in_the_precision_of_the_caller():
    both = threading.Barrier(2, timeout=30)  # Which one job alone would wait at for ever.

    def job(_, number):
        both.wait()
        return {"wide": jnp.asarray(1 / 3) * 3}

    for wide in (False, True):
        with jax.enable_x64(wide):
            dtypes = {one["wide"].dtype for one in parallel.run_jobs(job, 2)}
            assert dtypes == {np.dtype("float64" if wide else "float32")}


def test_jobs_within_a_job_stay_on_its_device():
    def inner(_, number):
        return {"device": jnp.zeros(()).device.id}

    def outer(_, number):
        assert [len(group) for group in parallel.shares(6)] == [6]
        places = [int(one["device"]) for one in parallel.run_jobs(inner, 3)]
        return {"places": np.array(places), "own": np.array([device.id for device in parallel.own_devices()])}

    for number, found in enumerate(parallel.run_jobs(outer, 2)):
        assert found["places"].tolist() == [number] * 3 and found["own"].tolist() == [number]
    assert parallel.own_devices() == jax.local_devices()
    assert [group.tolist() for group in parallel.shares(5)] == [[0, 1, 2], [3, 4]]
    assert [group.tolist() for group in parallel.shares(1)] == [[0]]


def test_the_first_job_that_fails_is_named_and_no_later_one_begun():
    begun = []

    def job(_, number):
        begun.append(number)
        if number >= 3:
            raise InputError("x = 1: must be 2") if number == 3 else FloatingPointError("never seen")
        return {"number": number}

    jobs = parallel.run_jobs(job, 40, what="level")
    assert [int(next(jobs)["number"]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"^level 3: x = 1: must be 2$"):
        next(jobs)
    assert max(begun) < 8
    with pytest.raises(InputError, match=r"^x = 1: must be 2$"):  # Alone it is not numbered.
        list(parallel.run_jobs(lambda shared, number: job(shared, 3), 1, what="level"))

    def odd(_, number):
        raise KeyError("other")

    with pytest.raises(KeyError) as error:
        list(parallel.run_jobs(odd, 2, what="level"))
    assert error.value.__notes__ == ["(level 0)"]


def test_stored_results_are_not_computed_again():
    store, done = {"a": {"value": np.array(10)}, "b": {"value": np.array(11)}}, []

    def stored(name, compute):
        return store[name] if name in store else store.setdefault(name, compute())

    def job(_, number):
        done.append(number)
        return {"value": np.array(number)}

    def values():
        return [int(one["value"]) for one in parallel.run_stored_jobs(job, "abcde", stored=stored)]

    assert values() == [10, 11, 2, 3, 4] and sorted(done) == [2, 3, 4]
    done.clear()
    assert values() == [10, 11, 2, 3, 4] and done == []
    store.pop("b"), store.pop("d")
    assert values() == [10, 1, 2, 3, 4]


def test_two_processes_share_jobs_and_errors(tmp_path):
    """Results of more than one piece reach both; an error of one is raised by both."""
    out = run_together(["tests.two_processes", str(tmp_path), "jobs"], devices=1)
    with np.load(tmp_path / "0.npz") as lead, np.load(tmp_path / "1.npz") as other:
        for found in (lead, other):
            assert found["order"].tolist() == [0, 10, 20, 30, 40] and found["owners"].tolist() == [0, 1, 0, 1, 0]
            np.testing.assert_array_equal(found["large"], np.arange(3000.0)[None] * np.arange(5)[:, None])
    for said, _ in out:
        assert said.splitlines()[-1] == "InputError level 3: x = 3: must be even"


@pytest.mark.slow
@pytest.mark.parametrize("network", ["skip", "linear"])
def test_eight_devices_do_what_one_does_and_each_its_share(tmp_path, network):
    said = {}
    for devices in (1, 8):
        own = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "PJRT_NPROC": "8"}
        command = [sys.executable, "-m", "tests.spread_work", str(tmp_path / f"{devices}.npz"), network]
        run = subprocess.run(command, cwd=ROOT, env=environment() | own, capture_output=True, text=True, timeout=1200)
        assert run.returncode == 0, run.stderr[-2000:]
        said[devices] = dict(line.split(";", 1) for line in run.stdout.splitlines())
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "8.npz") as eight:
        assert set(one.files) == set(eight.files)
        for name in one.files:
            scale = 1e-6 * max(1.0, float(np.abs(one[name]).max()))
            np.testing.assert_allclose(eight[name], one[name], atol=scale, err_msg=name)
    assert {line.split(":")[0] for line in said[1].values()} == {"here"}
    for kind, line in said[8].items():
        counts = dict(part.rsplit(":", 1) for part in line.split(";"))
        assert len(set(counts) - {"here"}) == 8, (kind, counts)


def test_with_one_device_nothing_is_started():
    program = (
        "import threading; from dgu.core import parallel;"
        "print([int(one['n']) for one in parallel.run_jobs(lambda _, n: {'n': n + threading.active_count()}, 3)])"
    )
    own = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=own, capture_output=True, text=True, timeout=120
    )
    assert found.stdout == "[1, 2, 3]\n", found.stderr
