"""Angles, projectors and recovery against scipy; PCA, K-subspaces and SGD against theory and slow twins; programs
counted.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import monitoring

from dgu.analysis import (
    exact_loss,
    gap_to_bound,
    grid_cells,
    k_subspaces,
    lloyd,
    low_rank_problems,
    orthonormalised,
    principal_basis,
    projector_distances,
    random_starts,
    recover_by_k_subspaces,
    recover_by_pca,
    recover_by_sgd,
    recovery,
    spectral_labels,
    subspace_distances,
    train_subspaces,
    truth_starts,
    vp_grid,
)
from dgu.analysis.subspaces.distances import adjusted_rand_index, principal_angles
from dgu.core.errors import InputError
from dgu.models import HardmaxNetwork, SoftmaxNetwork, random_basis
from dgu.training.subspaces.sgd import batch_loss, draw_batch

RANKS, SIZES = range(2, 9), range(2, 16)


# Pure functions, to be compiled as a whole by who calls them.
compiled_labels = jax.jit(spectral_labels, static_argnums=3)
compiled_clusters = jax.jit(k_subspaces, static_argnames=("clusters", "width"))
compiled_lloyd = jax.jit(lloyd, static_argnums=1, static_argnames="restarts")


def bases(*shape, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal(shape))[0]


def test_angles_and_projectors_against_scipy(x64):
    a, b = bases(9, 4), bases(9, 2, seed=1)
    np.testing.assert_allclose(principal_angles(a, b), scipy.linalg.subspace_angles(a, b)[::-1], atol=1e-14)
    # Tiny angles, of which cosines know nothing.
    near = np.linalg.qr(a + 1e-9 * bases(9, 4, seed=2))[0]
    angles = np.asarray(principal_angles(a, near))
    np.testing.assert_allclose(angles, scipy.linalg.subspace_angles(a, near)[::-1], rtol=1e-5)
    # Of many pairs at once the two decompositions must not run side by side: there is one, in a loop.
    together, others = jax.vmap(principal_angles, in_axes=(None, 0)), np.stack([near, bases(9, 4, seed=1)])
    np.testing.assert_allclose(together(a, others)[0], angles, rtol=1e-5)
    kernels = [line for line in jax.jit(together).lower(a, others).as_text().splitlines() if "gesdd" in line]
    assert len(kernels) == 1 and "tensor<9x4xf64>" in kernels[0]
    first, second = np.stack([a[:, :3], bases(9, 3, seed=3)]), np.stack([bases(9, 3, seed=4)])
    spectral, frobenius = projector_distances(first, second)
    for k in range(2):
        difference = first[k] @ first[k].T - second[0] @ second[0].T
        np.testing.assert_allclose(spectral[k, 0], np.linalg.norm(difference, 2), rtol=1e-10)
        np.testing.assert_allclose(frobenius[k, 0], np.linalg.norm(difference), rtol=1e-10)


def test_recovery_is_up_to_the_order_of_components(x64):
    truth = np.moveaxis(bases(12, 9).reshape(12, 3, 3), 1, 0)
    turned = truth[[2, 0, 1]] @ bases(3, 3, seed=5)
    found = recovery(jnp.asarray(turned), jnp.asarray(truth))
    assert found.order.tolist() == [1, 2, 0] and bool(found.success)
    np.testing.assert_allclose(found.distances, 0, atol=1e-7)
    # Two of three right: the mean distance is 1 / 3; one right: 2 / 3.
    other = np.linalg.qr(np.random.default_rng(6).standard_normal((12, 12)))[0]
    complement = scipy.linalg.null_space(np.concatenate(truth, axis=1).T)
    wrong = complement[:, :3]
    assert other.shape == (12, 12)
    assert bool(recovery(jnp.asarray(np.stack([truth[1], wrong, truth[0]])), jnp.asarray(truth)).success)
    twice = recovery(jnp.asarray(np.stack([truth[1], wrong, wrong])), jnp.asarray(truth))
    assert not bool(twice.success)
    np.testing.assert_allclose(np.sort(twice.frobenius), [0, np.sqrt(6), np.sqrt(6)], atol=1e-6)
    with pytest.raises(InputError, match="truth = '8 components': must be at most 7"):
        recovery(jnp.zeros((8, 9, 1)), jnp.zeros((8, 9, 1)))


def test_orthonormalised_is_the_polar_factor_and_keeps_padding(x64):
    raw = np.random.default_rng(7).standard_normal((7, 3))
    expected, _ = scipy.linalg.polar(raw)
    padded = np.concatenate([raw, np.zeros((7, 2))], axis=1)
    np.testing.assert_allclose(orthonormalised(jnp.asarray(padded)), np.pad(expected, ((0, 0), (0, 2))), atol=1e-12)


def test_pca_succeeds_exactly_where_theory_says_in_one_program():
    compiled = []
    monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    trials = 20
    cells = grid_cells(RANKS, SIZES, range(trials))
    theory = cells.sizes >= cells.ranks
    draw = {"dimension": 48, "components": 1}
    clean = low_rank_problems(jax.random.key(0), *cells, **draw)
    before = len(compiled)
    found = recover_by_pca(clean)
    # 98 cells of 7 ranks and 14 sizes: one program, or none where another test left it in the cache.
    assert len(compiled) - before <= 1
    np.testing.assert_array_equal(found.success, theory)
    before = len(compiled)
    noisy = low_rank_problems(jax.random.key(0), *cells, noise=0.01, **draw)
    found = recover_by_pca(noisy)
    assert len(compiled) == before
    success, over = np.asarray(found.success), cells.sizes - cells.ranks
    assert not success[over < 0].any()
    assert success[over >= 2].mean() > 0.98 and 0.5 < success[over == 0].mean() < 0.95
    # The noisy problems are the clean ones and noise, of the size that the bound is told.
    off = np.asarray(noisy.rows - clean.rows)
    np.testing.assert_allclose(np.square(off).sum((1, 2)), noisy.noise[:, 0], rtol=1e-3)
    np.testing.assert_allclose(off.std(), 0.01 * np.sqrt(np.mean(cells.sizes) / SIZES[-1]), rtol=0.01)
    # (13): the distance over its unit has one constant for all cells, but for the odd trial that is promised.
    ratio = np.asarray(found.frobenius / gap_to_bound(noisy))[:, 0]
    assert (ratio[over >= 3] < 3).mean() > 0.99


def test_problems_are_addressed_and_their_truth_is_orthonormal():
    cells = grid_cells((2, 3), (3, 4), range(2))
    draw = {"dimension": 12, "components": 2, "noise": 0.1}
    whole = low_rank_problems(jax.random.key(1), *cells, **draw)
    some = [5, 0, 3]
    part = low_rank_problems(jax.random.key(1), *(axis[some] for axis in cells), width=3, length=4, **draw)
    for all_of, of_part in zip(whole, part):
        np.testing.assert_allclose(all_of[np.asarray(some)], of_part, atol=1e-6)
    gram = np.einsum("pknr,plns->pkrls", whole.truth, whole.truth).reshape(8, 6, 6)
    there = np.tile(np.arange(3)[None] < cells.ranks[:, None], 2)
    np.testing.assert_allclose(gram, there[:, :, None] * np.eye(6)[None] * there[:, None], atol=1e-6)
    assert (np.asarray(whole.present).sum(1) == 2 * cells.sizes).all()
    assert (np.asarray(whole.rows)[~np.asarray(whole.present)] == 0).all()
    with pytest.raises(InputError, match="width = 8: must be such that 3 of it fit in dimension 20"):
        low_rank_problems(jax.random.key(0), *np.array([[8], [4], [0]]), dimension=20, components=3)
    with pytest.raises(InputError, match="problems = '2 components'"):
        recover_by_pca(whole)


def test_k_subspaces_succeed_where_theory_says():
    cells = grid_cells((2, 5), (2, 3, 4, 5, 6, 7), range(4))
    theory = cells.sizes >= cells.ranks
    draw = {"dimension": 24, "components": 3}
    clean, _ = recover_by_k_subspaces(jax.random.key(2), low_rank_problems(jax.random.key(3), *cells, **draw), 1e-3)
    assert (np.asarray(clean.success) == theory).mean() > 0.97
    problems = low_rank_problems(jax.random.key(3), *cells, noise=0.01, **draw)
    noisy, _ = recover_by_k_subspaces(jax.random.key(2), problems, 0.1)
    success = np.asarray(noisy.success)
    assert not success[~theory].any() and success[cells.sizes >= cells.ranks + 2].mean() > 0.9


def test_the_spectral_start_takes_the_largest_eigenvalues():
    """Two pairs: eigenvalues 1, 1, -1, -1. Those largest in modulus would mix both."""
    rows = jnp.asarray([[1.0, 0.2, 0, 0], [1, -0.1, 0, 0], [0, 0, 1, 0.3], [0, 0, 0.9, 1], [0, 0, 0, 0]])
    present = jnp.asarray([True] * 4 + [False])
    labels = np.asarray(compiled_labels(jax.random.key(0), rows, present, 2, 0.05))[:4]
    assert labels[0] == labels[1] != labels[2] == labels[3]


def test_emptied_subspaces_and_clusters_are_filled_and_counted():
    rows = np.zeros((8, 6), np.float32)
    rng = np.random.default_rng(8)
    rows[:4, :2], rows[4:, 3:5] = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    found = compiled_clusters(jnp.asarray(rows), jnp.zeros(8, int), jnp.ones(8, bool), 2, clusters=2, width=2)
    labels = np.asarray(found.labels)
    assert int(found.reseeded) >= 1 and len(set(labels[:4])) == len(set(labels[4:])) == 1 and labels[0] != labels[4]
    np.testing.assert_allclose(found.objective, 8, rtol=1e-5)
    # More clusters than places: each keeps one, the rest are re-seeded again and again.
    twins = compiled_lloyd(
        jnp.asarray([[0.0], [0.0], [4.0], [4.0]]), 3, jax.random.key(0), restarts=2, max_iterations=5
    )
    assert int(twins.reseeded) >= 1 and float(twins.inertia) == 0
    with pytest.raises(InputError, match="clusters = 9: must be from 1 to the number of rows 8"):
        k_subspaces(jnp.asarray(rows), jnp.zeros(8, int), jnp.ones(8, bool), 2, clusters=9, width=2)


def test_k_means_of_the_points_present_finds_the_best_of_all_partitions(x64):
    points = np.random.default_rng(9).standard_normal((9, 2))
    best = np.inf
    for code in range(2**8):
        labels = np.array([0] + [code >> bit & 1 for bit in range(8)])
        if labels.any():
            best = min(best, sum(np.square(points[labels == k] - points[labels == k].mean(0)).sum() for k in (0, 1)))
    padded = np.concatenate([points, np.full((3, 2), 50.0)])
    found = compiled_lloyd(jnp.asarray(padded), 2, jax.random.key(1), present=jnp.arange(12) < 9, restarts=20)
    np.testing.assert_allclose(found.inertia, best, rtol=1e-12)


def test_the_batch_loss_is_that_of_the_networks_and_so_is_its_gradient(x64):
    """Against the hard-max network itself on each noisy example, for two problems that share a batch."""
    rng = np.random.default_rng(10)
    grid = vp_grid(16)
    rows, v = jnp.asarray(rng.standard_normal((2, 5, 7))), jnp.asarray(rng.standard_normal((7, 2, 3, 2)))
    counts = jnp.asarray([5.0, 3.0])
    batch = draw_batch(jax.random.key(2), grid, 11, 7)

    @jax.jit
    def slow(v):
        def of(p):
            x0 = rows[p][jnp.floor(batch.where * counts[p]).astype(int)]
            noisy = batch.scale[:, None] * x0 + batch.noise[:, None] * batch.eps
            out = jax.vmap(HardmaxNetwork(jnp.moveaxis(v[:, p], 0, 1)))(noisy, x0, batch.noise, batch.scale)
            return jnp.mean(jnp.sum((out - x0) ** 2, axis=1) - jnp.sum(x0**2, axis=1))

        return of(0) + of(1)

    value, slope = jax.jit(jax.value_and_grad(lambda v: jnp.sum(batch_loss(v, rows, counts, batch))))(v)
    np.testing.assert_allclose(value, slow(v), rtol=1e-12)
    np.testing.assert_allclose(slope, jax.jit(jax.grad(slow))(v), rtol=1e-10, atol=1e-12)


def test_the_exact_loss_is_the_mean_over_noise_and_smallest_at_pca(x64):
    rng = np.random.default_rng(11)
    rows, basis, grid = rng.standard_normal((6, 9)) * np.linspace(0.3, 2, 9), bases(9, 3), vp_grid(8)
    raw = basis @ rng.standard_normal((3, 3))
    eps = rng.standard_normal((20_000, 6, 9))
    for candidate in (basis, raw):
        losses = np.zeros(20_000)
        for s, gamma in zip(*grid):
            out = (s * rows + gamma * eps) @ candidate @ candidate.T * s / (s**2 + gamma**2)
            losses += np.square(out - rows).sum(2).mean(1) / 8
        error = losses.std() / np.sqrt(len(losses))
        assert abs(losses.mean() - float(exact_loss(candidate, rows, grid))) < 3 * error < 0.02 * losses.mean()
    # Orthonormal columns: the form of the theorem, and its minimum among many and by descent.
    s, gamma = grid
    zeta = s / (s**2 + gamma**2)
    energy = np.square(rows @ basis).sum(1).mean()
    told = np.square(rows).sum(1).mean() + np.mean(-(2 * zeta * s - (zeta * s) ** 2) * energy + (zeta * gamma) ** 2 * 3)
    np.testing.assert_allclose(exact_loss(basis, rows, grid), told, rtol=1e-12)
    best = principal_basis(jnp.asarray(rows), 3, 3)
    lowest = float(exact_loss(best, rows, grid))
    others = jax.jit(jax.vmap(lambda k: exact_loss(random_basis(k, 9, 3), jnp.asarray(rows), grid)))
    losses = others(jax.random.split(jax.random.key(3), 50))
    assert lowest < float(losses.min())

    def step(_, u):
        return orthonormalised(u - 0.1 * jax.grad(exact_loss)(u, jnp.asarray(rows), grid))

    end = jax.jit(lambda u: jax.lax.fori_loop(0, 4000, step, u))(jnp.asarray(basis))
    assert float(projector_distances(end[None], best[None])[0][0, 0]) < 1e-6


def test_sgd_shows_the_transition_in_one_program():
    compiled = []
    monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    cells = grid_cells((2, 3, 4), (2, 3, 5, 7), range(4))
    problems = low_rank_problems(jax.random.key(4), *cells, dimension=16, components=1)
    starts = random_starts(jax.random.key(5), problems.truth)
    keys = jax.random.split(jax.random.key(6), 4)
    options = {"steps": 1500, "batch_size": 64}
    found, raw, diverged = recover_by_sgd(keys, problems, starts, **options)
    # Trained on all devices, compared on one: decompositions on several at once can stop for ever.
    assert jax.device_count() > 1 and len(found.success.devices()) == 1
    # A few long points drive SGD away: no success, and said so.
    assert diverged.mean() < 0.05
    twice = random_starts(jax.random.key(5), problems.truth, 0.5)
    np.testing.assert_allclose(twice, 2 * starts, rtol=1e-6)
    over, success = cells.sizes - cells.ranks, np.asarray(found.success)
    assert success[over < 0].mean() < 0.1 and success[over >= 3].mean() > 0.8
    # As SGD leaves them, short columns fail the test: orthonormal ones are no luxury.
    assert np.asarray(raw.success)[over >= 3].mean() < success[over >= 3].mean() - 0.2
    before = len(compiled)
    again, _, _ = recover_by_sgd(keys, problems, twice, **options)
    assert len(compiled) == before and again.success.shape == success.shape


@pytest.mark.slow
def test_two_subspaces_need_a_start_near_them():
    cells = grid_cells((3,), (6, 7), range(8))
    problems = low_rank_problems(jax.random.key(7), *cells, dimension=16, components=2)
    keys = jax.random.split(jax.random.key(8), 8)
    near = truth_starts(jax.random.key(9), problems.truth)
    far = random_starts(jax.random.key(9), problems.truth)
    options = {"steps": 1500, "batch_size": 64}
    success = [np.asarray(recover_by_sgd(keys, problems, start, **options)[0].success).mean() for start in (near, far)]
    assert success[0] > 0.7 and success[1] < 0.4


def test_groups_share_nothing_and_divergence_is_told():
    cells = grid_cells((2,), (4,), range(2))
    problems = low_rank_problems(jax.random.key(4), *cells, dimension=8, components=1)
    start = random_starts(jax.random.key(5), problems.truth)
    twice, starts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (problems, start))
    keys, options = jax.random.split(jax.random.key(6), 2), {"steps": 200, "batch_size": 32}
    first = train_subspaces(keys, twice, starts, **options)
    assert np.abs(np.asarray(first[0] - first[1])).max(axis=(1, 2, 3)).min() > 1e-3
    swapped = train_subspaces(keys[::-1], twice, starts, **options)
    np.testing.assert_allclose(swapped[::-1], first, atol=1e-6)
    # One of the two problems of each group has a point a thousand times as long.
    long = problems._replace(rows=problems.rows.at[1].multiply(1000))
    long, both = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), (long, start))
    found, _, diverged = recover_by_sgd(keys, long, both, **options)
    assert diverged.tolist() == [False, True] * 2 and not np.asarray(found.success)[1::2].any()
    assert np.isfinite(np.asarray(found.frobenius)).all()
    with pytest.raises(InputError, match="steps = 0"):
        train_subspaces(keys, twice, starts, steps=0)
    with pytest.raises(InputError, match="keys = '2 groups': must be a number that divides the 3 problems"):
        recover_by_sgd(keys, problems, jnp.zeros((3, 1, 8, 2)))


def test_networks_are_posterior_means_of_their_laws(x64):
    rng = np.random.default_rng(12)
    parts = np.moveaxis(bases(8, 4).reshape(8, 2, 2), 1, 0)
    soft = SoftmaxNetwork(rng.standard_normal(2), rng.standard_normal((2, 8)), parts, rng.standard_normal((2, 2)))
    x, clean, s, gamma = jnp.asarray(rng.standard_normal(8)), jnp.asarray(parts[1, :, 0]), 0.8, 0.6
    logits = np.exp(soft.logits)
    lam = np.exp(soft.log_variances)
    densities, means = [], []
    for k in range(2):
        covariance = s**2 * (parts[k] * lam[k]) @ parts[k].T + gamma**2 * np.eye(8)
        v = np.asarray(x) - s * soft.means[k]
        densities.append(
            logits[k] * np.exp(-v @ np.linalg.solve(covariance, v) / 2) / np.sqrt(np.linalg.det(covariance))
        )
        shrunk = s**2 * lam[k] / (gamma**2 + s**2 * lam[k])
        means.append(soft.means[k] + (parts[k] * shrunk) @ (parts[k].T @ v) / s)
    expected = np.array(densities) / np.sum(densities) @ np.array(means)
    answer = jax.jit(lambda network: network(x, clean, gamma, s))
    np.testing.assert_allclose(answer(soft), expected, atol=1e-12)
    hard = HardmaxNetwork(parts)
    np.testing.assert_array_equal(hard.chosen(clean), [0, 1])
    gain = s / (s**2 + gamma**2)
    np.testing.assert_allclose(answer(hard), gain * parts[1] @ parts[1].T @ np.asarray(x), atol=1e-12)
    # (28): the same with soft-max weights of phi |U_k^T x|^2 / 2.
    phi = s**2 / (gamma**2 * (s**2 + gamma**2))
    weights = np.exp(phi / 2 * np.square(np.einsum("knr,n->kr", parts, x)).sum(1))
    mixed = gain * np.einsum("k,knr,kmr,m->n", weights / weights.sum(), parts, parts, x)
    mean = jax.jit(lambda x: hard.law().posterior_mean(x, gamma, s))(x)
    np.testing.assert_allclose(mean, mixed, atol=1e-12)


def test_adjusted_rand_index_of_small_cases():
    assert adjusted_rand_index(np.array([0, 0, 1, 1]), np.array([5, 5, 2, 2])) == 1
    assert adjusted_rand_index(np.zeros(4, int), np.zeros(4, int)) == 1
    # Counted by hand: pairs together in both, in the first and in the second, of 6: 1, 2, 1, then 0, 2, 2.
    np.testing.assert_allclose(
        adjusted_rand_index(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])), (1 - 2 / 6) / (1.5 - 2 / 6)
    )
    np.testing.assert_allclose(
        adjusted_rand_index(np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])), (0 - 4 / 6) / (2 - 4 / 6)
    )


def test_distances_to_subspaces_are_those_of_least_squares(x64):
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(9, 2, 3)), np.zeros((3, 6, 2))
    for place, rank in enumerate((2, 1, 2)):
        columns[place, :, :rank] = scipy.linalg.orth(rng.normal(size=(6, rank)))
    found = subspace_distances(rows, columns.reshape(3, 2, 3, 2))
    for place, basis in enumerate(columns):
        coefficients, *_ = np.linalg.lstsq(basis, rows.reshape(9, 6).T, rcond=None)
        expected = np.linalg.norm(rows.reshape(9, 6).T - basis @ coefficients, axis=0)
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-12)
    with pytest.raises(InputError, match=r"bases.shape = \(3, 6, 2\)"):
        subspace_distances(rows, columns)
