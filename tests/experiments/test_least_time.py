"""What a dry run says of time: the FLOP at a given rate, in words, as a lower bound."""

import dataclasses

import jax
import pytest

from experiments.study import least_time
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0123, "0.012 seconds"),
        (0, "0 seconds"),
        (89.4, "89 seconds"),
        (90, "1.5 minutes"),
        (462, "7.7 minutes"),
        (5399, "90 minutes"),
        (5400, "1.5 hours"),
        (2.5 * 86400, "2.5 days"),
        (730 * 86400, "730 days"),
        (3 * 31557600, "3 years"),
        (45678 * 31557600, "46,000 years"),
    ],
)
def test_times_in_words(seconds, words):
    assert least_time.in_words(seconds) == words


@pytest.mark.parametrize(
    ("devices", "time", "speed"), [(1, "3 minutes", "100 GFLOP/s"), (8, "22 seconds", "800 GFLOP/s")]
)
def test_the_least_time_is_all_flop_at_the_rate_of_all_devices(devices, time, speed):
    costs = [Cost("sampling", 10, 15.4e12, 1e9), Cost("classifiers", 0, 2.6e12, 1e9)]
    text = " ".join(least_time.least_time(costs, 1e11, devices).split())
    assert text.startswith(f"time: at least about {time} on this machine. This is a lower bound, not a prediction")
    assert f"at the {speed} that large matrix products reach here" in text
    assert f"on {devices} device{'s' * (devices > 1)};" in text


def test_the_rate_is_the_fastest_product_and_matrices_grow_until_one_takes_long(monkeypatch):
    taken = {1024: 0.02, 2048: 0.1, 4096: 1e-9}
    seen = []

    def seconds(function, matrix):
        assert matrix.dtype == "float32" and matrix.shape[0] == matrix.shape[1]
        seen.append(matrix.shape[0])
        return taken[matrix.shape[0]]

    monkeypatch.setattr(least_time, "_seconds", seconds)
    assert jax.default_backend() == "cpu"
    assert least_time.matmul_rate() == 2 * 2048**3 / 0.1
    assert seen == [1024, 2048]  # 0.1 seconds are enough.
    taken[1024] = 0.01
    assert least_time.matmul_rate() == 2 * 1024**3 / 0.01
    assert least_time.matmul_rate(shortest=0.01) == 2 * 1024**3 / 0.01 and seen[-1] == 1024


@dataclasses.dataclass(frozen=True)
class Config:
    """No options."""


def test_a_dry_run_tells_it_below_its_table(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # 1e11 FLOP a second on each device (see conftest.py).
    cost = Cost("walk", 1, 1e11 * 600 * jax.device_count())
    run_experiment({"default": Config()}, pytest.fail, name="walk", dry_run=lambda config: [cost], argv=["--dry-run"])
    out = " ".join(capsys.readouterr().out.split())
    assert out.index("FLOP memory a device of the host disk") < out.index(
        "time: at least about 10 minutes on this machine."
    )
