"""The prior's divergence from the noised data against closed forms, and where it is told of."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError, PriorMismatchWarning
from dgu.models import EmpiricalDenoiser, GaussianDenoiser
from dgu.samplers import MAX_MISMATCH, log_likelihood, prior_mismatch


def gaussian(d, mean, largest):
    """A Gaussian denoiser, and its divergence by sigma_max in closed form."""
    rng = np.random.default_rng(1)
    basis, variances = np.linalg.qr(rng.standard_normal((d, d)))[0], largest * np.geomspace(1, 1e-3, d)
    centre = np.full(d, float(mean))

    def exact(sigma):
        ratios = variances / sigma**2
        return 0.5 * (centre @ centre / sigma**2 + np.sum(ratios - np.log1p(ratios)))

    return GaussianDenoiser(*(jnp.asarray(a, jnp.float32) for a in (centre, basis, variances))), exact


@pytest.mark.parametrize(
    ("d", "mean", "largest", "sigma", "rtol"),
    [
        (1, 0, 1.0, 2.0, 0.05), (1, 3, 1.0, 2.0, 0.01), (2, 1, 4.0, 2.0, 0.15), (6, 0.3, 1.0, 80.0, 0.05),
        (16, 1, 1.0, 3.0, 0.01), (16, 0.5, 1.0, 1.0, 0.05), (196, -0.4, 0.3, 80.0, 0.01), (784, -0.7, 0.1, 10.0, 0.01),
    ],
)  # fmt: skip
def test_a_gaussians_divergence_is_that_of_the_closed_form(d, mean, largest, sigma, rtol):
    denoiser, exact = gaussian(d, mean, largest)
    np.testing.assert_allclose(prior_mismatch(denoiser, (d,), sigma), exact(sigma), rtol=rtol)


def test_likelihoods_are_off_by_the_mismatch_and_say_so():
    """Over draws of the data, the density found is below the true one by the divergence on average."""
    denoiser, exact = gaussian(4, 1.5, 0.5)
    low, high = 0.01, 3.0
    rng = np.random.default_rng(0)
    basis, variances = np.asarray(denoiser.basis), np.asarray(denoiser.variances) + low**2
    modes = rng.standard_normal((400, 4)) * np.sqrt(variances)
    truth = -0.5 * np.sum(modes**2 / variances + np.log(2 * np.pi * variances), axis=1)
    draws = jnp.asarray(1.5 + modes @ basis.T, jnp.float32)
    with pytest.warns(PriorMismatchWarning, match=r"log_likelihood: at sigma_max = 3 the prior .* nats") as caught:
        found = jax.jit(jax.vmap(lambda x: log_likelihood(denoiser, x, sigma_min=low, sigma_max=high)[0]))(draws)
    off = truth - np.asarray(found, np.float64)
    assert abs(off.mean() - exact(high)) < 4 * off.std() / 20
    told = float(str(caught[0].message).split("is ")[1].split(" nats")[0])
    np.testing.assert_allclose(told, exact(high), rtol=0.02)
    assert len(caught) == 1


def test_nothing_is_said_below_the_threshold_or_of_what_is_traced():
    """It is said while the call is traced: but for one of each kind, nothing is compiled."""
    denoiser, exact = gaussian(4, 0.3, 0.5)
    x = jnp.ones(4)
    traced = jax.eval_shape
    assert exact(80.0) < MAX_MISMATCH < exact(2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_likelihood(denoiser, x)
        traced(lambda denoiser, x: log_likelihood(denoiser, x, sigma_max=2.0), denoiser, x)
        traced(lambda d, x: log_likelihood(lambda y, s: d(y, s), x, sigma_max=2.0), denoiser, x)
        traced(lambda: jax.vmap(lambda high: log_likelihood(denoiser, x, sigma_max=high)[0])(jnp.array([2.0])))
    for call in (
        lambda: log_likelihood(denoiser, x, sigma_max=2.0),
        lambda: traced(jax.vmap(lambda x: log_likelihood(denoiser, x, sigma_max=2.0)[0]), x[None]),
        lambda: traced(jax.grad(lambda x: log_likelihood(denoiser, x, sigma_max=2.0)[0]), x),
    ):
        with pytest.warns(PriorMismatchWarning):
            call()


def test_bad_input_is_named_and_what_is_not_finite_is_nan():
    with pytest.raises(InputError, match=r"sigma_max = -1\.0: must be positive and finite"):
        prior_mismatch(lambda x, sigma: 0.5 * x, (3,), -1.0)
    assert np.isnan(prior_mismatch(lambda x, sigma: jnp.nan * x, (3,), 80.0))


def test_a_rare_part_far_away_counts():
    """One point of a hundred at 1000, 20 noise levels from the others: nothing of it is seen from there."""
    others = 99
    sigma, points = 50.0, np.zeros((others + 1, 1), np.float32)
    points[-1] = 1000.0
    grid = np.linspace(-600, 1600, 40_001)
    logs = -((grid[:, None] - points[:, 0]) ** 2) / (2 * sigma**2)
    density = np.exp(logs).mean(axis=1) / (sigma * np.sqrt(2 * np.pi))
    ratio = np.logaddexp.reduce(logs, axis=1) - np.log(others + 1) + grid**2 / (2 * sigma**2)
    exact = np.trapezoid(density * ratio, grid)
    denoiser = EmpiricalDenoiser(points)
    np.testing.assert_allclose(prior_mismatch(denoiser, (1,), sigma), exact, rtol=0.15)


def test_an_example_of_a_part_far_away_is_evidence():
    def network(x, sigma):  # Of one point in a hundred at 1000, the others at 0; it cannot be drawn from.
        return 1000 * jax.nn.sigmoid(1000 * (x - 500) / sigma**2 - jnp.log(99.0))

    assert prior_mismatch(network, (1,), 50.0) < MAX_MISMATCH
    with pytest.warns(PriorMismatchWarning, match=r"is 200 nats from the data about this example"):
        found, _ = log_likelihood(network, jnp.array([1000.0]), sigma_min=0.5, sigma_max=50.0)
    truth = -np.log(100 * 0.5 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(truth - found, 195.4, atol=0.5)  # What the warning spoke of, less log 100.


def test_a_single_examples_likelihood_is_off_by_the_closed_form():
    """In float64: each example by its own amount, of which the mean and the spread over examples are closed forms."""
    d, low, high, count = 8, 0.5, 80.0, 6
    rng = np.random.default_rng(3)
    basis, variances = np.linalg.qr(rng.standard_normal((d, d)))[0], np.geomspace(4.0, 0.1, d)
    along = rng.standard_normal(d)
    along *= 2.0 / np.linalg.norm(along)  # The mean along the eigenvectors, of length 2.
    z = rng.standard_normal((count, d))

    def off(z):
        """What the true log density exceeds the one found by, for standardised coordinates z."""
        r = variances / high**2
        terms = along**2 / high**2 + 2 * along * np.sqrt(high**2 + variances) * z / high**2 + r * z**2 - np.log1p(r)
        return 0.5 * terms.sum(axis=-1)

    with jax.enable_x64(True):
        denoiser = GaussianDenoiser(*(jnp.asarray(part, float) for part in (basis @ along, basis, variances)))
        x = jnp.asarray((along + z * np.sqrt(variances + low**2)) @ basis.T, float)
        options = {"sigma_min": low, "sigma_max": high, "rtol": 1e-9, "atol": 1e-9}
        found = np.asarray(jax.jit(jax.vmap(lambda one: log_likelihood(denoiser, one, **options)[0]))(x))
    truth = -0.5 * np.sum(z**2 + np.log(2 * np.pi * (variances + low**2)), axis=1)
    np.testing.assert_allclose(truth - found, off(z), atol=1e-7)
    assert 0.01 < np.abs(off(z)).max() < 0.1
    # Over examples: the divergence, and a spread of about |mu| / sigma_max, a hundred times as large.
    many = off(rng.standard_normal((400_000, d)))
    ratios = variances / high**2
    mean = 0.5 * (along @ along / high**2 + np.sum(ratios - np.log1p(ratios)))
    variance = np.sum(along**2 * (high**2 + variances) / high**4 + ratios**2 / 2)
    np.testing.assert_allclose(variance**0.5, 2.0 / high, rtol=1e-3)
    assert abs(many.mean() - mean) < 4 * (variance / len(many)) ** 0.5 < mean
    np.testing.assert_allclose(many.var(), variance, rtol=0.01)
