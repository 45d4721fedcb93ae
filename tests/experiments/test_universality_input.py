"""Bad input to the study: one line with the option, its value and what is allowed, code 2, and nothing done."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dgu import data
from dgu.data.splits import SplitSizes
from experiments.universality import STUDY
from tests.experiments.universality_study import (
    CLASSES,
    ROOT,
    TINY,
    contents,
    environment,
    images,
    save_images,
    save_tiny_network,
    study,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good and bad files, by name."""
    home = tmp_path_factory.mktemp("input")
    pixels, labels = images(24)
    save_images(home / "good.npz", pixels, labels, class_names=np.asarray(CLASSES))
    save_images(home / "few.npz", *images(21))
    save_images(home / "nan.npz", np.where(np.arange(len(pixels))[:, None, None, None] == 7, np.nan, pixels), labels)
    save_images(home / "range.npz", 3 * pixels, labels)
    save_images(home / "negative.npz", pixels, labels - 1)
    save_images(home / "short.npz", pixels, labels[:-1])
    save_images(home / "floats.npz", pixels, labels + 0.5)
    save_images(home / "beyond.npz", pixels, labels, class_names=np.asarray(CLASSES[:3]))
    save_images(home / "copies.npz", np.concatenate([pixels[:1], pixels[:1], pixels[2:]]), labels)
    np.savez(home / "unlabelled.npz", images=pixels)
    (home / "text.npz").write_text("not an archive")
    for number, name in enumerate(("a", "b")):
        (home / "mixed" / name).mkdir(parents=True)
        for side in (6, 6 + number):
            Image.fromarray(np.full((side, side), 30 * side, np.uint8)).save(home / "mixed" / name / f"{side}.png")

    save_tiny_network(home / "network.npz")
    save_tiny_network(home / "unconditional.npz", label_dim=0)
    save_tiny_network(home / "wide.npz", model_channels=16)
    with np.load(home / "network.npz") as narrow, np.load(home / "wide.npz") as wide:
        np.savez(home / "another.npz", **{**dict(narrow), "metadata": wide["metadata"]})
        np.savez(home / "no-metadata.npz", **{name: narrow[name] for name in narrow.files if name != "metadata"})
    (home / "empty").mkdir()
    save_images(home / "twenty.npz", *images(20, seed=2), class_names=np.asarray(CLASSES))
    save_images(home / "wide-real.npz", *images(20, seed=2, side=7), class_names=np.asarray(CLASSES))
    features = np.random.default_rng(0).normal(size=(len(pixels), 5))
    np.save(home / "features.npy", features)
    np.save(home / "short.npy", features[:-1])
    np.save(home / "nan.npy", np.where(np.arange(len(pixels))[:, None] == 7, np.nan, features))
    np.save(home / "constant.npy", np.ones_like(features))
    return home


@pytest.fixture
def refused(folder, tmp_path, monkeypatch, capsys):
    """``refused("--options of the command")``: the line, after making sure that nothing was done or left."""

    def stop(*_, **__):
        raise AssertionError("work was begun with input that cannot be used")

    for module, name in (
        ("dgu.samplers", "sample"),
        ("experiments.train", "train"),
        ("experiments.universality.subject", "replicate"),
        ("experiments.universality.subject", "resampled"),
        ("experiments.universality.samples", "first_images"),
        ("experiments.universality.controls", "positive_control"),
        ("experiments.universality.controls", "negative_control"),
    ):
        monkeypatch.setattr(f"{module}.{name}", stop)
    monkeypatch.chdir(folder)
    before = contents(folder)

    def attempt(options, out=None):
        out = tmp_path / "out" if out is None else out
        existed, stored = out.exists(), contents(out) if out.is_dir() else {}
        with pytest.raises(SystemExit) as exit_:
            study(*TINY, *options.split(), "--out", out)
        captured = capsys.readouterr()
        assert exit_.value.code == 2
        assert captured.err.count("\n") == 1 and captured.err.startswith("universality: ")
        assert "Traceback" not in captured.out + captured.err
        assert out.exists() == existed and (contents(out) if out.is_dir() else {}) == stored
        assert contents(folder) == before
        return captured.err.removeprefix("universality: ").rstrip("\n")

    return attempt


