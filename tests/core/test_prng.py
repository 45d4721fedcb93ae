"""Keys of any generator become threefry's: a fresh one that of its seed, others independent ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.keys import threefry


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_a_fresh_key_becomes_that_of_its_seed(kind):
    for seed in (0, 3, 2**31 + 5):
        wanted = words(jax.random.key(seed, impl="threefry2x32"))
        key = jax.random.key(seed, impl=kind)
        raw = jax.random.key_data(key)
        assert words(threefry(key)) == words(threefry(raw)) == words(threefry(np.asarray(raw))) == wanted
        assert words(jax.jit(threefry)(key)) == wanted


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_split_and_folded_keys_stay_apart(kind):
    key = jax.random.key(3, impl=kind)
    made = [*jax.random.split(key, 50), *jax.random.split(jax.random.fold_in(key, 7), 50), key]
    found = [tuple(words(threefry(one))) for one in made]
    assert len(set(found)) == len(made)
    # Alone, in an array and under vmap they become the same.
    together = jnp.stack(made)
    assert (
        words(threefry(together, shape=(101,))) == words(jax.vmap(threefry)(together)) == [list(one) for one in found]
    )


def test_a_threefry_key_stays_itself():
    key = jax.random.key(3, impl="threefry2x32")
    assert threefry(key) is key
    assert words(threefry(jax.random.key_data(key))) == words(key)


@pytest.mark.parametrize("wrong", [3, 3.0, None, "key", np.zeros(2, np.int32), np.zeros(3, np.uint32), jnp.zeros(2)])
def test_what_is_no_key_is_refused(wrong):
    with pytest.raises(InputError, match=r"^of_noise = .*: must be a key, as jax.random.key makes it"):
        threefry(wrong, "of_noise")


def test_the_number_of_keys_is_held_to():
    several = jax.random.split(jax.random.key(0), 3)
    assert threefry(several, shape=None) is several
    with pytest.raises(InputError, match=r"^key: has shape \(3,\); must be one key$"):
        threefry(several)
    with pytest.raises(InputError, match=r"^keys: has shape \(3,\); must be keys of shape \(2,\)$"):
        threefry(several, "keys", shape=(2,))
