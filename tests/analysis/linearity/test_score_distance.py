"""Distances of denoisers against loops, the rank gap, and one compiled program for all of them."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import score_distances
from dgu.analysis.linearity.score_distance import _outputs
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_input
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from tests.scale_mixtures import GRID, D, scale_mixture

KEY = jax.random.key(3)
TRACES = []


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counted:
    """A denoiser that counts how often it is traced or run."""

    inner: Any
    name: str = field(metadata={"static": True}, default="")

    def __call__(self, x, sigma):
        TRACES.append(self.name)
        return self.inner(x, sigma)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Identity:
    """Gives back its input; NaN for inputs with a first entry above ``limit``."""

    limit: Any = jnp.inf

    def __call__(self, x, sigma):
        return jnp.where(x.ravel()[0] > self.limit, jnp.nan, x)


def test_equals_a_plain_loop_over_levels_pairs_and_images(x64):
    train, held = scale_mixture(50, 0, np.float64), scale_mixture(11, 1, np.float64)
    gaussian = GaussianDenoiser.fit(train)
    models = {"points": EmpiricalDenoiser(train), "gaussian": gaussian, "identity": Identity()}
    sigmas = GRID[[1, 5, 8]]
    found = score_distances(models, held, sigmas, KEY, inputs="held-out", batch_size=4)
    ratios = np.zeros((2, 3, 11))
    answers = jax.jit(lambda models, x, sigma: [model(x, sigma) for model in models])
    noisy = jax.jit(noisy_input)
    for level, sigma in enumerate(sigmas):
        for row, image in enumerate(held):
            x = noisy(KEY, jnp.asarray(image), row, sigma, level)
            one, two = map(np.asarray, answers((models["points"], gaussian), x, sigma))
            distance = np.sqrt(((one - two) ** 2).sum())
            ratios[:, level, row] = distance / np.sqrt(D), distance / np.sqrt((two**2).sum())
            np.testing.assert_allclose(found.norms[level, 2, row], np.linalg.norm(x), rtol=1e-12)
    rmse, nmse = found.rmse("points", "gaussian"), found.nmse("gaussian", "points")
    np.testing.assert_allclose(rmse.value, ratios[0].mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(nmse.value, ratios[1].mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(found.each_image("points", "gaussian"), ratios[0], rtol=1e-9)
    np.testing.assert_array_equal(found.measured["differences"], found.differences)
    np.testing.assert_array_equal(found.measured["norms"], found.norms)
    half = 2.2281388519649385 * ratios[0].std(axis=1, ddof=1) / np.sqrt(11)  # t of 10 degrees of freedom
    np.testing.assert_allclose(rmse.high - rmse.value, half, rtol=1e-6)
    assert found.inputs == "held-out"
    # The noise of an image is its own: other batches, or fewer denoisers, change nothing.
    two = {"gaussian": gaussian, "points": models["points"]}
    fewer = score_distances(two, held[:7], sigmas, KEY, inputs="held-out")
    np.testing.assert_allclose(fewer.differences[:, 0, 1], found.differences[:, 0, 1, :7], rtol=1e-9)


def test_all_levels_denoisers_and_inputs_are_one_program():
    train, held = scale_mixture(50, 0), scale_mixture(12, 1)
    TRACES.clear()
    before = _outputs._cache_size()
    models = {
        "points": Counted(EmpiricalDenoiser(train), "points"),
        "gaussian": Counted(GaussianDenoiser.fit(train), "gaussian"),
        "linear": Counted(LinearDenoiser.of_gaussian(GaussianDenoiser.fit(held), GRID), "linear"),
    }
    score_distances(models, held, GRID, KEY, inputs="held-out", batch_size=4)
    once = sorted(TRACES)
    assert once == ["gaussian", "linear", "points"] and _outputs._cache_size() == before + 1
    # Other weights, images, levels and noise of the same shapes: no trace at all.
    others = dict(models, gaussian=Counted(GaussianDenoiser.fit(scale_mixture(50, 5)), "gaussian"))
    score_distances(others, scale_mixture(12, 2), GRID * 0.9, jax.random.key(8), inputs="training", batch_size=4)
    assert sorted(TRACES) == once and _outputs._cache_size() == before + 1


def test_rank_gap_at_no_noise(x64):
    """At sigma = 0 the Gaussian denoiser projects: its distance to the identity is what the projector takes away."""
    held = scale_mixture(300, 1, np.float64)
    for n in (40, 200):
        train = scale_mixture(n, 0, np.float64)
        models = {"gaussian": GaussianDenoiser.fit(train), "identity": Identity()}
        found = score_distances(models, held, np.array([0.002, 0.0]), KEY, inputs="held-out")
        measured = found.rmse("gaussian", "identity").value
        centred = train - train.mean(0)
        off = (held - train.mean(0)) @ (np.eye(D) - np.linalg.pinv(centred) @ centred)
        expected = np.linalg.norm(off, axis=1).mean() / np.sqrt(D)
        np.testing.assert_allclose(measured, expected, rtol=1e-2, atol=5e-3 if n > D else 0)
        np.testing.assert_allclose(measured[1], expected, rtol=1e-9, atol=1e-9)


def test_bad_input_is_named():
    held = scale_mixture(12, 1)
    model = GaussianDenoiser.fit(scale_mixture(50, 0))
    pair = {"a": model, "b": Identity()}
    options = {"inputs": "held-out"}
    with pytest.raises(InputError, match="denoisers = 1"):
        score_distances({"a": model}, held, GRID, KEY, **options)
    with pytest.raises(InputError, match="images = '1 images': must be at least 2"):
        score_distances(pair, held[:1], GRID, KEY, **options)
    with pytest.raises(InputError, match=r"sigmas = \[-1"):
        score_distances(pair, held, -np.ones(1), KEY, **options)
    with pytest.raises(InputError, match=r"x of shape \(64,\) and a scalar sigma, it returned shape \(3,\)"):
        score_distances({"a": model, "b": lambda x, sigma: x[:3]}, held, GRID, KEY, **options)
    first = np.asarray([noisy_input(KEY, jnp.asarray(image), i, 80.0, 0)[0] for i, image in enumerate(held)])
    worst = int(first.argmax())
    limit = np.float32(np.sort(first)[-2:].mean())
    with pytest.raises(InputError, match=f"denoiser 'b': non-finite output at sigma = 80, example {worst}"):
        score_distances({"a": model, "b": Identity(jnp.asarray(limit))}, held, GRID, KEY, **options)
    found = score_distances(pair, held, GRID[:2], KEY, **options)
    with pytest.raises(InputError, match="denoiser = 'c': must be one of a, b"):
        found.rmse("a", "c")