NUMBERS = [
    ("--splits.test 0", "--splits.test = 0: must be at least 2"),
    ("--splits.fit -4", "--splits.fit = -4: must be at least 2"),
    ("--splits.train 1", "--splits.train = 1: must be at least 2"),
    ("--splits.validation 0", "--splits.validation = 0: must be at least 2"),
    ("--replicates 0", "--replicates = 0: must be 2 or more"),
    ("--replicates 1", "--replicates = 1: must be 2 or more"),
    ("--subsets 0", "--subsets = 0: must be 1 or more"),
    ("--pairs -1", "--pairs = -1: must be 1 or more"),
    ("--low-rank-fit 1", "--low-rank-fit = 1: must be 0, or from 2 to --splits.fit = 8"),
    ("--low-rank-fit 9", "--low-rank-fit = 9: must be 0, or from 2 to --splits.fit = 8"),
    ("--training-sizes 0 1", "--training-sizes = (0, 1): must be 1 or more"),
    ("--training-sizes 2 7", "--training-sizes = (2, 7): must be rising, one or more, at most --splits.train = 6"),
    ("--training-sizes 5 2", "--training-sizes = (5, 2): must be rising, one or more, at most --splits.train = 6"),
    ("--two-layer-size 7", "--two-layer-size = 7: must be one of --training-sizes (2, 5)"),
    ("--subset-sizes 2 2", "--subset-sizes = (2, 2): must be one or more different ones, each 2 or more"),
    ("--pools 2 --replicates 4", "--resampled-pools = 2: must be at least twice --pools = 2"),
    ("--draws 0", "--draws = 0: must be 1 or more"),
    ("--pools 0", "--pools = 0: must be 1 or more"),
    ("--pools 2", "--replicates = 2: must be a multiple of --pools = 2, two or more for each"),
    ("--resampled-pools 1", "--resampled-pools = 1: must be 2 or more"),
    ("--resampled-splits 1", "--resampled-splits = 1: must be 2 or more"),
    (
        "--losses hinge",
        "--losses = ('hinge',): must be one or more different ones of softmax_mse, logit_mse, cross_entr",
    ),
    ("--losses sigmoid_mse", "--losses = ('sigmoid_mse',): must be one or more different ones of softmax_mse"),
    ("--class-sets 0", "--class-sets = '0': must be two or more different classes with colons between them"),
    ("--class-sets 0:0", "--class-sets = '0:0': must be two or more different classes with colons between them"),
    ("--gram-panels 4", "--gram-panels = '4': must be classes (2 or more, or all) x images of each class"),
    ("--gram-panels 1x4", "--gram-panels = '1x4': must be classes (2 or more, or all) x images of each class"),
    ("--gram-panels allx23", "--gram-panels = 'allx23': must be classes (2 or more, or all) x images of each class"),
    ("--subset-sizes 1", "--subset-sizes = (1,): must be 2 or more"),
    ("--size 0", "--size = 0: must be 1 or more, or None"),
    ("--gaussian-test-factor 0", "--gaussian-test-factor = 0: must be 1 or more"),
    ("--margin 0", "--margin = 0.0: must be positive"),
    ("--pixel-range 1 0", "--pixel-range = (1.0, 0.0): must be rising"),
    ("--seed -1", "--seed = -1: must be 0 or more"),
    ("--recipe.epochs 0", "--recipe.epochs = 0: must be at least 1"),
    ("--recipe.learning-rates 0.1 0", "--recipe.learning-rates = (0.1, 0.0): must be one or more positive numbers"),
    ("--recipe.batch-size 0", "--recipe.batch-size = 0: must be at least 1"),
    ("--recipe.schedule linear", "--recipe.schedule = 'linear': must be one of constant, cosine, cosine_restarts"),
    ("--recipe.init ones", "--recipe.init = 'ones': must be one of zeros, torch"),
    ("--sampler.num-steps 1", "--sampler.num-steps = 1: must be 2 or more"),
    ("--sampler.num-steps 0", "--sampler.num-steps = 0: must be 2 or more"),
    ("--sampler.sigma-min 90", "--sampler.sigma-min = 90.0: must be below --sampler.sigma-max = 80"),
    ("--sampler.sigma-max 0.001", "--sampler.sigma-min = 0.002: must be below --sampler.sigma-max = 0.001"),
    ("--sampler.sigma-min 0", "--sampler.sigma-min = 0.0: must be positive"),
    ("--sampler.rho 0", "--sampler.rho = 0.0: must be positive and finite"),
    ("--sampler.churn -1", "--sampler.churn = -1.0: must be 0 or more"),
    ("--sampler.batch-size 0", "--sampler.batch-size = 0: must be 1 or more"),
    ("--training.batch-size 0", "--training.batch-size = 0: must be at least 1"),
    ("--train --samples good.npz", "--train = True: must be left out with --samples"),
    ("--classes one two", "--classes = 'one two': must be a list, separated by spaces, each a whole number or None"),
    ("--preset tiny", "--preset = 'tiny': must be one of smoke, default, paper"),
]


