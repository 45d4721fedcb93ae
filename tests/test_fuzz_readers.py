"""Damaged files of every kind that is read: each is read all the same, or refused in one line with its name.

No traceback, no 2 GB of memory, no 30 seconds. Files are mutated on the outside and on the inside: members of archives
are packed again and checksums are set right, so that the parsers behind them meet the damage, too.
"""

import gzip
import io
import json
import re
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgu.analysis import read_features, read_statistics
from dgu.core.checkpoint import TrainingCheckpoints
from dgu.core.errors import InputError
from dgu.core.safetensors_files import read_safetensors, write_safetensors
from dgu.data import SampleStore, load, write_edm_zip, write_npz
from dgu.models import ADMConfig, EDMNetwork, load_checkpoint, load_diffusers
from dgu.models.pretrained import save_network
from experiments.study.judged import JudgedClaim, read_claims, write_claims
from experiments.study.run_directory import RunDirectory
from tests.models import diffusers_folders as folders
from tests.models import networks, snapshots
from tests.models.torch_zips import torch_zip

SEED = 20_261
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (4, 6, 6, 1), np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 6, 3), np.uint8)
LABELS = np.asarray([0, 1, 1, 0])
NETWORK = EDMNetwork(ADMConfig(4, 1, 1, 2, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=()))
SNAPSHOT = snapshots.TINY
STATE = {"w": jnp.arange(6.0).reshape(2, 3), "step": jnp.asarray(3, jnp.int32)}
MOST_BYTES, MOST_SECONDS = 2e9, 30


@dataclass(frozen=True)
class Settings:
    """A configuration for a run directory."""

    width: int = 3
    name: str = "a"


# What is read
# -----------------------------------------------------------------------------------------------------------


def image_bytes(pixels, form):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write_folder(folder):
    for number, form in enumerate(("PNG", "JPEG", "BMP", "WEBP", "PPM")):
        path = folder / "set" / "ab"[number % 2] / f"{number}.{form.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(COLOUR[number % 4], form))


def write_edm_folder(folder):
    write_edm_zip(folder / "x.zip", GRAY, LABELS)
    with zipfile.ZipFile(folder / "x.zip") as archive:
        archive.extractall(folder / "set")
    (folder / "x.zip").unlink()


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, pack=bytes, end=""):
    (folder / f"train-images-idx3-ubyte{end}").write_bytes(pack(idx(GRAY[..., 0])))
    (folder / f"train-labels-idx1-ubyte{end}").write_bytes(pack(idx(LABELS.astype(np.uint8))))


def write_network(folder, compress):
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), NETWORK.abstract_params)
    save_network(folder / "network.npz", NETWORK, params, {"class_names": ["a", "b"]}, compress=compress)


def write_tensors(folder):
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), NETWORK.abstract_params)
    save_network(folder / "network.safetensors", NETWORK, params, {"class_names": ["a", "b"]})


def without_weights(folder):
    path = folders.write(folder / "d") / "unet" / "diffusion_pytorch_model.safetensors"
    arrays = {name: np.array(array) for name, array in read_safetensors(path)[0].items()}
    path.unlink()
    return path, arrays


def write_shards(folder):
    path, arrays = without_weights(folder)
    names = sorted(arrays)
    places = {name: f"shard-{place % 2}.safetensors" for place, name in enumerate(names)}
    for file in set(places.values()):
        write_safetensors(path.parent / file, {name: arrays[name] for name in names if places[name] == file}, {})
    (path.parent / f"{path.name}.index.json").write_text(json.dumps({"weight_map": places}))


def write_torch(folder):
    arrays = networks.random_arrays(snapshots.TINY)
    (folder / "n.pt").write_bytes(torch_zip(arrays, config=snapshots.TINY))


def write_bin(folder):
    path, arrays = without_weights(folder)
    path.with_suffix(".bin").write_bytes(torch_zip(arrays))


def write_snapshot(folder):
    (folder / "n.pkl").write_bytes(snapshots.snapshot(SNAPSHOT, networks.random_arrays(SNAPSHOT)))


def write_store(folder):
    store = SampleStore.open(folder / "store", {"model": "m", "seed": 0}, (2, 2, 1))
    store.write(0, 0, np.zeros((3, 2, 2, 1), np.float32))


def write_checkpoints(folder):
    with TrainingCheckpoints(folder / "c") as checkpoints:
        checkpoints.save(1, STATE)


def read_checkpoints(folder):
    with TrainingCheckpoints(folder / "c") as checkpoints:
        return checkpoints.load(STATE)


def stage(folder):
    def compute():
        return {"x": np.arange(6.0).reshape(2, 3), "name": np.asarray("text")}

    return RunDirectory.open(folder / "run", Settings()).stage("part", compute)


