"""Sets of image files: folders with one sub-folder a class, and EDM's zip (or folder) with ``dataset.json``."""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from jaxtyping import Integer, Num, UInt8
from PIL import Image

from dgu.data.formats import MAX_BYTES, Decoded, decoded
from dgu.errors import InputError, one_line, require
from dgu.files import write_atomic

#: Largest single image file, and largest dataset.json, that is read (bytes).
MAX_FILE = 2**28
#: Largest single image (pixels).
MAX_PIXELS = 2**26

_SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
_CHANNELS = {"L": 1, "RGB": 3}
_SPLITS = ("train", "val", "test")
_UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)


def read_image_folder(folder: Path, split: str = "train") -> Decoded:
    """A folder with one sub-folder per class: class number = place of its name among the sorted names.

    Where the sub-folders are called train, val or test, ``split`` chooses one of them; otherwise the folder has no
    splits and ``split`` must be ``"train"``. Images in the folder itself, with no class folders, are one unlabelled
    class. Images are gray or RGB, all of one size, in the order of their sorted paths. Hidden files and files that
    are not images by their ending are passed over.

    Raises:
        InputError: no such split, no images, a class without images, images beside class folders, files that cannot be
            read, mixed sizes or modes.
    """
    folders = _class_folders(folder)
    splits = [name for name in _SPLITS if name in folders]
    if folders and len(splits) == len(folders):
        require(split in splits, "split", split, f"one of {splits} for {folder}")
        folder = folder / split
        folders = _class_folders(folder)
    else:
        require(
            split == "train", "split", split, f"'train' (all of it) for {folder}, which has no folders train or test"
        )
    names = _image_files(folder)
    if not names:
        raise InputError(
            f"{folder}: holds no images; must hold files {', '.join(_SUFFIXES)} in one folder for each class"
        )
    loose = next((name for name in names if "/" not in name), None)
    if folders and loose is not None:
        raise InputError(f"{folder / loose}: lies beside class folders; must lie in one of them")
    filled = {name.split("/")[0] for name in names}
    for name in folders:
        if name not in filled:
            raise InputError(f"{folder / name}: holds no images; must hold some, as every class folder")
    images = _decode_all(names, lambda name: _read_file(folder / name), folder)
    if not folders:
        return decoded(images, None, None, folder)
    number = {name: place for place, name in enumerate(folders)}
    return decoded(images, np.asarray([number[name.split("/")[0]] for name in names]), folders, folder)


