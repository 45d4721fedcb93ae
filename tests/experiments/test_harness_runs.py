"""Runs do not mix: pairs of processes on one directory, inputs replaced under the same name, records that are
damaged.
"""

import dataclasses
import errno
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dgu.core.errors import InputError
from experiments.study import inputs
from experiments.study.command_line import run_experiment
from experiments.study.inputs import content_of, files_of, note_choice, reading
from experiments.study.judged import JudgedClaim
from experiments.study.report import Report
from experiments.study.run_directory import RunDirectory
from experiments.subjects import load_images

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    samples: str = "samples.npz"
    seed: int = 0


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def refused(out, config, *words):
    """The one line with which a run is refused, nothing in its directory touched."""
    before = contents(out)
    with pytest.raises(InputError) as error, RunDirectory.hold(out, config):
        pass
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line
    assert contents(out) == before
    return line


# --- pairs of processes ----------------------------------------------------------------------------------------------

PAIR = """
import dataclasses, sys, time
import numpy as np
from dgu.errors import InputError
from experiments.study.run_directory import RunDirectory

@dataclasses.dataclass(frozen=True)
class Config:
    seed: int
    steps: int = 3

seed = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    with RunDirectory.hold(sys.argv[1], Config(seed)) as directory:
        for step in range(3):
            directory.stage(f"draw/{step}", lambda: {"seed": np.asarray(seed), "step": step})
        directory.write_json("metrics.json", {"seed": seed})
except InputError as error:
    print(error, file=sys.stderr)
    raise SystemExit(2)
assert "jax" not in sys.modules
"""


