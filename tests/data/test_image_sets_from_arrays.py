"""Image sets of what is in memory, and of npy files."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgu.core.errors import InputError
from dgu.data import ImageSet, load
from dgu.data.named import NAMED_SETS

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SCALED = BYTES.astype(np.float32) / 127.5 - 1


def same(found, pixels=SCALED, labels=LABELS, names=("0", "1", "2")):
    np.testing.assert_allclose(found.images, pixels, atol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.class_names == names and found.images.dtype == np.float32 and found.labels.dtype == np.int32


def test_arrays_in_any_layout_are_the_set_that_a_file_would_be(tmp_path):
    same(ImageSet.from_arrays(BYTES, LABELS))
    same(ImageSet.from_arrays(BYTES.transpose(0, 3, 1, 2), LABELS))
    same(ImageSet.from_arrays(jnp.asarray(SCALED), LABELS))
    same(ImageSet.from_arrays(BYTES / 255, LABELS.tolist()))
    named = ImageSet.from_arrays(BYTES, LABELS, class_names=["a", "b", "c"], pixel_range=(0, 1))
    same(named, BYTES.astype(np.float32) / 255, names=("a", "b", "c"))
    square = BYTES[:, :3, :3]  # Both axes have three entries: the layout has to be told.
    same(ImageSet.from_arrays(square.transpose(0, 3, 1, 2), LABELS, channels_first=True), SCALED[:, :3, :3])
    same(ImageSet.from_arrays(square, LABELS, channels_first=False), SCALED[:, :3, :3])
    np.savez(tmp_path / "set.npz", images=BYTES, labels=LABELS)
    assert ImageSet.from_arrays(BYTES, LABELS).sha256 == load(tmp_path / "set.npz").sha256
    np.save(tmp_path / "set.npy", BYTES)
    same(load(tmp_path / "set.npy"), labels=0 * LABELS, names=("unlabelled",))


def test_latents_and_vectors_are_kept_as_they_are(tmp_path):
    latents = (30 * RNG.normal(size=(6, 8, 8, 4))).astype(np.float32)
    for found in (ImageSet.from_arrays(latents, LABELS), ImageSet.from_arrays(latents.transpose(0, 3, 1, 2), LABELS)):
        np.testing.assert_array_equal(found.images, latents)
        assert found.pixel_range == (float(latents.min()), float(latents.max()))
    np.save(tmp_path / "latents.npy", latents)
    np.testing.assert_array_equal(load(tmp_path / "latents.npy").images, latents)
    vectors = RNG.normal(size=(6, 5)) * 7
    found = ImageSet.from_arrays(vectors, LABELS)
    np.testing.assert_array_equal(found.images, vectors.astype(np.float32))
    np.testing.assert_array_equal(found.labels, LABELS)


class Rows:
    """A data set of PyTorch's or torchvision's form: items with a length."""

    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


class HuggingFace:
    """A data set of the ``datasets`` package's form: columns with types."""

    def __init__(self, **columns):
        self.columns = {name: values for name, (_, values) in columns.items()}
        self.features = {name: kind for name, (kind, _) in columns.items()}
        self.column_names = list(columns)

    def __getitem__(self, name):
        return self.columns[name]


def kind(name, **attributes):
    return type(name, (SimpleNamespace,), {})(**attributes)


def test_data_sets_of_others_are_told_by_what_they_can_do():
    pictures = [Image.fromarray(image) for image in BYTES]
    torchvision = Rows(list(zip(pictures, LABELS.tolist(), strict=True)), classes=["cat", "dog", "owl"])
    same(ImageSet.from_arrays(torchvision), names=("cat", "dog", "owl"))
    same(ImageSet.from_arrays(Rows(list(BYTES))), labels=0 * LABELS, names=("unlabelled",))
    hugging = HuggingFace(
        id=(kind("Value"), list("abcdef")),
        picture=(kind("Image"), pictures),
        animal=(kind("ClassLabel", names=["cat", "dog", "owl"]), LABELS.tolist()),
    )
    same(ImageSet.from_arrays(hugging), names=("cat", "dog", "owl"))
    plain = HuggingFace(img=(kind("Array3D"), BYTES.tolist()), label=(kind("Value"), LABELS.tolist()))
    same(ImageSet.from_arrays(plain))


def test_tensors_of_pytorch_have_their_channels_first():
    torch = pytest.importorskip("torch")
    square = BYTES[:, :3, :3]
    items = [
        (torch.tensor(image.transpose(2, 0, 1) / 255), int(label)) for image, label in zip(square, LABELS, strict=True)
    ]
    same(ImageSet.from_arrays(Rows(items)), SCALED[:, :3, :3])
    same(ImageSet.from_arrays(torch.tensor(BYTES), LABELS))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ImageSet.from_arrays(np.array([["a", "b"]])), "images: has dtype <U1; must be numbers"),
        (lambda: ImageSet.from_arrays(BYTES, LABELS[:3]), r"images: labels of shape \(3,\); must be \(6,\)"),
        (
            lambda: ImageSet.from_arrays(BYTES, value_range=(0, 1)),
            "value_range = .0, 1.: must be None: images holds bytes",
        ),
        (
            lambda: ImageSet.from_arrays(BYTES[:, :3, :3]),
            r"images of shape \(6, 3, 3, 3\): two axes may be the channels",
        ),
        (lambda: ImageSet.from_arrays(np.full((2, 8, 8, 4), np.nan)), "images = .* not finite"),
        (lambda: ImageSet.from_arrays(np.zeros((2, 3)), value_range=(0, 1)), "value_range = .*: must be left out"),
        (lambda: ImageSet.from_arrays(np.zeros((2, 8, 8, 4), np.uint8)), "no axis of 1 or 3 channels"),
        (lambda: ImageSet.from_arrays(np.zeros((2, 8, 8, 5))), "no axis of 1 or 3 channels"),
        (lambda: ImageSet.from_arrays(3), "images = int: must be an array, or a data set of Hugging Face"),
        (lambda: ImageSet.from_arrays(Rows([])), "images = Rows: holds no items"),
        (
            lambda: ImageSet.from_arrays(Rows([BYTES[0], BYTES[0, :2]])),
            "images: images of shapes .*; must all have one",
        ),
        (
            lambda: ImageSet.from_arrays(Rows(list(BYTES)), LABELS),
            "labels = 'given beside a data set': must be left out",
        ),
        (
            lambda: ImageSet.from_arrays(HuggingFace(text=(kind("Value"), ["a"]))),
            r"images: columns \['text'\]; must have one of images, such as 'image'",
        ),
    ],
)
def test_what_is_no_set_of_images_is_refused_in_one_line(make, line):
    with pytest.raises(InputError, match=line):
        make()


def test_damaged_npy_files_are_refused_in_one_line(tmp_path):
    np.save(tmp_path / "whole.npy", BYTES)
    content = (tmp_path / "whole.npy").read_bytes()
    for name, damaged in (("cut.npy", content[:-5]), ("other.npy", b"PK" + content), ("empty.npy", b"")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            load(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects\.npy.*could run code"):
        load(tmp_path / "objects.npy")
    with pytest.raises(InputError, match=r"split = 'test'"):
        load(tmp_path / "whole.npy", "test")


def test_the_remedy_for_a_missing_set_names_other_systems_too():
    for name in ("fashion-mnist", "mnist"):
        assert "torchvision" in NAMED_SETS[name].fetch and "DGU_DATA=folder" in NAMED_SETS[name].fetch
