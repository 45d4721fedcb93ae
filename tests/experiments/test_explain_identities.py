"""Identities of a posterior mean, times of random features and shuffled pixels in the study of closed forms: against
laws for which the answers are known."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from dgu.core.keys import stream
from dgu.core.noisy import noisy_batch
from dgu.models import GaussianDenoiser
from experiments.explain import forms, identities, scores, timescales
from experiments.explain.family import ByLevel, Form
from experiments.explain.subject import Group

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
RUN = SimpleNamespace(key=KEY, seed=0, stage=lambda name, compute, *args, **options: compute(*args))
CONFIG = replace(identities.PRESETS["smoke"], held_out=1200, draws=1200, levels=3, integrated=12)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ranged:
    """A closed form with the range of noise levels that a network has."""

    law: Any
    sigma_min = 0.002
    sigma_max = 80.0

    def __call__(self, x, sigma):
        return self.law(x, sigma)


def lopsided(count):
    """Images of 2 x 3 pixels from two unequal Gaussians on either side of 0."""
    rows = RNG.normal(size=(count, 6)) * np.array([0.4, 0.8, 0.3, 0.5, 0.2, 0.1])
    rows[:, 0] += np.where(np.arange(count) % 2, 1.5, -1.5)
    rows[:, 1] *= np.where(np.arange(count) % 2, 1.5, 0.5)
    return rows.reshape(count, 2, 3, 1).astype(np.float32)


IMAGES = lopsided(3000)
LAW = identities.two_gaussians(IMAGES)


def measured(network):
    """The claims of a closed form in place of the network, on draws of the mixture."""
    held = identities._draws(LAW, CONFIG.held_out, jax.random.key(7))
    group = Group(None, IMAGES, np.zeros(len(IMAGES), int), np.arange(CONFIG.held_out))
    subject = SimpleNamespace(
        inputs=lambda name, count: held, groups=lambda count: [group], of=lambda denoiser, group: denoiser,
        pretrained=SimpleNamespace(denoiser=Ranged(network)), sets=(SimpleNamespace(images=IMAGES),),
        gaussian=GaussianDenoiser.fit(IMAGES),
    )  # fmt: skip
    return identities.measure(CONFIG, subject, RUN), subject


def near(estimate, expected, least=0.0):
    half = float(estimate.high) - float(estimate.value)
    return abs(float(estimate.value) - expected) <= 2.2 * half + least


def test_a_posterior_mean_passes_and_a_spoilt_one_does_not():
    found, subject = measured(LAW)
    claims = identities.claims_of(found)
    for name in ("identities-second", "identities-third"):
        assert list(claims[name]) == ["high", "intermediate", "low"]
        for part in claims[name].values():
            assert near(part, 0.0) and float(part.high) - float(part.low) < 0.6
    # The mixture's losses are below those of the one Gaussian that has its mean and covariance.
    assert float(claims["identities-likelihood"].low) > 0
    exact = claims["identities-exact"]
    assert near(exact["identities-exact-second"], 0.0) and near(exact["identities-exact-third"], 0.0)
    assert float(claims["identities-spoilt"].low) > identities.SECOND
    lam = np.asarray(subject.gaussian.variances, np.float64)
    assert found.exact == pytest.approx(np.log1p(lam / found.sigmas[0] ** 2).sum() / 12)
    assert near(claims["identities-information"], 0.0) and abs(claims["identities-information"].value) < 0.05
    findings = identities.report(CONFIG, subject, found)
    assert set(findings.figures) == {figure.name for figure in identities.FIGURES}
    spoilt = identities.claims_of(measured(identities.Scaled(LAW, 0.9))[0])
    assert all(float(part.value) > 0.05 for part in spoilt["identities-second"].values())
    # E |x0 - 0.9 D|^2 - 0.9 sigma^2 tr J: a hundredth of E |D|^2 and a tenth of what the posterior leaves.
    low, gaps = spoilt["identities-second"]["low"], found.gaps[identities.NETWORK]
    left = gaps.errors[-1 if gaps.sigmas[-1] < gaps.sigmas[0] else 0].mean()
    size = np.square(identities._draws(LAW, 4000, jax.random.key(8))).mean() - left
    assert float(low.value) == pytest.approx((0.01 * size + 0.1 * left) / (0.01 * size + left), rel=0.1)


def test_the_spread_of_a_share_is_that_of_the_ratio():
    errors = RNG.gamma(4.0, size=(1, 4000))
    values = 0.3 * errors**1.5 + RNG.normal(size=errors.shape)
    found = identities.share(values, errors, 1.5)[0]
    ratio = lambda kept: values[0, kept].mean() / errors[0, kept].mean() ** 1.5  # noqa: E731
    assert found.mean() == pytest.approx(ratio(np.arange(4000)), rel=1e-12)
    resampled = [ratio(np.random.default_rng(n).integers(0, 4000, 4000)) for n in range(400)]
    assert found.std() / 4000**0.5 == pytest.approx(np.std(resampled), rel=0.12)


def test_powers_of_training_times():
    sizes = np.array([8, 16, 64])
    times = 3.0 * sizes ** np.array([[1.2], [0.8], [1.0]])
    np.testing.assert_allclose(timescales.powers(sizes, times), [1.2, 0.8, 1.0], rtol=1e-12)
    found = timescales.Times(sizes, np.full((3, 3), 5.0), times, np.ones((3, len(timescales._TAUS))))
    claims = timescales.claims_of(found)
    assert float(claims["learning-generalises"].value) == pytest.approx(0, abs=1e-12)
    assert float(claims["learning-memorises"].value) == pytest.approx(1, rel=1e-12)
    never = timescales.claims_of(replace(found, memorisation=np.where(sizes == 64, np.inf, times)))
    assert "do not memorise" in never["learning-memorises"].reason
    assert float(never["learning-generalises"].value) == pytest.approx(0, abs=1e-12)
    neither = timescales.claims_of(replace(found, generalisation=np.full((3, 3), np.inf)))
    assert "do not generalise" in neither["learning-generalises"].reason
    timescales.drawn(replace(found, memorisation=np.full((3, 3), np.inf)))


def test_random_features_memorise_later_with_more_points_whatever_the_number_of_noises(monkeypatch):
    sizes, key = (12, 96), stream(jax.random.key(1), "x")
    found = timescales.measure(12, 128, sizes, 1, key)
    assert (found["memorisation"][:, 1] > 8 * found["memorisation"][:, 0]).all()
    assert found["generalisation"].max() < 1.5 * found["generalisation"].min() and np.isfinite(found["losses"]).all()
    assert (found["memorisation"] > 2 * found["generalisation"]).all()
    monkeypatch.setattr(timescales, "_NOISES", 2 * timescales._NOISES)
    monkeypatch.setattr(timescales, "_FEW_NOISES", 2 * timescales._FEW_NOISES)
    twice = timescales.measure(12, 128, sizes, 1, key)
    # 0.02 here; where all points share 1024 noises that are doubled, 0.08.
    for name in ("memorisation", "generalisation"):
        moved = timescales.powers(np.array(sizes), twice[name]) - timescales.powers(np.array(sizes), found[name])
        assert 0 < np.abs(moved).max() < 0.04


def test_only_the_needed_levels_of_the_nearest_forms_are_computed_on_shuffled_images(monkeypatch):
    """Three forms, each of which is the network at one of four levels, or two."""
    images = lopsided(24)
    gaussian = GaussianDenoiser.fit(images)
    best = {"one": (10.0, 2.0), "two": (0.5,), "three": (0.1,)}

    def law(name):
        return ByLevel(
            np.array([10.0, 2.0, 0.5, 0.1], np.float32),
            np.array([int(sigma not in best[name]) for sigma in (10.0, 2.0, 0.5, 0.1)], np.int32),
            (gaussian, identities.Scaled(gaussian, 0.5)),
        )

    config = SimpleNamespace(
        levels=4, sigma_min=0.1, sigma_max=10.0, held_out=24, name=str,
        design=lambda key: SimpleNamespace(forms=lambda: [Form(n, lambda group, n=n: law(n)) for n in best]),
    )  # fmt: skip
    network, skip = identities.Scaled(gaussian, 0.9), identities.Scaled(gaussian, 0.1)
    subject = SimpleNamespace(
        levels=lambda *range: np.array([10.0, 2.0, 0.5, 0.1]), inputs=lambda name, count: images,
        groups=lambda count: [Group(None, images, np.zeros(24, int), rows) for rows in np.arange(24).reshape(2, 12)],
        pretrained=SimpleNamespace(denoiser=network), random=skip, skip=skip, of=lambda denoiser, group: denoiser,
        trained=lambda directory: [(1, network)],
    )  # fmt: skip
    asked, stored = forms.denoised, {}

    def stage(name, compute, *args):
        stored[name] = compute(*args)
        return stored[name]

    run = SimpleNamespace(key=KEY, seed=0, directory=None, stage=stage)
    counted = []
    monkeypatch.setattr(forms, "denoised", lambda d, x, sigmas: counted.append(sigmas.tolist()) or asked(d, x, sigmas))
    found = forms.measure(config, subject, run)
    assert [form.name for form in found.nearest()] == ["one", "one", "two", "three"]
    # Of two groups: the network and the skip at all levels, the forms at their own.
    assert counted[-10::2] == [[10.0, 2.0, 0.5, 0.1]] * 2 + [list(levels) for levels in best.values()]
    other = np.stack(
        [
            np.asarray(noisy_batch(KEY, forms.shuffled(images, 0), np.float32(sigma), level))
            for level, sigma in enumerate(found.sigmas)
        ]
    )
    every = {name: asked(one, other, found.sigmas) for name, one in (("n", network), ("s", skip), ("g", gaussian))}
    np.testing.assert_array_equal(found.elsewhere, scores.nmse(every["g"], every["n"], every["s"]))
    assert (stored["elsewhere-two"]["images"][[0, 1, 3]] == 0).all()


def test_shuffled_images_have_the_same_pixels_in_one_other_order():
    images = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
    found = forms.shuffled(images, 0)
    assert found.shape == images.shape and (found != images).any()
    # One order for all images, and channels stay together.
    np.testing.assert_array_equal(found[1] - found[0], np.full((3, 4, 2), 24))
    np.testing.assert_array_equal(found[..., 1] - found[..., 0], np.ones((2, 3, 4)))
    assert sorted(found[0].ravel()) == sorted(images[0].ravel())
