"""What a file is by its first bytes, whatever it is called: so that an error can name the format that was found."""

import os
import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: Bytes that are looked at.
HEAD = 512


class Kind(NamedTuple):
    """A format: ``key`` for programs; ``name`` and ``advice`` for people, what it is and what to do with it."""

    key: str
    name: str
    advice: str


_ARRAYS = "write its arrays with numpy.savez"
_PNG = "save images as PNG, JPEG, BMP, WebP or PPM"
_AGAIN = "copy or download it again"
_UNPACK = "unpack it first"

_KINDS = {
    kind.key: kind
    for kind in (
        Kind("empty", "an empty file", _AGAIN),
        Kind("npy", "an npy file, a single array", "numpy.savez writes npz, numpy.save npy"),
        Kind("npz", "an npz file", "numpy.load and numpy.save extract one array"),
        Kind("zip", "a zip archive", _UNPACK),
        Kind("empty zip", "an empty zip archive", _AGAIN),
        Kind("keras", "a Keras file", f"{_ARRAYS} (keras.saving.load_model reads it)"),
        Kind("safetensors", "a safetensors file", f"{_ARRAYS} (safetensors.numpy.load_file reads it)"),
        Kind("pytorch", "a PyTorch file", f"{_ARRAYS} (torch.load reads it, and can run code)"),
        Kind("pickle", "a pickle", f"{_ARRAYS}; a pickle can run code when it is read"),
        Kind("hdf5", "an HDF5 file (also Keras and MATLAB 7.3)", f"{_ARRAYS} (h5py reads it)"),
        Kind("matlab", "a MATLAB file", f"{_ARRAYS} (scipy.io.loadmat reads it)"),
        Kind("tfrecord", "a TFRecord file", f"{_ARRAYS} (tensorflow.data reads it)"),
        Kind("parquet", "a Parquet file", f"{_ARRAYS} (pyarrow reads it)"),
        Kind("arrow", "an Arrow file", f"{_ARRAYS} (pyarrow reads it)"),
        Kind("idx", "an IDX file", "NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte are its usual names"),
        Kind("gzip", "a gzip file", _UNPACK),
        Kind("xz", "an xz file", _UNPACK),
        Kind("bzip2", "a bzip2 file", _UNPACK),
        Kind("zstd", "a zstd file", _UNPACK),
        Kind("7z", "a 7z archive", _UNPACK),
        Kind("tar", "a tar archive", _UNPACK),
        Kind("png", "a PNG image", "its name must end in .png"),
        Kind("jpeg", "a JPEG image", "its name must end in .jpg or .jpeg"),
        Kind("bmp", "a BMP image", "its name must end in .bmp"),
        Kind("webp", "a WebP image", "its name must end in .webp"),
        Kind("ppm", "a PPM or PGM image", "its name must end in .ppm or .pgm"),
        Kind("gif", "a GIF image", _PNG),
        Kind("tiff", "a TIFF image", _PNG),
        Kind("pdf", "a PDF file", _PNG),
        Kind("lfs", "a Git LFS pointer in place of the file", "git lfs pull brings the file itself"),
        Kind("html", "a web page in place of the file, such as a server's error or login page", _AGAIN),
        Kind("json", "a JSON text", _AGAIN),
        Kind("text", "a text", _AGAIN),
    )
}
_MAGIC = (
    (b"\x93NUMPY", "npy"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"MATLAB 5.0 MAT-file", "matlab"),
    (b"PAR1", "parquet"),
    (b"ARROW1\0\0", "arrow"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"%PDF-", "pdf"),
    (b"version https://git-lfs", "lfs"),
    (b"BM", "bmp"),
    *((b"P%d" % digit + space, "ppm") for digit in range(1, 7) for space in (b"\n", b" ", b"\r", b"\t")),
    *((bytes([0, 0, code, axes]), "idx") for code in (8, 9, 11, 12, 13, 14) for axes in (1, 2, 3, 4)),
)
#: Members of PyTorch's zips, in the folder that is named as the file was; of TorchScript's, too.
_TORCH_MEMBERS = ("/data.pkl", "/constants.pkl", "/.format_version", "/byteorder", "/.data/serialization_id")
#: The number that begins PyTorch's legacy files, as a pickle of protocol 2.
_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: How pickles of the protocols 0 and 1 begin: a container, a global, or one number or text with the number of its
#: place.
_OLD_PICKLE = re.compile(
    rb"\([dl]p\d+\n|[}\]]q\x00|\(?c[A-Za-z_][\w.]*\n[A-Za-z_][\w.]*\n[(pq]"
    rb"|\(*(?:I-?\d+\n|L-?\d+L\n|F-?[\d.]+(?:e[-+]?\d+)?\n|V[^\n]*\np\d+\n|S'[^\n]*'\np\d+\n)"
)
_ZIPS = ("zip", "npz", "pytorch", "empty zip")
#: Files that only one kind of folder has.
_FOLDERS = {
    "_CHECKPOINT_METADATA": "an Orbax checkpoint",
    "manifest.ocdbt": "an Orbax checkpoint",
    "saved_model.pb": "a TensorFlow SavedModel",
    "model_index.json": "a diffusers pipeline",
    "diffusion_pytorch_model.safetensors": "a diffusers model",
    "store.json": "a store of samples",
    "config.json": "the directory of a run",
}


