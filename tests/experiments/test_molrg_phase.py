"""Claims of the phase transitions follow from what is measured; the part itself resumes and keeps its promises."""

import dataclasses

import numpy as np
import pytest

from dgu.core.errors import InputError
from experiments.molrg_parts import phase
from experiments.molrg_parts import phase_claims as claims
from experiments.molrg_parts.phase_arms import LONG, SHORT
from experiments.molrg_parts.phase_bounds import Bound
from experiments.study.report import check_promises
from experiments.study.run_directory import RunDirectory

CONFIG = phase.Config()
THEORY = np.asarray(CONFIG.sizes)[None] >= np.asarray(CONFIG.ranks)[:, None]


def arm(success, trials=40, raw=None):
    whole = np.broadcast_to(success, (trials, *THEORY.shape))
    return {"success": whole, "raw": whole if raw is None else np.broadcast_to(raw, whole.shape), "diverged": ~whole}


def parts(claim):
    return {part.id.removeprefix(claim.id + "-"): part.verdict for part in claim.parts}


def test_claims_on_the_transition_follow_its_place():
    late = np.asarray(CONFIG.sizes)[None] >= np.asarray(CONFIG.ranks)[:, None] + 4
    early = np.asarray(CONFIG.sizes)[None] >= np.asarray(CONFIG.ranks)[:, None] - 1
    right = {0.0: arm(THEORY), CONFIG.noise: arm(THEORY)}
    assert claims.pca_claim(CONFIG, right).verdict == "supported"
    assert parts(claims.pca_claim(CONFIG, right | {CONFIG.noise: arm(late)})) == {
        "clean": "supported",
        "above": "not supported",
        "below": "supported",
    }
    assert parts(claims.pca_claim(CONFIG, {0.0: arm(early), CONFIG.noise: arm(early)})) == {
        "clean": "not supported",
        "above": "supported",
        "below": "not supported",
    }
    assert claims.dimension_claim(CONFIG, arm(THEORY), arm(THEORY)).verdict == "supported"
    assert claims.dimension_claim(CONFIG, arm(THEORY), arm(late)).verdict == "not supported"
    many = {(k, noise): arm(THEORY) for k in (2, 3) for noise in (0.0, CONFIG.noise)}
    assert claims.k_subspaces_claim(CONFIG, many).verdict == "supported"
    # Ranks below 3 are not held to it without noise.
    second = THEORY.copy()
    second[0] = False
    assert claims.k_subspaces_claim(CONFIG, many | {(3, 0.0): arm(second)}).verdict == "supported"
    assert claims.k_subspaces_claim(CONFIG, many | {(3, 0.0): arm(late)}).verdict == "not supported"
    sgd = {k: arm(THEORY) for k in (1, 2, 3)}
    assert claims.sgd_claim(CONFIG, sgd).verdict == "supported"
    assert claims.sgd_claim(CONFIG, sgd | {2: arm(late)}).verdict == "not supported"
    assert claims.sgd_claim(CONFIG, sgd | {3: arm(early)}).verdict == "not supported"
    starts = {SHORT: arm(np.zeros_like(THEORY)), LONG: arm(late)}
    short, long = claims.random_start_claims(CONFIG, starts)
    assert (short.verdict, long.verdict) == ("supported", "not supported")
    short, long = claims.random_start_claims(CONFIG, {SHORT: arm(THEORY), LONG: starts[SHORT]})
    assert (short.verdict, long.verdict) == ("not supported", "supported")
    told = claims.random_start_claims(CONFIG, starts)[1].note
    assert told.startswith("by rank: 71 % at d = 2, 69 % at d = 3") and told.endswith(
        f"{100 * (1 - late.mean()):.0f} % of runs diverged"
    )
    assert claims.straighten_claim(CONFIG, arm(THEORY, raw=np.zeros_like(THEORY))).verdict == "supported"
    assert claims.straighten_claim(CONFIG, arm(THEORY)).verdict == "not supported"
    # The same shares from two trials say nothing yet.
    assert claims.sgd_claim(CONFIG, {k: arm(THEORY, trials=1) for k in (1, 2, 3)}).verdict == "undecided"


def test_bounds_are_fitted_on_small_ranks_and_tested_on_large_ones():
    rng = np.random.default_rng(0)
    sizes, ranks = np.asarray(CONFIG.sizes)[None], np.asarray(CONFIG.ranks)[:, None]
    shape = (400, *THEORY.shape, 1)
    unit = rng.uniform(0.5, 2, shape)
    # Exactly as promised: the ratio passes c1 = 2 with probability 2^-(N - d + 1).
    allowed = 2.0 ** -np.maximum(sizes - ranks + 1, 1)[None, :, :, None]
    ratio = np.where(rng.uniform(size=shape) < allowed / 2, 5.0, rng.uniform(0.5, 2.0, shape))
    exact = np.sqrt(2.0 * np.maximum(ranks - sizes, 1))[None, :, :, None]
    distance = np.where(THEORY[None, :, :, None], ratio * unit, 0.97 * exact * (1 + 1e-6 * rng.normal(size=shape)))
    bound = Bound.fitted(CONFIG, {"distance": distance, "unit": unit})
    assert 1.5 < bound.constant <= 5 and bound.claim("b", "Theorem 2", "PCA").verdict == "supported"
    np.testing.assert_allclose(bound.ratio, 0.97, rtol=1e-5)
    # A constant that grows with the rank is found out, and so is an error that does not stay below N = d.
    growing = Bound.fitted(CONFIG, {"distance": distance * np.where(ranks > 5, 4, 1)[None, :, :, None], "unit": unit})
    assert parts(growing.claim("b", "Theorem 2", "PCA"))["above"] == "not supported"
    small = Bound.fitted(CONFIG, {"distance": np.where(THEORY[None, :, :, None], distance, 0.5 * unit), "unit": unit})
    assert parts(small.claim("b", "Theorem 2", "PCA")) == {"above": "supported", "below": "not supported"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": (2, 4, 5)}, r"phase.ranks = \(2, 4, 5\): must be consecutive"),
        ({"ranks": (2, 3)}, "phase.ranks"),
        ({"sizes": (2, 3, 4, 5, 6, 7, 8, 9, 10)}, "phase.sizes .* to at least 11"),
        ({"dimension": 23}, "phase.dimension = 23: must be at least 24, for three subspaces"),
        ({"steps": 0}, "phase.steps = 0"),
        ({"noise": 0.0}, "phase.noise = 0.0: must be positive and finite"),
        ({"threshold": 1.0}, "phase.threshold = 1.0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **options)


@pytest.mark.slow
def test_the_part_keeps_its_promises_and_resumes(tmp_path):
    config = phase.PRESETS["smoke"]
    directory = RunDirectory.open(tmp_path / "run", config)
    section = phase.run(config, None, directory, 0)
    check_promises("phase", section, phase.CLAIM_IDS, phase.FIGURE_FILES)
    assert all((directory.path / file).stat().st_size > 10_000 for file in phase.FIGURE_FILES)
    # From what is stored, whatever else was lost.
    times = directory.timings()
    (directory.path / "stages/phase/pca-24-clean.npz").unlink()
    again = phase.run(config, None, directory, 0)
    assert [claim.to_json() for claim in again.claims] == [claim.to_json() for claim in section.claims]
    assert {name for name, seconds in directory.timings().items() if seconds != times[name]} == {"phase/pca-24-clean"}
