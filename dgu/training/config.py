"""The options of trainings: of one network (``train_network``), and of many at once (``train_together``)."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from dgu.core.errors import require

#: The largest width of a power-function average (``power_ema_stds``): that of the plain mean of all parameters so far.
WIDEST_AVERAGE = 12**-0.5
#: The losses of ``dgu.training.losses`` by name.
LossName = Literal["edm", "vp", "ve", "vesde", "edm2"]


@dataclass(frozen=True)
class TrainingConfig:
    """Length, optimiser, averages and loss of a training. Images are counted in thousands (kimg), as in EDM's code."""

    duration_kimg: float = 200_000.0
    """Training images to see, in thousands."""
    batch_size: int = 512
    """Images per parameter update."""
    micro_batch: int | None = None
    """Images per gradient evaluation, to save memory; None is the whole batch."""
    learning_rate: float = 1e-3
    """Adam's step size after the ramp."""
    rampup_kimg: float = 10_000.0
    """The learning rate rises linearly from 0 over these images."""
    decay_kimg: float | None = None
    """Beyond these images the learning rate falls as one over the root of the images seen (EDM2); None: it stays."""
    adam_b2: float = 0.999
    """Adam's decay of the second moment (EDM2 takes 0.99)."""
    ema_halflife_kimg: float = 500.0
    """Half-life of the parameter average."""
    ema_rampup_ratio: float | None = 0.05
    """The half-life is at most this share of the images seen so far; None switches the ramp off."""
    power_ema_stds: tuple[float, ...] = ()
    """Widths of EDM2's power-function averages, such as 0.05 0.1: the first one is then the network's, in place of the
    average with a half-life, and snapshots of all of them are stored, from which others can be reconstructed."""
    loss: LossName = "edm"
    """Distribution and weights of the noise levels: EDM's, of the VP or VE process, (vesde) of dx = 25^t dW, or (edm2)
    EDM's levels with the weights that an EDM2 network estimates itself."""
    p_mean: float = -1.2
    """Mean of ln sigma in training (EDM's and EDM2's loss)."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training (EDM's and EDM2's loss)."""
    augment_probability: float = 0.0
    """How often each kind of augmentation is done to an image (the network is told); 0 is none at all."""
    loss_scaling: float = 1.0
    """Factor on the loss before the gradient (the reference uses 100 with 16-bit floats)."""
    seed: int = 0
    """Seed of the initial parameters, the order of the data and the noise."""

    def __post_init__(self) -> None:
        for name in ("duration_kimg", "learning_rate", "p_std", "loss_scaling"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "positive and finite")
        for name in ("rampup_kimg", "ema_halflife_kimg"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "at least 0 and finite")
        decay = self.decay_kimg
        require(decay is None or 0 < decay < math.inf, "decay_kimg", decay, "positive and finite, or None")
        require(0 < self.adam_b2 < 1, "adam_b2", self.adam_b2, "strictly between 0 and 1")
        widths = self.power_ema_stds
        usable = all(0 < std <= WIDEST_AVERAGE for std in widths) and len(set(widths)) == len(widths)
        require(usable, "power_ema_stds", widths, f"different numbers above 0, at most {WIDEST_AVERAGE:.4f}")
        ratio = self.ema_rampup_ratio
        require(ratio is None or 0 < ratio < math.inf, "ema_rampup_ratio", ratio, "positive and finite, or None")
        require(self.loss in get_args(LossName), "loss", self.loss, f"one of {', '.join(get_args(LossName))}")
        require(math.isfinite(self.p_mean), "p_mean", self.p_mean, "finite")
        probability = self.augment_probability
        require(0 <= probability <= 1, "augment_probability", probability, "in [0, 1]")
        require(1 <= self.batch_size < 2**31, "batch_size", self.batch_size, "at least 1, below 2**31")
        countable = self.duration_kimg * 1000 >= 1 and self.duration_kimg * 1000 / self.batch_size < 2**31
        allowed = "an image or more, and fewer than 2**31 updates of batch_size images"
        require(countable, "duration_kimg", self.duration_kimg, allowed)
        divides = self.micro_batch is None or (self.micro_batch >= 1 and self.batch_size % self.micro_batch == 0)
        require(divides, "micro_batch", self.micro_batch, f"a divisor of batch_size {self.batch_size}")
        require(0 <= self.seed < 2**32, "seed", self.seed, "in 0..2^32 - 1")

    @property
    def total_steps(self) -> int:
        """Parameter updates in the whole run."""
        return -(-round(self.duration_kimg * 1000) // self.batch_size)


@dataclass(frozen=True)
class TogetherConfig:
    """The optimisation: Adam on EDM's loss, the step size falling to 0 along a cosine, so that no average is needed."""

    steps: int = 4000
    """Parameter updates of each network."""
    batch_size: int = 128
    """Examples per update of each network."""
    learning_rate: float = 2e-3
    """Adam's step size at the start."""
    p_mean: float = -1.2
    """Mean of ln sigma in training."""
    p_std: float = 1.2
    """Standard deviation of ln sigma in training."""
    chunk: int = 250
    """Updates in a call of the compiled program, between two signs of life."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "chunk"):
            require(1 <= getattr(self, name) < 2**31, name, getattr(self, name), "1 or more, below 2**31")
        for name in ("learning_rate", "p_std"):
            require(0 < getattr(self, name) < float("inf"), name, getattr(self, name), "positive and finite")
        require(math.isfinite(self.p_mean), "p_mean", self.p_mean, "finite")
