import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dgu.analysis import TheoremDesign, gap_trend, min_norm_interpolator, universality_gap
from dgu.analysis.universality import theorem_one as theorem
from dgu.core.errors import InputError
from experiments.study import Claim, at_most
from experiments.study.claims import judge

EXPONENTIAL = stats.expon(loc=-1)
UNIFORM = stats.uniform(-(3**0.5), 2 * 3**0.5)


def test_laws_are_standardised_and_increasing():
    g = jnp.linspace(-3, 3, 601)
    np.testing.assert_allclose(theorem.transformed(g, "exponential"), EXPONENTIAL.ppf(stats.norm.cdf(g)), atol=2e-4)
    np.testing.assert_allclose(theorem.transformed(g, "uniform"), UNIFORM.ppf(stats.norm.cdf(g)), atol=1e-5)
    np.testing.assert_array_equal(theorem.transformed(g[g != 0], "rademacher"), np.sign(g[g != 0]))
    # The weights of a fine quadrature for the normal law.
    weight = stats.norm.pdf(g)
    for law in ("exponential", "uniform", "rademacher"):
        z = np.asarray(theorem.transformed(g, law), float)
        assert abs(np.average(z, weights=weight)) < 0.02 and np.average(z**2, weights=weight) == pytest.approx(
            1, abs=0.1
        )
    assert np.mean(theorem.RADII_SQUARED) == pytest.approx(1)


@pytest.mark.parametrize("law", ["rademacher", "uniform", "exponential"])
def test_exact_errors_equal_counting(law):
    rng = np.random.default_rng(0)
    v = rng.normal(size=40).astype(np.float32) ** 3  # a few large terms, so that the sum is not Gaussian
    margin = np.float32(0.8 * np.linalg.norm(v))
    z = {
        "rademacher": lambda shape: rng.choice([-1.0, 1.0], shape),
        "uniform": lambda shape: UNIFORM.rvs(shape, random_state=rng),
        "exponential": lambda shape: EXPONENTIAL.rvs(shape, random_state=rng),
    }[law]((400_000, 40))
    score = z @ v
    counted = ((score < -margin).mean() + (score > margin).mean()) / 2
    found = float(theorem.sign_error(jnp.asarray(v), jnp.asarray(margin), law))
    assert abs(found - counted) < 4 * np.sqrt(counted / 800_000), (found, counted)
    # The normal approximation would not do.
    normal = float(theorem.sign_error(jnp.asarray(v), jnp.asarray(margin), "gaussian"))
    assert normal == pytest.approx(stats.norm.cdf(-0.8), abs=1e-6) and abs(found - normal) > 1e-3


def test_exact_error_of_gaussians_of_random_length():
    v, margin = jnp.asarray([0.6, 0.8]), jnp.asarray(1.0)
    want = np.mean(stats.norm.cdf(-1 / np.sqrt(theorem.RADII_SQUARED)))
    assert float(theorem.sign_error(v, margin, "radius")) == pytest.approx(want, abs=1e-6)


