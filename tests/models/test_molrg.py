"""Mixtures of low-rank Gaussians as laws: against scipy's densities, dense algebra, derivatives and their own draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dgu.core.errors import InputError
from dgu.models import MoLRG, random_subspaces

EVENT, D = (2, 3, 2), 12
RANKS = (3, 1, 4)
#: (noise, scale): EDM, the variance-preserving process early and late, and a scale above 1.
LEVELS = ((0.3, 1.0), (0.2, np.sqrt(1 - 0.04)), (0.98, np.sqrt(1 - 0.98**2)), (0.5, 3.0))


def planted(noise_std=0.0, seed=0):
    rng = np.random.default_rng(seed)
    bases = [np.linalg.qr(rng.standard_normal((D, rank)))[0].reshape(*EVENT, rank) for rank in RANKS]
    variances = [rng.uniform(0.2, 2.0, rank) for rank in RANKS]
    return MoLRG.of(np.array([0.5, 0.2, 0.3]), 0.5 * rng.standard_normal((3, *EVENT)), bases, variances, noise_std)


def covariances(law):
    out = []
    for basis, variances in zip(np.asarray(law.bases).reshape(3, D, -1), np.asarray(law.variances)):
        kept = basis[:, variances > 0]
        rest = float(law.noise_std) ** 2 * (np.eye(D) - kept @ kept.T)
        out.append((kept * variances[variances > 0]) @ kept.T + rest)
    return out


def log_density(law, x, noise, scale):
    """By scipy, of one flat row or many."""
    means = np.asarray(law.means).reshape(3, D)
    of = [
        np.log(weight) + multivariate_normal(scale * mean, scale**2 * c + noise**2 * np.eye(D)).logpdf(x)
        for weight, mean, c in zip(np.asarray(law.weights), means, covariances(law))
    ]
    return logsumexp(of, axis=0)


@pytest.mark.parametrize("noise_std", [0.0, 0.2])
def test_density_score_mean_and_jacobian_agree_with_each_other_and_scipy(x64, strict_dtypes, noise_std):
    law = planted(noise_std)
    assert law.ranks.tolist() == list(RANKS)
    rng = np.random.default_rng(1)

    @jax.jit
    def everything(law, x, noise, scale):
        by_x = jax.grad(law.log_density), jax.jacfwd(law.posterior_mean)
        closed = law.log_density(x, noise, scale), law.score(x, noise, scale), law.posterior_mean(x, noise, scale)
        derived = tuple(function(x, noise, scale) for function in by_x)
        return (*closed, law.jacobian(x, noise, scale), *derived, law.responsibilities(x, noise, scale))

    for noise, scale in LEVELS:
        for component in range(3):
            x = scale * np.asarray(law.means)[component] + np.hypot(scale, noise) * 0.6 * rng.standard_normal(EVENT)
            density, score, mean, jacobian, gradient, slope, shares = everything(law, x, noise, scale)
            np.testing.assert_allclose(density, log_density(law, x.ravel(), noise, scale), rtol=1e-10)
            # Tweedie's identity: scale E[x0 | x] = x + noise^2 grad log p, the gradient by differentiation.
            assert np.abs(scale * mean - x - noise**2 * gradient).max() < 1e-10
            np.testing.assert_allclose(score, gradient, rtol=0, atol=1e-10 * np.abs(gradient).max())
            np.testing.assert_allclose(jacobian, slope, rtol=0, atol=1e-10 * np.abs(slope).max())
            flat = np.asarray(jacobian).reshape(D, D)
            np.testing.assert_allclose(flat, flat.T, atol=1e-12)
            assert np.linalg.eigvalsh(flat).min() > -1e-12
            np.testing.assert_allclose(shares.sum(), 1, rtol=1e-12)


def test_the_score_keeps_its_digits_at_small_noise():
    """In float32 the difference of denoiser and example has none left at 0.002; the closed form has."""
    law = planted()
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), law)
    rng = np.random.default_rng(2)
    basis = np.asarray(law.bases, np.float64)[0].reshape(D, -1)[:, :3]
    on = np.asarray(law.means, np.float64)[0].ravel() + basis @ np.array([0.9, -0.4, 0.3])
    x = (on + 0.002 * rng.standard_normal(D)).astype(np.float32)
    covariance = (basis * np.asarray(law.variances, np.float64)[0, :3]) @ basis.T + 0.002**2 * np.eye(D)
    expected = -np.linalg.solve(covariance, x.astype(np.float64) - np.asarray(law.means, np.float64)[0].ravel())
    found = np.asarray(jax.jit(lambda law, x: law.score(x, 0.002))(single, x.reshape(EVENT))).ravel()
    assert np.abs(found - expected).max() < 2e-4 * np.abs(expected).max()


def test_samples_have_the_law_and_their_addresses(x64):
    law = planted(0.2)
    key, n = jax.random.key(3), 20_000
    samples, labels = np.asarray(law.sample(key, np.arange(n))).reshape(n, D), law.labels(key, np.arange(n))
    weights = np.asarray(law.weights)
    counts = np.bincount(labels, minlength=3)
    assert (np.abs(counts - n * weights) < 4 * np.sqrt(n * weights * (1 - weights))).all()
    for component, covariance in enumerate(covariances(law)):
        of = samples[labels == component] - np.asarray(law.means)[component].ravel()
        diagonal = np.diag(covariance)
        assert np.abs(of.mean(0) / np.sqrt(diagonal / len(of))).max() < 4
        spread = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / len(of))
        assert np.abs((of.T @ of / len(of) - covariance) / spread).max() < 4.5
    # Any order, any selection, and with the labels told: the same samples.
    some = np.array([17, 3, 19_999])
    np.testing.assert_array_equal(np.asarray(law.sample(key, some)).reshape(3, D), samples[some])
    told = np.asarray(law.sample(key, some, labels[some])).reshape(3, D)
    np.testing.assert_array_equal(told, samples[some])
    other = np.asarray(law.sample(key, some, (labels[some] + 1) % 3)).reshape(3, D)
    assert (np.abs(other - samples[some]).max(axis=1) > 1e-3).all()


def test_noise_free_samples_lie_on_their_subspaces():
    law = MoLRG.random(jax.random.key(4), (4, 4, 3), (6, 2, 4))
    labels = np.array([0, 1, 2, 1])
    samples = np.asarray(law.sample(jax.random.key(5), np.arange(4), labels)).reshape(4, 48)
    bases = np.asarray(law.bases).reshape(3, 48, 6)
    for sample, label in zip(samples, labels):
        coordinates = bases[label, :, : law.ranks[label]].T @ sample
        np.testing.assert_allclose(bases[label, :, : law.ranks[label]] @ coordinates, sample, atol=1e-6)
        others = [bases[k, :, : law.ranks[k]].T @ sample for k in range(3) if k != label]
        assert max(np.abs(other).max() for other in others) < 1e-6


def test_subspaces_are_orthogonal_share_directions_or_meet_at_random(x64):
    key = jax.random.key(6)
    first, second, third = random_subspaces(key, 10, (3, 2, 4))
    stacked = np.concatenate([first, second, third], axis=1)
    np.testing.assert_allclose(stacked.T @ stacked, np.eye(9), atol=1e-14)
    shared = random_subspaces(key, 10, (3, 2, 4), overlap=2)
    singular = np.linalg.svd(np.asarray(shared[0]).T @ np.asarray(shared[2]), compute_uv=False)
    np.testing.assert_allclose(singular, [1, 1, 0], atol=1e-14)
    alone = random_subspaces(key, 10, (3, 3), overlap=None)
    inside = np.linalg.svd(np.asarray(alone[0]).T @ np.asarray(alone[1]), compute_uv=False)
    assert 0.05 < inside.min() and inside.max() < 0.999
    # Uniform: each entry of a projector of rank r in n dimensions has mean r / n on the diagonal.
    many = jax.jit(jax.vmap(lambda k: random_subspaces(k, 6, (2,))[0]))(jax.random.split(key, 2000))
    diagonal = np.einsum("ndr,ndr->nd", many, many)
    assert np.abs(diagonal.mean(0) - 2 / 6).max() < 4 * diagonal.std() / np.sqrt(2000)
    assert np.abs(np.asarray(many).mean(0)).max() < 4 * np.sqrt(1 / 6 / 2000)


def test_bad_input_is_named():
    basis, ones = np.eye(4)[:, :2], np.ones((1, 2))
    with pytest.raises(InputError, match=r"weights = 'weights of sum 0.9': must be weights that sum to 1"):
        MoLRG.of(np.array([0.5, 0.4]), np.zeros((2, 4)), [basis, basis], [ones[0], ones[0]])
    with pytest.raises(InputError, match=r"bases\[1\] = 'columns off orthonormal by 0.21': must be orthonormal"):
        MoLRG.of(np.full(2, 0.5), np.zeros((2, 4)), [basis, 1.1 * basis], [ones[0], ones[0]])
    with pytest.raises(InputError, match=r"bases\[0\] = 'a basis of rank 5': must be of rank 1 to the dimension 4"):
        MoLRG.of(np.ones(1), np.zeros((1, 4)), np.ones((1, 4, 5)), np.ones((1, 5)))
    with pytest.raises(InputError, match="off orthonormal by nan"):
        MoLRG.of(np.ones(1), np.zeros((1, 4)), np.full((1, 4, 2), np.nan), ones)
    with pytest.raises(InputError, match=r"variances\[0\] = \[1.0, -1.0\]"):
        MoLRG.of(np.ones(1), np.zeros((1, 4)), basis[None], np.array([[1.0, -1.0]]))
    with pytest.raises(InputError, match=r"bases\[0\].shape = \(4, 2\): must be \(2, 2\) \+ \(r,\)"):
        MoLRG.of(np.ones(1), np.zeros((1, 2, 2)), basis[None], ones)
    with pytest.raises(InputError, match="noise_std = -1"):
        MoLRG.of(np.ones(1), np.zeros((1, 4)), basis[None], ones, -1.0)
    with pytest.raises(InputError, match=r"ranks = \(3, 3\): must be such that their 6 directions fit in dimension 5"):
        random_subspaces(jax.random.key(0), 5, (3, 3))
    with pytest.raises(InputError, match="overlap = 4"):
        random_subspaces(jax.random.key(0), 5, (3, 3), overlap=4)
    with pytest.raises(InputError, match=r"ranks = \(6,\): must be at most the dimension 5"):
        random_subspaces(jax.random.key(0), 5, (6,), overlap=None)
    law = MoLRG.of(np.ones(1), np.zeros((1, 4)), basis[None], ones)
    with pytest.raises(InputError, match=r"labels = \[1\]: must be components, 0 to 0"):
        law.sample(jax.random.key(0), np.arange(2), np.array([0, 1]))
    with pytest.raises(InputError, match=r"labels.shape = \(1,\): must be one for each index, \(2,\)"):
        law.sample(jax.random.key(0), np.arange(2), np.array([0]))
