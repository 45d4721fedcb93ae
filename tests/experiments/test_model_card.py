"""The card's numbers on planted samples: a perfect model, copies, wrong classes, too little variance."""

import json

import jax
import numpy as np
import pytest

from dgu.analysis.quality.card import quality_card
from dgu.data import ImageSet
from experiments import model_card
from experiments.model_card import card_markdown, main
from tests.experiments.commands import exit_code

KEY = jax.random.key(1)
NAMES = ("rows", "columns", "checks")


def draw(seed, n, spread=0.6):
    """Stripes in three directions with pixel noise: 8 x 8 images whose class is plain to see."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 3).astype(np.int32)
    rows, columns = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    patterns = np.stack([(-1.0) ** (rows // 2), (-1.0) ** (columns // 2), (-1.0) ** (rows // 2 + columns // 2)])
    images = 0.5 * patterns[labels] + spread * rng.normal(size=(n, 8, 8))
    return images[..., None].astype(np.float32), labels


def image_set(seed, n, split):
    images, labels = draw(seed, n)
    return ImageSet(images, labels, NAMES, "stripes", split, f"hash of {split}")


TRAIN, HELDOUT = image_set(0, 900, "train"), image_set(1, 300, "test")


def card_of(images, labels):
    card = quality_card(images, labels, TRAIN, HELDOUT, KEY, epochs=15)
    return card, {check["check"].split(" ")[0]: check["holds"] for check in card["checks"]}


def test_a_perfect_model_holds_every_requirement():
    card, _ = card_of(*draw(2, 300))
    assert all(check["holds"] for check in card["checks"]), card["checks"]
    sampled, real = card["samples"], card["reference"]
    assert sampled["accuracy"]["value"] > 0.95 and card["heldout_accuracy"]["value"] > 0.95
    for column in (sampled, real):
        assert column["kid_pixels"]["low"] < 0.01 and column["kid_pixels"]["high"] > -0.01
        assert column["precision"]["value"] > 0.6 and column["recall"]["value"] > 0.6
        np.testing.assert_allclose(column["variance_ratio"]["value"], 1, atol=0.1)
        assert abs(column["neighbours"]["median_ratio"]["value"] - 1) < 0.03
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    text = card_markdown(card)
    assert "**no**" not in text
    assert all(name in text for name in NAMES)


def test_copies_wrong_classes_and_shrunken_samples_fail_where_they_should():
    copies, _ = card_of(TRAIN.images[:300], TRAIN.labels[:300])
    assert [check["holds"] for check in copies["checks"]] == [True, True, True, False, False]
    assert copies["samples"]["neighbours"]["closer"]["value"] == 1
    assert copies["reference"]["neighbours"]["closer"]["value"] < 0.1  # real images are not their own neighbours

    images, labels = draw(3, 300)
    swapped, _ = card_of(images, (labels + (np.arange(300) % 4 == 0)) % 3)
    assert not swapped["checks"][0]["holds"] and abs(swapped["checks"][0]["value"] + 0.25) < 0.05

    shrunken, _ = card_of(*draw(4, 300, spread=0.45))
    assert not shrunken["checks"][1]["holds"] and abs(shrunken["checks"][1]["value"] - 0.5625) < 0.06
    assert shrunken["samples"]["recall"]["high"] < copies["samples"]["recall"]["low"]


def test_command_writes_the_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_card, "load", lambda name, split, size: TRAIN if split == "train" else HELDOUT)
    images, labels = draw(5, 300)
    np.savez(tmp_path / "samples.npz", samples=images, labels=labels)
    arguments = ["--samples", str(tmp_path / "samples.npz"), "--out", str(tmp_path / "card"), "--epochs", "15"]
    assert exit_code(main, arguments) == 0
    card = json.loads((tmp_path / "card" / "card.json").read_text())
    assert card["source"] == "samples.npz" and card["data"]["heldout"] == "hash of test"
    assert (tmp_path / "card" / "card.md").read_text() == card_markdown(card)
    assert (tmp_path / "card" / "grid.png").read_bytes()[:4] == b"\x89PNG"
    assert "FAILS" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        (None, "samples = "),
        ({"samples": np.zeros((4, 8, 8, 1), np.float32)}, "samples and labels"),
        ({"samples": np.zeros((4, 8, 8, 1), np.uint8), "labels": np.zeros(4, int)}, "a float array (n, h, w, c)"),
        ({"samples": np.full((4, 8, 8, 1), np.nan), "labels": np.zeros(4, int)}, "finite"),
        ({"samples": np.zeros((4, 8, 8, 1), np.float32), "labels": np.full(4, 3)}, "labels = "),
        ({"samples": np.zeros((4, 8, 8, 3), np.float32), "labels": np.zeros(4, int)}, "samples.shape = "),
    ],
)
def test_bad_samples_end_in_one_line_and_write_nothing(tmp_path, monkeypatch, capsys, arrays, text):
    monkeypatch.setattr(model_card, "load", lambda name, split, size: TRAIN if split == "train" else HELDOUT)
    file = tmp_path / "samples.npz"
    if arrays is not None:
        np.savez(file, **arrays)
    assert exit_code(main, ["--samples", str(file), "--out", str(tmp_path / "card")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and text in error
    assert not (tmp_path / "card").exists()


def test_one_source_of_samples_is_needed(tmp_path, capsys):
    assert exit_code(main, ["--out", str(tmp_path / "card")]) == 2
    assert "exactly one" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "dangling", "folder", "a" * 5000])
def test_a_card_that_cannot_be_written_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_card, "load", lambda *_, **__: pytest.fail("work was done"))
    np.savez("samples.npz", samples=np.zeros((4, 8, 8, 1), np.float32), labels=np.zeros(4, int))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder/card.md").mkdir(parents=True)
    assert exit_code(main, ["--samples", "samples.npz", "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("model_card: out = ")
