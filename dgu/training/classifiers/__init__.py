"""Classifiers trained many at once: linear ones, two-layer networks and a small convolutional network."""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.training.classifiers.convnet import ConvNet as ConvNet
    from dgu.training.classifiers.convnet import train_convnet as train_convnet
    from dgu.training.classifiers.fit import choose_learning_rate as choose_learning_rate
    from dgu.training.classifiers.fit import evaluate as evaluate
    from dgu.training.classifiers.fit import fit_classifiers as fit_classifiers
    from dgu.training.classifiers.interpolator import min_norm_interpolator as min_norm_interpolator
    from dgu.training.classifiers.linear import LinearClassifier as LinearClassifier
    from dgu.training.classifiers.runs import Fit as Fit
    from dgu.training.classifiers.runs import Runs as Runs
    from dgu.training.classifiers.schedules import Schedule as Schedule
    from dgu.training.classifiers.two_layer import fit_two_layer as fit_two_layer

load_on_use(__name__)
