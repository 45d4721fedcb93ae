"""One image file as bytes of gray or RGB: whatever would change or lose pixels on the way is honoured or refused."""

import io
import re
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from dgu.core.errors import InputError
from dgu.core.file_kinds import HEAD, kind_of
from dgu.core.reading import guarded, read_bytes

#: Largest single image file that is read (bytes), and largest image (pixels): 4096 x 4096.
MAX_FILE = 2**26
MAX_PIXELS = 2**24

#: Endings of the files that are read, and Pillow's names of their formats.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
#: Endings of images that are not read: refused, since passing over them would lose a part of a set in silence.
OTHER_IMAGES = frozenset(
    (".gif", ".tif", ".tiff", ".apng", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".jfif", ".jpe", ".jif", ".pbm",
     ".pnm", ".pam", ".pfm", ".exr", ".hdr", ".dcm", ".tga", ".ico", ".svg", ".psd", ".mpo", ".dib", ".jpx")
)  # fmt: skip
#: Number of the format, width, height and the value of white, with comments between them.
_PPM = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})" + rb"\s")
_CHANNELS = {"L": 1, "RGB": 3}
_ALLOWED = "gray or RGB of 8 bits"
_MODES = {
    "1": "has black and white alone (1 bit)",
    "P": "has a palette (mode P)",
    "PA": "has a palette and transparency (mode PA)",
    "LA": "has transparency (mode LA); flatten it onto one colour",
    "La": "has transparency (mode La); flatten it onto one colour",
    "RGBA": "has transparency (mode RGBA); flatten it onto one colour",
    "RGBa": "has transparency (mode RGBa); flatten it onto one colour",
    "CMYK": "has colours of print (mode CMYK)",
    "I;16": "has 16 bits a pixel (mode I;16)",
    "I": "has 16 or 32 bits a pixel (mode I)",
}


def checked_ending(name: str, source: str | Path) -> bool:
    """Whether a file is an image by the ending of its name; those of formats that are not read are refused."""
    ending = PurePosixPath(name).suffix.lower()
    if ending in OTHER_IMAGES:
        raise InputError(f"{source}: {name} is of a format that is not read; must be one of {', '.join(FORMATS)}")
    return ending in FORMATS


def read_image(path: Path) -> UInt8[np.ndarray, "h w c"]:
    """The image in one file, as ``decode_image`` gives it."""
    return decode_image(read_bytes(path, MAX_FILE, f"an image file of at most {MAX_FILE:,} bytes"), path.name, path)