def read_edm(path: Path) -> Decoded:
    """EDM's (and StyleGAN's) data set: a zip, or a folder, of images and ``dataset.json``.

    ``dataset.json`` is ``{"labels": [["00000/img00000000.png", 6], ...]}`` or ``{"labels": null}``; the images are in
    the order of their sorted names. Nothing is unpacked to disk.

    Raises:
        InputError: no or another ``dataset.json``, an image without a label or a label without an image, labels that
            are not integers, members with absolute or upward names, and all that an image folder is refused for.
    """
    if path.is_dir():
        names = _image_files(path)
        return _edm(names, lambda name: _read_file(path / name), path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            for name in infos:
                if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
                    raise InputError(f"{path}: member {name!r}; must be a relative path inside the zip")

            def read(name: str) -> bytes:
                if name not in infos:
                    raise InputError(f"{path}: has no {name}; must hold images and a dataset.json")
                size = infos[name].file_size
                if size > MAX_FILE:
                    raise InputError(f"{path}: {name} of {size} bytes; must be at most {MAX_FILE} bytes")
                return archive.read(infos[name])

            names = sorted(name for name in infos if PurePosixPath(name).suffix.lower() in _SUFFIXES)
            return _edm(names, read, path)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read ({one_line(error)}); must be a whole zip file") from error


def _edm(names: list[str], read: Callable[[str], bytes], path: Path) -> Decoded:
    where = f"{path}: dataset.json"
    try:
        content = json.loads(read("dataset.json"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} cannot be read ({one_line(error)}); must be JSON") from error
    if not isinstance(content, dict) or "labels" not in content:
        raise InputError(f"{where} has no 'labels'; must be {{'labels': [[file, integer], ...]}} or {{'labels': null}}")
    if not names:
        raise InputError(f"{path}: holds no images; must hold files {', '.join(_SUFFIXES)}")
    if content["labels"] is None:
        return decoded(_decode_all(names, read, path), None, None, path)
    labels: dict[str, int] = {}
    for entry in content["labels"] if isinstance(content["labels"], list) else [content["labels"]]:
        fine = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        if not (fine and isinstance(entry[1], int) and not isinstance(entry[1], bool)):
            raise InputError(f"{where}: label entry {str(entry)[:80]!r}; must be [file, integer]")
        labels[entry[0].replace("\\", "/")] = entry[1]
    unpaired = set(names) ^ set(labels)
    if unpaired:
        name = min(unpaired)
        problem = "is an image without a label" if name in names else "has a label but is no image"
        raise InputError(f"{where}: {name} {problem}; must have one label for each image")
    values = np.asarray([labels[name] for name in names], dtype=object)
    wrong = next((name for name, value in zip(names, values) if not 0 <= value < 2**31), None)
    if wrong is not None:
        raise InputError(f"{where}: label {labels[wrong]} of {wrong}; must be 0 or more")
    return decoded(_decode_all(names, read, path), values.astype(np.int64), None, path)


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _image_files(folder: Path) -> list[str]:
    """Relative names, with forward slashes, of all image files below ``folder``, sorted."""
    names = []
    for root, directories, files in os.walk(folder):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in _SUFFIXES and not name.startswith("."):
                names.append((Path(root) / name).relative_to(folder).as_posix())
    return sorted(names)


def _read_file(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); must be a readable file") from error
    require(len(content) <= MAX_FILE, str(path), f"{len(content)} bytes", f"at most {MAX_FILE} bytes")
    return content


def _decode_all(names: list[str], read: Callable[[str], bytes], source: Path) -> UInt8[np.ndarray, "n h w c"]:
    """All images, which must share one size and one mode, as one array. The first image sets both."""
    images: np.ndarray | None = None
    for number, name in enumerate(names):
        try:
            with Image.open(io.BytesIO(read(name)), formats=[_SUFFIXES[PurePosixPath(name).suffix.lower()]]) as image:
                width, height = image.size
                if image.mode not in _CHANNELS or width * height > MAX_PIXELS:
                    found = f"mode {image.mode}, {width}x{height}"
                    raise InputError(
                        f"{source}: {name} has {found}; must be gray (L) or RGB, at most {MAX_PIXELS} pixels"
                    )
                shape = (height, width, _CHANNELS[image.mode])
                if images is None:
                    if len(names) * height * width * shape[2] > MAX_BYTES:
                        raise InputError(f"{source}: {len(names)} images of {shape}; must be at most {MAX_BYTES} bytes")
                    images = np.empty((len(names), *shape), np.uint8)
                if shape != images.shape[1:]:
                    raise InputError(
                        f"{source}: {name} has shape {shape}, but {names[0]} {images.shape[1:]}; must all have one size"
                    )
                images[number] = np.asarray(image).reshape(shape)
        except _UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{source}: {name} cannot be read ({one_line(error)}); must be a whole image") from error
    assert images is not None
    return images


def write_edm_zip(
    path: Path | str, images: Num[np.ndarray, "n h w c"], labels: Integer[np.ndarray, "n"] | None = None
) -> None:
    """Write images in EDM's layout: stored PNGs ``00000/img00000000.png`` and ``dataset.json``.

    The same arrays give the same bytes; the file appears whole or not at all.

    Args:
        path: the zip to write or replace.
        images: integers from 0 to 255, NHWC, c 1 or 3.
        labels: from 0; none writes ``{"labels": null}``.

    Raises:
        InputError: no images, pixels that are not bytes, another number of channels, labels out of range, or a path that cannot be written.
    """
    checked = decoded(images, labels, None, path)
    bytes_ = checked.images.dtype == np.uint8
    require(bytes_, "images.dtype", str(images.dtype), "integers from 0 to 255, as PNGs hold")
    names = [f"{number // 1000:05d}/img{number:08d}.png" for number in range(len(images))]
    entries = None if labels is None else [[name, int(label)] for name, label in zip(names, checked.labels)]

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, pixels in zip(names, checked.images):
                buffer = io.BytesIO()
                plane = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
                Image.fromarray(plane).save(buffer, "PNG", compress_level=0)
                archive.writestr(zipfile.ZipInfo(name), buffer.getvalue())
            archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": entries}))

    write_atomic(Path(path), write)
