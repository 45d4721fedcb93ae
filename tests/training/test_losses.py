"""VP and VE losses against closed forms, with the labels of class and augmentation; augmentation in the loss;
rematerialisation.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import training
from dgu.models import (
    NCSNPP,
    ADMConfig,
    EDMNetwork,
    EDMPreconditioning,
    SongUNetConfig,
    VEPreconditioning,
    VPPreconditioning,
)
from dgu.training import augment, draw_geometry, transform
from dgu.training.losses import sampled_loss

TINY = SongUNetConfig(
    4, 2, 2, label_dim=3, augment_dim=9, model_channels=4, channel_mult=(1,), num_blocks=1, dropout=0.0, **NCSNPP
)


@pytest.fixture
def params(x64):
    return {
        "x": jnp.float64(0.7), "level": jnp.float64(-0.4), "label": jnp.array([0.1, 0.5, -0.3]),
        "told": jnp.linspace(-1, 1, 9),
    }  # fmt: skip


class Listener(EDMNetwork):
    """A network of one line in the place of one that takes seconds to compile: it uses all that it is given."""

    def raw(self, params, x, c_noise, label=None, augment_label=None, *, key=None):
        out = jnp.tanh(params["x"] * x) + params["level"] * jnp.sin(c_noise)
        out = out if label is None else out + label @ params["label"]
        out = out if augment_label is None else out + augment_label @ params["told"]
        return out if key is None else out * jax.random.uniform(key, x.shape, x.dtype)


SAMPLED = jax.jit(sampled_loss, static_argnames=("network", "loss", "augment_probability"))


@pytest.fixture
def draws(x64):
    """Two images, uniform draws, noise, and labels of class and augmentation."""
    rng = np.random.default_rng(1)
    image, noise = (jnp.asarray(rng.normal(size=(2, 4, 4, 2))) for _ in range(2))
    return (
        image,
        jnp.asarray([0.25, 0.6]),
        noise,
        jnp.asarray(np.eye(3)[[2, 0]]),
        jnp.asarray(rng.normal(size=(2, 9))),
    )


def test_noise_levels_are_those_of_the_processes():
    np.testing.assert_allclose(training.vp_sigma(jnp.asarray(0.0)), 152.166977, rtol=1e-6)
    # To first order sigma^2 is beta_min t at the earliest time, in float32 too, where exp(x) - 1 keeps no digits.
    np.testing.assert_allclose(training.vp_sigma(jnp.asarray(1.0)), np.sqrt(0.1e-5 + 19.9e-10 / 2), rtol=1e-2)
    np.testing.assert_allclose(training.ve_sigma(jnp.asarray([0.0, 1.0, 0.5])), [0.02, 100, np.sqrt(2)], rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"beta_d": 10.0, "beta_min": 0.3, "epsilon_t": 0.01}])
def test_vp_levels_match_an_integral(x64, options):
    """ln(1 + sigma^2) is the integral of beta(s) = beta_min + beta_d s up to t."""
    given = {"beta_d": 19.9, "beta_min": 0.1, "epsilon_t": 1e-5} | options
    for u in (0.0, 0.3, 0.95):
        t = 1 + u * (given["epsilon_t"] - 1)
        middles = (np.arange(1000) + 0.5) * t / 1000
        integral = (given["beta_min"] + given["beta_d"] * middles).sum() * t / 1000
        np.testing.assert_allclose(
            training.vp_sigma(jnp.asarray(u), **options), np.sqrt(np.exp(integral) - 1), rtol=1e-9
        )


def _noise_scaled(kind, options):
    """(network, loss, its sigma, sign) where D = x + sign sigma F, so that the loss is (sign F + eps)^2: sigma drops
    out.
    """
    if kind == "vp":
        return Listener(TINY, VPPreconditioning()), training.vp_loss, training.vp_sigma, -1
    return Listener(TINY, VEPreconditioning()), training.ve_loss, training.ve_sigma, 1


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("kind", "options"), [("vp", {"beta_d": 15.0}), ("ve", {"sigma_max": 50.0})])
def test_noise_weighted_losses_are_the_error_of_the_predicted_noise(params, draws, kind, options, labelled):
    network, loss, sigma_of, sign = _noise_scaled(kind, options)
    image, uniform, noise, label, told = draws
    label, told = (label, told) if labelled else (None, None)

    def got(params):
        losses = jax.vmap(partial(loss, network, params, **options))(image, uniform, noise, label, told)
        return losses.sum(), losses

    def expected(params):
        def one(image, uniform, noise, label, told):
            sigma = sigma_of(uniform, **options)
            c = network.preconditioning.coefficients(sigma)
            raw = network.raw(params, c.inp * (image + sigma * noise), c.noise, label, told)
            return jnp.square(sign * raw + noise)

        losses = jax.vmap(one)(image, uniform, noise, label, told)
        return losses.sum(), losses

    both = jax.jit(lambda params: [jax.grad(f, has_aux=True)(params) for f in (got, expected)])
    (gradient, losses), (gradient_expected, losses_expected) = both(params)
    np.testing.assert_allclose(losses, losses_expected, rtol=1e-8)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient_expected))
    for mine, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_expected)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-10 * scale)


def test_a_loss_trains_any_preconditioning(params, draws):
    """The weight is the loss's, whatever the network's coefficients are."""
    image, uniform, noise, label, told = (draw[0] for draw in draws)
    network = Listener(TINY, EDMPreconditioning(sigma_data=0.7))
    for loss, sigma, weight in (
        (training.vp_loss, training.vp_sigma(uniform), lambda s: s**-2),
        (training.ve_loss, training.ve_sigma(uniform), lambda s: s**-2),
        (training.edm_loss, training.edm_sigma(uniform), lambda s: (s**2 + 0.49) / (0.7 * s) ** 2),
    ):
        error = network.denoiser(params).given(label, told)(image + sigma * noise, sigma) - image
        got = loss(network, params, image, uniform, noise, label, told)
        np.testing.assert_allclose(got, weight(sigma) * error**2, rtol=1e-8)


@pytest.mark.parametrize(
    ("kind", "probability"),
    [
        *((kind, 0.0) for kind in ("edm", "vp", "ve")),
        ("edm", 0.9),
        # An image is augmented before its loss is chosen.
        *(pytest.param(kind, 0.9, marks=pytest.mark.slow) for kind in ("vp", "ve")),
    ],
)
def test_the_draws_of_a_loss_are_addressed_and_augmented(params, draws, kind, probability):
    """The loss of an image is that of its augmented picture at the draws of its key; with probability 0, of the
    picture.
    """
    image, label = draws[0][0], draws[3][0]
    network, key = Listener(TINY), jax.random.key(7)
    sigma_key, noise_key, dropout_key, augment_key = jax.random.split(key, 4)
    noise = jax.random.normal(noise_key, image.shape, image.dtype)
    draw = jax.random.normal if kind == "edm" else jax.random.uniform
    loss, level = getattr(training, f"{kind}_loss"), draw(sigma_key, (), image.dtype)
    picture, told = jax.jit(augment)(image, augment_key, probability) if probability else (image, None)
    expected = loss(network, params, picture, level, noise, label, told, key=dropout_key)
    got = SAMPLED(network, params, image, label, key, loss=kind, augment_probability=probability)
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    if probability:
        geometry = draw_geometry(augment_key, probability)
        np.testing.assert_allclose(picture, jax.jit(transform)(image, geometry), rtol=1e-9)
        assert not np.allclose(picture, image)


#: XLA merges a recomputation with the first computation on CPUs, where barriers go before that; accelerators keep them.
KEPT_APART = {"xla_disable_hlo_passes": "cse_barrier_expander,optimization-barrier-expander"}


@pytest.mark.slow
def test_rematerialisation_saves_memory_and_changes_no_gradient():
    unet = SongUNetConfig(
        8, 1, 1, label_dim=2, model_channels=16, channel_mult=(1, 1), num_blocks=2, attn_resolutions=(4,), **NCSNPP
    )
    images, labels = jnp.full((8, 8, 8, 1), 0.1), jnp.arange(8) % 2
    memory, gradients = [], []
    start = EDMNetwork(unet).init(jax.random.key(0))
    start = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), start)
    for remat in (False, True):
        network = EDMNetwork(unet, remat=remat)

        def objective(params, images, labels, keys, network=network):
            return jax.vmap(partial(sampled_loss, network, params))(images, labels, keys).mean()

        arguments = (start, images, labels, jax.random.split(jax.random.key(1), 8))
        compiled = jax.jit(jax.grad(objective)).lower(*arguments).compile(compiler_options=KEPT_APART)
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
        gradients.append(compiled(*arguments))
    assert memory[1] < 0.6 * memory[0]
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[0]))
    for plain, again in zip(*map(jax.tree.leaves, gradients)):
        np.testing.assert_allclose(again, plain, atol=1e-6 * largest)


@pytest.mark.parametrize("unet", [ADMConfig(16, 3, 3, model_channels=32, channel_mult=(1, 2), num_blocks=1), TINY])
def test_rematerialisation_keeps_the_inputs_of_blocks_alone(unet):
    """What the backward pass is given, from shapes: images between blocks, and a few vectors."""
    kept = []
    for remat in (False, True):
        network = EDMNetwork(unet, remat=remat)
        params = network.abstract_params
        image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
        apply = lambda params, image, level: jax.vjp(lambda p: network.apply(p, image, level), params)[1]  # noqa: E731, B023
        residuals = jax.eval_shape(apply, params, image, level)
        kept.append(
            sum(leaf.size for leaf in jax.tree.leaves(residuals)) - sum(leaf.size for leaf in jax.tree.leaves(params))
        )
    layers = [spec if isinstance(spec, int) else spec.out for _, spec in unet.encoder]
    layers += [spec.out for _, spec, _ in unet.decoder]
    assert kept[1] < 0.3 * kept[0]
    assert kept[1] < 3 * sum(layers) * unet.img_resolution**2
