"""Losses, the parameter average and the one training loop."""

from dgu.training.augment import AUGMENT_DIM as AUGMENT_DIM
from dgu.training.augment import Geometry as Geometry
from dgu.training.augment import augment as augment
from dgu.training.augment import draw_geometry as draw_geometry
from dgu.training.augment import transform as transform
from dgu.training.distillation import AdamDistillation as AdamDistillation
from dgu.training.distillation import ExactDistillation as ExactDistillation
from dgu.training.distillation import author_learning_rates as author_learning_rates
from dgu.training.distillation import distill_by_adam as distill_by_adam
from dgu.training.distillation import distill_exactly as distill_exactly
from dgu.training.loop import TrainingConfig as TrainingConfig
from dgu.training.loop import image_order as image_order
from dgu.training.loop import initial_state as initial_state
from dgu.training.loop import train_steps as train_steps
from dgu.training.loop import update as update
from dgu.training.losses import edm_loss as edm_loss
from dgu.training.losses import edm_sigma as edm_sigma
from dgu.training.losses import ve_loss as ve_loss
from dgu.training.losses import ve_sigma as ve_sigma
from dgu.training.losses import vp_loss as vp_loss
from dgu.training.losses import vp_sigma as vp_sigma
from dgu.training.together import TogetherConfig as TogetherConfig
from dgu.training.together import train_together as train_together
