"""Clocks of data whose noise levels of collapse and speciation are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from dgu.analysis import (
    class_kept,
    class_separation,
    collapse_level,
    collapse_map,
    crossing_level,
    source_weights,
    speciation_level,
    u_turns,
)
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_input
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, MoLRGDenoiser, RandomHierarchy

KEY = jax.random.key(0)


def two_modes(n, seed=0):
    """Draws of ``N(+-(3, 0), 1)``, half of each class."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 2
    return rng.normal(size=(n, 2)) + 3.0 * np.stack([2 * labels - 1, 0 * labels], axis=1), labels


def test_the_collapse_level_solves_its_equation():
    """d = 64, n = 4,000, variances 1: ``s_C^2 = 1 / (n^(2/d) - 1)``, 1.84."""
    assert collapse_level(np.ones(64), 4000) == pytest.approx(1 / np.sqrt(4000 ** (2 / 64) - 1), rel=1e-12)
    assert collapse_level(np.ones(64), 4000) == pytest.approx(1.84, abs=0.005)
    lam = np.array([9.0, 1.0, 1e-3, 0.0])
    root = brentq(lambda s: np.log1p(lam / s**2).sum() - 2 * np.log(50), 1e-3, 10)
    assert collapse_level(lam, 50) == pytest.approx(root, rel=1e-9)


def test_the_source_point_has_half_of_the_weight_at_the_collapse():
    images = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    sigmas = collapse_level(np.ones(64), 4000) * np.array([0.7, 1.0, 1.5])
    found = source_weights(images, sigmas, KEY, of=np.arange(0, 4000, 40), draws=2)
    np.testing.assert_allclose(found.mean(axis=1), [0.95, 0.54, 0.09], atol=0.06)


def test_source_weights_are_the_shares_of_the_exact_denoiser(x64):
    """With the data's own coordinates as a one-hot code the output of the denoiser is the weights."""
    rng = np.random.default_rng(1)
    images = np.eye(5) + 0.1 * rng.normal(size=(5, 5))
    images = np.concatenate([images, images[:1]])  # The first image twice.
    sigmas = np.array([0.05, 0.4, 50.0])
    found = source_weights(images, sigmas, KEY, draws=64)
    np.testing.assert_allclose(found[0], [0.5, 1, 1, 1, 1, 0.5], atol=1e-6)
    np.testing.assert_allclose(found[2], 1 / 6, atol=0.01)
    x = np.stack([noisy_input(KEY, jnp.asarray(images[2]), 2, 0.4, 1, draw) for draw in range(64)])
    shares = np.exp(-np.square(x[:, None] - images).sum(2) / 0.32)
    assert found[1, 2] == pytest.approx((shares[:, 2] / shares.sum(1)).mean(), rel=1e-9)
    chosen = source_weights(images, sigmas, KEY, of=np.array([2, 4]), draws=64, batch_size=1)
    np.testing.assert_allclose(chosen, found[:, [2, 4]], rtol=1e-12)


def test_the_map_of_collapse_is_that_of_each_window():
    rng = np.random.default_rng(2)
    images = rng.normal(size=(30, 4, 5, 2))
    images[:, 0, 0] = 0.5
    found = collapse_map(images, 3)
    for y, x, rows, columns in ((0, 0, slice(0, 2), slice(0, 2)), (2, 3, slice(1, 4), slice(2, 5))):
        lam = np.linalg.eigvalsh(np.cov(images[:, rows, columns].reshape(30, -1).T, ddof=0))
        assert found[y, x] == pytest.approx(collapse_level(np.maximum(lam, 0), 30), rel=1e-9)
    single = collapse_map(images, 1)
    assert single[0, 0] == 0 and (single.ravel()[1:] > 0).all()
    # A larger window knows more of its image, and tells it from others at a higher level.
    assert found[2, 2] > single[2, 2]


def test_speciation_is_at_the_distance_between_classes():
    rows, labels = two_modes(20_000)
    assert speciation_level(rows, labels + 4) == pytest.approx(3, rel=0.01)
    three = np.repeat(np.array([[4.0, 0], [-2, 0], [-2, 0]]), 5, axis=0)
    assert speciation_level(three, np.repeat(np.arange(3), 5)) == pytest.approx(np.sqrt(8), rel=1e-12)


def test_free_energies_of_two_gaussians_balance_where_they_must():
    """``F_+ - F_- = 2 m x / (1 + s^2)``: mean ``2 m^2 / (1 + s^2)``, fluctuation ``2 m / sqrt(1 + s^2)``."""
    data, labels = two_modes(8000)
    images, marks = two_modes(600, seed=1)
    sigmas = np.array([1.7, 2.2, 2.6, 3.2, 4.5])
    found = class_separation(data.astype(np.float32), labels, images.astype(np.float32), marks, sigmas, KEY)
    np.testing.assert_allclose(found.mean, 18 / (1 + sigmas**2), rtol=0.08)
    np.testing.assert_allclose(found.spread, 6 / np.sqrt(1 + sigmas**2), rtol=0.12)
    assert found.level == pytest.approx(np.sqrt(8), rel=0.08)


