"""The study of generalisation in training time: it runs, keeps its promises, resumes, and refuses bad input; claims can fail."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from dgu.core.errors import InputError
from dgu.models import two_modes
from experiments import generalization
from experiments.generalization_parts import boxes, capacity, common, shift, stopping, three_ways
from experiments.generalization_parts.config import Config
from experiments.study.command_line import run_experiment
from tests.experiments.statements import check_statements, exact_claims

pytestmark = pytest.mark.usefixtures("hasty_compiler")


def study(*argv, run=generalization.run):
    """The command in this process."""
    return run_experiment(
        generalization.PRESETS,
        run,
        name="generalization",
        dry_run=generalization.dry_run,
        argv=[str(argument) for argument in argv],
    )


def promised(name):
    """``CLAIM_IDS`` or ``FIGURE_FILES`` of the parts that are made unless others are asked for."""
    return tuple(entry for part in generalization.parts_of(Config()) for entry in getattr(part, name))


def forbidden(config, directory):
    raise AssertionError("a finished run must not run again")


def test_smoke_end_to_end(tmp_path, capsys):
    claims = study("--preset", "smoke", "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    stored = json.loads((tmp_path / "claims.json").read_text())
    assert tuple(claim["id"] for claim in stored) == promised("CLAIM_IDS") and set(metrics["claims"]) == set(
        promised("CLAIM_IDS")
    )
    for file in promised("FIGURE_FILES"):
        assert (tmp_path / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == len(promised("FIGURE_FILES"))
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}
    by_id = {claim.id: claim for claim in claims}
    # What needs no training holds at any size; four epochs of a hundred examples cannot test what needs it.
    assert by_id["bound-time"].verdict == by_id["bound-value"].verdict == "supported"
    assert by_id["kl-floor"].verdict == by_id["flow-lemmas"].verdict == "supported"
    # A hundred examples are too few to tell whether estimates agree.
    assert by_id["kl-ways-exact"].verdict == "undecided"
    assert exact_claims(tmp_path) == {"bound-time", "bound-value", "flow-lemmas", "kl-floor"}
    assert by_id["flow-u-shape"].verdict != "not applicable"
    trained = [name for name in by_id if not name.startswith(("bound-", "flow-", "kl-"))]
    assert {by_id[name].verdict for name in trained} == {"not applicable"}
    assert "4 epochs train no network" in by_id["sgd-learns"].note
    assert "800 epochs of 100 examples" in by_id["sgd-learns"].statement
    check_statements(tmp_path, Config())
    capsys.readouterr()
    assert study("--preset", "smoke", "--out", tmp_path, run=forbidden) == claims
    assert "already finished" in capsys.readouterr().out


def learning(config):
    """Claims on what is learned, of made-up curves that fall from 1 to 0.05 within half of the training."""
    epochs = np.linspace(0, config.epochs, config.evaluations + 1)
    fall = np.maximum(1 - 1.9 * epochs / config.epochs, 0.05)
    kl = fall * np.linspace(0.9, 1.1, config.seeds)[:, None]
    found = {"kl": kl, "epochs": epochs}
    return stopping._learning(config, found, found)


@pytest.mark.parametrize(
    ("options", "words", "why"),
    [
        ({}, "within 800 epochs of 1,100 examples", ""),
        ({"sizes": (70, 300)}, "800 epochs of 300 examples", "trained on 300 examples, fewer than 1,000"),
        ({"epochs": 600}, "800 epochs", "training ended after 600 of 800 epochs"),
        ({"epochs": 50}, "800 epochs", "50 epochs train no network"),
        ({"epochs": 3000, "evaluations": 2}, "800 epochs", "nothing was measured from epoch 400 to 800"),
    ],
)
def test_what_is_learned_is_told_of_the_training_that_was(options, words, why):
    config = Config(**{"epochs": 1230, "evaluations": 10, "seeds": 6, "sizes": (70, 1100)} | options)
    sgd, adam = learning(config)
    assert words in sgd.statement and (sgd.verdict == "not applicable") == bool(why)
    if why:
        assert why in sgd.note and sgd.value is None and adam.verdict == "not applicable"
    else:
        assert f"{max(config.sizes):,} examples" in adam.statement and adam.verdict == "supported"


def test_a_rise_needs_measurements_and_a_rank_correlation_points():
    enough = Config(epochs=1000, evaluations=10, sizes=(100,))
    assert stopping.untested_rise(enough) == ""
    few = stopping.untested_rise(Config(epochs=1000, evaluations=4, sizes=(100,)))
    assert "5 measurements of a curve show no minimum" in few
    assert common.few_ranked((2, 4, 8, 16), "widths") == "" and "over 2 widths" in common.few_ranked((2, 4), "widths")
    # Seeds whose other half chose the end have a rise of 0, all of them: that decides nothing.
    falling = {"kl": np.linspace(1, 0.1, 11) * np.linspace(0.9, 1.1, 6)[:, None], "epochs": np.arange(11) * 100,
               "first_nonfinite": np.full(6, -1)}  # fmt: skip
    claim = stopping._test(enough, falling, "sgd", 100)
    assert (claim.value, claim.interval, claim.verdict) == (0, (0, 0), "undecided")


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
            Config(), "x", [two_modes(3.0)], [common.Grid(-3.0, 3.0)], [0.065], seeds=1, n=2, units=[1], rate=1.0
        )


def test_too_coarse_a_grid_is_refused_before_any_work(tmp_path, capsys):
    """At the command line: one line, exit code 2, nothing left behind."""
    with pytest.raises(SystemExit) as error:
        study("--preset", "smoke", "--shift-points", "5", "--out", tmp_path / "run")
    printed = capsys.readouterr().err.strip().splitlines()
    assert error.value.code == 2 and len(printed) == 1 and "of points enough" in printed[0]
    assert not (tmp_path / "run").exists()


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
    """A curve with a rise is supported, a level one is not, and diverged seeds are left out and counted."""
    t = np.linspace(0, 1, 21)
    noise = 0.01 * np.random.default_rng(0).normal(size=(12, 21))
    about = {"epochs": np.arange(21), "first_nonfinite": np.full(12, -1)}
    risen = stopping._test(Config(), {"kl": np.exp(-8 * t) + 0.5 * t + noise, **about}, "sgd", 100)
    level = stopping._test(Config(), {"kl": np.exp(-40 * t) + noise, **about}, "sgd", 100)
    assert (risen.verdict, level.verdict) == ("supported", "not supported")
    lost = np.exp(-40 * t) + noise
    lost[3, 5:] = np.nan
    about["first_nonfinite"] = np.where(np.arange(12) == 3, 77, -1)
    found = stopping._test(Config(), {"kl": lost, **about}, "sgd", 100)
    assert "1 of 12 runs diverged, at steps 77" in found.note and found.verdict == "not supported"


def test_bootstrap_covers_and_holds_the_value():
    values = np.random.default_rng(0).normal(size=60)
    value, (low, high) = common.bootstrap(common.median, values)
    assert value == np.median(values) and low < value < high and 0.3 < high - low < 1.0
    assert common.bootstrap(common.ratio_of_medians, values, values[:0]) == common.UNKNOWN
    rows = np.random.default_rng(1).normal(size=(5, 7, 4))
    medians = np.median(rows, axis=0)
    expected = [stats.spearmanr([1, 2, 5, 9], row).statistic for row in medians]
    np.testing.assert_allclose(common.trend([1, 2, 5, 9], rows), expected, atol=1e-12)
    assert common.trend([1, 2], np.ones((3, 2))) == 0


class Shelf:
    """A run directory whose stages are given, and that keeps its figures."""

    def __init__(self, stages):
        self.stages, self.figures = stages, {}

    def stage(self, name, compute, *, allow_nonfinite=False):
        return self.stages[name]

    def save_figure(self, name, figure):
        self.figures[name] = figure


def test_runs_that_never_reach_the_goal_are_shown_and_rank_last():
    """Two of three runs of the narrow network never reach .1: its median is "never", a cross says 2; the wide one's is 50."""
    config = Config(widths=(4, 32), capacity_seeds=3, capacity_epochs=100, evaluations=2)
    narrow, wide = [[1.0, 0.9, 0.5]] * 2 + [[1.0, 0.5, 0.05]], [[1.0, 0.1, 0.2], [1.0, 0.3, 0.09], [1.0, 0.01, 0.01]]
    found = {"epochs": np.array([0, 50, 100]), "kl": np.array(narrow + wide)}
    shelf = Shelf({"capacity/32": found})
    section = capacity.run(config, shelf)
    assert [row[4:] for row in section.tables[0].rows] == [("never", 2), ("50", 0)]
    by_id = {claim.id: claim for claim in section.claims}
    assert by_id["capacity-epochs"].verdict == "not applicable" and "over 2 widths" in by_id["capacity-epochs"].note
    # The last 40 % are the measurement at 100 epochs alone: medians .5 and .09.
    np.testing.assert_allclose(by_id["capacity-ratio"].value, 0.5 / 0.09)
    axes = shelf.figures["figures/capacity.png"].axes[1]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [line.get_xydata().tolist() for line in crosses] == [[[4.0, 130.0]]]
    assert [text.get_text() for text in axes.texts] == ["2"]


