"""Guidance: a denoiser like any other, its steps beside NumPy's, and the law that it makes of two Gaussians."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import samplers
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, guided_gaussian, product_gaussian
from dgu.samplers import Guided, WithoutClass

KEY = jax.random.key(5)


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def rotation():
    return np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]


def gaussian(variances, mean=(0.0, 0.0, 0.0)):
    return GaussianDenoiser(np.asarray(mean), rotation(), np.asarray(variances))


MAIN, GUIDE = gaussian((1.0, 0.3, 0.05), (1.0, -0.5, 0.2)), gaussian((2.0, 0.3, 0.2), (0.0, 0.5, 0.1))
SIGMAS = samplers.karras_sigmas(6, 0.02, 20.0)


@pytest.mark.parametrize(("weight", "interval"), [(2.5, (0.0, np.inf)), (-1.0, (0.0, np.inf)), (3.0, (0.3, 5.0))])
def test_trajectories_equal_those_of_heuns_method_in_numpy(weight, interval):
    """The scores are combined, and Heun's rule of EDM is written out, independently of the library."""

    def score(law, x, sigma):
        basis, variances = np.asarray(law.basis), np.asarray(law.variances)
        return -basis @ ((basis.T @ (x - np.asarray(law.mean))) / (variances + sigma**2))

    def slope(x, sigma):
        w = weight if interval[0] <= sigma <= interval[1] else 1.0
        return -sigma * (w * score(MAIN, x, sigma) + (1 - w) * score(GUIDE, x, sigma))

    x = start = 20 * np.random.default_rng(5).normal(size=3)
    states = []
    for sigma, after in itertools.pairwise(SIGMAS):
        first = slope(x, sigma)
        moved = x + (after - sigma) * first
        x = x + (after - sigma) * (first + slope(moved, after)) / 2 if after > 0 else moved
        states.append(x)

    guided = Guided(MAIN, GUIDE, weight, interval)
    end, seen = samplers.heun(guided, jnp.asarray(start), SIGMAS, observe=lambda state: state.x_next)
    np.testing.assert_allclose(seen, states, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(end, states[-1], rtol=1e-9, atol=1e-9)


def flow(guided, sigma_max, steps=1500):
    """Mean and covariance at the end of a fine grid from ``N(0, sigma_max^2 I)``: the flow of two Gaussians is affine."""
    sigmas = samplers.karras_sigmas(steps, 1e-4, sigma_max)
    ends = jax.jit(jax.vmap(lambda x: samplers.heun(guided, x, sigmas)))(
        jnp.concatenate([jnp.zeros((1, 3)), sigma_max * jnp.eye(3)])
    )
    ends = np.asarray(ends)
    moves = ends[1:] - ends[0]
    return ends[0], moves.T @ moves


@pytest.mark.parametrize(("weight", "sigma_max"), [(0.0, 80.0), (1.0, 10.0), (1.7, 80.0), (3.0, 5.0), (-0.5, 20.0)])
def test_the_law_of_guided_gaussians_is_that_of_the_flow(weight, sigma_max):
    mean, covariance = flow(Guided(MAIN, GUIDE, weight), sigma_max)
    law = guided_gaussian(MAIN, GUIDE, weight, sigma_max)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(law.basis * law.variances @ law.basis.T, covariance, rtol=2e-4, atol=2e-4)


def test_guidance_is_not_the_product_of_powers():
    """Variances 1 and 2 at weight 2: the flow ends at 1^2 / 2 = 0.5, the product has 1 / (2 / 1 - 1 / 2) = 2 / 3."""
    main, guide = gaussian((1.0, 1.0, 1.0)), gaussian((2.0, 1.0, 0.5))
    found = np.sort(guided_gaussian(main, guide, 2.0, 1e6).variances)
    np.testing.assert_allclose(found, [0.5, 1.0, 2.0], rtol=1e-10)
    expected = 1 / (2 / np.ones(3) - 1 / np.array([2.0, 1.0, 0.55]))
    product = product_gaussian(main, gaussian((2.0, 1.0, 0.55)), 2.0)
    np.testing.assert_allclose(np.sort(product.variances), np.sort(expected), rtol=1e-10)
    for weight in (0.0, 1.0):
        flowed, multiplied = guided_gaussian(MAIN, GUIDE, weight, 1e7), product_gaussian(MAIN, GUIDE, weight)
        np.testing.assert_allclose(np.sort(flowed.variances), np.sort(multiplied.variances), rtol=1e-10)
        np.testing.assert_allclose(flowed.mean, multiplied.mean, atol=1e-6)


@jax.tree_util.register_pytree_node_class
class Means:
    """One mean a class; without a class, 0."""

    label_dim = 2

    def __init__(self, means, label=None):
        self.means, self.label = means, label

    def tree_flatten(self):
        return (self.means, self.label), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)

    def given(self, label):
        return Means(self.means, None if label is None else jnp.asarray(label, jnp.int32))

    def __call__(self, x, sigma):
        mean = jnp.zeros_like(x) if self.label is None else self.means[self.label]
        return mean + (x - mean) / (1 + sigma**2)


