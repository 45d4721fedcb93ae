"""The study of generalisation in training time: it runs, resumes, and refuses bad input; claims follow the data."""

import dataclasses
import json
import re

import numpy as np
import pytest

from dgu.analysis import Grid, mode_scores
from dgu.analysis.stats.estimates import normal_estimate
from dgu.core.errors import InputError
from dgu.models import two_modes
from experiments.generalization import (
    STUDY,
    boxes,
    capacity,
    flow,
    monte_carlo,
    shift,
    statistics,
    stopping,
    three_ways,
)
from experiments.generalization.statistics import rise, untested_rise
from experiments.generalization.subject import PAPER, SDE, Arm, Options, Subject, check_grid, grid_for
from experiments.study.claims import NotTested, judge
from tests.experiments.statements import check_statements, exact_claims

PARTS = STUDY.chosen(STUDY.presets["smoke"])


def study(*argv, **changed):
    """The command in this process; ``changed`` are fields of the study."""
    return dataclasses.replace(STUDY, **changed).main([str(argument) for argument in argv])


def forbidden(config, directory):
    raise AssertionError("a finished run must not run again")


def subject(**options):
    """A subject that trains nothing."""
    return Subject(Options(**options), None)


def judged(part, measured, config=None):
    """The claims of a part of which something was measured, by id, with their verdicts."""
    declared = part.declared(part.presets.get("default") if config is None else config)
    return {claim.id: judge(claim, measured[claim.id], part.paper) for claim in declared if claim.id in measured}