def test_networks_that_nothing_was_trained_of_have_no_results():
    """Neither claims nor answers tell numbers of networks after 4 epochs; after 1,000 they do."""
    stored = {"values": np.array([[0.001, 0.002, 0.01], [0.1, 0.43, 0.4]]), "errors": np.full((2, 3), 0.01)}
    kl = {"epochs": np.array([0, 500, 1000]), "kl": np.repeat([[1.0, 0.9, 0.57]], 6, axis=0)}
    box = {"kl": np.full(3, 0.57), "error": np.full(3, 0.1), "prior": np.array(0.0)}
    for epochs, told in ((4, False), (1000, True)):
        every = epochs // 2
        kl["epochs"] = np.array([0, every, epochs])
        config = Config(epochs=epochs, capacity_epochs=epochs, box_epochs=epochs, evaluations=2, widths=(4, 32),
                        capacity_seeds=3, box_dimensions=(1, 2), sizes=(100,))  # fmt: skip
        ways = three_ways.run(config, Shelf({"stopping/adam-100": {}, "three-ways": stored}))
        by_id = {claim.id: claim for claim in ways.claims}
        for name in ("kl-same-law", "kl-ways-trained"):
            assert (by_id[name].verdict != "not applicable") == told
        assert by_id["kl-ways-exact"].verdict != "not applicable"
        assert ("+0.330" in ways.answer) == told
        wide = capacity.run(config, Shelf({"capacity/32": kl}))
        both = boxes.run(config, Shelf({"boxes/1": box, "boxes/2": box}))
        for section in (wide, both):
            assert ("0.57" in section.answer) == told == ("train no network" not in section.answer)


