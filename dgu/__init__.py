"""dgu: what have diffusion models learned, and how Gaussian is it?

Import the rooms by name: ``from dgu import analysis, data, distributions, keys, models, samplers, testing, training``.
"""

__version__ = "0.1.0"
