"""P values are those of the tests that the intervals stand for; Holm's correction is the closed test of Bonferroni's."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis import equivalence, t_interval
from dgu.analysis.stats.estimates import Estimate, exactly, normal_estimate
from experiments.study import Claim, NotTested, all_of, at_least, at_most, different, each, equivalent, within
from experiments.study.claims import judge
from experiments.study.judged import JudgedClaim
from experiments.study.multiplicity import LEVEL, by_chance, corrected, p_value


def judged(test, estimate, name="a", **more):
    return judge(Claim(name, "A value.", test, **more), estimate, "own")


def test_of_replicates_they_are_those_of_student():
    values = np.random.default_rng(0).normal(0.3, 1.0, 7)
    found = t_interval(values)
    for bound in (-1.0, 0.1, 0.9):
        for kind, side in (("at least", "greater"), ("at most", "less")):
            expected = scipy.stats.ttest_1samp(values, bound, alternative=side).pvalue
            assert p_value(kind, (bound,), found) == pytest.approx(expected, rel=1e-9)
    two_sided = scipy.stats.ttest_1samp(values, 0.0).pvalue
    assert p_value("different", (0.0,), found) == pytest.approx(two_sided, rel=1e-9)
    margins = equivalence(values, 1.5)
    assert p_value("equivalent", (1.5,), found) == pytest.approx(margins.p_equivalence, rel=1e-9)
    assert p_value("different", (1.5,), found) == pytest.approx(margins.p_beyond, rel=1e-9)
    above, below = (p_value(kind, (bound,), found) for kind, bound in (("at least", -1.0), ("at most", 2.0)))
    assert p_value("within", (-1.0, 2.0), found) == max(above, below)


def test_of_normal_intervals_they_are_normal():
    assert p_value("at least", (1.0,), normal_estimate(3.0, 0.7)) == pytest.approx(
        scipy.stats.norm.sf(2 / 0.7), rel=1e-9
    )
    wide = normal_estimate(3.0, 0.7, level=0.9)
    assert p_value("at least", (1.0,), wide) == pytest.approx(scipy.stats.norm.sf(2 / 0.7), rel=1e-9)


SIDE = st.floats(0.01, 5)
TESTS = {
    "at least": lambda bound: at_least(bound),
    "at most": lambda bound: at_most(bound),
    "within": lambda bound: within(-bound, 2 * bound),
    "equivalent": lambda bound: equivalent(bound),
    "different": lambda bound: different(bound),
}


@pytest.mark.parametrize("kind", sorted(TESTS))
@given(value=st.floats(-4, 4), lower=SIDE, upper=SIDE, bound=st.floats(0.01, 4), freedom=st.sampled_from([None, 1, 5]))
@settings(max_examples=100, deadline=None)
def test_a_claim_is_supported_where_p_is_small_however_its_interval_was_made(kind, value, lower, upper, bound, freedom):
    claim = judged(TESTS[kind](bound), Estimate(value, value - lower, value + upper, freedom=freedom))
    limit = 0.05 if kind == "different" else 0.025
    if abs(claim.p_value - limit) > 1e-9:  # An end on the bound itself may round to either side.
        assert (claim.verdict == "supported") == (claim.p_value < limit)


def test_intervals_without_width_prove_nothing_and_exact_values_have_no_p():
    same = Estimate(3.0, 3.0, 3.0)
    assert [p_value(kind, (1.0, 5.0), same) for kind in TESTS] == [1.0] * 5
    assert all(p_value(kind, (1.0, 5.0), exactly(3.0)) is None for kind in TESTS)
    # A share of 0 with Wilson's interval has no width below: that above stands in for it.
    none_found = Estimate(0.0, 0.0, 0.2)
    expected = scipy.stats.norm.sf(0.1 / 0.2 * scipy.stats.norm.ppf(0.975))
    assert p_value("at least", (-0.1,), none_found) == pytest.approx(expected, rel=1e-9)


def test_a_joint_claim_has_the_largest_p_of_its_parts():
    strong, weak, exact = normal_estimate(5.0, 1.0), normal_estimate(1.0, 1.0), exactly(1.0)
    every = each(at_least(0.0))
    joint = judged(every, {"x": strong, "y": weak, "z": exact})
    assert joint.p_value == pytest.approx(scipy.stats.norm.sf(1.0), rel=1e-9)
    assert judged(every, {"x": strong, "z": exactly(-1.0)}).p_value == 1.0
    assert judged(every, {"x": strong, "y": NotTested("no network")}).p_value is None
    assert judged(every, {"z": exact}).p_value is None
    parts = Claim("p", "P.", at_least(0.0)), Claim("q", "Q.", at_least(0.0), check=True)
    both = judged(all_of(*parts), {"p": strong, "q": weak}, one_network=True)
    assert both.p_value == pytest.approx(scipy.stats.norm.sf(5.0), rel=1e-9) and not both.check
    assert [(part.check, part.one_network) for part in both.parts] == [(False, True), (True, True)]


def closed(values):
    """What survives by the closed test: every set of statements that holds it is rejected by Bonferroni's."""
    every = range(len(values))
    sets = [chosen for size in range(1, len(values) + 1) for chosen in itertools.combinations(every, size)]
    rejected = {chosen for chosen in sets if min(values[at] for at in chosen) <= LEVEL / len(chosen)}
    return [all(chosen in rejected for chosen in sets if at in chosen) for at in every]


