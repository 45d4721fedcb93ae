"""Figures: each a function from results to a matplotlib ``Figure``."""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.plots.arm_curves import ArmPanel as ArmPanel
    from dgu.plots.arm_curves import arm_curves as arm_curves
    from dgu.plots.bands import Curve as Curve
    from dgu.plots.bands import mean_and_range as mean_and_range
    from dgu.plots.contraction import GainPanel as GainPanel
    from dgu.plots.contraction import ScalePanel as ScalePanel
    from dgu.plots.contraction import counter_example as counter_example
    from dgu.plots.contraction import scale_recursions as scale_recursions
    from dgu.plots.contraction import step_gains as step_gains
    from dgu.plots.curves import CurvePanel as CurvePanel
    from dgu.plots.curves import difference_curves as difference_curves
    from dgu.plots.curves import learning_curves as learning_curves
    from dgu.plots.curves import loss_curve as loss_curve
    from dgu.plots.dots import interval_dots as interval_dots
    from dgu.plots.forest import forest as forest
    from dgu.plots.generalization import SeedCurves as SeedCurves
    from dgu.plots.generalization import SizePanel as SizePanel
    from dgu.plots.generalization import against_size as against_size
    from dgu.plots.generalization import density_multiples as density_multiples
    from dgu.plots.generalization import mode_densities as mode_densities
    from dgu.plots.generalization import score_panels as score_panels
    from dgu.plots.generalization import seed_curves as seed_curves
    from dgu.plots.histograms import histograms as histograms
    from dgu.plots.images import image_grid as image_grid
    from dgu.plots.images import stretched as stretched
    from dgu.plots.levels import LevelPanel as LevelPanel
    from dgu.plots.levels import level_curves as level_curves
    from dgu.plots.linear_maps import EpochPanel as EpochPanel
    from dgu.plots.linear_maps import MapPanel as MapPanel
    from dgu.plots.linear_maps import correlation_matrices as correlation_matrices
    from dgu.plots.linear_maps import distillation_epochs as distillation_epochs
    from dgu.plots.linear_maps import map_spectra_figure as map_spectra_figure
    from dgu.plots.matrix import cross_matrix as cross_matrix
    from dgu.plots.norms import norm_changes as norm_changes
    from dgu.plots.norms import norm_panel as norm_panel
    from dgu.plots.phase import phase_maps as phase_maps
    from dgu.plots.phase import subspace_errors as subspace_errors
    from dgu.plots.roc import roc as roc
    from dgu.plots.scores import ScorePanel as ScorePanel
    from dgu.plots.scores import score_curves as score_curves
    from dgu.plots.spectra import PowerLawPanel as PowerLawPanel
    from dgu.plots.spectra import SpectrumPanel as SpectrumPanel
    from dgu.plots.spectra import WhitePanel as WhitePanel
    from dgu.plots.spectra import assumption_ratios as assumption_ratios
    from dgu.plots.spectra import power_laws as power_laws
    from dgu.plots.spectra import spectra as spectra
    from dgu.plots.spectra import white_spectra as white_spectra
    from dgu.plots.starts import StartPanel as StartPanel
    from dgu.plots.starts import start_tails as start_tails
    from dgu.plots.style import ArmStyle as ArmStyle
    from dgu.plots.style import arm_style as arm_style
    from dgu.plots.style import style as style
    from dgu.plots.sweeps import SweepPanel as SweepPanel
    from dgu.plots.sweeps import sweep_curves as sweep_curves
    from dgu.plots.tails import TailPanel as TailPanel
    from dgu.plots.tails import calibration as calibration
    from dgu.plots.tails import coupling_deviations as coupling_deviations
    from dgu.plots.tails import kurtosis_rows as kurtosis_rows
    from dgu.plots.tails import tail_panels as tail_panels
    from dgu.plots.theorem import universality_trend as universality_trend

load_on_use(__name__)
