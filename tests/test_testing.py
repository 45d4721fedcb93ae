"""Closed forms pass the checks; each planted defect is caught and named."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.testing import DenoiserCheckError, check_denoiser, check_posterior_mean

KEY = jax.random.key(3)
SIZE = 5
MEAN = np.linspace(-0.6, 0.8, SIZE)
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
EIGENVALUES = np.array([2.0, 0.7, 0.3, 0.05, 0.0])  # one direction without variance


@jax.tree_util.register_dataclass
@dataclass
class Gaussian:
    """Exact posterior mean of N(mean, basis diag(eigenvalues) basis^T), with a factor that should be 1."""

    mean: jax.Array
    basis: jax.Array
    eigenvalues: jax.Array
    factor: float = 1.0

    def __call__(self, x, sigma):
        sigma = jnp.asarray(sigma, x.dtype)
        gain = self.eigenvalues / (self.eigenvalues + sigma**2)
        coordinates = jnp.matmul(x - self.mean, self.basis, precision="highest")
        return self.factor * (self.mean + jnp.matmul(self.basis, gain * coordinates, precision="highest"))

    def log_density(self, x, sigma):
        coordinates = jnp.matmul(x - self.mean, self.basis, precision="highest")
        return -jnp.sum(coordinates**2 / (self.eigenvalues + sigma**2)) / 2

    def draw(self, key):
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.matmul(self.basis, jnp.sqrt(self.eigenvalues) * noise, precision="highest")


@jax.tree_util.register_dataclass
@dataclass
class Mixture:
    """Exact posterior mean of two isotropic Gaussians of variances 0.04 and 0.25 with weights 0.3 and 0.7."""

    means: jax.Array
    variances: jax.Array
    log_weights: jax.Array

    def _log_terms(self, x, sigma):
        total = self.variances + sigma**2
        squares = jnp.sum((x[None] - self.means) ** 2, axis=1)
        return self.log_weights - squares / (2 * total) - SIZE / 2 * jnp.log(total)

    def log_density(self, x, sigma):
        return jax.nn.logsumexp(self._log_terms(x, sigma))

    def __call__(self, x, sigma):
        sigma = jnp.asarray(sigma, x.dtype)
        weights = jax.nn.softmax(self._log_terms(x, sigma))
        gain = (self.variances / (self.variances + sigma**2))[:, None]
        return jnp.sum(weights[:, None] * (self.means + gain * (x[None] - self.means)), axis=0)

    def draw(self, key):
        component = jax.random.categorical(key, self.log_weights)
        noise = jax.random.normal(jax.random.fold_in(key, 1), self.means.shape[1:], self.means.dtype)
        return self.means[component] + jnp.sqrt(self.variances[component]) * noise


def gaussian(dtype=jnp.float32, factor=1.0):
    return Gaussian(jnp.asarray(MEAN, dtype), jnp.asarray(ROTATION, dtype), jnp.asarray(EIGENVALUES, dtype), factor)


def mixture(dtype=jnp.float32):
    means = jnp.asarray(np.stack([np.full(SIZE, -0.7), np.full(SIZE, 0.5)]), dtype)
    return Mixture(means, jnp.asarray([0.04, 0.25], dtype), jnp.log(jnp.asarray([0.3, 0.7], dtype)))


def defects(check, *args, **options):
    """The names of the defects of a denoiser that must fail."""
    with pytest.raises(DenoiserCheckError) as caught:
        check(*args, **options)
    for line in caught.value.report.defects:
        assert line in str(caught.value)
    return {line.split(":")[0] for line in caught.value.report.defects}


def full_check(truth, dtype, **options):
    given = {"log_density": truth.log_density, "sample_prior": truth.draw, "dtype": dtype}
    return check_posterior_mean(options.pop("denoiser", truth), (SIZE,), KEY, **{**given, **options})


def test_gaussian_passes_in_float32():
    truth = gaussian()
    report = full_check(truth, jnp.float32, mean=MEAN)
    assert report.defects == ()
    assert report.denoiser.traces == 1 and report.denoiser.random_draws == ()
    assert report.asymmetry < 1e-5 and report.tweedie < 1e-3 and report.mean_bias < 1e-4
    assert report.wiener < 4 and report.identity < 0.6


def test_gaussian_passes_in_float64(x64):
    truth = gaussian(jnp.float64)
    support = jax.vmap(truth.draw)(jax.random.split(KEY, 100))
    report = full_check(truth, jnp.float64, mean=MEAN, support=support, sample_prior=None)
    assert report.asymmetry < 1e-13 and report.negativity < 1e-13 and report.tweedie < 1e-11
    assert report.mean_bias < 1e-14
    # Two noises at sigma = 80: the ratio is that of |Cov v| to sigma^2 |v|, so between 0 and 2 / 80^2.
    assert 0 < report.spread < EIGENVALUES.max() / 80**2
    assert report.wiener < 4


def test_mixture_passes_in_float32():
    report = full_check(mixture(), jnp.float32, mean=0.3 * np.full(SIZE, -0.7) + 0.7 * np.full(SIZE, 0.5))
    assert report.defects == () and report.tweedie < 1e-3


def test_mixture_passes_in_float64(x64):
    report = full_check(mixture(jnp.float64), jnp.float64)
    assert report.asymmetry < 1e-12 and report.negativity < 1e-12 and report.tweedie < 1e-10
    assert report.mean_bias is None and report.wiener is not None


def test_library_closed_form_passes():
    from dgu.models import GaussianDenoiser

    images = jax.random.normal(KEY, (12, 4, 4, 1))
    report = check_posterior_mean(
        GaussianDenoiser.fit(images), (4, 4, 1), KEY, mean=images.mean(axis=0), support=images
    )
    assert report.asymmetry < 1e-5


def test_empirical_denoiser_passes_where_its_posterior_is_one_point():
    """At sigma = 0.05 the Jacobian is rounding and nothing else."""
    data = jax.random.normal(KEY, (12, 4, 4, 1))

    def squares(data, x, sigma):
        return -jnp.sum((x[None] - data) ** 2, axis=(1, 2, 3)) / (2 * sigma**2)

    def posterior_mean(data, x, sigma):
        return jnp.tensordot(jax.nn.softmax(squares(data, x, sigma)), data, 1, precision="highest")

    report = check_posterior_mean(
        jax.tree_util.Partial(posterior_mean, data),
        (4, 4, 1),
        KEY,
        mean=data.mean(axis=0),
        support=data,
        sample_prior=lambda key: jax.random.choice(key, data),
        log_density=jax.tree_util.Partial(lambda d, x, s: jax.nn.logsumexp(squares(d, x, s)), data),
    )
    assert report.identity == 0 and report.wiener < 4


def test_plain_function_passes_and_is_checked():
    report = check_denoiser(lambda x, sigma: x / (1 + sigma**2), (3,), KEY)
    assert report.shape == (3,) and report.eager_jit < 1e-6 and report.batch_coupling == 0.0


def test_krylov_space_finds_one_negative_direction_and_one_skew_plane():
    """48 dimensions, eight at a time: as sure as the whole Jacobian where the defect is large."""
    size = 48
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))[0]
    spectrum = np.linspace(0.2, 2, size)

    def linear(matrix):
        return jax.tree_util.Partial(
            lambda m, x, s: jnp.matmul(m, x, precision="highest") / (1 + s**2), jnp.asarray(matrix)
        )

    good = (basis * spectrum) @ basis.T
    negative = good - 2.5 * np.outer(basis[:, 0], basis[:, 0])
    skew = good + np.outer(basis[:, 0], basis[:, 1]) - np.outer(basis[:, 1], basis[:, 0])
    options = {"exact_size": 16, "identity": np.inf, "spread": np.inf}
    # Not the identity on any support, so those bounds are lifted; here only the Jacobian matters.
    assert check_posterior_mean(linear(good), (size,), KEY, **options).negativity < 1e-6
    assert defects(check_posterior_mean, linear(negative), (size,), KEY, **options) == {"negativity"}
    assert defects(check_posterior_mean, linear(skew), (size,), KEY, **options) == {"asymmetry"}


def test_non_symmetric_is_caught():
    truth = gaussian()
    turn = jnp.asarray(np.eye(SIZE) + 0.1 * np.triu(np.ones((SIZE, SIZE)), 1), jnp.float32)
    turned = jax.tree_util.Partial(lambda m, d, x, s: m @ d(x, s), turn, truth)
    assert "asymmetry" in defects(check_posterior_mean, turned, (SIZE,), KEY)


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_mis_scaled_is_caught(factor):
    truth = gaussian()
    names = defects(full_check, truth, jnp.float32, denoiser=gaussian(factor=factor), mean=MEAN)
    assert {"identity", "mean_bias", "tweedie", "wiener"} <= names
    assert "asymmetry" not in names and "negativity" not in names


def test_mis_scaled_is_caught_with_nothing_given():
    assert defects(check_posterior_mean, gaussian(factor=1.05), (SIZE,), KEY) == {"identity"}


def test_wrong_noise_level_is_caught():
    """Takes sigma for twice what it is: a smooth, symmetric, wrong posterior mean."""
    truth = gaussian()
    blind = jax.tree_util.Partial(lambda d, x, s: d(x, 2 * s), truth)
    assert {"tweedie", "wiener"} <= defects(full_check, truth, jnp.float32, denoiser=blind)


def test_identity_map_is_caught():
    """It forgets nothing at large sigma, and is symmetric and the identity on everything."""
    assert "spread" in defects(check_posterior_mean, lambda x, s: x, (SIZE,), KEY)


def test_constant_bias_is_caught():
    truth = gaussian()
    shifted = jax.tree_util.Partial(lambda d, b, x, s: d(x, s) + b, truth, jnp.full(SIZE, 0.05))
    assert {"mean_bias", "tweedie", "identity"} <= defects(full_check, truth, jnp.float32, denoiser=shifted, mean=MEAN)


def coupled_rule():
    """A custom_vmap that takes the mean of its batch off, as a batch norm in training mode does."""

    @jax.custom_batching.custom_vmap
    def centred(x):
        return x

    @centred.def_vmap
    def _(axis_size, in_batched, x):
        return x - 0.01 * x.mean(axis=0, keepdims=True), True

    return lambda x, sigma: centred(x) / (1 + sigma**2)


def coupled_to_neighbour(step):
    """Each example takes a little of the one before it (step 1) or after it (-1); one end takes nothing."""

    @jax.custom_batching.custom_vmap
    def mixed(x):
        return x

    @mixed.def_vmap
    def _(axis_size, in_batched, x):
        edge = 0 if step == 1 else -1
        return x + 0.01 * jnp.roll(x, step, axis=0).at[edge].set(0), True

    return lambda x, sigma: mixed(x) / (1 + sigma**2)


def coupled_callback(x, sigma):
    def host(x):
        return np.asarray(x - 0.01 * x.mean(axis=0, keepdims=True) if x.ndim > 1 else x, np.float32)

    out = jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims")
    return out / (1 + sigma**2)


def coupled_if_axis(x, sigma):
    """Couples only where the batch axis is bound: alone it is the identity."""
    try:
        return (x - 0.01 * jax.lax.pmean(x, "batch")) / (1 + sigma**2)
    except NameError:
        return x / (1 + sigma**2)


COUPLED = {
    "rule": coupled_rule(),
    "before": coupled_to_neighbour(1),
    "after": coupled_to_neighbour(-1),
    "callback": coupled_callback,
    "axis": coupled_if_axis,
}


@pytest.mark.parametrize("denoiser", COUPLED.values(), ids=COUPLED.keys())
def test_batch_coupled_is_caught(denoiser):
    assert {"vmap_loop", "batch_coupling"} <= defects(check_denoiser, denoiser, (3,), KEY)


def test_collective_over_the_batch_is_caught():
    assert defects(check_denoiser, lambda x, s: x - jax.lax.pmean(x, "examples"), (3,), KEY) == {"batch_coupling"}


def noise_of_constant_key(x, sigma):
    return x / (1 + sigma**2) + 0.1 * jax.random.normal(jax.random.key(0), x.shape, x.dtype)


@jax.tree_util.register_dataclass
@dataclass
class KeepsKey:
    key: jax.Array

    def __call__(self, x, sigma):
        return x / (1 + sigma**2) + 0.1 * jax.random.bernoulli(self.key, 0.5, x.shape)


@pytest.mark.parametrize("denoiser", [noise_of_constant_key, KeepsKey(jax.random.key(1))], ids=["constant", "kept"])
def test_key_reusing_is_caught(denoiser):
    assert defects(check_denoiser, denoiser, (3,), KEY) == {"random_draws"}


def test_advancing_key_is_caught():
    state = [jax.random.key(0)]

    def advancing(x, sigma):
        with jax.ensure_compile_time_eval():
            state[0], now = jax.random.split(state[0])
            noise = jax.random.normal(now, x.shape, x.dtype)
        return x / (1 + sigma**2) + 1e-6 * noise

    assert "repeat" in defects(check_denoiser, advancing, (3,), KEY)


def test_sampler_that_reuses_its_key_is_caught():
    def one_key_for_all(denoiser, key, indices):
        x = 80 * jax.random.normal(key, (3,))
        return np.stack([denoiser(x, 1.0) for _ in indices])

    denoiser = lambda x, sigma: x / (1 + sigma**2)  # noqa: E731
    assert defects(check_denoiser, denoiser, (3,), KEY, sampler=one_key_for_all) == {"equal_samples"}


def test_sampler_that_consumes_its_key_by_position_is_caught():
    def by_position(denoiser, key, indices):
        return jax.vmap(denoiser, (0, None))(80 * jax.random.normal(key, (len(indices), 3)), 1.0)

    denoiser = lambda x, sigma: x / (1 + sigma**2)  # noqa: E731
    assert defects(check_denoiser, denoiser, (3,), KEY, sampler=by_position) == {"sample_coupling"}


@jax.tree_util.register_pytree_node_class
class Recompiles:
    """A static field that counts the calls."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, sigma):
        return x / (1 + sigma**2)

    def tree_flatten(self):
        self.count += 1
        return (), self.count

    @classmethod
    def tree_unflatten(cls, static, leaves):
        self = object.__new__(cls)
        self.count = static
        return self


