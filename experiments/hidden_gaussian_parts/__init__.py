"""The parts of the study of hidden Gaussian structure, a module each."""

from experiments.hidden_gaussian_parts import distances as distances
from experiments.hidden_gaussian_parts import distillation as distillation
from experiments.hidden_gaussian_parts import jacobians as jacobians
from experiments.hidden_gaussian_parts import linearity as linearity
