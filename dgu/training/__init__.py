"""Losses, the parameter average and the one training loop."""

from dgu.training.loop import TrainingConfig as TrainingConfig
from dgu.training.loop import image_order as image_order
from dgu.training.loop import initial_state as initial_state
from dgu.training.loop import train_steps as train_steps
from dgu.training.loop import update as update
from dgu.training.losses import edm_loss as edm_loss
from dgu.training.losses import edm_sigma as edm_sigma
