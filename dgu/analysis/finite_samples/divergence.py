"""How far a Gaussian that is fitted to N draws of another is from it."""

import numpy as np
import scipy

from dgu.core.errors import require_whole


def gaussian_fit_kl(dimension: int, images: int, ddof: int = 0) -> float:
    """``E KL(N(m, C) || N(mu, S))`` in nats, m and C the mean and covariance of N draws of ``N(mu, S)``: exact.

    It does not depend on mu and S. With ``(N - ddof) C`` of Wishart's distribution with ``N - 1`` degrees of freedom,

        KL = (d (N - 1) / (N - ddof) + d / N - d + d log((N - ddof) / 2) - sum_{i=1}^d digamma((N - i) / 2)) / 2,

    which goes to ``d^2 / (4 N)`` as N grows beside d, up to 2 % at N = 64 d.

    Args:
        dimension: d, 1 or more.
        images: N, more than d.
        ddof: 0 or 1, as given to ``GaussianDenoiser.fit``.

    Raises:
        InputError: values out of range.

    arXiv 2505.24769 for the limit; Wishart's moments for the formula.
    """
    require_whole("dimension", dimension)
    require_whole("images", images, int(dimension) + 1)
    require_whole("ddof", ddof, 0, 1)
    d, n = int(dimension), int(images)
    log_determinant = scipy.special.digamma((n - np.arange(1, d + 1)) / 2).sum() - d * np.log((n - ddof) / 2)
    return float((d * (n - 1) / (n - ddof) + d / n - d - log_determinant) / 2)
