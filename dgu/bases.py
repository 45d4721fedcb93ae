"""Distributions of the initial noise, public names: see ``dgu.distributions.bases``."""

from dgu.distributions.bases import NAMED as NAMED
from dgu.distributions.bases import MultivariateStudentT as MultivariateStudentT
from dgu.distributions.bases import StudentT as StudentT
from dgu.distributions.bases import named_base as named_base
