"""Figures: each a function from results to a matplotlib ``Figure``."""

from dgu.plots.contraction import GainPanel as GainPanel
from dgu.plots.contraction import ScalePanel as ScalePanel
from dgu.plots.contraction import counter_example as counter_example
from dgu.plots.contraction import scale_recursions as scale_recursions
from dgu.plots.contraction import step_gains as step_gains
from dgu.plots.curves import CurvePanel as CurvePanel
from dgu.plots.curves import learning_curves as learning_curves
from dgu.plots.curves import loss_curve as loss_curve
from dgu.plots.forest import forest as forest
from dgu.plots.generalization import SeedCurves as SeedCurves
from dgu.plots.generalization import SizePanel as SizePanel
from dgu.plots.generalization import against_size as against_size
from dgu.plots.generalization import density_multiples as density_multiples
from dgu.plots.generalization import score_panels as score_panels
from dgu.plots.generalization import seed_curves as seed_curves
from dgu.plots.images import image_grid as image_grid
from dgu.plots.matrix import cross_matrix as cross_matrix
from dgu.plots.norms import norm_changes as norm_changes
from dgu.plots.norms import norm_panel as norm_panel
from dgu.plots.spectra import SpectrumPanel as SpectrumPanel
from dgu.plots.spectra import spectra as spectra
from dgu.plots.style import ArmStyle as ArmStyle
from dgu.plots.style import arm_style as arm_style
from dgu.plots.style import style as style
