"""What closed forms are called with: a noise level that is none, components that are none."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dgu.analysis import class_key, draw_gaussian, fit_gaussian
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, MoLRG, MoLRGDenoiser

KEY = jax.random.key(0)
X = jnp.asarray([0.5, -1.0])
GAUSSIAN = GaussianDenoiser(np.zeros(2), np.eye(2), np.ones(2))
BASES = np.stack([np.eye(2)[:, :1], np.eye(2)[:, 1:]])
MIXTURE = MoLRGDenoiser(np.array([0.25, 0.75]), np.array([[1.0, 0.0], [-1.0, 2.0]]), BASES, np.ones((2, 1)), 0.1)
LAW = MoLRG.of(*(np.asarray(part) for part in (MIXTURE.weights, MIXTURE.means, BASES, MIXTURE.variances)), 0.1)


@pytest.fixture(autouse=True)
def unchecked():
    """Without the type checks that only tests have: the refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("sigma", [np.nan, -1.0, np.ones(2), jnp.asarray(-0.1)])
@pytest.mark.parametrize(
    "closed", [GAUSSIAN, MIXTURE, MIXTURE.log_density, LAW.score], ids=["Gaussian", "mixture", "density", "law"]
)
def test_what_is_no_noise_level_is_refused(closed, sigma):
    with pytest.raises(InputError, match=r"^(sigma|noise) = .*: must be one noise level, 0 or more"):
        closed(X, sigma)


@pytest.mark.parametrize("sigma", [1e19, 1e25, np.inf])
def test_enormous_noise_hides_everything(sigma):
    np.testing.assert_allclose(MIXTURE(X, sigma), MIXTURE.weights @ MIXTURE.means, rtol=1e-5)
    np.testing.assert_allclose(MIXTURE.responsibilities(X, sigma), MIXTURE.weights, rtol=1e-5)
    np.testing.assert_allclose(MIXTURE.log_density(X, sigma), -np.log(2 * np.pi) - 2 * np.log(sigma), rtol=1e-5)


def test_gradients_at_no_noise_stay_finite():
    slope = jax.grad(lambda sigma: MIXTURE.log_density(X, sigma))
    assert np.isfinite(slope(jnp.asarray(0.0))) and np.isfinite(slope(jnp.asarray(1e18)))


@pytest.mark.parametrize("name", ["weights", "variances"])
def test_negative_weights_and_variances_are_refused(name):
    parts = {part: getattr(MIXTURE, part) for part in ("weights", "means", "bases", "variances", "noise_std")}
    with pytest.raises(InputError, match=rf"^{name} = .*: must be 0 or more"):
        MoLRGDenoiser(**parts | {name: -parts[name]})(X, 0.5)


@pytest.mark.parametrize("label", [2, 5, -1, 0.5, True])
def test_components_that_are_not_there_are_refused(label):
    with pytest.raises(InputError, match=r"^label = .*: must be a whole number from 0 to 1"):
        MIXTURE.draw(KEY, label)


@pytest.mark.parametrize("indices", [np.array([2**32]), [1.5], [-1]])
def test_numbers_of_samples_are_whole(indices):
    with pytest.raises(InputError, match=r"^indices"):
        draw_gaussian(fit_gaussian(np.eye(3)), KEY, indices)
    with pytest.raises(InputError, match=r"^indices"):
        LAW.sample(KEY, indices)
    with pytest.raises(InputError, match=r"must be text or a whole number"):
        class_key(KEY, 1.5)