def start_pair(out):
    """Two processes with seeds 1 and 2 that begin at the same moment; their exit codes and lines."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pair = [
        subprocess.Popen([sys.executable, "-c", PAIR, str(out), str(seed)], env=environment, text=True, **pipes)
        for seed in (1, 2)
    ]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    lines = [process.communicate(timeout=120)[1] for process in pair]
    return [process.returncode for process in pair], lines


@pytest.mark.parametrize("pairs", [4, pytest.param(300, marks=pytest.mark.slow)])
def test_pairs_of_processes_with_different_options_never_mix(tmp_path, pairs):
    """One of each pair has the directory, and all that is in it is its own; the other says in one line why it has
    not.
    """
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(start_pair, [tmp_path / str(number) for number in range(pairs)]))
    for number, (codes, lines) in enumerate(ends):
        assert sorted(codes) == [0, 2], (codes, lines)
        winner, out = codes.index(0) + 1, tmp_path / str(number)
        line = lines[2 - winner]
        assert line.count("\n") == 1 and "--out another directory" in line, line
        assert "in use by another process" in line or f"--seed = {3 - winner}: must be {winner} as stored" in line
        assert json.loads((out / "config.json").read_text())["seed"] == winner
        assert json.loads((out / "metrics.json").read_text()) == {"seed": winner}
        for step in range(3):
            with np.load(out / f"stages/draw/{step}.npz") as stage:
                assert int(stage["seed"]) == winner
        assert len(contents(out)) == 6


def test_a_kill_before_anything_was_stored_refuses_no_other_options(tmp_path):
    """The configuration is there, perhaps with a store and folders that are empty; a run that stored a stage still
    refuses.
    """
    RunDirectory.open(tmp_path, Config(seed=1))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/store.json").write_text("{}")
    (tmp_path / ".config.json.7.tmp").write_text("{")
    with RunDirectory.hold(tmp_path, Config(seed=2)) as directory:
        assert json.loads((tmp_path / "config.json").read_text())["seed"] == 2
        assert list(contents(tmp_path)) == ["config.json"]
        directory.stage("draw", lambda: {"x": 1})
    refused(tmp_path, Config(seed=3), "--seed = 3: must be 2 as stored")
    # A configuration of something else is not this study's to replace.
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"architectures": ["BERT"]}')
    refused(other, Config(), "config.json")


# --- inputs ----------------------------------------------------------------------------------------------------------


def image_folder(path, shift=0):
    from PIL import Image

    for label in ("cat", "dog"):
        (path / label).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            Image.fromarray(np.full((4, 4), 20 * number + shift, np.uint8)).save(path / label / f"{number}.png")


def image_npz(path, shift=0):
    images = (np.arange(6 * 16).reshape(6, 4, 4, 1) + shift).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(6) % 2)


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


def test_what_an_input_consists_of(tmp_path):
    folder = tmp_path / "set"
    for name in ("b/2.png", "a/1.png", ".lock", "a/.hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/3.png").write_text("3")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "c/up").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert [str(file.relative_to(folder)) for file in files_of(folder)] == ["a/1.png", "b/2.png", "c/3.png"]
    known = content_of(folder)
    (folder / "a/.hidden").unlink()
    assert content_of(folder) == known
    (folder / "a/1.png").rename(folder / "a/0.png")
    assert content_of(folder) != known
    assert files_of(tmp_path / "absent") == files_of(folder / "pipe") == []
    import hashlib

    assert content_of(folder / "b/2.png") == hashlib.sha256(b"b/2.png").hexdigest()


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


# --- stages ----------------------------------------------------------------------------------------------------------


def test_a_stage_of_another_run_is_refused(tmp_path):
    """Copied from a run with other options, or from one that was given another file of the same name."""
    path = tmp_path / "set.npz"
    for name, shift, seed in (("old", 0, 0), ("seeded", 1, 1), ("own", 1, 0)):
        image_npz(path, shift)
        with RunDirectory.hold(tmp_path / name, Config(seed=seed)) as directory:
            load_images("samples", str(path), "train")
            directory.stage("draw", lambda shift=shift, seed=seed: {"x": 10 * shift + seed})
    own = tmp_path / "own/stages/draw.npz"
    for name, words in (("seeded", "was computed with other options"), ("old", "was computed from another samples = ")):
        own.write_bytes((tmp_path / name / "stages/draw.npz").read_bytes())
        with (
            RunDirectory.hold(tmp_path / "own", Config()) as directory,
            pytest.raises(InputError, match=words) as error,
        ):
            load_images("samples", str(path), "train")
            directory.stage("draw", dict)
        assert str(error.value).startswith(str(own)) and "remove it" in str(error.value)
    own.unlink()
    with RunDirectory.hold(tmp_path / "own", Config()) as directory:
        load_images("samples", str(path), "train")
        assert int(directory.stage("draw", lambda: {"x": 10})["x"]) == 10


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_stage_goes_unnoticed(tmp_path, step):
    """Each byte (or each third) in turn: one line that names the file, or (dates and the like) the very same arrays."""
    directory = RunDirectory.open(tmp_path, Config())
    compute = lambda: {"x": np.arange(6.0), "name": "coat"}  # noqa: E731
    whole = directory.stage("draw", compute)
    file = tmp_path / "stages/draw.npz"
    good, same = file.read_bytes(), 0
    for place in range(0, len(good), step):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:
            found = directory.stage("draw", compute)
        except InputError as error:
            assert str(error).startswith(f"{file}: ") and "remove it to compute again" in str(error), place
        else:
            same += 1
            assert found.keys() == whole.keys() and all(np.array_equal(found[name], whole[name]) for name in whole), (
                place
            )
    assert same < 0.3 * len(good) / step  # dates, versions and the like in the headers of the archive


@pytest.mark.parametrize("damage", ["empty", "an array fewer", "rewritten by NumPy", "a single array", "a folder"])
def test_a_stage_that_is_not_whole_is_one_line(tmp_path, damage):
    directory = RunDirectory.open(tmp_path, Config())
    directory.stage("draw", lambda: {"x": 1, "y": 2})
    file = tmp_path / "stages/draw.npz"
    with zipfile.ZipFile(file) as archive:
        comment, members = archive.comment, {name: archive.read(name) for name in archive.namelist()}
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "an array fewer":
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = comment
            archive.writestr("x.npy", members["x.npy"])
    elif damage == "rewritten by NumPy":
        np.savez(file, x=1, y=2)
    elif damage == "a single array":
        with file.open("wb") as stream:
            np.save(stream, np.arange(3))
    else:
        file.unlink()
        file.mkdir()
    with pytest.raises(InputError, match=r"^[^\n]*draw\.npz: [^\n]*remove it to compute again[^\n]*$"):
        directory.stage("draw", dict)


def rewritten(file, change):
    """The archive again, with ``change(members) -> pairs`` of names and bytes, and its comment."""
    with zipfile.ZipFile(file) as archive:
        comment, members = archive.comment, {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the name that is there twice.
        archive.comment = comment
        for name, content in change(members):
            archive.writestr(name, content)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda members: [("x.npy", npy(np.arange(6.0)[None]))], "changes or adds x;"),
        (lambda members: [("x.npy", npy(np.arange(6)))], "changes or adds x;"),
        (lambda members: [*members.items(), ("x.npy", npy(np.ones(6)))], "holds x.npy more than once"),
        (lambda members: [*members.items(), ("note.txt", b"mine")], "files that are no arrays"),
    ],
)
def test_a_stage_keeps_the_shapes_and_dtypes_that_were_written_each_array_once(tmp_path, change, words):
    directory = RunDirectory.open(tmp_path, Config())
    directory.stage("draw", lambda: {"x": np.arange(6.0)})
    rewritten(tmp_path / "stages/draw.npz", change)
    with pytest.raises(InputError, match=words) as error:
        directory.stage("draw", dict)
    assert "draw.npz: " in str(error.value) and "remove it to compute again" in str(error.value)


def test_another_stage_of_the_same_run_is_refused(tmp_path):
    directory = RunDirectory.open(tmp_path, Config())
    for name in ("boxes/1", "boxes/2"):
        directory.stage(name, lambda name=name: {"x": int(name[-1])})
    one = tmp_path / "stages/boxes/1.npz"
    one.write_bytes((tmp_path / "stages/boxes/2.npz").read_bytes())
    with pytest.raises(InputError, match=r"1\.npz: is the stage 'boxes/2'; must be 'boxes/1'.*remove it"):
        directory.stage("boxes/1", dict)
    one.unlink()
    assert int(directory.stage("boxes/1", lambda: {"x": 1})["x"]) == 1


# --- other files, through the command line ---------------------------------------------------------------------------


def study(config, directory):
    with reading("samples", config.samples, config.samples):
        Path(config.samples).read_bytes()
    total = directory.stage("draw", lambda: {"total": config.seed})["total"]
    directory.stage("more", lambda: {"total": config.seed})
    directory.write_json("metrics.json", {"total": total})
    claim = JudgedClaim.at_least(
        id="big",
        paper="own",
        figure="",
        statement="Large.",
        value=1.0,
        interval=(1.0, 1.0),
        threshold=0,
        unit="",
        exact=True,
    )
    return Report("Study", "Done.", [claim])


def invoke(*argv, run=study):
    return run_experiment({"smoke": Config(), "default": Config()}, run, name="fake", argv=list(argv))


@pytest.fixture
def command(tmp_path):
    """A finished run in ``out``, and its command."""
    (tmp_path / "samples.npz").write_bytes(b"first")
    command = ["--out", str(tmp_path / "out"), "--samples", str(tmp_path / "samples.npz")]
    invoke(*command)
    return command


def line_of(capsys, command, **more):
    """The line with which a command ends, its code being 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        invoke(*command, **more)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.startswith("fake: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"NaN", "{}".encode("utf-16"), b'{"draw": NaN, "more": "x"}'])
def test_damaged_timings_stop_no_run(tmp_path, command, content):
    for name in ("report.html", "stages/more.npz"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out/timings.json").write_bytes(content)
    invoke(*command)
    assert list(json.loads((tmp_path / "out/timings.json").read_text())) == ["more"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"id": "big"}]', "[]".encode("utf-16"), b"[" * 100_000])
def test_damaged_claims_are_one_line_and_made_again(tmp_path, capsys, command, content):
    claims = tmp_path / "out/claims.json"
    good = claims.read_bytes()
    claims.write_bytes(content)
    line = line_of(capsys, command)
    assert str(claims) in line and "remove it" in line
    claims.unlink()
    invoke(*command)
    assert claims.read_bytes() == good


@pytest.mark.parametrize("content", [b"", b"{", b"[]", '{"seed": 0}'.encode("utf-16"), b'{"a":' * 100_000])
def test_a_damaged_configuration_is_one_line(tmp_path, capsys, command, content):
    (tmp_path / "out/config.json").write_bytes(content)
    before = contents(tmp_path)
    line = line_of(capsys, command)
    assert "config.json" in line and f"--out = {str(tmp_path / 'out')!r}" in line
    assert contents(tmp_path) == before


def test_a_finished_run_is_not_read_back_for_another_file_of_the_same_name(tmp_path, capsys, command):
    (tmp_path / "samples.npz").write_bytes(b"second")
    assert line_of(capsys, command).startswith(f"fake: --samples = {str(tmp_path / 'samples.npz')!r}: must be what")
    (tmp_path / "samples.npz").unlink()
    assert invoke(*command)[0].id == "big"  # The results are there, whatever became of the file.


def test_a_directory_removed_while_its_run_goes_on_is_one_line_and_is_not_made_anew(tmp_path, capsys):
    import shutil

    (tmp_path / "samples.npz").write_bytes(b"first")

    def run(config, directory):
        directory.stage("draw", lambda: {"x": 1})
        shutil.rmtree(directory.path)
        directory.stage("more", lambda: {"x": 1})

    line = line_of(capsys, ["--out", str(tmp_path / "out"), "--samples", str(tmp_path / "samples.npz")], run=run)
    assert "was removed while the run went on" in line
    assert list(contents(tmp_path)) == ["samples.npz"] and not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_what_is_stored_stays(tmp_path, capsys, monkeypatch):
    (tmp_path / "samples.npz").write_bytes(b"first")
    command = ["--out", str(tmp_path / "out"), "--samples", str(tmp_path / "samples.npz")]

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert "No space left on device" in line_of(capsys, command)
    assert not (tmp_path / "out").exists()

    def run(config, directory):
        directory.stage("draw", lambda: {"total": config.seed})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            directory.stage("more", lambda: {"total": config.seed})

    assert "more.npz" in line_of(capsys, command, run=run)
    assert sorted(contents(tmp_path / "out")) == ["config.json", "stages/draw.npz", "timings.json"]
    invoke(*command)


def test_an_early_refusal_forgets_the_configuration_and_empty_folders(tmp_path, capsys):
    def run(config, directory):
        (directory.path / "samples").mkdir()
        (directory.path / "samples/store.json").write_text("{}")
        (directory.path / "training/checkpoints").mkdir(parents=True)
        (directory.path / "training/stats.jsonl").write_text("")
        raise InputError("seed = 0: must be something else")

    assert "--seed = 0" in line_of(capsys, ["--out", str(tmp_path / "out")], run=run)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"[]", b"{}", b'""', b"0"])
