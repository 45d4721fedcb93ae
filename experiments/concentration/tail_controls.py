"""Controls of the analysis of tails: data whose tails are known, and how often the test rejects them."""

from collections.abc import Mapping

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.concentration.tail_summary import tail_summary
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.distributions.bases import student_from_gaussian
from experiments.concentration.subject import Subject

#: Student-t degrees of freedom at which the power of the test is shown.
DEGREES = (3.0, 5.0, 10.0, 20.0)
#: Dimension of the data that the test is tried on, rows of Gaussian sets and rows of Student-t sets.
DIMENSION, ROWS, POWER_ROWS = 8, 120, 2000
#: Gaussian sets in which the scale is estimated.
_SCALE_SETS = 40


def known_tails(subject: Subject, key: Key, count: int, projections: int, coordinates: int) -> dict[str, np.ndarray]:
    """Gaussian and Student-t data (3 degrees of freedom) with the moments of the first class, described as samples are.

    ``scale_ratios`` are the scales found in Gaussian sets of as many rows as there are samples, relative to the truth.

    Args:
        subject: its samples of the first class give the moments.
        key: of the draws.
        count: rows of each control.
        projections, coordinates: functions that are looked at.
    """
    flat, own = subject.rows[0], stream(key, "controls")
    gaussian, draw = jax.jit(analysis.fit_gaussian)(flat), jax.jit(analysis.draw_gaussian)
    aside, rows = np.split(np.asarray(draw(gaussian, own, np.arange(count + len(flat)))), [len(flat)])
    drawn = {"gaussian": rows, "student": student_from_gaussian(rows, gaussian.mean, stream(own, "radius"))}
    out: dict[str, np.ndarray] = {}
    for name, of_kind in drawn.items():
        found = tail_summary(
            of_kind, aside, stream(own, name), projections=projections, coordinates=coordinates, resamples=20
        )
        out |= {f"{name}.{part}": value for part, value in found.items()}
    truth = np.linalg.norm(np.asarray(gaussian.root, np.float64), 2)
    scales = [
        float(analysis.concentration_scale(draw(gaussian, stream(own, "scale", number), np.arange(len(flat)))).value)
        for number in range(_SCALE_SETS)
    ]
    return out | {"scale_ratios": np.array(scales) / truth}


def of_control(stage: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The description of the control ``name``, ``"gaussian"`` or ``"student"``, in what ``known_tails`` returns."""
    return {key.removeprefix(f"{name}."): value for key, value in stage.items() if key.startswith(f"{name}.")}


def rejections(key: Key, sets: int, power_sets: int) -> dict[str, np.ndarray]:
    """How often the test rejects: p values of Gaussian sets, and the share rejected at each of ``DEGREES``, last
    Gaussian.

    Args:
        key: of the sets.
        sets: Gaussian sets.
        power_sets: Student-t sets at each number of degrees of freedom.
    """
    own = stream(key, "test")
    scales = np.arange(1, DIMENSION + 1, dtype=np.float32) ** -0.5
    anchors = np.full((1, DIMENSION), 0.5, np.float32)
    family = analysis.lipschitz_family(
        stream(own, "family"), DIMENSION, projections=4, coordinates=2, anchors=anchors, width=16
    )
    size = analysis.tail_test_p_values(stream(own, "size"), sets, ROWS, scales, family, draws=39)
    power = [
        analysis.tail_test_p_values(
            stream(own, "power", int(nu)), power_sets, POWER_ROWS, scales, family, degrees_of_freedom=nu, draws=19
        )
        for nu in DEGREES
    ]
    shares = [analysis.proportion(p <= 0.05) for p in (*power, size)]
    return {"size_p": size, "rates": np.stack([share.stacked() for share in shares])}
