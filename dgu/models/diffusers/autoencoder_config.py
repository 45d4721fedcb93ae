"""``config.json`` of a diffusers AutoencoderKL as a static description, every key checked; without JAX and Flax."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dgu.core.errors import require
from dgu.models.diffusers.config import ACTIVATIONS, MOST_CHANNELS, check_levels, read_options, whole

_DOWN, _UP = ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), ("UpDecoderBlock2D", "AttnUpDecoderBlock2D")


@dataclass(frozen=True)
class AutoencoderConfig:
    """The constructor arguments of AutoencoderKL under their own names and with their own defaults."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] | None = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        check_levels(self.block_out_channels, self.layers_per_block)
        for name, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            kinds, levels = getattr(self, name), len(self.block_out_channels)
            require(len(kinds) == levels, name, kinds, f"{levels} blocks, one for each of block_out_channels")
            for kind in kinds:
                require(kind in known, name, kind, f"one of {', '.join(known)}")
        require(self.act_fn in ACTIVATIONS, "act_fn", self.act_fn, f"one of {', '.join(ACTIVATIONS)}")
        for name in ("in_channels", "out_channels", "latent_channels", "norm_num_groups"):
            whole(name, getattr(self, name), MOST_CHANNELS)
        for width in self.block_out_channels:
            divides = width % self.norm_num_groups == 0
            require(divides, "norm_num_groups", self.norm_num_groups, f"a divisor of {width} channels")
        for name in ("latents_mean", "latents_std"):
            require(
                getattr(self, name) is None, name, getattr(self, name), "null: latents are scaled by scaling_factor"
            )
        require(self.scaling_factor > 0, "scaling_factor", self.scaling_factor, "positive")

    @property
    def step(self) -> int:
        """How many pixels a latent has along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


def autoencoder_from_config(config: Mapping[str, Any]) -> AutoencoderConfig:
    """The description of a ``config.json`` of AutoencoderKL; keys that are left out have the constructor's defaults.

    Raises:
        InputError: another class, a block or option that AutoencoderKL does not have, or an unusable value.
    """
    options = read_options(config, "AutoencoderKL", AutoencoderConfig)
    if "act_fn" in options:
        options["act_fn"] = options["act_fn"].lower()
    return AutoencoderConfig(**options)
