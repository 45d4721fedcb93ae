"""Generated images as PNG files, by the conventions of EDM's ``generate.py``."""

from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from dgu.core.arrays import as_floats
from dgu.core.errors import require
from dgu.core.files import write_atomic


def to_uint8(images: Num[np.ndarray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w c"]:
    """Bytes from [-1, 1] as EDM makes them: ``clip(x * 127.5 + 128, 0, 255)``, truncated."""
    return np.clip(as_floats("images", images) * np.float32(127.5) + np.float32(128), 0, 255).astype(np.uint8)


def montage(images: Num[np.ndarray, "n h w c"], columns: int = 10) -> bytes:
    """Images with values in [0, 1] (others are clipped), ``columns`` in a row with a white line between them, enlarged
    to at least 48 pixels a side: a PNG.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows, height + 1, columns, width + 1, channels), 255, np.uint8)
    for place, image in enumerate(np.rint(255 * np.clip(np.nan_to_num(images), 0, 1)).astype(np.uint8)):
        sheet[place // columns, :height, place % columns, :width] = image
    pixels = sheet.reshape(rows * (height + 1), columns * (width + 1), channels)
    factor = max(1, -(-48 // height))
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    encoded = BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(encoded, format="png")
    return encoded.getvalue()


def image_name(seed: int, *, subdirs: bool = False) -> str:
    """``000017.png``; with ``subdirs`` in folders of a thousand: ``017000/017017.png``."""
    return (f"{seed - seed % 1000:06d}/" if subdirs else "") + f"{seed:06d}.png"


def write_png(path: Path, image: UInt8[np.ndarray, "h w c"]) -> None:
    """One grey (C = 1) or colour (C = 3) image, under a temporary name first; its folder is made.

    Raises:
        InputError: another number of channels, or a folder that cannot be written to.
    """
    channels = image.shape[-1]
    require(channels in (1, 3), "channels", channels, "1 or 3 for a PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = BytesIO()
    Image.fromarray(image[..., 0] if channels == 1 else image).save(encoded, format="png", optimize=False)
    write_atomic(path, lambda file: file.write(encoded.getvalue()))