@given(st.lists(st.sampled_from([1e-4, 0.004, 0.008, 0.011, 0.013, 0.02, 0.024, 0.3]), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_holm_is_the_closed_test(values):
    claims = [
        judged(at_least(0.0), normal_estimate(scipy.stats.norm.isf(p), 1.0), str(at)) for at, p in enumerate(values)
    ]
    assert [claim.holm for claim in corrected(claims)] == closed([claim.p_value for claim in claims])


def test_a_claim_that_is_not_supported_does_not_survive_and_others_are_no_part():
    weak = judged(at_least(0.0), normal_estimate(1.8, 1.0), "weak")
    assert weak.p_value < LEVEL and weak.verdict == "undecided" and corrected([weak])[0].holm is False
    strong = judged(at_least(0.0), normal_estimate(9.0, 1.0), "strong")
    check = judged(at_least(0.0), normal_estimate(-9.0, 1.0), "check", check=True)
    absent = JudgedClaim.not_applicable(why="none", id="absent", paper="own", figure="", statement="It holds.")
    exact = judged(at_least(0.0), exactly(1.0), "exact")
    found = corrected([check, strong, absent, exact])
    assert [claim.holm for claim in found] == [None, True, None, None]
    text = by_chance(found)
    assert "1 of 3 claims test" in text and "at most 0.025 of them" in text and "1 of the 1 that are supported" in text
    assert by_chance([absent, exact, check]) == ""


def test_chance_alone_supports_as_few_as_is_said():
    """Of 40 statements that are just not true, with three degrees of freedom each."""
    rng, runs, count = np.random.default_rng(1), 40, 40
    supported, survived = [], []
    for _ in range(runs):
        values = t_interval(rng.normal(size=(count, 4)))
        claims = corrected([judged(at_least(0.0), one, str(at)) for at, one in enumerate(values)])
        supported.append(sum(claim.verdict == "supported" for claim in claims))
        survived.append(any(claim.holm for claim in claims))
    expected = 0.025 * count
    assert f"at most {expected:.2g} of them" in by_chance(claims)
    assert abs(np.mean(supported) - expected) < 4 * np.sqrt(expected / runs)
    # Bonferroni's level for independent claims, from below.
    assert 0 < np.mean(survived) < LEVEL + 4 * np.sqrt(LEVEL / runs)


def test_a_difference_counts_twice():
    claims = [
        judged(different(), normal_estimate(0.0, 1.0)),
        judged(each(at_least(0.0)), {"x": normal_estimate(0.0, 1.0)}),
    ]
    assert "at most 0.075 of them" in by_chance(
        [dataclasses.replace(claim, id=str(at)) for at, claim in enumerate(claims)]
    )
