"""What studies look at: networks of a dry run and their costs, images of classes, real images, and what "auto" means."""

import dataclasses

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.data import load as load_set
from experiments import subjects
from experiments.concentration import STUDY
from experiments.study.flop import matmul_flop
from experiments.study.run_directory import RunDirectory
from experiments.subjects import (
    BUNDLED_IMAGES,
    CIFAR_10,
    FFHQ_64,
    IMAGENET_64,
    ClassImages,
    auto_images,
    check_shape,
    evaluation_cost,
    given_images,
    load,
    network_images,
    planned,
    real_images,
    sampling_cost,
)
from tests.experiments.universality_study import CLASSES, images, save_images, save_tiny_network


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions", "shape", "classes"),
    [(IMAGENET_64, 295.9, (64, 64, 3), 1000), (FFHQ_64, 62.8, (64, 64, 3), 0), (CIFAR_10, 55.7, (32, 32, 3), 0)],
)
def test_nvidias_networks_have_the_published_sizes(name, millions, shape, classes, tmp_path, monkeypatch):
    """Millions of parameters of ADM, NCSN++ and DDPM++ as the EDM paper gives them, to the last digit."""
    monkeypatch.chdir(tmp_path)
    network = planned(name)
    assert network.shape == shape and network.unet.label_dim == classes
    assert network.parameter_count / 1e6 == pytest.approx(millions, abs=0.06)
    (tmp_path / name).write_bytes(b"no snapshot")  # A file that is there is the network.
    with pytest.raises(InputError, match=f"checkpoint = '{name}'"):
        planned(name)


def test_costs_count_every_evaluation_and_every_stored_number():
    import jax

    network = load(subjects.UNTRAINED).network
    image, number = jax.ShapeDtypeStruct((8, 8, 1), np.float32), jax.ShapeDtypeStruct((), np.float32)
    label = jax.ShapeDtypeStruct((), np.int32)
    flop = matmul_flop(network.apply, network.abstract_params, image, number, label)
    cost = sampling_cost(network, 6, 35, 3)
    assert (cost.stage, cost.network_evaluations, cost.flop) == ("sampling", 210, 210 * flop)
    assert cost.disk == 6 * 64 * 4
    assert cost.memory == evaluation_cost(network, "maps", 1, 3).memory > 4 * network.parameter_count
    # Three evaluations make a sample of two Heun steps, of which a batch is timed.
    assert (cost.probe.batch, cost.probe.examples) == (3, 70)
    program, shapes = cost.probe.make(5)
    given = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype) if hasattr(leaf, "shape") else leaf, shapes[0])
    assert program(given, *shapes[1:])[0].shape == (5, 8, 8, 1)


# --- images by class -------------------------------------------------------------------------------------------------


def test_given_images_are_the_first_of_each_class(tmp_path):
    pixels, labels = images(9)
    order = np.random.default_rng(1).permutation(len(labels))
    pixels, labels = pixels[order], labels[order]
    path = save_images(tmp_path / "set.npz", pixels, labels, class_names=np.asarray(CLASSES))
    known, found = given_images(path, (3, 0), most=5, fewest=2)
    assert known.labels == (3, 0) and known.class_names == ("west", "north") and known.names == CLASSES
    assert known.shape == (6, 6, 1) and known.row_count == 36
    for number, label in enumerate((3, 0)):
        own = [row for row, of in enumerate(labels) if of == label][:5]
        assert known.rows[number].tolist() == own
        np.testing.assert_allclose(found[number], pixels[own], atol=1e-6)
    assert given_images(path, None, most=100, fewest=9)[1].shape == (4, 9, 6, 6, 1)


def test_given_images_that_are_too_few_are_refused(tmp_path):
    path = save_images(tmp_path / "set.npz", *images(9), class_names=np.asarray(CLASSES))
    line = f"samples = '{path}': images of class north = 9: must be at least 10 in each class for two halves"
    with pytest.raises(InputError) as error:
        given_images(path, None, most=20, fewest=10, why="for two halves")
    assert str(error.value) == line
    np.savez(tmp_path / "alone.npz", images=images(9)[0])
    with pytest.raises(InputError, match="must be images with labels of two or more classes"):
        given_images(str(tmp_path / "alone.npz"), None, most=2, fewest=1, least_classes=2)


