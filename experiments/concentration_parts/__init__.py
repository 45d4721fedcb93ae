"""The parts of the study of concentration, a module each."""

from experiments.concentration_parts import contraction as contraction
from experiments.concentration_parts import fit_size as fit_size
from experiments.concentration_parts import norms as norms
from experiments.concentration_parts import prediction as prediction
from experiments.concentration_parts import representations as representations
from experiments.concentration_parts import spectra as spectra
from experiments.concentration_parts import starts as starts
from experiments.concentration_parts import tails as tails
from experiments.concentration_parts import theorem as theorem
