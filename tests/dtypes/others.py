"""Functions of ``dgu.models``, ``dgu.training`` and ``dgu.data`` that take arrays, by how the arrays are given."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

import dgu.models as M
import dgu.training as T
from dgu import data
from dgu.analysis.universality.arms import gaussian_arms
from dgu.core.noisy import checked_images, checked_levels
from dgu.data.export import to_uint8
from dgu.samplers import ScoreOfDensity
from dgu.training.antithetic_moments import antithetic_moments
from dgu.training.second_moments import cross_moments
from tests.dtypes.arrays import (
    AXES,
    CLASSES,
    EDM,
    FRAMES,
    GAUSSIAN,
    IMAGES,
    KEY,
    LARGER,
    LAW,
    LOSS,
    MARKS,
    MEANS,
    NET,
    ONE,
    ROWS,
    SDE,
    SIGMAS,
    SPREADS,
    SQUARE,
    TARGET,
    D,
    features,
    gaussian_answer,
)


@cache
def network_state():
    return T.initial_levels(NET, 2, T.LevelTraining(steps=1, batch_size=4))


@cache
def many_networks():
    return jax.vmap(lambda key: M.MLPDenoiser.init(key, (D,), width=4, depth=1))(jax.random.split(KEY, 2))


EMPIRICAL = M.EmpiricalDenoiser(IMAGES)
ONE_ROW = ROWS[0]


def denoised(make, one=ONE):
    make = cache(make)
    return lambda give: make()(give(one), 30.0)


def dynamics(give):
    runs = T.Runs(give(ROWS[None, :8, :1]), jax.random.split(KEY, 1), np.full(1, 1e-6), np.full(1, 2))
    recipe = T.Recipe(M.ShallowNet(width=2), SDE, epochs=1, every=1, batch_size=4)
    return T.train_dynamics(runs, recipe, lambda score, aux: score(jnp.ones(1), 0.5)).losses


def edm_training(give):
    config = T.TrainingConfig(duration_kimg=0.008, batch_size=8, learning_rate=1e-6)
    state = T.initial_state(EDM, config)
    return next(T.train_steps(EDM, state, give(LARGER), None, config))[1]["loss"]


@cache
def edm_params():
    return EDM.init(KEY)


def loss_of(function):
    return lambda give: function(EDM, edm_params(), give(LARGER[0]), 0.5, give(LARGER[1]))


OTHER = {
    "GaussianDenoiser": denoised(lambda: GAUSSIAN),
    "GaussianDenoiser.fit": lambda give: gaussian_answer(M.GaussianDenoiser.fit(give(IMAGES))),
    "GaussianDenoiser.fit, few": lambda give: gaussian_answer(M.GaussianDenoiser.fit(give(IMAGES[:3]))),
    "GaussianDenoiser.from_moments": lambda give: gaussian_answer(
        M.GaussianDenoiser.from_moments(give(ROWS[0]), give(SQUARE))
    ),
    "BoxMixture": lambda give: M.BoxMixture.of([0.5, 0.5], give(MEANS), give(MEANS + 9))(jnp.ones(2), 3.0),
    "BoxMixture, x": denoised(lambda: M.BoxMixture.of([0.5, 0.5], MEANS, MEANS + 9), np.array([3, 4])),
    "BoxMixture.log_density": lambda give: M.BoxMixture.of([0.5, 0.5], MEANS, MEANS + 9).log_density(
        give(MEANS[0]), 3.0
    ),
    "EmpiricalDenoiser": lambda give: [M.EmpiricalDenoiser(give(IMAGES))(give(ONE), 30.0)],
    "EmpiricalDenoiser.log_density": lambda give: EMPIRICAL.log_density(give(ONE), 30.0),
    "LocalDenoiser": lambda give: M.LocalDenoiser(give(IMAGES), 1, equivariant=True)(give(ONE), 30.0),
    "LocalGaussianDenoiser.fit": lambda give: M.LocalGaussianDenoiser.fit(give(IMAGES), 3)(ONE, 30.0),
    "LocalGaussianDenoiser.from_moments": lambda give: M.LocalGaussianDenoiser.from_moments(
        give(IMAGES[0]), give(SQUARE), 1, equivariant=True
    )(give(ONE), 30.0),
    "LocalMixtureDenoiser.fit": lambda give: M.LocalMixtureDenoiser.fit(
        give(IMAGES), give.marks(np.arange(len(IMAGES)) % 2), 1
    )(ONE, 30.0),
    "QueryDenoiser": lambda give: M.QueryDenoiser(give(IMAGES), give(np.arange(16.0).reshape(2, 2, 2, 2)))(
        give(ONE), 30.0
    ),
    "PatchDenoiser": lambda give: M.PatchDenoiser.square(give(IMAGES), 1)(give(ONE), 30.0),
    "PatchDenoiser.flexible": lambda give: M.PatchDenoiser.flexible(
        IMAGES, give(np.arange(16.0).reshape(2, 2, 2, 2)), 0.5
    )(ONE, 30.0),
    "WienerDenoiser": lambda give: M.WienerDenoiser(give(IMAGES), GAUSSIAN)(give(ONE), 30.0),
    "MoLRGDenoiser": lambda give: M.MoLRGDenoiser(
        np.array([0.4, 0.6]), give(MEANS @ AXES[:2]), give(FRAMES), give(SPREADS[:, 0]), 5.0
    )(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.draw": lambda give: M.MoLRGDenoiser(
        np.array([0.4, 0.6]), give(MEANS @ AXES[:2]), give(FRAMES), give(SPREADS[:, 0]), 5.0
    ).draw(KEY),
    "MoLRGDenoiser.jacobian": lambda give: LAW.jacobian(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.log_density": lambda give: LAW.log_density(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.responsibilities": lambda give: LAW.responsibilities(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.score": lambda give: LAW.score(give(ONE_ROW), 30.0),
    "MoLRG.of": lambda give: M.MoLRG.of(
        give(np.array([1, 0])), give(MEANS @ AXES[:2]), give(FRAMES), give(SPREADS[:, 0])
    ),
    "MoLRG.sample": lambda give: M.MoLRG.random(KEY, (D,), (2, 2)).sample(KEY, np.arange(4), give.marks(MARKS[:4] % 2)),
    "LinearDenoiser": denoised(lambda: M.LinearDenoiser.of_gaussian(GAUSSIAN, SIGMAS)),
    "LinearDenoiser.of_gaussian": lambda give: M.LinearDenoiser.of_gaussian(GAUSSIAN, give(SIGMAS)),
    "LinearDenoiser, its maps": lambda give: M.LinearDenoiser(give(SIGMAS), give(np.stack([AXES] * 3)), give(ROWS[:3]))(
        jnp.ones(D), 20.0
    ),
    "LinearNetwork": denoised(lambda: M.NetworkDenoiser({"weight": jnp.eye(D), "bias": jnp.ones(D)}, NET)),
    "MLPDenoiser": denoised(lambda: M.MLPDenoiser.init(KEY, (2, 2, 1), width=4, depth=1)),
    "EDMDenoiser": denoised(lambda: EDM.denoiser(EDM.init(KEY)), LARGER[0]),
    "RandomHierarchy": denoised(lambda: M.RandomHierarchy.random(KEY, depth=2), SQUARE),
    "RandomFeatures": lambda give: features()(give(ONE_ROW[:1]), 0.5),
    "gaussian_mixture": lambda give: M.gaussian_mixture([0.5, 0.5], give(MEANS), give(SPREADS)).log_density(
        jnp.ones(2), 3.0
    ),
    "QuadraticLoss": lambda give: LOSS(give(np.array([[1, 2, 3]]))),
    "antithetic_moments": lambda give: antithetic_moments(GAUSSIAN, give(IMAGES), 30.0, KEY),
    "author_learning_rates": lambda give: T.author_learning_rates(give(SIGMAS)),
    "cross_moments": lambda give: cross_moments(GAUSSIAN, give(IMAGES), 30.0, KEY),
    "power_ema_coefficients": lambda give: T.power_ema_coefficients(
        give(np.array([10, 20])), np.array([0.05, 0.1]), 20.0, 0.07
    ),
    "power_ema_reconstruct": lambda give: T.power_ema_reconstruct(
        give(ROWS[:2]), give(np.array([10, 20])), np.array([0.05, 0.1]), 20.0, 0.07
    ),
    "power_ema_std": lambda give: T.power_ema_std(give(np.array([3, 7]))),
    "distill_by_adam": lambda give: (
        T.distill_by_adam(
            GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, epochs=1, learning_rates=give(np.array([1, 2, 3]))
        ).losses
    ),
    "distill_exactly": lambda give: T.distill_exactly(GAUSSIAN, give(IMAGES), give(SIGMAS), KEY).denoiser(
        jnp.ones((2, 2, 1)), 20.0
    ),
    "dsm_loss": lambda give: T.dsm_loss(NET, NET.init(KEY), give(IMAGES), give(IMAGES), 1.0)[0],
    "edm_loss": loss_of(T.edm_loss),
    "edm_sigma": lambda give: T.edm_sigma(give(np.array([0, 1, 2]))),
    "empirical_loss": lambda give: T.empirical_loss(
        features(),
        SDE,
        give(ROWS[:5, :1] % 7),
        give(np.array([1])),
        give(ROWS[:4, :1] % 3),
        give(np.array([1, 2, 3, 4])),
    ),
    "gaussian_arms": lambda give: gaussian_arms(give(CLASSES), KEY, 3),
    "gradient_flow": lambda give: T.gradient_flow(LOSS, give(np.array([0, 1, 9])), give(np.array([[1, 2, 3]]))),
    "linear_gradient_descent": lambda give: T.linear_gradient_descent(
        give(np.array([1, 2, 3])), give(np.diag([4, 5, 6])), 1.0, doublings=5
    ),
    "loss_weight": lambda give: T.loss_weight(SDE, "likelihood", give(np.array([1, 1]))),
    "population_loss": lambda give: T.population_loss(
        features(),
        SDE,
        ScoreOfDensity(TARGET, SDE),
        give(np.array([1])),
        give(ROWS[None, :5, :1] % 7),
        give(ROWS[None, :5, 0]),
    ),
    "train_dynamics": dynamics,
    "train_levels": lambda give: T.train_levels(
        NET, network_state(), give(IMAGES), give(SIGMAS[:2]), T.LevelTraining(steps=1, batch_size=4)
    )[1],
    "train_steps": edm_training,
    "train_together": lambda give: T.train_together(
        many_networks(),
        give(ROWS.reshape(2, -1, D)),
        np.array([9, 20]),
        jax.random.split(KEY, 2),
        T.TogetherConfig(steps=1, chunk=1),
    )[1],
    "train_network": lambda give: T.train_network(
        EDM, give(LARGER), T.TrainingConfig(duration_kimg=0.008, batch_size=8)
    )[1],
    "train_stored_levels": lambda give: T.train_stored_levels(
        NET,
        give(IMAGES),
        give(SIGMAS[:2]),
        T.LevelTraining(steps=1, batch_size=4),
        every=1,
        stored=lambda name, compute: compute(),
    )[1],
    "transform": lambda give: T.transform(
        give(LARGER[0]), T.Geometry(*jnp.linspace(0.1, 0.8, len(T.Geometry._fields)))
    ),
    "two_mode_quadrature": lambda give: T.two_mode_quadrature(3.0, give(np.array([0, 1, 2]))),
    "ve_loss": loss_of(T.ve_loss),
    "ve_sigma": lambda give: T.ve_sigma(give(np.array([0, 1]))),
    "vesde_loss": loss_of(T.vesde_loss),
    "vesde_sigma": lambda give: T.vesde_sigma(give(np.array([0, 1]))),
    "vp_loss": loss_of(T.vp_loss),
    "vp_sigma": lambda give: T.vp_sigma(give(np.array([0, 1]))),
    "PixelScale": lambda give: data.PixelScale.fit(give(IMAGES)).apply(give(IMAGES)),
    "PixelScale.invert": lambda give: data.PixelScale.fit(IMAGES).invert(give(IMAGES)),
    "area_mean": lambda give: data.area_mean(give(LARGER), 2),
    "checked_images": lambda give: checked_images(give(IMAGES), 2),
    "checked_levels": lambda give: checked_levels(give(SIGMAS), {}),
    "to_uint8": lambda give: to_uint8(give(IMAGES[:, 0] % 2)[..., None]),
}