def test_images_of_a_network_come_class_by_class(tmp_path):
    network = load(save_tiny_network(tmp_path / "network.npz")).network
    known = network_images(network, CLASSES, (2, 1), 3)
    assert known.rows.tolist() == [[0, 1, 2], [3, 4, 5]] and known.row_count == 6 and known.shape == (6, 6, 1)
    assert known.class_names == ("south", "east")
    assert network_images(network, (), None, 3).class_names == ("class 0", "class 1", "class 2", "class 3")
    with pytest.raises(InputError, match=r"classes = \(1,\): must be two or more different classes from 0\.\.3"):
        network_images(network, CLASSES, (1,), 3, least_classes=2)
    unconditional = load(save_tiny_network(tmp_path / "other.npz", label_dim=0)).network
    assert network_images(unconditional, (), None, 3).labels == (0,)


def test_real_images_are_equally_many_of_each_class_studied(tmp_path):
    known = ClassImages((3, 0), CLASSES, (6, 6, 1), np.zeros((2, 1), int), 2)
    pixels, labels = images(12)
    kept = np.flatnonzero((labels != 3) | (np.arange(len(labels)) >= len(labels) - 9))  # Nine of class 3.
    path = save_images(tmp_path / "real.npz", pixels[kept], labels[kept], class_names=np.asarray(CLASSES))
    found = real_images(known, path, "train", None)
    np.testing.assert_allclose(found[0], pixels[labels == 3][-9:], atol=1e-6)
    np.testing.assert_allclose(found[1], pixels[labels == 0][:9], atol=1e-6)
    assert real_images(known, None, "train", None) is None
    assert real_images(known, "auto", "test", 14) is None  # The bundled images have other classes.
    smaller = dataclasses.replace(known, shape=(3, 3, 1))
    with pytest.raises(InputError, match=r"real = .*must be 4 classes of images of shape \(3, 3, 1\) like the samples"):
        real_images(smaller, path, "train", None)
    assert real_images(smaller, path, "train", 3).shape == (2, 9, 3, 3, 1)


def test_real_images_are_the_bundled_ones_where_the_classes_are_theirs():
    bundled = load_set(BUNDLED_IMAGES, "test", 14)
    known = ClassImages((1, 2), tuple(bundled.class_names), (14, 14, 1), np.zeros((2, 1), int), 2)
    found = real_images(known, "auto", "test", 14)
    np.testing.assert_array_equal(found[1], bundled.images[bundled.labels == 2])


def test_images_of_another_shape_than_the_networks_are_refused():
    check_shape("data", "set.npz", np.zeros((2, 6, 6, 1)), (6, 6, 1))
    with pytest.raises(InputError) as error:
        check_shape("data", "set.npz", np.zeros((2, 5, 6, 1)), (6, 6, 1))
    line = "data = 'set.npz': images of shape = (5, 6, 1): must be (6, 6, 1), the network's (see --size)"
    assert str(error.value) == line


def test_auto_is_fashion_mnist_or_the_bundled_images_and_noted(tmp_path):
    def read(source):
        if source in absent:
            raise InputError(absent[source])
        return source.upper()

    absent = {"fashion-mnist": "data = 'fashion-mnist': was not found on this machine"}
    with RunDirectory.hold(tmp_path, Config()) as directory:
        assert auto_images("data", read) == (BUNDLED_IMAGES, BUNDLED_IMAGES.upper())
        assert directory.inputs.stored()["data = 'auto'"]["content"] == BUNDLED_IMAGES
        absent.clear()
        with pytest.raises(InputError, match="data = 'auto': must be what the run in"):
            auto_images("data", read)
    assert auto_images("data", read) == ("fashion-mnist", "FASHION-MNIST")
    absent["fashion-mnist"] = "data = 'fashion-mnist': is damaged"
    with pytest.raises(InputError, match="is damaged"):
        auto_images("data", read)


# --- a study ---------------------------------------------------------------------------------------------------------


def test_parts_that_follow_edms_steps_skip_another_sampler(tmp_path, capsys):
    other = "--preset smoke --sampler.method dpm-solver --sampler.churn 0 --parts norms spectra".split()
    claims = STUDY.main([*other, "--out", str(tmp_path / "run")])
    declared = next(part for part in STUDY.parts if part.name == "spectra").declared(STUDY.presets["smoke"].spectra)
    assert {claim.id for claim in claims} == {claim.id for claim in declared}
    why = "Skipped norms: it looks at the steps of --sampler.method edm, not dpm-solver."
    assert why in (tmp_path / "run/report.html").read_text()
    capsys.readouterr()
    STUDY.main([*other, "--dry-run"])
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["sampling"][1] == f"{3 * 64 * 4:,}" and "norms" not in rows
