"""k-means against every partition, a NumPy Lloyd and planted clusters; its starts' law; empty clusters; pairs of
clusters.
"""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import cluster_pairs, kmeans
from dgu.core.errors import InputError

#: By name, for the function of the package hides its module.
module = importlib.import_module("dgu.analysis.subspaces.kmeans")
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
#: Shared by tests, so that they share a program.
CLOUD = RNG.normal(size=(120, 4)).astype(np.float32) + 5


def planted(dtype=np.float64):
    """Five blobs 20 apart, of unequal sizes, in images of 2 x 2 pixels; labels."""
    middles = 20 * np.eye(5, 4) - 7
    labels = np.repeat(np.arange(5), (10, 20, 30, 40, 20))
    points = (middles[labels] + RNG.uniform(-1, 1, (120, 4))).astype(dtype).reshape(120, 2, 2)
    order = RNG.permutation(120)
    return points[order], labels[order]


def lloyd(points, centres):
    """The definition, until nothing changes: labels, centres and inertia after each update."""
    inertias = []
    while True:
        squared = ((points[:, None] - centres[None]) ** 2).sum(-1)
        labels = squared.argmin(1)
        inertias.append(squared.min(1).sum())
        new = np.stack([points[labels == c].mean(0) for c in range(len(centres))])
        if np.array_equal(new, centres):
            return labels, centres, inertias
        centres = new


def test_the_best_restart_is_the_best_partition(x64):
    """Nine points in the plane, three clusters: all 3,025 partitions."""
    points = np.random.default_rng(3).normal(size=(9, 2))
    own = np.array(list(itertools.product(range(3), repeat=9)))[:, None] == np.arange(3)[:, None]  # (all, 3, 9)
    own = own[own.any(axis=2).all(axis=1)]
    means = own @ points / own.sum(axis=2, keepdims=True)
    best = (own * np.square(points - means[:, :, None]).sum(axis=3)).sum(axis=(1, 2)).min()
    found = kmeans(points, 3, KEY, restarts=30, tolerance=0.0)
    assert found.inertia == pytest.approx(best, rel=1e-12) == found.inertias.min()
    assert found.inertias.max() > best * 1.01  # Single starts do end elsewhere.


def test_each_restart_is_lloyds_algorithm_from_its_own_start(x64):
    """All restarts in one program equal NumPy's loop, one by one; ``tolerance=0`` goes on until nothing changes."""
    points = CLOUD.astype(np.float64)
    found = kmeans(points, 5, KEY, restarts=4, tolerance=0.0)
    centred = points - points.mean(0)
    keys = jax.vmap(lambda r: jax.random.fold_in(KEY, r))(jnp.arange(4))
    start = jax.jit(jax.vmap(lambda key: module._start(jnp.asarray(centred), key, 5, jnp.ones(len(centred)))))
    ends = [lloyd(centred, centres) for centres in np.asarray(start(keys))]
    np.testing.assert_allclose(found.inertias, [inertias[-1] for *_, inertias in ends], rtol=1e-12)
    labels, centres, inertias = ends[int(found.inertias.argmin())]
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centres, centres + points.mean(0), rtol=1e-12)
    assert found.converged and found.iterations == len(inertias)
    np.testing.assert_array_equal(found.sizes, np.bincount(labels, minlength=5))


def test_inertia_never_rises():
    ends = [kmeans(CLOUD, 5, KEY, restarts=4, tolerance=0.0, max_iterations=most) for most in range(1, 9)]
    inertias = np.stack([end.inertias for end in ends])
    assert (np.diff(inertias, axis=0) <= 1e-6 * inertias[0]).all() and (inertias[-1] < inertias[0] * 0.999).any()
    assert [end.iterations for end in ends[:3]] == [1, 2, 3] and not ends[0].converged


def test_the_tolerance_is_in_units_of_the_mean_variance():
    """The run ends at the first update whose squared moves sum to no more than it; an offset and a scale change
    nothing.
    """
    fine = kmeans(CLOUD, 5, KEY, restarts=4, tolerance=0.0)
    rough = kmeans(CLOUD, 5, KEY, restarts=4, tolerance=0.05)
    assert rough.converged and fine.converged
    assert (rough.inertias >= fine.inertias * (1 - 1e-6)).all() and (rough.inertias > 1.001 * fine.inertias).any()
    moved = kmeans(1000 * CLOUD + 4096, 5, KEY, restarts=4, tolerance=0.05)
    assert moved.iterations == rough.iterations
    np.testing.assert_array_equal(moved.labels, rough.labels)


def test_planted_clusters_are_found_exactly(x64):
    points, labels = planted()
    found = kmeans(points, 5, KEY, restarts=4)
    middles = np.stack([points[labels == c].mean(0) for c in range(5)])
    order = [int(np.square(found.centres - middle).sum((1, 2)).argmin()) for middle in middles]
    assert sorted(order) == list(range(5)) and found.centres.shape == (5, 2, 2)
    np.testing.assert_array_equal(found.labels, np.array(order)[labels])
    np.testing.assert_allclose(found.centres[order], middles, atol=1e-12)
    expected = sum(np.square(points[labels == c] - middles[c]).sum() for c in range(5))
    assert found.inertia == pytest.approx(expected, rel=1e-12) and found.reseeded == 0


