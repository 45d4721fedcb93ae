"""The four preconditioners against recorded coefficients, and networks in each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import EDMPreconditioning, IDDPMPreconditioning, VEPreconditioning, VPPreconditioning, edm_from_arrays
from dgu.models.preconditioning import PRECONDITIONINGS
from dgu.samplers import DPMSolver, heun, invert, karras_sigmas, log_likelihood, sample
from experiments.sampling import SamplerConfig, build_sampler
from tests import parity
from tests.models import networks, slow_unet

RECORDED = parity.load("precond_coeffs.npz")
KINDS = sorted(parity.config(RECORDED)["ranges"])
DENOISE = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


def wrapped(kind):
    """A small network in each class, its configuration and weights; iDDPM's with the recorded table of noise levels."""
    kwargs = networks.SMALL | {"img_resolution": 4, "channel_mult": [1], "attn_resolutions": [], "augment_dim": 0}
    config = {"precond": kind, "kwargs": kwargs}
    arrays = networks.random_arrays(config)
    if kind == "iDDPMPrecond":
        arrays["u"] = RECORDED["iDDPMPrecond:u"]
    return edm_from_arrays(config, arrays), networks.full_kwargs(config), arrays


@pytest.mark.parametrize("kind", KINDS)
def test_coefficients_match_the_reference(kind, x64):
    table = jnp.asarray(RECORDED["iDDPMPrecond:u"])
    got = PRECONDITIONINGS[kind]().coefficients(jnp.asarray(RECORDED["sigma"]), table)
    for name, values in zip(("c_skip", "c_out", "c_in", "c_noise"), got):
        np.testing.assert_allclose(values, RECORDED[f"{kind}:{name}"], rtol=1e-12, atol=1e-300, err_msg=name)


