"""The architecture of a DiT, as a static description; see ``dit`` for the network."""

from dataclasses import dataclass

from dgu.core.errors import require


@dataclass(frozen=True)
class DiTConfig:
    """The architecture of a DiT, for ``EDMNetwork``: at one noise level (``DAEPreconditioning``) or at all (EDM's).

    Attributes:
        img_resolution: height and width of the images.
        in_channels, out_channels: of input and output.
        label_dim: classes, 0 for none.
        patch: height and width of a patch; divides the resolution.
        width: of a token; divisible by 4 (the position's embedding) and by ``heads``.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of a block's perceptron over ``width``.
        label_dropout: share of the training images whose class is left out.
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    patch: int = 2
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 4
    label_dropout: float = 0.0

    #: Networks of EDM may be told how images were augmented; this one takes no such labels.
    augment_dim = 0

    def __post_init__(self) -> None:
        for name in ("img_resolution", "in_channels", "out_channels", "patch", "width", "depth", "heads", "mlp_ratio"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.label_dim >= 0, "label_dim", self.label_dim, "0 or more")
        fits = self.img_resolution % self.patch == 0
        require(fits, "patch", self.patch, f"a divisor of img_resolution = {self.img_resolution}")
        require(self.width % 4 == 0, "width", self.width, "a multiple of 4")
        require(self.width % self.heads == 0, "heads", self.heads, f"a divisor of width = {self.width}")
        require(0 <= self.label_dropout < 1, "label_dropout", self.label_dropout, "in [0, 1)")

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return (self.img_resolution // self.patch) ** 2