@pytest.mark.slow  # `.ci/run` runs the preset itself.
def test_smoke_end_to_end(tmp_path, capsys):
    claims = study("--preset", "smoke", "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    stored = json.loads((tmp_path / "claims.json").read_text())
    smoke = STUDY.presets["smoke"]
    declared = [claim.id for part in PARTS for claim in part.declared(STUDY.options_of(part, smoke))]
    files = [figure.file for part in PARTS for figure in part.figures]
    assert [claim["id"] for claim in stored] == declared and set(metrics) == {part.name for part in PARTS}
    for file in files:
        assert (tmp_path / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == len(files)
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
    assert "4 epochs are too few to train a network" in by_id["sgd-learns"].note
    assert "at epochs 400 to 800" in by_id["sgd-learns"].statement
    check_statements(tmp_path, STUDY.presets["default"])
    capsys.readouterr()
    assert study("--preset", "smoke", "--out", tmp_path, gather=forbidden) == claims
    assert "already finished" in capsys.readouterr().out


def learning(options):
    """Claims on what is learned, of made-up curves that fall from 1 to 0.05 within half of the training."""
    epochs = np.linspace(0, options.epochs, options.evaluations + 1)
    fall = np.maximum(1 - 1.9 * epochs / options.epochs, 0.05)
    kl = fall * np.linspace(0.9, 1.1, options.seeds)[:, None]
    found = {"kl": kl, "epochs": epochs}
    return judged(stopping.PART, stopping.learning(options, found, found))


@pytest.mark.parametrize(
    ("options", "examples", "why"),
    [
        ({}, "1,100 training examples", ""),
        ({"sizes": (70, 300)}, "300 examples", "trained on 300 examples, fewer than 1,000"),
        ({"epochs": 600}, "", "training ended after 600 of 800 epochs"),
        ({"epochs": 50}, "", "50 epochs are too few to train a network"),
        ({"epochs": 3000, "evaluations": 2}, "", "nothing was measured from epoch 400 to 800"),
    ],
)
def test_what_is_learned_is_told_of_the_training_that_was(options, examples, why):
    options = Options(**{"epochs": 1230, "evaluations": 10, "seeds": 6, "sizes": (70, 1100)} | options)
    found = learning(options)
    sgd, adam = found["sgd-learns"], found["adam-learns"]
    assert "at epochs 400 to 800" in sgd.statement and (sgd.verdict == "not applicable") == bool(why)
    if why:
        assert why in sgd.note and sgd.value is None and adam.verdict == "not applicable" and examples in sgd.note
    else:
        assert examples in adam.note and adam.verdict == "supported"
        assert all(examples in part.note for part in sgd.parts)


def early(options, found, optimizer="sgd", n=100):
    """The claim that the KL rises after its minimum, at one training-set size."""
    untested = untested_rise(options.epochs, options.evaluations)
    risen = rise(found["epochs"], found["kl"], found["first_nonfinite"])
    measured = stopping.early_claim(optimizer, n, risen, untested)
    whole = judged(stopping.PART, {f"early-stopping-{optimizer}": {str(n): measured}})[f"early-stopping-{optimizer}"]
    (part,) = whole.parts
    assert part.id == f"early-stopping-{optimizer}-{n}" and f"{n} training examples" in part.statement
    return part


def test_a_rise_needs_measurements_and_a_rank_correlation_points():
    enough = Options(epochs=1000, evaluations=10, sizes=(100,))
    assert untested_rise(1000, 10) == ""
    assert "5 measurements of a curve cannot show a minimum" in untested_rise(1000, 4)
    few_ranked = statistics.few_ranked
    assert few_ranked((2, 4, 8, 16), "widths") == "" and "over 2 widths" in few_ranked((2, 4), "widths")
    # Seeds whose other half chose the end have a rise of 0, all of them: that decides nothing.
    falling = {"kl": np.linspace(1, 0.1, 11) * np.linspace(0.9, 1.1, 6)[:, None], "epochs": np.arange(11) * 100,
               "first_nonfinite": np.full(6, -1)}  # fmt: skip
    claim = early(enough, falling)
    assert (claim.value, claim.interval, claim.verdict) == (0, (0, 0), "undecided")
    assert early(Options(epochs=1000, evaluations=4), falling).verdict == "not applicable"


def test_dry_run_counts_and_runs_nothing(capsys):
    assert study("--dry-run", "--preset", "paper", gather=forbidden) == ()
    printed = capsys.readouterr().out
    assert all(
        name in printed for name in ("early stopping", "modes shift", "capacity", "compact targets", "KL three ways")
    )


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Options, {"t_eps": 1.0}, "t_eps = 1.0: must be above 0 and below 1"),
        (Options, {"seeds": 3}, "seeds = 3: must be 4 or more"),
        (Options, {"sizes": (300, 100)}, r"sizes = \(300, 100\): must be positive and rising"),
        (Options, {"epochs": 30}, "epochs = 30: must be a multiple of evaluations = 20"),
        (shift.Config, {"modes": (1.0, 15.0)}, r"shift.modes = \(1.0, 15.0\): must be 3 and a larger one"),
        (capacity.Config, {"widths": (16,)}, r"capacity.widths = \(16,\): must be 2 or more"),
    ],
)
def test_bad_input_is_one_line(kind, options, words):
    with pytest.raises(InputError, match=words) as error:
        kind(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "options", "words"),
    [
        (three_ways, {"networks": 30}, "three_ways.networks = 30: must be at most seeds = 20"),
        (capacity, {"epochs": 30}, "capacity.epochs = 30: must be a multiple of evaluations = 20"),
        (shift, {"remark_epochs": 30}, "shift.remark_epochs = 30: must be a multiple of evaluations = 20"),
    ],
)
def test_options_of_parts_must_suit_those_they_share(part, options, words):
    with pytest.raises(InputError, match=words):
        part.PART.check(part.Config(**options), subject())


def test_a_grid_that_misses_the_target_is_refused():
    arm = Arm(two_modes(3.0), Grid(-3.0, 3.0), 0.065)
    with pytest.raises(InputError, match=r"points = 51: grid = .* of its mass is outside"):
        check_grid("points", 51, arm)


@pytest.mark.parametrize("option", ["--points", "--shift.points"])
def test_too_coarse_a_grid_is_refused_before_any_work(option, tmp_path, capsys):
    """At the command line: one line, exit code 2, nothing left behind."""
    with pytest.raises(SystemExit) as error:
        study("--preset", "smoke", option, "5", "--out", tmp_path / "run")
    printed = capsys.readouterr().err.strip().splitlines()
    assert error.value.code == 2 and len(printed) == 1 and "of points enough" in printed[0] and option in printed[0]
    assert not (tmp_path / "run").exists()


