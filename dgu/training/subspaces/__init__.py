"""Training of subspace networks: many problems of subspace recovery, solved side by side by SGD."""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.training.subspaces.problems import Problems as Problems
    from dgu.training.subspaces.problems import low_rank_problems as low_rank_problems
    from dgu.training.subspaces.problems import random_starts as random_starts
    from dgu.training.subspaces.problems import truth_starts as truth_starts
    from dgu.training.subspaces.sgd import TimeGrid as TimeGrid
    from dgu.training.subspaces.sgd import exact_loss as exact_loss
    from dgu.training.subspaces.sgd import train_subspaces as train_subspaces
    from dgu.training.subspaces.sgd import vp_grid as vp_grid

load_on_use(__name__)