def test_interpolator_equals_the_pseudo_inverse_on_an_ill_conditioned_problem():
    """Singular values over three decades, in float32: the Gram matrix's condition number would be 1e7."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(60, 120)) / np.arange(1, 121) ** 1.5).astype(np.float32)
    y = np.where(np.arange(60) % 2, 1.0, -1.0).astype(np.float32)
    found = np.asarray(theorem.interpolator(jnp.asarray(x), jnp.asarray(y)))
    exact = np.linalg.pinv(x.astype(float)) @ y
    np.testing.assert_allclose(found, exact, atol=1e-3 * np.abs(exact).max())
    np.testing.assert_allclose(x @ found, y, atol=1e-3)
    shared = min_norm_interpolator(jnp.asarray(x), jnp.asarray(y[:, None]))[:, 0]
    np.testing.assert_allclose(found, shared, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("law", "spectrum", "basis"), [("exponential", "power", "cosines"), ("radius", "bounded", "coordinates")]
)
def test_errors_of_one_pair_from_its_draws(x64, law, spectrum, basis):
    """The draws of replicate 3, rebuilt in NumPy from their addresses in the original coordinates, and errors by the
    formula.
    """
    d, design = 40, TheoremDesign(law, spectrum, basis, ratio=0.5, separation=1.5)
    found = universality_gap(jax.random.key(0), d, 5, design, batch_size=2)
    if law == "radius":  # Whatever the batch; another one is another program.
        again = universality_gap(jax.random.key(0), d, 4, design)
        np.testing.assert_allclose(found["x"][:4], again["x"], atol=1e-9)
    key = jax.random.fold_in(theorem.stream(jax.random.key(0), "theorem 1", law, d), 3)
    u, g = (
        np.asarray(jax.random.normal(theorem.stream(key, name), s))
        for name, s in (("direction", d), ("noise", (20, d)))
    )
    coin = np.asarray(jax.random.bernoulli(theorem.stream(key, "radius"), 0.5, (20, 1)))
    eigenvalues = np.linspace(1.5, 0.5, d) if spectrum == "bounded" else np.arange(1, d + 1) ** -2.0
    j = np.arange(d)
    cosines = np.sqrt(2 / d) * np.cos(np.pi * (j[None] + 0.5) * j[:, None] / d) / np.sqrt(1 + (j[:, None] == 0))
    turn = cosines if basis == "cosines" else np.eye(d)
    root = turn.T @ np.diag(np.sqrt(eigenvalues)) @ turn  # the symmetric root of Sigma
    mean = 1.5 * turn.T @ (np.sqrt(eigenvalues) * u / np.linalg.norm(u))
    y = np.where(np.arange(20) % 2, -1.0, 1.0)
    z = EXPONENTIAL.ppf(stats.norm.cdf(g)) if law == "exponential" else np.where(coin, 1.9, 0.1) ** 0.5 * g
    # Gaussian rows in the same eigenbasis: their cosine transform has the same law as they.
    for name, noise in (("x", z), ("gaussian", g)):
        w = np.linalg.pinv(y[:, None] * mean + noise @ root) @ y
        v = root @ w
        if name == "gaussian":
            want = stats.norm.cdf(-mean @ w / np.linalg.norm(v))
        elif law == "radius":
            want = np.mean(stats.norm.cdf(-mean @ w / (np.linalg.norm(v) * np.sqrt([0.1, 1.9]))))
        else:
            scores = EXPONENTIAL.rvs((300_000, d), random_state=0) @ v
            want = ((scores < -mean @ w).mean() + (scores > mean @ w).mean()) / 2
        tolerance = 0.003 if law == "exponential" and name == "x" else 1e-6
        assert abs(found[name][3] - want) < tolerance, (name, found[name][3], want)


@pytest.mark.parametrize("law", ["exponential", pytest.param("radius", marks=pytest.mark.slow)])
def test_the_theorem_in_small(law):
    """Exponential noise: the gap closes from d = 32 to 256; a random radius keeps it open."""
    gaps = []
    for d, replicates in ((32, 200), (256, 50)):
        found = universality_gap(jax.random.key(0), d, replicates, TheoremDesign(law))
        gaps.append(found["x"] - found["gaussian"])
    trend = gap_trend(np.asarray([32.0, 256.0]), gaps)
    if law == "exponential":
        assert trend.slope.high < -0.25
    else:
        assert trend.slope.low > -0.25 and trend.size.min() > 0.03


def test_trend_recovers_a_planted_slope():
    rng = np.random.default_rng(0)
    dimensions = np.asarray([64.0, 256.0, 1024.0, 4096.0])
    inside = 0
    for _ in range(200):
        gaps = [d**-0.5 * rng.normal(size=60) for d in dimensions]
        trend = gap_trend(dimensions, gaps)
        inside += trend.slope.low < -0.5 < trend.slope.high
    assert 180 <= inside <= 199
    np.testing.assert_allclose(trend.difference.value, np.mean(gaps, axis=1), rtol=1e-12)
    error = np.std(gaps, axis=1, ddof=1) / 60**0.5
    np.testing.assert_allclose(trend.difference.high - trend.difference.low, 2 * stats.norm.ppf(0.975) * error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"law": "cauchy"}, "law = 'cauchy': must be one of rademacher, uniform, exponential, radius"),
        ({"spectrum": "flat"}, "spectrum = 'flat': must be one of bounded, power"),
        ({"ratio": 1.0}, r"ratio = 1\.0: must be above 0 and below 1"),
        ({"separation": 0.0}, r"separation = 0\.0: must be positive"),
    ],
)
def test_bad_design(change, message):
    with pytest.raises(InputError, match=message):
        TheoremDesign(**change)


def test_bad_sizes():
    with pytest.raises(InputError, match="d = 2: must be at least 4"):
        universality_gap(jax.random.key(0), 2, 1)
    with pytest.raises(InputError, match="replicates = 0: must be at least 1"):
        universality_gap(jax.random.key(0), 8, 0)
    with pytest.raises(InputError, match="number of dimensions = 1: must be at least 2"):
        gap_trend(np.ones(1), [np.ones(3)])
    with pytest.raises(InputError, match=r"largest \|gap\| at d = 2 = 3\.0: must be at most largest = 1"):
        gap_trend(np.array([2.0, 4.0]), [np.array([0.1, 3.0]), np.array([0.1, 0.2])])


@pytest.mark.parametrize("constant", [(0,), (0, 1, 2), (2,)])
def test_gaps_without_spread_leave_the_slope_undecided(constant):
    """A group of equal gaps has no weight of its own: the slope is that of least squares, and its interval decides
    nothing.
    """
    rng = np.random.default_rng(1)
    dimensions, means = np.asarray([10.0, 20.0, 40.0]), np.asarray([0.1, 0.07, 0.02])
    gaps = [np.full(7, m) if i in constant else m + 0.01 * rng.normal(size=7) for i, m in enumerate(means)]
    trend = gap_trend(dimensions, gaps)
    sizes = [np.abs(gap).mean() for gap in gaps]
    np.testing.assert_allclose(trend.slope.value, np.polyfit(np.log(dimensions), np.log(sizes), 1)[0], rtol=1e-12)
    assert (trend.size_error == 0).nonzero()[0].tolist() == list(constant)
    assert judge(Claim("a", "falls", at_most(-0.25)), trend.slope, "own").verdict == "undecided"