@pytest.mark.parametrize(("options", "line"), NUMBERS, ids=[options for options, _ in NUMBERS])
def test_options_out_of_range(refused, options, line):
    found = refused(options)
    assert found.startswith(line)


FILES = [
    ("--samples absent.npz", ["--samples = 'absent.npz'", "a file or folder that exists"]),
    ("--samples text.npz", ["--samples = 'text.npz'", "must be a whole npz file"]),
    ("--samples nan.npz", ["--samples = 'nan.npz'", "image 7 holds NaN", "must be finite"]),
    ("--samples range.npz", ["--samples = 'range.npz'", "must be clearly [0, 1], [-1, 1] or [0, 255]"]),
    ("--samples negative.npz", ["--samples = 'negative.npz'", "label -1 of image 0", "must be 0 to"]),
    ("--samples beyond.npz", ["--samples = 'beyond.npz'", "label 3 of image 72", "must be 0 to 2"]),
    ("--samples short.npz", ["--samples = 'short.npz'", "labels of shape (95,)", "must be (96,)"]),
    ("--samples floats.npz", ["--samples = 'floats.npz'", "must be integers"]),
    ("--samples mixed", ["--samples = 'mixed'", "7"]),
    ("--samples unlabelled.npz", ["--samples = 'unlabelled.npz'", "must be images with labels of two or more classes"]),
    ("--samples few.npz", ["--samples = 'few.npz'", "images of class 0 = 21", "must be at least 22 in each class"]),
    ("--samples good.npz --splits.fit 100", ["images of class north = 24", "must be at least 114 in each class"]),
    ("--samples copies.npz", ["samples", "1 of 88 images are exact copies", "must all be different"]),
    ("--samples good.npz --classes 0 4", ["--classes = (0, 4)", "must be two or more different classes from 0..3"]),
    ("--samples good.npz --classes -1 2", ["--classes = (-1, 2)", "must be 0 or more"]),
    ("--samples good.npz --classes 1 1", ["--classes = (1, 1)", "different"]),
    ("--samples good.npz --classes 2", ["--classes = (2,)", "two or more"]),
    ("--samples good.npz --subset-sizes 5", ["--subset-sizes = (5,)", "must be at most the number of classes, 4"]),
    ("--samples good.npz --class-sets 0:4", ["--class-sets = '0:4'", "of the classes studied: 0, 1, 2, 3 or north"]),
    ("--samples good.npz --class-sets 0:up", ["--class-sets = '0:up'", "of the classes studied"]),
    ("--samples good.npz --class-sets 0:1 north:east", ["--class-sets", "each set once"]),
    ("--samples good.npz --classes 0 1 --subset-sizes 2 --class-sets 0:3", ["--class-sets = '0:3'", "0, 1 or north"]),
    ("--samples good.npz --gram-panels 5x3", ["--gram-panels = '5x3'", "must be at most the number of classes, 4"]),
    (
        "--samples good.npz --pools 2 --replicates 4 --resampled-pools 4",
        ["images of class north = 24", "must be at least 44 in each class"],
    ),
    ("--samples good.npz --real fashion-mnits", ["--real = 'fashion-mnits'", "must be one of", "'fashion-mnist-mini'"]),
    (
        "--samples good.npz --real fashion-mnist-mini",
        ["--real = 'fashion-mnist-mini'", "10 classes", "must be 4 classes"],
    ),
    ("--samples good.npz --real good.npz --size None", ["--real = 'good.npz'", "split = 'test'", "must be 'train'"]),
    ("--samples good.npz --real few.npz --real-split train --size 4", ["--real = 'few.npz'", "4"]),
    ("--checkpoint absent", ["--checkpoint = 'absent'", "must be one of fashion-mnist-14"]),
    ("--checkpoint empty", ["--checkpoint = 'empty'", "must be one of fashion-mnist-14"]),
    ("--checkpoint text.npz", ["--checkpoint = 'text.npz'", "not a network file"]),
    ("--checkpoint good.npz", ["--checkpoint = 'good.npz'", "not a network file"]),
    ("--checkpoint no-metadata.npz", ["--checkpoint = 'no-metadata.npz'", "not a network file"]),
    ("--checkpoint another.npz", ["--checkpoint = 'another.npz'", "another architecture", "must be of shape"]),
    (
        "--checkpoint unconditional.npz",
        ["--checkpoint = 'unconditional.npz'", "must be a network of two or more classes"],
    ),
    ("--checkpoint network.npz --real fashion-mnist-mini", ["--real = ", "10 classes", "(14, 14, 1)", "(6, 6, 1)"]),
    ("--checkpoint network.npz --classes 3 4", ["--classes = (3, 4)", "0..3"]),
    ("--classes 0 10", ["--classes = (0, 10)", "0..9"]),
    ("--real absent.npz", ["--real = 'absent.npz'", "must be one of"]),
    ("--real-split val", ["--real = 'fashion-mnist-mini'", "split = 'val'", "must be one of ['test']"]),
    ("--size 13", ["--real = 'fashion-mnist-mini'", "13"]),
    ("--train --training.data absent.npz", ["--training.data = 'absent.npz'", "must be one of"]),
    ("--train --training.network.no-conditional", ["--training.network.conditional = False", "must be True"]),
    ("--train --real absent.npz", ["--real = 'absent.npz'", "must be one of"]),
    ("--train --classes 0 11", ["--classes = (0, 11)", "0..9"]),
]

