"""The KL three ways on laws whose divergence is known; the bounds' exponents; the test for a rise after a minimum."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy import integrate, stats

from dgu.analysis import (
    Grid,
    KLMeasure,
    early_stopping,
    flow_kl,
    grid_kl,
    knn_kl,
    least_of_others,
    mixture_bound,
    mode_scores,
    mode_summary,
    optimal_stopping,
    prior_kl,
    score_kl,
    score_log_density,
    smoothed,
    target_log_density,
    theorem_one_bound,
)
from dgu.analysis.divergence.kl import mass_outside
from dgu.core.errors import InputError, PriorMismatchWarning
from dgu.models import gaussian_mixture, two_modes
from dgu.samplers import VESDE, ScoreOfDensity, probability_flow

SDE, T_EPS = VESDE(), 0.065
TARGET = two_modes(3.0)
N = 1500


@jax.jit
def drawn(target, key):
    """Examples, and their log densities."""
    x = jax.vmap(target.draw)(jax.random.split(key, N))
    return x, jax.vmap(lambda one: target.log_density(one, 0.0))(x)


def exact_kls():
    """By quadrature: KL(p_0 || p_eps), and E_{p_0}[log p_0 - log q], q carried by the exact flow from the prior at
    T.
    """

    def density(x, variance):
        return (stats.norm.pdf(x, -3, variance**0.5) + stats.norm.pdf(x, 3, variance**0.5)) / 2

    grid = np.linspace(-14, 14, 28001)
    p0, pe = density(grid, 1.0), density(grid, 1 + float(SDE.std(T_EPS)) ** 2)
    floor = integrate.simpson(np.where(p0 > 0, p0 * np.log(p0 / pe), 0), x=grid)
    # The flow is monotone: y with the same rank under p_T as x under p_eps. q(x) = pi(y) dy/dx = pi(y) p_eps(x) /
    # p_T(y).
    high = 1 + float(SDE.std(1.0)) ** 2
    wide = np.linspace(-80, 80, 160001)
    ranks = integrate.cumulative_trapezoid(density(wide, high), wide, initial=0)
    low_ranks = integrate.cumulative_trapezoid(pe, grid, initial=0)
    y = np.interp(low_ranks, ranks, wide)
    excess = np.log(density(y, high)) - stats.norm.logpdf(y, 0, float(SDE.std(1.0)))
    return floor, floor + integrate.simpson(p0 * excess, x=grid)


def test_floor_of_the_grid_on_the_exact_score():
    """The sheet: .0014 +- 2e-4 at mu = 3, t = .065; and the quadrature's own value."""
    found = score_kl(ScoreOfDensity(TARGET, SDE), SDE, TARGET)
    assert abs(found - 0.0014) < 2e-4
    np.testing.assert_allclose(found, exact_kls()[0], atol=2e-5)


def test_score_of_a_wide_gaussian_gives_its_analytic_kl():
    """q = N(0, 10) on the grid, normalised there: to 1e-3 of the sum over the same grid in double precision."""
    grid = Grid()
    found = score_kl(lambda x, t: -x / 10, SDE, TARGET)
    x = grid.coarse
    p = (stats.norm.pdf(x, -3) + stats.norm.pdf(x, 3)) / 2
    q = stats.norm.pdf(x, 0, 10**0.5)
    np.testing.assert_allclose(found, np.sum(p * grid.step * np.log(p * grid.step / (q / q.sum()))), atol=1e-4)
    # The untruncated divergence: 1/2 log(2 pi 10) + E x^2 / 20 - entropy.
    entropy = -integrate.quad(lambda u: (d := (stats.norm.pdf(u, -3) + stats.norm.pdf(u, 3)) / 2) * np.log(d), -12, 12)[
        0
    ]
    analytic = np.log(2 * np.pi * 10) / 2 + 0.5 - entropy + np.log(1 - 2 * stats.norm.sf(10, 0, 10**0.5))
    np.testing.assert_allclose(found, analytic, atol=1e-3)


def test_three_ways_agree_on_the_exact_score():
    """Each with its own known offset (noise at t_eps, prior at T), within 3 of its standard errors."""
    score = ScoreOfDensity(TARGET, SDE)
    floor, through_flow = exact_kls()
    fresh, log_p = drawn(TARGET, jax.random.key(0))
    flow = flow_kl(score, SDE, fresh, log_p)
    assert abs(flow.value - through_flow) < 3 * flow.standard_error < 0.02
    start = SDE.std(1.0) * jax.random.normal(jax.random.key(1), (N, 1))
    carried = jax.jit(jax.vmap(lambda x: probability_flow(score, SDE, x, 1.0, T_EPS)))(start)
    neighbours = knn_kl(fresh, carried)
    assert abs(neighbours.value - through_flow) < 3 * neighbours.standard_error < 0.25
    assert abs(score_kl(score, SDE, TARGET) - floor) < 1e-4


