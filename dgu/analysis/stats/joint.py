"""One test of many standard scores: are they all what they should be?"""

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.stats.estimates import Estimate
from dgu.core.arrays import as_doubles
from dgu.core.errors import require


def joint_p_value(scores: Num[ArrayLike, "..."], freedom: Num[ArrayLike, "..."] | float | int = np.inf) -> Estimate:
    """Bonferroni's p value of n standard scores whose expectations should all be 0: ``min(1, n min_k p_k)``.

    With p_k the two-sided p value of score k: of a standard normal one, or of Student's t with ``freedom``. Where all
    expectations are 0 it is below a level with at most that probability, however the scores depend on each other. The
    largest of n scores held to a fixed bound, in contrast, exceeds it the more often the more scores there are.

    Args:
        scores: one or more, of any shape.
        freedom: degrees of freedom, of each or of all; infinite for normal scores.

    Returns:
        The p value, which is no estimate: ``exact``, with n.

    Raises:
        InputError: no scores, scores that are not finite, or degrees of freedom that are not positive or do not fit.
    """
    scores, freedom = as_doubles("scores", scores), as_doubles("freedom", freedom)
    require(scores.size > 0 and bool(np.isfinite(scores).all()), "scores", scores.shape, "one or more, all finite")
    fits = freedom.shape in ((), scores.shape) and bool((freedom > 0).all())
    require(fits, "freedom", freedom.tolist(), f"positive, one number or an array of shape {scores.shape}")
    p = min(1.0, scores.size * float(2 * scipy.stats.t.sf(np.abs(scores), freedom).min()))
    return Estimate(p, p, p, method="Bonferroni's p value", n=scores.size, exact=True)
