"""Image folders and EDM's zip, written here by Pillow and zipfile, and every way in which they can be wrong."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from dgu.data import load, write_edm_zip
from dgu.data.folders import read_edm, read_image_folder

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)
LABELS = np.asarray([3, 0, 1, 1, 2, 0])


def png(pixels, form="PNG", mode=None):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    (image if mode is None else image.convert(mode)).save(buffer, form)
    return buffer.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def edm_members(images=COLOUR, labels=LABELS):
    names = [f"00000/img{number:08d}.png" for number in range(len(images))]
    entries = None if labels is None else [[name, int(label)] for name, label in zip(names, labels)]
    # Stored in reverse: the order must come from the names.
    members = {name: png(pixels) for name, pixels in zip(names[::-1], images[::-1])}
    return {**members, "dataset.json": json.dumps({"labels": entries})}


# --- folders of classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [GRAY, COLOUR], ids=["gray", "colour"])
def test_image_folder(tmp_path, images):
    """Classes are the sorted folder names; deeper folders, other endings and files that are not images are allowed."""
    put(tmp_path / "zebra" / "1.png", png(images[0]))
    put(tmp_path / "ant" / "b.png", png(images[1]))
    put(tmp_path / "ant" / "a.bmp", png(images[2], "BMP"))
    put(tmp_path / "bee" / "deep" / "x.PNG", png(images[3]))
    put(tmp_path / "bee" / "notes.txt", b"no image")
    put(tmp_path / "bee" / ".hidden.png", b"no image")
    put(tmp_path / "README.md", b"no image")
    found = load(tmp_path, pixel_range=(0.0, 1.0))
    assert found.class_names == ("ant", "bee", "zebra") and found.labels.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(found.images, images[[2, 1, 3, 0]].astype(np.float32) / 255)


def test_image_folder_with_splits(tmp_path, refused):
    put(tmp_path / "train" / "a" / "1.png", png(COLOUR[0]))
    put(tmp_path / "test" / "a" / "1.png", png(COLOUR[1]))
    put(tmp_path / "test" / "b" / "2.png", png(COLOUR[2]))
    np.testing.assert_array_equal(read_image_folder(tmp_path).images, COLOUR[:1])
    found = read_image_folder(tmp_path, "test")
    np.testing.assert_array_equal(found.images, COLOUR[1:3])
    assert found.class_names == ("a", "b")
    with refused("split", "'val'", "['train', 'test']"):
        load(tmp_path, "val")


def test_folder_without_classes_is_unlabelled(tmp_path):
    for number in range(3):
        put(tmp_path / f"{number}.png", png(GRAY[number]))
    found = load(tmp_path)
    assert found.class_names == ("unlabelled",) and found.labels.tolist() == [0, 0, 0]


def jpeg_noise(tmp_path):
    put(tmp_path / "a" / "1.jpg", png(np.full((8, 8, 3), 100, np.uint8), "JPEG"))
    put(tmp_path / "a" / "2.jpg", png(np.full((8, 8, 3), 200, np.uint8), "JPEG"))


def test_jpeg(tmp_path):
    jpeg_noise(tmp_path)
    np.testing.assert_allclose(read_image_folder(tmp_path).images[:, 0, 0, 0].astype(int), [100, 200], atol=2)


BAD_FOLDERS = {
    "mixed sizes": ({"a/1.png": png(GRAY[0]), "a/2.png": png(GRAY[1][:4])}, ("a/2.png", "(4, 8, 1)", "(8, 8, 1)")),
    "mixed modes": ({"a/1.png": png(GRAY[0]), "b/2.png": png(COLOUR[1])}, ("b/2.png", "(8, 8, 3)", "a/1.png")),
    "palette": ({"a/1.png": png(COLOUR[0], mode="P")}, ("a/1.png", "mode P", "RGB")),
    "transparency": ({"a/1.png": png(COLOUR[0], mode="RGBA")}, ("a/1.png", "mode RGBA")),
    "cut": ({"a/1.png": png(COLOUR[0])[:90]}, ("a/1.png", "holds too few bytes")),
    "no image": ({"a/1.png": b"hello"}, ("a/1.png", "cannot be read")),
    "wrong ending": ({"a/1.png": png(COLOUR[0], "JPEG")}, ("a/1.png", "cannot be read")),
    "empty file": ({"a/1.png": b""}, ("a/1.png", "cannot be read")),
    "empty class": ({"a/1.png": png(COLOUR[0]), "b/readme.txt": b""}, ("/b", "holds no images")),
    "loose image": ({"a/1.png": png(COLOUR[0]), "2.png": png(COLOUR[0])}, ("2.png", "beside class folders")),
    "no images": ({"a/readme.txt": b""}, ("holds no images", ".png")),
    "nothing": ({}, ("holds no images",)),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(tmp_path, case, refused):
    files, fragments = BAD_FOLDERS[case]
    for name, content in files.items():
        put(tmp_path / name, content)
    with refused(tmp_path, *fragments):
        load(tmp_path)


def test_folder_without_splits_has_only_train(tmp_path, refused):
    put(tmp_path / "a" / "1.png", png(COLOUR[0]))
    with refused("split", "'test'", "'train'"):
        load(tmp_path, "test")


# --- EDM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [GRAY, COLOUR], ids=["gray", "colour"])
def test_edm_zip_and_folder(tmp_path, images):
    members = edm_members(images)
    make_zip(tmp_path / "x.zip", members)
    for name, content in members.items():
        put(tmp_path / "x" / name, content if isinstance(content, bytes) else content.encode())
    for path in (tmp_path / "x.zip", tmp_path / "x"):
        found = load(path, pixel_range=(0.0, 1.0))
        np.testing.assert_array_equal(found.images, images.astype(np.float32) / 255)
        assert found.labels.tolist() == LABELS.tolist() and found.class_names == ("0", "1", "2", "3")
        with pytest.raises(ValueError, match=r"split = 'test': must be 'train'"):
            load(path, "test")


def test_edm_without_labels(tmp_path):
    found = read_edm(make_zip(tmp_path / "x.zip", edm_members(labels=None)))
    assert found.class_names == ("unlabelled",) and found.labels.tolist() == [0] * 6


@pytest.mark.parametrize("images", [GRAY, COLOUR], ids=["gray", "colour"])
def test_write_edm_zip(tmp_path, images):
    """What an independent reader finds: stored PNGs under EDM's names, labels by name; the same bytes every time."""
    write_edm_zip(tmp_path / "x.zip", images, LABELS)
    write_edm_zip(tmp_path / "y.zip", images, LABELS)
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "y.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert labels == [[f"00000/img{number:08d}.png", int(label)] for number, label in enumerate(LABELS)]
        for (name, _), pixels in zip(labels, images):
            with Image.open(io.BytesIO(archive.read(name))) as image:
                np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    found = read_edm(tmp_path / "x.zip")
    np.testing.assert_array_equal(found.images, images)
    write_edm_zip(tmp_path / "z.zip", images)
    assert read_edm(tmp_path / "z.zip").class_names == ("unlabelled",)