def test_claims_that_lack_what_the_report_has_are_not_a_finished_run(tmp_path, capsys, command, content):
    claims = tmp_path / "out/claims.json"
    claims.write_bytes(content)
    line = line_of(capsys, command)
    assert str(claims) in line and "remove it" in line
    claims.unlink()
    assert invoke(*command)[0].id == "big"


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"x": {"file": 3, "content": 4}}',
        b'{"x": {"file": ["a"], "content": null}}',
        b'{"x": {"file": "a"}}',
    ],
)
def test_a_damaged_record_of_inputs_is_not_to_be_removed(tmp_path, capsys, command, content):
    (tmp_path / "out/inputs.json").write_bytes(content)
    line = line_of(capsys, command)
    assert "inputs.json" in line and "give --out another directory" in line and "remove" not in line


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("dangling", "dangling is a link to nothing"),
        ("loop", "loop is a link in a circle"),
        ("file", "file is a file"),
        ("file/x/y", "file is a file"),
        ("loop/x", "loop is a link in a circle"),
        ("a" * 5000, "File name too long"),
        ("abcdefgh/" * 600, "File name too long"),
    ],
)
def test_directories_that_cannot_be_made_are_one_line_that_says_why(tmp_path, capsys, monkeypatch, kind, reason):
    monkeypatch.chdir(tmp_path)
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    line = line_of(capsys, ["--out", kind])
    assert line.startswith("fake: --out = ") and f"({reason})" in line and len(line) < 700
    assert sorted(os.listdir()) == ["dangling", "file", "loop"] and Path("file").read_text() == "mine"


@pytest.mark.parametrize("name", ["stages", "figures", "images", "samples", "checkpoints"])
def test_a_file_in_the_place_of_a_runs_folder_is_one_line_before_any_work(tmp_path, capsys, command, name):
    import shutil

    out = tmp_path / "out"
    (out / "report.html").unlink()
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).write_text("mine")
    line = line_of(capsys, command, run=lambda config, directory: pytest.fail("work was done"))
    assert f"{out / name} is a file" in line and "must be a folder" in line
