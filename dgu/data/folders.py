"""Sets of image files: folders with one sub-folder a class, and EDM's zip (or folder) with ``dataset.json``."""

import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from jaxtyping import Integer, Num, UInt8
from PIL import Image

from dgu.core.errors import InputError, require
from dgu.core.file_kinds import folder_kind
from dgu.core.files import write_atomic
from dgu.core.reading import MAX_JSON, RAISE_LIMIT, SINGLE, byte_limit, expect, guarded, opened_member, read_bytes
from dgu.data.formats import Decoded, decoded
from dgu.data.image_files import FORMATS, MAX_FILE, checked_ending, decode_image

_SPLITS = ("train", "val", "test")
#: Bytes of a file beside its pixels: colour profiles and the like.
_METADATA = 2**22
#: Bytes that dataset.json may take for each image beside its name, and beside them all.
_JSON_ENTRY, _JSON_REST = 100, 2**20


def read_image_folder(folder: Path, split: str = "train", max_bytes: int | None = None) -> Decoded:
    """A folder with one sub-folder per class: class number = place of its name among the sorted names.

    Where the sub-folders are called train, val or test, ``split`` chooses one of them; otherwise the folder has no
    splits and ``split`` must be ``"train"``. Images in the folder itself, with no class folders, are one unlabelled
    class. Images are gray or RGB, all of one size, in the order of their sorted paths. Hidden files and files that
    are not images by their ending are passed over. Links to files and folders are followed.

    Raises:
        InputError: no such split, no images, a class without images, images beside class folders, mixed sizes or modes,
            links to nothing, folders reached twice, images that take more than ``max_bytes`` together as float32
            (``byte_limit``), and what ``decode_image`` refuses.
    """
    with guarded(folder, "a folder of images that can be read"):
        return _image_folder(folder, split, byte_limit(max_bytes))


def _image_folder(folder: Path, split: str, limit: int) -> Decoded:
    folders = _class_folders(folder)
    splits = [name for name in _SPLITS if name in folders]
    if folders and len(splits) == len(folders):
        require(split in splits, "split", split, f"one of {splits} for {folder}")
        folder = folder / split
        folders = _class_folders(folder)
    else:
        if "train" in splits:
            other = next(name for name in folders if name not in splits)
            raise InputError(
                f"{folder}: has a folder train and a folder {other}, which is no split; must be splits {_SPLITS} "
                "alone, "
                "or class folders alone (name the folder of one split to read it)"
            )
        require(
            split == "train", "split", split, f"'train' (all of it) for {folder}, which has no folders train or test"
        )
    names = _image_files(folder)
    if not names:
        kind = folder_kind(folder)
        found = "" if kind == "a folder" else f" (it is {kind})"
        raise InputError(
            f"{folder}: holds no images{found}; must hold files {', '.join(FORMATS)} in one folder for each class"
        )
    loose = next((name for name in names if "/" not in name), None)
    if folders and loose is not None:
        raise InputError(f"{folder / loose}: lies beside class folders; must lie in one of them")
    filled = {name.split("/")[0] for name in names}
    for name in folders:
        if name not in filled:
            raise InputError(f"{folder / name}: holds no images; must hold some, as every class folder")
    images = _decode_all(names, lambda name, most: _read_file(folder / name, most), folder, limit)
    if not folders:
        return decoded(images, None, None, folder)
    number = {name: place for place, name in enumerate(folders)}
    return decoded(images, np.asarray([number[name.split("/")[0]] for name in names]), folders, folder)


def read_edm(path: Path, max_bytes: int | None = None) -> Decoded:
    """EDM's (and StyleGAN's) data set: a zip, or a folder, of images and ``dataset.json``.

    ``dataset.json`` is ``{"labels": [["00000/img00000000.png", 6], ...]}`` or ``{"labels": null}``; the images are in
    the order of their sorted names. Nothing is unpacked to disk.

    Raises:
        InputError: no or another ``dataset.json``, an image without a label or a label without an image, labels that
            are not integers, members with absolute or upward names, and all that an image folder is refused for.
    """
    limit = byte_limit(max_bytes)
    if path.is_dir():
        with guarded(path, "a folder of images that can be read"):
            return _edm(_image_files(path), lambda name, most: _read_file(path / name, most), path, limit)
    with guarded(path, "a whole zip file"), zipfile.ZipFile(expect(path, ("zip",), "EDM's zip of images")) as archive:
        infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        twice = _repeated([info.filename for info in archive.infolist()])
        if twice is not None:
            raise InputError(f"{path}: holds {twice} twice; must hold each file once")
        for name in infos:
            if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
                raise InputError(f"{path}: member {name!r}; must be a relative path inside the zip")

        def read(name: str, most: int) -> bytes:
            if name not in infos:
                raise InputError(f"{path}: has no {name}; must hold images and a dataset.json")
            size = infos[name].file_size
            if size > most:
                raise InputError(f"{path}: {name} of {size} bytes; must be at most {most} bytes")
            with opened_member(archive, infos[name], path) as file:
                return file.read()

        return _edm(sorted(name for name in infos if checked_ending(name, path)), read, path, limit)