def test_free_energies_are_those_of_all_images_of_a_class(x64):
    """Three classes of unequal sizes against whole matrices of distances."""
    rng = np.random.default_rng(3)
    data, labels = rng.normal(size=(9, 4)), np.array([0, 5, 5, 7, 7, 7, 0, 5, 5])
    images, marks = rng.normal(size=(3, 4)), np.array([7, 0, 5])
    found = class_separation(data, labels, images, marks, np.array([0.3, 0.9]), KEY, batch_size=2)
    for level, sigma in enumerate((0.3, 0.9)):
        gaps = []
        for number, (image, mark) in enumerate(zip(images, marks)):
            x = np.asarray(noisy_input(KEY, jnp.asarray(image), number, sigma, level))
            weights = np.exp(-np.square(x - data).sum(1) / (2 * sigma**2))
            gaps.append(np.log(weights[labels == mark].sum() / weights[labels != mark].sum()))
        assert found.mean[level] == pytest.approx(np.mean(gaps), rel=1e-9)
        assert found.spread[level] == pytest.approx(np.std(gaps), rel=1e-9)


def test_a_class_is_kept_as_often_as_two_gaussians_overlap(x64):
    """``E tanh^2``-like integral over one coordinate, by quadrature."""
    law = MoLRGDenoiser(np.ones(2), np.array([[-2.0], [2.0]]), np.ones((2, 1, 1)), np.ones((2, 1)))
    sigmas = np.array([0.3, 2.0, 8.0, 100.0])
    found = class_kept(law, sigmas, KEY, draws=1920)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    for at, sigma in enumerate(sigmas):
        total = 1 + sigma**2
        exact = weights @ (1 / (1 + np.exp(-4 * (2 + np.sqrt(total) * nodes) / total))) / weights.sum()
        assert abs(found.value[at] - exact) < 4.5 * found.standard_error[at] + 1e-9
    assert found.value[0] > 0.9 and found.value[-1] == pytest.approx(0.5, abs=0.01)


def test_classes_of_deep_hierarchies_are_lost_at_a_threshold(x64):
    """From 90 % to 60 % of a kept class takes a narrower range of noise in a deeper tree."""
    sigmas, widths = np.geomspace(0.15, 3, 12), []
    for depth in (1, 4):
        law = RandomHierarchy.random(KEY, depth=depth, symbols=3, rules=2)
        kept = class_kept(law, sigmas, KEY, draws=384).value
        assert kept[0] > 0.98 and kept[-1] < 0.6
        widths.append(crossing_level(sigmas, kept, 0.6) / crossing_level(sigmas, kept, 0.9))
    assert widths[1] < 0.95 * widths[0]


def test_crossings_are_found_from_above():
    sigmas = np.array([1.0, 2.0, 4.0, 8.0])
    assert crossing_level(sigmas, np.array([3.0, 1.0, 0.0, 0.0]), 0.5) == pytest.approx(2 * np.sqrt(2))
    assert crossing_level(sigmas, np.array([2.0, 0.0, 2.0, 0.0]), 1.0) == pytest.approx(4 * np.sqrt(2))
    assert np.isnan(crossing_level(sigmas, np.ones(4), 2.0)) and np.isnan(crossing_level(sigmas, np.ones(4), 0.5))


def test_u_turns_keep_an_image_at_low_noise_and_lose_it_at_high(x64):
    law = GaussianDenoiser(jnp.zeros(6), jnp.eye(6), jnp.asarray([9.0, 4.0, 1.0, 1.0, 0.25, 0.0]))
    images = np.random.default_rng(0).normal(size=(300, 6)) * np.sqrt(np.asarray(law.variances))
    found = u_turns(law, images, np.array([0.02, 1.0, 60.0]), KEY, num_steps=40)
    assert np.abs(found[0] - images).max() < 0.12
    # The way back multiplies x0 + s eps by sqrt(lam / (lam + s^2)): correlations are exact.
    lam = np.asarray(law.variances)[:5]
    for level, sigma in enumerate((0.02, 1.0, 60.0)):
        correlation = np.array([np.corrcoef(found[level, :, k], images[:, k])[0, 1] for k in range(5)])
        np.testing.assert_allclose(correlation, np.sqrt(lam / (lam + sigma**2)), atol=0.25)
        np.testing.assert_allclose(found[level, :, :5].std(0), np.sqrt(lam), rtol=0.2)


def test_u_turns_onto_training_images():
    images = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    found = u_turns(EmpiricalDenoiser(images), images, np.array([0.2]), KEY)
    np.testing.assert_allclose(found[0], images, atol=1e-2)


ROWS, LABELS = np.ones((4, 3, 3, 1)) * np.arange(4.0)[:, None, None, None], np.arange(4) % 2


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: collapse_level(np.zeros(3), 5), "variances"),
        (lambda: collapse_level(np.ones(3), 1), "images"),
        (lambda: collapse_map(ROWS, 2), "window"),
        (lambda: collapse_map(ROWS, 5), "window"),
        (lambda: source_weights(ROWS, np.array([0.0]), KEY), "sigmas"),
        (lambda: source_weights(ROWS, np.ones(1), KEY, of=np.array([4])), "of"),
        (lambda: speciation_level(ROWS, 0 * LABELS), "labels"),
        (lambda: class_separation(ROWS, LABELS, ROWS, LABELS + 1, np.ones(1), KEY), "image_labels"),
        (lambda: class_separation(ROWS, LABELS, ROWS, LABELS, np.array([2.0, 1.0]), KEY), "sigmas"),
        (lambda: class_kept(RandomHierarchy.random(KEY), np.zeros(1), KEY), "sigmas"),
        (lambda: crossing_level(np.ones(2), np.ones(2), 1.0), "sigmas"),
        (lambda: u_turns(EmpiricalDenoiser(ROWS), ROWS, np.array([0.001]), KEY), "sigmas"),
    ],
)
def test_bad_input_is_one_line(call, name):
    with pytest.raises(InputError, match=rf"^{name} = ") as error:
        call()
    assert "\n" not in str(error.value)
