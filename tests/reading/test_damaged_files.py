"""Files that parsers stumble over: refused in one line with their name."""

import io
import json
import struct
import warnings
import zipfile

import numpy as np
import pytest

from dgu.analysis import read_features, read_statistics
from dgu.core.checkpoint import load_arrays
from dgu.core.errors import InputError
from dgu.core.reading import guarded, opened_npz, read_member
from dgu.data import SampleStore, load, write_edm_zip
from dgu.models import load_checkpoint
from dgu.models.snapshot import read_snapshot
from tests.models import snapshots
from tests.reading.archives import FIRST, IMAGES, line_of

CONFIG = {
    "precond": "EDMPrecond",
    "kwargs": {"img_resolution": 4, "img_channels": 1, "model_channels": 4, "channel_mult": [1], "num_blocks": 1,
               "label_dim": 2, "attn_resolutions": [], "model_type": "SongUNet", "channel_mult_emb": 1,
               "embedding_type": "fourier"},
}  # fmt: skip
ARRAYS = {"model.enc.4x4_conv.weight": np.ones((4, 1, 3, 3), np.float32)}


def npy(text, version=1, data=b""):
    head = text.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(head)) + head + data


HEADERS = {
    "unfinished": "{'descr': '<f4', 'shape': (3,",
    "deep": "(" * 900 + ")" * 900,
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4), }\n",
    "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n",
    "16 GiB": "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 1), }\n",
    "long number": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000}, 1), }}\n",
    "empty and huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387904, 4611686018427387904), }\n",
    "no width": "{'descr': '<U0', 'fortran_order': False, 'shape': (4611686018427387904, 2), }\n",
    "text shape": "{'descr': '<f4', 'fortran_order': False, 'shape': 'abc', }\n",
    "odd dtype": "{'descr': ('<f4', (100000, 100000, 100000)), 'fortran_order': False, 'shape': (1, 1), }\n",
    "no dtype": "{'descr': 7, 'fortran_order': False, 'shape': (1, 1), }\n",
    "escape": r"{'descr': '\d', 'fortran_order': False, 'shape': (1, 1), }" + "\n",
    "bytes": "\xff\xfe\0\1",
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("version", [1, 2, 9])
def test_damaged_array_headers(tmp_path, case, version, network):
    content = npy(HEADERS[case], version, bytes(64))
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("images", "features", "mu", "sigma", "metadata"):
            archive.writestr(f"{name}.npy", content)
    line_of(read_features, tmp_path / "x.npy")
    for read in (read_features, read_statistics, load, load_checkpoint):
        line_of(read, tmp_path / "x.npz")
    path = tmp_path / "network.npz"
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(io.BytesIO(network)) as archive, zipfile.ZipFile(path, "w", kind) as packed:
            for entry in archive.namelist():
                packed.writestr(entry, content if entry == f"{FIRST}.npy" else archive.read(entry))
        line_of(load_checkpoint, path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("damage", ["content", "encrypted", "method"])
def test_damaged_compressed_members(tmp_path, kind, damage):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name in ("images", "features", "mu", "sigma", "metadata"):
            archive.writestr(f"{name}.npy", npy(HEADERS["16 GiB"]) + bytes(range(256)) * 20)
    content = bytearray(buffer.getvalue())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            if damage == "encrypted":
                content[at + flags] |= 1
            elif damage == "method":
                content[at + flags + 2 : at + flags + 4] = struct.pack("<H", 97)
            elif signature == b"PK\x03\x04":
                content[at + 50 : at + 58] = b"\xff" * 8
            at = content.find(signature, at + 4)
    (tmp_path / "x.npz").write_bytes(content)
    for read in (read_features, read_statistics, load, load_checkpoint, load_arrays):
        line_of(read, tmp_path / "x.npz")


def test_deep_json(tmp_path, network):
    deep = "[" * 200_000
    write_edm_zip(tmp_path / "x.zip", IMAGES)
    with zipfile.ZipFile(tmp_path / "x.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("dataset.json", deep)
    line_of(load, tmp_path / "x.zip")
    with zipfile.ZipFile(io.BytesIO(network)) as archive, zipfile.ZipFile(tmp_path / "network.npz", "w") as packed:
        for entry in archive.namelist():
            content = io.BytesIO(archive.read(entry))
            if entry == "metadata.npy":
                content = io.BytesIO()
                np.save(content, np.asarray(deep))
            packed.writestr(entry, content.getvalue())
    with pytest.raises(InputError, match=r"network\.npz"):
        load_checkpoint(tmp_path / "network.npz")


def test_absurd_configurations_of_networks(tmp_path, network):
    """Numbers from the metadata decide about shapes: none of them costs memory or time."""
    with zipfile.ZipFile(io.BytesIO(network)) as archive:
        metadata = json.loads(np.load(io.BytesIO(archive.read("metadata.npy"))).item())
    for name, value in {"img_resolution": 2**62, "model_channels": 2**61, "num_blocks": 2**61, "img_channels": 2**60,
                        "label_dim": 2**61, "channel_mult": [2**40], "sigma_data": "1e999"}.items():  # fmt: skip
        described = {
            **metadata,
            "config": {**metadata["config"], "kwargs": {**metadata["config"]["kwargs"], name: value}},
        }
        with zipfile.ZipFile(io.BytesIO(network)) as archive, zipfile.ZipFile(tmp_path / "n.npz", "w") as packed:
            for entry in archive.namelist():
                content = io.BytesIO(archive.read(entry))
                if entry == "metadata.npy":
                    content = io.BytesIO()
                    np.save(content, np.asarray(json.dumps(described)))
                packed.writestr(entry, content.getvalue())
        with pytest.raises(InputError, match=r"n\.npz"):
            load_checkpoint(tmp_path / "n.npz")


@pytest.mark.parametrize(
    "of",
    [
        {"size": (2**62, 0), "stride": (0, 1)},
        {"size": (1, 1), "stride": (2**62, 2**62)},
        {"size": (2**63, 0, 2**63), "stride": (1, 1, 1)},
    ],
)
def test_tensors_of_absurd_sizes(tmp_path, of):
    def make(name, array):
        return snapshots.parameter(snapshots.tensor(array, **(of if name == "model.enc.4x4_conv.weight" else {})))

    (tmp_path / "n.pkl").write_bytes(snapshots.snapshot(CONFIG, ARRAYS, make=make))
    assert "n.pkl" in line_of(read_snapshot, tmp_path / "n.pkl")


def test_damaged_manifests_of_stores(tmp_path):
    SampleStore.open(tmp_path / "s", {"model": "m"}, (2, 2, 1))
    for text in ("", "{", "[]", "null", "{}", '{"config": {}}', '{"config": {}, "shape": [0]}', '{"config": {}, "shape": ["a"]}',
                 '{"config": {}, "shape": [1e400]}', '{"config": 3, "shape": [2]}', "[" * 100_000, "\xff"):  # fmt: skip
        (tmp_path / "s" / "store.json").write_bytes(text.encode("latin1"))
        line = line_of(lambda path: SampleStore.existing(path.parent), tmp_path / "s" / "store.json")
        assert "store.json" in line, text


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), OverflowError("large"), KeyError("x"), OSError(5, "disk")]
)
def test_the_guard_takes_whatever_parsers_raise(error):
    with pytest.raises(InputError, match=r"^a\.bin: cannot be read \(.+\); must be a whole file$"):
        with guarded("a.bin", "a whole file"):
            raise error
    with pytest.raises(KeyboardInterrupt):
        with guarded("a.bin", "a whole file"):
            raise KeyboardInterrupt


def test_arrays_come_out_as_numpy_reads_them(tmp_path):
    arrays = {"c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "e": np.ones((0, 3)),
              "s": np.asarray("text"), "b": np.asarray([True, False]), "h": np.asarray([1.5], np.float16)}  # fmt: skip
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    with opened_npz(tmp_path / "x.npz", "an npz file") as archive:
        for name, array in arrays.items():
            found = read_member(archive, name, "x.npz", 1000)
            assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()


def test_an_array_that_is_there_twice_is_refused(tmp_path):
    """NumPy takes the last one, other programs the first."""
    from dgu.analysis import read_features

    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in (0, 1):
            stream = io.BytesIO()
            np.save(stream, np.full((4, 4, 4, 1), value, np.uint8))
            archive.writestr("images.npy", stream.getvalue())
    for read in (load, read_features):
        assert "x.npz: holds images.npy more than once" in line_of(read, path)
