"""Norms along the sampler against exact expectations, the reference's own figures, and SciPy's laws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dgu.analysis import (
    churn_levels,
    falling_share,
    gaussian_outputs,
    gaussian_path,
    norm_z_scores,
    observe_norms,
    panel_steps,
    snapshots,
)
from dgu.analysis.concentration.norms import gaussian_norm_scores
from dgu.core.errors import InputError
from dgu.distributions.bases import initial_noise
from dgu.models import GaussianDenoiser
from dgu.samplers import Churn, MultivariateStudentT, StudentT, heun, heun_step, karras_sigmas, sample
from dgu.samplers.gaussian_path import spectrum_path

D = 12
CHURN = Churn(6.0, 0.05, 50.0, 1.1)
GRID = karras_sigmas(10)
# ``sample`` compiles for each device that it uses.
ONE = jax.local_devices()[:1]


def planted(rank=D):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0][:, :rank]
    return GaussianDenoiser(rng.standard_normal((D,)), basis, np.geomspace(30.0, 1e-3, rank))


@partial(jax.jit, static_argnames="second_order")
def moved(denoiser, states, now, after, second_order):
    """The step of each of several states."""
    return jax.vmap(lambda x: heun_step(denoiser, x, now, after, second_order=second_order))(states)


@partial(jax.jit, static_argnames="base")
def starts(indices, base):
    return 80 * jax.vmap(lambda i: initial_noise(jax.random.key(3), i, (D,), jnp.float64, base))(indices)


def dense_moments(denoiser, sigmas, churn, base_variance=1.0):
    """Mean and covariance of every state by whole matrices: the step applied to unit vectors, noise added as a
    matrix.
    """
    sigma_hat, added = churn_levels(sigmas, churn)
    mean, covariance = np.zeros(D), sigmas[0] ** 2 * base_variance * np.eye(D)
    states = [(mean, covariance)]
    for step, (now, after) in enumerate(zip(sigma_hat, sigmas[1:])):
        points = np.concatenate([np.zeros((1, D)), np.eye(D)])
        origin, *units = np.asarray(moved(denoiser, points, now, after, second_order=step < len(added) - 1))
        matrix = np.stack(units, axis=1) - origin[:, None]
        mean = origin + matrix @ mean
        covariance = matrix @ (covariance + added[step] ** 2 * np.eye(D)) @ matrix.T
        states.append((mean, covariance))
    return states


@pytest.mark.parametrize("rank", [D, 5])
def test_every_state_has_the_moments_of_whole_matrices(x64, rank):
    denoiser = planted(rank)
    path = gaussian_path(denoiser, GRID, CHURN)
    mean, deviation = path.squared_norm()
    states = dense_moments(denoiser, GRID, CHURN)
    np.testing.assert_allclose(mean, [m @ m + np.trace(c) for m, c in states], rtol=1e-11)
    np.testing.assert_allclose(deviation, [np.sqrt(2 * np.sum(c * c) + 4 * m @ c @ m) for m, c in states], rtol=1e-11)
    # The start's part and the noise's part make up the output.
    start = path.start_gain**2 * GRID[0] ** 2
    np.testing.assert_allclose(start + path.noise_variance, path.spread[-1], rtol=1e-12)
    np.testing.assert_allclose(path.generator_expansion**2, np.linalg.eigvalsh(states[-1][1])[-1], rtol=1e-10)


@pytest.mark.parametrize("churn", [Churn(), CHURN], ids=["deterministic", "churn"])
def test_measured_norms_have_their_expectations_at_every_step(x64, churn):
    denoiser, n = planted(8), 2000
    path = gaussian_path(denoiser, GRID, churn)
    options = {"shape": (D,), "churn": churn, "batch_size": 500, "observe": observe_norms, "dtype": jnp.float64}
    x0, seen = sample(denoiser, jax.random.key(1), range(n), GRID, **options, devices=ONE)
    norms = {"x": np.column_stack([seen["x"], np.linalg.norm(x0, axis=1)])}
    norms |= {name: seen[name] for name in ("denoised", "slope")}
    for name, values in norms.items():
        assert np.abs(norm_z_scores(values, path.squared_norm(name))).max() < 3, name
        error = values.std(axis=0) / np.sqrt(n)
        assert np.abs((values.mean(axis=0) - path.norm(name)) / error).max() < 3.2, name
        # The spread, too: a ratio of variances within five of its standard errors.
        ratio = np.square(values).std(axis=0) / path.squared_norm(name)[1]
        assert np.abs(ratio - 1).max() < 5 * np.sqrt((stats.kurtosis(np.square(values)).max() + 2) / (4 * n)), name
    np.testing.assert_allclose(seen["x"][:, 1:], seen["x_next"][:, :-1], rtol=1e-12)
    np.testing.assert_allclose(seen["change"], np.diff(norms["x"], axis=1), atol=1e-11)


def test_expected_norm_is_exact(x64):
    # All modes alike: the chi law, and about a mean the noncentral one.
    for offset in (0.0, 2.0):
        mean = np.full(D, offset / np.sqrt(D))
        path = gaussian_path(GaussianDenoiser(mean, np.eye(D), np.full(D, 1.5)), GRID, CHURN)
        deviation = np.sqrt(path.spread[:, 0])
        centre = offset * np.abs(1 - path.shift[:, 0]) / deviation
        chi = [stats.ncx2(D, max(c * c, 1e-12)).expect(np.sqrt, lb=0, ub=200) for c in centre]
        np.testing.assert_allclose(path.norm(), deviation * np.array(chi), rtol=1e-7)
    exact = gaussian_path(GaussianDenoiser(np.zeros(D), np.eye(D), np.full(D, 1.5)), GRID).norm()
    np.testing.assert_allclose(exact[0], 80 * stats.chi(D).mean(), rtol=1e-10)


def test_the_sheets_norms_of_12288_pixels():
    # The digitised spectrum of a class of ImageNet-64 and the paper's sampler: rms norms at nine levels.
    ranks = np.arange(1, 12289)
    known = np.array([1, 2, 3, 10, 20, 50, 100, 200, 300, 500, 1000, 1500, 2000, 12288])
    power = 1054 * 12288**-1.51
    values = np.array([146.4, 81.97, 48.37, 20, 7.8, 2.5, 0.88, 0.335, 0.186, 0.09, 0.032, 0.0163, 0.0094, power])
    variances = np.exp(np.interp(np.log(ranks), np.log(known), np.log(values)))
    settings = karras_sigmas(256), Churn(40, 0.05, 50, 1.003)
    path = spectrum_path(variances, *settings)
    assert panel_steps(256) == (0, 32, 64, 96, 128, 160, 192, 224, 255)
    # The spectrum leaves the mean open: the length that makes the last rms norm 78, in the leading mode.
    mean_square = np.append(78.0**2 - path.squared_norm()[0][255], np.zeros(12287))
    path = spectrum_path(variances, *settings, mean_square=mean_square)
    rms = np.sqrt(path.squared_norm()[0])[list(panel_steps(256))]
    np.testing.assert_allclose(rms, [8868, 4325, 1938, 785, 286, 112, 80.1, 78.1, 78.0], rtol=0.006)
    inflation = path.spread[-1, :500] / path.variances[:500]
    assert 1.005 < inflation.min() and inflation.max() < 1.013


def test_heavy_tailed_starts_pass_through_exactly(x64):
    denoiser, n = planted(), 3000
    options = {"shape": (D,), "batch_size": 500, "dtype": jnp.float64, "devices": ONE}
    path = gaussian_path(denoiser, GRID)
    x0 = sample(denoiser, jax.random.key(3), range(500), GRID, base=StudentT(3.0), **options)
    start = starts(np.arange(500), StudentT(3.0))
    np.testing.assert_allclose(x0, gaussian_outputs(denoiser, path, start, jax.random.key(0)), rtol=1e-9, atol=1e-9)
    # With churn, what the steps add is Gaussian with the variance given, whatever the start.
    start = starts(np.arange(n), MultivariateStudentT(3.0))
    modes = (np.asarray(start) - denoiser.mean) @ denoiser.basis
    churned = gaussian_path(denoiser, GRID, CHURN)
    x0 = sample(denoiser, jax.random.key(3), range(n), GRID, base=MultivariateStudentT(3.0), churn=CHURN, **options)
    left = (x0 - denoiser.mean) @ denoiser.basis - modes * churned.start_gain[:D]
    drawn = gaussian_outputs(denoiser, churned, start, jax.random.key(7))
    for mode in (0, D - 1):
        pair = ((outputs - denoiser.mean) @ np.asarray(denoiser.basis)[:, mode] for outputs in (x0, drawn))
        assert stats.ks_2samp(*pair).pvalue > 0.01
    assert stats.kstest((left / np.sqrt(churned.noise_variance[:D])).ravel(), "norm").pvalue > 0.01
    mean, _ = gaussian_path(denoiser, GRID, CHURN, base_variance=StudentT(3.0).variance).squared_norm()
    states = dense_moments(denoiser, GRID, CHURN, base_variance=3.0)
    np.testing.assert_allclose(mean, [m @ m + np.trace(c) for m, c in states], rtol=1e-11)


def test_outputs_outside_a_low_rank_basis(x64):
    denoiser = planted(5)
    path = gaussian_path(denoiser, GRID)
    x0 = sample(denoiser, jax.random.key(6), range(4), GRID, shape=(D,), batch_size=4, dtype=jnp.float64)
    start = [80 * initial_noise(jax.random.key(6), i, (D,), jnp.float64) for i in range(4)]
    np.testing.assert_allclose(gaussian_outputs(denoiser, path, jnp.stack(start), jax.random.key(0)), x0, atol=1e-9)


def test_snapshots_are_the_states_of_the_same_samples(x64):
    denoiser, grid = planted(6), karras_sigmas(6)
    answer = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))
    shown = snapshots(denoiser, jax.random.key(4), [5, 2], grid, (0, 3, 5), shape=(D,), dtype=jnp.float64, batch_size=2)
    x = 80 * jax.random.normal(jax.random.fold_in(jax.random.fold_in(jax.random.key(4), 2), 0), (D,), jnp.float64)
    for step in range(6):
        if step in (0, 3, 5):
            place = (0, 3, 5).index(step)
            np.testing.assert_allclose(shown["x"][1, place], x, rtol=1e-10)
            denoised = answer(denoiser, x, grid[step])
            np.testing.assert_allclose(shown["denoised"][1, place], denoised, rtol=1e-9)
            np.testing.assert_allclose(shown["slope"][1, place], (x - denoised) / grid[step], rtol=1e-7, atol=1e-12)
        x = moved(denoiser, x[None], grid[step], grid[step + 1], second_order=step < 5)[0]
    assert shown["x"].shape == (2, 3, D)


def test_small_changes_of_the_norm_keep_their_digits():
    # At the last levels the norm falls by 1e-5 of itself, below what float32 norms can tell apart.
    denoiser = GaussianDenoiser(jnp.full(400, 0.8), jnp.eye(400)[:, :3], jnp.ones(3))
    grid = karras_sigmas(40)
    x = 0.8 + 0.003 * jax.random.normal(jax.random.key(0), (400,))
    late = grid[36:]
    exact = jax.jit(lambda d, x: heun(d, x, late, observe=observe_norms)[1])
    single = exact(denoiser, x)["change"]
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), denoiser)
        double = exact(wide, jnp.asarray(np.asarray(x), jnp.float64))["change"]
    np.testing.assert_allclose(single, double, rtol=2e-2, atol=2e-7)


def test_shares_of_falling_steps():
    change = np.array([[-1.0, -1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])
    share, steps = falling_share(change)
    interval = stats.t.ppf(0.975, 2) * np.std([0.75, 1, 0.5], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([share.value, share.high], [0.75, min(1, 0.75 + interval)])
    assert [round(3 * step.value) for step in steps] == [3, 2, 1, 3]
    assert steps[0].high == 1 and 0.4 < steps[0].low < 0.45


def test_bad_input_is_named():
    denoiser = planted()
    with pytest.raises(InputError, match=r"steps = \[0, 10\]: must be numbers of steps, from 0 to 9"):
        snapshots(denoiser, jax.random.key(0), [0], GRID, [0, 10], shape=(D,))
    with pytest.raises(InputError, match="panels = 1"):
        panel_steps(18, 1)
    with pytest.raises(InputError, match="panels = 20: must be 2 to the number of steps, 18"):
        panel_steps(18, 20)
    with pytest.raises(InputError, match="trajectories = 1"):
        falling_share(np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"change = .* finite"):
        falling_share(np.full((2, 3), np.nan))
    with pytest.raises(InputError, match="base_variance = inf"):
        gaussian_path(denoiser, GRID, base_variance=StudentT(2.0).variance)
    with pytest.raises(InputError, match="variances = -1"):
        spectrum_path(np.array([-1.0, 2.0]), GRID)
    with pytest.raises(InputError, match="of = 'y'"):
        gaussian_path(denoiser, GRID).squared_norm("y")


def test_a_law_without_spread_has_no_z_scores():
    spread = np.array([1.0, 0.0, 2.0])
    with pytest.raises(InputError, match=r"standard deviation of step \[1\] = \[0.0\]: must be positive"):
        norm_z_scores(np.ones((4, 3)), (np.ones(3), spread))


def test_norms_of_a_gaussians_samples_match_their_expectations():
    scores = gaussian_norm_scores(planted(), jax.random.key(3), GRID, CHURN, count=200)
    assert scores.shape == (3, 10) and 0.3 < np.abs(scores).max() < 4
    # The same by hand, of the last quantity.
    _, seen = sample(
        planted(), jax.random.key(3), range(200), GRID, shape=(D,), churn=CHURN, observe=observe_norms, batch_size=200
    )
    mean, deviation = gaussian_path(planted(), GRID, CHURN).squared_norm("slope")
    by_hand = (np.mean(np.float64(seen["slope"]) ** 2, axis=0) - mean) / (deviation / 200**0.5)
    np.testing.assert_allclose(scores[2], by_hand, rtol=1e-9)
