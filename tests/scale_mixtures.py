"""Data of the linear studies: a mixture of two scales of one Gaussian with a power-law spectrum, d = 64."""

import numpy as np

from dgu.samplers import karras_sigmas

D = 64
#: The ten levels of the authors' grid, as the paper's code prints them.
TEN = (80.0, 42.415189318512674, 21.10867673619376, 9.72320135526013, 4.066123602953759, 1.501741979068008,
       0.46997905799774714, 0.11663856352517865, 0.020435334553438746, 0.002)  # fmt: skip
GRID = karras_sigmas(10)[:-1]


def scale_mixture(n, seed, dtype=np.float32):
    """``n`` examples; the law is the same for every seed, and has no mean."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(D, D)))[0]
    scales = rng.choice((0.5, 1.5), size=(n, 1))
    return ((scales * rng.normal(size=(n, D)) * np.sqrt(10.0) / np.arange(1, D + 1)) @ basis.T).astype(dtype)