_SAMPLES = "--samples good.npz --features"
FILES += [
    (f"{_SAMPLES} short.npy", ["--features = 'short.npy': shape = (95, 5)", "must be (96, d), a row an image"]),
    (f"{_SAMPLES} nan.npy", ["--features = 'nan.npy': row = [7]", "must be finite"]),
    (f"{_SAMPLES} constant.npy", ["--features = 'constant.npy' = 'constant'", "differ from image to image"]),
    (f"{_SAMPLES} absent.npy", ["--features = 'absent.npy'", "must be pixels, cnn, random-conv or an npy file"]),
    (f"{_SAMPLES} resnet", ["--features = 'resnet'", "must be pixels, cnn, random-conv or an npy file"]),
    (f"{_SAMPLES} text.npz", ["--features = 'text.npz'", "must be pixels, cnn, random-conv or an npy file"]),
    (f"{_SAMPLES} features.npy --real twenty.npz --real-split train --size 6",
     ["--real = 'twenty.npz'", "must be None with --features = 'features.npy'"]),
    (f"{_SAMPLES} cnn", ["--features = 'cnn'", "must be with 16 real images of each class or more"]),
    (f"{_SAMPLES} cnn --cnn.images absent.npz", ["--cnn.images = 'absent.npz'", "must be one of"]),
    (f"{_SAMPLES} cnn --cnn.images wide-real.npz --size 7",
     ["--cnn.images = 'wide-real.npz'", "(7, 7, 1)", "(6, 6, 1)"]),
    (f"{_SAMPLES} cnn --cnn.epochs 0", ["--cnn.epochs = 0", "must be 1 or more"]),
    ("--checkpoint network.npz --features features.npy",
     ["--features = 'features.npy': shape = (96, 5)", "must be (88, d)"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "fragments"), FILES, ids=[options for options, _ in FILES])
def test_files_and_names_that_cannot_be_used(refused, options, fragments):
    more = "" if "--real" in options or not options.startswith(("--samples", "--checkpoint n")) else " --real None"
    line = refused(options + more)
    for fragment in fragments:
        assert fragment in line, line


def test_directory_of_another_configuration_keeps_every_byte(refused, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()

    def half_done(config, directory):
        directory.write_json("metrics.json", {"half": 1})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(*TINY, "--out", out, run=half_done)
    assert capsys.readouterr().err.endswith("the same command again goes on from what is stored\n")
    assert refused("--pairs 3", out).startswith(f"--pairs = 3: must be 2 as stored in '{out}/config.json', or --out")
    assert "--checkpoint" in refused("--checkpoint network.npz", out)
    # A value out of range is refused before the directory is looked at.
    assert refused("--replicates 0", out) == "--replicates = 0: must be 2 or more"


def test_directories_that_cannot_be_used(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert "must be new, empty, or a run's own directory" in refused("", tmp_path / "mine")
    (tmp_path / "file").write_text("keep")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        line = refused("", out)
        assert line.startswith(f"--out = '{out}': must be a directory that can be written to")
    assert (tmp_path / "file").read_text() == "keep"


def test_a_mended_command_may_use_the_same_directory(refused, folder, tmp_path):
    refused("--samples nan.npz --real None", tmp_path / "out")
    reached = []

    def record(config, directory):
        reached.append(STUDY.gather(config, directory))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(
            *TINY,
            "--samples",
            "good.npz",
            "--classes",
            "3",
            "0",
            "--out",
            tmp_path / "out",
            run=record,
        )
    (found,) = reached
    pixels, labels = images(24)
    assert found.class_names == ("west", "north") and found.real is None
    np.testing.assert_allclose(found.samples[0], pixels[labels == 3][:22], atol=1e-6)


def test_real_images_are_taken_where_the_classes_are_theirs(tmp_path):
    names = data.load("fashion-mnist-mini", "test").class_names
    pixels = np.random.default_rng(0).uniform(-1, 1, (80, 14, 14, 1)).astype(np.float32)
    labels = np.repeat(np.arange(10, dtype=np.int32), 8)
    splits = SplitSizes(fit=2, train=2, validation=2, test=2)
    for known, expected in ((names, (10, 200, 14, 14, 1)), (None, None)):
        path = save_images(tmp_path / "pixels.npz", pixels, labels, **({} if known is None else {"class_names": known}))
        sizes = {"training_sizes": (1, 2), "two_layer_size": 1, "classes": None}
        config = replace(STUDY.presets["smoke"], samples=path, splits=splits, low_rank_fit=0, **sizes)
        real = STUDY.gather(config, None).real
        assert (real if real is None else real.shape) == expected


def test_as_a_process(folder, tmp_path):
    """No traceback, nothing on standard output, one line on standard error."""
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "experiments.universality", *TINY, "--samples", folder / "nan.npz", "--out", out],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"universality: --samples = '{folder}/nan.npz': ") and "NaN" in done.stderr
    assert not out.exists()
