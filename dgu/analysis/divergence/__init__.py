"""Divergence of the modelled distribution from the target.

What is the KL divergence, does it have a minimum over training time followed by a rise, and what do the
generalization bounds say about when to stop?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.divergence.early_stopping import early_stopping as early_stopping
    from dgu.analysis.divergence.early_stopping import least_of_others as least_of_others
    from dgu.analysis.divergence.early_stopping import smoothed as smoothed
    from dgu.analysis.divergence.generalization_bounds import mixture_bound as mixture_bound
    from dgu.analysis.divergence.generalization_bounds import optimal_stopping as optimal_stopping
    from dgu.analysis.divergence.generalization_bounds import theorem_one_bound as theorem_one_bound
    from dgu.analysis.divergence.kl import Grid as Grid
    from dgu.analysis.divergence.kl import KLMeasure as KLMeasure
    from dgu.analysis.divergence.kl import flow_kl as flow_kl
    from dgu.analysis.divergence.kl import grid_kl as grid_kl
    from dgu.analysis.divergence.kl import knn_kl as knn_kl
    from dgu.analysis.divergence.kl import mode_summary as mode_summary
    from dgu.analysis.divergence.kl import prior_kl as prior_kl
    from dgu.analysis.divergence.kl import score_kl as score_kl
    from dgu.analysis.divergence.kl import score_log_density as score_log_density
    from dgu.analysis.divergence.kl import target_log_density as target_log_density
    from dgu.analysis.divergence.mode_scores import ModeScores as ModeScores
    from dgu.analysis.divergence.mode_scores import mode_scores as mode_scores

load_on_use(__name__)
