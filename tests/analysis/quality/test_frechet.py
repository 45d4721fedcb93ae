"""The Frechet distance against closed forms and SciPy's matrix square root, and the files that it reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis import (
    FeatureMoments,
    PCAFeatures,
    choose_rows,
    extract_features,
    frechet_distance,
    read_features,
    read_statistics,
    write_statistics,
)
from dgu.core.errors import InputError

KEY = jax.random.key(0)


def rotation(seed, d):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def rows(seed, n, d, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ (scale * rng.standard_normal((d, d))) + shift


def by_square_root(a, b):
    """The formula as FID codes have it: a matrix square root of the product."""
    covariances = [np.cov(x.T) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root).real


def distance(a, b):
    return frechet_distance(FeatureMoments.from_features(a), FeatureMoments.from_features(b))


def test_commuting_covariances_have_a_closed_form():
    """``|m - n|^2 + sum (sqrt(lam) - sqrt(mu))^2``, also with variances of 0 and without x64."""
    assert not jax.config.jax_enable_x64
    basis = rotation(0, 40)
    first, second = np.geomspace(10.0, 1e-12, 40), np.geomspace(1e-9, 3.0, 40)
    first[[3, 30]], second[[4, 30]] = 0.0, 0.0
    means = np.random.default_rng(1).standard_normal((2, 40))
    expected = np.square(means[0] - means[1]).sum() + np.square(np.sqrt(first) - np.sqrt(second)).sum()
    moments = [FeatureMoments.from_moments(m, (basis * v) @ basis.T) for m, v in zip(means, (first, second))]
    np.testing.assert_allclose(frechet_distance(*moments), expected, rtol=1e-9)
    line = [FeatureMoments.from_moments(np.array([m]), np.array([[v]])) for m, v in ((1.0, 4.0), (-2.0, 0.25))]
    np.testing.assert_allclose(frechet_distance(*line), 9 + 1.5**2, rtol=1e-14)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 12), (13, 300, 12), (12, 12, 12)])
def test_equals_the_matrix_square_root(n, m, d):
    a, b = rows(0, n, d), rows(1, m, d, 0.7, 0.3)
    np.testing.assert_allclose(distance(a, b), by_square_root(a, b), rtol=1e-6)
    given_moments = [FeatureMoments.from_moments(x.mean(0), np.cov(x.T)) for x in (a, b)]
    np.testing.assert_allclose(frechet_distance(*given_moments), distance(a, b), rtol=1e-7)
    np.testing.assert_allclose(FeatureMoments.from_features(a).covariance, np.cov(a.T), rtol=1e-10, atol=1e-12)


def test_fewer_rows_than_columns_equals_the_full_matrices():
    a, b = rows(2, 9, 30), rows(3, 14, 30, 0.5)
    moments = [FeatureMoments.from_moments(x.mean(0), np.cov(x.T)) for x in (a, b)]
    assert FeatureMoments.from_features(a).root.shape == (30, 9)
    np.testing.assert_allclose(distance(a, b), frechet_distance(*moments), rtol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0))
def test_invariances(seed, scale):
    """Symmetric; 0 for equal moments; rotations and shifts of both leave it, a common scale squares; a triangle's
    side.
    """
    a, b, c = rows(seed, 25, 6), rows(seed + 1, 30, 6, 0.6, 0.2), rows(seed + 2, 20, 6, 2.0)
    value, turn = distance(a, b), rotation(seed, 6)
    np.testing.assert_allclose(distance(b, a), value, rtol=1e-10)
    np.testing.assert_allclose(distance(a @ turn + 3, b @ turn + 3), value, rtol=1e-9)
    np.testing.assert_allclose(distance(scale * a, scale * b), scale**2 * value, rtol=1e-9)
    np.testing.assert_allclose(distance(a, a + 0.5), 6 * 0.25, rtol=1e-9)
    assert distance(a, a[::-1]) < 1e-12 * np.trace(np.cov(a.T))
    assert np.sqrt(value) <= np.sqrt(distance(a, c)) + np.sqrt(distance(c, b)) + 1e-9


def test_float32_features_lose_nothing_to_a_large_mean():
    a, b = ((100 + rows(seed, 400, 5, 0.01)).astype(np.float32) for seed in (4, 5))
    np.testing.assert_allclose(distance(a, b), by_square_root(a.astype(float), b.astype(float)), rtol=1e-6)


def test_subsets_are_seeded_and_never_invented():
    features = np.arange(40.0).reshape(20, 2)
    part = choose_rows(features, 12, KEY)
    np.testing.assert_array_equal(part, choose_rows(features, 12, KEY))
    assert len(np.unique(part[:, 0])) == 12 and (np.diff(part[:, 0]) > 0).all()
    assert not np.array_equal(part, choose_rows(features, 12, jax.random.key(1)))
    np.testing.assert_array_equal(choose_rows(features, None, KEY), features)
    counts = np.zeros(20)
    for seed in range(200):
        counts[(choose_rows(features, 5, jax.random.key(seed))[:, 0] / 2).astype(int)] += 1
    assert np.abs(counts - 50).max() < 5 * np.sqrt(50 * 0.75)
    with pytest.raises(InputError, match="count = 21: must be at most the number of rows, 20"):
        choose_rows(features, 21, KEY)


@pytest.mark.parametrize("shape", [(60, 4, 3, 1), (8, 4, 3, 1)])
def test_principal_components_keep_the_reference_and_its_distance(shape):
    """All components of a set: a rotation, so distances between sets in their span stay; the first hold most
    variance.
    """
    reference = rows(6, shape[0], 12, np.geomspace(3, 0.1, 12)).reshape(shape).astype(np.float32)
    whole = min(shape[0] - 1, 12)
    features = extract_features(reference, PCAFeatures.fit(reference, whole), block_size=16)
    variances = np.linalg.eigvalsh(np.cov(reference.reshape(shape[0], -1).T.astype(float)))[::-1][:whole]
    np.testing.assert_allclose(np.cov(features.T.astype(float)), np.diag(variances), atol=2e-5 * variances[0])
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
    halves = [np.asarray(half, np.float64) for half in (reference[::2], reference[1::2])]
    seen = [extract_features(half.astype(np.float32), PCAFeatures.fit(reference, whole)) for half in halves]
    np.testing.assert_allclose(distance(*seen), distance(*halves), rtol=1e-4)
    few = extract_features(reference, jax.jit(PCAFeatures.fit(reference, 2)))
    np.testing.assert_allclose(few, features[:, :2], atol=1e-5)
    program = jax.jit(lambda features, images: features(images))
    exported = jax.export.export(program, platforms=["cuda", "tpu"])(
        PCAFeatures.fit(reference, 2), jnp.asarray(reference)
    )
    assert exported.platforms == ("cuda", "tpu")


def test_files_round_trip(tmp_path):
    features = rows(7, 50, 5).astype(np.float32)
    moments = FeatureMoments.from_features(features)
    write_statistics(tmp_path / "ref.npz", moments)
    with np.load(tmp_path / "ref.npz") as file:
        assert set(file.files) == {"mu", "sigma"} and file["sigma"].dtype == np.float64
        np.testing.assert_allclose(file["sigma"], np.cov(features.T.astype(float)), rtol=1e-10)
    assert frechet_distance(read_statistics(tmp_path / "ref.npz"), moments) < 1e-12 * np.trace(moments.covariance)
    np.save(tmp_path / "a.npy", features)
    np.savez(tmp_path / "b.npz", features=features, labels=np.zeros(50))
    np.savez_compressed(tmp_path / "c.npz", features)
    for name in ("a.npy", "b.npz", "c.npz"):
        np.testing.assert_array_equal(read_features(tmp_path / name), features)
    np.save(tmp_path / "bytes.npy", np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    assert read_features(tmp_path / "bytes.npy").dtype == np.float32


def test_bad_input_is_named(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.ones(3))
    np.savez(tmp_path / "crooked.npz", mu=np.zeros(2), sigma=np.array([[1.0, 2.0], [0.0, 1.0]]))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    moments = FeatureMoments.from_features(rows(8, 9, 3))
    for said, call in [
        ("width of a and b", lambda: frechet_distance(moments, FeatureMoments.from_features(rows(8, 9, 4)))),
        (r"features.shape = \(1, 3\)", lambda: FeatureMoments.from_features(np.ones((1, 3)))),
        ("features = .*finite", lambda: FeatureMoments.from_features(np.full((4, 3), np.nan))),
        (r"covariance.shape = \(3, 3\)", lambda: FeatureMoments.from_moments(np.zeros(2), np.eye(3))),
        ("positive semi-definite", lambda: FeatureMoments.from_moments(np.zeros(2), np.diag([1.0, -0.1]))),
        ("components = 5: must be 1 to 4", lambda: PCAFeatures.fit(rows(9, 5, 9), 5)),
        ("arrays = .*a single one", lambda: read_features(tmp_path / "two.npz")),
        ("objects.npy: cannot be read", lambda: read_features(tmp_path / "objects.npy")),
        ("flat.npy = ", lambda: read_features(tmp_path / "flat.npy")),
        ("missing.npy: cannot be read .No such file", lambda: read_features(tmp_path / "missing.npy")),
        ("text.npz: cannot be read", lambda: read_statistics(tmp_path / "text.npz")),
        ("cut.npz: cannot be read", lambda: read_statistics(tmp_path / "cut.npz")),
        ("two.npz = .*mu and sigma", lambda: read_statistics(tmp_path / "two.npz")),
        ("crooked.npz: covariance = .*symmetric", lambda: read_statistics(tmp_path / "crooked.npz")),
    ]:
        with pytest.raises(InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)
