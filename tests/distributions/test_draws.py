"""Many draws and densities at once are those of one example after another; two boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.distributions import draw_examples, log_densities, two_boxes
from dgu.models import two_modes
from dgu.samplers import VESDE, ScoreOfDensity

KEY = jax.random.key(5)


def test_examples_are_addressed():
    target = two_modes(3.0, dimension=2)
    found = draw_examples(target, KEY, 6)
    draw = jax.jit(target.draw)
    expected = [draw(jax.random.fold_in(KEY, i)) for i in range(6)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(draw_examples(target, KEY, 4), found[:4])


def test_densities_of_rows_are_those_of_each():
    target, x = two_modes(3.0), np.linspace(-4, 4, 5, dtype=np.float32)[:, None]
    expected = [
        np.log((np.exp(-((v - 3) ** 2) / 10) + np.exp(-((v + 3) ** 2) / 10)) / 2 / np.sqrt(10 * np.pi)) for v in x[:, 0]
    ]
    np.testing.assert_allclose(log_densities(target, x, 2.0), expected, rtol=1e-5)
    exact = ScoreOfDensity(target, VESDE())
    np.testing.assert_allclose(
        log_densities(exact, x, 0.4), log_densities(target, x, float(VESDE().std(0.4))), rtol=1e-5
    )


def test_two_boxes_are_mirror_images_of_one_volume():
    for d in (1, 3):
        boxes = two_boxes(d)
        draws = np.asarray(draw_examples(boxes, KEY, 2000))
        assert draws.shape == (2000, d) and abs((draws[:, 0] > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)
        assert 1 <= np.abs(draws[:, 0]).min() < 1.01 and 2.99 < np.abs(draws[:, 0]).max() <= 3
        assert (np.abs(draws[:, 1:]) <= 1).all()
        np.testing.assert_allclose(log_densities(boxes, draws[:9], 0.0), -np.log(2 * 2.0**d), rtol=1e-5)
        assert np.isneginf(log_densities(boxes, jnp.zeros((1, d)), 0.0)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_examples(two_modes(3.0), KEY, 0), "count = 0: must be a whole number"),
        (lambda: two_boxes(0), "dimension = 0: must be a whole number"),
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
