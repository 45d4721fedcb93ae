"""The files that a run is given are on record: what is replaced under the same name is noticed."""

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.data.contents import content_of
from experiments.study import inputs
from experiments.study.inputs import note_choice, reading
from experiments.study.run_directory import RunDirectory
from experiments.subjects import load_images
from tests.experiments.fake_runs import Config, contents, image_npz, refused


def image_folder(path, shift=0):
    from PIL import Image

    for label in ("cat", "dog"):
        (path / label).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            Image.fromarray(np.full((4, 4), 20 * number + shift, np.uint8)).save(path / label / f"{number}.png")


def idx_pair(path, shift=0):
    def header(kind, *shape):
        return bytes([0, 0, 8, kind]) + b"".join(length.to_bytes(4, "big") for length in shape)

    path.write_bytes(header(3, 6, 4, 4) + bytes(range(96)))
    labels = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    labels.write_bytes(header(1, 6) + bytes((number + shift) % 2 for number in range(6)))


@pytest.mark.parametrize(
    ("make", "name"), [(image_npz, "set.npz"), (image_folder, "folder"), (idx_pair, "t-images-idx3-ubyte")]
)
def test_images_replaced_under_the_same_name_are_noticed(tmp_path, make, name):
    path, out = tmp_path / name, tmp_path / "out"
    config = Config(samples=str(path))
    make(path)
    with RunDirectory.hold(out, config) as directory:
        load_images("samples", str(path), "train")
        directory.stage("draw", lambda: {"x": 1})
    with RunDirectory.hold(out, config):  # What is written anew with the same bytes is the same.
        make(path)
        load_images("samples", str(path), "train")
    make(path, shift=1)
    line = refused(out, config, f"samples = {str(path)!r}", "put it back, or give --out another directory")
    assert content_of(path) in line
    with pytest.raises(InputError, match="put it back"), RunDirectory.hold(tmp_path / "new", config) as directory:
        load_images("samples", str(path), "train")
        directory.stage("draw", lambda: {"x": 1})
        make(path)
        load_images("samples", str(path), "train")


def test_a_network_is_known_by_its_file_in_a_directory_that_training_rewrites(tmp_path, monkeypatch):
    import jax

    from dgu.models import save_network
    from experiments import subjects

    untrained = subjects.load(subjects.UNTRAINED)
    save = lambda scale: save_network(  # noqa: E731
        tmp_path / "run/network.npz",
        untrained.network,
        jax.tree.map(lambda w: scale * w, untrained.denoiser.params),
        {},
    )
    save(1.0)
    config, name = Config(), str(tmp_path / "run")
    with RunDirectory.hold(tmp_path / "out", config):
        subjects.load(name)
        (tmp_path / "run/stats.jsonl").write_text("a training goes on")
        subjects.load(name)
    save(2.0)
    refused(tmp_path / "out", config, f"checkpoint = {name!r}")
    # Rewritten between the hash and the load: what was loaded is not what was hashed.
    load = subjects.load_checkpoint
    monkeypatch.setattr(subjects, "load_checkpoint", lambda name: (save(3.0), load(name))[1])
    with (
        RunDirectory.hold(tmp_path / "other", config),
        pytest.raises(InputError, match="was written to while it was read"),
    ):
        subjects.load(name)
    assert not (tmp_path / "other/inputs.json").exists()


def test_what_a_choice_came_to_is_noticed_and_named_sets_need_no_record(tmp_path):
    with RunDirectory.hold(tmp_path, Config()):
        load_images("real", "fashion-mnist-mini", "test")
        assert not (tmp_path / "inputs.json").exists()
        note_choice("data", "auto", "fashion-mnist-mini")
    with RunDirectory.hold(tmp_path, Config()), pytest.raises(InputError, match="data = 'auto': must be what"):
        note_choice("data", "auto", "fashion-mnist")


def test_outside_a_run_nothing_is_noted(tmp_path):
    (tmp_path / "a").write_text("a")
    with reading("samples", "a", tmp_path / "a"):
        note_choice("data", "auto", "a")
    assert inputs._current.get() is None and list(contents(tmp_path)) == ["a"]


def test_a_file_that_cannot_be_used_is_not_on_record_and_may_be_mended(tmp_path):
    path, config = tmp_path / "set.npz", Config()
    path.write_bytes(b"no archive")
    with RunDirectory.hold(tmp_path / "out", config) as directory:
        directory.stage("draw", lambda: {"x": 1})
        with pytest.raises(InputError, match=r"samples = .*set\.npz"):
            load_images("samples", str(path), "train")
    image_npz(path)
    with RunDirectory.hold(tmp_path / "out", config):
        load_images("samples", str(path), "train")