def test_options_that_moved_are_refused_with_their_new_name(tmp_path, capsys):
    known = {name for part in STUDY.parts if part.presets for name in vars(part.presets["default"])}
    for old, new in STUDY.renamed.items():
        assert new.split(".")[1].replace("-", "_") in known
        with pytest.raises(SystemExit):
            study(old, "1", "--out", tmp_path / "run")
        assert f"{old}: is called {new} now" in capsys.readouterr().err


def test_steps_are_equal_whatever_the_number_of_examples():
    options = Options()
    for n in options.sizes:
        epochs = options.epochs_for(n)
        steps = -(-n // 32) * epochs
        assert abs(steps / 64_000 - 1) < 0.05 and epochs % options.evaluations == 0


def test_widths_are_padded_by_a_factor_of_four_at_most_beyond_32():
    found = capacity.groups((2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048))
    assert found[0] == (2, 4, 8, 16, 32) and found[1] == (64, 128, 256) and found[2] == (512, 1024, 2048)


def test_the_rise_claim_follows_the_data():
    """A curve with a rise is supported, a level one is not, and diverged seeds are left out and counted."""
    t = np.linspace(0, 1, 21)
    noise = 0.01 * np.random.default_rng(0).normal(size=(12, 21))
    about = {"epochs": np.arange(21), "first_nonfinite": np.full(12, -1)}
    risen = early(Options(), {"kl": np.exp(-8 * t) + 0.5 * t + noise, **about})
    level = early(Options(), {"kl": np.exp(-40 * t) + noise, **about})
    assert (risen.verdict, level.verdict) == ("supported", "not supported")
    lost = np.exp(-40 * t) + noise
    lost[3, 5:] = np.nan
    about["first_nonfinite"] = np.where(np.arange(12) == 3, 77, -1)
    found = early(Options(), {"kl": lost, **about})
    assert "1 of 12 runs diverged, at steps 77" in found.note and found.verdict == "not supported"


def test_the_u_shape_of_the_flow_follows_the_data():
    """Curves that rise at the end are supported; level ones with noise are not, though each has a least value."""
    config, t = flow.Config(sizes=(10, 30), seeds=10), np.linspace(0, 1, len(flow.TAUS))
    noise = 0.002 * np.random.default_rng(0).normal(size=(2, 10, len(t)))

    def claim(curve):
        found = {"population": curve + noise, "kl": 1 + noise, "gap": 1 + noise, "lemmas": np.full((2, 10, 2), 0.5),
                 "error": np.ones((4, 10)) / np.array(monte_carlo.FEATURES)[:, None]}  # fmt: skip
        return judged(flow.PART, flow.report(config, None, found).claims, config)["flow-u-shape"]

    risen, level = claim(1 + np.exp(-8 * t) + 0.3 * t), claim(1 + np.exp(-20 * t))
    assert (risen.verdict, level.verdict) == ("supported", "not supported")
    assert {part.verdict for part in level.parts} == {"not supported"} and abs(level.value) < 0.005


def test_statistics_over_seeds():
    """A median of six seeds is between the least and the largest; of fewer, as where others diverged, it has none."""
    values = np.array([1.0, 3.0, 8.0, 5.0, 2.0, 4.0])
    found = statistics.median_over_seeds(values)
    assert (found.value, found.low, found.high) == (3.5, 1.0, 8.0)
    for few in (values[:5], values[:0]):
        found = statistics.median_over_seeds(few)
        assert isinstance(found, NotTested) and f"{len(few)} seeds" in found.reason and "at least 6" in found.reason
    # Three seeds of which one falls.
    rows = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0], [9.0, 3.0, 1.0, 0.0]])
    found = statistics.trend("", [1, 2, 5, 7], rows, "a note")
    assert found.measured.value == pytest.approx(1 / 3) and found.note == "a note"
    assert found.measured.low < 0 < found.measured.high
    assert statistics.trend("why", [1, 2, 5, 7], rows) == NotTested("why")


