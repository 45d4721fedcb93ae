"""Verdicts on sweeps follow the numbers that were measured."""

import numpy as np
import pytest

from experiments.hidden_gaussian import strong, sweep_claims, sweep_pictures, sweep_results
from experiments.hidden_gaussian.subject import PAPER
from experiments.hidden_gaussian.trainer import Measured
from experiments.study.claims import judge
from tests.experiments.hidden_networks import tiny, write_sources


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


def fake(seen, own, score=0.5, cosine=0.9, loss=1.0):
    """A checkpoint with these numbers."""
    ones = np.ones((1, 2))
    samples = np.ones((3, 2, 2, 1), np.float32)
    distance = np.full(3, 2 * score) * [0.999, 1, 1.001]
    return Measured(
        seen=seen,
        sigmas=np.array([1.0]),
        straight=np.array([1.0]),
        cosine=cosine * ones,
        nmse=ones,
        own=own * ones,
        whole=own * ones,
        moved=ones,
        along=ones,
        loss=loss * np.ones((2, 3)),
        samples=samples,
        path=samples,
        distance=distance,
        nearest=np.zeros(3, int),
    )


def swept(sources, wide, narrow, last_score, by_size):
    """A sweep of three seeds in which the courses on little data and the last values over sizes are these."""
    lab = tiny(sources, seeds=3)
    shifts = (0.99, 1.0, 1.01)
    sizes = {4: [], 8: [], 16: [], 32: []}
    for shift in shifts:
        for size, (own, cosine, score) in zip(sizes, by_size):
            sizes[size].append([fake(64, own * shift, score * shift, cosine)])

    def course(values, score, shift):
        """Checkpoints with these distances, of which the last has the score."""
        scores = [0.5] * (len(values) - 1) + [score]
        return [fake(k + 1, value * shift ** (k + 1), shift * scores[k]) for k, value in enumerate(values)]

    courses = {
        width: [course(values, score, shift) for shift in shifts]
        for width, values, score in ((4, narrow, 0.5), (8, wide, last_score))
    }
    fresh = {size: np.full(3, 0.5) for size in sizes}
    apart = {
        size: [
            {"linear_gaussian": shift * near * np.ones((4, 2)), "network_gaussian": shift * 0.5 * np.ones((4, 2))}
            for shift in shifts
        ]
        for size, near in ((4, 0.3), (32, 0.1))
    }
    pictures = sweep_pictures.Denoised(4.0, 42.0, {}, {})
    return sweep_results.Sweep(lab, sizes, courses, {}, {}, fresh, 4, [4, 32], apart, {}, {}, pictures)


def judged(sweep):
    """The claims on a sweep, by id."""
    found = sweep_claims.tested(sweep)
    return {claim.id: judge(claim, found[claim.id], PAPER) for claim in sweep_claims.declared(4, 4)}


RISING = ((0.4, 0.8, 0.1), (0.3, 0.85, 0.3), (0.2, 0.9, 0.4), (0.1, 0.95, 0.5))


def test_verdicts_follow_the_numbers(sources):
    good = swept(sources, (1.0, 0.4, 0.7), (1.0, 0.6, 0.62), 0.05, RISING)
    found = judged(good)
    assert {claim.verdict for claim in found.values()} == {"supported"}
    # Three seeds that all rise over four sizes: a trend, and no more than that.
    ranks = {"sweeps-linearity-rises", "sweeps-distance-falls", "sweeps-generalisation-rises"}
    assert found["sweeps-linearity-rises"].interval == pytest.approx((0.3, 1.0))
    assert all("t interval over seeds" in found[name].changed for name in ranks)
    assert found["sweeps-linearity-rises"].value == 1 and found["sweeps-distance-falls"].value == -1
    parts = {part.id: part.value for part in found["sweeps-wide-memorises"].parts}
    assert parts["min-over-final"] == pytest.approx(0.4 / 0.7, rel=1e-3) and parts["min-over-first"] == pytest.approx(
        0.4
    )
    assert parts["gl-final"] == pytest.approx(0.05) and parts["gl-final-relative"] == pytest.approx(0.05 / 0.5)
    assert found["sweeps-narrow-stays"].value == pytest.approx(0.62 / 0.6)
    # A network that only ever comes nearer, or only ever leaves, passes through no minimum; a score that stays up is no
    # collapse.
    for course, score, fails in (
        ((1.0, 0.6, 0.5), 0.05, "min-over-final"),
        ((0.4, 0.5, 0.7), 0.05, "min-over-first"),
        ((1.0, 0.4, 0.7), 0.28, "gl-final-relative"),
        ((1.0, 0.4, 0.7), 0.45, "gl-final gl-final-relative"),
    ):
        bad = swept(sources, course, (1.0, 0.6, 0.8), score, RISING[::-1])
        found = judged(bad)
        assert {part.id for part in found["sweeps-wide-memorises"].parts if part.verdict != "supported"} == set(
            fails.split()
        )
        assert {found[name].verdict for name in ranks} == {"not supported"} and found[
            "sweeps-linearity-rises"
        ].value == -1
        assert found["sweeps-narrow-stays"].verdict == "not supported"
        # Without a minimum before the end, or after the start, the ratio is 1 in every seed: no spread either.
        expected = "undecided" if fails.startswith("min-over") else "not supported"
        assert found["sweeps-wide-memorises"].verdict == expected


def test_early_stopping_looks_at_held_out_loss_alone():
    course = [fake(seen, own, loss=loss) for seen, own, loss in ((1, 0.1, 3.0), (2, 0.9, 1.0), (4, 0.2, 2.0))]
    assert strong.stopped(course).seen == 2


def test_a_course_of_noise_neither_memorises_nor_leaves():
    """The nearest checkpoint is that of the other seeds: on noise the ratios lie on both sides of 1."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(300):
        course = 1 + 0.1 * rng.normal(size=(3, 6))
        ratios.append(sweep_claims.nearest(course) / course[:, -1])
    means = np.mean(ratios, axis=1)
    assert abs(np.mean(np.log(ratios))) < 4 * np.std(np.log(means)) / 300**0.5
    assert 0.3 < (means < 1).mean() < 0.7 and 0.2 < (means > 1).mean()
    course = np.array([[1.0, 0.4, 0.6], [1.1, 0.5, 0.7], [0.9, 0.8, 0.45]])  # The last seed is nearest at the end.
    np.testing.assert_array_equal(sweep_claims.nearest(course), [0.6, 0.7, 0.8])