def test_write_edm_zip_refuses(tmp_path, refused):
    with refused("label -1 of image 2"):
        write_edm_zip(tmp_path / "x.zip", COLOUR, np.asarray([0, 1, -1, 0, 0, 0]))
    with refused("(6, 8, 8, 2)", "no axis of 1 or 3 channels"):
        write_edm_zip(tmp_path / "x.zip", COLOUR[..., :2])
    assert not list(tmp_path.iterdir())


def relabelled(labels):
    return {**edm_members(), "dataset.json": json.dumps({"labels": labels})}


FIRST = "00000/img00000000.png"
ENTRIES = json.loads(edm_members()["dataset.json"])["labels"]
BAD_ZIPS = {
    "no json": ({FIRST: png(COLOUR[0])}, ("dataset.json", "must hold")),
    "not json": ({**edm_members(), "dataset.json": "{"}, ("dataset.json", "must be JSON")),
    "no labels key": ({**edm_members(), "dataset.json": "{}"}, ("dataset.json", "'labels'")),
    "list": ({**edm_members(), "dataset.json": "[]"}, ("dataset.json", "'labels'")),
    "no images": ({"dataset.json": '{"labels": null}'}, ("holds no images",)),
    "label missing": (relabelled(ENTRIES[1:]), (FIRST, "without a label")),
    "image missing": (relabelled([*ENTRIES, ["00000/zzz.png", 1]]), ("zzz.png", "is no image")),
    "vector label": (relabelled([[FIRST, [0.0, 1.0]], *ENTRIES[1:]]), ("dataset.json", "[file, integer]")),
    "float label": (relabelled([[FIRST, 1.5], *ENTRIES[1:]]), ("dataset.json", "1.5", "[file, integer]")),
    "bool label": (relabelled([[FIRST, True], *ENTRIES[1:]]), ("dataset.json", "[file, integer]")),
    "labels a string": (relabelled("abc"), ("dataset.json", "abc", "[file, integer]")),
    "negative label": (relabelled([[FIRST, -1], *ENTRIES[1:]]), (FIRST, "label -1", "must be from 0 to")),
    "huge label": (relabelled([[FIRST, 10**30], *ENTRIES[1:]]), (FIRST, "label 1000", "must be from 0 to")),
    "large label": (relabelled([[FIRST, 100_000], *ENTRIES[1:]]), ("label 100000 of image 0", "99999")),
    "upward": ({**edm_members(), "../evil.png": png(COLOUR[0])}, ("'../evil.png'", "relative path")),
    "absolute": ({**edm_members(), "/evil.png": png(COLOUR[0])}, ("'/evil.png'", "relative path")),
    "mixed sizes": ({**edm_members(), FIRST: png(COLOUR[0][:4])}, ("(8, 8, 3)", "(4, 8, 3)")),
    "cut image": ({**edm_members(), FIRST: png(COLOUR[0])[:99]}, (FIRST, "holds too few bytes")),
}


