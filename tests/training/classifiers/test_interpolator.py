from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import Runs, fit_classifiers, min_norm_interpolator
from dgu.core.errors import InputError


def problem(n, d, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) if rank is None else rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    return x, np.eye(3)[rng.integers(0, 3, n)], rng.normal(size=(d, 3))


@pytest.mark.parametrize("rank", [None, 6])
def test_equals_the_pseudo_inverse(x64, rank):
    x, targets, initial = problem(10, 24, rank)
    if rank:  # solvable although rows depend on each other
        targets = x @ np.random.default_rng(1).normal(size=(24, 3))
    got = np.asarray(min_norm_interpolator(jnp.asarray(x), jnp.asarray(targets), jnp.asarray(initial)))
    np.testing.assert_allclose(x @ got, targets, atol=1e-10)
    np.testing.assert_allclose(got, initial + np.linalg.pinv(x) @ (targets - x @ initial), atol=1e-10)
    # nearest to W0: the way from it lies in the row space
    null = np.eye(24) - np.linalg.pinv(x) @ x
    np.testing.assert_allclose(null @ (got - initial), 0, atol=1e-10)


def test_least_squares_when_there_are_more_rows_than_columns(x64):
    x, targets, _ = problem(30, 7)
    got = min_norm_interpolator(jnp.asarray(x), jnp.asarray(targets))
    np.testing.assert_allclose(got, np.linalg.lstsq(x, targets)[0], atol=1e-10)


def test_cutoff_leaves_weak_directions_where_they_were(x64):
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    x = np.diag([1.0, 1e-3]) @ basis[:2]
    targets, initial = np.ones((2, 1)), np.ones((5, 1))
    solve = partial(min_norm_interpolator, jnp.asarray(x), jnp.asarray(targets), jnp.asarray(initial))
    strong, weak = basis[0] @ np.asarray(solve(rcond=1e-2)), basis[1] @ np.asarray(solve(rcond=1e-2))
    np.testing.assert_allclose([strong[0], weak[0]], [1.0, basis[1] @ initial[:, 0]], atol=1e-12)
    np.testing.assert_allclose(basis[1] @ np.asarray(solve(rcond=1e-4)), [1000.0], rtol=1e-9)
    with pytest.raises(InputError, match=r"rcond = 2\.0: must be in"):
        solve(rcond=2.0)


def test_vmap_over_padded_runs_and_lowering(x64):
    problems = [problem(n, 24, seed=n) for n in (10, 6)]
    padded = [tuple(np.pad(a, ((0, 10 - len(a)), (0, 0))) for a in p[:2]) + p[2:] for p in problems]
    stacked = [jnp.asarray(np.stack(arrays)) for arrays in zip(*padded)]
    together = jax.vmap(min_norm_interpolator)(*stacked)
    for got, (x, targets, initial) in zip(together, problems):
        np.testing.assert_allclose(got, initial + np.linalg.pinv(x) @ (targets - x @ initial), atol=1e-10)
    exported = jax.export.export(jax.jit(jax.vmap(min_norm_interpolator)), platforms=["cuda", "tpu"])
    shapes = [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in stacked]
    assert exported(*shapes).platforms == ("cuda", "tpu")


@pytest.mark.parametrize("method", [pytest.param("weight", marks=pytest.mark.slow), "gram"])
def test_a_long_raw_logit_run_ends_there(x64, method):
    n, d = 12, 40
    x, _, initial = problem(n + 4, d, seed=7)
    y = np.arange(n + 4) % 3
    runs = Runs(np.arange(n)[None], np.array([2]), np.array([0.03]), None, initial[None])
    fit = fit_classifiers(
        x, y, runs, loss="logit_mse", schedule="constant", epochs=1500, validation=np.arange(n, n + 4), batch_size=5,
        eval_interval=1500, method=method,
    )  # fmt: skip
    want = min_norm_interpolator(jnp.asarray(x[:n]), jnp.asarray(np.eye(3)[y[:n]]), jnp.asarray(initial))
    assert float(fit.train_loss[0, -1]) < 1e-14
    np.testing.assert_allclose(fit.final.weights[0], want, atol=1e-6)
    assert np.abs(want - min_norm_interpolator(jnp.asarray(x[:n]), jnp.asarray(np.eye(3)[y[:n]]))).max() > 0.5
