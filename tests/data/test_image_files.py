"""Image files that hold more than gray or RGB bytes: turned as they say, or refused, in folders and in EDM's zip
alike.
"""

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dgu.core.errors import InputError
from dgu.data import load
from dgu.data.image_files import decode_image
from tests.data.test_folders import make_zip, put

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
PLAIN = Image.fromarray(PIXELS)


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth, colour, rows, size=(4, 4), before=b"", after=b""):
    """A PNG made by hand: ``rows`` are the bytes of each row."""
    head = struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = (chunk(b"IHDR", head), before, chunk(b"IDAT", packed), after, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


ROWS = [row.tobytes() for row in PIXELS]
GIF = saved(PLAIN.convert("P"), "GIF")
FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - PIXELS)]}
REFUSED = {
    "16-bit RGB PNG": ("a.png", png(16, 2, [row.astype(">u2").tobytes() for row in PIXELS]), "16 bits a channel"),
    "16-bit gray PNG": ("a.png", png(16, 0, [row[:, 0].astype(">u2").tobytes() for row in PIXELS]), "16"),
    "RGBA PNG": ("a.png", saved(PLAIN.convert("RGBA"), "PNG"), "transparency (mode RGBA); flatten"),
    "gray and alpha": ("a.png", saved(PLAIN.convert("LA"), "PNG"), "transparency (mode LA); flatten"),
    "RGB with tRNS": ("a.png", png(8, 2, ROWS, before=chunk(b"tRNS", bytes(6))), "transparent colour; flatten"),
    "gray with tRNS": ("a.png", saved(PLAIN.convert("L"), "PNG", transparency=0), "transparent colour; flatten"),
    "palette": ("a.png", saved(PLAIN.convert("P"), "PNG"), "palette"),
    "transparent palette": ("a.png", saved(PLAIN.convert("P"), "PNG", transparency=0), "palette"),
    "1-bit PNG": ("a.png", saved(PLAIN.convert("1"), "PNG"), "1 bit"),
    "APNG": ("a.png", saved(PLAIN, "PNG", **FRAMES), "2 frames"),
    "animated WebP": ("a.webp", saved(PLAIN, "WEBP", lossless=True, **FRAMES), "2 frames"),
    "WebP with alpha": ("a.webp", saved(PLAIN.convert("RGBA").rotate(45), "WEBP", lossless=True), "RGBA"),
    "pair of JPEGs": ("a.jpg", saved(PLAIN, "MPO", **FRAMES), "2 frames"),
    "CMYK JPEG": ("a.jpg", saved(PLAIN.convert("CMYK"), "JPEG"), "CMYK"),
    "PPM of 16 bits": ("a.ppm", b"P6 4 4 65535\n" + PIXELS.astype(">u2").tobytes(), "maximum 65535"),
    "PPM of 4 bits": ("a.ppm", b"P6\n# of 4 bits\n4 4\n15\n" + (PIXELS >> 4).tobytes(), "maximum 15"),
    "PGM of 16 bits": ("a.pgm", b"P5 4 4 65535\n" + PIXELS[..., 0].astype(">u2").tobytes(), "16"),
    "plain PGM": ("a.pgm", b"P2 2 2 100 0 50 100 7\n", "maximum 100"),
    "two PPM in a file": ("a.ppm", 2 * (b"P6 4 4 255\n" + PIXELS.tobytes()), "more behind its 4x4 pixels"),
    "GIF": ("a.gif", GIF, "a format that is not read"),
    "TIFF": ("a.tiff", saved(PLAIN, "TIFF"), "a format that is not read"),
    "GIF called PNG": ("a.png", GIF, "a GIF image"),
    "JPEG called PNG": ("a.png", saved(PLAIN, "JPEG"), "a JPEG image: its name must end in .jpg"),
    "web page": ("a.jpg", b"<html><body>404</body></html>", "a web page"),
    "LFS pointer": ("a.png", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("where", ["folder", "zip"])
def test_what_would_lose_something_is_refused(tmp_path, case, where, refused):
    name, content, said = REFUSED[case]
    if where == "folder":
        put(tmp_path / "set" / "a" / name, content)
        path = tmp_path / "set"
    else:
        path = make_zip(tmp_path / "x.zip", {f"a/{name}": content, "dataset.json": '{"labels": null}'})
    with refused(path, name, said):
        load(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_honoured(tmp_path, form, orientation):
    """Against the table of the EXIF standard, by NumPy: where the first row and column of the picture are."""
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8], wide[:4, 8:] = 60, 200
    right = {
        1: wide, 2: wide[:, ::-1], 3: wide[::-1, ::-1], 4: wide[::-1], 5: wide.swapaxes(0, 1),
        6: np.rot90(wide, -1), 7: wide[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(wide),
    }[orientation]  # fmt: skip
    content = saved(Image.fromarray(wide), form, exif=exif(orientation), quality=95)
    got = decode_image(content, f"a.{form.lower()}", tmp_path)
    assert got.shape == right.shape and np.abs(got.astype(int) - right).max() <= 12


def test_exif_behind_the_pixels_is_seen_and_turned_images_have_one_size(tmp_path):
    """A PNG may have its eXIf chunk after its pixels; two images of one size when turned belong together."""
    tall = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    behind = chunk(b"eXIf", exif(6).tobytes()[6:])
    put(tmp_path / "a" / "0.png", png(8, 2, [row.tobytes() for row in tall], (3, 2), after=behind))
    put(tmp_path / "a" / "1.png", saved(Image.fromarray(np.rot90(tall, -1)), "PNG"))
    found = load(tmp_path, pixel_range=(0, 255)).images
    np.testing.assert_array_equal(found, np.stack(2 * [np.rot90(tall, -1)]))


def test_gray_of_few_bits_is_kept_in_full(tmp_path):
    levels = np.asarray([0, 1, 2, 3])
    content = png(2, 0, [bytes([0b00011011])] * 4)
    np.testing.assert_array_equal(decode_image(content, "a.png", tmp_path)[..., 0], np.tile(levels * 85, (4, 1)))
    content = b"P5\n# a comment\n4 4 # and another\n255\n" + PIXELS[..., 0].tobytes()
    np.testing.assert_array_equal(decode_image(content, "a.pgm", tmp_path), PIXELS[..., :1])


def test_sizes_are_judged_before_anything_is_decoded(tmp_path, refused):
    """The pixels of these files are rubbish: only their headers can have been looked at."""
    rubbish = png(8, 2, [b"rubbish"], (8000, 8000))
    put(tmp_path / "large" / "a" / "0.png", rubbish)
    with refused("8000x8000", "at most 16777216 pixels"):
        load(tmp_path / "large")
    put(tmp_path / "other" / "a" / "0.png", saved(PLAIN, "PNG"))
    put(tmp_path / "other" / "a" / "1.png", png(8, 2, [b"rubbish"], (4000, 4000)))
    with refused("a/1.png", "(4000, 4000, 3)", "a/0.png (4, 4, 3)"):
        load(tmp_path / "other")


# --- links and what is no file --------------------------------------------------------------------------------------


def test_links_are_followed(tmp_path):
    put(tmp_path / "real" / "a" / "deep" / "0.png", saved(PLAIN, "PNG"))
    put(tmp_path / "one.png", saved(Image.fromarray(255 - PIXELS), "PNG"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b").symlink_to(tmp_path / "real" / "a")
    put(tmp_path / "set" / "a" / "x.txt", b"")
    (tmp_path / "set" / "a" / "1.png").symlink_to(tmp_path / "one.png")
    found = load(tmp_path / "set", pixel_range=(0, 255))
    assert found.class_names == ("a", "b") and found.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found.images, np.stack([255 - PIXELS, PIXELS]))


def test_loops_and_broken_links_are_refused(tmp_path, refused):
    put(tmp_path / "set" / "a" / "0.png", saved(PLAIN, "PNG"))
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    with refused(tmp_path / "set" / "a" / "up", "read already"):
        load(tmp_path / "set")
    (tmp_path / "set" / "a" / "up").unlink()
    for name in ("b", "a/1.png"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "nowhere")
        with refused(tmp_path / "set" / name, "a link to nothing"):
            load(tmp_path / "set")
        (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / "a" / "self.png").symlink_to("self.png")
    with refused("self.png", "a link to nothing"):
        load(tmp_path / "set")


def test_pipes_inside_folders_are_refused(tmp_path, refused):
    put(tmp_path / "set" / "a" / "0.png", saved(PLAIN, "PNG"))
    os.mkfifo(tmp_path / "set" / "a" / "1.png")
    with refused("a/1.png", "a named pipe"):
        load(tmp_path / "set")
    put(tmp_path / "edm" / "0.png", saved(PLAIN, "PNG"))
    os.mkfifo(tmp_path / "edm" / "dataset.json")
    with refused("dataset.json", "a named pipe"):
        load(tmp_path / "edm")
    (tmp_path / "idx").mkdir()
    os.mkfifo(tmp_path / "idx" / "train-images-idx3-ubyte")
    put(tmp_path / "idx" / "train-labels-idx1-ubyte", b"")
    with refused("train-images-idx3-ubyte", "a named pipe"):
        load(tmp_path / "idx")


def test_a_folder_that_is_no_set_is_named(tmp_path):
    put(tmp_path / "run" / "config.json", b"{}")
    with pytest.raises(InputError, match=re.escape("holds no images (it is the directory of a run)")):
        load(tmp_path / "run")


@pytest.mark.parametrize(("form", "ending", "channels"), [(2, "pgm", 1), (3, "ppm", 3)])
def test_plain_images_with_more_behind_are_refused(form, ending, channels):
    numbers = " ".join(map(str, range(4 * channels)))
    text = f"P{form}\n# plain\n2 2\n255\n{numbers}\n".encode()
    expected = np.arange(4 * channels, dtype=np.uint8).reshape(2, 2, channels)
    for end in (b"", b"# 7 8 9\n", b" \n\n"):
        np.testing.assert_array_equal(decode_image(text + end, f"a.{ending}", "set"), expected)
    for more in (text, b"7", b"7 # 8\n"):
        with pytest.raises(InputError, match="holds more behind its 2x2 pixels; must be one image"):
            decode_image(text + more, f"a.{ending}", "set")


def test_a_png_that_lacks_rows_is_refused(refused):
    """Its compressed data end with a row, and all checksums are right: Pillow leaves the rest black."""
    whole, cut = png(8, 2, ROWS), png(8, 2, ROWS[:2])
    assert decode_image(whole, "a.png", "here").shape == (4, 4, 3)
    with refused("holds too few bytes for its 4x4 pixels"):
        decode_image(cut, "a.png", "here")


def test_bitmaps_of_16_and_32_bits_a_pixel_are_refused(refused):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(buffer, "BMP")
    whole = buffer.getvalue()
    assert decode_image(whole, "a.bmp", "here").shape == (2, 2, 3)
    for depth in (16, 32):
        content = whole[:28] + bytes((depth, 0)) + whole[30:]
        with refused(f"has {depth} bits a pixel"):
            decode_image(content + bytes(64), "a.bmp", "here")
