"""Fits of mixtures of low-rank Gaussians: class moments against NumPy, EM against what was planted and its own
promises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import fit_classes, fit_mixture
from dgu.analysis.subspaces.distances import adjusted_rand_index, principal_angles
from dgu.analysis.subspaces.mixture_em import em_mixture, starting_labels
from dgu.core.errors import InputError
from dgu.models import MoLRG

D, K, RANK, N = 16, 3, 3, 300


def planted(seed, zero_means=False, noise_std=0.05, ranks=(RANK,) * K):
    rng = np.random.default_rng(seed)
    return MoLRG.random(
        jax.random.key(seed),
        (D,),
        ranks,
        weights=np.array([0.45, 0.3, 0.25]),
        means=(0.0 if zero_means else 0.7) * rng.standard_normal((K, D)),
        variances=[rng.uniform(0.5, 2.0, rank) for rank in ranks],
        noise_std=noise_std,
        overlap=None if seed % 2 else 0,
    )


def draw(law, seed, n=N):
    key = jax.random.key(1000 + seed)
    return np.asarray(law.sample(key, np.arange(n))), law.labels(key, np.arange(n))


@pytest.mark.parametrize("rank", [3, (1, 4)])
@pytest.mark.parametrize("size", [5, 40])
def test_classes_are_their_moments(x64, rank, size):
    """With fewer examples than dimensions, and with more; the classes in any order."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3 * size, 3, 4)) * np.linspace(0.2, 2, 12).reshape(3, 4)
    labels = np.repeat([1, 0, 1], size)
    law = fit_classes(images, labels, rank)
    np.testing.assert_allclose(law.weights, [1 / 3, 2 / 3])
    ranks = (rank, rank) if isinstance(rank, int) else rank
    assert law.ranks.tolist() == list(ranks)
    left = 0.0
    for k, r in enumerate(ranks):
        own = images[labels == k].reshape(-1, 12)
        np.testing.assert_allclose(np.asarray(law.means)[k].ravel(), own.mean(0), atol=1e-14)
        values, vectors = np.linalg.eigh(np.cov(own, rowvar=False, ddof=0))
        expected = (vectors[:, -r:] * values[-r:]) @ vectors[:, -r:].T
        basis = np.asarray(law.bases)[k].reshape(12, -1)
        np.testing.assert_allclose((basis * np.asarray(law.variances)[k]) @ basis.T, expected, atol=1e-12)
        left += len(own) / len(images) * values[:-r].sum()
    noisy = fit_classes(images, labels, rank, residual=True)
    expected = np.sqrt(left / (24 / 2 - (ranks[0] + 2 * ranks[1]) / 3))
    np.testing.assert_allclose(noisy.noise_std, expected, rtol=1e-10)
    assert law.noise_std == 0


def test_bad_input_is_named():
    images, labels = np.random.default_rng(1).standard_normal((12, 5)), np.repeat([0, 2], 6)
    with pytest.raises(
        InputError, match=r"labels = 'no example of component \[1\]': must be at least one of each of 3"
    ):
        fit_classes(images, labels, 2)
    with pytest.raises(InputError, match="rank = 6: must be from 1 to 5: 5 dimensions, 12 examples of component 0"):
        fit_classes(images, np.zeros(12, int), 6)
    with pytest.raises(InputError, match="rank = 3: must be from 1 to 2: 5 dimensions, 3 examples of component 0"):
        fit_classes(images[:3], np.zeros(3, int), 3)
    with pytest.raises(InputError, match=r"labels = \[2\]: must be components, 0 to 1"):
        fit_classes(images, labels, 2, components=2)
    key = jax.random.key(0)
    with pytest.raises(InputError, match="components = 13: must be from 1 to the number of examples 12"):
        fit_mixture(images, 13, 2, key)
    with pytest.raises(InputError, match="rank = 5: must be from 1 to 4: 5 dimensions, 12 examples"):
        fit_mixture(images, 2, 5, key)
    with pytest.raises(InputError, match="criterion = 'aic': must be None or 'bic'"):
        fit_mixture(images, 2, 2, key, criterion="aic")
    with pytest.raises(InputError, match="images = 'constant': must be examples that differ"):
        fit_mixture(np.ones((12, 5)), 2, 2, key)