@pytest.mark.parametrize("case", BAD_ZIPS)
def test_bad_zips(tmp_path, case, refused):
    members, fragments = BAD_ZIPS[case]
    make_zip(tmp_path / "x.zip", members)
    with refused(tmp_path / "x.zip", *fragments):
        load(tmp_path / "x.zip")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.zip"] and not (tmp_path.parent / "evil.png").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "flip"])
def test_damaged_zips(tmp_path, damage, refused):
    path = make_zip(tmp_path / "x.zip", edm_members())
    content = bytearray(path.read_bytes())
    content[200:208] = bytes(255 - byte for byte in content[200:208])
    path.write_bytes({"cut": content[:-40], "empty": b"", "flip": content}[damage])
    with refused(path, "cannot be read"):
        load(path)


def test_images_and_members_are_bounded(tmp_path, refused, monkeypatch):
    """A PNG that declares a huge size, and a member larger than any image, are refused before they are decoded."""
    monkeypatch.setattr("dgu.data.image_files.MAX_PIXELS", 63)
    make_zip(tmp_path / "x.zip", edm_members())
    with refused(FIRST, "8x8", "at most 63 pixels"):
        load(tmp_path / "x.zip")
    monkeypatch.setattr("dgu.data.folders.MAX_FILE", 1000)
    make_zip(tmp_path / "y.zip", {**edm_members(), FIRST: png(COLOUR[0]) + bytes(2000)})
    with refused(FIRST, "at most 1000 bytes"):
        load(tmp_path / "y.zip")
    monkeypatch.setattr("dgu.data.image_files.MAX_PIXELS", 64)
    with refused("6 images of (8, 8, 3)", "4,608 bytes as float32", "at most 4,607", "DGU_MAX_GIB"):
        load(tmp_path / "x.zip", max_bytes=4 * 6 * 8 * 8 * 3 - 1)
    load(tmp_path / "x.zip", max_bytes=4 * 6 * 8 * 8 * 3)


def test_edm_name_of_a_folder_that_is_not_there(tmp_path, refused):
    with refused("name_or_path", "cifar10-32x32.zip", "exists"):
        load(tmp_path / "cifar10-32x32.zip")


def test_what_a_zip_or_its_labels_hold_twice_is_refused(tmp_path, refused):
    members = edm_members()
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name, content in [*members.items(), (FIRST, png(COLOUR[1]))]:
            archive.writestr(name, content)
    with refused("holds 00000/img00000000.png twice"):
        load(tmp_path / "twice.zip")
    with refused("dataset.json", "has 00000/img00000000.png twice"):
        load(make_zip(tmp_path / "a.zip", relabelled([*ENTRIES, [FIRST, 0]])))
    text = '{"labels": null, ' + members["dataset.json"][1:]
    with refused("dataset.json", "'labels' twice"):
        load(make_zip(tmp_path / "b.zip", {**members, "dataset.json": text}))


def test_a_folder_train_beside_one_that_is_no_split_is_refused(tmp_path, refused):
    for name in ("train", "other"):
        put(tmp_path / name / "a.png", png(COLOUR[0]))
    with refused("has a folder train and a folder other"):
        load(tmp_path)


@pytest.mark.parametrize("option", [{"size": 2.5}, {"size": True}, {"max_size": 2.5}, {"max_size": "3"}])
def test_sizes_are_whole_numbers(tmp_path, option, refused, unchecked):
    put(tmp_path / "a.png", png(COLOUR[0]))
    with refused("a whole number, 1 or more"):
        load(tmp_path, **option)


@pytest.mark.parametrize("name", ["", 123, None])
def test_what_names_nothing_is_refused(name, refused, unchecked):
    with refused(f"name_or_path = {name!r}"):
        load(name)
