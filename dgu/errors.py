"""Exceptions and warnings for invalid input, public names: see ``dgu.core.errors``."""

from dgu.core.errors import CheckpointError as CheckpointError
from dgu.core.errors import InputError as InputError
from dgu.core.errors import PriorMismatchWarning as PriorMismatchWarning
from dgu.core.errors import one_line as one_line
from dgu.core.errors import printable as printable
from dgu.core.errors import require as require
from dgu.core.errors import shortened as shortened
