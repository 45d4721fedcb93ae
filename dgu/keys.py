"""Addressed randomness, public names: see ``dgu.core.keys`` and ``dgu.distributions.bases``."""

from dgu.core.keys import draw_step as draw_step
from dgu.core.keys import example_key as example_key
from dgu.core.keys import seed_of as seed_of
from dgu.core.keys import seeded as seeded
from dgu.core.keys import step_noise as step_noise
from dgu.core.keys import stream as stream
from dgu.core.keys import threefry as threefry
from dgu.distributions.bases import Base as Base
from dgu.distributions.bases import draw_initial as draw_initial
from dgu.distributions.bases import initial_noise as initial_noise
