"""Claims of the phase transitions follow from what is measured; the part itself resumes and keeps its promises."""

import dataclasses

import numpy as np
import pytest

from dgu.analysis.stats import Estimate
from dgu.analysis.subspaces import BoundFit
from dgu.core.errors import InputError
from experiments.molrg import STUDY, phase, phase_claims
from experiments.molrg.phase_arms import LONG, SHORT, Arms
from experiments.study.claims import judge
from experiments.study.run_directory import RunDirectory

CONFIG = phase.Config()
THEORY = np.asarray(CONFIG.sizes)[None] >= np.asarray(CONFIG.ranks)[:, None]


def arm(success, trials=40, raw=None):
    whole = np.broadcast_to(success, (trials, *THEORY.shape))
    return {"success": whole, "raw": whole if raw is None else np.broadcast_to(raw, whole.shape), "diverged": ~whole}


def parts(claim):
    return {part.id.removeprefix(claim.id + "-"): part.verdict for part in claim.parts}


def judged(name, **arms):
    """The claim ``name`` of arms that succeed exactly where N >= d, but for those given."""
    noises, usual = (0.0, CONFIG.noise), arm(THEORY)
    right = {
        "pca": {noise: usual for noise in noises},
        "wide": usual,
        "k_subspaces": {(k, noise): usual for k in (2, 3) for noise in noises},
        "sgd": {k: usual for k in (1, 2, 3)},
        "random": {SHORT: usual, LONG: usual},
    }
    whole = Arms(**{kind: right[kind] | arms.get(kind, {}) for kind in right})
    declared = {claim.id: claim for claim in phase_claims.transition_claims(CONFIG)}
    return judge(declared[name], phase.transitions(CONFIG, whole)[name], "molrg")


def test_claims_on_the_transition_follow_its_place():
    late = np.asarray(CONFIG.sizes)[None] >= np.asarray(CONFIG.ranks)[:, None] + 4
    early = np.asarray(CONFIG.sizes)[None] >= np.asarray(CONFIG.ranks)[:, None] - 1
    noise = CONFIG.noise
    assert judged("phase-pca").verdict == "supported"
    assert parts(judged("phase-pca", pca={noise: arm(late)})) == {
        "clean": "supported",
        "above": "not supported",
        "below": "supported",
    }
    assert parts(judged("phase-pca", pca={0.0: arm(early), noise: arm(early)})) == {
        "clean": "not supported",
        "above": "supported",
        "below": "not supported",
    }
    assert judged("phase-dimension").verdict == "supported"
    assert judged("phase-dimension", wide=arm(late)).verdict == "not supported"
    assert judged("phase-k-subspaces").verdict == "supported"
    # Ranks below 3 are not held to it without noise.
    second = THEORY.copy()
    second[0] = False
    assert judged("phase-k-subspaces", k_subspaces={(3, 0.0): arm(second)}).verdict == "supported"
    assert judged("phase-k-subspaces", k_subspaces={(3, 0.0): arm(late)}).verdict == "not supported"
    assert judged("phase-sgd").verdict == "supported"
    assert judged("phase-sgd", sgd={2: arm(late)}).verdict == "not supported"
    assert judged("phase-sgd", sgd={3: arm(early)}).verdict == "not supported"
    names, never = ("phase-random-start", "phase-random-start-long"), arm(np.zeros_like(THEORY))
    for random, verdicts in (
        ({SHORT: never, LONG: arm(late)}, ("supported", "not supported")),
        ({SHORT: arm(THEORY), LONG: never}, ("not supported", "supported")),
    ):
        assert tuple(judged(name, random=random).verdict for name in names) == verdicts
    note = judged(names[1], random={LONG: arm(late)}).note
    assert note.startswith("by rank: 71 % at d = 2, 69 % at d = 3")
    assert note.endswith(f"{100 * (1 - late.mean()):.0f} % of runs diverged")
    assert judged("phase-straighten", sgd={1: arm(THEORY, raw=np.zeros_like(THEORY))}).verdict == "supported"
    assert judged("phase-straighten").verdict == "not supported"
    # The same shares from two trials say nothing yet.
    assert judged("phase-sgd", sgd={k: arm(THEORY, trials=1) for k in (1, 2, 3)}).verdict == "undecided"


def test_claims_on_bounds_follow_the_fit():
    """More violations than the theorem allows, and an error that does not stay below N = d, are found out."""

    def verdicts(broken, ratio):
        low, high = Estimate(broken, broken - 0.01, broken + 0.01), Estimate(ratio, ratio - 0.01, ratio + 0.01)
        declared = phase_claims.bound_claim("b", "Theorem 2", "PCA")
        return parts(judge(declared, phase.bounded("b", BoundFit(2.0, low, 0.1, high)), "molrg"))

    assert verdicts(0.05, 0.97) == {"above": "supported", "below": "supported"}
    assert verdicts(0.15, 0.97) == {"above": "not supported", "below": "supported"}
    assert verdicts(0.1, 0.5) == {"above": "undecided", "below": "not supported"}


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
    section = phase.PART.section(config, None, directory, 0)
    assert all((directory.path / figure.file).stat().st_size > 10_000 for figure in phase.FIGURES)
    # From what is stored, whatever else was lost.
    times = directory.timings()
    (directory.path / "stages/phase/pca-24-clean.npz").unlink()
    again = phase.PART.section(config, None, directory, 0)
    assert [claim.to_json() for claim in again.claims] == [claim.to_json() for claim in section.claims]
    assert {name for name, seconds in directory.timings().items() if seconds != times[name]} == {"phase/pca-24-clean"}


def test_parts_without_a_network_load_none():
    """A checkpoint that is not there is refused by the parts that look at it, and by no other."""
    config = dataclasses.replace(STUDY.presets["smoke"], checkpoint="no-such-network.npz")
    subject = STUDY.gather(config, None)
    needing = {"images", "dimension", "directions"}
    for part in STUDY.parts:
        if part.name not in needing:
            part.check(getattr(config, part.name), subject)
            continue
        with pytest.raises(InputError, match="checkpoint = 'no-such-network"):
            part.check(getattr(config, part.name), subject)