def test_runs_that_never_reach_the_goal_are_shown_and_rank_last():
    """Four of six runs of the narrow network never reach .1: median "never", a cross says 4; the wide one's is 50."""
    config = capacity.Config(widths=(4, 32), seeds=6, epochs=100)
    narrow = [[1.0, 0.9, 0.5]] * 4 + [[1.0, 0.5, 0.05]] * 2
    wide = [[1.0, 0.1, 0.2], [1.0, 0.3, 0.09], [1.0, 0.01, 0.01]] * 2
    kl = {"epochs": np.array([0, 50, 100]), "kl": np.array(narrow + wide), "first_nonfinite": np.full(12, -1)}
    # With SGD one wide network diverges after its KL of .3 at epoch 50.
    sgd = {**kl, "kl": kl["kl"].copy(), "first_nonfinite": np.where(np.arange(12) == 7, 60, -1)}
    sgd["kl"][7, 2] = np.nan
    found = capacity.report(config, subject(), {"sgd": [sgd], "adam": [kl]})
    rows = found.tables[0].rows
    assert [row[6:] for row in rows if row[0] == "Adam"] == [("never", 4, 0), ("50", 0, 0)]
    assert [row[6:] for row in rows if row[0] == "SGD"] == [("never", 4, 0), ("50", 1, 1)]
    assert "1 of 12 runs diverge, of networks with 32 units or more" in found.answer
    diverged = [line for line in found.figures["capacity"].axes[0].lines if line.get_marker() == "x"]
    assert [line.get_xydata()[0].tolist() for line in diverged] == [[32.0, statistics.WORST]]
    by_id = judged(capacity.PART, found.claims, config)
    assert by_id["capacity-epochs"].verdict == "not applicable" and "over 2 widths" in by_id["capacity-epochs"].note
    # The last 40 % are the measurement at 100 epochs alone: from .05 / .09 and .5 / .2 twice to .05 / .01 and more.
    np.testing.assert_allclose(by_id["capacity-ratio"].value, (0.5 / 0.2 + 0.05 / 0.01) / 2)
    axes = found.figures["capacity"].axes[2]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert {float(y) for line in crosses for y in line.get_ydata()} == {130.0}
    assert [text.get_text() for text in axes.texts] == ["4", "1", "4"]


def test_the_kl_at_an_epoch_is_the_last_one_measured_by_then():
    config = capacity.Config(widths=(4, 8), seeds=2, epochs=2000)
    epochs, kl = np.array([0, 800, 1600, 2000]), np.arange(16.0).reshape(4, 4)
    found = capacity.curves(config, [{"epochs": epochs, "kl": kl, "first_nonfinite": np.full(4, -1)}])
    np.testing.assert_array_equal(found.at_epoch, [[1, 5], [9, 13]])
    np.testing.assert_array_equal(found.late, [[2.5, 6.5], [10.5, 14.5]])


