"""Options of the part on the distance of the modes."""

from dataclasses import dataclass

from dgu.core.errors import require
from experiments.generalization.subject import MU, check_rising
from experiments.study import Options, option


@dataclass(frozen=True)
class Config(Options, prefix="shift"):
    """Modes farther and farther apart; and, at the largest distance, wider modes and inputs that are scaled down."""

    points: int = option(151, ge=3)
    """Grid points of the KL."""
    modes: tuple[float, ...] = option((1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 15.0), gt=0.0)
    """Places mu of the modes at +-mu, rising; their distance is twice that. 3 and the last are compared."""
    seeds: int = option(10, ge=4)
    """Seeds of each distance."""
    remark_epochs: int = option(1000, ge=1)
    """Epochs for scaled inputs and for mode widths, a multiple of evaluations."""
    remark_seeds: int = option(10, ge=2)
    """Seeds of each scale of the inputs and of each mode width."""
    mode_widths: tuple[float, ...] = option((0.5, 1.0, 2.0, 4.0), gt=0.0)
    """Standard deviations of the modes at the largest distance, rising."""
    input_scales: tuple[float, ...] = option((1.0, 0.2), gt=0.0)
    """Factors that inputs are scaled by at the largest distance; the first and the last are compared."""

    def check(self) -> None:
        check_rising(self.name("modes"), self.modes)
        check_rising(self.name("mode_widths"), self.mode_widths, fewest=2)
        both = len(self.modes) >= 2 and MU in self.modes[:-1]
        require(both, self.name("modes"), self.modes, f"{MU:g} and a larger one among them")
        scales = self.input_scales
        require(len(scales) >= 2, self.name("input_scales"), scales, "two or more positive numbers")


PRESETS = {
    "smoke": Config(points=51, modes=(3.0, 15.0), seeds=4, remark_epochs=4, remark_seeds=2, mode_widths=(1.0, 2.0)),
    "default": Config(),
    "paper": Config(seeds=50, remark_seeds=50),
}
