"""Linearity of denoisers, and distances between denoisers.

How close is a denoiser to a linear map, what are its Jacobians and its best linear maps like, and how far apart are
the outputs and the samples of two denoisers?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.linearity.contribution import ContributionScores as ContributionScores
    from dgu.analysis.linearity.contribution import contribution_scores as contribution_scores
    from dgu.analysis.linearity.jacobians import perturbed_images as perturbed_images
    from dgu.analysis.linearity.jacobians import singular_triplets as singular_triplets
    from dgu.analysis.linearity.level_by_level import level_outputs as level_outputs
    from dgu.analysis.linearity.level_by_level import level_paths as level_paths
    from dgu.analysis.linearity.level_by_level import level_triplets as level_triplets
    from dgu.analysis.linearity.level_by_level import state_triplets as state_triplets
    from dgu.analysis.linearity.level_losses import level_losses as level_losses
    from dgu.analysis.linearity.level_losses import linear_level_loss as linear_level_loss
    from dgu.analysis.linearity.linear_maps import asymmetry as asymmetry
    from dgu.analysis.linearity.linear_maps import map_spectra as map_spectra
    from dgu.analysis.linearity.linear_maps import orthogonality_residual as orthogonality_residual
    from dgu.analysis.linearity.linear_maps import subspace_overlap as subspace_overlap
    from dgu.analysis.linearity.linear_maps import vector_correlation as vector_correlation
    from dgu.analysis.linearity.linear_maps import weight_nmse as weight_nmse
    from dgu.analysis.linearity.same_noise import SameNoise as SameNoise
    from dgu.analysis.linearity.same_noise import mean_over_pairs as mean_over_pairs
    from dgu.analysis.linearity.same_noise import same_noise_distances as same_noise_distances
    from dgu.analysis.linearity.score_distance import ScoreDistances as ScoreDistances
    from dgu.analysis.linearity.score_distance import score_distances as score_distances
    from dgu.analysis.linearity.scores import LinearityScores as LinearityScores
    from dgu.analysis.linearity.scores import additivity as additivity
    from dgu.analysis.linearity.scores import combination_scores as combination_scores
    from dgu.analysis.linearity.scores import homogeneity as homogeneity
    from dgu.analysis.linearity.scores import linearity as linearity
    from dgu.analysis.linearity.scores import mixing_weights as mixing_weights

load_on_use(__name__)
