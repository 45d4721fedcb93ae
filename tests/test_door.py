"""Every kind of model goes through every function: a table of functions and models, all cells of which give the numbers
of the closed form that the models compute.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dgu
from dgu import analysis, samplers
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import InputError
from dgu.models import DiscreteSchedule, EDMPreconditioning
from dgu.samplers import Guided
from dgu.testing import check_denoiser

KEY = jax.random.key(7)
SHAPE = (2, 2, 1)
#: The Gaussian of variance SCALE^2, whose posterior mean all the models compute.
SCALE = 0.7
SIGMAS = samplers.karras_sigmas(3, 0.1, 10.0)
IMAGES = np.asarray(SCALE * np.random.default_rng(0).normal(size=(6, *SHAPE)), np.float32)
DISCRETE = DiscreteSchedule.linear(1000)


def shrink(scale, x, sigma):
    return scale**2 / (scale**2 + jnp.asarray(sigma, x.dtype) ** 2) * x


# --- the kinds of model -----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Plain:
    """A callable that JAX knows nothing of, with an array in it."""

    scale: Any

    def __call__(self, x, sigma):
        return shrink(self.scale, x, sigma)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    scale: Any

    def __call__(self, x, sigma):
        return shrink(self.scale, x, sigma)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, sigma):
        return shrink(self.param("scale", lambda key: jnp.asarray(SCALE)), x, sigma)


class NNX(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.asarray(SCALE))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x, sigma):
        return shrink(self.scale[...], self.dropout(x), sigma)


@jax.tree_util.register_pytree_node_class
class WithActivation:
    """As an Equinox module: a pytree whose leaves are arrays, an activation function, a flag and a number."""

    def __init__(self, scale, activation, flag, factor):
        self.parts = (scale, activation, flag, factor)

    def tree_flatten(self):
        return self.parts, None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*parts)

    def __call__(self, x, sigma):
        scale, activation, flag, factor = self.parts
        return activation(shrink(scale, factor * x, sigma)) if flag else jnp.zeros_like(x)


def epsilon(scale, z, t):
    """The noise that a perfect network sees in ``z = a (x0 + sigma eps)`` at time t of the discrete schedule."""
    abar = jnp.exp(jnp.interp(t, jnp.arange(1000.0), jnp.asarray(np.log(DISCRETE.alphas_cumprod))))
    return jnp.sqrt(1 - abar) * z / (abar * scale**2 + 1 - abar)


def velocity_v(scale, z, t):
    abar = jnp.exp(jnp.interp(t, jnp.arange(1000.0), jnp.asarray(np.log(DISCRETE.alphas_cumprod))))
    eps = epsilon(scale, z, t)
    return (eps - jnp.sqrt(1 - abar) * z) / jnp.sqrt(abar)  # v = a eps - s x0 with z = a x0 + s eps


def velocity(scale, z, t):
    """``eps - x0`` of the straight path."""
    return (t - (1 - t) * scale**2) * z / ((1 - t) ** 2 * scale**2 + t**2)


def equinox():
    eqx = pytest.importorskip("equinox")

    class Module(eqx.Module):
        scale: jax.Array
        activation: Any
        dropout: eqx.nn.Dropout

        def __call__(self, x, sigma):
            return self.activation(self.dropout(shrink(self.scale, x, sigma)))

    return Module(jnp.asarray(SCALE), lambda x: x, eqx.nn.Dropout(0.5, inference=True))


def torch():
    library = pytest.importorskip("torch")

    class Module(library.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = library.nn.Parameter(library.tensor(SCALE))

        def forward(self, x, sigma):
            return self.scale**2 / (self.scale**2 + sigma[:, None, None, None] ** 2) * x

    return dgu.denoiser(Module())


MODELS = {
    "closure": lambda: lambda x, sigma: shrink(SCALE, x, sigma),
    "functools.partial": lambda: functools.partial(shrink, jnp.asarray(SCALE)),
    "Partial": lambda: jax.tree_util.Partial(shrink, jnp.asarray(SCALE)),
    "plain object": lambda: Plain(jnp.asarray(SCALE)),
    "dataclass": lambda: Registered(jnp.asarray(SCALE)),
    "linen": lambda: dgu.denoiser(Linen(), Linen().init(KEY, jnp.zeros(SHAPE), 1.0)),
    "nnx": lambda: dgu.denoiser(NNX()),
    "activation leaf": lambda: WithActivation(jnp.asarray(SCALE), lambda x: x, True, 1.0),
    "equinox": equinox,
    "torch": torch,
    "batched": lambda: dgu.denoiser(
        lambda x, sigma: jnp.einsum("bhwc,b->bhwc", x, SCALE**2 / (SCALE**2 + sigma**2)), batched=True
    ),
    "epsilon, discrete": lambda: dgu.denoiser(epsilon, jnp.asarray(SCALE), predicts="epsilon", schedule=DISCRETE),
    "v, discrete": lambda: dgu.denoiser(velocity_v, jnp.asarray(SCALE), predicts="v", schedule=DISCRETE),
    "flow": lambda: dgu.denoiser(velocity, jnp.asarray(SCALE), predicts="velocity"),
    "guided": lambda: Guided(Registered(jnp.asarray(0.5)), Plain(jnp.asarray(SCALE)), 0.0),
    "channels first": lambda: dgu.denoiser(
        lambda z, sigma: shrink(SCALE, z, sigma) if z.shape == (1, 2, 2) else 1 / 0, channels_first=True
    ),
}

FUNCTIONS = {
    "sample": lambda d: samplers.sample(d, KEY, range(3), SIGMAS, shape=SHAPE, batch_size=3),
    "sample_from": lambda d: samplers.sample_from(d, KEY, 10 * IMAGES, SIGMAS, batch_size=6),
    "heun": lambda d: samplers.heun(d, 10 * jnp.asarray(IMAGES[0]), SIGMAS),
    "ablation": lambda d: samplers.Ablation()(d, 10 * jnp.asarray(IMAGES[0]), SIGMAS),
    "invert": lambda d: samplers.invert(d, jnp.asarray(IMAGES[0]), SIGMAS),
    "log_likelihood": lambda d: samplers.log_likelihood(
        d, jnp.asarray(IMAGES[0]), sigma_min=0.1, sigma_max=50.0, rtol=1e-3, atol=1e-3
    )[0],
    "trace_trajectories": lambda d: samplers.trace_trajectories(d, KEY, range(2), SIGMAS, shape=SHAPE).samples,
    "singular_triplets": lambda d: analysis.singular_triplets(d, IMAGES[:2], np.array([0.5, 2.0]), 2, KEY).values,
    "level_losses": lambda d: analysis.level_losses(d, IMAGES, KEY, sigmas=np.array([0.5, 2.0])),
    "denoising_loss": lambda d: analysis.denoising_loss(d, IMAGES, KEY, sigmas=(0.5, 2.0)),
    "score_distances": lambda d: analysis.score_distances(
        {"a": d, "b": Registered(jnp.asarray(0.9))}, IMAGES, np.array([0.5, 2.0]), KEY, inputs="held-out"
    ),
    "local_dimension": lambda d: analysis.local_dimension(d, IMAGES[:2], np.array(0.5)),
}


def numbers(result):
    if dataclasses.is_dataclass(result):
        result = [getattr(result, field.name) for field in dataclasses.fields(result)]
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(result) if not isinstance(leaf, str)]


@functools.cache
def expected(function):
    return numbers(FUNCTIONS[function](Registered(jnp.asarray(SCALE, jnp.float32))))


#: What is tried by default: a pytree with constants in it.
FEW = ("activation leaf",)


@pytest.mark.parametrize(
    "model", [pytest.param(each, marks=() if each in FEW else pytest.mark.slow) for each in MODELS]
)
def test_every_function_takes_every_kind_of_model_and_finds_the_same_numbers(model):
    denoiser = MODELS[model]()
    for name, function in FUNCTIONS.items():
        for found, wanted in zip(numbers(function(denoiser)), expected(name), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_every_kind_of_model_is_an_argument_of_a_compiled_program_that_is_compiled_once(model):
    traces = []

    @jax.jit
    def derivative(denoiser, x, sigma):
        traces.append(sigma)
        at = lambda y: denoise(denoiser, y, sigma)  # noqa: E731
        return jax.jvp(at, (x,), (x,))[1] + jax.vjp(at, x)[1](x)[0]

    denoiser = MODELS[model]()
    for sigma in (0.5, 2.0):
        found = derivative(as_pytree(denoiser), jnp.asarray(IMAGES[0]), jnp.asarray(sigma))
        np.testing.assert_allclose(found, 2 * shrink(SCALE, IMAGES[0], jnp.asarray(sigma)), rtol=1e-4)
    assert len(traces) == 1


def test_the_check_of_a_denoiser_knows_the_range_and_which_derivatives_there_are():
    @jax.custom_jvp
    def forwards_only(x, sigma):
        return shrink(SCALE, x, sigma)

    @forwards_only.defjvp
    def _(primals, tangents):
        x, sigma = primals
        return forwards_only(x, sigma), jax.pure_callback(
            lambda v: np.asarray(v) / 2, jax.ShapeDtypeStruct(x.shape, x.dtype), tangents[0], vmap_method="expand_dims"
        )

    @jax.custom_vjp
    def backwards_only(x, sigma):
        return shrink(SCALE, x, sigma)

    backwards_only.defvjp(lambda x, sigma: (backwards_only(x, sigma), sigma), lambda s, u: (shrink(SCALE, u, s), 0 * s))

    def derivatives(denoiser):
        report = check_denoiser(denoiser, SHAPE, KEY, sigmas=(0.1, 1.0), sampler=lambda _, key, numbers: numbers)
        return report.forward, report.backward

    assert derivatives(forwards_only) == (True, False)
    assert derivatives(backwards_only) == (False, True)
    assert derivatives(lambda x, sigma: shrink(SCALE, x, sigma)) == (True, True)
    discrete = MODELS["epsilon, discrete"]()  # 0.002 is outside its schedule
    assert check_denoiser(discrete, SHAPE, KEY, sampler=lambda _, key, numbers: numbers).defects == ()


# --- what is refused, and how
# ------------------------------------------------------------------------------------------


def fails(x, sigma):
    return x[0, 0, 0, 0]  # written for a batch


@pytest.mark.parametrize("function", ["sample", "heun", "singular_triplets", "denoising_loss"])
@pytest.mark.parametrize(
    ("model", "line"),
    [
        (fails, r"denoiser: called with ONE example, x of shape \(2, 2, 1\) and a scalar sigma, it raised IndexError"),
        (lambda x, sigma: x[None], r"called with ONE example, .* it returned shape \(1, 2, 2, 1\); must return"),
        (lambda x, sigma: (x, x), r"called with ONE example, .* it returned tuple; must return an array"),
        (lambda x, sigma: x > 0, r"called with ONE example, .* it returned bool; must return real numbers"),
    ],
)
def test_what_is_no_denoiser_is_refused_in_one_line(function, model, line):
    with pytest.raises(InputError, match=line) as error:
        FUNCTIONS[function](model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: dgu.denoiser(fails, predicts="noise"), "predicts = 'noise': must be one of x0, epsilon, v, velocity"),
        (lambda: dgu.denoiser(fails, schedule="cosine"), "schedule = str: must be SigmaSchedule"),
        (lambda: dgu.denoiser(fails, predicts="consistency", schedule=DISCRETE), "schedule = 'DiscreteSchedule': must"),
        (lambda: dgu.denoiser(fails, preconditioning=EDMPreconditioning(), predicts="v"), "preconditioning = 'EDMPre"),
        (lambda: dgu.denoiser(Linen()), "params = None: must be the variables of the Linen module"),
        (lambda: dgu.denoiser({"w": 1}), "model = dict: must be callable"),
        (lambda: dgu.denoiser(fails, no_class=3), "no_class = 3: must be left out"),
        (
            lambda: dgu.denoiser(fails, num_classes=3, no_class=(1.0, 0.0)),
            r"no_class = \(2,\): must be one number, or 3",
        ),
        (lambda: dgu.denoiser(fails, num_classes=-1), "num_classes = -1: must be a whole number"),
        (lambda: dgu.denoiser(fails, shape=(8, 0, 1)), "a size of shape = 0"),
        (lambda: dgu.denoiser(fails, channels_first=True)(jnp.zeros(3), 1.0), r"x.shape = \(3,\): must be \(H, W, C\)"),
        (lambda: dgu.denoiser(fails, shape=(4,))(jnp.zeros(3), 1.0), r"x.shape = \(3,\): must be \(4,\)"),
    ],
)
def test_what_the_door_does_not_take_is_refused_in_one_line(make, line):
    with pytest.raises(InputError, match=line):
        make()


def labelled(z, t, label):
    return 0 * z + label


def test_labels_go_through_the_samplers_and_are_refused_where_there_are_none():
    conditional = dgu.denoiser(labelled, num_classes=3)
    run = functools.partial(samplers.sample, key=KEY, indices=range(2), sigmas=SIGMAS, shape=SHAPE, batch_size=2)
    np.testing.assert_allclose(run(conditional, labels=[1, 2])[:, 0, 0, 0], [1, 2], rtol=1e-5)
    for denoiser, options, line in (
        (conditional, {}, "label: is missing; this network has 3 classes"),
        (conditional, {"labels": [0, 3]}, r"labels = \[3\]: must be class indices in 0..2"),
        (dgu.denoiser(lambda z, t: z), {"labels": [0, 1]}, "labels = 'given': must be left out"),
    ):
        with pytest.raises(InputError, match=line):
            run(denoiser, **options)
