"""Short reprs: one line that says what an object is, whatever the size of its arrays."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dgu import analysis, data, models
from dgu.core.brief import brief, short_repr


@short_repr
@dataclasses.dataclass(frozen=True)
class Held:
    images: np.ndarray
    names: tuple[str, ...] = ()
    hidden: int = dataclasses.field(default=3, repr=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 0, 2)), "float64[3, 0, 2]"),
        (jnp.ones((2,), jnp.bfloat16), "bfloat16[2]"),
        (np.float32(2.5), "float32[]"),
        (0.1, "0.1"),
        ("x" * 300, None),
        ((1, 2.5, "a"), "(1, 2.5, 'a')"),
        ((np.ones(3),), "(float64[3],)"),
        (list(range(200)), "[0, 1, 2, 3, 4, 5, ... 200 in all]"),
        ({"a": {"b": np.ones((2, 3))}, "c": [np.ones(5)]}, "<2 arrays, 11 numbers>"),
        ({"a": np.ones(1)}, "<1 array, 1 number>"),
        ({"one": 1, "two": "x" * 999}, "{one, two}"),
        (np.tanh.__class__, "ufunc"),
        (Held(np.zeros((9, 2)), ("a",)), "Held(images=float64[9, 2], names=('a',))"),
    ],
)
def test_values_are_shown_in_a_few_words(value, text):
    shown = brief(value)
    assert shown == text if text else len(shown) < 100


def test_traced_arrays_have_one_too():
    seen = []
    jax.jit(lambda x: seen.append(repr(Held(x))) or x)(jnp.ones((4, 2)))
    assert seen == ["Held(images=float32[4, 2], names=())"]


def test_what_users_print_first_takes_one_line():
    key = jax.random.key(0)
    images = jax.random.normal(key, (60, 4, 4, 1))
    network = models.load_checkpoint("fashion-mnist-14")
    whole = repr(network)
    assert "265,217 numbers" in whole and "EDMNetwork(ADMConfig, EDMPreconditioning, 14 x 14 x 1, 10 classes)" in whole
    gaussian = models.GaussianDenoiser.fit(images)
    assert repr(gaussian).startswith("GaussianDenoiser(mean=float32[4, 4, 1], ")
    interval = analysis.t_interval(np.arange(400.0).reshape(100, 4))
    for shown in (whole, repr(gaussian), repr(interval), repr(jax.vmap(gaussian.__call__, (0, None)))):
        assert len(shown) < 500 and "\n" not in shown
    assert repr(analysis.t_interval(np.arange(4.0))).startswith("Estimate(value=1.5, low=")


def test_a_set_of_images_says_what_it_holds_and_shows_the_first():
    images = data.load("fashion-mnist-mini", "test", 14)
    assert repr(images) == "ImageSet('fashion-mnist-mini', 'test': 2,000 of 14 x 14 x 1, 10 classes, values -1 to 1)"
    picture = np.asarray(Image.open(io.BytesIO(images._repr_png_())))
    factor, side = 4, 15
    assert picture.shape == (3 * side * factor, 10 * side * factor)
    small = picture[::factor, ::factor]
    twelfth = np.rint((images.images[12, ..., 0] + 1) * 127.5)
    np.testing.assert_array_equal(small[side : 2 * side - 1, 2 * side : 3 * side - 1], twelfth)
    assert (small[side - 1] == 255).all() and (small[:, 2 * side - 1] == 255).all()
    vectors = data.ImageSet.from_arrays(np.random.default_rng(0).standard_normal((5, 3)))
    assert vectors._repr_png_() is None and "5 of 3, 1 classes" in repr(vectors)
