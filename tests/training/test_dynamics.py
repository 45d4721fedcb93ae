"""Many trainings at once against a slow loop of one, closed-form gradient flow against explicit Euler, and the sheet's
figures.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.distributions import draw_examples
from dgu.models import RandomFeatures, RandomFeatureScore, ShallowNet, two_modes
from dgu.samplers import VESDE, ScoreOfDensity
from dgu.training import (
    Recipe,
    Runs,
    empirical_loss,
    flow_curves,
    gauss_hermite,
    gradient_flow,
    lemma_ratios,
    loss_weight,
    population_loss,
    seeded_runs,
    train_dynamics,
    two_mode_quadrature,
)
from dgu.training.dynamics import _epoch_batches, _order

SDE = VESDE()
BATCHES = jax.jit(_epoch_batches, static_argnums=3)
NET = ShallowNet(width=4)


def at_one(score, aux):
    """A measurement: the score at a point, times what the run was told."""
    return aux * score(jnp.array([1.0]), 0.5)[0]


def make_runs(count=3, n=10, rate=0.3, units=None):
    data = np.random.default_rng(0).normal(size=(count, n, 1)).astype(np.float32)
    units = np.full(count, 4) if units is None else np.asarray(units)
    aux = np.arange(1.0, count + 1, dtype=np.float32)
    return Runs(data, jax.random.split(jax.random.key(0), count), np.full(count, rate, np.float32), units, aux)


def slow_training(run, recipe):
    """One run, step by step in NumPy, on the same batches: gradients by hand."""
    params, frozen = recipe.net.init(jax.random.fold_in(run.keys, 0), run.units)
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    mask = np.asarray(frozen["mask"], np.float64)
    state = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in p.items()}
    path, number = [p], 0
    for epoch in range(recipe.epochs):
        key = jax.random.fold_in(jax.random.fold_in(run.keys, 1), epoch)
        batches = jax.tree.map(np.asarray, BATCHES(key, jnp.asarray(run.data), frozen, recipe))
        for at in range(len(batches["x"])):
            x, e, eps, weight = (batches[name][at].astype(np.float64) for name in ("x", "embedding", "eps", "weight"))
            h = x @ p["x_kernel"] + p["x_bias"] + e @ p["t_kernel"] + p["t_bias"]
            gate = 1 / (1 + np.exp(-h))
            active = h * gate * mask
            out = (active @ p["out_kernel"].T + p["out_bias"]) / recipe.net.divisor
            back = 2 * weight[:, None] * (out + eps) / recipe.net.divisor
            dh = back @ p["out_kernel"] * mask * (gate + h * gate * (1 - gate))
            g = {"x_kernel": x.T @ dh, "x_bias": dh.sum(0), "t_kernel": e.T @ dh, "t_bias": dh.sum(0),
                 "out_kernel": back.T @ active, "out_bias": back.sum(0)}  # fmt: skip
            number += 1
            new = {}
            for name in p:
                if recipe.optimizer == "adam":
                    first, second = state[name]
                    first, second = 0.9 * first + 0.1 * g[name], 0.999 * second + 0.001 * g[name] ** 2
                    state[name] = first, second
                    g[name] = first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
                new[name] = p[name] - float(run.rates) * g[name]
            p = new
        path.append(p)
    return path


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_runs_are_those_of_a_slow_loop(optimizer):
    """Batches of 4 from 10 rows (the last of 2), widths that differ, chunks of 2: run 2 is padded."""
    recipe = Recipe(NET, SDE, epochs=4, every=2, batch_size=4, optimizer=optimizer, t_eps=0.01)
    runs = make_runs(rate=0.3 if optimizer == "sgd" else 0.02, units=[4, 2, 3])
    found = train_dynamics(runs, recipe, at_one, chunk_size=2)
    assert found.epochs.tolist() == [0, 2, 4] and not found.diverged.any()
    assert found.measured.shape == (3, 3) and found.losses.shape == (3, 2)
    for number in range(3):
        one = jax.tree.map(lambda leaf, i=number: leaf[i], runs)
        path = slow_training(one, recipe)
        for name, value in path[-1].items():
            np.testing.assert_allclose(found.params[name][number], value, rtol=2e-4, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(found.measured[number, -1], at_one(found.score(number, recipe), one.aux), rtol=1e-4)
    assert np.abs(found.params["x_kernel"][1, :, 2:]).max() > 0  # switched off, not zero, and not moved:
    start = NET.init(jax.random.fold_in(runs.keys[1], 0), 2)[0]
    np.testing.assert_array_equal(found.params["x_kernel"][1, :, 2:], np.asarray(start["x_kernel"])[:, 2:])
    alone = train_dynamics(jax.tree.map(lambda leaf: leaf[2:], runs), recipe, at_one, chunk_size=2)
    np.testing.assert_allclose(alone.measured[0], found.measured[2], rtol=1e-4)


def test_an_epochs_batches_hold_every_row_once_with_fresh_times_and_noise():
    recipe = Recipe(NET, SDE, epochs=1, every=1, batch_size=4, t_eps=0.01)
    data, (_, frozen) = jnp.arange(10.0)[:, None] * 1000, NET.init(jax.random.key(0))
    one, two = (BATCHES(jax.random.key(k), data, frozen, recipe) for k in (0, 1))
    np.testing.assert_allclose(one["weight"].sum(1), 1, rtol=1e-6)
    rows = np.round(np.asarray(one["x"]).ravel()[:10] / 1000)
    assert sorted(rows) == list(range(10)) and (np.asarray(one["weight"]).ravel()[10:] == 0).all()
    assert not np.allclose(one["eps"], two["eps"]) and not np.allclose(one["embedding"], two["embedding"])
    firsts = np.asarray(jax.jit(jax.vmap(lambda k: _order(k, 6)[0]))(jax.random.split(jax.random.key(5), 3000)))
    assert np.abs(np.bincount(firsts, minlength=6) - 500).max() < 4 * np.sqrt(500)


def test_divergence_is_recorded_at_its_step():
    """A rate that is far too high: the first step that leaves a number that is not finite, and never dropped."""
    recipe = Recipe(NET, SDE, epochs=4, every=1, batch_size=10, t_eps=0.01)  # one step an epoch: measured after each
    runs = make_runs(count=2)
    runs = Runs(runs.data, runs.keys, np.array([0.1, 1e18], np.float32), runs.units, runs.aux)
    found = train_dynamics(runs, recipe, all_finite)
    assert found.diverged.tolist() == [False, True]
    assert found.measured[0].all() and found.measured[1, 0]
    assert found.first_nonfinite.tolist() == [-1, np.argmin(found.measured[1])]
    assert not found.measured[1, found.first_nonfinite[1] :].any()  # and so it stays


def all_finite(score, aux):
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(score.params)]))


def test_weightings():
    t = jnp.array([0.1, 0.7])
    std, g = SDE.std(t), SDE.diffusion(t)
    for name, weight in (("variance", std**2), ("deviation", std), ("likelihood", g**2)):
        np.testing.assert_allclose(loss_weight(SDE, name, t) * std**2, weight, rtol=1e-5)


# --- gradient flow ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow_problem():
    """Random features, 12 examples: empirical and population losses in double precision."""
    with jax.enable_x64(True):
        features = RandomFeatures.draw(jax.random.key(0), 24, reach=3.0)
        features = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), features)
        target, times = two_modes(3.0), np.linspace(0.065, 1.0, 6)
        data = np.asarray(jax.jit(jax.vmap(target.draw))(jax.random.split(jax.random.key(1), 12)), np.float64)
        exact = ScoreOfDensity(target, SDE)
        spread = np.sqrt(1 + np.asarray(SDE.std(times)) ** 2)
        nodes, weights = gauss_hermite(20)
        points = np.concatenate([sign * 3.0 + spread[:, None, None] * nodes[None] for sign in (-1, 1)], axis=1)
        point_weights = np.broadcast_to(np.tile(weights, 2) / 2, points.shape[:2])
        empirical = jax.jit(empirical_loss)(features, SDE, data, times, nodes, weights)
        population = jax.jit(population_loss)(features, SDE, exact, times, points, point_weights)
        return features, data, times, empirical, population


def test_empirical_loss_by_a_slow_sum(flow_problem, x64):
    features, data, times, empirical, _ = flow_problem
    theta = np.random.default_rng(0).normal(size=(1, 24))
    nodes, weights = gauss_hermite(20)
    score = jax.jit(jax.vmap(jax.vmap(RandomFeatureScore(features, jnp.asarray(theta)), (0, None)), (0, None)))
    x = jnp.asarray(data)[:, None, :]
    total = 0.0
    for t in times:
        std = float(SDE.std(t))
        values = score(x + std * jnp.asarray(nodes)[None], t)
        total += np.sum(weights[None, :, None] * np.asarray(std * values + nodes[None]) ** 2) / len(data) / len(times)
    np.testing.assert_allclose(empirical(jnp.asarray(theta)), total, rtol=1e-10)


def test_population_loss_by_a_slow_sum(flow_problem, x64):
    """Against the exact score -x + 3 tanh(3 x / v) over v = 1 + std^2, at the nodes of both modes, in NumPy."""
    features, _, times, _, population = flow_problem
    theta, total = np.random.default_rng(2).normal(size=(1, 24)), 0.0
    nodes, weights = gauss_hermite(20)
    score = jax.jit(jax.vmap(RandomFeatureScore(features, jnp.asarray(theta)), in_axes=(0, None)))
    for t in times:
        std = float(SDE.std(t))
        for sign in (-1, 1):
            x = sign * 3.0 + np.sqrt(1 + std**2) * nodes
            exact = (-x + 3 * np.tanh(3 * x / (1 + std**2))) / (1 + std**2)
            error = np.asarray(score(jnp.asarray(x), t)) - exact
            total += std**2 * np.sum(weights / 2 * error[:, 0] ** 2) / len(times)
    np.testing.assert_allclose(population(jnp.asarray(theta)), total, rtol=1e-9)


def test_closed_form_flow_is_explicit_euler(flow_problem, x64):
    """Euler's scheme with Richardson's extrapolation, from a start other than 0: to 1e-6."""
    empirical = flow_problem[3]
    start = np.random.default_rng(1).normal(size=(1, 24))
    gram, cross = np.asarray(empirical.gram), np.asarray(empirical.cross)
    horizon = 20 / np.linalg.eigvalsh(gram)[-1]

    def euler(steps):
        theta = start.copy()
        for _ in range(steps):
            theta = theta - horizon / steps * 2 * (theta @ gram - cross.T)
        return theta

    coarse, middle, fine = (euler(s) for s in (40_000, 80_000, 160_000))
    first, second = 2 * middle - coarse, 2 * fine - middle
    expected = (4 * second - first) / 3
    found = gradient_flow(empirical, [horizon], start)[0]
    assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected - start)
    np.testing.assert_allclose(gradient_flow(empirical, [0.0], start)[0], start, rtol=1e-12)


def test_lemmas_4_and_5_hold_along_the_flow(flow_problem, x64):
    """|theta| <= |theta_0| + sqrt(tau L(0)); L(tau) - L* <= |theta_0 - theta*|^2 / (2 tau)."""
    _, _, _, empirical, population = flow_problem
    taus = np.logspace(-1, 8, 40)
    for loss in (empirical, population):
        path = gradient_flow(loss, taus)
        norms = np.linalg.norm(path[:, 0], axis=1)
        at = [float(loss(jnp.asarray(theta))) for theta in path]
        start = float(loss(jnp.zeros((1, 24))))
        assert (norms <= np.sqrt(taus * start) * (1 + 1e-9)).all()
        best = np.linalg.lstsq(np.asarray(loss.gram), np.asarray(loss.cross), rcond=1e-12)[0].T
        least = float(loss(jnp.asarray(best)))
        assert (np.array(at) - least <= np.sum(best**2) / (2 * taus) + 1e-9).all()
        assert (np.diff(at) <= 1e-9).all()


def test_flow_curves_hold_together(flow_problem, x64):
    _, _, _, empirical, population = flow_problem
    curves, path = flow_curves(empirical, population, [1.0, 1e3])
    np.testing.assert_allclose(curves.population[1], population(jnp.asarray(path[1])), rtol=1e-9)
    np.testing.assert_allclose(curves.empirical[0], empirical(jnp.asarray(path[0])), rtol=1e-9)
    np.testing.assert_allclose(curves.norm, np.linalg.norm(path[:, 0], axis=1))
    other = gradient_flow(population, [1e3])[0]
    np.testing.assert_allclose(curves.gap[1], np.linalg.norm(path[1] - other), rtol=1e-9)


def test_ratios_of_the_lemmas_are_those_of_their_sides(flow_problem, x64):
    _, _, _, empirical, population = flow_problem
    taus = np.logspace(0, 3, 20)
    curves, path = flow_curves(empirical, population, taus)
    best = gradient_flow(empirical, [1e14])[0]
    losses = np.array([float(empirical(jnp.asarray(theta))) for theta in path])
    excess, start = losses - float(empirical(jnp.asarray(best))), float(empirical(jnp.zeros((1, 24))))
    expected = (
        (excess * 2 * taus).max() / np.sum(best**2),
        np.max(np.linalg.norm(path[:, 0], axis=1) / np.sqrt(taus * start)),
    )
    np.testing.assert_allclose(lemma_ratios(empirical, curves, taus), expected, rtol=1e-4)
    assert 0 < min(expected) and max(expected) <= 1
    with pytest.raises(InputError, match=r"taus.shape = \(19,\): must be \(20,\), as of the curves"):
        lemma_ratios(empirical, curves, taus[1:])


def test_quadrature_of_two_noisy_modes_has_their_moments():
    """Mean 0, variance mu^2 + 1 + sigma^2, fourth moment mu^4 + 6 mu^2 v + 3 v^2 with v = 1 + sigma^2."""
    sigmas = np.array([0.0, 0.5, 4.0])
    points, weights = two_mode_quadrature(3.0, sigmas, nodes=4)
    v = 1 + sigmas**2
    assert points.shape == (3, 8, 1) and weights.shape == (3, 8)
    for power, expected in ((0, 1.0), (1, 0.0), (2, 9 + v), (4, 81 + 54 * v + 3 * v**2)):
        np.testing.assert_allclose(np.sum(weights * points[..., 0] ** power, axis=1), expected, atol=1e-9)
    with pytest.raises(InputError, match=r"sigmas = .* must be 0 or more and finite"):
        two_mode_quadrature(3.0, [-1.0])


def test_seeded_runs_are_addressed_by_target_and_seed():
    """Targets, then units, then seeds; neither units nor the number of examples change what a seed sees."""
    targets, key = [two_modes(3.0), two_modes(5.0)], jax.random.key(7)
    options = {"seeds": 2, "units": [1, 4], "rate": 0.3}
    runs = seeded_runs(key, targets, [{"a": np.zeros(3)}, {"a": np.ones(3)}], n=5, **options)
    assert runs.units.tolist() == [1, 1, 4, 4] * 2 and runs.rates.tolist() == [np.float32(0.3)] * 8
    assert runs.aux["a"].mean(axis=1).tolist() == [0] * 4 + [1] * 4
    for number, (place, seed) in enumerate([(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1), (1, 0), (1, 1)]):
        np.testing.assert_array_equal(
            runs.data[number], draw_examples(targets[place], stream(key, "data", place, seed), 5)
        )
        expected = jax.random.key_data(stream(key, "train", place, seed))
        np.testing.assert_array_equal(jax.random.key_data(runs.keys[number]), expected)
    fewer = seeded_runs(key, targets, [None, None], n=3, **options)
    np.testing.assert_array_equal(fewer.data, runs.data[:, :3])
    with pytest.raises(InputError, match="number of aux = 1: must be 2, one for each target"):
        seeded_runs(key, targets, [None], n=3, **options)


def test_gauss_hermite_is_the_normal_law(x64):
    nodes, weights = gauss_hermite(12)
    np.testing.assert_allclose([weights @ nodes[:, 0] ** k for k in range(7)], [1, 0, 1, 0, 3, 0, 15], atol=1e-12)
    density = integrate.quad(lambda z: np.cos(z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), -12, 12)[0]
    np.testing.assert_allclose(weights @ np.cos(nodes[:, 0]), density, rtol=1e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(NET, SDE, t_eps=1.0), "t_eps = 1.0: must be strictly between 0 and T = 1"),
        (lambda: Recipe(NET, SDE, t_eps=0.0), "t_eps = 0.0: must be strictly between 0 and T = 1"),
        (lambda: Recipe(NET, SDE, epochs=10, every=3), "every = 3: must be a divisor of epochs = 10"),
        (lambda: train_dynamics(make_runs(units=[4, 5, 1]), Recipe(NET, SDE), at_one), r"runs.units = \(1, 5\): must be"),
        (lambda: train_dynamics(make_runs(), Recipe(NET, SDE, epochs=2**31, every=2**31), at_one), "steps of a run = "),
        (lambda: train_dynamics(make_runs(rate=0.0), Recipe(NET, SDE), at_one), "runs.rates = 0.0: must be positive"),
        (lambda: gauss_hermite(0), "nodes = 0: must be"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
