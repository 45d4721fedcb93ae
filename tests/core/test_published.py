"""Missing published files are answered with where they come from, in one line."""

import pytest

from dgu import data
from dgu.core.errors import InputError
from dgu.core.published import origin
from dgu.models import load_checkpoint
from experiments.hidden_gaussian.networks import KNOWN
from experiments.molrg import STUDY
from experiments.subjects import PUBLISHED


def test_networks_are_described_by_their_own_sizes():
    for name, network in PUBLISHED.items():
        found = origin(f"/some/where/{name}")
        assert f"({network.parameter_count / 1e6:.1f} million" in found and f"/edm/pretrained/{name}," in found
    assert "of unrecorded size" in origin("edm-else.pkl")
    assert "about 1.2 GB" in origin("edm-imagenet-64x64-cond-adm.pkl")


def test_sets_are_described_as_dry_runs_take_them():
    for name, (count, side, channels) in KNOWN.items():
        if name.endswith(".zip"):
            found = origin(name)
            assert f"{count:,} images" in found and f"--dest={name}" in found
            gib = count * side * side * channels * 4 / 2**30
            asked = int(found.split("DGU_MAX_GIB=")[1].split()[0])
            assert gib <= asked < gib + 1
    assert "center-crop" in origin("imagenet-64x64.zip") and "do not say" in origin("celeba-hq-64x64.zip")
    assert origin("mine.zip") == origin("network.pkl") == ""


@pytest.mark.parametrize("name", ["ffhq-64x64.zip", "lsun-churches-64x64.zip"])
def test_a_missing_set_is_answered_in_one_line(name, tmp_path):
    with pytest.raises(InputError) as caught:
        data.load(tmp_path / name)
    line = str(caught.value)
    assert "must be a file that is here; it is " in line and origin(name) in line and "\n" not in line


def test_a_missing_network_ends_a_study_with_its_address(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="/edm/pretrained/edm-ffhq-64x64-uncond-ve"):
        load_checkpoint("edm-ffhq-64x64-uncond-ve.pkl")
    with pytest.raises(SystemExit) as caught:
        STUDY.main(["--preset", "smoke", "--checkpoint", "edm-cifar10-32x32-uncond-vp.pkl", "--out", "run"])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and "55.7 million" in error and error.count("\n") == 1