@pytest.mark.parametrize("gap", [1e4, 3e5])
def test_points_of_clusters_far_apart_go_to_the_nearest_centre(gap):
    """Two pairs of clusters, 12 apart in each, whose norms leave products no digit of that: against float64's
    differences.
    """
    rng = np.random.default_rng(4)
    truth = np.repeat(np.arange(4), 100)
    points = rng.normal(size=(400, 12))
    points[:, 0] += 12 * (truth % 2)
    points += gap * (truth // 2)[:, None]
    points = points.astype(np.float32)
    found = kmeans(points, 4, KEY)
    squared = ((points[:, None].astype(np.float64) - found.centres[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.labels, squared.argmin(axis=1))
    assert len(set(zip(found.labels, truth))) == 4 and found.sizes.tolist() == [100] * 4
    exact = sum(
        np.square(points[truth == c] - points[truth == c].mean(axis=0, dtype=np.float64)).sum() for c in range(4)
    )
    assert found.inertia == pytest.approx(exact, rel=1e-3)


def test_empty_clusters_move_to_the_farthest_points_and_are_counted(x64, monkeypatch):
    """From five centres in one place four are empty: they take the four farthest points, and the planted clusters are
    found.
    """
    points, _ = planted()
    monkeypatch.setattr(module, "_start", lambda x, key, clusters, weight: jnp.zeros((clusters, x.shape[1]), x.dtype))
    jax.clear_caches()
    once, found = (kmeans(points, 5, KEY, restarts=1, max_iterations=most) for most in (1, 300))
    jax.clear_caches()  # Programs made with the patch must not outlive it.
    flat = points.reshape(120, -1)
    far = flat[np.argsort(-np.square(flat - flat.mean(0)).sum(1))[:4]]
    np.testing.assert_allclose(once.centres.reshape(5, -1), np.concatenate([flat.mean(0)[None], far]), atol=1e-12)
    assert once.reseeded == 4 and not once.converged
    assert found.reseeded >= 4 and found.converged and (found.sizes > 0).all() and found.inertia < once.inertia


def test_starts_are_drawn_in_proportion_to_squared_distances():
    """From the point 0 of (0, 1, 3) the second centre is 1 one time in ten, and 3 nine times; the first is uniform."""
    x = jnp.asarray([[0.0], [1.0], [3.0]])
    starts = jax.jit(jax.vmap(lambda key: module._start(x, key, 2, jnp.ones(3))))(jax.random.split(KEY, 6000))[..., 0]
    first, second = np.asarray(starts).T
    for value, pairs in ((0, {1: 0.1, 3: 0.9}), (1, {0: 0.2, 3: 0.8}), (3, {0: 9 / 13, 1: 4 / 13})):
        n = int((first == value).sum())
        assert abs(n / 6000 - 1 / 3) < 4 * np.sqrt(2 / 9 / 6000)
        for other, share in pairs.items():
            measured = float((second[first == value] == other).mean())
            assert abs(measured - share) < 4 * np.sqrt(share * (1 - share) / n), (value, other)


def test_pairs_of_hand_made_centres():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 4.0], [0.5, 4.0], [30.0, 0.0]])
    labels = np.repeat(np.arange(5), (9, 8, 7, 6, 2))
    near, far = cluster_pairs(centres, labels, 2)
    assert (near.clusters, near.distance, near.sizes) == ((2, 3), 0.5, (7, 6))
    assert (far.clusters, far.sizes) == ((2, 4), (7, 2)) and far.distance == pytest.approx(np.hypot(30, 4))
    # Without the cluster of two points.
    near, far = cluster_pairs(centres, labels, 6, smallest=3)
    assert (near.clusters, far.clusters) == ((2, 3), (1, 2)) and far.distance == pytest.approx(np.hypot(10, 4))
    # Of equal distances the lowest numbers.
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    near, far = cluster_pairs(square, np.arange(4), 1)
    assert (near.clusters, far.clusters) == ((0, 1), (0, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cluster_pairs(np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1, 1, 2]), 2), "points of cluster 2, one of the farthest pair, = 1: must be at least 2"),
        (lambda: cluster_pairs(np.eye(3), np.array([0, 0, 1, 2]), 1, smallest=2), "clusters of 2 points or more = 1: must be 2 or more"),
        (lambda: cluster_pairs(np.eye(3), np.array([0, 3]), 1), r"labels = \(0, 3\): must be from 0 to 2"),
        (lambda: kmeans(np.array([[0.0], [-0.0], [1.0]]), 3, KEY), "clusters = 3: must be at most 2, the number of different points"),
        (lambda: kmeans(CLOUD, 0, KEY), "clusters = 0"),
        (lambda: kmeans(CLOUD, 2, KEY, restarts=0), "restarts = 0"),
        (lambda: kmeans(CLOUD, 2, KEY, tolerance=-1.0), r"tolerance = -1\.0"),
        (lambda: kmeans(np.full((3, 1), np.nan), 2, KEY), "points = 'non-finite'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
