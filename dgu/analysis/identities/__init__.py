"""Identities that test any denoiser by its own outputs, derivatives and losses.

Are the errors of a denoiser as large, and as skewed, as its derivatives say, and what information and likelihood do its
losses stand for?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.identities.information import mutual_information as mutual_information
    from dgu.analysis.identities.information import noisy_entropy as noisy_entropy
    from dgu.analysis.identities.moments import MomentGaps as MomentGaps
    from dgu.analysis.identities.moments import moment_gaps as moment_gaps
    from dgu.analysis.identities.moments import posterior_moments as posterior_moments

load_on_use(__name__)
