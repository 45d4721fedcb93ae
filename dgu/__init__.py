"""dgu: what have diffusion models learned, and how Gaussian is it?

Import the rooms by name: ``from dgu import samplers, models, analysis, data, training, keys, testing``.
"""

__version__ = "0.1.0"
