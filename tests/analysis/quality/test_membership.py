"""The loss-threshold attack: it finds the training points of a memorising denoiser, and nothing in a Gaussian one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis.quality.membership import denoising_loss, loss_attack
from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.distributions.bases import initial_noise
from dgu.models import GaussianDenoiser

KEY = jax.random.key(8)
SHAPE = (3, 3, 1)


def images(seed, n):
    return (np.random.default_rng(seed).normal(size=(n, *SHAPE)) * 0.4).astype(np.float32)


MEMBERS, OTHERS = images(0, 220), images(1, 180)


@jax.tree_util.register_pytree_node_class
class Posterior:
    """The exact posterior mean of the empirical distribution of some points, conditional on nothing or on a label."""

    def __init__(self, points):
        self.points = points

    def __call__(self, x, sigma):
        weights = jax.nn.softmax(-jnp.sum(jnp.square(self.points - x[None]), axis=(1, 2, 3)) / (2 * sigma**2))
        return jnp.tensordot(weights, self.points, 1, precision=jax.lax.Precision.HIGHEST)

    def given(self, label):
        return Posterior(self.points + jnp.asarray(label, self.points.dtype))

    def tree_flatten(self):
        return (self.points,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def losses(denoiser, **options):
    return [denoising_loss(denoiser, x, stream(KEY, name), **options) for x, name in ((MEMBERS, "in"), (OTHERS, "out"))]


def test_the_posterior_of_the_training_points_gives_them_away():
    found = loss_attack(*losses(Posterior(jnp.asarray(MEMBERS)), sigmas=(0.1, 3.0)), (0.1, 3.0))
    assert found.at_level[0].low > 0.97
    assert found.at_level[1].value < 0.6  # at a high level all is blurred
    assert found.together.low > 0.9


def test_a_gaussian_fitted_to_many_images_does_not():
    denoiser = GaussianDenoiser.fit(images(2, 4000))
    found = loss_attack(*losses(denoiser), (0.1, 0.3, 1.0))
    for level in (*found.at_level, found.together):
        assert level.low < 0.5 < level.high


def test_the_loss_is_that_of_addressed_noise():
    """Of the exact posterior mean of N(0, 1) the error is linear in the draw, so the loss has a closed form."""
    denoiser = GaussianDenoiser.from_moments(jnp.zeros(SHAPE), jnp.eye(9))
    whole = denoising_loss(denoiser, OTHERS[:7], KEY, sigmas=(0.5, 2.0), draws=2)
    for level, sigma in enumerate((0.5, 2.0)):
        for index in (0, 6):
            errors = []
            for draw in range(2):
                noise = np.asarray(initial_noise(stream(KEY, "loss", draw), index, SHAPE))
                errors.append(np.mean(((OTHERS[index] + sigma * noise) / (1 + sigma**2) - OTHERS[index]) ** 2))
            np.testing.assert_allclose(whole[index, level], np.mean(errors), rtol=2e-5)
    blocks = denoising_loss(denoiser, OTHERS[:7], KEY, sigmas=(0.5, 2.0), draws=2, batch_size=3)
    np.testing.assert_allclose(blocks, whole, rtol=1e-5)


def test_labels_condition_the_denoiser():
    denoiser = Posterior(jnp.zeros((1, *SHAPE)))
    labels = np.array([0, 2, 1, 0, 2])
    found = denoising_loss(denoiser, OTHERS[:5], KEY, labels=labels, sigmas=(0.2,), draws=1, batch_size=2)
    np.testing.assert_allclose(found[:, 0], np.mean((labels[:, None, None, None] - OTHERS[:5]) ** 2, axis=(1, 2, 3)),
                               rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: denoising_loss(Posterior(jnp.zeros((1, *SHAPE))), OTHERS, KEY, sigmas=(0.0,)), "sigmas = (0.0,)"),
        (lambda: denoising_loss(Posterior(jnp.zeros((1, *SHAPE))), OTHERS, KEY, draws=0), "draws = 0"),
        (lambda: denoising_loss(Posterior(jnp.full((1, *SHAPE), jnp.nan)), OTHERS, KEY), "denoising loss = "),
        (lambda: loss_attack(np.ones((5, 2)), np.ones((5, 2)), (1.0,)), "number of levels = (2, 2, 1)"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)
