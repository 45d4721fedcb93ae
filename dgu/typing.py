"""Shapes that annotations use, public names: see ``dgu.core.typing``."""

from dgu.core.typing import Denoiser as Denoiser
from dgu.core.typing import Event as Event
from dgu.core.typing import Images as Images
from dgu.core.typing import Key as Key
from dgu.core.typing import Labels as Labels
from dgu.core.typing import PyTree as PyTree
from dgu.core.typing import Scalar as Scalar
