"""Decompositions in float64 of an accelerator: those of LAPACK, whatever precision JAX computes in."""

import jax
import numpy as np
import pytest
import scipy.linalg

from dgu.core import doubles
from dgu.models import GaussianDenoiser
from dgu.training.distillation import solve_moments
from dgu.training.second_moments import CrossMoments


@pytest.fixture
def accelerated(monkeypatch):
    """The programs of an accelerator, run here."""
    monkeypatch.setattr(doubles, "_on_accelerator", lambda size: True)


def moments():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((400, 12)) * np.geomspace(1, 1e-4, 12)
    t = y @ rng.standard_normal((12, 12)) + 0.1 * rng.standard_normal((400, 12))
    return CrossMoments(400, np.zeros(12), np.zeros(12), y.T @ y, t.T @ y, float((t**2).sum()))


def test_the_accelerators_programs_have_all_digits(accelerated):
    assert not jax.config.jax_enable_x64
    found = moments()
    values, vectors = doubles.eigh(found.inputs)
    assert values.dtype == vectors.dtype == np.float64
    # The smallest eigenvalue is 1e-8 of the largest: single precision has nothing of it.
    np.testing.assert_allclose(values, scipy.linalg.eigh(found.inputs)[0], rtol=1e-7)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-13)
    np.testing.assert_allclose(doubles.product(found.cross, vectors), found.cross @ vectors, rtol=1e-10, atol=1e-12)


def test_what_is_solved_by_an_accelerator_is_what_the_host_solves(monkeypatch):
    images = np.random.default_rng(1).standard_normal((40, 3, 3, 1))
    found = []
    for there in (False, True):
        monkeypatch.setattr(doubles, "_on_accelerator", lambda size, there=there: there)
        weight, ridge, residual = solve_moments(moments())
        gaussian = GaussianDenoiser.fit(images)
        found.append((weight, ridge, residual, np.asarray(gaussian.variances)))
    for one, two in zip(*found):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-9)


def test_the_host_decomposes_where_there_is_no_accelerator():
    assert not doubles._on_accelerator(10**6)
    with jax.default_device(jax.devices("cpu")[1]):
        assert not doubles._on_accelerator(10**6)
