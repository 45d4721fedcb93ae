"""Concentration of measure.

Do Lipschitz functions of the samples have Gaussian tails? Is a sampler step, or the whole sampler, a contraction?
How do the norms of states change along the sampler?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.concentration.contraction import Expansion as Expansion
    from dgu.analysis.concentration.contraction import generator_expansion as generator_expansion
    from dgu.analysis.concentration.contraction import path_expansion as path_expansion
    from dgu.analysis.concentration.contraction import scale_recursion as scale_recursion
    from dgu.analysis.concentration.contraction import step_expansion as step_expansion
    from dgu.analysis.concentration.coupling import coupled_deviation as coupled_deviation
    from dgu.analysis.concentration.coupling import coupled_distances as coupled_distances
    from dgu.analysis.concentration.lanczos import top_eigenvalues as top_eigenvalues
    from dgu.analysis.concentration.lipschitz import LipschitzFamily as LipschitzFamily
    from dgu.analysis.concentration.lipschitz import lipschitz_family as lipschitz_family
    from dgu.analysis.concentration.lipschitz import lipschitz_values as lipschitz_values
    from dgu.analysis.concentration.norms import falling_share as falling_share
    from dgu.analysis.concentration.norms import norm_z_scores as norm_z_scores
    from dgu.analysis.concentration.norms import observe_norms as observe_norms
    from dgu.analysis.concentration.norms import panel_steps as panel_steps
    from dgu.analysis.concentration.norms import snapshots as snapshots
    from dgu.analysis.concentration.tail_test import tail_test as tail_test
    from dgu.analysis.concentration.tail_test import tail_test_p_values as tail_test_p_values
    from dgu.analysis.concentration.tails import concentration_scale as concentration_scale
    from dgu.analysis.concentration.tails import hill_index as hill_index
    from dgu.analysis.concentration.tails import left_over_mass as left_over_mass
    from dgu.analysis.concentration.tails import tail_curves as tail_curves
    from dgu.analysis.concentration.tails import tail_estimates as tail_estimates

load_on_use(__name__)
