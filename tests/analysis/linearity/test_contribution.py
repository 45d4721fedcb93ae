"""What a denoiser adds to its skip: scores of affine, polynomial and memorising maps against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import ContributionScores, contribution_scores
from dgu.analysis.linearity.contribution import AFFINE_WEIGHTS
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_batch
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from dgu.models.preconditioning import edm_coefficients
from tests.scale_mixtures import D, scale_mixture

KEY = jax.random.key(6)
SIGMAS = np.array([20.0, 1.0, 0.1])
SKIP = np.asarray(edm_coefficients(jnp.asarray(SIGMAS)).skip)


def normal_images(count, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((count, D)).astype(dtype)


def test_what_a_gaussian_denoiser_adds_is_affine_and_leaves_the_posterior_variance(x64):
    """Of data N(mean, diag(lam)) the skip leaves ``(1 - c)^2 lam + c^2 sigma^2``, the posterior mean ``lam sigma^2 /
    (lam + sigma^2)``."""
    variances = 4.0 / np.arange(1, D + 1) ** 2
    model = GaussianDenoiser(np.full(D, 3.0), np.eye(D), variances)
    images = 3.0 + np.sqrt(variances) * normal_images(1200, np.float64)
    found = contribution_scores(model, images, SIGMAS, KEY, skip=SKIP, triples=400, batch_size=150)
    np.testing.assert_allclose(found.linearity().value, 1, atol=1e-12)
    c, s = SKIP[:, None], SIGMAS[:, None]
    left = ((1 - c) ** 2 * variances + (c * s) ** 2).sum(axis=1)
    expected = (variances * s**2 / (variances + s**2)).sum(axis=1) / left
    estimate = found.remaining()
    np.testing.assert_array_less(np.abs(estimate.value - expected), 4 * np.asarray(estimate.standard_error) + 1e-12)
    assert (np.asarray(estimate.standard_error)[1:] < 0.02).all()


@pytest.mark.parametrize(
    ("hermite", "score"),
    [(lambda z: z, 1.0), (lambda z: z**2, 5 / 9), (lambda z: z**3 - 3 * z, 11 / 27), (lambda z: z + z**2, 19 / 27)],
)
def test_scores_of_polynomials_of_gaussian_inputs(hermite, score):
    """The correlation of degree k is ``sum of weights^(k + 1)``; z and z^2 share their variance of 3 as 1 to 2."""
    model = jax.tree_util.Partial(lambda x, sigma: 7.0 + 0.5 * x + hermite(x / jnp.sqrt(1 + sigma**2)))
    estimate = contribution_scores(
        model, normal_images(1200), SIGMAS, KEY, skip=np.full(3, 0.5), triples=400
    ).linearity()
    np.testing.assert_allclose(estimate.value, score, atol=0.02)
    assert (estimate.low <= score + 0.02).all() and (estimate.high >= score - 0.02).all()


def test_scores_equal_a_slow_computation_of_the_memorising_denoiser(x64):
    """One triple at a time, in NumPy, with each triple left out in turn."""
    points, held, triples = scale_mixture(30, 0, np.float64), scale_mixture(15, 1, np.float64), 5
    found = contribution_scores(EmpiricalDenoiser(points), held, SIGMAS, KEY, skip=SKIP, triples=triples, batch_size=2)

    def memorised(x, sigma):
        logits = -((x - points) ** 2).sum(axis=1) / (2 * sigma**2)
        weights = np.exp(logits - logits.max())
        return weights @ points / weights.sum()

    for level, (sigma, skip) in enumerate(zip(SIGMAS, SKIP)):
        noisy = np.asarray(noisy_batch(KEY, held, sigma, level))
        added = np.stack([memorised(x, sigma) - skip * x for x in noisy])
        mean, wanted = added.mean(axis=0), held - skip * noisy
        given, target = [], []
        for j in range(triples):
            x, g = noisy[3 * j : 3 * j + 3], added[3 * j : 3 * j + 3]
            mixed = (2 * x[0] + 2 * x[1] - x[2]) / 3
            given.append(memorised(mixed, sigma) - skip * mixed - mean)
            target.append((2 * g[0] + 2 * g[1] - g[2]) / 3 - mean)
        given, target, error = np.array(given), np.array(target), wanted - added

        def correlation(rows, given=given, target=target):
            a, b = given[rows], target[rows]
            return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())

        whole, without = found.linearity_parts()
        every = np.arange(triples)
        np.testing.assert_allclose(whole[level], correlation(every), rtol=1e-9)
        left_out = [correlation(every[every != j]) for j in every]
        np.testing.assert_allclose(without[level], left_out, rtol=1e-9)
        spread = np.sqrt((triples - 1) * np.var(left_out))
        np.testing.assert_allclose(np.asarray(found.linearity().standard_error)[level], spread, rtol=1e-9)
        np.testing.assert_allclose(found.remaining().value[level], error.var(axis=0).sum() / wanted.var(axis=0).sum())
    # Far from affine at low noise, and of harm to images that it does not know.
    assert found.linearity().value[2] < 0.8 and found.remaining().value[2] > 1


def test_the_intervals_cover():
    """``z + z^2`` of Gaussian inputs scores 19/27; the claims rest on 100 triples, of 6 the intervals are too short."""
    rng, truth, runs = np.random.default_rng(3), 19 / 27, 1000
    for triples, least in ((6, 0.87), (100, 0.92)):
        z = rng.standard_normal((runs, triples, 3, 4))
        mixed = np.einsum("rtkd,k->rtd", z, AFFINE_WEIGHTS)
        added, given = z + z**2, mixed + mixed**2
        mean = added.mean(axis=(1, 2))[:, None]
        given, target = given - mean, np.einsum("rtkd,k->rtd", added, AFFINE_WEIGHTS) - mean
        products, a, b = ((x * y).sum(axis=-1) for x, y in ((given, target), (given, given), (target, target)))
        estimate = ContributionScores(np.ones(runs), products, a, b, a, b).linearity()
        covered = np.mean((estimate.low <= truth) & (truth <= estimate.high))
        assert least < covered < 0.98, (triples, covered)


def test_a_multiple_of_the_input_and_a_constant_change_nothing(x64):
    """The skip's part is linear whatever the network is: it must not show in the score."""
    points, held = scale_mixture(30, 0, np.float64), scale_mixture(15, 1, np.float64)
    model = EmpiricalDenoiser(points)
    plain = contribution_scores(model, held, SIGMAS, KEY, skip=np.zeros(3), triples=5)
    hidden = contribution_scores(
        jax.tree_util.Partial(lambda x, sigma: model(x, sigma) + 40 * x + 5.0), held, SIGMAS, KEY, skip=np.full(3, 40.0),
        triples=5,
    )  # fmt: skip
    np.testing.assert_allclose(hidden.linearity().value, plain.linearity().value, rtol=1e-9)


