"""Augmentation against a slow independent implementation, exact flips, and the law of its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgu.training.augment import AUGMENT_DIM, SYM6, Geometry, augment, draw_geometry, transform

H, W, C = 7, 10, 2
NAMES = Geometry._fields


TRANSFORM = jax.jit(transform)
AUGMENT = jax.jit(jax.vmap(augment, in_axes=(None, 0, None)))
DRAW = jax.jit(jax.vmap(draw_geometry, in_axes=(0, None)))


def geometry(**values):
    return Geometry(**{name: jnp.asarray(float(values.get(name, 0))) for name in NAMES})


def picture(seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (H, W, C)))


def slow_transform(image, g):
    """Section by section, in loops: mirror, stuff with zeros and filter, look up four neighbours each, filter and thin
    out.
    """
    image = np.asarray(image, np.float64)
    image = image[:, ::-1] if g["flip_x"] else image
    image = image[::-1] if g["flip_y"] else image
    padded = np.pad(image, ((H - 1, H - 1), (W - 1, W - 1), (0, 0)), mode="reflect")

    def filtered(block, axis, taps):
        return np.apply_along_axis(np.convolve, axis, block, taps)

    stuffed = np.zeros((2 * padded.shape[0] - 1, 2 * padded.shape[1] - 1, C))
    stuffed[::2, ::2] = padded
    doubled = filtered(filtered(stuffed, 0, SYM6), 1, SYM6)[5:-5, 5:-5]

    def rotation(angle):
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    grow, stretch = 2 ** (0.2 * g["scale"]), 2 ** (0.2 * g["stretch"])
    linear = (
        np.eye(2)
        / grow
        @ rotation(g["rotation"])
        @ rotation(-g["axis"])
        @ np.diag([1 / stretch, stretch])
        @ rotation(g["axis"])
    )
    moved = np.zeros((2 * (H + 6), 2 * (W + 6), C))
    for row in range(moved.shape[0]):
        for column in range(moved.shape[1]):
            place = np.array([column - (moved.shape[1] - 1) / 2, row - (moved.shape[0] - 1) / 2])
            place = (place + 0.5) / 2 - np.array([g["shift_x"] * W, g["shift_y"] * H]) / 8
            x, y = 2 * (linear @ place) - 0.5 + np.array([doubled.shape[1] - 1, doubled.shape[0] - 1]) / 2
            for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= j < doubled.shape[0] and 0 <= i < doubled.shape[1]:
                        moved[row, column] += (1 - abs(x - i)) * (1 - abs(y - j)) * doubled[j, i]
    backwards = SYM6[::-1]
    thinned = filtered(filtered(moved, 0, backwards), 1, backwards)[6:, 6:][::2, ::2]
    return thinned[3 : 3 + H, 3 : 3 + W]


numbers = st.floats(-2.5, 2.5)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries({name: st.sampled_from([0.0, 1.0]) if name.startswith("flip") else numbers for name in NAMES})
)
def test_affine_map_equals_the_slow_one(x64, values):
    image = picture()
    ours = TRANSFORM(image, geometry(**values))
    if all(values[name] == 0 for name in NAMES[2:]):
        return
    np.testing.assert_allclose(ours, slow_transform(image, values), atol=1e-9)


def test_float32_is_near(x64):
    values = dict(scale=1.0, rotation=2.0, stretch=-1.0, axis=0.5, shift_x=0.7, shift_y=-1.2)
    small = Geometry(*(value.astype(jnp.float32) for value in geometry(**values)))
    ours = TRANSFORM(picture().astype(jnp.float32), small)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, slow_transform(picture(), values | {"flip_x": 0, "flip_y": 0}), atol=1e-5)


def test_flips_are_exact_and_nothing_is_nothing():
    image = picture().astype(jnp.float32)
    for x in (0, 1):
        for y in (0, 1):
            expected = image[:: -1 if y else 1, :: -1 if x else 1]
            np.testing.assert_array_equal(TRANSFORM(image, geometry(flip_x=x, flip_y=y)), expected)
    images, labels = AUGMENT(image, jax.random.split(jax.random.key(0), 20), 0.0)
    np.testing.assert_array_equal(images, np.broadcast_to(image, images.shape))
    assert labels.shape == (20, AUGMENT_DIM) and not labels.any()


def test_a_shift_by_whole_pixels_moves_them(x64):
    """8 / W eighths of the width are one pixel: content moves right; the border is mirrored in."""
    image = picture()
    moved = TRANSFORM(image, geometry(shift_x=8 / W))
    np.testing.assert_allclose(moved[:, 1:], image[:, :-1], atol=1e-10)
    np.testing.assert_allclose(moved[:, 0], image[:, 1], atol=1e-10)


def test_a_quarter_turn_moves_pixels(x64):
    image = picture()[:, :H]
    turned = TRANSFORM(image, geometry(rotation=np.pi / 2))
    # Not exactly: the filter is not quite symmetric.
    error = {turns: np.abs(turned - np.rot90(image, turns)).mean() for turns in (1, -1)}
    assert error[1] < 0.08 < 0.3 < error[-1]


def test_draws_have_the_stated_law():
    p, n = 0.3, 20_000
    g = DRAW(jax.random.split(jax.random.key(1), n), p)

    def share(values, expected):
        assert abs(np.mean(values) - expected) < 5 * np.sqrt(expected * (1 - expected) / n)

    share(g.flip_x, 0.5)
    share(g.flip_y, p / 2)
    for name in ("scale", "rotation", "stretch", "shift_x"):
        share(np.asarray(getattr(g, name)) != 0, p)
    share(np.asarray(g.axis) != 0, p / 2)
    assert ((np.asarray(g.shift_x) != 0) == (np.asarray(g.shift_y) != 0)).all()
    assert ((np.asarray(g.axis) != 0) <= (np.asarray(g.stretch) != 0)).all()
    for name in ("scale", "stretch", "shift_x", "shift_y"):
        active = np.asarray(getattr(g, name))
        active = active[active != 0]
        assert abs(active.mean()) < 5 / np.sqrt(len(active)) and abs(active.var() - 1) < 5 * np.sqrt(2 / len(active))
    for name in ("rotation", "axis"):
        active = np.asarray(getattr(g, name))
        active = active[active != 0]
        assert np.abs(active).max() <= np.float32(np.pi)
        assert abs(active.var() - np.pi**2 / 3) < 5 * np.pi**2 * np.sqrt(4 / 45 / len(active))


def test_labels_are_in_the_references_order():
    g = geometry(flip_x=1, flip_y=1, scale=0.5, rotation=0.3, stretch=-2.0, axis=0.7, shift_x=0.1, shift_y=-0.2)
    expected = [1, 1, 0.5, np.cos(0.3) - 1, np.sin(0.3), -2 * np.cos(0.7), -2 * np.sin(0.7), 0.1, -0.2]
    np.testing.assert_allclose(g.labels, expected, rtol=1e-6)


def test_augment_tells_what_it_did():
    """The label vector and the picture belong to one draw: known labels without a stretch undo to the same picture."""
    image = picture().astype(jnp.float32)
    keys = jax.random.split(jax.random.key(3), 20)
    images, labels = AUGMENT(image, keys, 1.0)
    drawn = DRAW(keys, 1.0)
    np.testing.assert_allclose(labels, drawn.labels, atol=1e-6)
    for number, found in enumerate(images):
        one = Geometry(*(np.asarray(values)[number] for values in drawn))
        np.testing.assert_allclose(found, TRANSFORM(image, one), atol=1e-6)
    assert len(np.unique(np.asarray(images).sum((1, 2, 3)))) == 20


def test_the_filter_is_orthonormal():
    taps = np.asarray(SYM6)
    assert taps.sum() == pytest.approx(np.sqrt(2), abs=1e-9)
    for shift in range(0, 12, 2):
        assert taps[shift:] @ taps[: 12 - shift] == pytest.approx(float(shift == 0), abs=1e-9)