def test_networks_that_nothing_was_trained_of_have_no_results():
    """Neither claims nor answers tell numbers of networks after 4 epochs; after 1,000 they do."""
    stored = {"values": np.array([[0.001, 0.002, 0.01], *[[0.1, 0.43, 0.4]] * 2]), "errors": np.full((3, 3), 0.01)}
    kl = {"kl": np.repeat([[1.0, 0.9, 0.57]], 6, axis=0), "first_nonfinite": np.full(6, -1)}
    box = {"kl": np.full(3, 0.57), "error": np.full(3, 0.1), "prior": np.array(0.0)}
    for epochs, told in ((4, False), (1000, True)):
        kl["epochs"] = np.array([0, epochs // 2, epochs])
        shared = subject(epochs=epochs, evaluations=2, sizes=(100,))
        config = three_ways.Config(networks=2)
        ways = three_ways.report(config, shared, stored)
        by_id = judged(three_ways.PART, ways.claims, config)
        for name in ("kl-same-law", "kl-ways-trained"):
            assert (by_id[name].verdict != "not applicable") == told
        assert by_id["kl-ways-exact"].verdict != "not applicable"
        assert ("+0.330" in ways.answer) == told
        wide = capacity.report(
            capacity.Config(epochs=epochs, widths=(4, 32), seeds=3), shared, {"sgd": [kl], "adam": [kl]}
        )
        both = boxes.report(boxes.Config(epochs=epochs, dimensions=(1, 2)), shared, [box, box])
        for found in (wide, both):
            assert ("0.57" in found.answer) == told == ("too few to train" not in found.answer)


def test_networks_that_diverged_leave_their_estimates_untested():
    """Three are asked for and one was trained: the others are said to be missing."""
    stored = {"values": np.array([[0.001, 0.002, 0.003], [0.1, 0.1, 0.1]]), "errors": np.full((2, 3), 0.001)}
    config = three_ways.Config(networks=3)
    found = three_ways.report(config, subject(), stored)
    claim = judged(three_ways.PART, found.claims, config)["kl-same-law"]
    assert [part.verdict for part in claim.parts] == ["supported", "not applicable", "not applicable"]
    assert claim.verdict == "not applicable" and "diverged" in claim.note


def test_places_and_weights_of_modes_are_told_apart():
    """Nine tenths of the mass on one mode, at its place: places learned, weights not; exact distribution: both are."""
    grid, mu = grid_for(15.0, 151), 15.0
    x = grid.coarse
    one = np.exp(-((x - mu) ** 2) / 2) + 1e-6 * np.exp(-((x + mu) ** 2) / 2)
    both = np.exp(-((x - mu) ** 2) / 2) + np.exp(-((x + mu) ** 2) / 2)
    lost = np.full_like(x, np.nan)
    # Seeds differ a little: values that are all equal decide nothing.
    tilts = np.exp(1e-3 * np.arange(6)[:, None] * x)
    # The share of measurements with one heavy mode is the same in all seeds, and so undecided.
    for density, verdicts in (
        (one, ["undecided", "supported", "supported"]),
        (both, ["undecided", "supported", "not supported"]),
    ):
        log_q = [np.log(each / each.sum()) for each in density * tilts]
        # The last has diverged: left out, and said so.
        runs = np.array([*([one_of, one_of] for one_of in log_q), [log_q[0], lost]])
        claims = list(judged(shift.PART, shift.far_modes(runs, grid, mu)).values())
        assert [claim.verdict for claim in claims] == verdicts and "6 seeds did not diverge." in claims[0].note
        assert claims[0].value == (density is one)
        # With one seed less there is no interval, and no verdict.
        assert {claim.verdict for claim in judged(shift.PART, shift.far_modes(runs[1:], grid, mu)).values()} == {
            "not applicable"
        }


def test_agreement_needs_small_errors():
    claim = three_ways.agreement(0, three_ways.FLOW)
    found = [judge(claim, normal_estimate(*values), PAPER) for values in ((0.02, 0.01), (0.1, 0.01), (0.0, 0.2))]
    assert [each.verdict for each in found] == ["supported", "not supported", "undecided"]


def test_scores_of_exact_networks_have_slope_and_zero_one():
    """``log q`` of the noisy target itself in place of every network's."""
    options = Options()
    grid, variance = grid_for(3.0, options.points), 1 + float(SDE.std(options.t_eps)) ** 2
    x = grid.coarse
    q = np.exp(-((x - 3) ** 2) / 2 / variance) + np.exp(-((x + 3) ** 2) / 2 / variance)
    # Seeds differ a little: values that are all equal decide nothing.
    log_q = np.log(q / q.sum()) + 1e-4 * np.arange(6)[:, None] * (x**2 + x)[None]
    scores = mode_scores(log_q, grid, 3.0, float(SDE.std(options.t_eps)))
    found = judged(stopping.PART, stopping.score_claims(options, scores))
    slope, zero = found["score-slopes"], found["score-intercepts"]
    assert abs(slope.value - 1) < 0.02 and abs(zero.value - 1) < 0.01
    assert slope.verdict == zero.verdict == "supported" and len(scores.slopes) == 6