def test_bad_input_is_named():
    held, model = scale_mixture(20, 1), GaussianDenoiser(np.zeros(D, np.float32), np.eye(D), np.ones(D))
    with pytest.raises(InputError, match="images = '20 images': must be at least 21"):
        contribution_scores(model, held, SIGMAS, KEY, skip=SKIP, triples=7)
    with pytest.raises(InputError, match="triples = 1"):
        contribution_scores(model, held, SIGMAS, KEY, skip=SKIP, triples=1)
    with pytest.raises(InputError, match=r"skip.shape = \(2,\): must be \(3,\), one for each level"):
        contribution_scores(model, held, SIGMAS, KEY, skip=SKIP[:2], triples=3)
    broken = lambda x, sigma: jnp.where(sigma < 10, jnp.nan, x)  # noqa: E731
    with pytest.raises(InputError, match="non-finite output at sigma = 1, example 0"):
        contribution_scores(broken, held, SIGMAS, KEY, skip=np.zeros(3), triples=3)
    for nothing in (lambda x, sigma: x / 3, lambda x, sigma: x / 3 + 1.0):
        with pytest.raises(InputError, match=r"adds to skip \* x is constant at sigma = 20: must vary"):
            contribution_scores(nothing, held, SIGMAS, KEY, skip=np.full(3, 1 / 3), triples=3)
