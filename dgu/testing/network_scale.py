"""What networks known to be good measure, and the range that follows for others."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float64

from dgu.core.errors import require
from dgu.testing.network_measures import NetworkMeasures

#: How many times the defect of networks known to be good a network may have. Fixed before any broken one was measured.
FACTOR = 3.0


@dataclass(frozen=True, eq=False)
class NetworkScale:
    """Measures of networks known to be good, and of spoilt ones beside them, all at the same noise levels.

    A measure may be as large as ``bound``: ``FACTOR`` = 3 times the largest absolute value that lies within the
    interval of a good network at that level. The rule looks at the good networks alone, and was fixed before the spoilt
    ones were measured; these are for comparison.

    Make one for networks of another kind (other data, sizes, levels) with ``network_measures`` of networks that are
    known to be good by other means than these measures.

    Attributes:
        good: measures of one network or more, by name.
        spoilt: measures of denoisers that must not pass, by what is wrong with them.
        exact: measures of exact posterior means on draws of their own distributions, by name: what the noise of so many
            images alone gives. They do not enter the bound, which is about networks.

    Raises:
        InputError: no good network, or measures at different noise levels.
    """

    good: Mapping[str, NetworkMeasures]
    spoilt: Mapping[str, NetworkMeasures] = field(default_factory=dict)
    exact: Mapping[str, NetworkMeasures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.good) >= 1, "good", "no network", "one network or more")
        levels = sorted({one.sigmas for named in self._kinds.values() for one in named.values()})
        require(len(levels) == 1, "noise levels of the networks", levels, "the same")

    @property
    def _kinds(self) -> dict[str, Mapping[str, NetworkMeasures]]:
        return {"good": self.good, "spoilt": self.spoilt, "exact": self.exact}

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels."""
        return next(iter(self.good.values())).sigmas

    def largest(self, measure: str) -> Float64[np.ndarray, " levels"]:
        """The largest absolute value of a good network at each level."""
        return np.max([np.abs(getattr(one, measure).value) for one in self.good.values()], axis=0)

    def bound(self, measure: str) -> Float64[np.ndarray, " levels"]:
        """What a network may measure at each level: ``FACTOR`` times the farthest end of the good ones' intervals."""
        ends = [np.abs(getattr(one, measure).stacked(axis=0)[1:]).max(axis=0) for one in self.good.values()]
        return FACTOR * np.max(ends, axis=0)

    @classmethod
    def bundled(cls) -> "NetworkScale":
        """The scale in the package, ``network-scale.json``; ``python -m dgu.testing.make_scale`` made it.

        Good: the bundled network ``fashion-mnist-14``, a class-conditional U-Net of 265,217 parameters for images of 14
        x 14 pixels in [-1, 1], whose samples its model card judges; it is the only one, so that the bound of asymmetry
        is about one training of one architecture. Spoilt: the same network times 0.9, given a wrong class, and given a
        tenth of every class; and the multi-delta denoiser of 400 other images. All on ``images[::5]`` of
        ``dgu.data.load("fashion-mnist-mini", "test", 14)``, which are held out: to check the bundled network itself
        take others of that set. Exact: the posterior mean of Gaussian classes with the means and covariances of that
        set, on as many draws from them.
        """
        return _bundled()

    def to_json(self) -> dict[str, dict[str, object]]:
        """The content of ``network-scale.json``."""
        return {kind: {name: one.to_json() for name, one in named.items()} for kind, named in self._kinds.items()}


@cache
def _bundled() -> NetworkScale:
    found = json.loads((resources.files("dgu.testing") / "network-scale.json").read_text())
    return NetworkScale(
        **{kind: {name: NetworkMeasures.from_json(one) for name, one in named.items()} for kind, named in found.items()}
    )


def judged(low: float, high: float, bound: float) -> str:
    """Whether an interval lies ``within`` -bound to bound, ``outside``, or is ``undecided`` because it straddles an
    end.
    """
    if -bound <= low and high <= bound:
        return "within"
    return "outside" if low > bound or high < -bound else "undecided"
