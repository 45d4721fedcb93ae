"""Checkpoints and network files, public names: see ``dgu.core.checkpoint``."""

from dgu.core.checkpoint import MAX_METADATA as MAX_METADATA
from dgu.core.checkpoint import Choose as Choose
from dgu.core.checkpoint import TrainingCheckpoints as TrainingCheckpoints
from dgu.core.checkpoint import load_arrays as load_arrays
from dgu.core.checkpoint import save_arrays as save_arrays