def first_images(path: Path, count: int) -> UInt8[np.ndarray, "m h w c"]:
    """The first images of EDM's zip, at most ``count``, once the checksums of all its members are found right.

    Raises:
        InputError: a zip that is damaged or holds something else.
    """
    allowed = "EDM's zip of images"
    with guarded(path, "a whole zip file (delete it to make it again)"):
        with zipfile.ZipFile(expect(path, ("zip",), allowed)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path}: {damaged} is damaged; must be a whole zip file (delete it to make it again)")
            names = sorted(name for name in archive.namelist() if checked_ending(name, path))[:count]
            return np.stack([decode_image(archive.read(name), name, path) for name in names])


def _edm(names: list[str], read: Callable[[str, int], bytes], path: Path, limit: int) -> Decoded:
    where = f"{path}: dataset.json"
    # One short entry for each image.
    most = min(MAX_JSON, _JSON_REST + sum(2 * len(name.encode(errors="replace")) + _JSON_ENTRY for name in names))
    with guarded(where, "JSON"):
        content = json.loads(read("dataset.json", most), object_pairs_hook=_each_key_once)
    if not isinstance(content, dict) or "labels" not in content:
        raise InputError(f"{where} has no 'labels'; must be {{'labels': [[file, integer], ...]}} or {{'labels': null}}")
    if not names:
        raise InputError(f"{path}: holds no images; must hold files {', '.join(FORMATS)}")
    if content["labels"] is None:
        return decoded(_decode_all(names, read, path, limit), None, None, path)
    labels: dict[str, int] = {}
    for entry in content["labels"] if isinstance(content["labels"], list) else [content["labels"]]:
        fine = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
        if not (fine and isinstance(entry[1], int) and not isinstance(entry[1], bool)):
            raise InputError(f"{where}: label entry {str(entry)[:80]!r}; must be [file, integer]")
        name = entry[0].replace("\\", "/")
        if name in labels:
            raise InputError(f"{where}: has {name} twice; must have one label for each image")
        labels[name] = entry[1]
    unpaired = set(names) ^ set(labels)
    if unpaired:
        name = min(unpaired)
        problem = "is an image without a label" if name in names else "has a label but is no image"
        raise InputError(f"{where}: {name} {problem}; must have one label for each image")
    values = np.asarray([labels[name] for name in names], dtype=object)
    wrong = next((name for name, value in zip(names, values) if not 0 <= value < 2**31), None)
    if wrong is not None:
        raise InputError(f"{where}: label {labels[wrong]} of {wrong}; must be from 0 to {2**31 - 1}")
    return decoded(_decode_all(names, read, path, limit), values.astype(np.int64), None, path)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that it has twice the parser would drop the first value."""
    twice = _repeated([key for key, _ in pairs])
    if twice is not None:
        raise ValueError(f"it has the key {twice!r} twice")
    return dict(pairs)


def _repeated(names: list[str]) -> str | None:
    """A name that occurs twice, or None."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())


def _image_files(folder: Path) -> list[str]:
    """Relative names, with forward slashes, of all image files below ``folder``, sorted."""
    return sorted(_walk(folder, "", set()))


def _walk(root: Path, inside: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Names of the image files in ``root / inside`` and below; ``seen`` holds the folders that were entered."""
    folder = root / inside
    status = os.stat(folder)
    place = (status.st_dev, status.st_ino)
    if place in seen:  # A link to a folder above it would be followed for ever.
        raise InputError(f"{folder}: leads to a folder that was read already; must be reached in one way only")
    seen.add(place)
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        name = f"{inside}{entry.name}"
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise InputError(f"{folder / entry.name}: is a link to nothing or to itself; must lead to a file or folder")
        if entry.is_dir():
            yield from _walk(root, f"{name}/", seen)
        elif checked_ending(name, root):
            yield name


def _read_file(path: Path, most: int) -> bytes:
    return read_bytes(path, most, f"a file of at most {most} bytes")


def _decode_all(
    names: list[str], read: Callable[[str, int], bytes], source: Path, limit: int
) -> UInt8[np.ndarray, "n h w c"]:
    """All images, which must share one size and one mode, as one array. The first image sets both."""
    first = decode_image(read(names[0], MAX_FILE), names[0], source)
    taken = SINGLE * len(names) * first.size
    if taken > limit:
        raise InputError(
            f"{source}: {len(names)} images of {first.shape} take {taken:,} bytes as float32; must be at most {limit:,}"
            f" ({RAISE_LIMIT})"
        )
    images = np.empty((len(names), *first.shape), np.uint8)
    images[0] = first
    most = min(MAX_FILE, 4 * first.size + _METADATA)
    for number, name in enumerate(names[1:], 1):
        images[number] = decode_image(read(name, most), name, source, (names[0], first.shape))
    return images


def write_edm_zip(
    path: Path | str, images: Num[np.ndarray, "n h w c"], labels: Integer[np.ndarray, " n"] | None = None
) -> None:
    """Write images in EDM's layout: stored PNGs ``00000/img00000000.png`` and ``dataset.json``.

    The same arrays give the same bytes; the file appears whole or not at all.

    Args:
        path: the zip to write or replace.
        images: integers from 0 to 255, NHWC, c 1 or 3.
        labels: from 0; none writes ``{"labels": null}``.

    Raises:
        InputError: no images, pixels that are not bytes, another number of channels, labels out of range, or a path
            that cannot be written.
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
