"""One question a file: each takes arrays or denoisers and returns arrays."""

from dgu.analysis.mixture import GaussianMixtureSampler as GaussianMixtureSampler
from dgu.analysis.mixture import GaussianRoot as GaussianRoot
from dgu.analysis.mixture import class_key as class_key
from dgu.analysis.mixture import draw_gaussian as draw_gaussian
from dgu.analysis.mixture import fit_gaussian as fit_gaussian
from dgu.analysis.moments import MomentState as MomentState
from dgu.analysis.moments import moments as moments
