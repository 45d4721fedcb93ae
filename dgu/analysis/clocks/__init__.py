"""Clocks of a data set: at which noise levels do samples commit to a class and to a training image?

Noise levels of collapse (onto training images) and of speciation (into classes) from the data alone, the weight of an
image's own source, which says who is at risk of being repeated, and what class an image comes back with after a U-turn.
"""

from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from dgu.analysis.clocks.class_kept import class_kept as class_kept
    from dgu.analysis.clocks.class_kept import crossing_level as crossing_level
    from dgu.analysis.clocks.collapse import collapse_level as collapse_level
    from dgu.analysis.clocks.collapse import collapse_map as collapse_map
    from dgu.analysis.clocks.source_weights import source_weights as source_weights
    from dgu.analysis.clocks.speciation import ClassSeparation as ClassSeparation
    from dgu.analysis.clocks.speciation import class_separation as class_separation
    from dgu.analysis.clocks.speciation import speciation_level as speciation_level
    from dgu.analysis.clocks.u_turns import u_turns as u_turns

load_on_use(__name__)