def test_labels_go_to_both_and_classifier_free_guidance_leaves_its_guide_without():
    means = Means(jnp.asarray([[-1.0, -1.0], [1.0, 2.0]]))
    other = Means(jnp.asarray([[5.0, 5.0], [7.0, 7.0]]))
    x, sigma = jnp.asarray([0.3, 0.4]), 2.0
    for guide, plain in ((other, other.given(1)), (WithoutClass(means), means), (GaussianDenoiser.fit(np.eye(2)),) * 2):
        found = Guided(means, guide, 3.0).given(1)(x, sigma)
        np.testing.assert_allclose(found, plain(x, sigma) + 3 * (means.given(1)(x, sigma) - plain(x, sigma)))
    guided = Guided(means, WithoutClass(means), 2.0)
    drawn = samplers.sample(
        guided, KEY, range(4), SIGMAS, shape=(2,), labels=[0, 1, 0, 1], batch_size=4, dtype="float64"
    )
    alone = samplers.sample(
        means, KEY, range(4), SIGMAS, shape=(2,), labels=[0, 1, 0, 1], batch_size=4, dtype="float64"
    )
    # Both have unit variance, so that guidance at weight 2 moves the mean by as much again.
    moved = np.asarray(means.means)[[0, 1, 0, 1]]
    np.testing.assert_allclose(drawn - alone, moved, atol=0.1 * np.abs(moved).max())


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Guided(MAIN, GUIDE, np.nan), "weight = nan: must be one finite number"),
        (lambda: Guided(MAIN, GUIDE, np.ones(2)), "weight = array"),
        (lambda: Guided(MAIN, GUIDE, 2.0, (3.0, 1.0)), r"interval = \(3.0, 1.0\)"),
        (lambda: Guided(MAIN, GUIDE, 2.0).given(1), "label = 1: must be left out"),
        (
            lambda: Guided(MAIN, GaussianDenoiser.fit(np.eye(2)), 2.0)(jnp.zeros(3), 1.0),
            r"guide: x.shape = \(3,\): must",
        ),
        (
            lambda: Guided(MAIN, lambda x, sigma: x[:2], 2.0)(jnp.zeros(3), 1.0),
            "guide: denoiser: called with ONE example",
        ),
        (lambda: guided_gaussian(MAIN, GaussianDenoiser.fit(np.eye(2)), 2.0), r"guide.shape = \(2,\)"),
        (
            lambda: guided_gaussian(MAIN, GaussianDenoiser(np.zeros(3), rotation()[:, :2], np.ones(2)), 2.0),
            "guide.variances = '2 above 0': must be 3",
        ),
        (
            lambda: guided_gaussian(MAIN, GaussianDenoiser.from_moments(np.zeros(3), np.diag([1.0, 2.0, 3.0])), 2.0),
            "guide: its covariance is .* away from having the eigenvectors",
        ),
        (lambda: guided_gaussian(MAIN, GUIDE, np.inf), "weight = inf"),
        (lambda: guided_gaussian(MAIN, GUIDE, 2.0, 0.0), "sigma_max = 0.0"),
        (lambda: product_gaussian(MAIN, GUIDE, -2.0), "smallest precision of the product"),
    ],
)
def test_what_cannot_be_guided_is_refused_in_one_line(make, line):
    with pytest.raises(InputError, match=line):
        make()
