"""Splits: disjoint, of the sizes asked for, addressed by (seed, replicate, label); shared images are found out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.core.errors import InputError
from dgu.data.splits import SplitSizes, check_disjoint, check_no_duplicates, class_splits, digests, split_classes

SIZES = {"fit": 7, "train": 5, "validation": 2, "test": 4}


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    spare=st.integers(0, 5),
    address=st.tuples(*[st.integers(0, 50)] * 3),
)
def test_parts_have_their_sizes_and_share_nothing(sizes, spare, address):
    wanted = {f"part{number}": size for number, size in enumerate(sizes)}
    parts = class_splits(sum(sizes) + spare, wanted, *address)
    assert {name: len(part) for name, part in parts.items()} == wanted
    rows = np.concatenate(list(parts.values()))
    assert len(set(rows.tolist())) == len(rows) == sum(sizes)
    assert rows.size == 0 or (rows.min() >= 0 and rows.max() < sum(sizes) + spare)


def test_a_split_depends_on_its_address_alone():
    first = class_splits(30, SIZES, 3, 5, 1)
    np.random.default_rng(0).normal(size=10)
    for name, part in class_splits(30, dict(SIZES), 3, 5, 1).items():
        np.testing.assert_array_equal(part, first[name])
    orders = [
        tuple(class_splits(30, SIZES, *address)["fit"]) for address in [(3, 5, 1), (4, 5, 1), (3, 6, 1), (3, 5, 2)]
    ]
    assert len(set(orders)) == 4
    # The three numbers have places of their own: (seed 0, replicate 1) is not (seed 1, replicate 0).
    assert tuple(class_splits(30, SIZES, 0, 1, 0)["fit"]) != tuple(class_splits(30, SIZES, 1, 0, 0)["fit"])


def test_every_image_is_as_likely_in_every_part():
    draws, count = 400, 18
    hits = np.zeros(count)
    for replicate in range(draws):
        hits[class_splits(count, SIZES, 0, replicate, 0)["test"]] += 1
    share = SIZES["test"] / count
    z = (hits - draws * share) / np.sqrt(draws * share * (1 - share))
    assert np.abs(z).max() < 4 and 0.5 < np.sqrt(np.mean(z**2)) < 1.5


def test_too_few_images_are_refused():
    assert class_splits(18, SIZES, 0, 0, 3)
    with pytest.raises(InputError, match=r"^splits = .*18 images a class, but class 3 has only 17$"):
        class_splits(17, SIZES, 0, 0, 3)


@pytest.mark.parametrize("name", ["fit", "train", "validation", "test"])
@pytest.mark.parametrize("size", [1, 0, -3])
def test_sizes_below_two_are_refused_by_name(name, size):
    with pytest.raises(InputError, match=rf"^splits\.{name} = {size}: must be at least 2, below 2\*\*31$"):
        SplitSizes(**{name: size})


def test_sizes_know_their_total_and_order():
    sizes = SplitSizes(5, 4, 3, 2)
    assert sizes.total == 14 and list(sizes.parts().items()) == [
        ("fit", 5),
        ("train", 4),
        ("validation", 3),
        ("test", 2),
    ]


def images(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3, 3, 1)).astype(np.float32)


def test_digests_tell_contents_apart_down_to_one_bit():
    rows = images(50)
    found = digests(rows)
    assert len(np.unique(found)) == 50
    np.testing.assert_array_equal(digests(rows.reshape(50, 9)[::2]), found[::2])  # whatever the shape and strides
    rows[4, 2, 2, 0] = np.nextafter(rows[4, 2, 2, 0], np.float32(9))
    np.testing.assert_array_equal(np.flatnonzero(digests(rows) != found), [4])


def test_duplicates_in_a_pool_are_refused():
    rows = images(20)
    check_no_duplicates(rows, "samples")
    rows[[3, 17]] = rows[5]
    with pytest.raises(InputError, match=r"^samples: 2 of 20 images are exact copies"):
        check_no_duplicates(rows, "samples")


def test_a_planted_shared_image_is_found():
    parts = {name: images(5, seed) for seed, name in enumerate(("fit", "train", "test"))}
    check_disjoint({name: digests(part) for name, part in parts.items()})
    parts["test"][2] = parts["fit"][4]
    with pytest.raises(RuntimeError, match="fit, train, test of a split share images"):
        check_disjoint({name: digests(part) for name, part in parts.items()})
    parts["test"][2] = parts["test"][0]  # twice in one part is as bad
    with pytest.raises(RuntimeError, match="share images"):
        check_disjoint({name: digests(part) for name, part in parts.items()})


def test_classes_are_split_each_by_itself():
    images = np.arange(3 * 20 * 2).reshape(3, 20, 2)
    found = split_classes(images, SIZES, 3, 5)
    assert {part: rows.shape for part, rows in found.items()} == {part: (3, n, 2) for part, n in SIZES.items()}
    for label in range(3):
        for part, places in class_splits(20, SIZES, 3, 5, label).items():
            np.testing.assert_array_equal(found[part][label], images[label, places])
    with pytest.raises(InputError, match="18 images a class"):
        split_classes(images[:, :17], SIZES, 3, 5)