def test_em_recovers_planted_mixtures_and_its_likelihood_never_falls():
    """Eight problems at once, half of them with orthogonal subspaces, half with means of 0: six starts each, the best
    kept.
    """
    laws = [planted(seed, zero_means=seed % 4 < 2) for seed in range(8)]
    data, labels = (np.stack(part) for part in zip(*(draw(law, seed) for seed, law in enumerate(laws))))

    @jax.jit
    @jax.vmap
    def fit(rows, key):
        keys = jax.random.split(key, 6)
        starts = [
            jax.vmap(lambda k, m=of_means: starting_labels(k, rows, K, RANK, m))(part)
            for of_means, part in ((True, keys[:3]), (False, keys[3:]))
        ]
        members = jax.nn.one_hot(jnp.concatenate(starts), K, dtype=rows.dtype)
        options = {"rank": RANK, "iterations": 60, "noise_floor": 1e-3}
        runs = jax.vmap(lambda member: em_mixture(rows, member, jnp.full(K, RANK), **options))(members)
        best = jax.tree.map(lambda leaf: leaf[jnp.argmax(runs.likelihood[:, -1])], runs)
        member = jax.vmap(lambda x: best.mixture.responsibilities(x, 0.0))(rows)
        return best, runs, jnp.argmax(member, axis=1)

    best, runs, found = fit(jnp.asarray(data), jax.random.split(jax.random.key(2), 8))
    # Every run, not the best alone: no update lowers the likelihood beyond rounding, but one that re-seeds.
    rise, kept = np.diff(np.asarray(runs.likelihood), axis=2), np.asarray(runs.reseeded) == 0
    assert rise[kept].min() > -2e-5 and rise.max() > 0.1
    pairs = []
    for law, label, mine, bases in zip(laws, labels, np.asarray(found), np.asarray(best.mixture.bases)):
        assert adjusted_rand_index(mine, label) > 0.95
        matches = [np.bincount(mine[label == k], minlength=K).argmax() for k in range(K)]
        pairs += list(zip(bases[matches], np.asarray(law.bases)))
    angles = jax.jit(jax.vmap(principal_angles))(*(jnp.stack(part) for part in zip(*pairs)))
    assert angles.shape == (8 * K, RANK) and np.degrees(np.asarray(angles).max()) < 5
    np.testing.assert_allclose(best.mixture.noise_std, 0.05, rtol=0.05)


def of_three_ranks():
    law = planted(3, ranks=(1, 4, 2))
    return law, *draw(law, 3, 400)


def by_criterion(data):
    return fit_mixture(data, K, 6, jax.random.key(4), criterion="bic", restarts=4)


def test_ranks_by_criterion(x64):
    law, data, labels = of_three_ranks()
    found = by_criterion(data.astype(np.float64))
    assert adjusted_rand_index(found.labels, labels) > 0.95 and found.converged and found.restarts.shape == (4,)
    truth = [np.bincount(labels[found.labels == k], minlength=K).argmax() for k in range(K)]
    assert found.law.ranks.tolist() == law.ranks[truth].tolist()
    assert abs(float(found.law.noise_std) - 0.05) < 0.0025
    # The mean log density is that of the law returned, and the criterion counts its numbers.
    density = jax.jit(jax.vmap(lambda x: found.law.log_density(x, 0.0)))(jnp.asarray(data, float)).mean()
    np.testing.assert_allclose(found.likelihood[-1], density, rtol=1e-12)
    numbers = 2 + 3 * D + 1 + sum(D * r - r * (r - 1) // 2 for r in found.law.ranks.tolist())
    np.testing.assert_allclose(found.bic, numbers * np.log(400) - 800 * found.likelihood[-1], rtol=1e-12)


@pytest.mark.slow  # both programs compiled twice; the one of double precision is above
def test_both_precisions_agree():
    _, data, labels = of_three_ranks()
    single = by_criterion(data)
    with jax.enable_x64(True):
        double = by_criterion(data.astype(np.float64))
    assert adjusted_rand_index(single.labels, labels) > 0.95 and single.converged
    order = [np.bincount(single.labels[double.labels == k], minlength=K).argmax() for k in range(K)]
    assert double.law.ranks.tolist() == single.law.ranks[order].tolist()
    np.testing.assert_allclose(single.likelihood[-1], double.likelihood[-1], rtol=1e-5)
    assert (single.labels == np.array(order)[double.labels]).mean() > 0.995
    for name in ("weights", "means", "variances"):
        np.testing.assert_allclose(
            np.asarray(getattr(single.law, name))[order], getattr(double.law, name), rtol=1e-2, atol=2e-3
        )
    assert abs(float(single.law.noise_std) - 0.05) < 0.0025


def test_an_emptied_component_is_reseeded_and_told():
    law = planted(5)
    data, _ = draw(law, 5)
    rows = jnp.asarray(data)
    # The third component starts without examples.
    start = jax.nn.one_hot(jnp.asarray(np.arange(N) % 2), K)
    fit = jax.jit(
        lambda rows, start: em_mixture(rows, start, jnp.full(K, RANK), rank=RANK, iterations=60, noise_floor=1e-3)
    )
    run = fit(rows, start)
    told, trace = np.asarray(run.reseeded), np.asarray(run.likelihood)
    assert told[0] == 1 and told.sum() < 5
    assert np.diff(trace)[told == 0].min() > -2e-5
    assert float(run.mixture.weights.min()) * N > 10


@pytest.mark.slow
def test_data_on_their_subspaces_meet_the_floor():
    law = planted(6, noise_std=0.0)
    data, labels = draw(law, 6)
    fit = fit_mixture(data, K, RANK, jax.random.key(6), restarts=4)
    assert adjusted_rand_index(fit.labels, labels) > 0.99
    spread = np.sqrt(np.square(data - data.mean(0)).mean())
    np.testing.assert_allclose(fit.law.noise_std, 1e-3 * spread, rtol=1e-4)