def decode_image(
    content: bytes, name: str, source: str | Path, like: tuple[str, tuple[int, int, int]] | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """One image, gray (c = 1) or RGB (c = 3), turned as its EXIF orientation says.

    Args:
        content: the file.
        name: its name, whose ending says the format.
        source: the folder or archive, for errors.
        like: name and shape of another image, which must be this one's shape: what the header declares is compared
            before anything is decoded.

    Raises:
        InputError: no such image, a damaged one, more than ``MAX_PIXELS``, another shape, or one that is not gray or
            RGB
            of 8 bits in one frame: transparency, palettes, 16 bits, PPM of another maximum than 255, CMYK, animations.
    """
    form = FORMATS[PurePosixPath(name).suffix.lower()]
    with guarded(f"{source}: {name}", "a whole image", advice=_other_kind(content, form)):
        with Image.open(io.BytesIO(content), formats=[form]) as image:
            _check(image, content, form, name, source, like)
            image.load()  # What stands behind the pixels, too: EXIF data may.
            if "transparency" in image.info:
                raise _refusal(source, name, "has a transparent colour; flatten it onto one colour")
            pixels = np.asarray(ImageOps.exif_transpose(image))
            pixels = pixels.reshape(*pixels.shape[:2], _CHANNELS[image.mode])
            if like is not None and pixels.shape != like[1]:
                raise _other_shape(source, name, pixels.shape, like)
            return pixels


def _check(
    image: Image.Image,
    content: bytes,
    form: str,
    name: str,
    source: str | Path,
    like: tuple[str, tuple[int, int, int]] | None,
) -> None:
    """What the header declares, before memory is taken for pixels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{source}: {name} has {width}x{height} pixels; must be at most {MAX_PIXELS} pixels")
    if image.mode not in _CHANNELS:
        raise _refusal(source, name, _MODES.get(image.mode, f"is of mode {image.mode}"))
    if like is not None:
        shape = (height, width, _CHANNELS[image.mode])
        if like[1] not in (shape, (width, height, shape[2])):  # It may be turned.
            raise _other_shape(source, name, shape, like)
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise _refusal(source, name, f"has {frames} frames", f"one frame of {_ALLOWED}")
    if form == "PNG" and content[24:25] == b"\x10":
        raise _refusal(source, name, "has 16 bits a channel")
    if form == "PNG" and not _whole_png(content, image.mode, width, height):
        raise _refusal(source, name, f"holds too few bytes for its {width}x{height} pixels", "a whole image")
    if form == "BMP":
        at = 24 if content[14] == 12 else 28  # In the header of OS/2, and in those of Windows.
        depth = int.from_bytes(content[at : at + 2], "little")
        if depth in (16, 32):  # Of five or six bits a channel, and with a fourth channel.
            raise _refusal(source, name, f"has {depth} bits a pixel")
    if form == "PPM":
        _check_ppm(content, name, source)


def _whole_png(content: bytes, mode: str, width: int, height: int) -> bool:
    """Whether the compressed data of a PNG of 8 bits a channel hold all of its rows: Pillow leaves missing ones black.

    An interlaced one has rows of its own in each pass, no fewer than a whole image's bytes in all.
    """
    rows, at = zlib.decompressobj(), 8
    bits = width * _CHANNELS[mode] * content[24]
    wanted = held = height * bits // 8 if content[28] else height * (1 + (bits + 7) // 8)
    while at + 8 <= len(content) and held > 0:
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        if kind == b"IDAT":
            held -= len(rows.decompress(content[at + 8 : at + 8 + size], wanted))
            while held > 0 and rows.unconsumed_tail:
                held -= len(rows.decompress(rows.unconsumed_tail, wanted))
        at += 12 + size
    return held <= 0


def _check_ppm(content: bytes, name: str, source: str | Path) -> None:
    """Pillow scales another maximum than 255 to it, and stops after the first image."""
    header = _PPM.match(content[:4096])
    if header is None:
        raise _refusal(source, name, "has an unusual header")
    form, *numbers = (int(group) for group in header.groups())
    width, height, largest = numbers
    if largest != 255:
        raise _refusal(source, name, f"has the maximum {largest}", f"{_ALLOWED}, of the maximum 255")
    values = width * height * {2: 1, 3: 3, 5: 1, 6: 3}[form]
    more = _numbers(content[header.end() :]) > values if form < 5 else content[header.end() + values :].strip()
    if more:
        raise _refusal(source, name, f"holds more behind its {width}x{height} pixels", f"one image, {_ALLOWED}")


def _numbers(text: bytes) -> int:
    """How many words there are in a text, without its comments."""
    letters = np.frombuffer(b" " + re.sub(rb"#[^\r\n]*", b"", text), np.uint8)
    blank = np.isin(letters, np.frombuffer(b" \t\n\v\f\r", np.uint8))
    return int(np.count_nonzero(blank[:-1] & ~blank[1:]))


def _refusal(source: str | Path, name: str, what: str, allowed: str = _ALLOWED) -> InputError:
    return InputError(f"{source}: {name} {what}; must be {allowed}")


def _other_shape(
    source: str | Path, name: str, shape: tuple[int, ...], like: tuple[str, tuple[int, int, int]]
) -> InputError:
    return InputError(f"{source}: {name} has shape {shape}, but {like[0]} {like[1]}; must all have one size")


def _other_kind(content: bytes, form: str) -> str:
    """What the content is where it is not of the format that the name says, for an error's advice."""
    kind = kind_of(content[:HEAD], len(content))
    return "" if kind is None or kind.key == form.lower() else f"it is {kind.name}: {kind.advice}"
