"""The parts of the study of mixtures of low-rank Gaussians, a module each."""

from experiments.molrg_parts import dimension as dimension
from experiments.molrg_parts import directions as directions
from experiments.molrg_parts import images as images
from experiments.molrg_parts import networks as networks
from experiments.molrg_parts import phase as phase
