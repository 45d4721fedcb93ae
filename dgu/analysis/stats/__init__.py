"""Estimates and tests that every study shares.

How large is a quantity, with which standard error and 95 % interval? Are two arms equivalent within a margin? How
well does a score separate two groups? Does one quantity rise with another? At which size do measured curves cross a
level?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.stats.estimates import Estimate as Estimate
    from dgu.analysis.stats.estimates import bounded_mean as bounded_mean
    from dgu.analysis.stats.estimates import exactly as exactly
    from dgu.analysis.stats.estimates import independent_difference as independent_difference
    from dgu.analysis.stats.estimates import independent_ratio as independent_ratio
    from dgu.analysis.stats.estimates import normal_estimate as normal_estimate
    from dgu.analysis.stats.estimates import proportion as proportion
    from dgu.analysis.stats.estimates import share_difference as share_difference
    from dgu.analysis.stats.joint import joint_p_value as joint_p_value
    from dgu.analysis.stats.ranking import auc as auc
    from dgu.analysis.stats.ranking import hits_at as hits_at
    from dgu.analysis.stats.ranking import median_interval as median_interval
    from dgu.analysis.stats.ranking import rank_correlation as rank_correlation
    from dgu.analysis.stats.ranking import rank_trend as rank_trend
    from dgu.analysis.stats.resampling import equivalence as equivalence
    from dgu.analysis.stats.resampling import jackknife_interval as jackknife_interval
    from dgu.analysis.stats.resampling import t_interval as t_interval
    from dgu.analysis.stats.sigmoids import SigmoidFit as SigmoidFit
    from dgu.analysis.stats.sigmoids import fit_sigmoids as fit_sigmoids

load_on_use(__name__)
