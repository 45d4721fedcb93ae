"""Heavy-tailed starts: their laws against SciPy's, their scales, names, and how sampling takes them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dgu.analysis import sample_from
from dgu.core.errors import InputError
from dgu.distributions.bases import initial_noise, named_base, student_from_gaussian
from dgu.models import GaussianDenoiser
from dgu.samplers import Churn, MultivariateStudentT, StudentT, karras_sigmas, sample
from dgu.samplers.from_noise import _run

D, N = 64, 4000
ONE = jax.local_devices()[:1]


@cache
def draws(base):
    keys = jax.random.split(jax.random.key(5), N)
    return np.asarray(jax.jit(jax.vmap(lambda key: base(key, (8, 8, 1))))(keys)).reshape(N, D)


@pytest.mark.parametrize("dof", [3.0, 6])
def test_elementwise_coordinates_are_independent_t(dof):
    noise = draws(StudentT(dof))
    assert stats.kstest(noise[:, 0], stats.t(dof).cdf).pvalue > 0.01
    assert stats.kstest(noise[7], stats.t(dof).cdf).pvalue > 0.01  # within one draw, too
    # Independent: the radius of one half of the coordinates says nothing about the other's.
    halves = np.log(np.square(noise).reshape(N, 2, -1).sum(-1))
    assert abs(np.corrcoef(halves.T)[0, 1]) < 4 / np.sqrt(N)


@pytest.mark.parametrize("dof", [3.0, 6])
def test_multivariate_norm_follows_the_f_law(dof):
    noise = draws(MultivariateStudentT(dof))
    assert stats.kstest(noise[:, 0], stats.t(dof).cdf).pvalue > 0.01
    assert stats.kstest(np.square(noise).mean(1), stats.f(D, dof).cdf).pvalue > 0.01
    # The direction is uniform whatever the radius.
    projected = np.sqrt(D) * noise[:, 3] / np.linalg.norm(noise, axis=1)
    assert (
        stats.kstest(projected, lambda t: stats.beta((D - 1) / 2, (D - 1) / 2).cdf((t / np.sqrt(D) + 1) / 2)).pvalue
        > 0.01
    )
    halves = np.log(np.square(noise).reshape(N, 2, -1).sum(-1))
    assert np.corrcoef(halves.T)[0, 1] > 0.6


@pytest.mark.parametrize("law", [StudentT, MultivariateStudentT])
def test_matched_scale_is_unit_variance(law):
    # With 3 degrees the sample variance has no variance of its own: compare the whole law, and the variance with 6.
    plain, matched = draws(law(3.0)), draws(law(3.0, scale_matched=True))
    np.testing.assert_allclose(matched * np.sqrt(3), plain, rtol=1e-5)
    assert law(3.0).variance == 3 and law(3.0, True).variance == 1 and law(2.0).variance == np.inf
    squares = np.square(law(6.0, scale_matched=True).scale * draws(law(6))).mean(1)
    assert abs(squares.mean() - 1) < 4 * squares.std() / np.sqrt(N)


def test_names_are_the_laws_with_their_defaults():
    key = jax.random.key(1)
    for name, law in (("student_t", StudentT()), ("multivariate_student_t", MultivariateStudentT(dof=3))):
        assert named_base(name) == law
    by_name = initial_noise(key, 4, (5,), base="student_t")
    np.testing.assert_array_equal(by_name, StudentT()(jax.random.fold_in(jax.random.fold_in(key, 4), 0), (5,)))


GRID, OPTIONS = karras_sigmas(6), {"batch_size": 4, "devices": ONE}
CHURN = Churn(2.0, s_noise=1.1)


def of_three():
    return GaussianDenoiser.from_moments(np.full(3, 0.5), np.diag([1.0, 0.5, 0.1]))


def sampled(indices, base, churn=CHURN):
    options = {"shape": (3,), "dtype": jnp.float64, "base": base, "churn": churn} | OPTIONS
    return sample(of_three(), jax.random.key(0), indices, GRID, **options)


def test_sampling_from_a_heavy_tailed_start(x64):
    everything = sampled(range(9), MultivariateStudentT(3.0))
    np.testing.assert_array_equal(sampled([7, 2], MultivariateStudentT(3.0)), everything[[7, 2]])
    assert np.abs(everything - sampled(range(9), "gaussian")).min() > 1e-9
    assert hash(StudentT(3)) == hash(StudentT(3.0)) and StudentT(3) != MultivariateStudentT(3)


def test_one_program_serves_every_start(x64):
    denoiser, grid, key = of_three(), GRID, jax.random.key(0)
    compiled = _run._cache_size()
    for base, churns in (("gaussian", (Churn(), CHURN)), (MultivariateStudentT(), (CHURN,))):
        noise = jax.jit(jax.vmap(lambda i: initial_noise(key, i, (3,), jnp.float64, base)))  # noqa: B023
        starts = 80 * np.asarray(noise(np.arange(9)))
        for churn in churns:
            made = sample_from(denoiser, key, starts, grid, churn=churn, **OPTIONS)
            np.testing.assert_allclose(made, sampled(range(9), base, churn), rtol=1e-10)
    assert _run._cache_size() == compiled + 1
    spread = sample_from(denoiser, key, starts, grid, churn=churn, batch_size=4, devices=jax.local_devices()[:2])
    np.testing.assert_array_equal(spread, made)
    with pytest.raises(FloatingPointError, match="sample 5 "):
        sample_from(denoiser, key, np.where(np.arange(9)[:, None] == 5, np.nan, starts), grid, batch_size=4)
    with pytest.raises(InputError, match="starts = '0 states'"):
        sample_from(denoiser, key, starts[:0], grid)
    with pytest.raises(InputError, match="batch_size = 0"):
        sample_from(denoiser, key, starts, grid, batch_size=0)


def test_bad_input_is_named():
    for law in (StudentT, MultivariateStudentT):
        with pytest.raises(InputError, match="dof = 0: must be positive"):
            law(0)
        with pytest.raises(InputError, match="dof = 2: must be above 2 where scale_matched"):
            law(2, scale_matched=True)
        law(0.5)
    with pytest.raises(InputError, match="base = 'student': must be one of 'gaussian', 'student_t'"):
        initial_noise(jax.random.key(0), 0, (2,), base="student")


@pytest.mark.parametrize("dof", [3, 5])
def test_gaussian_rows_become_student_t_rows(dof):
    rng = np.random.default_rng(0)
    mean, scales = np.array([3.0, -1.0]), np.array([2.0, 0.5])
    rows = mean + scales * rng.normal(size=(20_000, 2))
    found = student_from_gaussian(rows, mean, jax.random.key(1), dof)
    for place in range(2):
        standard = (found[:, place] - mean[place]) / scales[place] * np.sqrt(dof)
        assert stats.kstest(standard, stats.t(dof).cdf).pvalue > 0.01
    # One radius for the whole row.
    ratio = (found - mean) / (rows - mean)
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], rtol=1e-5)
    with pytest.raises(InputError, match=r"mean\.shape"):
        student_from_gaussian(rows, np.zeros(3), jax.random.key(1), dof)
