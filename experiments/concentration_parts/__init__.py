"""The parts of the study of concentration, a module each."""

from experiments.concentration_parts import contraction as contraction
from experiments.concentration_parts import norms as norms
from experiments.concentration_parts import starts as starts
from experiments.concentration_parts import tails as tails
