"""IDX and npz files, written here byte by byte or by NumPy, read back; and every way in which they can be wrong."""

import gzip
import io
import zipfile

import numpy as np
import pytest

from dgu.data import load, write_npz
from dgu.data.formats import read_idx, read_npz

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 5, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 4, 4, 3), np.uint8)
LABELS = np.asarray([3, 0, 1, 1, 2, 0])


def idx(array, code=8):
    return bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_idx(folder, prefix="train", images=GRAY, labels=LABELS, mark="-", end=""):
    folder.mkdir(exist_ok=True)
    pack = gzip.compress if end else bytes
    (folder / f"{prefix}-images{mark}idx3-ubyte{end}").write_bytes(pack(idx(images)))
    (folder / f"{prefix}-labels{mark}idx1-ubyte{end}").write_bytes(pack(idx(labels.astype(np.uint8))))


# --- IDX -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_folder(tmp_path, mark, end):
    write_idx(tmp_path / "raw", "t10k", mark=mark, end=end)
    write_idx(tmp_path / "raw", "train", GRAY[::-1], LABELS[::-1], mark, end)
    for path in (tmp_path, tmp_path / "raw"):
        test, train = load(path, "test"), load(path)
        np.testing.assert_array_equal(np.rint((test.images[..., 0] + 1) * 127.5), GRAY)
        np.testing.assert_array_equal(test.images[::-1], train.images)
        assert test.labels.tolist() == LABELS.tolist() and test.class_names == ("0", "1", "2", "3")
    one = load(tmp_path / "raw" / f"t10k-images{mark}idx3-ubyte{end}", "test")
    np.testing.assert_array_equal(one.images, test.images)


def test_idx_splits_and_labels_must_be_there(tmp_path, refused):
    write_idx(tmp_path)
    with refused("split", "'test'", "['train']", tmp_path):
        load(tmp_path, "test")
    with refused("split", "'test'", "'train'"):
        load(tmp_path / "train-images-idx3-ubyte", "test")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with refused("train-images-idx3-ubyte", "no labels file"):
        load(tmp_path / "train-images-idx3-ubyte")
    with refused("train-labels-idx1-ubyte"):
        load(tmp_path / "train-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (idx(GRAY)[:-1], ("149 bytes", "150", "(6, 5, 5)")),
        (idx(GRAY) + b"x", ("more than 150", "must be 150")),
        (gzip.compress(idx(GRAY))[:-20], ("cannot be read",)),
        (gzip.compress(idx(GRAY))[:-8] + b"checksum", ("cannot be read", "CRC")),
        (gzip.compress(idx(GRAY) + bytes(10**6)), ("more than 150",)),
        (idx(GRAY, code=13), ("'00000d03'", "'00000803'")),
        (idx(LABELS.astype(np.uint8)), ("'00000801'", "'00000803'")),
        (b"", ("an empty file", "IDX")),
        (idx(GRAY)[:9], ("header",)),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, ("4294967295", "at most")),
    ],
    ids=["short", "long", "cut gz", "broken gz", "gz bomb", "floats", "labels", "empty", "cut header", "huge"],
)
def test_bad_idx(tmp_path, content, fragments, refused):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with refused(path, *fragments):
        read_idx(path, 3)


def test_idx_counts_must_agree(tmp_path, refused):
    write_idx(tmp_path, labels=LABELS[:-1])
    with refused("labels of shape (5,)", "(6,)"):
        load(tmp_path)
    write_idx(tmp_path, images=GRAY[:0], labels=LABELS[:0])
    with refused("images of shape (0, 5, 5, 1)", "at least one"):
        load(tmp_path)


# --- npz -------------------------------------------------------------------------------------------------------------

PLANAR = COLOUR.transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("arrays", "split"),
    [
        ({"x_train": COLOUR, "y_train": LABELS, "x_test": COLOUR[:1], "y_test": LABELS[:1]}, "train"),
        ({"x_test": COLOUR, "y_test": LABELS[:, None], "x_train": COLOUR[:1], "y_train": LABELS[:1]}, "test"),
        ({"val_images": COLOUR, "val_labels": LABELS[:, None].astype(np.uint8)}, "val"),
        ({"images": PLANAR, "labels": LABELS}, "train"),
        ({"images": COLOUR, "labels": LABELS.astype(np.int32)}, "train"),
        ({"samples": COLOUR, "labels": LABELS}, "train"),
        ({"arr_0": COLOUR, "arr_1": LABELS}, "train"),
        ({"data": PLANAR.reshape(6, -1), "labels": LABELS + 1, "mean": np.zeros(48)}, "train"),
        ({"data": PLANAR.reshape(6, -1), "labels": (LABELS + 1).astype(np.uint8)}, "train"),
        ({"images": COLOUR.astype(np.int64), "labels": LABELS}, "train"),
    ],
    ids=["keras", "keras test", "medmnist", "nchw", "nhwc", "samples", "adm", "imagenet", "imagenet uint8", "int64"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_layouts(tmp_path, arrays, split, save):
    save(tmp_path / "x.npz", **arrays)
    found = read_npz(tmp_path / "x.npz", split)
    assert found.images.dtype == np.uint8 and found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.images, COLOUR)
    np.testing.assert_array_equal(found.labels, LABELS)


def test_npz_gray_and_unlabelled(tmp_path):
    np.savez(tmp_path / "x.npz", GRAY)
    found = load(tmp_path / "x.npz", pixel_range=(0.0, 1.0))
    np.testing.assert_array_equal(found.images[..., 0], GRAY.astype(np.float32) / 255)
    assert found.class_names == ("unlabelled",) and found.labels.tolist() == [0] * 6


