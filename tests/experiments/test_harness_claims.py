"""Verdicts follow from the interval alone, and flip where it crosses a threshold."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.core.errors import InputError
from experiments.study.judged import JudgedClaim, claims_table, read_claims, write_claims
from experiments.study.run_directory import RunDirectory

ABOUT = dict(id="c", paper="own", figure="Fig 0", statement="It holds.", unit="points")
NUMBER = st.floats(-10, 10).map(lambda value: round(value, 2))
MARGIN = st.floats(0.1, 5).map(lambda value: round(value, 2))


def make(kind, low, high, bound, **more):
    bounds = (-bound, bound) if kind == "within" else (bound,)
    return JudgedClaim(value=(low + high) / 2, interval=(low, high), kind=kind, bounds=bounds, **ABOUT | more)


def truth(kind, value, bound):
    """Whether the statement holds for a value that is known exactly."""
    return {
        "equivalent": abs(value) < bound,
        "different": abs(value) > bound,
        "at least": value >= bound,
        "at most": value <= bound,
        "within": -bound <= value <= bound,
    }[kind]


KINDS = ["equivalent", "different", "at least", "at most", "within"]


@pytest.mark.parametrize("kind", KINDS)
@given(low=NUMBER, width=st.floats(0, 8).map(lambda value: round(value, 2)), bound=MARGIN)
@settings(max_examples=200, deadline=None)
def test_verdict_is_unanimous_or_undecided(kind, low, width, bound):
    high = low + width
    corners = {
        low,
        high,
        *(value for value in (-bound, bound, -bound - 1e-9, -bound + 1e-9, bound - 1e-9, bound + 1e-9, 0.0)),
    }
    votes = {truth(kind, value, bound) for value in corners if low <= value <= high}
    expected = "undecided" if len(votes) == 2 else "supported" if votes == {True} else "not supported"
    assert make(kind, low, high, bound, exact=True).verdict == expected
    # Without width an interval decides nothing, unless the value is exact.
    assert make(kind, low, high, bound).verdict == (expected if width else "undecided")


@pytest.mark.parametrize("kind", KINDS)
def test_moving_the_interval_across_the_threshold_flips_the_verdict(kind):
    verdicts = [make(kind, centre - 0.5, centre + 0.5, 2.0).verdict for centre in (0.0, 2.0, 4.0)]
    inside_holds = kind in ("equivalent", "within", "at most")
    expected = ["supported", "undecided", "not supported"]
    assert verdicts == (expected if inside_holds else expected[::-1])


@given(error=st.floats(0.0, 2.0), low=NUMBER)
@settings(max_examples=50, deadline=None)
def test_too_large_a_standard_error_leaves_it_undecided(error, low):
    free = make("equivalent", low, low, 2.5, exact=True)
    held = dataclasses.replace(free, standard_error=error, max_standard_error=0.8)
    assert held.verdict == ("undecided" if error > 0.8 else free.verdict)


def test_all_of_is_as_good_as_its_worst_part():
    good, open_, bad = (make("at least", low, low + 1, 2.0) for low in (3.0, 1.5, 0.0))
    named = {key: value for key, value in ABOUT.items() if key != "unit"}
    assert JudgedClaim.all_of([good, good], **named).verdict == "supported"
    assert JudgedClaim.all_of([good, open_], **named).verdict == "undecided"
    bad = dataclasses.replace(bad, id="bad")
    joined = JudgedClaim.all_of([open_, bad, good], **named, note="A word beforehand.")
    assert joined.verdict == "not supported"
    assert (joined.value, joined.interval) == (bad.value, bad.interval)
    assert joined.note == "A word beforehand. Verdict and value are those of the part bad, one of 3."
    assert JudgedClaim.all_of([bad], **named).note == "Verdict and value are those of the part bad, the only one."


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centre", [0.0, 0.1, -10.94, 4.0])
def test_an_interval_of_rounding_decides_nothing(kind, centre):
    """Seven times 0.1 have a mean and an interval that differ in the last digit."""
    for high in (centre, centre + 3 * abs(centre) * 2.2e-16):
        assert make(kind, centre, high, 2.0).verdict == "undecided"
        assert make(kind, centre, high, 2.0, exact=True).verdict != "undecided"
    assert make(kind, centre - 1e-9, centre + 1e-9, 2.0).verdict != "undecided"


def test_what_was_not_tested_is_neither_supported_nor_undecided():
    named = {key: value for key, value in ABOUT.items() if key != "unit"}
    absent = JudgedClaim.not_applicable(why="four epochs are too few", **(named | {"id": "absent"}))
    assert (absent.verdict, absent.value, absent.interval, absent.measured) == ("not applicable", None, None, "-")
    good, open_, bad = (make("at least", low, low + 1, 2.0) for low in (3.0, 1.5, 0.0))
    joined = JudgedClaim.all_of([good, open_, absent], **named)
    assert joined.verdict == "not applicable" and joined.value is None
    assert "four epochs are too few" in joined.note and "absent" in joined.note
    assert joined.threshold == "all 3 of: at least 2" and JudgedClaim.all_of([absent], **named).threshold.endswith(
        "not tested"
    )
    assert JudgedClaim.all_of([good, bad, absent], **named).verdict == "not supported"
    for claim in (absent, joined):
        assert JudgedClaim.from_json(json.loads(json.dumps(claim.to_json()))) == claim
    text = claims_table([absent, joined, good])
    assert "NOT APPLICABLE" in text and "It holds. (own, Fig 0) Not tested." in text and "four epochs" in text
    assert "3 claims: 1 supported, 0 not supported, 0 undecided, 2 not applicable" in text
    with pytest.raises(ValueError, match="says why"):
        JudgedClaim.not_applicable(why="", **named)
    with pytest.raises(ValueError, match="unless it is not applicable"):
        JudgedClaim(value=None, interval=None, kind="at least", bounds=(1.0,), **ABOUT)


def test_claims_of_an_older_version_are_read_or_refused_in_one_line(tmp_path):
    younger = {"exact", "check", "one_network", "changed", "method", "p_value", "holm"}

    def stored(claim, **changes):
        return {name: value for name, value in claim.to_json().items() if name not in younger} | changes

    wide, narrow = make("at least", 3.0, 4.0, 2.0), make("at least", 3.0, 3.0, 2.0)
    directory = RunDirectory.open(tmp_path / "run", {})
    directory.write_json("claims.json", [stored(wide)])
    assert read_claims(directory) == (wide,)
    without_unit = {name: value for name, value in stored(wide).items() if name != "unit"}
    for entries, why in (
        ([stored(narrow, verdict="supported")], "stored verdict 'supported', but its numbers say 'undecided'"),
        ([without_unit], "unit missing"),
        (["text"], "another type"),
        ([stored(wide, note=["a"])], r"note = \['a'\]: must be text"),
        ([stored(wide, id=[1])], r"id = \[1\]: must be text"),
        ([stored(wide, statement=None)], "statement = None: must be text"),
        ([stored(wide, unit=5)], "unit = 5: must be text"),
        ([stored(wide, exact="x")], "exact = 'x': must be true or false"),
        ([stored(wide, check=1)], "check = 1: must be true or false"),
        ([stored(wide, holm="yes")], "holm = 'yes': must be true, false or null"),
        ([stored(wide, p_value=1.5)], "p_value = 1.5: must be 0 to 1 or null"),
        ([stored(wide, value="3.5")], "value = '3.5': must be a number or null"),
        ([stored(wide, bounds=[])], "cannot be read"),
    ):
        (tmp_path / "run/claims.json").write_text(json.dumps(entries))
        with pytest.raises(InputError, match=why) as error:
            read_claims(directory)
        assert "claims.json" in str(error.value) and "remove it" in str(error.value)


def test_the_verdict_cannot_be_written_by_hand():
    claim = make("equivalent", -1.0, 1.0, 2.5)
    with pytest.raises(TypeError):
        make("equivalent", -9, 9, 1, verdict="supported")
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        claim.verdict = "not supported"
    with pytest.raises(ValueError, match="stored verdict"):
        JudgedClaim.from_json(claim.to_json() | {"verdict": "not supported"})
    with pytest.raises(ValueError, match="stored verdict"):
        JudgedClaim.from_json(claim.to_json() | {"interval": [-1.0, 9.0]})


@pytest.mark.parametrize(
    "wrong",
    [
        dict(value=float("nan")),
        dict(interval=(1, 0)),
        dict(bounds=(-1,)),
        dict(interval=(0, float("inf"))),
        dict(standard_error=0.1),
        dict(kind="larger"),
        dict(kind="within", bounds=(1, 0)),
    ],
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="claim 'c'"):
        dataclasses.replace(make("equivalent", 0, 1, 1), **wrong)


def test_round_trip_through_the_run_directory(tmp_path):
    directory = RunDirectory.open(tmp_path / "run", {})
    more = dict(check=True, one_network=True, changed="it was 3.", method="t", p_value=0.01, holm=True)
    part = make("within", -0.1, 1 / 3, 2.0, **more)
    claims = (part, JudgedClaim.all_of([part], id="all", paper="own", figure="", statement="All."))
    assert read_claims(directory) is None
    write_claims(directory, claims)
    assert read_claims(directory) == claims
    assert [entry["verdict"] for entry in json.loads((tmp_path / "run/claims.json").read_text())] == ["supported"] * 2
    with pytest.raises(ValueError, match="unique"):
        write_claims(directory, [part, part])


def test_table_names_each_claim_with_verdict_numbers_and_bound():
    claims = [make("equivalent", -1.25, 1.5, 2.5), make("at least", 0.0, 1.0, 2.0)]
    text = claims_table(claims, width=70)
    for words in (
        "SUPPORTED",
        "NOT SUPPORTED",
        "0.125 [-1.25, 1.5] points",
        "inside (-2.5, 2.5)",
        "at least 2",
        "own, Fig 0",
    ):
        assert words in text
    assert "2 claims: 1 supported, 1 not supported, 0 undecided" in text and "Checks" not in text


def test_table_lists_checks_of_the_program_apart_and_does_not_count_them():
    sure = make("at most", 0.0, 1.0, 2.0, id="sure", check=True)
    claim = make("at least", 3.0, 4.0, 2.0, p_value=0.004, holm=True, one_network=True, changed="it was 3.")
    text = claims_table([sure, claim])
    claims, checks = text.split("Checks of the program:")
    assert "sure" not in claims and "sure" in checks
    assert "3.5 [3, 4] points (one network)  p 0.004 H" in claims and "Changed after its first run: it was 3." in claims
    assert checks.endswith("1 claim: 1 supported, 0 not supported, 0 undecided, 0 not applicable; 1 check of the "
                           "program: 1 supported, 0 not supported, 0 undecided, 0 not applicable")  # fmt: skip
    assert [make("at least", 3.0, 4.0, 2.0, p_value=p).significance for p in (None, 1e-9, 0.0312)] == [
        "-", "< 0.0001", "0.031"
    ]  # fmt: skip


def test_an_interval_without_width_is_shown_as_none():
    same = make("within", -10.9375, -10.9375, 1)
    assert same.measured.startswith("-10.94 (all alike: no interval)") and same.verdict == "undecided"
    assert "(not an estimate: no interval)" in dataclasses.replace(same, exact=True).measured
