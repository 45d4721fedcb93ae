"""Studies in the declared form: options with bounds, claims judged from estimates, parts that keep their
declarations.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from dgu.core.errors import InputError
from experiments import study
from experiments.study import (
    Claim,
    Cost,
    Figure,
    Findings,
    Noted,
    NotTested,
    all_of,
    at_least,
    at_most,
    different,
    each,
    equivalent,
    option,
    within,
)
from experiments.study.claims import judge


@dataclass(frozen=True)
class Draws(study.Options, prefix="draws"):
    """Random draws."""

    count: int = option(20, ge=2)
    """Draws."""
    least: int = option(2, ge=1, le="count")
    """Draws that must be positive."""
    scale: float = option(1.0, gt=0.0, may_be_infinite=True)
    """Scale."""
    share: float | None = option(None, gt=0.0, lt=1.0)
    """Share."""
    sizes: tuple[int, ...] = option((1, 2), ge=1)
    """Sizes."""
    width: int | None = option(None, ge=3)
    """Width."""

    def check(self):
        if self.count == 13:
            raise InputError("draws.count = 13: must be lucky")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"count": 1}, "draws.count = 1: must be 2 or more"),
        ({"count": 2**40}, "at most 2147483647"),
        ({"least": 0}, r"draws.least = 0: must be in \[1, 20\]"),
        ({"count": 4, "least": 5}, r"draws.least = 5: must be in \[1, 4\] \(draws.count is 4\)$"),
        ({"scale": 0.0}, "draws.scale = 0.0"),
        ({"scale": math.nan}, "draws.scale = nan"),
        ({"share": 1.0}, "draws.share = 1.0: must be above 0 and below 1, or None"),
        ({"sizes": (1, 0)}, "draws.sizes"),
        ({"width": 2}, "draws.width = 2: must be 3 or more, or None"),
        ({"count": 13}, "draws.count = 13: must be lucky"),
    ],
)
def test_each_bound_of_an_option_is_checked_when_it_is_made(given, line):
    with pytest.raises(InputError, match=line):
        Draws(**given)


def test_options_within_their_bounds_are_taken():
    made = Draws(count=2, least=2, scale=math.inf, share=0.5, sizes=(), width=None)
    assert made.scale == math.inf and made.least == 2


NARROW = Estimate(1.0, 0.9, 1.1)


@pytest.mark.parametrize(
    ("test", "verdict"),
    [
        (at_least(0.9), "supported"),
        (at_least(1.0), "undecided"),
        (at_least(1.2), "not supported"),
        (at_most(1.1), "supported"),
        (within(0.5, 1.2), "supported"),
        (within(1.2, 2.0), "not supported"),
        (equivalent(1.2), "supported"),
        (equivalent(0.5), "not supported"),
        (different(), "supported"),
        (different(2.0), "not supported"),
        (at_least(lambda estimate: estimate.low), "supported"),
    ],
)
def test_the_test_of_a_claim_decides_by_the_interval(test, verdict):
    judged = judge(Claim("a", "A value.", test, source="Fig 1", unit="points"), NARROW, "molrg")
    assert (judged.verdict, judged.paper, judged.figure, judged.unit) == (verdict, "molrg", "Fig 1", "points")
    assert (judged.value, judged.interval) == (1.0, (0.9, 1.1))


def test_a_large_standard_error_leaves_a_claim_undecided():
    test = at_least(0.0, max_standard_error=0.5)
    small, large = (judge(Claim("a", "A.", test), normal_estimate(9.0, error), "own") for error in (0.4, 0.6))
    assert (small.verdict, large.verdict) == ("supported", "undecided")
    assert large.interval == pytest.approx((9 - 1.959963984540054 * 0.6, 9 + 1.959963984540054 * 0.6), rel=1e-12)


def test_exact_values_decide_without_width_and_others_do_not():
    claim = Claim("a", "A.", at_least(1.0))
    assert judge(claim, exactly(1.0), "own").verdict == "supported"
    assert judge(claim, Estimate(1.0, 1.0, 1.0), "own").verdict == "undecided"


def test_joint_claims_are_as_good_as_their_worst_part():
    every = Claim("every", "All are large.", each(at_least(0.0)), unit="points")
    good, bad = Estimate(1.0, 0.5, 1.5), Estimate(-1.0, -1.5, -0.5)
    assert judge(every, {"x": good, "y": good}, "own").verdict == "supported"
    judged = judge(every, {"x": good, "y": bad}, "own")
    assert judged.verdict == "not supported" and judged.value == -1.0 and judged.unit == "points"
    assert [part.id for part in judged.parts] == ["every-x", "every-y"]
    both = Claim("both", "Both.", all_of(Claim("p", "P.", at_least(0.0)), Claim("q", "Q.", at_most(0.0))))
    assert judge(both, {"p": good, "q": bad}, "own").verdict == "supported"
    assert judge(both, {"p": good, "q": NotTested("no network")}, "own").verdict == "not applicable"
    with pytest.raises(ValueError, match="must be"):
        judge(both, {"p": good}, "own")


def test_notes_add_up_and_what_was_not_tested_says_why():
    claim = Claim("a", "A.", at_least(0.0), note="The threshold was changed after the data were seen.")
    assert judge(claim, Noted(NARROW, "Three seeds."), "own").note == f"{claim.note} Three seeds."
    judged = judge(claim, NotTested("four epochs train nothing"), "own")
    assert judged.verdict == "not applicable" and judged.note == "four epochs train nothing"


@pytest.mark.parametrize("wrong", [{"x": NARROW}, 3.0])
def test_what_is_measured_must_fit_the_claim(wrong):
    with pytest.raises((TypeError, AttributeError)):
        judge(Claim("a", "A.", at_least(0.0)), wrong, "own")
    with pytest.raises(TypeError, match="joint"):
        judge(Claim("a", "A.", each(at_least(0.0))), NARROW, "own")


# --- a whole study ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared(study.Options):
    """A study of draws."""

    offset: float = 0.0
    """Added to every draw."""
    seed: int = option(0, ge=0)
    """Seed."""


def drawn():
    from matplotlib.figure import Figure as Drawing

    figure = Drawing(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    return figure


def make(computed, *, findings=None, skips=lambda config, subject: ""):
    def draw(config, offset, key):
        computed.append(config.count)
        return {"x": offset + np.arange(config.count, dtype=float)}

    def report(config, offset, found):
        whole = Findings(
            f"{len(found['x'])} draws.",
            claims={"mean": Noted(normal_estimate(float(found["x"].mean()), 0.1), "A note.")},
            figures={"draws": (drawn(), "Made today.")},
            metrics={"mean": found["x"].mean()},
        )
        return whole if findings is None else findings(whole)

    part = study.Part(
        name="draws",
        title="Draws",
        question="What is the mean?",
        paper="own",
        presets={name: Draws(count=4) for name in ("smoke", "default", "paper")},
        claims=lambda config: (Claim("mean", f"The mean of {config.count} draws is positive.", at_least(0.0)),),
        figures=(Figure("draws", "All draws."),),
        measure=lambda config, offset, run: run.stage("draw", draw, config, offset, run.key),
        report=report,
        costs=lambda config, plan: [Cost("draws", config.count)],
        skips=skips,
    )
    return study.Study(
        "toy", "Toy", "What are draws like?", Shared, (part,), gather=lambda config, directory: config.offset,
        renamed={"--count": "--draws.count"}, terms={"draw <x>": "a whole number."},
    )  # fmt: skip


def test_a_study_runs_resumes_and_reports_again(tmp_path, capsys):
    computed: list[int] = []
    out = str(tmp_path / "run")
    claims = make(computed).main(["--preset", "smoke", "--draws.count", "5", "--out", out])
    assert [(claim.id, claim.statement, claim.verdict) for claim in claims] == [
        ("mean", "The mean of 5 draws is positive.", "supported")
    ]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == {"draws": {"mean": 2.0}}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Draws. All draws. Made today." in page and "5 draws." in page and "A note." in page
    assert page.index("<dt>draw &lt;x&gt;</dt><dd>a whole number.</dd>") < page.index(
        "The mean of 5 draws is positive."
    )
    assert computed == [5]
    # Killed after the stage: only the report is made again.
    for name in ("report.html", "claims.json"):
        (tmp_path / "run" / name).unlink()
    assert make(computed).main(["--preset", "smoke", "--draws.count", "5", "--out", out]) == claims
    assert computed == [5]
    # A new wording needs no new measurement.
    (tmp_path / "run" / "figures" / "draws.png").unlink()
    again = make(
        computed, findings=lambda whole: Findings("In other words.", whole.claims, whole.figures, (), whole.metrics)
    )
    again.main(["--preset", "smoke", "--draws.count", "5", "--out", out, "--report-only"])
    assert computed == [5] and "In other words." in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "figures" / "draws.png").exists()
    capsys.readouterr()


@pytest.mark.parametrize("left", [(), ("config.json",)])
def test_reports_are_made_again_only_of_finished_runs(tmp_path, capsys, left):
    computed: list[int] = []
    out = tmp_path / "run"
    if left:
        make(computed).main(["--preset", "smoke", "--out", str(out)])
        (out / "report.html").unlink()
    with pytest.raises(SystemExit) as end:
        make(computed).main(["--preset", "smoke", "--out", str(out), "--report-only"])
    assert end.value.code == 2 and "must be the directory of a finished run" in capsys.readouterr().err
    assert out.exists() == bool(left)


def test_a_missing_stage_is_not_measured_for_a_report(tmp_path, capsys):
    computed: list[int] = []
    out = tmp_path / "run"
    make(computed).main(["--preset", "smoke", "--out", str(out)])
    (out / "stages" / "draws" / "draw.npz").unlink()
    with pytest.raises(SystemExit) as end:
        make(computed).main(["--preset", "smoke", "--out", str(out), "--report-only"])
    assert end.value.code == 2 and "draw.npz: is missing" in capsys.readouterr().err and computed == [4]


def test_a_renamed_option_is_refused_with_its_new_name(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        make([]).main(["--count", "5", "--out", str(tmp_path / "run")])
    assert end.value.code == 2 and "--count: is called --draws.count now" in capsys.readouterr().err


def test_options_of_parts_and_of_the_study_are_checked(tmp_path, capsys):
    for arguments, line in (
        (["--draws.count", "1"], "--draws.count = 1: must be 2 or more"),
        (["--parts", "draws", "draws"], "--parts"),
        (["--seed", "-1"], "--seed = -1"),
    ):
        with pytest.raises(SystemExit) as end:
            make([]).main([*arguments, "--out", str(tmp_path / "run")])
        assert end.value.code == 2 and line in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_part_that_skips_its_subject_says_so(tmp_path, capsys):
    computed: list[int] = []
    claims = make(computed, skips=lambda config, offset: "it requires a network").main(["--out", str(tmp_path / "run")])
    assert claims == () and computed == []
    assert "Skipped draws: it requires a network." in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()


@pytest.mark.parametrize("what", ["claims", "figures"])
def test_findings_are_those_declared(tmp_path, what):
    def fewer(whole):
        return Findings(
            whole.answer, **{name: {} if name == what else getattr(whole, name) for name in ("claims", "figures")}
        )

    with pytest.raises(RuntimeError, match=f"the part draws: its {what} differ"):
        make([], findings=fewer).main(["--out", str(tmp_path / "run")])


def test_a_dry_run_measures_nothing(capsys):
    computed: list[int] = []
    assert make(computed).main(["--dry-run"]) == () and computed == []
    assert "draws" in capsys.readouterr().out
