import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dgu.analysis import Runs, Schedule, choose_learning_rate, evaluate, fit_classifiers, quadratic_features
from dgu.core.errors import InputError
from dgu.core.parallel import data_mesh
from dgu.training.classifiers import sgd
from dgu.training.classifiers.fit import _evaluate, predict
from dgu.training.classifiers.gram import GramSpace, gram_is_cheaper, gram_layout
from dgu.training.classifiers.linear import LinearSpace
from dgu.training.classifiers.orders import epoch_order
from dgu.training.classifiers.sgd import Recipe, train_runs
from tests.training.classifiers.sgd_reference import accuracy, loss_and_slope, train_linear

METHOD = {"softmax_mse": "weight", "logit_mse": "gram", "cross_entropy": "weight", "sigmoid_mse": "gram"}
EPOCHS, BATCH, N, D, K = 5, 8, 90, 11, 3
SIZES = (29, 13, 40)
HELD = np.arange(60, 90)
OPTIONS = dict(epochs=EPOCHS, batch_size=BATCH, eval_interval=2, validation=HELD)
#: Of the tests in float32, so that they share one compiled program of each method.
SINGLE = dict(loss="softmax_mse", schedule="constant", momentum=0.5, **OPTIONS)


def problem(dtype=np.float64, classes=K):
    """A pool whose last 30 rows are for validation, and three runs of unlike size with their own seeds and rates."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, classes, N)
    x = (rng.normal(size=(N, D)) + 1.5 * np.eye(D)[y]).astype(dtype)
    rows = np.full((3, max(SIZES)), -1)
    order = rng.permutation(60)
    for run, size in enumerate(SIZES):
        rows[run, :size] = order[:size] if run < 2 else order[-size:]  # All 60 together.
    return x, y, Runs(rows, np.array([3, 1, 4]), np.array([0.5, 0.3, 0.2]))


def orders(seed, size, epochs=EPOCHS):
    return [np.asarray(epoch_order(seed, e, np.ones(size, bool))) for e in range(epochs)]


def reference(x, y, runs, run, *, loss, rate=lambda base, epoch: base, **options):
    rows = runs.rows[run][runs.rows[run] >= 0]
    base = runs.learning_rate[run]
    return train_linear(
        x[rows].astype(np.float64), y[rows], orders(runs.seed[run], len(rows)), loss=loss, batch=BATCH,
        outputs=1 if loss == "sigmoid_mse" else K, rates=[rate(base, e) for e in range(EPOCHS)], **options,
    )  # fmt: skip


def assert_close(got, want, tolerance):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=0, atol=tolerance * np.abs(want).max())


#: The method neither knows nor changes the loss: by default each loss goes with one method, and each method with two.
PAIRS = [
    pytest.param(loss, method, marks=() if METHOD[loss] == method else pytest.mark.slow)
    for loss in METHOD
    for method in ("weight", "gram")
]


@pytest.mark.parametrize(("loss", "method"), PAIRS)
def test_five_epochs_equal_numpy_in_float64(x64, loss, method):
    x, y, runs = problem(classes=2 if loss == "sigmoid_mse" else K)
    fit = fit_classifiers(x, y, runs, loss=loss, schedule="constant", method=method, bias=True, momentum=0.6, **OPTIONS)
    assert fit.epochs.tolist() == [2, 4, 5]
    for run in range(3):
        rows = runs.rows[run][runs.rows[run] >= 0]
        path = reference(x, y, runs, run, loss=loss, bias=True, momentum=0.6)
        assert_close(fit.final.weights[run], path[-1][0], 1e-6)
        assert_close(fit.final.bias[run], path[-1][1], 1e-6)
        curves = [[], [], [], []]
        for done in (2, 4, 5):
            w, b = path[done - 1]
            for at, (losses, hits) in ((rows, curves[:2]), (HELD, curves[2:])):
                losses.append(loss_and_slope(loss, x[at] @ w + b, y[at])[0])
                hits.append(accuracy(loss, x[at] @ w + b, y[at]))
        names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
        for name, curve in zip(names, curves):
            np.testing.assert_allclose(getattr(fit, name)[run], curve, rtol=0, atol=1e-9, err_msg=name)
        best = (2, 4, 5)[int(np.argmin(curves[2]))]
        assert int(fit.chosen_epoch[run]) == best
        assert_close(fit.weights[run], path[best - 1][0], 1e-6)


@pytest.mark.parametrize("method", ["weight", "gram"])
def test_five_epochs_equal_numpy_in_float32(method):
    x, y, runs = problem(np.float32)
    fit = fit_classifiers(x, y, runs, method=method, **SINGLE)
    for run in range(3):
        path = reference(x, y, runs, run, loss="softmax_mse", momentum=0.5)
        assert_close(fit.final.weights[run], path[-1][0], 1e-4)


SCHEDULES = {
    "cosine": (
        Schedule("cosine", eta_min=0.01),
        lambda base, t: 0.01 + (base - 0.01) * (1 + np.cos(np.pi * t / 5)) / 2,
    ),
    "restarts": (
        Schedule("cosine_restarts", period=3, eta_min=0.02),
        lambda base, t: 0.02 + (base - 0.02) * (1 + np.cos(np.pi * (t % 3) / 3)) / 2,
    ),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("cosine", "weight"),
        ("restarts", "gram"),
        pytest.param("cosine", "gram", marks=pytest.mark.slow),
        pytest.param("restarts", "weight", marks=pytest.mark.slow),
    ],
)
def test_schedules_and_given_weights(x64, name, method):
    schedule, rate = SCHEDULES[name]
    x, y, runs = problem()
    initial = np.random.default_rng(0).normal(size=(3, D, K))
    given = dataclasses.replace(runs, initial=initial)
    fit = fit_classifiers(x, y, given, loss="cross_entropy", schedule=schedule, method=method, **OPTIONS)
    for run in range(3):
        path = reference(x, y, runs, run, loss="cross_entropy", rate=rate, w=initial[run])
        assert_close(fit.final.weights[run], path[-1][0], 1e-6)


def test_gram_equals_weight_space_for_a_torch_initialisation(x64):
    x, y, runs = problem()
    options = dict(loss="softmax_mse", schedule="constant", init="torch", bias=True, **OPTIONS)
    train = partial(fit_classifiers, x, y, runs, **options)
    weight, gram = train(method="weight"), train(method="gram")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10), weight, gram)
    # the initialisation is there, within its bounds, and another for each seed
    slow = dataclasses.replace(runs, learning_rate=np.full(3, 1e-12))
    still = fit_classifiers(x, y, slow, method="weight", **options)
    start = np.concatenate([still.weights, still.bias[:, None]], axis=1)
    bound = D**-0.5
    assert np.abs(start).max() <= bound * (1 + 1e-9) and np.abs(np.std(start) / bound - 3**-0.5) < 0.1
    assert np.abs(start[0] - start[1]).max() > 0.1


def test_runs_together_equal_runs_alone_and_chunks_do_not_matter(x64):
    x, y, runs = problem()
    # As in the test against NumPy, whose program serves for the three together.
    options = dict(loss="softmax_mse", schedule="constant", method="weight", bias=True, momentum=0.6, **OPTIONS)
    train = partial(fit_classifiers, x, y, **options)
    together = train(runs)
    many = jax.tree.map(lambda a: np.concatenate([a] * 3), runs)
    chunked = train(many, chunk=2)  # On each of two devices three chunks; three of the twelve runs are empty.
    for run in range(3):
        alone = train(jax.tree.map(lambda a, run=run: a[run : run + 1], runs))
        for name in ("weights", "validation_loss", "train_loss", "chosen_epoch"):
            one = np.asarray(getattr(alone, name)[0])
            for batch, at in ((together, run), (chunked, run), (chunked, run + 6)):
                np.testing.assert_allclose(getattr(batch, name)[at], one, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_one_trace_per_call():
    x, y, runs = problem(np.float32)
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Counted(LinearSpace):
        def share(self, pool, mesh):
            seen.append(1)
            return super().share(pool, mesh)

    recipe = Recipe("cross_entropy", Schedule(), 3, 1, 8, 0.0)
    rates = jnp.asarray(runs.learning_rate, jnp.float32)
    runs = dataclasses.replace(runs, classes=np.tile(np.arange(K), (3, 1)), learning_rate=rates)
    runs = jax.tree.map(jnp.asarray, runs)
    mesh = data_mesh(jax.devices()[:1])
    for seed in range(3):
        moved = dataclasses.replace(runs, seed=runs.seed + seed)
        args = Counted(K, False, "zeros"), recipe, jnp.asarray(x), jnp.asarray(y), moved, jnp.tile(HELD, (3, 1))
        train_runs(*args, chunk=1, mesh=mesh)
    assert len(seen) == 1


def test_public_calls_share_one_trace():
    x, y, runs = problem(np.float32)
    sizes = set()
    for rate in (0.1, 0.2, 0.3):
        changed = dataclasses.replace(runs, learning_rate=np.full(3, rate), seed=runs.seed + 1)
        fit = fit_classifiers(x, y, changed, loss="logit_mse", schedule="constant", method="weight", **OPTIONS)
        evaluate(fit.model, x, y, runs.rows, loss="logit_mse")
        sizes.add((train_runs._cache_size(), _evaluate._cache_size()))
    assert len(sizes) == 1


def test_two_gaussians_reach_the_bayes_accuracy():
    rng = np.random.default_rng(11)
    delta, d, n, held, test = 2.0, 8, 4096, 1024, 16384
    total = n + held + test
    y = rng.integers(0, 2, total)
    covariance = 0.3 + 0.7 * np.eye(d)
    factor = np.linalg.cholesky(covariance)
    direction = factor @ (np.ones(d) / np.sqrt(d))  # Mahalanobis length 1
    x = (rng.normal(size=(total, d)) @ factor.T + (y[:, None] - 0.5) * delta * direction).astype(np.float32)
    runs = Runs(np.arange(n)[None], np.array([0]), np.array([0.2]))
    options = dict(loss="cross_entropy", schedule=Schedule("cosine"), epochs=20, bias=True)
    fit = fit_classifiers(x, y, runs, validation=np.arange(n, n + held), **options)
    got, _ = evaluate(fit.model, x, y, np.arange(n + held, total)[None], loss="cross_entropy")
    bayes = norm.cdf(delta / 2)
    assert abs(float(got[0]) - bayes) < 3 * np.sqrt(bayes * (1 - bayes) / test)


def test_class_subsets_are_relabelled(x64):
    x, y, runs = problem(classes=4)
    classes = np.array([[2, 0], [3, 1], [1, 2]])
    rows = np.full((3, 30), -1)
    held = np.full((3, 20), -1)
    for run, known in enumerate(classes):
        own = np.flatnonzero(np.isin(y, known))
        train, check = own[own < 60][:30], own[own >= 60][:20]
        rows[run, : len(train)], held[run, : len(check)] = train, check
    subset = Runs(rows, runs.seed, runs.learning_rate, classes)
    options = {**OPTIONS, "validation": held}
    fit = fit_classifiers(x, y, subset, loss="sigmoid_mse", schedule="constant", method="weight", **options)
    assert fit.weights.shape == (3, D, 1)
    for run, known in enumerate(classes):
        own = rows[run][rows[run] >= 0]
        path = train_linear(
            x[own], (y[own] == known[1]).astype(int), orders(runs.seed[run], len(own)), loss="sigmoid_mse", outputs=1,
            rates=[runs.learning_rate[run]] * EPOCHS, batch=BATCH,
        )  # fmt: skip
        assert_close(fit.final.weights[run], path[-1][0], 1e-6)
    # the train x test matrix: each classifier on two sets, of unlike size
    sets = np.stack([held, np.where(np.arange(20) < 5, held, -1)], axis=1)
    got, mean_loss = evaluate(fit.model, x, y, sets, loss="sigmoid_mse", classes=classes)
    guesses = np.asarray(predict(fit.model, x, loss="sigmoid_mse"))
    for run, known in enumerate(classes):
        for which in range(2):
            at = sets[run, which][sets[run, which] >= 0]
            out, truth = x[at] @ np.asarray(fit.weights[run]), (y[at] == known[1]).astype(int)
            assert float(got[run, which]) == pytest.approx(accuracy("sigmoid_mse", out, truth))
            assert float(got[run, which]) == pytest.approx(np.mean(guesses[run, at] == truth))
            assert float(mean_loss[run, which]) == pytest.approx(loss_and_slope("sigmoid_mse", out, truth)[0])


def test_divergence_is_told_and_never_chosen():
    x, y, runs = problem(np.float32)
    runs = dataclasses.replace(runs, learning_rate=np.array([1e30, 0.1, 0.2]))
    fit = fit_classifiers(x, y, runs, loss="logit_mse", schedule="constant", method="weight", **OPTIONS)
    assert fit.chosen_epoch[0] == 0 and not np.isfinite(fit.validation_loss[0]).any() and not fit.weights[0].any()
    rates, selected = choose_learning_rate(fit, np.array([0, 0, 0]))
    lowest = np.asarray(fit.validation_loss).min(axis=1)
    assert selected.tolist() == [False, lowest[1] <= lowest[2], lowest[1] > lowest[2]]
    assert rates.tolist() == np.asarray(fit.learning_rate)[selected].tolist()
    with pytest.raises(InputError, match="every rate diverged"):
        choose_learning_rate(fit, np.array([0, 1, 1]))


def test_learning_rate_is_chosen_by_the_mean_over_a_groups_runs():
    x, y, runs = problem(np.float32)
    fit = fit_classifiers(x, y, runs, loss="logit_mse", schedule="constant", method="weight", **OPTIONS)
    losses = np.array([0.5, 0.1, 0.2, 0.3, 0.9, 0.8])
    curves = np.stack([losses + 1, losses], axis=1)
    rates = np.array([1.0, 1.0, 2.0, 2.0, 1.0, 2.0])
    planted = dataclasses.replace(fit, learning_rate=rates, validation_loss=curves)
    rates, selected = choose_learning_rate(planted, np.array([7, 7, 7, 7, 9, 9]))
    assert rates.tolist() == [2.0, 2.0] and selected.tolist() == [False, False, True, True, False, True]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 40), method=st.sampled_from(["weight", "gram"]))
def test_padding_changes_nothing(seed, size, method):
    x, y, _ = problem(np.float32)
    # Two more runs, so that all of the first 60 rows are used: one shape of the Gram matrix.
    rows = np.stack([np.random.default_rng(seed).permutation(60)[:40], np.arange(40), np.arange(20, 60)])
    rows[0, size:] = -1
    fits = []
    for padding in (0, 24):
        padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=-1)
        padded_held = np.pad(HELD, (0, 3 * padding), constant_values=-1)
        runs = Runs(padded, np.array([seed, 1, 2]), np.full(3, 0.3))
        fits.append(fit_classifiers(x, y, runs, **{**SINGLE, "method": method, "validation": padded_held}))
    for name in ("weights", "train_loss", "validation_loss", "validation_accuracy"):
        a, b = (np.asarray(getattr(fit, name)[0]) for fit in fits)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


@settings(max_examples=6, deadline=None)
@given(permutation=st.permutations(range(K)))
def test_relabelling_permutes_the_columns(permutation):
    x, y, runs = problem(np.float32)
    permutation = np.array(permutation)
    train = partial(fit_classifiers, x, method="weight", **SINGLE)
    plain, moved = train(y, runs), train(permutation[y], runs)
    np.testing.assert_allclose(moved.weights[..., permutation], plain.weights, rtol=0, atol=1e-6)
    listed = train(y, dataclasses.replace(runs, classes=np.tile(np.argsort(permutation), (3, 1))))
    np.testing.assert_allclose(listed.weights, moved.weights, rtol=0, atol=1e-6)


def test_auto_takes_the_cheaper_method():
    many = np.full(10, 4096)
    assert gram_is_cheaper(many, 6144, 5120, 12288, 4, 600)
    assert not gram_is_cheaper(many, 6144, 5120, 12288, 4, 1), "one epoch does not pay for the matrix"
    assert not gram_is_cheaper(many, 6144, 5120, 196, 4, 600), "n > 2 d"
    assert not gram_is_cheaper(np.full(500, 200), 12000, 10000, 196, 4, 600), "less than twice as cheap"
    assert not gram_is_cheaper(np.full(1000, 100), 60000, 60000, 12288, 4, 600), "a matrix of 14 GB"
    used, place, train = gram_layout(np.array([[7, 3, -1]]), np.array([[5, 3, -1]]), 4)
    assert train == 2 and used.tolist() == [3, 7, 5, 0] and place[[3, 7, 5, -1]].tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("method", ["weight", "gram"])
def test_lowers_for_accelerators(method):
    shape = jax.ShapeDtypeStruct
    # Four families of three learning rates.
    runs = Runs(shape((4, 16), jnp.int32), shape((4,), jnp.int32), shape((4, 3), jnp.float32), shape((4, K), jnp.int32))
    recipe = Recipe("softmax_mse", Schedule("cosine_restarts", 2, 0.01), 4, 2, 8, 0.9)
    pool, space = shape((30, D), jnp.float32), LinearSpace(K, True, "torch")
    if method == "gram":
        pool, space = (pool, shape((24,), jnp.int32)), GramSpace(K, True, "torch", 16)
    train = partial(train_runs, space, recipe, chunk=2, mesh=data_mesh(jax.devices()[:1]))
    exported = jax.export.export(jax.jit(train), platforms=["cuda", "tpu"])(
        pool, shape((24,), jnp.int32), runs, shape((4, 6), jnp.int32)
    )
    assert exported.platforms == ("cuda", "tpu")


def test_quadratic_features_have_the_squared_kernel(x64):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 2, 3))
    want = (x.reshape(5, -1) @ x.reshape(5, -1).T) ** 2
    exact = np.asarray(quadratic_features(x))
    np.testing.assert_allclose(exact @ exact.T, want, rtol=1e-12)
    draws = [np.asarray(quadratic_features(x, num_features=4096, key=jax.random.key(i))) for i in range(8)]
    kernels = np.stack([f @ f.T for f in draws])
    error = kernels.std(axis=0, ddof=1) / np.sqrt(8)
    assert np.all(np.abs(kernels.mean(axis=0) - want) < 6 * error + 1e-9)


BAD = {
    "runs.rows": lambda x, y, r: (x, y, dataclasses.replace(r, rows=np.where(r.rows == 3, 99, r.rows)), {}),
    "runs.seed": lambda x, y, r: (x, y, dataclasses.replace(r, seed=r.seed[:2]), {}),
    "runs.learning_rate": lambda x, y, r: (x, y, dataclasses.replace(r, learning_rate=-r.learning_rate), {}),
    "runs.classes": lambda x, y, r: (x, y, dataclasses.replace(r, classes=np.zeros((3, 2), int)), {}),
    "runs.initial": lambda x, y, r: (x, y, dataclasses.replace(r, initial=np.zeros((3, K, D))), {}),
    "validation": lambda x, y, r: (x, y, r, {"validation": np.full((3, 4), -1)}),
    "x": lambda x, y, r: (np.where(x == x[5, 5], np.nan, x), y, r, {}),
    "y": lambda x, y, r: (x, y - 1, r, {}),
    "loss": lambda x, y, r: (x, y, r, {"loss": "hinge"}),
    "num_classes": lambda x, y, r: (x, y, r, {"loss": "sigmoid_mse"}),
    "schedule": lambda x, y, r: (x, y, r, {"schedule": "linear"}),
    "schedule.period": lambda x, y, r: (x, y, r, {"schedule": "cosine_restarts"}),
    "method": lambda x, y, r: (x, y, r, {"method": "fast"}),
    "epochs": lambda x, y, r: (x, y, r, {"epochs": 0}),
    "momentum": lambda x, y, r: (x, y, r, {"momentum": 1.0}),
    "batch_size": lambda x, y, r: (x, y, r, {"batch_size": 0}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_argument(name):
    x, y, runs, changes = BAD[name](*problem(np.float32))
    with pytest.raises(InputError) as caught:
        fit_classifiers(x, y, runs, **{"loss": "softmax_mse", "schedule": "constant", **OPTIONS, **changes})
    assert str(caught.value).startswith(f"{name} = ") and "\n" not in str(caught.value)


def test_a_label_outside_of_a_runs_classes_is_refused():
    x, y, runs = problem(np.float32)
    stranger = dataclasses.replace(runs, classes=np.tile([0, 1], (3, 1)))
    with pytest.raises(InputError, match=r"runs.rows = 'rows of class \[2\] in run 0'"):
        fit_classifiers(x, y, stranger, loss="softmax_mse", schedule="constant", **OPTIONS)


def test_strict_dtypes(strict_dtypes, monkeypatch):
    """Dtypes are settled when the program is traced: nothing is compiled."""
    x, y, runs = problem(np.float32)
    traced = []

    def trace(*arguments, chunk, mesh):
        shapes = train_runs.eval_shape(*arguments, chunk=chunk, mesh=mesh)
        traced.append(shapes)
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)

    monkeypatch.setattr(sgd, "train_runs", trace)
    for method in ("weight", "gram"):
        fit_classifiers(x, y, runs, loss="softmax_mse", schedule=Schedule("cosine"), method=method, **OPTIONS)
    assert len(traced) == 2
    chex.assert_type(epoch_order(0, 0, np.ones(4, bool)), jnp.int32)
