"""The parts of the study of hidden Gaussian structure, a module each."""

from experiments.hidden_gaussian_parts import autoencoders as autoencoders
from experiments.hidden_gaussian_parts import distances as distances
from experiments.hidden_gaussian_parts import distillation as distillation
from experiments.hidden_gaussian_parts import jacobians as jacobians
from experiments.hidden_gaussian_parts import linearity as linearity
from experiments.hidden_gaussian_parts import networks as networks
from experiments.hidden_gaussian_parts import strong as strong
from experiments.hidden_gaussian_parts import sweeps as sweeps
