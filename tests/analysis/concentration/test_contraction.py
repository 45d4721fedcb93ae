"""Expansion of steps and of the sampler against whole Jacobians, exact gains, and the two-point counter-example."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import (
    churn_levels,
    gaussian_path,
    generator_expansion,
    observe_norms,
    pair_distances,
    path_expansion,
    scale_recursion,
    step_expansion,
    top_eigenvalues,
    trace_trajectories,
)
from dgu.analysis.concentration.contraction import gaussian_expansion_errors
from dgu.analysis.concentration.two_points import two_point_gains, two_point_steps
from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.distributions.bases import initial_noise
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, MoLRGDenoiser
from dgu.samplers import Churn, heun, karras_sigmas, sample

EVENT = (3, 2, 1)
D = 6
GRID = karras_sigmas(7)
CHURN = Churn(4.0, 0.05, 50.0, 1.1)
EXACT = {"key": jax.random.key(9), "tolerance": 1e-9, "batch_size": 4}


def planted():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0][:, :4]
    return GaussianDenoiser(rng.standard_normal(EVENT), basis, np.array([9.0, 1.0, 0.2, 0.01]))


def trace(denoiser, churn=CHURN, indices=range(3), grid=GRID, event=EVENT, batch_size=4, **options):
    options |= {"shape": event, "churn": churn, "dtype": jnp.float64, "batch_size": batch_size}
    return trace_trajectories(denoiser, jax.random.key(1), indices, grid, **options)


@pytest.mark.parametrize("churn", [Churn(), CHURN], ids=["deterministic", "churn"])
def test_a_gaussians_expansion_is_the_exact_gain(x64, churn):
    denoiser = planted()
    exact = gaussian_path(denoiser, GRID, churn)
    path = trace(denoiser, churn)
    steps = step_expansion(denoiser, path, **EXACT)
    np.testing.assert_allclose(steps.values, np.tile(exact.step_expansion, (3, 1)), rtol=1e-6)
    assert (steps.values < 1).all() and (steps.errors < 1e-6).all()
    np.testing.assert_allclose(path_expansion(denoiser, path, **EXACT).values, exact.path_expansion, rtol=1e-6)
    whole = generator_expansion(denoiser, path, **EXACT)
    np.testing.assert_allclose(whole.values, exact.generator_expansion, rtol=1e-6)
    # The direction of largest variance is the leading mode.
    leading = np.abs(whole.directions.reshape(3, D) @ np.asarray(denoiser.basis)[:, 0])
    np.testing.assert_allclose(leading, 1, atol=1e-6)
    # The leading mode is the least contracted in every step: the recursion is no bound but the very scale of the
    # output.
    bound = scale_recursion(exact.step_expansion, path.added, GRID[0])[-1]
    np.testing.assert_allclose(bound, exact.generator_expansion, rtol=1e-12)
    assert bound < scale_recursion(np.ones(7), path.added, GRID[0])[-1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Labelled:
    """Three low-rank Gaussians whose weights a label raises."""

    mixture: Any

    def given(self, label):
        raised = self.mixture.weights * jnp.exp(3.0 * jax.nn.one_hot(label, 3, dtype=jnp.float64))
        return replace(self, mixture=replace(self.mixture, weights=raised))

    def __call__(self, x, sigma):
        return self.mixture(x, sigma)


def test_every_expansion_is_that_of_the_whole_jacobian(x64):
    rng = np.random.default_rng(2)
    bases = np.stack([np.linalg.qr(rng.standard_normal((D, 2)))[0].reshape(*EVENT, 2) for _ in range(3)])
    mixture = MoLRGDenoiser(
        np.array([0.5, 0.3, 0.2]), rng.standard_normal((3, *EVENT)), bases, np.full((3, 2), 0.3), 0.1
    )
    denoiser = Labelled(jax.tree.map(jnp.asarray, mixture))
    path = trace(denoiser, labels=[0, 2, 1])
    sigma_hat, added = churn_levels(GRID, CHURN)
    gammas = np.asarray(CHURN.gamma(jnp.asarray(GRID[:-1]), 7))

    def generate(noise, label):
        """The sample and the states from all unit noise: (8, d), the start's and every step's."""
        noise = noise.reshape(8, *EVENT)
        return heun(denoiser.given(label), GRID[0] * noise[0], GRID, eps=noise[1:], churn=CHURN).ravel()

    key = jax.random.key(1)
    jacobian = jax.jit(jax.jacfwd(generate))
    dense = dense_steps(denoiser, path)
    steps, whole, everything = (
        f(denoiser, path, **EXACT) for f in (step_expansion, path_expansion, generator_expansion)
    )
    for row, label in enumerate([0, 2, 1]):
        example = jax.random.fold_in(key, row)
        noise = jnp.stack(
            [jax.random.normal(jax.random.fold_in(example, place), EVENT, jnp.float64) for place in range(8)]
        )
        full = np.asarray(jacobian(noise.reshape(8, -1), jnp.asarray(label))).reshape(D, 8 * D)
        np.testing.assert_allclose(everything.values[row], np.linalg.norm(full, 2), rtol=1e-7)
        np.testing.assert_allclose(whole.values[row], np.linalg.norm(full[:, :D], 2) / GRID[0], rtol=1e-7)
        product = np.eye(D)
        for step in reversed(range(7)):
            # J_{i:} = d x_N / d eps_i / c_i: the steps' Jacobians are the ratios of successive ones where noise is
            # added.
            if added[step] > 0:
                np.testing.assert_allclose(
                    np.linalg.norm(full[:, (step + 1) * D : (step + 2) * D], 2) / added[step],
                    np.linalg.norm(product @ dense[row, step], 2),
                    rtol=1e-7,
                )
            product = product @ dense[row, step]
            np.testing.assert_allclose(steps.values[row, step], np.linalg.norm(dense[row, step], 2), rtol=1e-7)
        np.testing.assert_allclose(product, full[:, :D] / GRID[0], atol=1e-9)
    np.testing.assert_allclose(sigma_hat, GRID[:-1] * (1 + gammas), rtol=1e-12)


def dense_steps(denoiser, path):
    """Jacobian of every step, written out from the definition of Heun's rule and whole Jacobians of the denoiser:
    ``(n, steps, d, d)``.
    """

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, None))  # steps, within samples
    @partial(jax.vmap, in_axes=(0, None, 0))
    def slopes(x, label, level):
        def slope(x):
            return (x - denoiser.given(label)(x, level)) / level

        return slope(x), jax.jacfwd(slope)(x).reshape(D, D)

    now, after = path.sigma_hat, path.sigma_next
    length = (after - now)[:, None, None]
    value, first = map(np.asarray, slopes(path.x_hat, path.labels, now))
    x_euler = path.x_hat + length[..., None] * value
    # The last step, to noise 0, is Euler's.
    second = np.asarray(slopes(x_euler, path.labels, np.append(after[:-1], 1.0))[1])
    euler = np.eye(D) + length * first
    whole = np.eye(D) + length / 2 * (first + second @ euler)
    return np.concatenate([whole[:, :-1], euler[:, -1:]], axis=1)


def two_points(a=0.5, size=64):
    """Their distance from the middle, the shape of a state, and the denoiser."""
    return a, (size,), EmpiricalDenoiser(np.eye(2, size) * np.array([[a], [0]]) - np.eye(2, size, -1) * a)


def test_two_points_expand_below_their_distance_while_norms_fall(x64):
    a, event, pair, grid = *two_points(), karras_sigmas(18)
    path = trace(pair, Churn(), range(96), grid, event, 96)
    steps = step_expansion(pair, path, key=jax.random.key(0), tolerance=1e-7, batch_size=64)
    # Along the axis that joins the points the step is a function of one variable; across it shrinks by sigma' / sigma.
    slope = lambda y, s: (y - a * jnp.tanh(a * y / s**2)) / s  # noqa: E731

    def along(y, now, after):
        euler = y + (after - now) * slope(y, now)
        return y + (after - now) / 2 * (slope(y, now) + slope(euler, after))

    gain = jax.jit(jax.vmap(jax.grad(along)))
    for step in range(17):
        now, after = np.full(96, grid[step]), np.full(96, grid[step + 1])
        exact = np.abs(gain(path.x_hat[:, step, 0], now, after))
        np.testing.assert_allclose(steps.values[:, step], np.maximum(exact, grid[step + 1] / grid[step]), rtol=1e-6)
    expands = steps.values > 1 + 1e-6
    # Expansion needs a step that leads below the distance of the points, and a state between them.
    assert not expands[:, grid[1:] > a].any() and expands[:, grid[1:] < a].any()
    _, seen = sample(
        pair, jax.random.key(1), range(96), grid, shape=event, observe=observe_norms, dtype=jnp.float64, batch_size=96
    )
    assert (seen["change"][expands] < 0).all() and expands.sum() >= 10
    # Halfway between the points the slope of the denoiser is a^2 / sigma^2: steps expand there exactly when sigma < a.
    centre = replace(path, x_hat=np.zeros_like(path.x_hat[:1]))
    middle = step_expansion(pair, centre, key=jax.random.key(0), batch_size=64).values[0]
    np.testing.assert_array_equal(middle[:-1] > 1, np.abs(gain(np.zeros(17), grid[:-2], grid[1:-1])) > 1)
    assert (middle[:-1][grid[:-2] < a] > 1).all() and (middle[:-1][grid[1:-1] > a] < 1).all()


def test_traced_states_are_those_of_the_sampler(x64):
    denoiser = planted()
    for churn in (Churn(), CHURN):
        path = trace(denoiser, churn, indices=[4, 0, 7, 2, 9])
        options = {"shape": EVENT, "churn": churn, "dtype": jnp.float64, "batch_size": 4}
        options |= {"observe": lambda state: state.x_hat, "devices": jax.local_devices()[:1]}
        x0, x_hat = sample(denoiser, jax.random.key(1), [4, 0, 7, 2, 9], GRID, **options)
        np.testing.assert_allclose(path.x_hat, x_hat, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(path.samples, x0, rtol=1e-9, atol=1e-9)
    with pytest.raises(FloatingPointError, match="sample 3 is not finite after step 0"):
        trace(GaussianDenoiser(np.full(EVENT, np.nan), denoiser.basis, denoiser.variances), indices=[3])


def test_pairs_share_their_noise(x64):
    denoiser = planted()
    exact = gaussian_path(denoiser, GRID, CHURN)
    options = {"shape": EVENT, "churn": CHURN, "dtype": jnp.float64, "batch_size": 4}
    for nearness in (1.0, 1e-3):
        pairs = pair_distances(denoiser, jax.random.key(1), range(6), GRID, nearness=nearness, **options)
        # No pair expands more than the most expanded direction does.
        assert (pairs.ratios <= exact.step_expansion[None] * (1 + 1e-8)).all()
        assert (pairs.end_to_end <= exact.path_expansion * (1 + 1e-8)).all()
        mean = {1.0: 2 * D, 1e-3: 1e-6 * D}[nearness] * GRID[0] ** 2
        assert 0.3 < (pairs.distances[:, 0] ** 2).mean() / mean < 2.5
    # Against two runs of the sampler itself with recorded noise.
    example = jax.random.fold_in(jax.random.key(1), 3)
    eps = jnp.stack([jax.random.normal(jax.random.fold_in(example, i + 1), EVENT, jnp.float64) for i in range(7)])
    z = initial_noise(jax.random.key(1), 3, EVENT, jnp.float64)
    other = initial_noise(stream(jax.random.key(1), "partner"), 3, EVENT, jnp.float64)
    starts = GRID[0] * jnp.stack([z, np.sqrt(1 - 1e-6) * z + 1e-3 * other])
    ends = jax.jit(jax.vmap(lambda x: heun(denoiser, x, GRID, eps=eps, churn=CHURN)))(starts)
    np.testing.assert_allclose(pairs.distances[3, -1], np.linalg.norm(ends[1] - ends[0]), rtol=1e-8)


def test_recursion_at_the_papers_settings():
    _, added = churn_levels(karras_sigmas(256), Churn(40, 0.05, 50, 1.003))
    assert (added > 0).sum() == 191
    assert round(scale_recursion(np.ones(256), added, 80.0)[-1]) == 153
    assert scale_recursion(np.ones(256), np.zeros(256), 80.0)[-1] == 80
    np.testing.assert_allclose(
        scale_recursion(np.array([0.5, 2.0]), np.array([3.0, 1.0]), 4), [4, 2.5, 2 * np.sqrt(7.25)]
    )


def test_lanczos_finds_top_eigenvalues_of_known_matrices():
    rng = np.random.default_rng(3)
    spectra = np.stack([np.geomspace(1, 1e-3, 40), np.full(40, 2.0), np.r_[5.0, 4.999, np.zeros(38)], np.zeros(40)])
    bases = np.stack([np.linalg.qr(rng.standard_normal((40, 40)))[0] for _ in spectra])
    matrices = np.einsum("bij,bj,bkj->bik", bases, spectra, bases)
    multiply = lambda v: np.einsum("bij,bj->bi", matrices, v)  # noqa: E731
    start = rng.standard_normal((4, 40))
    top = top_eigenvalues(multiply, start, tolerance=1e-10, max_products=40)
    np.testing.assert_allclose(top.values, spectra.max(1), rtol=1e-10, atol=1e-12)
    found = np.linalg.norm(multiply(top.vectors) - top.values[:, None] * top.vectors, axis=1)
    assert (found <= top.residuals + 1e-8).all()
    # Stopped early it says how far it is, and stays below.
    early = top_eigenvalues(multiply, start, tolerance=0.0, max_products=4)
    assert early.products == 4 and (early.values <= spectra.max(1) + 1e-12).all() and early.residuals[0] > 1e-6
    assert (spectra.max(1) - early.values <= early.residuals + 1e-12).all()
    loose = top_eigenvalues(multiply, start, tolerance=1e-2)
    assert loose.products < top.products and (loose.residuals <= 1e-2 * loose.values + 1e-15).all()
    for said, options in (("tolerance = 1.0", {"tolerance": 1.0}), ("max_products = 0", {"max_products": 0})):
        with pytest.raises(InputError, match=said):
            top_eigenvalues(multiply, start, **options)
    with pytest.raises(InputError, match="start = 'a vector of length 0'"):
        top_eigenvalues(multiply, 0 * start)
    with pytest.raises(FloatingPointError, match="row 2"):
        top_eigenvalues(lambda v: np.where(np.arange(4)[:, None] == 2, np.nan, v), start)


def test_bad_input_is_named():
    denoiser = planted()
    with pytest.raises(InputError, match="nearness = 0"):
        pair_distances(denoiser, jax.random.key(0), [0], GRID, shape=EVENT, nearness=0)
    with pytest.raises(InputError, match="sigmas = "):
        trace_trajectories(denoiser, jax.random.key(0), [0], GRID[:-1], shape=EVENT)
    path = trace_trajectories(denoiser, jax.random.key(0), [0], GRID, shape=EVENT)
    with pytest.raises(InputError, match="batch_size = 0"):
        step_expansion(denoiser, path, key=jax.random.key(0), batch_size=0)
    with pytest.raises(InputError, match="tolerance = -1"):
        path_expansion(denoiser, path, key=jax.random.key(0), tolerance=-1.0)


def test_halfway_between_two_points_steps_have_the_gains_of_the_measured_ones(x64):
    a, event, pair, grid = *two_points(), karras_sigmas(9)
    path = trace(pair, Churn(), range(1), grid, event, 96)
    centre = replace(path, x_hat=np.zeros_like(path.x_hat))
    middle = step_expansion(pair, centre, key=jax.random.key(9), tolerance=1e-9, batch_size=64).values[0]
    # Across the axis that joins the points a step shrinks by sigma' / sigma.
    np.testing.assert_allclose(middle, np.maximum(np.abs(two_point_gains(grid, a)), grid[1:] / grid[:-1]), rtol=1e-6)
    with pytest.raises(InputError, match=r"distance = 0: must be positive"):
        two_point_gains(grid, 0)
    with pytest.raises(InputError, match="sigmas"):
        two_point_gains(grid[::-1], a)


def test_two_points_as_data_expand_where_norms_fall():
    found = two_point_steps(jax.random.key(0), 24, 16, 0.5, 12)
    grid = karras_sigmas(12)
    assert {part.shape for part in found.values()} == {(24, 12)}
    expands = found["gains"] > 1 + found["errors"]
    assert not expands[:, grid[1:] > 0.5].any() and expands.any()
    assert np.mean(found["changes"][expands] < 0) > 0.5
    # Far above the distance of the points data and denoiser are as good as 0: a step shrinks everything by sigma' / sigma.
    np.testing.assert_allclose(found["gains"][:, 0], grid[1] / grid[0], rtol=1e-3)
    with pytest.raises(InputError, match=r"\(count, size\) = \(0, 16\)"):
        two_point_steps(jax.random.key(0), 0, 16, 0.5, 12)


def test_measured_expansions_of_a_gaussian_are_right_to_the_tolerance():
    images = np.random.default_rng(0).normal(size=(40, *EVENT)) * np.geomspace(2, 0.1, 6).reshape(EVENT)
    found = gaussian_expansion_errors(images, GRID, CHURN, jax.random.key(0))
    assert max(found[name] for name in ("steps", "whole", "generator")) < 1e-6
    largest = gaussian_path(GaussianDenoiser.fit(images.astype(np.float64)), GRID, CHURN).step_expansion.max()
    assert found["largest"] == pytest.approx(largest, rel=1e-5) and found["largest"] < 1
    with pytest.raises(InputError, match="sigmas"):
        gaussian_expansion_errors(images, GRID[::-1], CHURN, jax.random.key(0))


@pytest.mark.parametrize("labels", [None, [1, 0, 1]])
def test_the_first_of_the_trajectories(labels):
    path = trace_trajectories(planted(), jax.random.key(1), range(3), GRID, shape=EVENT, churn=CHURN)
    path = path if labels is None else replace(path, labels=np.array(labels))
    first = path.first(2)
    np.testing.assert_array_equal(first.x_hat, path.x_hat[:2])
    np.testing.assert_array_equal(first.samples, path.samples[:2])
    np.testing.assert_array_equal(first.added, path.added)
    assert (first.labels is None) if labels is None else first.labels.tolist() == [1, 0]