def test_write_npz_round_trip(tmp_path):
    names = ("T-shirt/top", "b", "ü", "d")
    write_npz(tmp_path / "x.npz", COLOUR, LABELS, names)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], COLOUR)
        assert set(arrays) == {"images", "labels", "class_names"}
    assert load(tmp_path / "x.npz").class_names == names
    first = load(tmp_path / "x.npz")
    write_npz(tmp_path / "y.npz", first.images, first.labels, first.class_names)
    again = load(tmp_path / "y.npz")
    np.testing.assert_allclose(again.images, first.images, rtol=0, atol=1.2e-7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz", "y.npz"]


def test_write_npz_refuses(tmp_path, refused):
    with refused("label 3 of image 0", "0 to 2"):
        write_npz(tmp_path / "x.npz", COLOUR, LABELS, ["a", "b", "c"])
    with refused("absent", "folder that exists"):
        write_npz(tmp_path / "absent" / "x.npz", COLOUR, LABELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arrays", "fragments"),
    [
        ({"images": COLOUR, "labels": LABELS[:5]}, ("labels of shape (5,)", "(6,)")),
        ({"images": COLOUR, "labels": LABELS - 1}, ("label -1 of image 1", "0 to")),
        ({"images": COLOUR, "labels": LABELS + 10**6}, ("label 1000003 of image 0", "99999")),
        ({"images": COLOUR, "labels": LABELS.astype(float)}, ("labels of dtype float64", "integers")),
        ({"images": COLOUR, "labels": np.eye(6, dtype=int)}, ("labels of shape (6, 6)",)),
        ({"images": COLOUR, "labels": LABELS, "class_names": np.asarray(["a", "b"])}, ("label 3 of image 0", "0 to 1")),
        ({"images": COLOUR, "labels": LABELS, "class_names": np.arange(4)}, ("class_names", "strings")),
        ({"data": PLANAR.reshape(6, -1), "labels": LABELS}, ("label 0", "1 or more")),
        ({"data": np.zeros((6, 47), np.uint8)}, ("data of shape (6, 47)",)),
        ({"images": np.zeros((2, 3, 5, 3), np.uint8)}, ("(2, 3, 5, 3)", "two axes")),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, ("(2, 4, 4, 4)", "no axis")),
        ({"images": np.zeros((2, 16), np.uint8)}, ("(2, 16)",)),
        ({"images": np.zeros((2, 0, 4, 1), np.uint8)}, ("(2, 0, 4, 1)", "at least one")),
        ({"images": COLOUR.astype(np.int16) + 1}, ("256", "0 to 255")),
        ({"images": COLOUR > 5}, ("dtype bool",)),
        ({"images": np.where(COLOUR == COLOUR[4, 0, 0, 0], np.nan, COLOUR / 255.0)}, ("x.npz", "NaN")),
        ({"images": COLOUR / 100.0}, ("values of", "value_range")),
        ({"images": COLOUR, "samples": COLOUR}, ("keys", "exactly one")),
        ({"images": COLOUR, "x_train": COLOUR}, ("keys", "exactly one")),
        ({"pictures": COLOUR}, ("keys ['pictures']", "images/labels")),
        ({"x_test": COLOUR, "y_test": LABELS}, ("split", "'train'", "['test']")),
    ],
)
def test_bad_npz(tmp_path, arrays, fragments, refused):
    np.savez(tmp_path / "x.npz", **arrays)
    with refused(*fragments):
        load(tmp_path / "x.npz")


def test_nan_is_named_by_image(tmp_path, refused):
    images = COLOUR / 255.0
    images[4, 0, 0, 0] = np.inf
    np.savez(tmp_path / "x.npz", images=images)
    with refused("x.npz", "image 4", "finite"):
        load(tmp_path / "x.npz")


def test_npz_without_splits_has_only_train(tmp_path, refused):
    np.savez(tmp_path / "x.npz", images=COLOUR)
    with refused("split", "'test'", "'train'"):
        load(tmp_path / "x.npz", "test")


class Trap:
    """Sets a flag when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def test_pickles_in_npz_are_not_run(tmp_path, refused):
    trap = np.empty(1, dtype=object)
    trap[0] = Trap()
    np.savez(tmp_path / "x.npz", images=COLOUR, labels=trap)
    with refused("labels", "pickled", "could run code"):
        load(tmp_path / "x.npz")
    assert not Trap.sprung
    with np.load(tmp_path / "x.npz", allow_pickle=True) as arrays:
        assert len(arrays["labels"]) == 1
    assert Trap.sprung, "the trap itself must work, or this test shows nothing"


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty", "huge"])
def test_damaged_npz(tmp_path, damage, refused):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=np.tile(COLOUR, (20, 1, 1, 1)))
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        middle = len(content) // 2
        content[middle : middle + 8] = bytes(255 - byte for byte in content[middle : middle + 8])
    elif damage == "text":
        content = b"images"
    elif damage == "empty":
        content = b""
    else:
        header = io.BytesIO()
        declared = {"descr": "|u1", "fortran_order": False, "shape": (2**30, 2**10, 3, 1)}
        np.lib.format.write_array_header_1_0(header, declared)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", header.getvalue())
        content = path.read_bytes()
    path.write_bytes(content)
    with refused(path, "at most" if damage == "huge" else "cannot be read"):
        load(path)


@pytest.mark.parametrize("name", ["label", "y", "train_labels_fine"])
def test_labels_of_another_name_are_not_passed_over(tmp_path, name, refused):
    np.savez(tmp_path / "a.npz", images=COLOUR, **{name: LABELS})
    with refused(f"has {name!r} beside 'images'", "read from 'labels'"):
        load(tmp_path / "a.npz")
