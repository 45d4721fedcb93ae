"""Linear distillation: exact moments against least squares, the identity on own data, and Adam against both."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import weight_nmse
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_input
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from dgu.training import author_learning_rates, distill_by_adam, distill_exactly
from dgu.training.antithetic_moments import antithetic_moments
from dgu.training.distillation import solve_moments
from dgu.training.second_moments import _evaluate, cross_moments
from tests.scale_mixtures import GRID, TEN, D, scale_mixture

KEY = jax.random.key(7)
SMALL = 5


def affine_teacher(sigmas):
    rng = np.random.default_rng(0)
    return LinearDenoiser(
        sigmas, rng.standard_normal((len(sigmas), SMALL, SMALL)), rng.standard_normal((len(sigmas), SMALL))
    )


def small(n, seed=1):
    return np.random.default_rng(seed).standard_normal((n, SMALL)) + 2.0


def identity(x, sigma):
    return x


@jax.jit
def _noisy_draw(images, sigma, level, draw):
    return jax.vmap(lambda image, i: noisy_input(KEY, image, i, sigma, level, draw))(images, jnp.arange(len(images)))


def noisy_rows(images, level, sigma, draws=1):
    return np.concatenate([_noisy_draw(jnp.asarray(images), sigma, level, draw) for draw in range(draws)])


@jax.jit
def outputs_of(model, inputs, sigma):
    return jax.vmap(lambda x: model(x, sigma))(jnp.asarray(inputs))


def ridge_map(inputs, outputs, rho):
    """The linear part of the ridge regression of the outputs on the inputs."""
    y, t = inputs - inputs.mean(0), outputs - outputs.mean(0)
    return np.linalg.solve(y.T @ y / len(y) + rho * np.eye(SMALL), y.T @ t / len(y)).T


def assert_moments_of(found, inputs, outputs):
    """The moments found are those of these examples, by ``numpy.cov`` of all at once."""
    both = np.cov(np.concatenate([inputs, outputs], axis=1).T, ddof=0) * len(inputs)
    assert found.count == len(inputs)
    np.testing.assert_allclose(found.inputs, both[:SMALL, :SMALL], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.cross, both[SMALL:, :SMALL], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.output_square, np.trace(both[SMALL:, SMALL:]), rtol=1e-10)
    np.testing.assert_allclose(found.mean_input, inputs.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.mean_output, outputs.mean(0), rtol=1e-12)


def test_moments_are_those_of_all_examples_at_once_whatever_the_batches(x64):
    images, sigma = small(23), 0.7
    model = EmpiricalDenoiser(small(6, 2))
    inputs = noisy_rows(images, 3, sigma, 2)
    outputs = np.asarray(outputs_of(model, inputs, sigma))
    for residual, batch_size in ((False, 7), (True, 64)):
        found = cross_moments(model, images, sigma, KEY, level=3, draws=2, residual=residual, batch_size=batch_size)
        wanted = outputs - np.concatenate([images] * 2) if residual else outputs
        assert_moments_of(found, inputs, wanted)


def test_antithetic_moments_are_those_of_both_signs_of_every_noise(x64):
    images, sigma = small(23), 0.7
    model = EmpiricalDenoiser(small(6, 2))
    added = noisy_rows(images, 3, sigma, 3)[23:]
    inputs = np.concatenate([added, 2 * np.concatenate([images] * 2) - added])
    outputs = np.asarray(outputs_of(model, inputs, sigma))
    for batch_size in (7, 64):
        found = antithetic_moments(model, images, sigma, KEY, level=3, draws=[1, 2], batch_size=batch_size)
        assert len(inputs) == 92
        assert_moments_of(found, inputs, outputs)


def test_moments_keep_the_digits_of_small_noise_in_float32():
    """Variances of 4e-6 beside others of 1e4: products in float32 would lose them altogether."""
    images = np.zeros((4000, SMALL), np.float32)
    images[:, 0] = 100 * np.random.default_rng(0).standard_normal(4000)
    for moments_of, rtol in ((cross_moments, 1e-12), (antithetic_moments, 1e-6)):
        found = moments_of(lambda x, sigma: x, images, 0.002, KEY)
        variances = np.linalg.eigvalsh(found.inputs / found.count)
        np.testing.assert_allclose(variances[:4], 4e-6, rtol=0.15)
        np.testing.assert_allclose(found.cross[1:], found.inputs[1:], rtol=rtol, atol=1e-9)


def test_exactly_is_least_squares_and_recovers_an_affine_teacher(x64):
    images, sigmas = small(40), np.array([2.0, 0.3, 0.01])
    teacher = affine_teacher(sigmas)
    found = distill_exactly(teacher, images, sigmas, KEY, ridge=0.0, batch_size=16)
    np.testing.assert_allclose(found.denoiser.weights, teacher.weights, atol=1e-8)
    np.testing.assert_allclose(found.denoiser.biases, teacher.biases, atol=1e-7)
    assert found.examples == 40 and (found.residuals < 1e-12).all()
    # A teacher that is not affine: NumPy's least squares on the same rows.
    model = EmpiricalDenoiser(small(6, 2))
    found = distill_exactly(model, images, sigmas, KEY, ridge=0.0, draws=2, batch_size=16)
    for level, sigma in enumerate(sigmas):
        inputs = noisy_rows(images, level, sigma, 2)
        outputs = np.asarray(outputs_of(model, inputs, sigma))
        design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        wanted, squares, *_ = np.linalg.lstsq(design, outputs)
        np.testing.assert_allclose(found.denoiser.weights[level], wanted[:-1].T, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.denoiser.biases[level], wanted[-1], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found.residuals[level], squares.sum() / outputs.size, rtol=1e-8)


def test_the_ridge_is_that_of_generalised_cross_validation(x64):
    images, sigma = small(12), 0.5
    model = EmpiricalDenoiser(small(3, 2))
    moments = cross_moments(model, images, sigma, KEY)
    weight, ridge, residual = solve_moments(moments)
    inputs = noisy_rows(images, 0, sigma)
    outputs = np.asarray(outputs_of(model, inputs, sigma))
    y, t = inputs - inputs.mean(0), outputs - outputs.mean(0)

    def score(rho):
        """From the hat matrix, with the mean as one more parameter."""
        hat = y @ np.linalg.solve(y.T @ y + 12 * rho * np.eye(SMALL), y.T)
        return ((t - hat @ t) ** 2).sum() / 12 / (1 - (1 + np.trace(hat)) / 12) ** 2

    scores = [score(rho) for rho in np.geomspace(1e-8, 10, 400)]
    assert ridge > 1e-4 and score(ridge) <= min(scores) * (1 + 1e-3)
    plain = np.linalg.solve(y.T @ y / 12 + ridge * np.eye(SMALL), y.T @ t / 12).T
    np.testing.assert_allclose(weight, plain, rtol=1e-8)
    np.testing.assert_allclose(residual, ((t - y @ plain.T) ** 2).sum() / t.size, rtol=1e-8)
    # Fewer examples than dimensions: 0 is no candidate, and asked for it is refused.
    few = cross_moments(model, images[:4], sigma, KEY)
    assert solve_moments(few)[1] > 0 and np.isfinite(solve_moments(few)[0]).all()
    with pytest.raises(InputError, match="ridge = 0"):
        solve_moments(few, 0.0)


def test_the_gaussian_denoiser_is_the_optimum_of_denoising_with_exact_noise_moments(x64):
    """Least squares onto the clean images over ``+- sigma sqrt(d) e_i``, whose second moment is the noise's; and by
    descent.
    """
    images = scale_mixture(100, 0, np.float64) + 0.1
    model = GaussianDenoiser.fit(images)
    for sigma in (2.0, 0.1):
        noise = sigma * np.sqrt(D) * np.concatenate([np.eye(D), -np.eye(D)])
        inputs = (images[:, None] + noise).reshape(-1, D)
        design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        gram, target = design.T @ design / len(design), design.T @ np.repeat(images, 2 * D, axis=0) / len(design)
        optimum = np.linalg.solve(gram, target)
        maps = LinearDenoiser.of_gaussian(model, np.array([sigma]))
        np.testing.assert_allclose(maps.weights[0], optimum[:-1].T, atol=1e-10)
        np.testing.assert_allclose(maps.biases[0], optimum[-1], atol=1e-10)
    # Theorem 1, at the larger level: gradient descent from 0 with 2 eta lambda_max < 1 goes there.
    sigma = 2.0
    second = np.cov(images.T, ddof=0) + np.outer(images.mean(0), images.mean(0))
    mean = images.mean(0)
    gram = np.block([[second + sigma**2 * np.eye(D), mean[:, None]], [mean[None], np.ones((1, 1))]])
    target = np.concatenate([second, mean[None]])
    rate = 0.9 / (2 * np.linalg.eigvalsh(gram)[-1])
    theta = np.zeros((D + 1, D))
    for _ in range(800):
        theta = theta - 2 * rate * (gram @ theta - target)
    exact = np.asarray(LinearDenoiser.of_gaussian(model, np.array([sigma])).weights[0])
    assert np.linalg.norm(theta[:-1].T - exact) / np.linalg.norm(exact) < 1e-4


def test_maps_without_a_group_are_those_of_the_other_examples_in_one_compilation(x64):
    images, sigmas, model = small(11), np.array([2.0, 0.3]), EmpiricalDenoiser(small(6, 2))
    for groups_of, antithetic in (("images", False), ("draws", False), ("draws", True)):
        options = {"ridge": 0.1, "draws": 4, "batch_size": 3, "antithetic": antithetic}
        whole = distill_exactly(model, images, sigmas, KEY, **options)
        assert whole.observed == [] and whole.examples == 44 * (1 + antithetic)
        before = _evaluate._cache_size()
        found = distill_exactly(
            model, images, sigmas, KEY, **options, groups=3, groups_of=groups_of,
            observe=lambda level, weight: (level, weight),
        )  # fmt: skip
        # Groups of four, four and three images, or of two, one and one draws.
        assert _evaluate._cache_size() <= before + 1
        np.testing.assert_allclose(found.denoiser.weights, whole.denoiser.weights, rtol=1e-9)
        np.testing.assert_allclose(found.denoiser.biases, whole.denoiser.biases, rtol=1e-9)
        np.testing.assert_allclose(found.residuals, whole.residuals, rtol=1e-9)
        for level, sigma in enumerate(sigmas):
            inputs = noisy_rows(images, level, sigma, 4)
            signs = [inputs, 2 * np.concatenate([images] * 4) - inputs] if antithetic else [inputs]
            outputs = [np.asarray(outputs_of(model, rows, sigma)) for rows in signs]
            number = np.arange(44) % 11 if groups_of == "images" else np.arange(44) // 11
            for group in range(3):
                others = number % 3 != group
                assert 44 // 2 <= others.sum() < 44
                place, weight = found.observed[level][group]
                assert place == level
                wanted = ridge_map(*(np.concatenate([rows[others] for rows in all_]) for all_ in (signs, outputs)), 0.1)
                np.testing.assert_allclose(weight, wanted, rtol=1e-8, atol=1e-10)
    with pytest.raises(InputError, match="groups = 12: must be from 1 to 11, the images"):
        distill_exactly(model, images, sigmas, KEY, groups=12)
    with pytest.raises(InputError, match="groups_of = 'rows'"):
        distill_exactly(model, images, sigmas, KEY, groups_of="rows")


def test_on_its_own_data_the_memorising_denoiser_distils_to_the_gaussian_at_every_level():
    train = scale_mixture(200, 0)
    found = distill_exactly(EmpiricalDenoiser(train), train, GRID, KEY, draws=60)
    errors = weight_nmse(found.denoiser, LinearDenoiser.of_gaussian(GaussianDenoiser.fit(train), GRID))
    assert (errors <= 0.01).all(), errors


def test_on_held_out_data_it_does_not_and_less_so_with_more_data():
    held, sigmas, errors = scale_mixture(3000, 1), np.array([TEN[6], TEN[7]]), []
    for n in (30, 250, 2000):
        train = scale_mixture(n, 0)
        found = distill_exactly(EmpiricalDenoiser(train), held, sigmas, KEY)
        errors.append(weight_nmse(found.denoiser, LinearDenoiser.of_gaussian(GaussianDenoiser.fit(train), sigmas)))
    middle, low = np.transpose(errors)
    assert (np.diff(middle) < -0.05).all() and middle[0] > 0.35 and middle[-1] < 0.2, middle
    assert (low >= 0.5).all(), low


def test_the_authors_learning_rates():
    np.testing.assert_array_equal(author_learning_rates(TEN), [5e-5] * 5 + [5e-4] * 2 + [5e-3] + [5e-2] * 2)
    np.testing.assert_array_equal(author_learning_rates([100.0, 2.5, 2.4, 0.24, 0.23, 0.05, 0.04]),
                                  [5e-5, 5e-5, 5e-4, 5e-4, 5e-3, 5e-3, 5e-2])  # fmt: skip


def test_adam_is_adam_step_by_step(x64):
    """Three epochs of two steps against Adam written out (Kingma and Ba), the last batch smaller."""
    images, sigmas, rates = small(7), np.array([1.0, 0.2]), np.array([0.1, 0.01])
    model = EmpiricalDenoiser(small(4, 2))
    seen = []
    found = distill_by_adam(
        model, images, sigmas, KEY, epochs=3, batch_size=4, learning_rates=rates, snapshot_every=2,
        observe=lambda epoch, maps: (seen.append(epoch), np.array(maps.weights))[1],
    )  # fmt: skip
    assert seen == [0, 2, 3] and [epoch for epoch, _ in found.observed] == seen
    assert (found.observed[0][1] == 0).all()
    for level, sigma in enumerate(sigmas):
        theta, first, second, step = np.zeros((SMALL + 1, SMALL)), 0.0, 0.0, 0
        for epoch in range(3):
            losses, sizes = [], []
            for rows in (range(4), range(4, 7)):
                inputs = np.asarray(_noisy_draw(jnp.asarray(images), sigma, level, epoch))[list(rows)]
                outputs = np.asarray(outputs_of(model, inputs, sigma))
                design = np.concatenate([inputs / np.sqrt(SMALL), np.ones((len(inputs), 1))], axis=1)
                error = design @ theta - outputs
                losses.append((error**2).mean())
                sizes.append(len(inputs))
                gradient = 2 * design.T @ error / error.size
                step += 1
                first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
                theta = theta - rates[level] * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            np.testing.assert_allclose(found.losses[level, epoch], np.average(losses, weights=sizes), rtol=1e-8)
            if epoch == 1:
                np.testing.assert_allclose(found.observed[1][1][level], theta[:-1].T / np.sqrt(SMALL), atol=1e-8)
        np.testing.assert_allclose(found.denoiser.weights[level], theta[:-1].T / np.sqrt(SMALL), atol=1e-8)
        np.testing.assert_allclose(found.denoiser.biases[level], theta[-1], atol=1e-8)


@pytest.mark.slow
def test_a_long_run_of_adam_comes_to_the_exact_maps():
    """The authors' learning rates on d = 64: from 1 to below 0.2 at seven levels or more, and to the exact solution."""
    train, images = scale_mixture(500, 0), scale_mixture(2048, 1)
    model = GaussianDenoiser.fit(train)
    reference = LinearDenoiser.of_gaussian(model, GRID)
    exact = distill_exactly(model, images, GRID, KEY)
    assert (weight_nmse(exact.denoiser, reference) < 1e-6).all()
    found = distill_by_adam(
        model, images, GRID, KEY, epochs=150, observe=lambda _, maps: (weight_nmse(maps, reference), maps.weights)
    )
    errors, weights = (np.stack(part) for part in zip(*(seen for _, seen in found.observed)))
    np.testing.assert_allclose(errors[0], 1)
    assert (errors[-1] < 0.2).sum() >= 7, errors[-1]
    # Converged is what hardly moves any more, by the run itself: since half-way, by a hundredth of its squared length.
    last, halfway = weights[-1], weights[len(weights) // 2]
    settled = ((last - halfway) ** 2).sum(axis=(1, 2)) < 1e-2 * (last**2).sum(axis=(1, 2))
    assert 3 <= settled.sum() < len(GRID)
    agreement = weight_nmse(found.denoiser, exact.denoiser)
    assert (agreement[settled] < 1e-2).all() and (agreement[~settled] > 1e-2).any(), (agreement, settled)


def test_bad_input_is_named():
    images, model = scale_mixture(8, 0), GaussianDenoiser.fit(scale_mixture(50, 0))
    with pytest.raises(InputError, match="draws = 0"):
        distill_exactly(model, images, GRID, KEY, draws=0)
    with pytest.raises(InputError, match=r"sigmas = \[0\.0\]: must be positive"):
        distill_exactly(model, images, np.zeros(1), KEY)
    with pytest.raises(InputError, match="images = '1 images'"):
        distill_exactly(model, images[:1], GRID, KEY)
    with pytest.raises(InputError, match="ridge = -1"):
        distill_exactly(model, images, GRID, KEY, ridge=-1)
    with pytest.raises(InputError, match=r"it returned shape \(2,\)"):
        distill_exactly(lambda x, sigma: x[:2], images, GRID, KEY)
    broken = lambda x, sigma: jnp.where(sigma < 1, jnp.nan, x)  # noqa: E731
    with pytest.raises(InputError, match=r"non-finite output at sigma = 0\.5, example 0"):
        distill_exactly(broken, images, np.array([2.0, 0.5]), KEY)
    with pytest.raises(InputError, match=r"non-finite distillation loss at sigma = 0\.5, epoch 0"):
        distill_by_adam(broken, images, np.array([2.0, 0.5]), KEY, epochs=2)
    with pytest.raises(InputError, match=r"learning_rates = \(2,\): must be one for each of 10 levels"):
        distill_by_adam(model, images, GRID, KEY, learning_rates=[0.1, 0.1])
    with pytest.raises(InputError, match="epochs = 0"):
        distill_by_adam(model, images, GRID, KEY, epochs=0)


def test_memory_is_a_few_matrices_whatever_the_number_of_examples():
    from dgu.training.second_moments import add_block, nothing

    size, rows = 512, 64
    with jax.enable_x64(True):
        state = nothing(size)
        block = jnp.zeros((rows, size), jnp.float32)
        memory = add_block.lower(state, block, block, jnp.ones(rows, bool)).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 3 * size * size * 8
    # On the host: the whole pass and the solution, of few examples and of many.
    size, peaks = 128, []
    for number in (300, 300, 3000):  # The first compiles, and does not count.
        images = np.random.default_rng(0).standard_normal((number, size)).astype(np.float32)
        tracemalloc.start()
        distill_exactly(identity, images, np.ones(1), KEY, batch_size=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Beside the matrices there are the numbers of the images.
    assert max(peaks[1:]) < 16 * size * size * 8 and peaks[2] < peaks[1] * 1.2, peaks
