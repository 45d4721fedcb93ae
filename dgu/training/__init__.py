"""Training of denoisers: losses, the parameter average, the training loop, trainings in a directory that go on after a
kill, distillation and many networks at once.

The sub-packages ``classifiers`` and ``subspaces`` train classifiers and models of subspaces.
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.training.augment import AUGMENT_DIM as AUGMENT_DIM
    from dgu.training.augment import Geometry as Geometry
    from dgu.training.augment import augment as augment
    from dgu.training.augment import draw_geometry as draw_geometry
    from dgu.training.augment import transform as transform
    from dgu.training.config import TogetherConfig as TogetherConfig
    from dgu.training.config import TrainingConfig as TrainingConfig
    from dgu.training.distillation import AdamDistillation as AdamDistillation
    from dgu.training.distillation import ExactDistillation as ExactDistillation
    from dgu.training.distillation import author_learning_rates as author_learning_rates
    from dgu.training.distillation import distill_by_adam as distill_by_adam
    from dgu.training.distillation import distill_exactly as distill_exactly
    from dgu.training.dynamics import Dynamics as Dynamics
    from dgu.training.dynamics import Recipe as Recipe
    from dgu.training.dynamics import Runs as Runs
    from dgu.training.dynamics import loss_weight as loss_weight
    from dgu.training.dynamics import seeded_runs as seeded_runs
    from dgu.training.dynamics import train_dynamics as train_dynamics
    from dgu.training.fixed_levels import LevelTraining as LevelTraining
    from dgu.training.fixed_levels import dsm_loss as dsm_loss
    from dgu.training.fixed_levels import initial_levels as initial_levels
    from dgu.training.fixed_levels import level_update as level_update
    from dgu.training.fixed_levels import train_levels as train_levels
    from dgu.training.fixed_levels import train_stored_levels as train_stored_levels
    from dgu.training.fixed_levels import trains_together as trains_together
    from dgu.training.gradient_flow import FlowCurves as FlowCurves
    from dgu.training.gradient_flow import QuadraticLoss as QuadraticLoss
    from dgu.training.gradient_flow import empirical_loss as empirical_loss
    from dgu.training.gradient_flow import flow_curves as flow_curves
    from dgu.training.gradient_flow import gauss_hermite as gauss_hermite
    from dgu.training.gradient_flow import gradient_flow as gradient_flow
    from dgu.training.gradient_flow import lemma_ratios as lemma_ratios
    from dgu.training.gradient_flow import population_loss as population_loss
    from dgu.training.gradient_flow import quadratic_loss as quadratic_loss
    from dgu.training.gradient_flow import two_mode_quadrature as two_mode_quadrature
    from dgu.training.linear_descent import linear_gradient_descent as linear_gradient_descent
    from dgu.training.loop import image_order as image_order
    from dgu.training.loop import initial_state as initial_state
    from dgu.training.loop import train_network as train_network
    from dgu.training.loop import train_steps as train_steps
    from dgu.training.loop import update as update
    from dgu.training.losses import edm2_loss as edm2_loss
    from dgu.training.losses import edm_loss as edm_loss
    from dgu.training.losses import edm_sigma as edm_sigma
    from dgu.training.losses import ve_loss as ve_loss
    from dgu.training.losses import ve_sigma as ve_sigma
    from dgu.training.losses import vesde_loss as vesde_loss
    from dgu.training.losses import vesde_sigma as vesde_sigma
    from dgu.training.losses import vp_loss as vp_loss
    from dgu.training.losses import vp_sigma as vp_sigma
    from dgu.training.power_ema import power_ema_coefficients as power_ema_coefficients
    from dgu.training.power_ema import power_ema_exponent as power_ema_exponent
    from dgu.training.power_ema import power_ema_reconstruct as power_ema_reconstruct
    from dgu.training.power_ema import power_ema_std as power_ema_std
    from dgu.training.resumable import train_in_directory as train_in_directory
    from dgu.training.side_by_side import in_turn as in_turn
    from dgu.training.side_by_side import own_meshes as own_meshes
    from dgu.training.side_by_side import train_side_by_side as train_side_by_side
    from dgu.training.snapshots import train_with_snapshots as train_with_snapshots
    from dgu.training.snapshots import updates_done as updates_done
    from dgu.training.together import train_together as train_together

load_on_use(__name__)