def test_likelihoods_of_a_wrong_model_are_those_of_its_law():
    """The score of N(0, 10) carries the prior to N(0, s_T^2 (10 + s^2) / (10 + s_T^2)): the same mean, example by
    example.
    """
    low, high = float(SDE.std(T_EPS)) ** 2, float(SDE.std(1.0)) ** 2
    # Both modes in the middle: the program of the other scores serves.
    wide = gaussian_mixture([0.5, 0.5], np.zeros((2, 1), np.float32), np.full(2, 10.0))
    x = np.random.default_rng(0).normal(3.0, 1.0, size=(N, 1)).astype(np.float32)
    log_p = stats.norm.logpdf(x[:, 0], 3.0)
    with pytest.warns(PriorMismatchWarning, match=r"is 0\.0[45]\d* nats"):  # Of a Gaussian of mean 3 and variance 1.
        found = flow_kl(ScoreOfDensity(wide, SDE), SDE, x, log_p)
    expected = log_p - stats.norm.logpdf(x[:, 0], 0, np.sqrt(high * (10 + low) / (10 + high)))
    np.testing.assert_allclose(found.value, expected.mean(), atol=2e-3)
    np.testing.assert_allclose(found.standard_error, expected.std(ddof=1) / np.sqrt(N), rtol=0.02)


@pytest.mark.parametrize(("mu", "size", "rtol"), [(15.0, 0.63, 0.1), (30.0, 3.95, 0.15)])
def test_a_prior_far_from_the_target_is_told_of(mu, size, rtol):
    """Far modes under the exact score: all of the KL is the prior's, by quadrature at sigma_max = 9.85."""
    target, high = two_modes(mu), float(SDE.sigma(1.0))
    x = np.linspace(-150, 150, 30001)
    p = (stats.norm.pdf(x, -mu, np.hypot(1, high)) + stats.norm.pdf(x, mu, np.hypot(1, high))) / 2
    exact = integrate.simpson(p * (np.log(p) - stats.norm.logpdf(x, 0, high)), x=x)
    np.testing.assert_allclose(exact, size, atol=0.005)
    fresh, log_p = drawn(target, jax.random.key(0))
    with pytest.warns(PriorMismatchWarning, match="flow_kl: at sigma_max = 9.845") as caught:
        found = flow_kl(ScoreOfDensity(target, SDE), SDE, fresh, log_p)
    told = float(str(caught[0].message).split("is ")[1].split(" nats")[0])
    assert abs(found.value - exact) < 3 * found.standard_error
    np.testing.assert_allclose(told, exact, rtol=rtol)


def test_neighbours_on_gaussians():
    """KL(N(0, I) || N(a, 4 I)) in two dimensions, and about 0 for equal laws."""
    rng = np.random.default_rng(0)
    p, q, same = rng.normal(size=(4000, 2)), 1.0 + 2 * rng.normal(size=(5000, 2)), rng.normal(size=(4000, 2))
    exact = 2 * (np.log(2) + 1 / 8 - 0.5) + 2 / 8
    found, none = knn_kl(p, q), knn_kl(p, same)
    assert abs(found.value - exact) < 3 * found.standard_error + 0.02
    assert abs(none.value) < 3 * none.standard_error and none.standard_error < 0.05
    assert found.low < found.value < found.high


def test_masses_and_modes():
    grid = Grid(-10, 10, 101)
    x = grid.coarse
    unequal = 0.2 * stats.norm.pdf(x, -3.13) + 0.8 * stats.norm.pdf(x, 2.94)
    found = mode_summary(np.log(np.stack([unequal, unequal[::-1]]) * grid.step), grid)
    np.testing.assert_allclose(found.weight, [0.8, 0.2], atol=2e-3)
    np.testing.assert_allclose(found.left, [-3.13, -2.94], atol=0.02)
    np.testing.assert_allclose(found.right, [2.94, 3.13], atol=0.02)