def test_places_and_weights_of_modes_are_told_apart():
    """Nine tenths or more of the mass on one mode, at its place: places learned, weights not; and the exact law: both are."""
    grid, mu = common.grid_for(15.0, 151), 15.0
    x = grid.coarse
    one = np.exp(-((x - mu) ** 2) / 2) + 1e-6 * np.exp(-((x + mu) ** 2) / 2)
    both = np.exp(-((x - mu) ** 2) / 2) + np.exp(-((x + mu) ** 2) / 2)
    lost = np.full_like(x, np.nan)
    # Seeds differ a little: values that are all equal decide nothing.
    tilt = np.exp(1e-3 * x)
    # The share of measurements with one heavy mode is the same in both seeds, and so undecided.
    for law, verdicts in (
        (one, ["undecided", "supported", "supported"]),
        (both, ["undecided", "supported", "not supported"]),
    ):
        log_q, other = (np.log(each / each.sum()) for each in (law, law * tilt))
        runs = np.array([[log_q, log_q], [other, other], [log_q, lost]])  # the last has diverged: left out, and said so
        claims = shift._modes(runs, grid, mu)
        assert [claim.verdict for claim in claims] == verdicts and claims[0].note == "2 seeds"
        assert claims[0].value == (law is one)


def test_agreement_needs_small_errors():
    verdicts = [three_ways._agree(*values, "x", "X.").verdict for values in ((0.02, 0.01), (0.1, 0.01), (0.0, 0.2))]
    assert verdicts == ["supported", "not supported", "undecided"]


def test_scores_of_exact_networks_have_slope_and_zero_one():
    """``log q`` of the noisy target itself in place of every network's."""
    config = Config()
    grid, variance = common.grid_for(3.0, config.points), 1 + float(common.SDE.std(config.t_eps)) ** 2
    x = grid.coarse
    q = np.exp(-((x - 3) ** 2) / 2 / variance) + np.exp(-((x + 3) ** 2) / 2 / variance)
    # Seeds differ a little: values that are all equal decide nothing.
    log_q = np.log(q / q.sum()) + 1e-4 * np.arange(5)[:, None, None] * np.stack([x**2 + x])[None]
    found = {(name, n): {"log_q": log_q} for name in common.OPTIMIZERS for n in config.sizes}
    slope, zero, rows, _ = stopping._scores(config, found)
    assert abs(slope.value - 1) < 0.02 and abs(zero.value - 1) < 0.01
    assert slope.verdict == zero.verdict == "supported" and len(rows) == 6
