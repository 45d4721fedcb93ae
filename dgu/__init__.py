"""dgu: what have diffusion models learned, and how Gaussian is it?

Import the rooms by name: ``from dgu import analysis, data, distributions, keys, models, samplers, testing, training``.
``dgu.denoiser(model, ...)`` makes a denoiser of any network.
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.models.door import denoiser as denoiser

__version__ = "0.1.0"

load_on_use(__name__)
