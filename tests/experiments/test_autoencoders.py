"""Training of the study's autoencoders: stored stage by stage, resumed; networks that do not fit are refused."""

import jax
import numpy as np
import pytest

from dgu.core.errors import InputError
from experiments.hidden_gaussian_parts import autoencoders
from experiments.hidden_gaussian_parts.autoencoder_networks import build, trained
from experiments.study.run_directory import RunDirectory

SMOKE = autoencoders.PRESETS["smoke"]
SIGMAS = np.array([5.0, 0.5])


@pytest.mark.parametrize("name", ["skip", "linear"])
def test_a_killed_training_goes_on_where_it_was(name, tmp_path):
    images = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype(np.float32)
    network = build(SMOKE, (4, 4, 1))[name]
    directory = RunDirectory.open(tmp_path / "out", SMOKE)
    whole, curve = trained(SMOKE, name, network, images, SIGMAS, directory, 0)
    files = sorted((tmp_path / "out" / "stages" / "autoencoders").iterdir())
    # Four steps, two a stage; one training for all levels without convolutions, one a level with them.
    assert len(files) == (2 if name == "linear" else 4) and curve.shape == (2, 4)
    kept = [file.read_bytes() for file in files]
    files[-1].unlink()
    again, same = trained(SMOKE, name, network, images, SIGMAS, directory, 0)
    assert [file.read_bytes() for file in files] == kept
    np.testing.assert_array_equal(same, curve)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(whole)):
        np.testing.assert_array_equal(a, b)


def test_networks_and_options_that_do_not_fit_are_refused():
    for said, options in (
        ("img_resolution = 7: must be a positive multiple of 2", {"networks": ("ncsn",)}),
        ("autoencoders.dit_patch = 2: must be a divisor of img_resolution = 7", {"networks": ("dit",), "dit_patch": 2}),
    ):
        with pytest.raises(InputError, match=said):
            build(autoencoders.Config(**options), (7, 7, 1))
    for said, options in (
        ("autoencoders.networks = (): must be one or more", {"networks": ()}),
        ("autoencoders.sigmas = (1.0, 2.0): must be two or more, falling", {"sigmas": (1.0, 2.0)}),
        ("autoencoders.vectors = 2: must be 3 or more", {"vectors": 2}),
    ):
        with pytest.raises(InputError) as error:
            autoencoders.Config(**options)
        assert said in str(error.value)