def test_recompiling_is_caught():
    assert defects(check_denoiser, Recompiles(), (3,), KEY) == {"traces"}


@jax.tree_util.register_dataclass
@dataclass
class Labelled:
    offset: jax.Array
    label: jax.Array | int = 0
    normalised: bool = field(default=True, metadata={"static": True})

    def given(self, label):
        return Labelled(self.offset, jnp.asarray(label, jnp.int32) if self.normalised else label, self.normalised)

    def __call__(self, x, sigma):
        return (x + self.offset[self.label]) / (1 + sigma**2)


def test_labels_that_do_not_share_a_trace_are_caught():
    offsets = jnp.arange(4.0)
    assert check_denoiser(Labelled(offsets), (3,), KEY, label=2).traces == 1
    assert defects(check_denoiser, Labelled(offsets, normalised=False), (3,), KEY, label=2) == {"traces"}


def test_python_branch_on_a_value_is_caught():
    assert defects(check_denoiser, lambda x, s: x if s > 1 else x / 2, (3,), KEY) == {"eager_jit"}


def test_value_captured_when_traced_is_caught():
    calls = []

    def captured(x, sigma):
        calls.append(1)
        return x * (1 + len(calls) // 9)

    assert "eager_jit" in defects(check_denoiser, captured, (3,), KEY)


@pytest.mark.parametrize(
    ("name", "denoiser"),
    [
        ("non_finite", lambda x, s: x / jnp.maximum(s - 0.01, 0.0)),
        ("dtype", lambda x, s: (x / (1 + s**2)).astype(jnp.float16)),
        ("shape", lambda x, s: x[None] / (1 + s**2)),
        ("call", lambda x, s: (x, s)),
        ("call", lambda x: x),
    ],
)
def test_unusable_output_is_caught(name, denoiser):
    assert defects(check_denoiser, denoiser, (3,), KEY) == {name}


def test_non_finite_names_the_levels():
    with pytest.raises(DenoiserCheckError, match=r"non_finite: NaN or infinity at sigma = 0.002, 80") as caught:
        check_denoiser(lambda x, s: jnp.where((s > 0.01) & (s < 50), x, jnp.nan), (3,), KEY)
    assert caught.value.report.non_finite == (0.002, 80.0)


def test_checks_repeat_without_counting_traces_of_earlier_checks():
    for _ in range(3):
        assert check_denoiser(lambda x, s: x / (1 + s**2), (3,), KEY).traces == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shape": ()}, "shape = "),
        ({"sigmas": (0.0, 1.0)}, "sigmas = "),
        ({"dtype": jnp.int32}, "dtype = "),
        ({"dtype": jnp.float64}, "dtype = "),
        ({"max_traces": 0}, "max_traces = "),
        ({"label": 1}, "label = "),
    ],
)
def test_bad_arguments(options, text):
    arguments = {"shape": (3,), **options}
    with pytest.raises(InputError, match=text):
        check_denoiser(lambda x, s: x, arguments.pop("shape"), KEY, **arguments)


def test_bad_support():
    with pytest.raises(InputError, match="support = "):
        check_posterior_mean(lambda x, s: x, (3,), KEY, support=np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="mean = "):
        check_posterior_mean(lambda x, s: x, (3,), KEY, mean=np.zeros(2, np.float32))
