"""Images of networks of latents: the options of a decoder, and what is shown of images that may be latents."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dgu.core.errors import InputError, require
from experiments.study.costs import Cost
from experiments.study.inputs import reading
from experiments.study.options import Options, option

if TYPE_CHECKING:  # These take JAX along: not for the help of the command line.
    from dgu.models import AutoencoderKL


@dataclass(frozen=True)
class DecoderOptions(Options):
    """How latents are shown as images; base of the options of studies with a checkpoint."""

    decoder: str | None = option(None, added_later=True)
    """Folder of diffusers with the AutoencoderKL (its own, or vae/ of a pipeline) that makes images of the latents that
    the network makes: pictures show them decoded. None where the network makes images; of latents pictures then show
    the first channel."""
    latents: Literal["none", "diffusers", "edm2"] = option("diffusers", added_later=True)
    """How the network's latents are scaled: none, as the autoencoder has them; diffusers, by the factor in its
    configuration; edm2, to standard deviation 1/2 as EDM2's networks of ImageNet-512 have them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        alone = "left out without a decoder (--decoder)"
        require(self.decoder is not None or self.latents == "diffusers", "latents", self.latents, alone)


@dataclass(frozen=True, eq=False)
class Decoder:
    """An autoencoder that makes images of the latents of a network.

    Attributes:
        autoencoder: of diffusers.
        scale: of the latents, see ``dgu.models.unscaled``.
        shape: shape of an image that it makes, (H, W, C).
    """

    autoencoder: "AutoencoderKL"
    scale: Literal["none", "diffusers", "edm2"]
    shape: tuple[int, ...]

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """The images (..., H, W, C) of latents (..., h, w, z), about in [-1, 1]."""
        from dgu.models import decoded

        images = decoded(self.autoencoder, latents.reshape(-1, *latents.shape[-3:]), self.scale)
        return images.reshape(*latents.shape[:-3], *self.shape)

    def cost(self, count: int, latent: tuple[int, ...]) -> Cost:
        """What ``count`` images of latents of a shape cost; they are decoded one after another."""
        import jax
        import jax.numpy as jnp

        from experiments.study.flop import matmul_flop
        from experiments.study.memory import held_bytes

        one = self.autoencoder, jax.ShapeDtypeStruct(latent, jnp.float32)
        flop, memory = (measure(type(self.autoencoder).decode, *one) for measure in (matmul_flop, held_bytes))
        return Cost("decoding", 0, count * flop, memory)


def decoder_of(config: DecoderOptions, latent: tuple[int, ...]) -> Decoder | None:
    """The decoder that the options name, put on record, for latents of a shape; None without one.

    Raises:
        InputError: it cannot be read, or takes other latents.
    """
    if config.decoder is None:
        return None
    autoencoder = _loaded(config.decoder)
    made, given = autoencoder.config.latent_channels, latent[-1]
    allowed = f"an autoencoder with {given} channels of latents, as the network makes them, not {made}"
    require(made == given, "decoder", config.decoder, allowed)
    require(config.latents != "edm2" or made == 4, "latents", config.latents, "none or diffusers: not four channels")
    sides = (side * autoencoder.config.step for side in latent[:2])
    return Decoder(autoencoder, config.latents, (*sides, autoencoder.config.out_channels))


def _loaded(folder: str) -> "AutoencoderKL":
    """The autoencoder of ``--decoder``; complaints are under the name of the option."""
    from dgu.models import load_autoencoder_kl

    own = Path(folder) / "vae"
    try:
        with reading("decoder", folder, own if own.is_dir() else folder):
            return load_autoencoder_kl(folder)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith("decoder = ") else f"decoder = {folder!r}: {text}") from error


def pictures(images: np.ndarray, decoder: Decoder | None = None) -> np.ndarray:
    """What is shown of images (..., h, w, c): latents decoded, or their first channel where there is no decoder; grey
    and coloured images as they are.
    """
    if decoder is not None:
        return decoder(images)
    return images if images.shape[-1] in (1, 3) else images[..., :1]