def test_lines_about_the_modes_are_those_of_quadratic_log_densities():
    """``log q`` of a Gaussian on each side has a straight score, whose slope and zero are known; NaN of lost runs."""
    grid, sigma = Grid(-10, 10, 101), 0.3
    x = grid.coarse
    sides = [(x < 0, 0.5, -2.0), (x >= 0, 2.0, 3.6)]
    log_q = sum(np.where(side, -a * (x - centre) ** 2 / 2, 0.0) for side, a, centre in sides)
    lost = np.where(np.arange(101) == 65, np.nan, log_q)
    found = mode_scores(np.stack([log_q, lost]), grid, 3.0, sigma, near=0.5)
    # Near a mode the exact score is nearly that of its own Gaussian, of variance 1 + sigma^2.
    np.testing.assert_allclose(found.slopes[0], (0.5 + 2.0) / 2 * (1 + sigma**2), rtol=0.01)
    np.testing.assert_allclose(found.zeros[0], (2.0 / 3.0 + 3.6 / 3.0) / 2, rtol=0.01)
    assert np.isnan([found.slopes[1], found.zeros[1]]).all()
    exact = jax.jit(jax.vmap(lambda place: TARGET.score(place, sigma)))(np.float32(found.x)[:, None])[:, 0]
    np.testing.assert_allclose(found.exact, exact, atol=1e-4)
    with pytest.raises(InputError, match="places of the grid near a mode = 0: must be 2 or more"):
        mode_scores(log_q[None], grid, 30.0, sigma)
    with pytest.raises(InputError, match=r"log_q.shape = \(1, 100\): must be \(R, 101\)"):
        mode_scores(log_q[None, 1:], grid, 3.0, sigma)


def test_divergence_of_the_prior_is_that_of_a_quadrature():
    """KL of two wide Gaussians about +-3 from N(0, s^2), over 300,000 examples: within four standard errors."""
    std = float(SDE.std(1.0))
    x = np.linspace(-120, 120, 48_001)
    density = sum(stats.norm.pdf(x, mean, np.sqrt(1 + std**2)) for mean in (-3, 3)) / 2
    log_ratio = np.log(density) - stats.norm.logpdf(x, 0, std)
    expected = integrate.simpson(density * log_ratio, x=x)
    spread = np.sqrt(integrate.simpson(density * (log_ratio - expected) ** 2, x=x))
    count = 300_000
    examples = jax.jit(jax.vmap(TARGET.draw))(jax.random.split(jax.random.key(0), count))
    found = prior_kl(TARGET, SDE, examples, jax.random.key(1))
    assert abs(found - expected) < 4 * spread / np.sqrt(count) < expected / 3


def test_the_measure_is_the_protocol_at_each_runs_own_grid():
    measure, grid = KLMeasure(), Grid(-12, 12, 51)
    score = ScoreOfDensity(TARGET, SDE)
    aux = measure.aux(SDE, TARGET, 0.1, grid)
    found = jax.jit(lambda score, aux: measure(score, aux))(score, aux)
    np.testing.assert_allclose(found["kl"], score_kl(score, SDE, TARGET, t_eps=0.1, grid=grid), rtol=1e-4)
    log_q = jax.jit(score_log_density, static_argnums=3)(score, 0.1, jnp.asarray(grid.fine), grid.refine)
    np.testing.assert_allclose(found["log_q"], log_q, rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_q).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(np.trapezoid(np.exp(target_log_density(TARGET, grid)), grid.coarse), 1, rtol=1e-4)


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_optimal_stopping_time_and_value_have_the_papers_exponents():
    """.40 and -.40 +- .02 for m = n over 1e3 to 1e9, by log-log least squares."""
    n = np.logspace(3, 9, 13)
    taus = np.array([optimal_stopping(float(k), float(k)) for k in n])
    values = theorem_one_bound(taus, n, n).total
    assert abs(np.polyfit(np.log(n), np.log(taus), 1)[0] - 0.4) < 0.02
    assert abs(np.polyfit(np.log(n), np.log(values), 1)[0] + 0.4) < 0.02


@pytest.mark.parametrize(("n", "m", "factor"), [(1e3, 1e3, 1.0), (1e5, 50.0, 1.0), (1e4, 1e4, 64.0), (2.0, 2.0, 9.0)])
def test_optimal_stopping_is_the_minimum(n, m, factor):
    at = optimal_stopping(n, m, factor=factor)
    taus = at * np.linspace(0.9, 1.1, 2001)
    taus = taus[taus >= 1]
    values = factor * (taus**4 / (m * n) + taus**3 / m**2) + 1 / taus
    assert abs(taus[np.argmin(values)] / at - 1) < 2e-4


def test_terms_of_the_bounds():
    one = theorem_one_bound(2.0, 10, 5, rest=0.1)
    np.testing.assert_allclose(one.total, 16 / 50 + 8 / 25 + 1 / 2 + 1 / 5 + 0.1)
    two = mixture_bound(2.0, 10, 5, np.array([1.0, 3.0]), degree=6)
    np.testing.assert_allclose(two.estimation, (16 / 50 + 8 / 25) * np.array([1.0, 729.0]))
    np.testing.assert_allclose(two.approximation, [1 / 5, 9 / 5])


# --- early stopping --------------------------------------------------------------------------------------------------


def curves(rise, seed=0, r=20, e=21, noise=0.05):
    t = np.linspace(0, 1, e)
    rng = np.random.default_rng(seed)
    return np.exp(-8 * t) + rise * np.maximum(t - 0.4, 0) + noise * rng.normal(size=(r, e))


