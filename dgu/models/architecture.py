"""The architectures that an EDM network may have, as static descriptions."""

from dgu.models.dit_config import DiTConfig
from dgu.models.edm2_config import EDM2Config
from dgu.models.tutorial_config import TutorialUNetConfig
from dgu.models.unet import UNetConfig

#: The networks that can be preconditioned.
Architecture = UNetConfig | DiTConfig | TutorialUNetConfig | EDM2Config
