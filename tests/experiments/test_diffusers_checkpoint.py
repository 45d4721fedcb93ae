"""Studies take a folder of diffusers, or say in one line what it lacks."""

import importlib

import pytest

from dgu.core.errors import InputError
from experiments.subjects import evaluation_cost, load
from tests.models import diffusers_folders as folders


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


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_studies_run_on_a_folder_of_diffusers(tmp_path, name):
    folder = folders.write(tmp_path / "d", SMALL)
    study = importlib.import_module(f"experiments.{name}").STUDY
    words = [
        "--preset",
        "smoke",
        "--checkpoint",
        str(folder),
        "--parts",
        *STUDIES[name],
        "--out",
        str(tmp_path / "run"),
    ]
    study.main(words)
    assert (tmp_path / "run" / "report.html").is_file()
    shown = (tmp_path / "run" / "inputs.json").read_text()
    assert f"checkpoint = {str(folder)!r}" in shown
