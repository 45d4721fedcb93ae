import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dgu.analysis import TheoremDesign, decay_exponent, gap_trend, min_norm_interpolator, universality_gap
from dgu.analysis.universality import theorem_one as theorem
from dgu.core.errors import InputError
from experiments.study import Claim, at_most
from experiments.study.claims import judge

EXPONENTIAL = stats.expon(loc=-1)
ARMS = ("x", "gaussian")
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


@pytest.mark.parametrize("law", ["gaussian", pytest.param("radius", marks=pytest.mark.slow)])
def test_the_theorem_in_small(law):
    """A random radius keeps the gap open. Pairs of identical distributions have none, though single pairs differ by the
    more the smaller d is: their size tells nothing of universality.
    """
    gaps = []
    for d, replicates in ((32, 200), (256, 50)):
        found = universality_gap(jax.random.key(0), d, replicates, TheoremDesign(law))
        gaps.append(found["x"] - found["gaussian"])
    trend = gap_trend(np.asarray([32.0, 256.0]), gaps)
    if law == "gaussian":
        assert all(mean.low < 0 < mean.high for mean in trend.means)
        assert trend.sizes[0] > 0.03 and trend.sizes[1] < 0.6 * trend.sizes[0]
        # The arms are independent, and each is Gaussian: equally large and equally scattered errors.
        x, gaussian = (universality_gap(jax.random.key(0), 32, 200, TheoremDesign(law))[arm] for arm in ARMS)
        assert abs(np.corrcoef(x, gaussian)[0, 1]) < 4 / 200**0.5 and 0.7 < x.std() / gaussian.std() < 1.4
    else:
        assert max(mean.high for mean in trend.means) < -0.03 and trend.exponent.high > -0.25


def test_trend_recovers_planted_means_and_exponents():
    """At the default's numbers of pairs, means that fall, that stay and that are nothing: 95 % of intervals hold."""
    rng = np.random.default_rng(0)
    dimensions, pairs = 64.0 * 2 ** np.arange(6), (256, 256, 128, 64, 32, 16)
    for scale, exponent in ((-0.6, -0.5), (-1.0, 0.0), (0.0, -0.5)):
        inside = []
        for _ in range(200):
            gaps = [
                rng.normal(scale * (d / 64) ** exponent, 3 * (d / 64) ** -0.5, n) for d, n in zip(dimensions, pairs)
            ]
            trend = gap_trend(dimensions, gaps, largest=100)
            inside.append([trend.exponent.low <= exponent <= trend.exponent.high, trend.exponent.high < 0])
        held, falls = np.mean(inside, axis=0)
        assert 0.89 <= held <= 0.99
        assert falls > 0.6 if scale * exponent else falls < 0.07
    for mean, gap in zip(trend.means, gaps):
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
        np.testing.assert_allclose([mean.value, mean.low, mean.high], gap.mean() + half * np.array([0, -1, 1]))
    np.testing.assert_allclose(trend.sizes, [np.abs(gap).mean() for gap in gaps])


def test_exponents_are_those_of_a_likelihood_on_a_grid():
    """Means of both signs: value and ends by a slow search over both parameters."""
    x, means, errors = np.array([1.0, 2.0, 4.0, 8.0]), np.array([-2.0, -1.1, 0.1, -0.3]), np.array([0.2, 0.3, 0.2, 0.3])
    found = decay_exponent(x, means, errors)
    bs, scales = np.linspace(-4, 4, 1601), np.linspace(-5, 5, 4001)
    squares = [
        np.square((means[:, None] - scales * (x[:, None] / x.mean()) ** b) / errors[:, None]).sum(axis=0).min()
        for b in bs
    ]
    inside = bs[squares <= np.min(squares) + stats.chi2.ppf(0.95, 1)]
    np.testing.assert_allclose([found.value, found.low, found.high], [bs[np.argmin(squares)], inside[0], inside[-1]],
                               atol=0.02)  # fmt: skip
    mirrored = decay_exponent(x, -means, errors)
    assert (mirrored.value, mirrored.low, mirrored.high) == (found.value, found.low, found.high)


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
    with pytest.raises(InputError, match=r"x = \[1\.0, 1\.0\]: must be positive and finite, two different ones"):
        decay_exponent(np.ones(2), np.ones(2), np.ones(2))
    with pytest.raises(InputError, match=r"errors = \[-1\.0, 1\.0\]: must be 0 or more"):
        decay_exponent(np.array([1.0, 2.0]), np.ones(2), np.array([-1.0, 1.0]))


@pytest.mark.parametrize("constant", [(0,), (0, 1, 2), (2,)])
def test_gaps_without_spread_leave_the_exponent_undecided(constant):
    """Where all gaps agree nothing is known of their spread: the exponent is that of least squares, and may be any."""
    rng = np.random.default_rng(1)
    dimensions, means = np.asarray([10.0, 20.0, 40.0]), np.asarray([0.1, 0.05, 0.025])
    gaps = [np.full(7, m) if i in constant else m + 0.001 * rng.normal(size=7) for i, m in enumerate(means)]
    trend = gap_trend(dimensions, gaps)
    assert abs(float(trend.exponent.value) + 1) < 0.05 and (trend.exponent.low, trend.exponent.high) == (-4, 4)
    assert [mean.low == mean.high for mean in trend.means] == [i in constant for i in range(3)]
    assert judge(Claim("a", "falls", at_most(0.0)), trend.exponent, "own").verdict == "undecided"
