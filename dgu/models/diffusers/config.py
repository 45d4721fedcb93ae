"""``config.json`` of a diffusers UNet2DModel as a static description, every key checked; without JAX and Flax."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from dgu.core.errors import InputError, require

#: Kinds of blocks that UNet2DModel has, on the way down and on the way up.
DOWN_BLOCKS = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D")
UP_BLOCKS = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D")
#: Its activations by all their names.
ACTIVATIONS = ("silu", "swish", "mish", "gelu", "relu")
#: Far above every published network; they keep the description of a damaged file from taking forever.
MOST_CHANNELS, MOST_LEVELS, MOST_LAYERS, MOST_ROWS = 2**16, 16, 2**8, 2**24


@dataclass(frozen=True)
class UNet2DConfig:
    """The constructor arguments of UNet2DModel under their own names and with their own defaults.

    ``class_labels`` says what a label is: None (there are none), ``"index"`` (one of ``num_class_embeds``),
    ``"timestep"`` (a number that is embedded as times are) or ``"identity"`` (a vector as long as the embedding).
    """

    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    sample_size: int | tuple[int, ...] | None = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0.0
    flip_sin_to_cos: bool = True
    mid_block_type: str | None = "UNetMidBlock2D"
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    def __post_init__(self) -> None:
        check_levels(self.block_out_channels, self.layers_per_block)
        self._check_choices()
        for name, most in (("in_channels", MOST_CHANNELS), ("out_channels", MOST_CHANNELS)):
            whole(name, getattr(self, name), most)
        for name, most in (
            ("time_embedding_dim", MOST_CHANNELS),
            ("attention_head_dim", MOST_CHANNELS),
            ("norm_num_groups", MOST_CHANNELS),
            ("attn_norm_num_groups", MOST_CHANNELS),
            ("num_class_embeds", MOST_ROWS),
            ("num_train_timesteps", MOST_ROWS),
        ):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), most)
        learned = self.time_embedding_type == "learned"
        require(not learned or self.num_train_timesteps is not None, "num_train_timesteps", None, "given, for learned")
        half = self.block_out_channels[0] // 2
        require(self.freq_shift < half, "freq_shift", self.freq_shift, f"below {half}, half of the first channels")
        require(self.out_channels in (self.in_channels, 2 * self.in_channels), "out_channels", self.out_channels,
                f"in_channels = {self.in_channels}, or twice as many")  # fmt: skip
        self._check_skips()
        self._check_groups()
        if self.sample_size is not None:
            sides = self.sample_size if isinstance(self.sample_size, tuple) else (self.sample_size,) * 2
            fits = len(sides) == 2 and all(0 < side <= MOST_CHANNELS and side % self.step == 0 for side in sides)
            require(fits, "sample_size", self.sample_size, f"one or two positive multiples of {self.step}")

    def _check_choices(self) -> None:
        levels = len(self.block_out_channels)
        for name, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
            kinds = getattr(self, name)
            require(len(kinds) == levels, name, kinds, f"{levels} blocks, one for each of block_out_channels")
            for kind in kinds:
                require(kind in known, name, kind, f"one of {', '.join(known)}")
        choices: dict[str, tuple[Any, ...]] = {
            "time_embedding_type": ("positional", "fourier", "learned"),
            "mid_block_type": ("UNetMidBlock2D", None),
            "downsample_type": ("conv", "resnet"),
            "upsample_type": ("conv", "resnet"),
            "downsample_padding": (0, 1),
            "act_fn": ACTIVATIONS,
            "resnet_time_scale_shift": ("default", "scale_shift"),
            "class_embed_type": (None, "timestep", "identity"),
        }
        for name, allowed in choices.items():
            value, shown = getattr(self, name), ", ".join("null" if each is None else str(each) for each in allowed)
            require(value in allowed, name, value, f"one of {shown}")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        for name in ("norm_eps", "mid_block_scale_factor"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive and finite")

    def _check_skips(self) -> None:
        """The running image of Skip blocks is halved and doubled by such blocks alone."""
        down = ["Skip" in kind for kind in self.down_block_types]
        up = ["Skip" in kind for kind in self.up_block_types]
        require(down == sorted(down, reverse=True), "down_block_types", self.down_block_types,
                "without a Skip block below another kind: the running image would have another size")  # fmt: skip
        require(up == sorted(up), "up_block_types", self.up_block_types,
                "without another kind above a Skip block: the running image would have another size")  # fmt: skip
        if any(down) or any(up):
            require(self.in_channels == self.out_channels == 3, "in_channels", self.in_channels,
                    "3, as Skip blocks know no other, and as many out_channels")  # fmt: skip
        plain = not (all(down) and all(up))
        require(not (plain and self.norm_num_groups is None), "norm_num_groups", None, "given, but for Skip blocks")

    def _check_groups(self) -> None:
        widths, last = self.block_out_channels, self.block_out_channels[-1]
        kinds = list(zip(self.down_block_types, widths)) + list(zip(self.up_block_types, widths[::-1]))
        groups, attended = self.norm_num_groups, {width for kind, width in kinds if "Attn" in kind}
        if groups is not None:
            for width in {width for kind, width in kinds if "Skip" not in kind} | {widths[0], last}:
                require(width % groups == 0, "norm_num_groups", groups, f"a divisor of a block's {width} channels")
        for kind, width in kinds:
            quarter = min(width // 4, 32)
            divides = "Skip" not in kind or (quarter > 0 and width % (32 if "Attn" in kind else quarter) == 0)
            require(
                divides,
                "block_out_channels",
                widths,
                "divisible into min(channels // 4, 32) groups in Skip blocks, and into 32 with attention",
            )
        if self.mid_block_type and self.add_attention:
            attended |= {last}
            own = self.attn_norm_num_groups
            require(own is None or last % own == 0, "attn_norm_num_groups", own, f"a divisor of {last} channels")
        for width in attended:
            fits = (self.attention_head_dim or width) <= width
            require(fits, "attention_head_dim", self.attention_head_dim, f"at most {width}, the channels of a block")

    @property
    def step(self) -> int:
        """What both sides of an image must be divisible by."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape of one image, (H, W, C), where ``sample_size`` says it; the network takes other sizes as well."""
        if self.sample_size is None:
            return None
        sides = self.sample_size if isinstance(self.sample_size, tuple) else (self.sample_size,) * 2
        return (sides[0], sides[1], self.in_channels)

    @property
    def embedding(self) -> int:
        """Width of the embedding of time and class."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]

    @property
    def class_labels(self) -> str | None:
        """What a label is; see above."""
        return self.class_embed_type or (None if self.num_class_embeds is None else "index")

    @property
    def label_dim(self) -> int:
        """How many classes there are; 0 where there are no labels, or labels that are no classes."""
        return self.num_class_embeds or 0 if self.class_labels == "index" else 0

    @cached_property
    def skip_channels(self) -> tuple[int, ...]:
        """Channels of what the way down leaves for the way up, in the order of the way down."""
        first, *_ = widths = self.block_out_channels
        found = [first]
        for level, width in enumerate(widths):
            found += [width] * (self.layers_per_block + (level < len(widths) - 1))
        return tuple(found)


def check_levels(widths: tuple[int, ...], layers: int) -> None:
    """The channels and layers of the levels of a network are numbers that one can have."""
    usable = 1 <= len(widths) <= MOST_LEVELS and all(0 < width <= MOST_CHANNELS for width in widths)
    require(usable, "block_out_channels", widths[: MOST_LEVELS + 1], "1 to 16 positive numbers up to 65536")
    whole("layers_per_block", layers, MOST_LAYERS)


def whole(name: str, value: int, most: int) -> None:
    """A whole number from 1 to ``most``."""
    require(1 <= value <= most, name, value, f"from 1 to {most}")


def unet_from_config(config: Mapping[str, Any]) -> UNet2DConfig:
    """The description of a ``config.json`` of UNet2DModel; keys that are left out have the constructor's defaults.

    Raises:
        InputError: another class, a block, activation or option that UNet2DModel does not have, or an unusable value.
    """
    values = read_options(config, "UNet2DModel", UNet2DConfig)
    for name in ("down_block_types", "up_block_types"):
        if name in values:
            values[name] = tuple(kind.removeprefix("UNetRes") for kind in values[name])
    if "act_fn" in values:
        values["act_fn"] = values["act_fn"].lower()
    return UNet2DConfig(**values)


def read_options(config: Mapping[str, Any], class_name: str, kind: Any) -> dict[str, Any]:
    """The values of a ``config.json`` for the fields of a dataclass, each of the type that the field has.

    Keys with an underscore in front say where the file is from and are left aside; an unknown one is refused, unless
    it is null or false and so switches nothing on.

    Raises:
        InputError: the file is of another class than ``class_name``, or an option is unknown or of another type.
    """
    require(isinstance(config, Mapping), "config", type(config).__name__, "a dictionary")
    found = config.get("_class_name", class_name)
    require(found == class_name, "_class_name", found, repr(class_name))
    known = {field.name: field.type for field in fields(kind)}
    for name, value in config.items():
        unknown = name not in known and not str(name).startswith("_") and value is not None and value is not False
        if unknown:
            raise InputError(f"{class_name}: unexpected option {str(name)[:60]!r} = {str(value)[:60]}")
    return {name: typed(name, config[name], declared) for name, declared in known.items() if name in config}


def typed(name: str, value: Any, declared: Any) -> Any:
    """``value`` as one of the types of ``declared``, such as ``int | tuple[int, ...] | None``; lists become tuples.

    Raises:
        InputError: it is of none of them, or a number that is not finite.
    """
    kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            require(len(value) <= MOST_CHANNELS, name, f"{len(value)} entries", f"at most {MOST_CHANNELS}")
            return tuple(typed(name, entry, get_args(kind)[0]) for entry in value)
        if kind in (bool, str, NoneType) and isinstance(value, kind):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
        if number and (kind is float or (kind is int and value == int(value))):
            return kind(value)
    words = {bool: "true or false", str: "a name", int: "a whole number", float: "a number", NoneType: "null"}
    raise InputError(f"{name} = {str(value)[:80]!r}: must be {' or '.join(words.get(k, 'a list') for k in kinds)}")
