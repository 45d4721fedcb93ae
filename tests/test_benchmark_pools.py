"""The design of the universality study in miniature: its interval covers, and the benchmark's other numbers are right."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from benchmarks import pools
from dgu.analysis.universality.arms import Task, assemble
from dgu.analysis.universality.ridge import ridge_and_test

CONFIG = pools.Config(pools=30, splits=5, resampled_pools=20)


@pytest.fixture(scope="module")
def found():
    laws = pools.laws()
    return {name: pools.simulate(CONFIG, laws[name]) for name in ("gaussian", "clusters")}


def test_the_interval_covers_and_is_narrower_than_the_corrected_resampled_t(found):
    for law in found.values():
        # Of 30 pools 95 % and four standard errors below: 79 %.
        assert law["coverage"] >= 0.79
        assert law["width"] < 0.75 * law["corrected resampled t, width"]
    assert found["gaussian"]["not zero"] <= 0.21
    assert abs(found["gaussian"]["mean gap"]) < 4 * found["gaussian"]["deviation between pools"] / 30**0.5


def test_a_gap_that_only_norms_show_is_found():
    law = pools.simulate(dataclasses.replace(CONFIG, pools=6), pools.laws()["norms"])
    assert law["not zero"] == 1.0 and law["mean gap"] > 20


def test_the_ridge_of_the_miniature_is_that_of_the_library():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2, 3, 9, 4)), rng.normal(size=(2, 3, 7, 4))
    mine = pools.ridge(train, test)
    for one in range(2):
        pool = assemble({"one": {"train": train[one], "validation": test[one][:, :1], "test": test[one]}})
        library = ridge_and_test(pool, Task("t", np.arange(3)[None], (9,), "softmax_mse"))
        assert mine[one] == pytest.approx(library.item(), abs=1e-12)


def test_arms_of_the_miniature_have_the_moments_of_the_pool():
    pool = pools.laws()["clusters"].draw(np.random.default_rng(1)).astype(float)
    drawn = [pools.split_arms(pool[None], np.random.default_rng(seed), lambda x: x) for seed in range(40)]
    assert [arm[0].shape[2] for arm in drawn[0]] == [pools.TRAIN] * 5
    seen = np.concatenate(drawn[0][0], axis=2)[0]
    assert seen.shape[1] == pools.POOL - pools.VALIDATION, "no image of the pool but those for validation is left out"
    of_mixture = np.concatenate([np.concatenate(arms[1], axis=2)[0] for arms in drawn], axis=1)
    spread = pool.std(axis=1) / np.sqrt(of_mixture.shape[1])
    assert np.abs((of_mixture.mean(axis=1) - pool.mean(axis=1)) / spread).max() < 4.5
    scale = np.abs(np.cov(pool[0].T)).max()
    np.testing.assert_allclose(np.cov(of_mixture[0].T) / scale, np.cov(pool[0].T) / scale, atol=0.06)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_other_hands_read_a_run_and_compare(tmp_path, capsys):
    from benchmarks import independent

    rng = np.random.default_rng(0)
    (tmp_path / "samples").mkdir()
    for label in range(3):
        for part in range(2):
            rows = (rng.normal(size=(70, 4, 4, 1)) + label * (np.arange(4)[:, None, None] == label)).astype(np.float32)
            np.save(tmp_path / "samples" / f"class-{label:04d}_{70 * part:08d}-{70 * part + 70:08d}.npy", rows)
    claims = [{"id": "universality-all-classes", "value": -1.0, "interval": [-2.0, 0.0]}]
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    rows = independent.images_of(tmp_path)
    assert rows.shape == (3, 140, 16)
    independent.main(independent.Config(str(tmp_path), quick=True, json=str(tmp_path / "out.json")))
    assert "universality-all-classes    -1.00 [-2.00, +0.00]" in capsys.readouterr().out
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    # Gaussian images: the gap is within noise of zero.
    assert abs(results["ridge"]["gap"]) < 15 and results["ridge"]["standard_error"] > 0
    with pytest.raises(SystemExit, match="must be a finished run with images"):
        independent.images_of(tmp_path / "absent")
