"""Quality, diversity and novelty of generated images.

How far are samples from held-out images, do they cover the data and its classes, do they repeat training images,
and can the denoiser's loss tell training images from others?
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.quality.balance import class_balance as class_balance
    from dgu.analysis.quality.balls import ball_counts as ball_counts
    from dgu.analysis.quality.coverage import density_coverage as density_coverage
    from dgu.analysis.quality.coverage import expected_coverage as expected_coverage
    from dgu.analysis.quality.descriptors import SSCD as SSCD
    from dgu.analysis.quality.distances import Neighbours as Neighbours
    from dgu.analysis.quality.distances import extract_features as extract_features
    from dgu.analysis.quality.distances import kernel_distance as kernel_distance
    from dgu.analysis.quality.distances import nearest_neighbours as nearest_neighbours
    from dgu.analysis.quality.distances import precision_recall as precision_recall
    from dgu.analysis.quality.distances import variance_ratio as variance_ratio
    from dgu.analysis.quality.frechet import FeatureMoments as FeatureMoments
    from dgu.analysis.quality.frechet import PCAFeatures as PCAFeatures
    from dgu.analysis.quality.frechet import choose_rows as choose_rows
    from dgu.analysis.quality.frechet import frechet_distance as frechet_distance
    from dgu.analysis.quality.frechet import read_features as read_features
    from dgu.analysis.quality.frechet import read_statistics as read_statistics
    from dgu.analysis.quality.frechet import write_statistics as write_statistics
    from dgu.analysis.quality.membership import denoising_loss as denoising_loss
    from dgu.analysis.quality.membership import loss_attack as loss_attack
    from dgu.analysis.quality.memorisation import copying_test as copying_test
    from dgu.analysis.quality.memorisation import near_duplicates as near_duplicates
    from dgu.analysis.quality.memorisation import novelty as novelty
    from dgu.analysis.quality.memorisation import relative_distance as relative_distance
    from dgu.analysis.quality.memorisation import sample_novelty as sample_novelty
    from dgu.analysis.quality.memorisation import spacing as spacing
    from dgu.analysis.quality.neighbours import k_nearest as k_nearest
    from dgu.analysis.quality.neighbours import nearest as nearest
    from dgu.analysis.quality.representations import RandomConvolutions as RandomConvolutions
    from dgu.analysis.quality.representations import checked_features as checked_features
    from dgu.analysis.quality.representations import random_convolutions as random_convolutions
    from dgu.analysis.quality.representations import represent as represent

load_on_use(__name__)
