"""True against false positive rates on logarithmic axes: what an attack finds while it is seldom wrong."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import arm_style, drawing, legend_below, new_figure, style


@drawing
def roc(scores: Mapping[str, tuple[Float[np.ndarray, " m"], Float[np.ndarray, " n"]]], *, title: str = "") -> Figure:
    """ROC curves of scores, beside the diagonal of a blind guess.

    Args:
        scores: for each attack the scores of members and of non-members; members should score high.
        title: title of the figure.

    Raises:
        InputError: no attack, or one without scores of both kinds.
    """
    require(len(scores) > 0, "number of scores", len(scores), "1 or more")
    with style():
        figure = new_figure(5.2, 4.6)
        axes = figure.add_subplot()
        least = 1.0
        for place, (name, (members, others)) in enumerate(scores.items()):
            require(len(members) > 0 and len(others) > 0, f"scores of {name}", (len(members), len(others)), "1 or more")
            thresholds = np.unique(np.concatenate([members, others]))[::-1]
            hits = 1 - np.searchsorted(np.sort(members), thresholds) / len(members)
            alarms = 1 - np.searchsorted(np.sort(others), thresholds) / len(others)
            look = arm_style(name, place)
            axes.plot(alarms, hits, color=look.color, linestyle=look.linestyle, label=name)
            least = min(least, 1 / len(others))
        ends = np.array([least, 1.0])
        axes.plot(ends, ends, color="#7f7f7f", linewidth=0.9, linestyle="--", label="blind guess")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(least, 1)
        axes.set_ylim(least, 1.05)
        axes.set_xlabel("false positive rate: share of non-members called members")
        axes.set_ylabel("true positive rate: share of members called members")
        legend_below(figure, [axes])
        if title:
            axes.set_title(title)
    return figure
