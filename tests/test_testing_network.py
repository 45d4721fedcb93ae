"""Trained networks: measures that are 0 of exact posterior means, and four outcomes of the check of the bundled one."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dgu import data
from dgu.core.errors import InputError
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, MoLRG, load_checkpoint
from dgu.testing import DenoiserCheckError, NetworkScale, check_network, network_measures
from dgu.testing.make_scale import gaussian_classes
from dgu.testing.network_measures import MEASURES
from dgu.testing.network_report import NetworkReport
from dgu.testing.network_scale import FACTOR, judged
from dgu.testing.spoilt import spoilt

KEY = jax.random.key(5)
#: Few levels and images, none of those that the scale was measured on.
SIGMAS, IMAGES = (0.3, 1.0), slice(2, None, 30)


def law():
    """Two classes in 12 dimensions."""
    return MoLRG.random(KEY, (12,), (3, 4), means=np.outer([-1, 1], np.ones(12)) / 2, noise_std=0.2)


def draws(count=600):
    labels = np.arange(count) % 2
    return np.asarray(law().sample(KEY, np.arange(count), labels)), labels


def scores(measures, name):
    """Values in standard errors; the interval has the t quantile of many images."""
    found = getattr(measures, name)
    return found.value / found.standard_error


def test_all_measures_of_an_exact_posterior_mean_are_zero(x64):
    images, labels = draws()
    for given in (None, labels):
        exact = network_measures(law().denoiser, images, KEY, labels=given, batch_size=200)
        assert exact.sigmas == (0.1, 0.3, 1.0, 3.0) and exact.images == 600
        assert exact.asymmetry.value.max() < 1e-12
        for name in ("divergence", "orthogonality", "bias"):
            assert np.abs(scores(exact, name)).max() < 4, name


def test_measures_equal_those_of_whole_jacobians(x64):
    """A linear denoiser that is none of these things: expectations in closed form."""
    rng = np.random.default_rng(0)
    matrix, mean, sigma = rng.normal(size=(6, 6)) / 3, rng.normal(size=6), 0.7
    shift = rng.normal(size=6) / 4
    images = mean + rng.normal(size=(3000, 6))
    linear = jax.tree_util.Partial(lambda m, b, x, s: m @ x + b, jnp.asarray(matrix), jnp.asarray(shift))
    found = network_measures(linear, images, KEY, sigmas=(sigma,), probes=4, batch_size=1000)
    # x0 = mean + z: x0 - D = mean - M mean - b + (I - M) z - sigma M eps
    constant, left = mean - matrix @ mean - shift, np.eye(6) - matrix
    error = (constant**2).sum() + (left**2).sum() + sigma**2 * (matrix**2).sum()
    output = ((matrix @ mean + shift) ** 2).sum() + (1 + sigma**2) * (matrix**2).sum()
    aligned = constant @ (matrix @ mean + shift) + np.trace(left @ matrix.T) - sigma**2 * (matrix**2).sum()
    wanted = {
        "error": error / 6,
        "asymmetry": np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix),
        "divergence": 1 - sigma**2 * np.trace(matrix) / error,
        "orthogonality": aligned / output,
        "bias": (constant**2).sum() / error,
    }
    for name, value in wanted.items():
        estimate = getattr(found, name)[0]
        assert abs(estimate.value - value) < 2 * (estimate.high - estimate.low), name  # 4 standard errors
        assert estimate.high - estimate.low < 0.15 * abs(value), name


def test_intervals_cover_as_often_as_they_say():
    """Of 200 sets of 60 images at least 178, four standard errors below 95 %, have intervals that hold the value 0."""
    denoiser = jax.tree_util.Partial(lambda x, s: x / (1 + s**2))
    covered = dict.fromkeys(("divergence", "orthogonality", "bias"), 0)
    for number in range(200):
        images = np.random.default_rng(number).normal(size=(60, 12)).astype(np.float32)
        found = network_measures(
            denoiser, images, jax.random.key(number), sigmas=(1.0,), labels=None, probes=1, batch_size=60
        )
        for name in covered:
            estimate = getattr(found, name)[0]
            covered[name] += estimate.low <= 0 <= estimate.high
    assert all(178 <= hits for hits in covered.values()), covered
    assert max(covered["divergence"], covered["orthogonality"]) < 200


@pytest.mark.parametrize("factor", [0.9, 1.2])
def test_orthogonality_is_the_missing_factor(factor, x64):
    images, _ = draws()
    scaled = jax.tree_util.Partial(lambda d, x, s: factor * d(x, s), law().denoiser)
    found = network_measures(scaled, images, KEY, batch_size=200).orthogonality
    assert np.abs((found.value - (1 / factor - 1)) / found.standard_error).max() < 4
    assert found.standard_error[:3].max() < 0.02


@jax.tree_util.register_dataclass
@dataclass
class Classless:
    """Takes a class and does not look at it."""

    denoiser: Any

    def given(self, label):
        return self.denoiser

    def __call__(self, x, sigma):
        return self.denoiser(x, sigma)


def test_only_the_bias_sees_a_denoiser_that_is_blind_to_the_class(x64):
    """The exact posterior mean of both classes, at a level where they cannot be told apart."""
    images, labels = draws()

    found = network_measures(Classless(law().denoiser), images, KEY, labels=labels, sigmas=(3.0,), batch_size=200)
    assert found.bias.low[0] > 0.2
    assert max(abs(scores(found, name)[0]) for name in ("divergence", "orthogonality")) < 4
    assert found.asymmetry.value[0] < 1e-12


def test_verdicts():
    assert judged(-0.1, 0.2, 0.3) == "within" and judged(0.31, 0.4, 0.3) == judged(-0.5, -0.4, 0.3) == "outside"
    assert judged(0.2, 0.4, 0.3) == judged(-0.4, 0.1, 0.3) == "undecided"


# --- the bundled network ----------------------------------------------------------------------------------------------


@cache
def outcome(name):
    """The report of the bundled network as it is, or spoilt."""
    found = data.load("fashion-mnist-mini", "test", 14)
    images, labels = found.images[IMAGES], found.labels[IMAGES]
    if name == "memorising":
        memory = EmpiricalDenoiser(jnp.asarray(found.images[1::5]))
        return check_network(memory, images, KEY, sigmas=SIGMAS, strict=False)
    network = spoilt(load_checkpoint("fashion-mnist-14").denoiser, 10)[name]
    return check_network(network, images, KEY, labels=labels, sigmas=SIGMAS, strict=False)


def names(report):
    return {line.split(":")[0] for line in report.defects}


def test_the_bundled_network_passes():
    report = outcome("right")
    assert report.defects == () and report.measures.images == 67
    # It is no exact posterior mean: its Jacobian is not symmetric, by far.
    assert report.measures.asymmetry.low.min() > 0.01
    table = str(report)
    assert all(name in table for name in MEASURES) and "fashion-mnist-14" in table and "memorising" in table
    assert len(table.splitlines()) == 3 + len(MEASURES) * len(SIGMAS)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("0.9 D", "orthogonality"),
        ("wrong class", "bias"),
        ("averaged class", "bias"),
        ("memorising", "divergence"),
    ],
)
def test_spoilt_networks_fail(name, measure):
    report = outcome(name)
    assert measure in names(report), str(report)
    with pytest.raises(DenoiserCheckError, match=f"the denoiser fails:\n(- .*\n)*- {measure}: "):
        raise DenoiserCheckError(report)


def test_the_bound_is_three_times_the_good_networks():
    scale = NetworkScale.bundled()
    (good,) = scale.good.values()
    for name in MEASURES:
        found = getattr(good, name)
        ends = np.maximum(np.abs(found.low), np.abs(found.high))
        np.testing.assert_array_equal(scale.bound(name), FACTOR * ends)
        assert (scale.largest(name) == np.abs(found.value)).all()
    # A second good network that is worse at one level raises the bound there alone.
    json = good.to_json()
    json["bias"] = [[9.0, 8.0, 10.0], *json["bias"][1:]]
    wider = NetworkScale({"a": good, "b": type(good).from_json(json)})
    assert wider.bound("bias")[0] == 30 and (wider.bound("bias")[1:] == scale.bound("bias")[1:]).all()


def test_what_the_docstring_says_of_spoilt_denoisers():
    """The levels at which each of them is outside, on the images of the scale; the exact ones are within everywhere."""
    scale = NetworkScale.bundled()
    every, low, lower, high = (0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0), (0.1, 0.3), (1.0, 3.0)

    def outside(measures, name):
        verdicts = NetworkReport(measures, scale).verdicts[name]
        return tuple(sigma for sigma, verdict in verdicts.items() if verdict == "outside")

    said = {
        "0.9 D": {"orthogonality": every, "bias": low, "divergence": lower},
        "wrong class": {"bias": every, "divergence": high},
        "averaged class": {"bias": every, "divergence": every},
        "memorising": {"divergence": low, "orthogonality": low, "bias": ()},
    }
    assert said.keys() == scale.spoilt.keys()
    for name, wanted in said.items():
        assert {measure: outside(scale.spoilt[name], measure) for measure in wanted} == wanted, name
        assert outside(scale.spoilt[name], "asymmetry") == ()
    (exact,) = scale.exact.values()
    assert {verdict for found in NetworkReport(exact, scale).verdicts.values() for verdict in found.values()} == {
        "within"
    }
    assert exact.asymmetry.value.max() < 1e-6


def test_the_exact_reference_is_made_of_gaussian_classes():
    """Few images of few pixels: every measure within four standard errors of 0, and the error that of the filter."""
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(90, 3, 2, 1)).astype(np.float32), np.arange(90) % 3
    found = gaussian_classes(images, labels, 600, KEY)
    assert found.images == 600 and found.asymmetry.value.max() < 1e-5
    for name in ("divergence", "orthogonality", "bias"):
        assert np.abs(scores(found, name)).max() < 4, name
    floored = [np.linalg.eigvalsh(np.cov(images[labels == k].reshape(30, 6).T)) + 1e-3 for k in range(3)]
    for sigma, error in zip(found.sigmas, found.error):
        wanted = np.mean([one * sigma**2 / (one + sigma**2) for one in floored])
        assert abs(error.value - wanted) < 4 * error.standard_error


def test_a_class_counts_in_the_bias_as_often_as_it_has_images(x64):
    """Constant residuals a in 30 images and b in 10: (30 a^2 + 10 b^2) / 40 of the error, which is all of it."""
    images = np.concatenate([np.full((30, 4), 3.0), np.full((10, 4), -1.0)])
    nothing = jax.tree_util.Partial(lambda zero, x, s: zero * x, jnp.asarray(0.0))
    both = network_measures(Classless(nothing), images, KEY, labels=np.repeat([0, 1], (30, 10)), sigmas=(1.0,))
    assert both.bias.value[0] == pytest.approx(1.0, abs=1e-12)
    # As one class, the constant is their mean, 2: by pairs (40^2 2^2 - 30 3^2 - 10) / (40 39) of 7.
    one = network_measures(nothing, images, KEY, sigmas=(1.0,))
    assert one.bias.value[0] == pytest.approx((6400 - 280) / 1560 / 7, rel=1e-12)
    # Half of the residuals of the first class turned round: it has no constant, by pairs -9 / 29.
    images[:15] *= -1
    turned = network_measures(Classless(nothing), images, KEY, labels=np.repeat([0, 1], (30, 10)), sigmas=(1.0,))
    assert turned.bias.value[0] == pytest.approx((30 * -9 / 29 + 10) / 280, rel=1e-12)


def test_a_scale_of_ones_own():
    """Strict by default: a Gaussian denoiser passes beside itself, and half of it does not."""
    images = np.asarray(jax.random.normal(KEY, (64, 3)))
    whole = GaussianDenoiser(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), np.ones(3, np.float32))
    scale = NetworkScale({"itself": network_measures(whole, images, KEY, sigmas=(1.0, 2.0))})
    assert check_network(whole, images, KEY, scale=scale).defects == ()
    half = jax.tree_util.Partial(lambda d, x, s: d(x, s) / 2, whole)
    with pytest.raises(DenoiserCheckError, match="- orthogonality: ") as caught:
        check_network(half, images, KEY, scale=scale, sigmas=(1.0,))
    assert caught.value.report.verdicts["orthogonality"] == {1.0: "outside"}
    assert "bound" in str(caught.value.report) and "none" in str(caught.value.report)


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the functions' own refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("images = '0 images': must be at least 8", {"images": np.zeros((0, 12))}),
        ("images = '7 images': must be at least 8", {"images": np.zeros((7, 12))}),
        (r"images.shape = \(12,\): must be \(n, \*event\)", {"images": np.zeros(12)}),
        ("images = 'non-finite': must be finite", {"images": np.full((9, 12), np.nan)}),
        (r"sigmas = \[0.0\]: must be above 0", {"sigmas": (0.0,)}),
        ("sigmas = .*: must be one or more finite levels", {"sigmas": (-1.0,)}),
        ("probes = 0: must be a whole number", {"probes": 0}),
        ("labels of shape .*: must be", {"labels": np.zeros(3, int)}),
        ("labels = .*one image of class .*: must be two images or more", {"labels": np.eye(9, dtype=int)[0]}),
        (r"x.shape = \(5,\): must be that of a mean", {"images": np.zeros((9, 5))}),
    ],
)
def test_refusals(line, options, unchecked):
    with pytest.raises(InputError, match=line) as caught:
        network_measures(law().denoiser, **{"images": np.zeros((9, 12)), "key": KEY, **options})
    assert "\n" not in str(caught.value)


def test_refusals_of_the_check_and_the_scale(unchecked):
    images = np.zeros((9, 14, 14, 1))
    with pytest.raises(InputError, match=r"^sigmas = \(0.5,\): must be among those of the scale"):
        check_network(lambda x, s: x, images, KEY, sigmas=(0.5,))
    with pytest.raises(InputError, match="labels = 'given': must be left out"):
        check_network(lambda x, s: x, images, KEY, labels=np.zeros(9, int))
    with pytest.raises(InputError, match="good = 'no network'"):
        NetworkScale({})
    scale = NetworkScale.bundled()
    other = network_measures(lambda x, s: x, np.ones((8, 2)), KEY, sigmas=(1.0,))
    with pytest.raises(InputError, match=r"noise levels of the networks = .*: must be the same"):
        NetworkScale({**scale.good, "other": other})
