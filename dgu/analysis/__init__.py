"""One question a file: each takes arrays or denoisers and returns arrays."""

from dgu.analysis.classifiers import choose_learning_rate as choose_learning_rate
from dgu.analysis.classifiers import evaluate as evaluate
from dgu.analysis.classifiers import fit_classifiers as fit_classifiers
from dgu.analysis.classifiers import predict as predict
from dgu.analysis.features import quadratic_features as quadratic_features
from dgu.analysis.interpolator import min_norm_interpolator as min_norm_interpolator
from dgu.analysis.linear import LinearClassifier as LinearClassifier
from dgu.analysis.mixture import GaussianMixtureSampler as GaussianMixtureSampler
from dgu.analysis.mixture import GaussianRoot as GaussianRoot
from dgu.analysis.mixture import class_key as class_key
from dgu.analysis.mixture import draw_gaussian as draw_gaussian
from dgu.analysis.mixture import fit_gaussian as fit_gaussian
from dgu.analysis.moments import MomentState as MomentState
from dgu.analysis.moments import moments as moments
from dgu.analysis.orders import epoch_order as epoch_order
from dgu.analysis.runs import Fit as Fit
from dgu.analysis.runs import Runs as Runs
from dgu.analysis.schedules import Schedule as Schedule
from dgu.analysis.two_layer import TwoLayerClassifier as TwoLayerClassifier
from dgu.analysis.two_layer import fit_two_layer as fit_two_layer