def kind_of(head: bytes, size: int) -> Kind | None:
    """The format of a file of ``size`` bytes that begins with ``head`` (its first ``HEAD`` bytes), or None."""
    key = _key(head, size)
    return None if key is None else _KINDS[key]


def _key(head: bytes, size: int) -> str | None:
    if not size:
        return "empty"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06")):
        return _key_of_zip(head)
    found = next((key for magic, key in _MAGIC if head.startswith(magic)), None)
    if found is not None:
        return found
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(_TORCH):
        return "pytorch"
    if (head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")) or _OLD_PICKLE.match(head):
        return "pickle"
    if len(head) >= 12:
        length = int.from_bytes(head[:8], "little")
        if head[8:9] == b"{" and 2 <= length <= size - 8:
            return "safetensors"
        if length < size and head[8:12] == struct.pack("<I", _masked_crc32c(head[:8])):
            return "tfrecord"
    return _key_of_text(head)


def _key_of_zip(head: bytes) -> str:
    """By the name of the first member: all that the first bytes tell."""
    if head.startswith(b"PK\x05\x06"):
        return "empty zip"
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return _key_of_members([name.decode("utf-8", "replace")])


def _key_of_members(names: list[str]) -> str:
    """By the names of all members of a zip."""
    if not names:
        return "empty zip"
    if any(name.endswith(_TORCH_MEMBERS) for name in names):
        return "pytorch"
    if "config.json" in names and any(name in ("model.weights.h5", "metadata.json") for name in names):
        return "keras"
    return "npz" if all(name.endswith((".npy", "/")) for name in names) else "zip"


def _key_of_text(head: bytes) -> str | None:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as problem:
        if problem.start < len(head) - 3:  # Else the last character is cut, no more.
            return None
        text = head[: problem.start].decode("utf-8")
    if any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<?xml", "<error")):
        return "html"
    return "json" if start.startswith(("{", "[")) else "text"


def _masked_crc32c(data: bytes) -> int:
    """The checksum that a TFRecord has after the length of each record."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def folder_kind(path: str | os.PathLike[str]) -> str:
    """What a folder is: "an Orbax checkpoint" ..., or just "a folder"."""
    found = (name for mark, name in _FOLDERS.items() if os.path.lexists(Path(path) / mark))
    return next(found, "a folder")


def _key_of_open_zip(file: BinaryIO) -> str | None:
    """By all members of a zip, or None where its directory cannot be read: the reader says what is wrong with it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _key_of_members(archive.namelist())
    except Exception:
        return None


def mismatch(path: str | os.PathLike[str], formats: tuple[str, ...]) -> str:
    """What the ordinary file ``path`` is by its first bytes, where that is none of ``formats``; else empty."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
        kind = kind_of(head, os.fstat(file.fileno()).st_size)
        if kind is not None and kind.key in _ZIPS:
            kind = _KINDS[_key_of_open_zip(file) or kind.key]
    if kind is None:
        return f"begins with bytes {head[:8].hex()!r}, of no known format"
    return "" if kind.key in formats else f"is {kind.name}: {kind.advice}"
