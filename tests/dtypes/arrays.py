"""The arrays and the models that the cases of ``tests/test_dtypes.py`` are made of.

All numbers are whole, from 0 to 255, so that every dtype holds them.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

import dgu.analysis as A
import dgu.models as M
import dgu.training as T
from dgu.samplers import VESDE

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
# All numbers are whole, from 0 to 255: every dtype holds them.
N, D, K = 48, 4, 3
ROWS = RNG.integers(0, 200, (N, D))
OTHERS = RNG.integers(0, 220, (N, D))
MARKS = np.arange(N) % K
IMAGES = ROWS.reshape(N, 2, 2, 1)
LARGER = RNG.integers(0, 200, (12, 4, 4, 1))
ONE = IMAGES[0]
CLASSES = ROWS.reshape(K, N // K, D)
VALUES = RNG.integers(0, 200, (N, 2))
CURVES = RNG.integers(0, 200, (6, 9))
SIGMAS = np.array([90, 30, 9])
GRID = np.array([90, 30, 0])
MEANS = np.array([[0, 0], [20, 5]])
SPREADS = np.array([[[100, 10], [10, 80]], [[90, 0], [0, 110]]])
SQUARE = np.diag([9, 6, 3, 1]) + 1
AXES = np.eye(D, dtype=int)
UNIT = AXES[:, :2]
FRAMES = np.stack([AXES[:, :2], AXES[:, 2:]])
TURNED = np.stack([AXES[:, [0, 2]], AXES[:, [1, 3]]])
RISING = np.array([1, 3, 9, 30, 90])
FALLING = np.array([200, 120, 60, 50, 20, 7, 3, 2])
GAUSSIAN = M.GaussianDenoiser.from_moments(np.full((2, 2, 1), 90.0, np.float32), 100 * SQUARE.astype(np.float32))
FLAT = M.GaussianDenoiser(jnp.full(D, 90.0), jnp.asarray(GAUSSIAN.basis), jnp.asarray(GAUSSIAN.variances))
LAW = M.MoLRGDenoiser(
    np.array([0.4, 0.6]), np.array([[90, 90, 90, 90], [60, 80, 99, 70]]), FRAMES, np.array([[900, 90], [400, 25]]), 5.0
)
NET = M.LinearNetwork((2, 2, 1))
EDM = M.EDMNetwork(M.DiTConfig(4, 1, 1, patch=2, width=8, depth=1, heads=2), M.EDMPreconditioning())
RUNS = A.Runs(np.arange(30)[None], np.array([3]), np.array([1e-6]))


@cache
def family():
    return A.lipschitz_family(KEY, D, projections=2, coordinates=2, width=4)


@cache
def problems():
    return A.low_rank_problems(KEY, *np.array([[2], [9], [0]]), dimension=D, components=2)


TARGET = M.two_modes(3.0)
SDE = VESDE()


@cache
def features():
    return M.RandomFeatures.draw(KEY, 6)


LOSS = T.QuadraticLoss(np.diag([3.0, 2.0, 1.0]).astype(np.float32), np.ones((3, 1), np.float32), np.float32(4.0))
TRAINED = {"loss": "softmax_mse", "schedule": "constant", "epochs": 2, "validation": np.arange(30, N)}


def gaussian_answer(fitted):
    """The denoiser's answer: its basis has signs of its own."""
    return fitted(jnp.asarray(np.resize(ROWS[0], np.shape(fitted.mean)), jnp.float32), 20.0)
