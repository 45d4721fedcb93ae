"""Belief propagation in the random hierarchy model against the enumeration of all its sequences, in float64."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from dgu.core.errors import InputError
from dgu.models import EmpiricalDenoiser, RandomHierarchy
from dgu.testing import check_posterior_mean

KEY = jax.random.key(5)
CALL = jax.jit(lambda law, x, sigma: (law(x, sigma), law.responsibilities(x, sigma), law.log_density(x, sigma)))


def sequences(law, label):
    """All leaves that a class may have, each as likely, by recursion."""
    rules = np.asarray(law.rules)

    def below(symbol, level):
        if level == len(rules):
            return [(symbol,)]
        return [
            sum(parts, ())
            for rule in rules[level, symbol]
            for parts in product(*(below(child, level + 1) for child in rule))
        ]

    return below(label, 0)


def enumerated(law):
    """Classes, one-hot codes and weights of all sequences."""
    parts = [sequences(law, label) for label in range(law.shape[1])]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    weights = np.concatenate([np.full(len(part), w / len(part)) for w, part in zip(np.asarray(law.weights), parts)])
    return labels, np.eye(law.shape[1])[np.concatenate([np.array(part) for part in parts])], weights


LAWS = {
    "binary": dict(depth=2, branching=2, symbols=3, rules=2),
    "deeper": dict(depth=3, branching=2, symbols=3, rules=2),
    "ternary": dict(depth=2, branching=3, symbols=2, rules=3),
}


@pytest.mark.parametrize("name", LAWS)
def test_belief_propagation_equals_enumeration(name, x64):
    law = RandomHierarchy.random(KEY, **LAWS[name])
    law = RandomHierarchy(jnp.linspace(1.0, 2.0, law.shape[1]), law.rules)
    labels, codes, weights = enumerated(law)
    assert len({code.tobytes() for code in codes}) == len(codes)  # No two sequences are the same.
    rng = np.random.default_rng(0)
    for sigma in (0.05, 0.4, 1.0, 5.0):
        x = codes[rng.integers(len(codes))] + sigma * rng.normal(size=law.shape)
        logs = np.log(weights) - np.square(x - codes).sum((1, 2)) / (2 * sigma**2)
        share = softmax(logs)
        mean, classes, density = CALL(law, jnp.asarray(x), sigma)
        np.testing.assert_allclose(mean, np.einsum("k,kpa->pa", share, codes), atol=1e-12)
        np.testing.assert_allclose(classes, np.bincount(labels, share, law.shape[1]), atol=1e-12)
        exact = logsumexp(logs) - np.log(weights.sum()) - x.size / 2 * np.log(2 * np.pi * sigma**2)
        assert float(density) == pytest.approx(exact, abs=1e-9)


def test_one_class_and_no_noise(x64):
    law = RandomHierarchy.random(KEY, **LAWS["deeper"])
    _, codes, _ = enumerated(law)
    of_class = np.eye(3)[np.array(sequences(law, 1))]
    x = jnp.asarray(codes[7] + 0.8 * np.random.default_rng(1).normal(size=law.shape))
    mean, classes, _ = CALL(law.given(1), x, 0.8)
    points = jax.jit(lambda law, x, sigma: law(x, sigma))(EmpiricalDenoiser(of_class), x, 0.8)
    np.testing.assert_allclose(mean, points, atol=1e-12)
    np.testing.assert_allclose(classes, [0, 1, 0], atol=1e-15)
    np.testing.assert_array_equal(CALL(law, jnp.asarray(codes[7]), 0.0)[0], codes[7])


def test_draws_are_sequences_of_their_class(x64):
    law = RandomHierarchy.random(KEY, **LAWS["binary"])
    keys = jax.random.split(KEY, 2400)
    drawn = np.asarray(jax.jit(jax.vmap(law.draw))(keys))
    marks = np.asarray(jax.jit(jax.vmap(law.draw_label))(keys))
    labels, codes, weights = enumerated(law)
    which = np.argmax(np.einsum("npa,kpa->nk", drawn, codes), axis=1)
    np.testing.assert_array_equal(drawn, codes[which])
    np.testing.assert_array_equal(marks, labels[which])
    counts = np.bincount(which, minlength=len(codes))
    assert np.abs(counts - 2400 * weights).max() < 5 * np.sqrt(2400 * weights.max())
    given = np.asarray(jax.jit(law.draw)(KEY, jnp.int32(2)))
    assert tuple(given.argmax(1).tolist()) in {tuple(int(a) for a in leaves) for leaves in sequences(law, 2)}


@pytest.mark.slow
def test_it_is_a_posterior_mean(x64):
    law = RandomHierarchy.random(KEY, **LAWS["binary"])
    check_posterior_mean(
        law,
        law.shape,
        KEY,
        dtype=jnp.float64,
        log_density=law.log_density,
        sample_prior=lambda key: law.draw(key).astype(jnp.float64),
        num_prior=256,
        sigmas=(0.3, 1.0, 3.0),
    )


def test_rules_of_a_level_depend_on_it_alone():
    short, long = (RandomHierarchy.random(KEY, depth=depth) for depth in (2, 4))
    np.testing.assert_array_equal(short.rules, long.rules[:2])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"depth": 0}, "depth"),
        ({"branching": 1}, "branching"),
        ({"symbols": 1}, "symbols"),
        ({"symbols": 3, "rules": 4}, "rules"),
        ({"symbols": 64, "branching": 4}, r"symbols \*\* branching"),
    ],
)
def test_bad_input_is_one_line(options, name):
    with pytest.raises(InputError, match=rf"^{name} = "):
        RandomHierarchy.random(KEY, **options)


def test_examples_and_classes_that_do_not_fit_are_refused():
    law = RandomHierarchy.random(KEY)
    with pytest.raises(InputError, match=r"^x.shape = \(4, 4\): must be that of an example, \(8, 4\)"):
        law(jnp.ones((4, 4)), 1.0)
    with pytest.raises(InputError, match=r"^label = 4"):
        law.draw(KEY, 4)