def test_ranges_match_the_reference_to_the_last_bit():
    ranges = parity.config(RECORDED)["ranges"]
    for kind, expected in ranges.items():
        if kind != "iDDPMPrecond":  # Its range is that of the table in the checkpoint; see below.
            preconditioning = PRECONDITIONINGS[kind]()
            assert preconditioning.sigma_min == float(expected["sigma_min"])
            assert preconditioning.sigma_max == float(expected["sigma_max"])
    np.testing.assert_allclose(IDDPMPreconditioning().table, RECORDED["iDDPMPrecond:u"], rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_denoisers_in_each_class(kind, x64):
    denoiser, kwargs, arrays = wrapped(kind)
    rng = np.random.default_rng(0)
    sigma = float(RECORDED["sigma"][9])
    skip, out, inp, noise = (RECORDED[f"{kind}:{name}"][9] for name in ("c_skip", "c_out", "c_in", "c_noise"))
    x = rng.normal(size=(3, 4, 4))
    f = slow_unet.unet(networks.inner(arrays), kwargs, inp * x, noise)
    assert len(f) == (6 if kind == "iDDPMPrecond" else 3)
    got = DENOISE(denoiser, jnp.asarray(parity.nhwc(x)), sigma)
    assert parity.relative(parity.nchw(got), skip * x + out * f[:3]) < 1e-12
    low, high = (denoiser.sigma_min, denoiser.sigma_max)
    expected = parity.config(RECORDED)["ranges"][kind]
    assert (low, high) == (float(expected["sigma_min"]), float(expected["sigma_max"]))


def test_noise_levels_are_rounded_where_the_network_knows_few(x64):
    sigma = RECORDED["sigma"]
    denoiser, _, arrays = wrapped("iDDPMPrecond")
    rounded = denoiser.round_sigma(sigma)
    assert isinstance(rounded, np.ndarray) and rounded.dtype == np.float64
    np.testing.assert_array_equal(rounded, RECORDED["iDDPMPrecond:round_sigma"])
    np.testing.assert_array_equal(jax.jit(lambda d, s: d.round_sigma(s))(denoiser, jnp.asarray(sigma)), rounded)
    # Halfway between two entries the first one is taken; gradients do not reach the table.
    u = arrays["u"].astype(np.float64)
    assert denoiser.round_sigma((u[3] + u[4]) / 2) == u[3]
    x = jnp.ones((4, 4, 3))
    gradient = jax.jit(jax.grad(lambda d: jnp.sum(d(x, 1.0) ** 2)))(denoiser)
    assert not np.any(gradient.params["u"]) and np.any(gradient.params["out_conv"]["kernel"])
    other, *_ = wrapped("VEPrecond")
    np.testing.assert_array_equal(other.round_sigma(sigma), sigma)
    assert jax.jit(lambda d, s: d.round_sigma(s))(other, 0.3) == jnp.asarray(0.3)


def test_bad_noise_levels_and_labels_are_one_line():
    denoiser, *_ = wrapped("VPPrecond")
    x = jnp.zeros((4, 4, 3))
    cases = [
        (lambda: denoiser(x, 0.0), "sigma = 0.0: must be positive"),
        (lambda: denoiser(x, float("nan")), "sigma = nan"),
        (lambda: denoiser(x, float("inf")), "sigma = inf"),
        (lambda: denoiser(x[:2], 1.0), r"x.shape = \(2, 4, 3\): must be \(4, 4, 3\)"),
        (lambda: denoiser.given(5), r"label = 5: must be a class index in 0\.\.4"),
        (lambda: denoiser.given(-1), "label = -1"),
        (lambda: denoiser.given(2.0), "label = "),
        (lambda: denoiser.given(np.zeros(4, np.float32)), "5 entries"),
        (lambda: denoiser.given(1, np.zeros(9, np.float32)), "augment_labels .*takes none"),
        (lambda: EDMPreconditioning(sigma_data=0.0), "sigma_data"),
        (lambda: EDMPreconditioning(sigma_data=float("inf")), "sigma_data"),
        (lambda: EDMPreconditioning(sigma_min=2.0, sigma_max=1.0), "sigma_max = 1.0: must be above sigma_min"),
        (lambda: VEPreconditioning(sigma_min=-1.0), "sigma_min"),
        (lambda: VPPreconditioning(beta_d=0.0), "beta_d"),
        (lambda: VPPreconditioning(M=1), "M = 1"),
        (lambda: IDDPMPreconditioning(C_1=1.0), "C_1"),
    ]
    for act, message in cases:
        with pytest.raises(InputError, match=message) as error:
            act()
        assert "\n" not in str(error.value), message


def test_levels_outside_the_range_are_refused_by_name():
    denoiser, *_ = wrapped("VEPrecond")
    x = jnp.ones((4, 4, 3))
    line = "must be from 0.02 to 100, the network's noise levels"
    for level in (0.0199, np.float32(101)):
        with pytest.raises(InputError, match=f"^sigma = {level:.6g}: {line}$"):
            denoiser(x, level)
    jax.eval_shape(lambda x: denoiser(x, np.float32(0.02)), x)  # whose rounding lies below 0.02
    grid = karras_sigmas(4)
    for run in (heun, invert, DPMSolver()):
        with pytest.raises(InputError, match=f"^sigmas = 0.002: {line}$"):
            run(denoiser, x, grid)
    with pytest.raises(InputError, match=f"^sigmas = 0.002: {line}$"):
        sample(denoiser, jax.random.key(0), [0], grid, shape=x.shape)
    with pytest.raises(InputError, match=f"^sigma_max = 200: {line}$"):
        log_likelihood(denoiser, x, sigma_min=0.02, sigma_max=200.0)
    with pytest.raises(InputError, match=f"^sampler.sigma_min = 0.002: {line}$"):
        build_sampler(SamplerConfig(sigma_min=0.002), denoiser)
    sigmas, *_ = build_sampler(SamplerConfig(num_steps=4), denoiser)
    assert sigmas[-2] == pytest.approx(0.02)  # the method's own level gives way to the network's
