"""Sampling from the command line: images by seed, in three formats, resumed, and bad input refused."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgu import data, samplers
from dgu.core import keys
from dgu.core.errors import InputError
from dgu.data import SampleStore
from dgu.data.export import image_name, to_uint8
from dgu.models import load_checkpoint, save_network
from experiments import sample
from experiments.sample import parse_seeds
from experiments.sampling import STUDY_SAMPLER, SamplerConfig, build_sampler, noise_range, sample_pool
from experiments.study import Options
from experiments.study.run_directory import RunDirectory
from tests.experiments.universality_study import save_tiny_network

FAST = "--preset smoke --sampler.num-steps 2 --sampler.batch-size 4".split()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return str(save_tiny_network(tmp_path_factory.mktemp("net") / "network.npz"))


def pixels(path):
    return np.asarray(Image.open(path))


def test_an_image_depends_on_its_seed_alone(network, tmp_path):
    sample.main([*FAST, "--checkpoint", network, "--seeds", "0-9", "--out", str(tmp_path / "a")])
    sample.main([*FAST, "--checkpoint", network, "--seeds", "7,2-3", "--subdirs", "--out", str(tmp_path / "b")])
    for seed in (2, 3, 7):
        np.testing.assert_array_equal(
            pixels(tmp_path / "a/images" / f"{seed:06d}.png"), pixels(tmp_path / "b/images/000000" / f"{seed:06d}.png")
        )
    assert len({pixels(tmp_path / "a/images" / f"{seed:06d}.png").tobytes() for seed in range(10)}) == 10
    assert sorted(p.name for p in (tmp_path / "b/images/000000").iterdir()) == [
        "000002.png",
        "000003.png",
        "000007.png",
    ]


def test_a_killed_run_makes_what_is_missing(network, tmp_path):
    command = [*FAST, "--checkpoint", network, "--seeds", "0-9", "--out", str(tmp_path / "a")]
    sample.main(command)
    folder = tmp_path / "a/images"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("000004.png", "000009.png"):
        (folder / name).unlink()
    (tmp_path / "a/report.html").unlink()
    kept = (folder / "000001.png").stat().st_mtime_ns
    sample.main(command)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "000001.png").stat().st_mtime_ns == kept


def test_damaged_images_are_made_again(network, tmp_path):
    """Cut, empty, of another size, no image at all, or a pipe: the images that are asked for are there afterwards."""
    command = [*FAST, "--checkpoint", network, "--seeds", "0-9", "--out", str(tmp_path / "a")]
    sample.main(command)
    folder = tmp_path / "a/images"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "000001.png").write_bytes(before["000001.png"][:60])
    (folder / "000002.png").write_bytes(b"")
    (folder / "000003.png").write_bytes(b"<html>404</html>")
    Image.new("L", (3, 3)).save(folder / "000004.png")
    flipped = bytearray(before["000006.png"])
    flipped[len(flipped) // 2] ^= 4
    (folder / "000006.png").write_bytes(flipped)
    (folder / "000007.png").write_bytes(bytes(len(before["000007.png"])))
    (folder / "000005.png").unlink()
    os.mkfifo(folder / "000005.png")
    (tmp_path / "a/report.html").unlink()
    sample.main(command)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_damaged_archive_of_images_is_one_line(network, tmp_path, capsys):
    command = [*FAST, "--checkpoint", network, "--seeds", "0-3", "--format", "zip", "--out", str(tmp_path / "a")]
    sample.main(command)
    content = bytearray((tmp_path / "a/images.zip").read_bytes())
    content[80] ^= 1
    (tmp_path / "a/images.zip").write_bytes(content)
    (tmp_path / "a/report.html").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        sample.main(command)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and "images.zip" in text and "delete" in text and "Traceback" not in text


def test_a_network_that_training_has_rewritten_is_not_mixed_with_what_it_was(tmp_path, capsys):
    save_tiny_network(tmp_path / "run/network.npz")
    command = [*FAST, "--checkpoint", str(tmp_path / "run"), "--seeds", "0-5", "--out", str(tmp_path / "out")]
    sample.main(command)
    sample.main(command)  # read back
    model = load_checkpoint(tmp_path / "run")
    save_network(
        tmp_path / "run/network.npz",
        model.network,
        jax.tree.map(lambda w: w * 1.5, model.denoiser.params),
        model.metadata,
    )
    for name in (None, "report.html", "images/000003.png"):  # finished, and killed
        if name is not None:
            (tmp_path / "out" / name).unlink()
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            sample.main(command)
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and error.count("\n") == 1
        assert error.startswith(f"sample: --checkpoint = {str(tmp_path / 'run')!r}: must be what the run in")
    assert not (tmp_path / "out/images/000003.png").exists()


def test_formats_agree(network, tmp_path):
    shared = [*FAST, "--checkpoint", network, "--seeds", "0-5", "--class", "2"]
    for name in ("png", "zip", "store"):
        sample.main([*shared, "--format", name, "--out", str(tmp_path / name)])
    store = SampleStore.existing(tmp_path / "store/samples").read(2, 6)
    packed = data.load(tmp_path / "zip/images.zip")
    assert packed.labels.tolist() == [2] * 6 and not (tmp_path / "zip/images").exists()
    for seed in range(6):
        image = pixels(tmp_path / "png/images" / image_name(seed))
        np.testing.assert_array_equal(image, to_uint8(store[seed])[..., 0])
        np.testing.assert_allclose(packed.images[seed, ..., 0], image / 127.5 - 1, atol=1e-6)


def test_classes_are_drawn_by_seed_and_spread(network, tmp_path):
    config = sample.Config(checkpoint=network)
    labels = sample.classes_of(config, np.arange(4000), 4)
    np.testing.assert_array_equal(sample.classes_of(config, np.arange(100, 120), 4), labels[100:120])
    counts = np.bincount(labels, minlength=4)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert sample.classes_of(config, np.arange(3), 0) is None


def test_bytes_are_truncated_as_in_the_reference():
    values = np.asarray([-1.2, -1.0, -0.999, 0.0, 0.0035, 0.004, 1.0, 3.0], np.float32)[:, None, None, None]
    assert to_uint8(values).ravel().tolist() == [0, 0, 0, 128, 128, 128, 255, 255]
    assert to_uint8(np.full((1, 1, 1, 1), 0.0079, np.float32)).item() == 129


def test_seeds():
    assert parse_seeds("5").tolist() == [5]
    assert parse_seeds("3-5, 1,4").tolist() == [1, 3, 4, 5]


def test_samplers_are_those_asked_for(network):
    denoiser = load_checkpoint(network).denoiser
    sigmas, solver, churn = build_sampler(SamplerConfig(num_steps=5, churn=2.0), denoiser)
    assert solver is samplers.heun and churn.rate == 2.0
    np.testing.assert_array_equal(sigmas, samplers.karras_sigmas(5))
    sigmas, solver, _ = build_sampler(
        SamplerConfig(method="ablation", disc="ve", solver="euler", num_steps=5), denoiser
    )
    assert isinstance(solver, samplers.Ablation) and solver.solver == "euler" and sigmas[0] == pytest.approx(100)
    assert isinstance(build_sampler(SamplerConfig(method="dpm-solver"), denoiser)[1], samplers.DPMSolver)


def test_what_the_papers_run_would_cost(capsys):
    sample.main(["--preset", "paper", "--dry-run"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("sampling"))
    assert row.split()[1] == f"{50_000 * 511:,}" and row.split()[2:4] == ["5.61", "E"]  # 219.3 GFLOP each


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SamplerConfig(num_steps=18), 35),
        (SamplerConfig(num_steps=18, method="dpm-solver"), 18),
        (SamplerConfig(num_steps=18, method="ablation", solver="euler"), 18),
    ],
)
def test_evaluations_are_those_that_the_sampler_makes(network, config, expected):
    denoiser = load_checkpoint(network).denoiser
    sigmas, solver, _ = build_sampler(config, denoiser)
    levels = []

    def counting(x, sigma):
        jax.debug.callback(lambda: levels.append(1))
        return denoiser.given(0)(x, sigma)

    jax.block_until_ready(solver(counting, jnp.ones((6, 6, 1)), sigmas))
    jax.effects_barrier()
    assert len(levels) == expected == config.evaluations


@dataclasses.dataclass(frozen=True)
class Study(Options):
    """The options of a study that samples a network."""

    sampler: SamplerConfig = STUDY_SAMPLER
    seed: int = 0


FEW = dataclasses.replace(STUDY_SAMPLER, num_steps=3, batch_size=4)
#: What the store of samples of a study with these options has recorded since the first version.
RECORDED = {
    "num_steps": 3, "sigma_min": None, "sigma_max": None, "rho": 7.0, "churn": 2.8125, "s_min": 0.05, "s_max": 50.0,
    "s_noise": 1.003, "batch_size": 4,
}  # fmt: skip


def pool(directory, model, sampler, labels=(1, 3), count=6, seed=5):
    return sample_pool(directory, model, sampler, labels=labels, count=count, seed=seed)


def test_samples_of_edms_method_that_earlier_versions_stored_are_found(network, tmp_path, monkeypatch):
    model = load_checkpoint(network)
    fingerprint = {"sampler": RECORDED, "seed": 5, "network": model.sha256}
    store = SampleStore.open(tmp_path / "samples", fingerprint, (6, 6, 1), shard_size=4)
    stored = np.random.default_rng(0).normal(size=(4, 6, 6, 6, 1)).astype(np.float32)
    store.fill(lambda labels, indices: stored[labels, indices], [1, 3], 6)
    monkeypatch.setattr(samplers, "sample", None)  # Nothing is sampled again.
    np.testing.assert_array_equal(pool(RunDirectory(tmp_path), model, FEW), stored[[1, 3]])


@pytest.mark.parametrize(
    ("more", "solver"),
    [
        ({"s_max": np.inf}, samplers.heun),
        pytest.param({"method": "dpm-solver", "churn": 0.0}, samplers.DPMSolver(), marks=pytest.mark.slow),
        (
            {"method": "ablation", "solver": "euler", "disc": "ve", "schedule": "ve"},
            samplers.Ablation(solver="euler", discretization="ve", schedule="ve"),
        ),
    ],
)
def test_a_pool_of_any_method_is_what_the_library_samples_and_says_so(network, tmp_path, more, solver):
    model, sampler = load_checkpoint(network), dataclasses.replace(FEW, **more)
    found = pool(RunDirectory(tmp_path), model, sampler)
    sigmas = solver.sigmas(3) if isinstance(solver, samplers.Ablation) else samplers.karras_sigmas(3)
    for label, images in zip((1, 3), found):
        expected = samplers.sample(
            model.denoiser,
            keys.stream(keys.seeded(5), "diffusion", label),
            range(6),
            sigmas,
            shape=(6, 6, 1),
            labels=[label] * 6,
            churn=samplers.Churn(sampler.churn, sampler.s_min, sampler.s_max, sampler.s_noise),
            solver=solver,
            batch_size=4,
        )
        np.testing.assert_array_equal(images, expected)
    recorded = json.loads((tmp_path / "samples/store.json").read_text())["config"]["sampler"]
    names = {field.name for field in dataclasses.fields(sampler)} if "method" in more else set(RECORDED)
    assert recorded.keys() == names and (recorded["s_max"] == "inf" if "s_max" in more else True)
    with pytest.raises(InputError, match=r"store\.json|samples"):  # Never mixed with those of another method.
        pool(RunDirectory(tmp_path), model, FEW)


def test_runs_from_before_there_were_other_methods_are_continued(tmp_path):
    RunDirectory.open(tmp_path, Study(FEW)).stage("draw", lambda: {"x": 1})
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["sampler"]["method"], stored["sampler"]["alpha"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    RunDirectory.open(tmp_path, Study(FEW))
    other = Study(dataclasses.replace(FEW, method="ablation"))
    with pytest.raises(InputError, match=r"^--sampler\.method = 'ablation': must be 'edm' as stored"):
        RunDirectory.open(tmp_path, other)
    del stored["sampler"]["rho"]  # No such option was ever added.
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"^--sampler\.rho = 7\.0: is an option that"):
        RunDirectory.open(tmp_path, Study(FEW))


def test_the_range_of_noise_levels_is_the_samplers_within_the_networks(network):
    denoiser = load_checkpoint(network).denoiser
    assert noise_range(denoiser) == (0.002, 80.0)
    narrow = dataclasses.make_dataclass("Narrow", ["sigma_min", "sigma_max"])(0.02, 50.0)
    assert noise_range(narrow) == (0.02, 50.0) and noise_range(narrow, 0.1, 40.0) == (0.1, 40.0)


BAD = [
    ("--seeds 5-1", "--seeds = '5-1': must be numbers and rising ranges"),
    ("--seeds x", "--seeds = 'x': must be numbers"),
    ("--class 4", "--class = 4: must be in 0..3"),
    ("--class -1", "--class = -1: must be 0 or more, or None"),
    ("--format store", "--class = None: must be in 0..3 with --format store"),
    ("--format store --class 1 --seeds 1-4", "--seeds = '1-4': must be a range from 0 with --format store"),
    ("--sampler.num-steps 1", "--sampler.num-steps = 1: must be 2 or more"),
    ("--sampler.sigma-min 90", "--sampler.sigma-min = 90.0: must be below --sampler.sigma-max = 80"),
    ("--sampler.batch-size 0", "--sampler.batch-size = 0: must be 1 or more"),
    ("--batch-size 4", "--batch-size: is called --sampler.batch-size now"),
    ("--sampler.solver euler", "--sampler.solver = 'euler': must be left out, or --sampler.method ablation given"),
    ("--sampler.method dpm-solver --sampler.churn 1", "--sampler.churn = 1.0: must be 0 with dpm-solver"),
    ("--checkpoint nowhere.pkl", "--checkpoint = 'nowhere.pkl': must be one of"),
]


@pytest.mark.parametrize(("options", "line"), BAD)
def test_bad_input_is_one_line(network, tmp_path, capsys, options, line):
    given = ["--checkpoint", network] if "--checkpoint" not in options else []
    with pytest.raises(SystemExit) as exit_:
        sample.main([*FAST, *given, *options.split(), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and error.startswith(f"sample: {line}"), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("record", [None, b"{}"])
def test_images_of_two_networks_are_not_mixed_where_the_record_of_inputs_is_gone(tmp_path, capsys, record):
    save_tiny_network(tmp_path / "net.npz")
    command = [*FAST, "--checkpoint", str(tmp_path / "net.npz"), "--seeds", "0-3", "--out", str(tmp_path / "out")]
    sample.main(command)
    model = load_checkpoint(tmp_path / "net.npz")
    other = jax.tree.map(lambda w: w * 1.5, model.denoiser.params)
    save_network(tmp_path / "net.npz", model.network, other, model.metadata)
    for name in ("inputs.json", "report.html", "claims.json", "images/000003.png"):
        (tmp_path / "out" / name).unlink()
    if record is not None:
        (tmp_path / "out/inputs.json").write_bytes(record)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        sample.main(command)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert "network.npz: was computed from another checkpoint" in error and "remove it" in error
    assert not (tmp_path / "out/images/000003.png").exists()
    # As advised; then all images are of the network that is given now.
    (tmp_path / "out/stages/network.npz").unlink()
    sample.main(command)
    sample.main([*command[:-1], str(tmp_path / "new")])
    for image in (tmp_path / "new/images").iterdir():
        assert (tmp_path / "out/images" / image.name).read_bytes() == image.read_bytes()
