"""Low-dimensional structure of data and denoisers.

Which subspaces and clusters do data lie on, from how many samples can they be recovered, what is the numerical rank
of a denoiser's Jacobian, and what do edits along its singular directions change?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.subspaces.class_fit import fit_classes as fit_classes
    from dgu.analysis.subspaces.clustering import clustering_objective as clustering_objective
    from dgu.analysis.subspaces.clustering import k_subspaces as k_subspaces
    from dgu.analysis.subspaces.clustering import spectral_labels as spectral_labels
    from dgu.analysis.subspaces.distances import Recovery as Recovery
    from dgu.analysis.subspaces.distances import orthonormalised as orthonormalised
    from dgu.analysis.subspaces.distances import principal_basis as principal_basis
    from dgu.analysis.subspaces.distances import projector_distances as projector_distances
    from dgu.analysis.subspaces.distances import recovery as recovery
    from dgu.analysis.subspaces.distances import subspace_distances as subspace_distances
    from dgu.analysis.subspaces.edits import edit as edit
    from dgu.analysis.subspaces.edits import random_directions as random_directions
    from dgu.analysis.subspaces.edits import split_by_subspace as split_by_subspace
    from dgu.analysis.subspaces.kmeans import cluster_pairs as cluster_pairs
    from dgu.analysis.subspaces.kmeans import kmeans as kmeans
    from dgu.analysis.subspaces.kmeans import lloyd as lloyd
    from dgu.analysis.subspaces.local_dimension import local_dimension as local_dimension
    from dgu.analysis.subspaces.mixture_em import fit_mixture as fit_mixture
    from dgu.analysis.subspaces.numerical_rank import jacobian_ranks as jacobian_ranks
    from dgu.analysis.subspaces.numerical_rank import numerical_rank as numerical_rank
    from dgu.analysis.subspaces.one_subspace import descend_exact_loss as descend_exact_loss
    from dgu.analysis.subspaces.one_subspace import drawn_loss as drawn_loss
    from dgu.analysis.subspaces.phase import BoundFit as BoundFit
    from dgu.analysis.subspaces.phase import fit_bound as fit_bound
    from dgu.analysis.subspaces.phase import gap_to_bound as gap_to_bound
    from dgu.analysis.subspaces.phase import grid_cells as grid_cells
    from dgu.analysis.subspaces.phase import recover_by_k_subspaces as recover_by_k_subspaces
    from dgu.analysis.subspaces.phase import recover_by_pca as recover_by_pca
    from dgu.analysis.subspaces.phase import recover_by_sgd as recover_by_sgd

load_on_use(__name__)
