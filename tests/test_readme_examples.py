"""The documented examples run as they are printed, and their gradients are those of finite differences."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "gradients.md"


@pytest.fixture(scope="module")
def example():
    """What the page's Python blocks define, run in float64."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    names: dict = {}
    with jax.enable_x64(True):
        exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
        # One compiled evaluation, of a batch, serves all the differences.
        names["evaluate"] = jax.jit(jax.vmap(names["brightness"], in_axes=(None, 0, 0, 0)))
    return names


def slope(example, direction_of, step=1e-5):
    """Central differences, of fourth order, of the two samples' values along a direction.

    ``direction_of(t)`` gives (denoiser, x_init, sigmas of each sample, labels) moved by ``t``.
    """
    with jax.enable_x64(True):
        at = {k: np.asarray(example["evaluate"](*direction_of(k * step))) for k in (-2, -1, 1, 2)}
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)


def point(example):
    grids = np.tile(np.asarray(example["sigmas"]), (2, 1))
    return example["denoiser"], np.asarray(example["x_init"]), grids, np.asarray(example["labels"])


def check(measured, expected):
    """Equal to 1e-6 of the larger, and not for want of any slope."""
    assert measured.dtype == np.float64 and np.isfinite(measured).all()
    assert np.abs(expected).max() > 1e-5
    np.testing.assert_allclose(measured, expected, atol=1e-6 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_by_the_initial_state(example, seed):
    denoiser, x_init, grids, labels = point(example)
    direction = 80 * np.random.default_rng(seed).normal(size=x_init.shape)
    gradient = np.asarray(example["by_init"])
    assert gradient.shape == x_init.shape
    check(
        (gradient * direction).sum((1, 2, 3)),
        slope(example, lambda t: (denoiser, x_init + t * direction, grids, labels)),
    )


def test_gradient_by_the_network(example):
    denoiser, x_init, grids, labels = point(example)
    gradient = example["mean_gradient"]
    assert jax.tree.structure(gradient) == jax.tree.structure(denoiser.params)
    rng = np.random.default_rng(0)

    def compare(direction):
        def moved(t):
            params = jax.tree.map(lambda p, d: np.asarray(p) + t * d, denoiser.params, direction)
            return replace(denoiser, params=params), x_init, grids, labels

        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction))
        check(np.asarray(sum((np.asarray(g) * d).sum() for g, d in pairs)), slope(example, moved, 1e-4).mean())

    compare(jax.tree.map(lambda p: rng.normal(size=p.shape), denoiser.params))
    # One leaf at a time, at the ends and in the middle of the network.
    for path in (
        ("enc", "4x4_conv", "kernel"),
        ("map_label", "kernel"),
        ("dec", "4x4_in1", "affine", "bias"),
        ("out_conv", "bias"),
    ):

        def only(where, p, path=path):
            return rng.normal(size=p.shape) if tuple(k.key for k in where) == path else np.zeros(p.shape)

        compare(jax.tree_util.tree_map_with_path(only, denoiser.params))


@pytest.mark.parametrize("level", range(4))
def test_gradient_by_the_noise_levels(example, level):
    denoiser, x_init, grids, labels = point(example)
    move = np.zeros_like(grids)
    move[:, level] = grids[0, level]  # relative to the level: they span four orders of magnitude
    gradient = np.asarray(example["by_sigmas"])
    assert gradient.shape == (2, 5)
    expected = slope(example, lambda t: (denoiser, x_init, grids + t * move, labels), 1e-4)
    check(gradient[:, level] * grids[0, level], expected)


@pytest.mark.parametrize("entry", range(3))
def test_gradient_by_the_label(example, entry):
    denoiser, x_init, grids, labels = point(example)
    move = np.zeros_like(labels)
    move[:, entry] = 1
    gradient = np.asarray(example["by_label"])
    assert gradient.shape == (2, 3)
    check(gradient[:, entry], slope(example, lambda t: (denoiser, x_init, grids, labels + t * move), 1e-4))


def test_the_page_does_what_it_says(example):
    denoiser, x_init, grids, labels = point(example)
    with jax.enable_x64(True):
        before = example["evaluate"](denoiser, x_init, grids, labels)
        after = example["evaluate"](denoiser, np.asarray(example["brighter"]), grids, labels)
    assert np.all(after > before)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(example["mean_gradient"]))
    assert example["largest"] == largest > 0
    assert example["relative"].shape == (2, 5) and example["class_to_add"].shape == (2,)
    assert not np.allclose(example["by_label"][0], example["by_label"][1])
