"""The command that measures features: its numbers are the library's, FID is said of declared Inception features
only.
"""

import json
import os

import numpy as np
import pytest

from dgu.analysis import FeatureMoments, frechet_distance, write_statistics
from experiments.metrics import main
from tests.experiments.commands import exit_code


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 6)), 0.8 * rng.standard_normal((260, 6)) + 0.2
    np.save(tmp_path / "a.npy", a.astype(np.float32))
    np.save(tmp_path / "b.npy", b.astype(np.float32))
    write_statistics(tmp_path / "b.npz", FeatureMoments.from_features(b.astype(np.float32)))
    return tmp_path, a.astype(np.float32), b.astype(np.float32)


def measure(folder, *arguments):
    assert exit_code(main, ["--out", folder / "out.json", *arguments]) == 0
    return json.loads((folder / "out.json").read_text())


def test_rows_and_moments_give_the_librarys_distance(files, capsys):
    folder, a, b = files
    expected = frechet_distance(FeatureMoments.from_features(a), FeatureMoments.from_features(b))
    rows = measure(folder, "--features", folder / "a.npy", "--reference", folder / "b.npy", "--block-size", 60)
    moments = measure(folder, "--features", folder / "a.npy", "--reference", folder / "b.npz")
    np.testing.assert_allclose([r["frechet_distance"] for r in (rows, moments)], expected, rtol=1e-9)
    assert rows["KID"]["low"] < rows["KID"]["value"] < rows["KID"]["high"] and "KID" not in moments
    assert rows["images"] == 300 and rows["width"] == 6
    printed = capsys.readouterr().out
    assert f"frechet_distance: {expected:.8g}" in printed and "KID: " in printed and "FID" not in printed
    rotated = measure(folder, "--features", folder / "a.npy", "--reference", folder / "b.npy", "--pca", 6)
    np.testing.assert_allclose(rotated["frechet_distance"], expected, rtol=1e-4)
    assert rotated["features"] == "6 principal components"


def test_more_images_give_a_seeded_subset_fewer_an_error(files, capsys):
    folder, _, _ = files
    asked = ("--features", folder / "a.npy", "--reference", folder / "b.npz", "--count")
    first, again, other = (measure(folder, *asked, 200, "--seed", seed) for seed in (0, 0, 1))
    assert first == again != other and first["images"] == 200
    assert exit_code(main, [*asked, 301]) == 2
    assert "count = 301: must be at most the number of rows, 300" in capsys.readouterr().err


def test_fid_is_said_of_declared_inception_features_only(files, tmp_path, capsys):
    folder, _, _ = files
    rng = np.random.default_rng(1)
    pool = rng.standard_normal((12, 2048)).astype(np.float32)
    np.save(tmp_path / "pool.npy", pool)
    np.save(tmp_path / "other.npy", pool[::-1] + 1)
    asked = ("--features", tmp_path / "pool.npy", "--reference", tmp_path / "other.npy")
    declared = measure(tmp_path, *asked, "--inception", "--save-reference", tmp_path / "saved.npz")
    np.testing.assert_allclose(declared["FID"], 2048, rtol=1e-5)
    assert declared["features"] == "Inception"
    undeclared = measure(tmp_path, *asked)
    assert "FID" not in undeclared and undeclared["frechet_distance"] == declared["FID"]
    with np.load(tmp_path / "saved.npz") as saved:
        assert saved["sigma"].shape == (2048, 2048)
    capsys.readouterr()
    assert exit_code(main, ["--features", folder / "a.npy", "--reference", folder / "b.npz", "--inception"]) == 2
    assert "inception = 'features 6 wide': must be 2048 wide" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a.npy", "none.npz"), "none.npz: cannot be read"),
        (("a.npy", "wide.npy"), "features.shape = (300, 6)"),
        (("a.npy", "b.npz", "--pca", "2"), "pca = 2: must be left out"),
        (("a.npy", "b.npy", "--pca", "7"), "components = 7"),
        (("b.npz", "b.npy"), "arrays = '2: mu, sigma'"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(files, capsys, arguments, text):
    folder, _, _ = files
    np.save(folder / "wide.npy", np.ones((4, 7)))
    features, reference, *rest = arguments
    out = folder / "nothing.json"
    options = ["--features", folder / features, "--reference", folder / reference, *rest, "--out", out]
    assert exit_code(main, options) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and text in error and not out.exists()


def refused(folder, capsys, *options, code=2):
    """The line with which the command ends; no file has changed."""
    asked = ["--features", str(folder / "a.npy"), "--reference", str(folder / "b.npy")]
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assert exit_code(main, [*asked, *options]) == code
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_outputs_replace_neither_inputs_nor_each_other_nor_what_is_no_file(files, capsys, monkeypatch):
    folder, _, _ = files
    monkeypatch.chdir(folder)
    (folder / "folder").mkdir()
    os.link(folder / "a.npy", folder / "hard.npy")
    (folder / "soft.npy").symlink_to("b.npy")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    same, wanted = "must be another file than that of", "must be a new name, or an ordinary file to be replaced"
    for options, text in (
        (("--out", folder / "b.npy"), f"{same} reference"),
        (("--out", "folder/../a.npy"), f"{same} features"),
        (("--out", "hard.npy"), f"{same} features"),
        (("--out", "soft.npy"), f"{same} reference"),
        (("--save-reference", "b.npy"), f"{same} reference"),
        (("--out", "new", "--save-reference", "folder/../new"), f"{same} out"),
        (("--out", "."), f"{wanted} (it names no file)"),
        (("--out", "folder"), f"{wanted} (it is a folder)"),
        (("--out", "pipe"), f"{wanted} (it is a named pipe)"),
        (("--out", "dangling"), f"{wanted} (it is a link to nothing)"),
        (("--out", "a" * 5000), f"{wanted} (File name too long)"),
    ):
        line = refused(folder, capsys, *options)
        assert (text in line and "out = " in line) or "save_reference = " in line


def test_the_option_that_is_wrong_is_named_beside_those_that_must_be_given(files, capsys):
    assert refused(files[0], capsys, "--seed", "9" * 5000).startswith("metrics: --seed = '999")
    assert refused(files[0], capsys, "--pca", "x").startswith("metrics: --pca = 'x': must be a whole number")


@pytest.mark.parametrize(
    ("scale", "code", "text"), [(1e200, 2, "leave the range of float64"), (1e60, 1, "is not finite")]
)
def test_results_that_are_not_finite_are_one_line(files, capsys, scale, code, text):
    folder, a, _ = files
    np.save(folder / "a.npy", a.astype(np.float64) * scale)
    assert text in refused(folder, capsys, "--block-size", 50, code=code)