def claims(folder):
    directory = RunDirectory.open(folder / "run", Settings())
    if not (folder / "run" / "claims.json").exists():
        about = {"id": "a", "paper": "own", "figure": "", "statement": "It is large.", "unit": "", "kind": "at least"}
        write_claims(directory, [JudgedClaim(value=0.5, interval=(0.25, 0.75), bounds=(0.2,), **about)])
    return read_claims(directory)


@dataclass(frozen=True)
class Reader:
    """``write(folder)`` makes valid files, ``read(folder)`` reads them; files whose path matches ``which`` are
    damaged.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    share: int = 10
    which: str = ""


READERS = {
    "npz": Reader(lambda f: write_npz(f / "x.npz", COLOUR, LABELS, ["a", "b"]), lambda f: load(f / "x.npz"), 24),
    "stored npz": Reader(lambda f: np.savez(f / "x.npz", arr_0=COLOUR, arr_1=LABELS), lambda f: load(f / "x.npz")),
    "npy features": Reader(lambda f: np.save(f / "x.npy", np.ones((4, 3))), lambda f: read_features(f / "x.npy"), 16),
    "npz features": Reader(lambda f: np.savez(f / "x.npz", np.ones((4, 3))), lambda f: read_features(f / "x.npz")),
    "moments": Reader(
        lambda f: np.savez_compressed(f / "x.npz", mu=np.ones(3), sigma=np.eye(3)),
        lambda f: read_statistics(f / "x.npz"),
    ),
    "idx": Reader(write_idx, load),
    "idx.gz": Reader(lambda f: write_idx(f, gzip.compress, ".gz"), load),
    "folder": Reader(write_folder, lambda f: load(f / "set"), 30),
    "edm zip": Reader(lambda f: write_edm_zip(f / "x.zip", COLOUR, LABELS), lambda f: load(f / "x.zip"), 20),
    "edm folder": Reader(write_edm_folder, lambda f: load(f / "set"), 10, r"\.json"),
    "pkl": Reader(write_snapshot, lambda f: load_checkpoint(f / "n.pkl"), 16),
    "network.npz": Reader(lambda f: write_network(f, True), lambda f: load_checkpoint(f / "network.npz"), 16),
    "mapped network.npz": Reader(lambda f: write_network(f, False), lambda f: load_checkpoint(f), 8),
    "network.safetensors": Reader(write_tensors, lambda f: load_checkpoint(f / "network.safetensors"), 10),
    "diffusers": Reader(lambda f: folders.write(f / "d"), lambda f: load_checkpoint(f / "d"), 16),
    "diffusers shards": Reader(write_shards, lambda f: load_diffusers(f / "d"), 10, r"index|shard"),
    "diffusers bin": Reader(write_bin, lambda f: load_diffusers(f / "d"), 10, r"\.bin"),
    "torch file": Reader(write_torch, lambda f: load_checkpoint(f / "n.pt"), 10),
    "config": Reader(lambda f: RunDirectory.open(f / "run", Settings()), lambda f: claims(f), 8, "config.json"),
    "stages": Reader(stage, stage, 10, "part.npz"),
    "claims": Reader(claims, claims, 8, "claims.json"),
    "store": Reader(write_store, lambda f: SampleStore.existing(f / "store").read(0, 3), 10),
    "checkpoints": Reader(write_checkpoints, read_checkpoints, 4),
}


# How it is damaged
# ------------------------------------------------------------------------------------------------------


def damaged(data, rng):
    """``data`` with one mutation, inside of what it packs (checksums set right) or outside."""
    if rng.random() < 0.7:
        for inside in (inside_zip, inside_gzip, inside_png, inside_text_array):
            changed = inside(data, rng)
            if changed is not None:
                return changed
    return mutated(data, rng)


def inside_zip(data, rng):
    if not data.startswith(b"PK"):
        return None
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as packed:
        entries = archive.infolist()
        chosen = rng.integers(len(entries))
        for number, entry in enumerate(entries):
            content = archive.read(entry)
            content = damaged(content, rng) if number == chosen else content
            kind = [entry.compress_type, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA][rng.integers(4)]
            packed.writestr(entry.filename, content, kind)
    return buffer.getvalue()


def inside_gzip(data, rng):
    return gzip.compress(damaged(gzip.decompress(data), rng)) if data.startswith(b"\x1f\x8b") else None


def inside_png(data, rng):
    """One chunk's content or type is changed, its checksum is right."""
    if not data.startswith(b"\x89PNG"):
        return None
    chunks, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    chosen = rng.integers(len(chunks))
    kind, content = chunks[chosen]
    extra = [b"tRNS", b"eXIf", b"acTL", b"PLTE", b"gAMA", b"iCCP", b"zTXt"][rng.integers(7)]
    if rng.random() < 0.5:
        chunks.insert(max(1, chosen), (extra, rng.bytes(int(rng.integers(30)))))
    else:
        chunks[chosen] = (kind, mutated(content, rng))
    made = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(made)


