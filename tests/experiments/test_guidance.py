"""Networks that are guided by others, as the option --guide of sampling and of the studies with a checkpoint."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import ADMConfig, EDMNetwork, SongUNetConfig, save_network
from dgu.samplers import Guided
from experiments import audit, concentration, hidden_gaussian, molrg, sample, universality
from experiments.sampling import GuidanceOptions
from experiments.subjects import UNTRAINED, evaluation_cost, load, planned, random_like, sampling_cost

OPTIONS = GuidanceOptions(guide=UNTRAINED, guidance=2.5)
evaluated = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Files of networks: with classes of which one is none, without classes, of other classes, and of other images."""
    folder = tmp_path_factory.mktemp("networks")
    small = {"model_channels": 8, "channel_mult": (1,), "num_blocks": 1, "attn_resolutions": ()}
    kinds = {
        "dropped": ADMConfig(8, 1, 1, 3, label_dropout=0.1, **small),
        "free": SongUNetConfig(8, 1, 1, **small),
        "other-classes": ADMConfig(8, 1, 1, 4, **small),
        "larger": ADMConfig(16, 1, 1, 3, **small),
    }
    for name, unet in kinds.items():
        network, rng = EDMNetwork(unet), np.random.default_rng(len(name))
        params = jax.tree.map(
            lambda leaf, rng=rng: 0.2 * rng.standard_normal(leaf.shape, np.float32), network.abstract_params
        )
        save_network(folder / f"{name}.npz", network, params, {})
    return lambda name: str(folder / f"{name}.npz")


def test_a_guided_checkpoint_is_the_guided_denoiser_of_both(networks):
    main, guide = load(UNTRAINED), load(networks("free"))
    found = load(UNTRAINED, guidance=replace(OPTIONS, guide=networks("free"), guidance_interval=(0.5, 3.0)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=main.network.shape), jnp.float32)
    for sigma, weight in ((0.2, 1.0), (1.0, 2.5), (5.0, 1.0)):
        weak, strong = evaluated(guide.denoiser, x, sigma), evaluated(main.denoiser.given(1), x, sigma)
        np.testing.assert_allclose(
            evaluated(found.denoiser.given(1), x, sigma), weak + weight * (strong - weak), rtol=1e-4, atol=1e-4
        )
    assert found.class_names == main.class_names and found.network.shape == main.network.shape
    assert len({main.sha256, guide.sha256, found.sha256, load(UNTRAINED, guidance=OPTIONS).sha256}) == 4


def test_the_network_itself_without_a_class_is_a_guide(networks):
    name = networks("dropped")
    main, found = load(name), load(name, guidance=replace(OPTIONS, guide="no-class"))
    x = jnp.asarray(np.random.default_rng(0).normal(size=main.network.shape), jnp.float32)
    weak, strong = main.denoiser.given(None)(x, 1.0), main.denoiser.given(2)(x, 1.0)
    assert float(jnp.abs(strong - weak).max()) > 1e-3
    np.testing.assert_allclose(found.denoiser.given(2)(x, 1.0), weak + 2.5 * (strong - weak), rtol=1e-4, atol=1e-4)
    control = random_like(found.denoiser.given(2), jax.random.key(0))
    assert (
        isinstance(control, Guided) and float(jnp.abs(control(x, 1.0) - found.denoiser.given(2)(x, 1.0)).max()) > 1e-3
    )


def test_a_dry_run_counts_both_networks():
    alone, both = planned(UNTRAINED), planned(UNTRAINED, guidance=OPTIONS)
    costs = [evaluation_cost(network, "sampling", 10, 4) for network in (alone, both)]
    assert costs[1].flop == pytest.approx(2 * costs[0].flop, rel=0.01)
    assert costs[1].memory > 1.5 * costs[0].memory


def test_a_probe_samples_with_both_networks():
    both = planned(UNTRAINED, guidance=OPTIONS)
    program, (denoiser, *rest) = sampling_cost(both, 4, 35, 2).probe.make(2)
    filled = jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype) if hasattr(leaf, "shape") else leaf, denoiser
    )
    assert isinstance(filled, Guided) and program(filled, *rest)[0].shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("checkpoint", "guide", "line"),
    [
        (UNTRAINED, "nothing.npz", "guide = 'nothing.npz': must be one of"),
        (UNTRAINED, "larger", r"guide = .*: shape = \(16, 16, 1\): must be that of --checkpoint, \(8, 8, 1\)"),
        (UNTRAINED, "other-classes", "guide = .*: classes = 4: must be 3 as of --checkpoint, or 0"),
        (
            UNTRAINED,
            "no-class",
            "guide = 'no-class': must be another network .autoguidance., as that of --checkpoint knows",
        ),
        ("free", "no-class", "guide = 'no-class': must be another network, as that of --checkpoint has no classes"),
        (
            "edm-cifar10-32x32-uncond-vp.pkl",
            UNTRAINED,
            "checkpoint = 'edm-cifar10-32x32-uncond-vp.pkl': must be at hand",
        ),
    ],
)
def test_a_guide_that_does_not_fit_is_refused_in_one_line(networks, checkpoint, guide, line):
    names = {name: networks(name) for name in ("larger", "other-classes", "free")}
    options = replace(OPTIONS, guide=names.get(guide, guide))
    with pytest.raises(InputError, match=line):
        planned(names.get(checkpoint, checkpoint), guidance=options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"guidance": 2.0}, "guidance = 2.0: must be left out without a guide"),
        ({"guidance_interval": (1.0, 2.0)}, r"guidance_interval = \(1.0, 2.0\): must be left out without a guide"),
        ({"guide": UNTRAINED}, "guidance = 1.0: must be other than 1"),
        ({"guide": UNTRAINED, "guidance": float("nan")}, "guidance = nan: must be"),
        (
            {"guide": UNTRAINED, "guidance": 2.0, "guidance_interval": (2.0, 1.0)},
            r"guidance_interval = \(2.0, 1.0\): must",
        ),
    ],
)
@pytest.mark.parametrize("study", [audit, concentration, hidden_gaussian, molrg, universality, sample])
def test_studies_have_the_options_of_guidance(study, options, line):
    config = study.STUDY.config if hasattr(study, "STUDY") else study.Config
    with pytest.raises(InputError, match=line):
        config(**options)


@pytest.mark.parametrize(
    ("study", "options", "beside"),
    [
        (audit, {"samples": "images.npz"}, "--samples and no --checkpoint"),
        (concentration, {"samples": "images.npz"}, "--samples"),
        (universality, {"samples": "images.npz"}, "--samples"),
        (universality, {"train": True}, "--train"),
    ],
)
def test_a_guide_without_a_network_to_guide_is_refused(study, options, beside):
    given = {"guide": UNTRAINED, "guidance": 2.0}
    study.STUDY.config(**given)
    with pytest.raises(InputError, match=f"guide = 'untrained': must be left out with {beside}: no network"):
        study.STUDY.config(**given, **options)
