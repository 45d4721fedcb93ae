"""The study of generalisation in training time: it runs, keeps its promises, resumes, and refuses bad input; claims can fail."""

import json
import re

import numpy as np
import pytest

from dgu.errors import InputError
from experiments import generalization
from experiments.generalization_parts import capacity, common, stopping
from experiments.generalization_parts.config import Config
from experiments.harness.cli import run_experiment

pytestmark = pytest.mark.usefixtures("hasty_compiler")


def study(*argv, run=generalization.run):
    """The command in this process."""
    return run_experiment(
        generalization.PRESETS,
        run,
        name="generalization",
        dry_run=generalization.dry_run,
        claim_ids=generalization.CLAIM_IDS,
        figure_files=generalization.FIGURE_FILES,
        argv=[str(argument) for argument in argv],
    )


def forbidden(config, directory):
    raise AssertionError("a finished run must not run again")


def test_smoke_end_to_end(tmp_path, capsys):
    claims = study("--preset", "smoke", "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    stored = json.loads((tmp_path / "claims.json").read_text())
    assert tuple(claim["id"] for claim in stored) == generalization.CLAIM_IDS == tuple(metrics["claims"])
    for file in generalization.FIGURE_FILES:
        assert (tmp_path / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == len(generalization.FIGURE_FILES)
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}
    by_id = {claim.id: claim for claim in claims}
    # What needs no training holds at any size; what needs it does not after four epochs.
    assert by_id["bound-time"].verdict == by_id["bound-value"].verdict == "supported"
    assert by_id["kl-floor"].verdict == by_id["flow-lemmas"].verdict == by_id["kl-ways-exact"].verdict == "supported"
    assert by_id["capacity-wide"].verdict == "not supported" and by_id["adam-learns"].verdict == "not supported"
    capsys.readouterr()
    assert study("--preset", "smoke", "--out", tmp_path, run=forbidden) == claims
    assert "already finished" in capsys.readouterr().out


def test_dry_run_counts_and_runs_nothing(capsys):
    assert study("--dry-run", "--preset", "paper", run=forbidden) == ()
    printed = capsys.readouterr().out
    assert all(
        name in printed for name in ("early stopping", "modes shift", "capacity", "compact targets", "KL three ways")
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t_eps": 1.0}, "t_eps = 1.0: must be strictly between 0 and T = 1"),
        ({"seeds": 3}, "seeds = 3: must be 4 or more"),
        ({"sizes": (300, 100)}, r"sizes = \(300, 100\): must be positive and rising"),
        ({"modes": (1.0, 15.0)}, r"modes = \(1.0, 15.0\): must be 3 and a larger one"),
        ({"epochs": 30}, "epochs = 30: must be a multiple of evaluations = 20"),
        ({"divergence_networks": 30}, "divergence_networks = 30: must be at most seeds = 20"),
    ],
)
def test_bad_input_is_one_line(options, words):
    with pytest.raises(InputError, match=words) as error:
        Config(**options)
    assert "\n" not in str(error.value)


def test_a_grid_that_misses_the_target_is_refused():
    with pytest.raises(InputError, match=r"grid = .* of its mass is outside"):
        common.make_runs(
            Config(), "x", [common_target()], [common.Grid(-3.0, 3.0)], [0.065], seeds=1, n=2, units=[1], rate=1.0
        )


def common_target():
    from dgu.models import two_modes

    return two_modes(3.0)


def test_steps_are_equal_whatever_the_number_of_examples():
    config = Config()
    for n in config.sizes:
        epochs, every = stopping.epochs_of(config, n)
        steps = -(-n // 32) * epochs
        assert abs(steps / 64_000 - 1) < 0.05 and epochs == every * config.evaluations


def test_widths_are_padded_by_a_factor_of_four_at_most_beyond_32():
    found = capacity.groups((2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048))
    assert found[0] == (2, 4, 8, 16, 32) and found[1] == (64, 128, 256) and found[2] == (512, 1024, 2048)


def test_the_rise_claim_follows_the_data():
    """A curve with a rise is supported, a falling one is not, and diverged seeds are left out and counted."""
    t = np.linspace(0, 1, 21)
    noise = 0.01 * np.random.default_rng(0).normal(size=(12, 21))
    about = {"epochs": np.arange(21), "first_nonfinite": np.full(12, -1)}
    risen = stopping._test({"kl": np.exp(-8 * t) + 0.5 * t + noise, **about}, "sgd", 100)
    fallen = stopping._test({"kl": np.exp(-2 * t) + noise, **about}, "sgd", 100)
    assert (risen.verdict, fallen.verdict) == ("supported", "not supported")
    lost = np.exp(-2 * t) + noise
    lost[3, 5:] = np.nan
    about["first_nonfinite"] = np.where(np.arange(12) == 3, 77, -1)
    found = stopping._test({"kl": lost, **about}, "sgd", 100)
    assert "1 of 12 runs diverged, at steps 77" in found.note and found.verdict == "not supported"


def test_bootstrap_covers_and_holds_the_value():
    values = np.random.default_rng(0).normal(size=60)
    value, (low, high) = common.bootstrap(np.median, values)
    assert value == np.median(values) and low < value < high and 0.3 < high - low < 1.0
