"""Edits of a linear denoiser are exact; changes are split by a subspace as they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import edit, random_directions, singular_triplets, split_by_subspace
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser
from dgu.samplers import karras_sigmas

KEY = jax.random.key(0)
VARIANCES = np.array([4.0, 1.0, 0.25])
BASIS = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 3)))[0]
DENOISER = GaussianDenoiser(np.zeros((2, 2, 3), np.float32), BASIS.astype(np.float32), VARIANCES.astype(np.float32))


def test_edits_of_a_linear_denoiser_are_exact():
    sigmas = karras_sigmas(40, 0.002, 3.0)
    x = 3 * np.asarray(jax.random.normal(KEY, (2, 2, 3)))
    found = singular_triplets(DENOISER, x[None], np.float32(3.0), 2, KEY, tolerance=1e-7)
    strengths = [-2.0, 0.5, 4.0]
    edits = edit(DENOISER, x, found.right[0].astype(np.float32), strengths, sigmas)
    gains = VARIANCES[:2] / (VARIANCES[:2] + 9)
    wanted = np.asarray(strengths)[None, :] * gains[:, None]
    lengths = np.linalg.norm(edits.change.reshape(2, 3, -1), axis=2)
    np.testing.assert_allclose(lengths, np.abs(wanted), rtol=1e-4)
    np.testing.assert_allclose(edits.change, edits.predicted, atol=2e-5)
    assert edits.nonlinearity.max() < 1e-4
    # alpha s p: along the left vector.
    np.testing.assert_allclose(edits.change, wanted[:, :, None, None, None] * found.left[0][:, None], atol=1e-4)
    assert (split_by_subspace(edits.change, found.left[0]).share > 1 - 1e-6).all()
    # The exact flow moves mode i of the sample by alpha sqrt(lam / (lam + sigma^2)); the grid adds less than half a per
    # cent.
    moved = np.linalg.norm(edits.image_change.reshape(2, 3, -1), axis=2)
    np.testing.assert_allclose(moved, np.abs(np.asarray(strengths)[None] * np.sqrt(gains)[:, None]), rtol=0.005)
    assert edits.original.shape == (2, 2, 3)


def test_nonlinearity_and_the_random_null():
    bent = jax.tree_util.Partial(lambda x, sigma: jnp.tanh(x))
    direction = np.eye(4, dtype=np.float32)[:1]
    edits = edit(bent, np.zeros(4, np.float32), direction, [0.5, 2.0], karras_sigmas(3, 0.01, 1.0))
    np.testing.assert_allclose(edits.nonlinearity[0], 1 - np.tanh([0.5, 2.0]) / np.array([0.5, 2.0]), rtol=1e-5)
    null = np.asarray(random_directions(KEY, 400, (2, 2, 3)))
    flat = null.reshape(400, -1)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1, rtol=1e-5)
    # Uniform: each squared coordinate has mean 1 / 12 and variance 2 (12 - 1) / (144 * 14).
    error = np.sqrt(2 * 11 / (144 * 14) / 400)
    assert (np.abs(np.square(flat).mean(axis=0) - 1 / 12) < 5 * error).all()


def test_changes_are_split_by_the_subspace():
    vectors = BASIS.T.reshape(3, 2, 2, 3)
    rng = np.random.default_rng(1)
    inside = np.tensordot(rng.normal(size=(5, 3)), vectors, 1)
    other = rng.normal(size=(5, 12))
    other = (other - other @ BASIS @ BASIS.T).reshape(5, 2, 2, 3)
    found = split_by_subspace((inside + 2 * other)[None], vectors)
    np.testing.assert_allclose(found.inside[0], np.linalg.norm(inside.reshape(5, -1), axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.outside[0], 2 * np.linalg.norm(other.reshape(5, -1), axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.share, found.inside**2 / (found.inside**2 + found.outside**2))
    assert split_by_subspace(np.zeros((2, 2, 3)), vectors).share == 0


def test_bad_input_is_refused():
    grid, x = karras_sigmas(3, 0.01, 1.0), np.zeros((2, 2, 3), np.float32)
    for said, call in (
        (r"directions.shape = \(2, 4\)", lambda: edit(DENOISER, x, np.ones((2, 4)), [1.0], grid)),
        ("strengths = ", lambda: edit(DENOISER, x, np.ones((1, 2, 2, 3)), [], grid)),
        ("count = 0", lambda: random_directions(KEY, 0, (3,))),
        ("off by .* from orthonormal", lambda: split_by_subspace(x, 2 * BASIS.T.reshape(3, 2, 2, 3))),
        ("changes.shape", lambda: split_by_subspace(np.zeros((2, 3)), BASIS.T.reshape(3, 2, 2, 3))),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            call()
