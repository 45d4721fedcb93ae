"""Presets of the training command: the networks and the recipes that were published, and what they cost."""

from dataclasses import replace

import jax
import pytest

from experiments import train as trainer
from experiments.study.flop import matmul_flop


@pytest.mark.parametrize(
    ("preset", "conditional", "parameters", "gflop"),
    [
        ("paper", True, 295_899_267, 219.33),
        ("cifar10-ddpmpp", False, 55_733_891, 42.38),
        ("cifar10-ddpmpp", True, 55_735_299, 42.38),
        ("cifar10-ncsnpp", False, 56_397_827, 42.79),
        ("cifar10-ncsnpp", True, 56_400_643, 42.79),
        ("ffhq-ddpmpp", False, 61_805_571, 83.73),
        ("afhqv2-ncsnpp", False, 62_761_091, 84.86),
    ],
)
def test_presets_are_the_published_networks(preset, conditional, parameters, gflop):
    config = trainer.PRESETS[preset]
    known = {**trainer._SHAPES, **trainer._FILES}
    augment = config.training.augment_probability > 0
    network = trainer.build_network(
        replace(config.network, conditional=conditional), *known.get(config.data, trainer._IMAGENET), augment=augment
    )
    assert network.parameter_count == parameters
    float32 = lambda *shape: jax.ShapeDtypeStruct(shape, jax.numpy.float32)  # noqa: E731
    counted = matmul_flop(network.apply, network.abstract_params, float32(*network.shape), float32())
    assert abs(counted / (gflop * 1e9) - 1) < 0.005


def test_published_presets_have_the_published_recipe():
    """Duration, batch, learning rate, half-life of the average, dropout, augmentation, 16-bit floats and loss
    scaling.
    """
    expected = {
        "paper": (2.5e6, 4096, 1e-4, 5e4, 0.10, 0, "bfloat16", 100),
        "cifar10-ddpmpp": (2e5, 512, 1e-3, 500, 0.13, 0.12, "float32", 1),
        "cifar10-ncsnpp": (2e5, 512, 1e-3, 500, 0.13, 0.12, "float32", 1),
        "ffhq-ddpmpp": (2e5, 256, 2e-4, 500, 0.05, 0.15, "float32", 1),
        "ffhq-ncsnpp": (2e5, 256, 2e-4, 500, 0.05, 0.15, "float32", 1),
        "afhqv2-ddpmpp": (2e5, 256, 2e-4, 500, 0.25, 0.15, "float32", 1),
        "afhqv2-ncsnpp": (2e5, 256, 2e-4, 500, 0.25, 0.15, "float32", 1),
    }
    assert trainer.PRESETS.keys() == {"smoke", "default", "default-edm2"} | expected.keys() | EDM2.keys()
    for name, values in expected.items():
        t, n = trainer.PRESETS[name].training, trainer.PRESETS[name].network
        assert values == (
            *(t.duration_kimg, t.batch_size, t.learning_rate, t.ema_halflife_kimg, n.dropout, t.augment_probability),
            *(n.compute_dtype, t.loss_scaling),
        )  # fmt: skip


#: Table 6 of arXiv 2312.02696: channels, learning rate, dropout, training images in units of 2^20.
EDM2 = {
    "imagenet64-edm2-xs": (128, 0.012, 0.0, 1024),
    "imagenet64-edm2-s": (192, 0.010, 0.0, 1024),
    "imagenet64-edm2-m": (256, 0.009, 0.1, 2048),
    "imagenet64-edm2-l": (320, 0.008, 0.1, 1024),
    "imagenet64-edm2-xl": (384, 0.007, 0.1, 640),
}


def test_edm2s_presets_have_its_recipe():
    for name, values in EDM2.items():
        t, n = trainer.PRESETS[name].training, trainer.PRESETS[name].network
        mebi_images = t.duration_kimg * 1000 / 2**20
        assert values == (n.model_channels, t.learning_rate, n.dropout, mebi_images)
        assert (t.batch_size, t.p_mean, t.p_std, t.adam_b2, t.loss) == (2048, -0.8, 1.6, 0.99, "edm2")
        assert (t.rampup_kimg, t.decay_kimg * 1000 / t.batch_size, t.power_ema_stds) == (10_000, 35_000, (0.05, 0.1))
    small = trainer.build_network(trainer.PRESETS["imagenet64-edm2-s"].network, *trainer._IMAGENET, augment=False)
    assert small.parameter_count / 1e6 == pytest.approx(280.21, abs=0.005)


@pytest.mark.slow
def test_the_papers_sizes_are_costed_without_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    costs = []
    original = trainer.dry_run
    monkeypatch.setattr(trainer, "dry_run", lambda config: costs.extend(original(config)) or costs)
    trainer.main(["--preset", "paper", "--dry-run"])
    out, first = capsys.readouterr().out, costs[0].memory
    assert "taken for 3 x 64 x 64 images of 1000 classes" in out and "2,500,001,792" in out
    per_image = costs[1].flop / costs[1].network_evaluations
    assert abs(per_image / 219.33e9 - 1) < 0.005
    assert costs[1].memory == 4 * 295_899_267
    assert not list(tmp_path.iterdir())
    costs.clear()
    trainer.main(["--preset", "paper", "--network.remat", "--dry-run"])
    assert costs[0].memory < 0.2 * first