def inside_text_array(data, rng):
    if not (data.startswith(b"\x93NUMPY") and b"'<U" in data[:100]):
        return None
    text = np.load(io.BytesIO(data))
    if text.ndim:
        return None
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(mutated(str(text).encode(), rng).decode("utf-8", "replace").replace("\0", " ")))
    return buffer.getvalue()


NUMBERS = (
    b"0",
    b"-1",
    b"7",
    b"1000000",
    b"4294967296",
    b"4611686018427387904",
    b"1" * 30,
    b"9" * 5000,
    b"1e999",
    b"NaN",
)
WORDS = ((b"<f4", b"|O8"), (b"<f8", b"<f2"), (b"|u1", b"<U9"), (b"False", b"True"), (b"(", b"(("), (b"}", b"]"), (b'"', b""),
         (b"labels", b"label"), (b"descr", b"shape"), (b"{", b"[" * 3000), (b":", b",\0"))  # fmt: skip


def mutated(data, rng):
    """One random change; half of them fall on the ends, where headers are."""
    size = len(data)
    at = int(rng.integers(size + 1))
    if rng.random() < 0.5:
        at = min(size, int(rng.integers(120))) if rng.random() < 0.6 else max(0, size - int(rng.integers(120)))
    length = int(rng.choice([1, 2, 4, 8, 40, 400]))
    kind = rng.integers(10)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 6))):
            place = min(size - 1, at + int(rng.integers(8)))
            if place >= 0:
                changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[at : at + length] * 2 + data[at + length :]
    if kind == 3:
        return data[:at] + bytes(min(length, size - at)) + data[at + length :]
    if kind == 4:
        return data[:at] + b"\xff" * min(length, size - at) + data[at + length :]
    if kind == 5:
        return data[:at] + rng.bytes(length) + data[at:]
    if kind == 6:
        return data[:at] + data[at + length :]
    if kind == 7:
        huge = int(rng.choice([2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1]))
        field = (
            struct.pack(rng.choice(["<Q", ">Q"]), huge)
            if huge >= 2**32
            else struct.pack(rng.choice(["<I", ">I"]), huge)
        )
        return data[:at] + field + data[at + len(field) :]
    if kind == 8:
        found = list(re.finditer(rb"\d+", data[:4096]))
        if found:
            number = found[rng.integers(len(found))]
            return data[: number.start()] + NUMBERS[rng.integers(len(NUMBERS))] + data[number.end() :]
        return rng.bytes(length) + data[at:]
    old, new = WORDS[rng.integers(len(WORDS))]
    return data.replace(old, new, 1) if old in data else data[at:] + data[:at]


# ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The valid files of each reader, by relative path."""
    found = {}
    for name, reader in READERS.items():
        folder = tmp_path_factory.mktemp("valid")
        reader.write(folder)
        reader.read(folder)  # They are valid, and what is compiled on the way is compiled now.
        found[name] = {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return found


def attempt(name, files, folder, rng):
    """Damage one of the files and read; the line, or None where the reading succeeds."""
    reader = READERS[name]
    chosen = [path for path in files if re.search(reader.which, str(path))]
    target = chosen[rng.integers(len(chosen))]
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(damaged(content, rng) if path == target else content)
    started = time.monotonic()
    try:
        reader.read(folder)
        line = None
    except InputError as error:
        line = str(error)
        assert "\n" not in line and len(line) <= 2000
        assert str(folder) in line, f"no name of the file in: {line}"
        # A fault of ours inside a guard would pass for a damaged file.
        assert "Type-check" not in line and "is not defined" not in line and "has no attribute" not in line, line
    assert time.monotonic() - started < MOST_SECONDS
    return line


def fuzz(valid, tmp_path, count, seed):
    """``count`` damaged files, shared out among the readers."""
    print(f"seed {seed}")
    total = sum(reader.share for reader in READERS.values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = made = 0
    for place, (name, reader) in enumerate(READERS.items()):
        for number in range(-(-reader.share * count // total)):
            rng = np.random.default_rng([seed, place, number])
            folder = tmp_path / f"{place}-{number}"
            folder.mkdir()
            try:
                refused += attempt(name, valid[name], folder, rng) is not None
            except Exception as error:
                pytest.fail(f"{name}, file {number} of seed {seed} (in {folder}): {type(error).__name__}: {error}")
            made += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"{made} damaged files, {refused} refused, memory grew by {grown / 1e6:.0f} MB at most")
    assert made >= count and refused > count / 4
    assert grown < MOST_BYTES


def test_two_hundred_damaged_files(valid, tmp_path):
    fuzz(valid, tmp_path, 200, SEED)


@pytest.mark.slow
def test_two_thousand_damaged_files(valid, tmp_path):
    fuzz(valid, tmp_path, 2000, SEED + 1)
