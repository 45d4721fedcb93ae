"""Sets that are to be compared: what cannot be measured, what is of another kind, and copies by mistake are refused."""

import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.data.comparable import check_apart, check_comparable, check_images


def draw(seed, count, side=4):
    return np.random.default_rng(seed).uniform(-1, 1, (count, side, side, 1)).astype(np.float32)


def changed(images, number, value):
    images = images.copy()
    images[number] = value
    return images


IMAGES, OTHERS = draw(0, 200), draw(1, 300)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (IMAGES[:0], "mine: number of images = 0: must be 1 or more"),
        (changed(IMAGES, (7, 1, 2), np.nan), "mine: image 7 = 'NaN or infinite': must be finite"),
        (changed(IMAGES, 5, 0.25), "mine: images of a single colour = 1: must be 0 (the first is number 5)"),
        (np.repeat(IMAGES[:1], 9, axis=0), "mine: images = 'all the same': must be different"),
    ],
)
def test_sets_that_cannot_be_measured(images, text):
    with pytest.raises(InputError) as error:
        check_images("mine", images)
    assert str(error.value) == text


def test_one_image_of_a_single_colour_in_a_thousand_is_let_through():
    many = draw(2, 1000)
    check_images("mine", IMAGES)
    check_images("mine", changed(many, 3, 0.25))
    with pytest.raises(InputError, match="single colour = 2"):
        check_images("mine", changed(many, [3, 4], 0.25))


def test_another_shape_and_another_contrast_are_refused_with_advice():
    check_comparable(("mine", IMAGES), ("theirs", OTHERS))
    check_comparable(("mine", IMAGES / 2), ("theirs", OTHERS))
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (0, 2), (0, 0)))
    with pytest.raises(InputError) as error:
        check_comparable(("mine", wide), ("theirs", OTHERS), shape_advice="reduce them")
    assert str(error.value) == "mine: shape of an image = (4, 6, 1): must be (4, 4, 1), as in theirs (reduce them)"
    for given, other in ((IMAGES / 3, OTHERS), (IMAGES, OTHERS / 3)):
        with pytest.raises(InputError, match=r"^mine: range of the pixels .* must be about that of theirs, "):
            check_comparable(("mine", given), ("theirs", other))
    with pytest.raises(InputError, match=r"\(scale them\)$"):
        check_comparable(("mine", IMAGES / 3), ("theirs", OTHERS), range_advice="scale them")


def test_a_part_of_the_other_set_is_refused():
    shuffled = np.random.default_rng(3).permutation(OTHERS)
    for given, how in (
        (OTHERS[40:60], "20 of 20 .*, in its order"),
        (shuffled[:100], "100 of 100 .*, none of them twice"),
    ):
        with pytest.raises(InputError, match=f"^mine: {how}: must be another set$"):
            check_apart(("mine", given), ("theirs", OTHERS))
    half = np.concatenate([OTHERS[:50], IMAGES[:50]])
    with pytest.raises(InputError, match=r"^mine: 50 of 100 "):
        check_apart(("mine", half), ("theirs", OTHERS))


def test_fresh_images_and_a_model_that_repeats_training_images_are_let_through():
    rng = np.random.default_rng(4)
    check_apart(("mine", IMAGES), ("theirs", OTHERS))
    check_apart(("mine", OTHERS[rng.integers(0, len(OTHERS), 200)]), ("theirs", OTHERS))
    check_apart(("mine", OTHERS[:7]), ("theirs", OTHERS))
    check_apart(("mine", np.concatenate([OTHERS[:49], IMAGES[:51]])), ("theirs", OTHERS))


@pytest.mark.parametrize("check", [check_comparable, check_apart])
def test_sets_without_images_or_pixels_are_refused(check):
    for empty, said in ((IMAGES[:0], "a: number of images = 0"), (IMAGES[:, :0], r"a: shape = \(200, 0, 4, 1\)")):
        with pytest.raises(InputError, match=said):
            check(("a", empty), ("b", IMAGES))
    with pytest.raises(InputError, match=r"a: dtype = .*float64.*: must be float32, as in b"):
        check_apart(("a", IMAGES.astype(np.float64)), ("b", IMAGES))
