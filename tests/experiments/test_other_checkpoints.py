"""Studies take a folder of diffusers, a snapshot of EDM2 and a file of PyTorch, or say in one line what it lacks."""

import importlib

import pytest

from dgu.core.errors import InputError
from experiments.subjects import evaluation_cost, load
from tests.models import diffusers_folders as folders
from tests.models import networks, snapshots
from tests.models.torch_zips import torch_zip


def test_a_folder_is_loaded_with_its_size_and_its_costs(tmp_path):
    found = load(str(folders.write(tmp_path / "d", {"sample_size": 8, "num_class_embeds": 3})))
    assert found.network.shape == (8, 8, 1) and found.network.unet.label_dim == 3 and found.network.needs_class
    cost = evaluation_cost(found.network, "stage", 10, 4)
    assert cost.network_evaluations == 10 and cost.flop > 10 * 8 * 8 * 9 * 4 * 4


CONSISTENCY = {"_class_name": "CMStochasticIterativeScheduler"}


@pytest.mark.parametrize(
    ("changes", "scheduler", "line"),
    [
        ({}, CONSISTENCY, "is_posterior_mean = False: must be True for a study"),
        ({"class_embed_type": "timestep"}, {}, "studies go through numbered classes"),
        ({"sample_size": None}, {}, "sample_size = None: must be a number"),
    ],
)
def test_what_a_study_cannot_look_at_is_refused_in_one_line(tmp_path, changes, scheduler, line):
    folder = str(folders.write(tmp_path / "d", changes, scheduler))
    with pytest.raises(InputError, match=line) as caught:
        load(folder)
    assert str(caught.value).startswith(f"checkpoint = {folder!r}: ") and "\n" not in str(caught.value)


#: One level of 7 x 7 pixels and ten classes: what the smoke presets look at, too.
SMALL = {
    "sample_size": 7,
    "num_class_embeds": 10,
    "block_out_channels": [4],
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
}
#: Parts of each study that look at the network itself.
STUDIES = {
    "audit": ("moments", "membership"),
    "concentration": ("norms", "spectra"),
    "hidden_gaussian": ("linearity", "jacobians"),
    "molrg": ("dimension",),
    "universality": ("samples", "spectra"),
}


#: The same of EDM2, and of EDM.
EDM2 = {
    "img_resolution": 7,
    "img_channels": 1,
    "label_dim": 10,
    "model_channels": 4,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
    "logvar_channels": 4,
}
EDM = {name: value for name, value in EDM2.items() if name != "logvar_channels"} | {"model_type": "DhariwalUNet"}


def edm2_snapshot(folder):
    config = {"precond": "Precond", "kwargs": EDM2}
    (folder / "edm2-tiny.pkl").write_bytes(snapshots.snapshot(config, networks.random_arrays(config)))
    return folder / "edm2-tiny.pkl"


def torch_file(folder):
    config = {"precond": "EDMPrecond", "kwargs": EDM}
    (folder / "network.pt").write_bytes(torch_zip(networks.random_arrays(config), config=config))
    return folder / "network.pt"


#: By kind: writes a checkpoint of 7 x 7 pixels and ten classes into a folder.
CHECKPOINTS = {
    "diffusers": lambda folder: folders.write(folder / "d", SMALL),
    "EDM2": edm2_snapshot,
    "torch": torch_file,
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_every_kind_are_loaded(tmp_path, kind):
    found = load(str(CHECKPOINTS[kind](tmp_path)))
    assert found.network.shape == (7, 7, 1) and found.network.unet.label_dim == 10 and found.denoiser.needs_class
    assert len(found.sha256) == 64 and found.denoiser.given(3).label == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("name", STUDIES)
def test_studies_run_on_checkpoints_of_every_kind(tmp_path, name, kind):
    path = str(CHECKPOINTS[kind](tmp_path))
    study = importlib.import_module(f"experiments.{name}").STUDY
    out = tmp_path / "run"
    sized = ["--size", "7"] if name == "molrg" else []  # Other studies take the network's own size.
    study.main(["--preset", "smoke", "--checkpoint", path, "--parts", *STUDIES[name], *sized, "--out", str(out)])
    assert (out / "report.html").is_file()
    assert f"checkpoint = {path!r}" in (out / "inputs.json").read_text()
