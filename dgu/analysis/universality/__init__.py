"""Gaussian universality of classifiers.

Do classifiers trained on images behave as if trained on Gaussian mixtures of the same moments? What test error does
theory predict from the moments alone, do the assumptions of Theorem 1 hold, and what does a fit to finitely many
images cost?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.universality.argmax import ClassificationError as ClassificationError
    from dgu.analysis.universality.argmax import argmax_error as argmax_error
    from dgu.analysis.universality.argmax import classifier_error as classifier_error
    from dgu.analysis.universality.assumptions import theorem_assumptions as theorem_assumptions
    from dgu.analysis.universality.features import quadratic_features as quadratic_features
    from dgu.analysis.universality.fit_size import FitSweep as FitSweep
    from dgu.analysis.universality.fit_size import fit_gaps as fit_gaps
    from dgu.analysis.universality.fit_size import fit_size_accuracy as fit_size_accuracy
    from dgu.analysis.universality.fit_size import mixture_samples as mixture_samples
    from dgu.analysis.universality.least_squares import least_squares_classifier as least_squares_classifier
    from dgu.analysis.universality.least_squares import simulated_errors as simulated_errors
    from dgu.analysis.universality.predicted import class_moments as class_moments
    from dgu.analysis.universality.predicted import predicted_curve as predicted_curve
    from dgu.analysis.universality.theorem_design import TheoremDesign as TheoremDesign
    from dgu.analysis.universality.theorem_one import universality_gap as universality_gap
    from dgu.analysis.universality.theorem_trend import GapTrend as GapTrend
    from dgu.analysis.universality.theorem_trend import decay_exponent as decay_exponent
    from dgu.analysis.universality.theorem_trend import gap_trend as gap_trend
    from dgu.analysis.universality.theory import asymptotic_error as asymptotic_error
    from dgu.analysis.universality.theory import best_ridge as best_ridge

load_on_use(__name__)