def test_a_rise_is_found_and_noise_is_none():
    """With noise alone the apparent rise is above 0 nearly always, the tested one covers 0 as often as it should."""
    found = early_stopping(curves(0.3))
    # exp(-8 t) + .3 max(t - .4, 0) is least, .047, near t = .5; over the last three times it is .165.
    assert found.rise.low > 0.08 and abs(found.rise.value - 0.12) < 0.02 and 8 <= found.minimum <= 11
    flat = [early_stopping(1 + 0.05 * np.random.default_rng(seed).normal(size=(20, 21))) for seed in range(60)]
    assert sum(none.rise.low <= 0 <= none.rise.high for none in flat) >= 50
    assert sum(none.apparent > 0 for none in flat) >= 40
    # Free of selection: a seed that had chosen the time of its own minimum would seem to rise on average.
    rises = np.array([float(none.rise.value) for none in flat])
    assert abs(rises.mean()) < 3 * rises.std() / np.sqrt(60)


def test_smoothing_by_hand():
    values = np.array([[1.0, 2.0, 6.0, 1.0, 0.0]])
    np.testing.assert_allclose(smoothed(values, 3), [[1.5, 3.0, 3.0, 7 / 3, 0.5]])
    np.testing.assert_allclose(smoothed(values, 1), values)


def test_a_place_chosen_on_others_finds_no_minimum_in_noise():
    """The loop over seeds by hand; and of noise the end is above that place as often as below, above its own least
    always.
    """
    rng = np.random.default_rng(0)
    few = rng.normal(size=(3, 7))
    expected = [int(np.argmin(few.sum(axis=0) - row)) for row in few]  # Of two others the median is the mean.
    assert least_of_others(few).tolist() == expected
    above, own = [], []
    for _ in range(400):
        noise = 1 + 0.05 * rng.normal(size=(5, 9))
        above.append(noise[:, -1] - noise[np.arange(5), least_of_others(noise)])
        own.append(noise[:, -1] - noise.min(axis=1))
    above = np.mean(above, axis=1)
    assert abs(above.mean()) < 4 * above.std() / 20 and (above > 0).mean() < 0.6 and np.min(own) >= 0
    dip = noise - np.where(np.arange(9) == 4, 0.5, 0.0)
    assert least_of_others(dip).tolist() == [4] * 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: score_kl(lambda x, t: x, SDE, TARGET, t_eps=1.5), "t_eps = 1.5: must be strictly between 0 and T = 1"),
        (lambda: score_kl(lambda x, t: x, SDE, two_modes(9.0)), "grid = .*: must be wide and fine enough .* 0.159 of its"),
        (lambda: target_log_density(two_modes(3.0, std=0.01), Grid()), "grid = .*: must be wide and fine enough"),
        (lambda: target_log_density(two_modes(3.0), Grid(points=6)), "grid = .*: must be of points enough .* off by 0."),
        (lambda: Grid(1.0, 0.0), r"grid \(left, right\) = \(1.0, 0.0\): must be rising"),
        (lambda: flow_kl(lambda x, t: x, SDE, np.ones((3, 1)), np.ones(3), t_eps=0.0), "t_eps = 0.0: must be strictly"),
        (lambda: knn_kl(np.zeros((40, 1)), np.zeros((40, 1)), k=2), "samples = 'more than 2 equal rows'"),
        (lambda: knn_kl(np.zeros((40, 1)), np.zeros((40, 2))), "widths = .*: must be"),
        (lambda: optimal_stopping(0.5, 10), r"\(n, m\) = \(0.5, 10\): must be 1 or more each"),
        (lambda: theorem_one_bound(0.5, 10, 10), "tau = 0.5: must be 1 or more"),
        (lambda: mixture_bound(2.0, 10, 10, -1.0), "mu = -1.0: must be positive"),
        (lambda: early_stopping(np.ones((3, 5))), r"curves.shape = \(3, 5\): must be"),
        (lambda: least_of_others(np.ones((1, 5))), r"curves.shape = \(1, 5\): must be"),
        (lambda: smoothed(np.ones((3, 5)), 4), "window = 4: must be odd"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_mass_outside_is_the_tails():
    np.testing.assert_allclose(
        mass_outside(Grid(), gaussian_mixture([1.0], np.array([[8.0]]), np.ones(1))), stats.norm.sf(2), atol=1e-4
    )


def test_grids_that_do_not_fit_are_refused():
    flat = np.log(np.full(2, 0.5))
    with pytest.raises(InputError, match=r"^step = -1.0: must be positive"):
        grid_kl(flat, flat, -1.0)
    jaxtyping.config.update("jaxtyping_disable", True)  # Without the type checks that only tests have.
    try:
        with pytest.raises(InputError, match=r"^log_p.shape"):
            grid_kl(flat, flat[:1], 1.0)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
