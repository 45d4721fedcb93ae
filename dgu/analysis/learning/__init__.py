"""Learning in time, where gradient flow is solved in closed form.

When does a linear denoiser learn each principal component, and when does a random-feature network learn the
distribution, when its training points?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.learning.linear_modes import flow_gains as flow_gains
    from dgu.analysis.learning.linear_modes import flow_variances as flow_variances
    from dgu.analysis.learning.linear_modes import learning_times as learning_times
    from dgu.analysis.learning.two_timescales import Timescales as Timescales
    from dgu.analysis.learning.two_timescales import two_timescales as two_timescales

load_on_use(__name__)
