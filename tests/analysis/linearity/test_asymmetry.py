"""How far a linear map is from a symmetric one."""

import numpy as np

from dgu.analysis import asymmetry
from dgu.models import LinearDenoiser


def test_asymmetry_is_the_share_of_the_odd_part():
    matrix = np.random.default_rng(1).standard_normal((6, 6))
    odd, even = (matrix - matrix.T) / 2, (matrix + matrix.T) / 2
    share = np.linalg.norm(odd) / np.hypot(np.linalg.norm(odd), np.linalg.norm(even))
    maps = LinearDenoiser(np.array([3.0, 2.0, 1.0, 0.5]), np.stack([matrix, even, odd, 0 * odd]), np.zeros((4, 6)))
    np.testing.assert_allclose(asymmetry(maps), [share, 0, 1, 0], atol=1e-12)
