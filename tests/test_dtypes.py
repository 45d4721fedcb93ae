"""The dtype and the layout of an array never decide the arithmetic: whole numbers in any form give the numbers of float32.

Every public function of ``dgu.analysis`` that takes arrays has a case here; a new one without a case, or without a word on why
it has none, fails. So have the fits and closed forms of ``dgu.models``, and what takes arrays in ``dgu.training`` and ``dgu.data``.
"""

import dataclasses
from functools import partial

import jaxtyping
import numpy as np
import pytest

import dgu.analysis as A
import dgu.training as T
from dgu.core.errors import InputError
from tests.dtypes.analysis import ANALYSIS, WITHOUT
from tests.dtypes.others import OTHER

pytestmark = pytest.mark.usefixtures("hasty_compiler")
<<<<<<< HEAD
=======
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)

# All numbers are whole, from 0 to 255: every dtype holds them.
N, D, K = 48, 4, 3
ROWS = RNG.integers(0, 200, (N, D))
OTHERS = RNG.integers(0, 220, (N, D))
MARKS = np.arange(N) % K
IMAGES = ROWS.reshape(N, 2, 2, 1)
LARGER = RNG.integers(0, 200, (12, 4, 4, 1))
ONE = IMAGES[0]
CLASSES = ROWS.reshape(K, N // K, D)
VALUES = RNG.integers(0, 200, (N, 2))
CURVES = RNG.integers(0, 200, (6, 9))
SIGMAS = np.array([90, 30, 9])
GRID = np.array([90, 30, 0])
MEANS = np.array([[0, 0], [20, 5]])
SPREADS = np.array([[[100, 10], [10, 80]], [[90, 0], [0, 110]]])
SQUARE = np.diag([9, 6, 3, 1]) + 1
AXES = np.eye(D, dtype=int)
UNIT = AXES[:, :2]
FRAMES = np.stack([AXES[:, :2], AXES[:, 2:]])
TURNED = np.stack([AXES[:, [0, 2]], AXES[:, [1, 3]]])
FALLING = np.array([200, 120, 60, 50, 20, 7, 3, 2])

GAUSSIAN = M.GaussianDenoiser.from_moments(np.full((2, 2, 1), 90.0, np.float32), 100 * SQUARE.astype(np.float32))
FLAT = M.GaussianDenoiser(jnp.full(D, 90.0), jnp.asarray(GAUSSIAN.basis), jnp.asarray(GAUSSIAN.variances))
LAW = M.MoLRGDenoiser(
    np.array([0.4, 0.6]), np.array([[90, 90, 90, 90], [60, 80, 99, 70]]), FRAMES, np.array([[900, 90], [400, 25]]), 5.0
)
NET = M.LinearNetwork((2, 2, 1))
EDM = M.EDMNetwork(M.DiTConfig(4, 1, 1, patch=2, width=8, depth=1, heads=2), M.EDMPreconditioning())
RUNS = A.Runs(np.arange(30)[None], np.array([3]), np.array([1e-6]))


@cache
def family():
    return A.lipschitz_family(KEY, D, projections=2, coordinates=2, width=4)


@cache
def problems():
    return A.low_rank_problems(KEY, *np.array([[2], [9], [0]]), dimension=D, components=2)


TARGET = M.two_modes(3.0)
SDE = VESDE()


@cache
def features():
    return M.RandomFeatures.draw(KEY, 6)


LOSS = T.QuadraticLoss(np.diag([3.0, 2.0, 1.0]).astype(np.float32), np.ones((3, 1), np.float32), np.float32(4.0))
TRAINED = {"loss": "softmax_mse", "schedule": "constant", "epochs": 2, "validation": np.arange(30, N)}


def gaussian_answer(fitted):
    """The denoiser's answer: its basis has signs of its own."""
    return fitted(jnp.asarray(np.resize(ROWS[0], np.shape(fitted.mean)), jnp.float32), 20.0)


def fit_accuracy(give):
    recipe = Recipe(epochs=1, learning_rates=(1e-6,), eval_interval=1)
    return A.fit_size_accuracy(give(CLASSES), A.FitSweep((4,), 6, 3, 3), recipe, seed=0, replicate=0)


# What each function makes of arrays that go through ``give`` and labels that go through ``give.marks``.
ANALYSIS = {
    "GaussianMixtureSampler": lambda give: A.GaussianMixtureSampler.fit(give(ROWS), give.marks(MARKS)).gaussians,
    "FeatureMoments": lambda give: [
        A.FeatureMoments.from_features(give(ROWS)).covariance,
        A.FeatureMoments.from_moments(give(AXES[0]), give(SQUARE)).covariance,
    ],
    "LinearClassifier": lambda give: A.LinearClassifier(jnp.ones((D, 2)))(give(ROWS)),
    "LipschitzFamily": lambda give: family()(give(ROWS[0])),
    "MomentState": lambda give: A.MomentState.zeros((D,)).update(give(ROWS)).update(give(OTHERS)).covariance(),
    "PCAFeatures": lambda give: np.abs(A.PCAFeatures.fit(give(ROWS), 2)(give(OTHERS))),
    "RandomConvolutions": lambda give: A.random_convolutions(KEY, (4, 4, 1), channels=(3,))(give(LARGER)),
    "SigmoidFit": lambda give: A.SigmoidFit(2.0, np.array([1.0]), 0.0, np.ones(3), np.ones((3, 1)))(give(ROWS[0])),
    "TwoLayerClassifier": lambda give: TwoLayerClassifier(
        {"hidden": AXES, "hidden_bias": MEANS[0, 0], "readout": AXES[:2], "readout_bias": MEANS[0]}
    )(give(ROWS)),
    "argmax_error": lambda give: A.argmax_error(give(MEANS), give(SPREADS)),
    "auc": lambda give: A.auc(give(ROWS[:, 0]), give(OTHERS[:, 0])),
    "ball_counts": lambda give: A.ball_counts(give(ROWS), give(OTHERS), give(OTHERS[:, 0])),
    "best_ridge": lambda give: A.best_ridge(give(MEANS), give(SPREADS), 50),
    "asymptotic_error": lambda give: A.asymptotic_error(give(MEANS), give(SPREADS), 50, ridge=0.1),
    "checked_features": lambda give: A.checked_features(give(ROWS), N),
    "choose_rows": lambda give: A.choose_rows(give(ROWS), 7, KEY),
    "churn_levels": lambda give: A.churn_levels(give(GRID)),
    "class_balance": lambda give: A.class_balance(give.marks(MARKS), give.marks(MARKS[:31]), K),
    "class_moments": lambda give: A.class_moments(give(CLASSES)),
    "class_spectra": lambda give: class_spectra(give(ROWS), give.marks(MARKS)),
    "classifier_error": lambda give: A.classifier_error(give(MEANS.T), give(MEANS), give(SPREADS)),
    "cluster_pairs": lambda give: A.cluster_pairs(give(ROWS[:K]), give.marks(MARKS), 2),
    "additivity": lambda give: A.additivity(GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, pairs=2),
    "combination_scores": lambda give: A.combination_scores(
        GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, give(np.array([[1, 2]])), pairs=2
    ),
    "homogeneity": lambda give: A.homogeneity(GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, factors=(2.0,), pairs=2),
    "linearity": lambda give: A.linearity(
        GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, weights=give(np.array([[0, 1]])), pairs=2
    ),
    "mixing_weights": lambda give: A.mixing_weights(give(np.array([0, 1]))),
    "compare_spectra": lambda give: A.compare_spectra(give(ROWS), give(OTHERS), KEY, blocks=2),
    "concentration_scale": lambda give: A.concentration_scale(give(ROWS), 3),
    "copying_test": lambda give: A.copying_test(
        give(ROWS[:, 0]), give(OTHERS[:, 0]), ROWS[:, 1] > 150, OTHERS[:, 1] > 150
    ),
    "covariance_spectrum": lambda give: A.covariance_spectrum(give(ROWS)),
    "denoising_loss": lambda give: A.denoising_loss(GAUSSIAN, give(IMAGES), KEY, sigmas=(30.0,)),
    "descend_exact_loss": lambda give: A.descend_exact_loss(
        give(FRAMES[:1]), give(ROWS), A.vp_grid(3), rate=1e-9, steps=1
    ),
    "drawn_loss": lambda give: A.drawn_loss(give(UNIT), give(ROWS), A.vp_grid(3), jax.random.split(KEY, 2)),
    "density_coverage": lambda give: A.density_coverage(give(ROWS), give(OTHERS)),
    "early_stopping": lambda give: A.early_stopping(give(CURVES)),
    "edit": lambda give: A.edit(GAUSSIAN, give(ONE), give(AXES[:2].reshape(2, 2, 2, 1)), give(SIGMAS), give(GRID)),
    "em_mixture": lambda give: (
        jax.jit(partial(em_mixture, rank=2, iterations=2))(
            give(ROWS), give(AXES[MARKS % 2][:, :2]), jnp.full(2, 2)
        ).mixture.means
    ),
    "evaluate": lambda give: A.evaluate(
        A.LinearClassifier(jnp.eye(D, K)[None]), give(ROWS), give.marks(MARKS), np.arange(N)[None], loss="softmax_mse"
    ),
    "exact_loss": lambda give: A.exact_loss(give(UNIT), give(ROWS), A.vp_grid(4)),
    "extract_features": lambda give: A.extract_features(give(IMAGES), lambda block: block[:, 0] ** 2),
    "falling_share": lambda give: A.falling_share(give(CURVES)),
    "fit_classes": lambda give: A.fit_classes(give(ROWS), give.marks(MARKS), 2).denoiser(
        jnp.asarray(ROWS[0], jnp.float32), 20.0
    ),
    "fit_classifiers": lambda give: A.fit_classifiers(give(ROWS), give.marks(MARKS), RUNS, **TRAINED).final.weights,
    "fit_gaps": lambda give: A.fit_gaps(give(ROWS)),
    "fit_gaussian": lambda give: A.fit_gaussian(give(ROWS)),
    "fit_mixture": lambda give: A.fit_mixture(give(ROWS), 2, 2, KEY, restarts=1, iterations=3).likelihood,
    "fit_sigmoids": lambda give: A.fit_sigmoids(
        give(np.arange(8)), give(np.array([0, 0, 1, 0, 0, 1, 1, 1])), give.marks(np.zeros(8, int)), resamples=3
    ),
    "fit_size_accuracy": fit_accuracy,
    "fit_two_layer": lambda give: A.fit_two_layer(give(ROWS), give.marks(MARKS), RUNS, width=3, **TRAINED).final.params,
    "flow_kl": lambda give: (
        A.flow_kl(
            ScoreOfDensity(TARGET, SDE), SDE, give(ROWS[:4, :1] % 5), give(ROWS[:4, 0] % 3), rtol=1e-2, atol=1e-2
        ).value
    ),
    "frechet_interval": lambda give: A.frechet_interval(give(ROWS), give(OTHERS), KEY, blocks=2),
    "gap_trend": lambda give: A.gap_trend(give(np.array([2, 9])), [give(ROWS[:, 0]), give(ROWS[:, 1])]),
    "gaussian_flow": lambda give: A.gaussian_flow(GAUSSIAN, give(ONE), 60.0, give(SIGMAS)),
    "gaussian_outputs": lambda give: A.gaussian_outputs(GAUSSIAN, A.gaussian_path(GAUSSIAN, GRID), give(IMAGES), KEY),
    "gaussian_path": lambda give: A.gaussian_path(GAUSSIAN, give(GRID)).gains,
    "gram_spectrum": lambda give: A.gram_spectrum(give(ROWS), give.marks(MARKS), 5),
    "grid_kl": lambda give: A.grid_kl(give(ROWS[:, 0] % 9), give(OTHERS[:, 0] % 9), 0.1),
    "hill_index": lambda give: A.hill_index(give(VALUES)),
    "hits_at": lambda give: A.hits_at(give(ROWS[:, 0]), give(OTHERS[:, 0]), 0.1),
    "jacobian_ranks": lambda give: A.jacobian_ranks(GAUSSIAN, give(IMAGES[:2]), give(np.array([30, 9]))).rank,
    "k_nearest": lambda give: A.k_nearest(give(ROWS), give(OTHERS), 3),
    "k_subspaces": lambda give: (
        jax.jit(partial(A.k_subspaces, clusters=2, width=2, iterations=2))(
            give(ROWS), give.marks(MARKS % 2), np.ones(N, bool), 2
        ).objective
    ),
    "kernel_distance": lambda give: A.kernel_distance(give(ROWS), give(OTHERS), KEY, block_size=12),
    "kmeans": lambda give: A.kmeans(give(ROWS), 3, KEY, restarts=2),
    "knn_kl": lambda give: A.knn_kl(
        give(np.arange(40)[:, None] * 5), give(np.arange(40)[:, None] * 6 + 1), k=2, blocks=2
    ),
    "least_squares_classifier": lambda give: A.least_squares_classifier(give(ROWS), give.marks(MARKS), K, ridge=1.0),
    "left_over_mass": lambda give: A.left_over_mass(give(VALUES), 30.0),
    "level_losses": lambda give: A.level_losses(GAUSSIAN, give(IMAGES), KEY, sigmas=give(SIGMAS)),
    "linear_level_loss": lambda give: A.linear_level_loss(give(SQUARE), give(SIGMAS)),
    "lipschitz_family": lambda give: A.lipschitz_family(KEY, D, width=0, anchors=give(ROWS), directions=give(OTHERS)),
    "lipschitz_values": lambda give: A.lipschitz_values(family(), give(ROWS)),
    "lloyd": lambda give: jax.jit(partial(A.lloyd, clusters=3, key=KEY, restarts=2))(give(ROWS)),
    "loss_attack": lambda give: A.loss_attack(give(ROWS), give(OTHERS), (1.0, 2.0, 3.0, 4.0)).at_level,
    "marchenko_pastur_density": lambda give: A.marchenko_pastur_density(give(np.array([0, 1, 2])), 50, 10),
    "marchenko_pastur_quantiles": lambda give: marchenko_pastur_quantiles(give(np.array([0, 1])), 50, 10),
    "min_norm_interpolator": lambda give: A.min_norm_interpolator(give(ROWS[:3]), give(OTHERS[:3]), give(AXES)),
    "mixture_bound": lambda give: A.mixture_bound(give(FALLING), give(FALLING), give(FALLING), give(FALLING)),
    "mixture_samples": lambda give: A.mixture_samples(give(CLASSES), KEY, 3),
    "mode_summary": lambda give: A.mode_summary(give(np.arange(51) % 7), A.Grid()),
    "moment_distances": lambda give: A.moment_distances(give(ROWS), give(OTHERS), KEY, blocks=2),
    "moments": lambda give: A.moments(give(IMAGES)).covariance(),
    "near_duplicates": lambda give: A.near_duplicates(give(ROWS[:, 0]), give(OTHERS[:, 0]), D),
    "nearest": lambda give: A.nearest(give(ROWS), give(OTHERS)),
    "nearest_neighbours": lambda give: A.nearest_neighbours(
        give(ROWS), give(OTHERS), give(ROWS[:9] // 2), KEY, replicates=5
    ),
    "norm_z_scores": lambda give: A.norm_z_scores(give(CURVES), (give(CURVES[0]), give(CURVES[1] + 1))),
    "novelty": lambda give: A.novelty(give(ROWS[:, 0]), give(OTHERS[:, 0])),
    "numerical_rank": lambda give: A.numerical_rank(give(FALLING)),
    "orthogonality_residual": lambda give: A.orthogonality_residual(GAUSSIAN, give(IMAGES), give(SIGMAS), KEY),
    "orthonormalised": lambda give: A.orthonormalised(give(ROWS[:4, :2] + 1)),
    "perturbed_images": lambda give: A.perturbed_images(
        GAUSSIAN, give(ONE), give(AXES[:2].reshape(2, 2, 2, 1)), give(np.array([0, 2])), give(GRID)
    ),
    "power_law": lambda give: A.power_law(give(FALLING)),
    "power_law_fit": lambda give: A.power_law_fit(give(ROWS[:40].reshape(16, 10)), KEY, first=1, last=6, draws=10),
    "precision_recall": lambda give: A.precision_recall(give(ROWS), give(OTHERS)),
    "predict": lambda give: predict(A.LinearClassifier(jnp.ones((1, D, K))), give(IMAGES), loss="softmax_mse"),
    "predicted_curve": lambda give: A.predicted_curve(
        give(MEANS), give(SPREADS), np.array([[0, 1]]), give(np.array([50]))
    ),
    "principal_angles": lambda give: principal_angles(give(UNIT), give(AXES[:, [0, 2]])),
    "principal_basis": lambda give: np.abs(A.principal_basis(give(ROWS), 2, 2)),
    "principal_images": lambda give: A.principal_images(give(IMAGES), 2),
    "projector_distances": lambda give: A.projector_distances(give(FRAMES), give(TURNED)),
    "quadratic_features": lambda give: A.quadratic_features(give(ROWS)),
    "random_starts": lambda give: A.random_starts(KEY, give(FRAMES[None])),
    "recover_by_bases": lambda give: recover_by_bases(give(FRAMES[None]), give(TURNED[None]))[1],
    "recover_by_sgd": lambda give: A.recover_by_sgd(
        jax.random.split(KEY, 1), problems(), give(FRAMES[None]), steps=2, batch_size=2
    )[2],
    "sample_novelty": lambda give: A.sample_novelty(give(ROWS), give(OTHERS), give(IMAGES.reshape(N, D)[::-1]), 0.5),
    "subspace_distances": lambda give: A.subspace_distances(give(ROWS), give(FRAMES)),
    "recovery": lambda give: A.recovery(give(FRAMES), give(TURNED)),
    "relative_distance": lambda give: A.relative_distance(give(ROWS), give(OTHERS[:, 0])),
    "represent": lambda give: A.represent(give(IMAGES.reshape(K, -1, 2, 2, 1)), lambda block: block[:, 0] ** 2),
    "same_noise_distances": lambda give: A.same_noise_distances(give(IMAGES), give(OTHERS.reshape(IMAGES.shape))),
    "sample_from": lambda give: A.sample_from(GAUSSIAN, KEY, give(IMAGES[:3]), give(GRID)),
    "scale_recursion": lambda give: A.scale_recursion(give(FALLING), give(FALLING), 3.0),
    "score_distances": lambda give: (
        A.score_distances(
            {"a": GAUSSIAN, "b": M.EmpiricalDenoiser(IMAGES)}, give(IMAGES), give(SIGMAS), KEY, inputs="held-out"
        ).differences
    ),
    "score_log_density": lambda give: A.score_log_density(ScoreOfDensity(TARGET, SDE), 0.5, give(np.arange(9))),
    "simulated_errors": lambda give: A.simulated_errors(give(MEANS), give(SPREADS), 20, [0.1], KEY, 2),
    "singular_triplets": lambda give: (
        A.singular_triplets(GAUSSIAN, give(IMAGES[:2]), give(np.array([30, 9])), 2, KEY).values
    ),
    "smoothed": lambda give: A.smoothed(give(CURVES), 3),
    "spacing": lambda give: A.spacing(give.marks(MARKS), give(ROWS)),
    "spectral_labels": lambda give: jax.jit(partial(A.spectral_labels, KEY, clusters=2, threshold=0.9))(
        give(ROWS[:12]), np.ones(12, bool)
    ),
    "spectrum_path": lambda give: spectrum_path(
        give(FALLING), give(GRID), multiplicity=give(FALLING), mean_square=give(FALLING)
    ),
    "spectrum_ratio": lambda give: spectrum_ratio(give(FALLING), give(FALLING + 1)),
    "split_by_subspace": lambda give: A.split_by_subspace(give(ROWS), give(AXES[:2])),
    "squared_singular_values": lambda give: A.squared_singular_values(give(ROWS)),
    "sub_gaussian_norm": lambda give: sub_gaussian_norm(give(VALUES), give(ROWS[:, 0])),
    "subspace_overlap": lambda give: A.subspace_overlap(give(UNIT), give(AXES[:, [0, 2]])),
    "tail_bound": lambda give: tail_bound(give(FALLING), 30.0),
    "tail_curves": lambda give: A.tail_curves(give(VALUES), 30.0, give(np.array([0, 1, 2]))),
    "tail_estimates": lambda give: A.tail_estimates(give(VALUES), KEY, 20),
    "tail_test": lambda give: A.tail_test(give(ROWS), family(), KEY, draws=19).kurtosis,
    "tail_test_p_values": lambda give: A.tail_test_p_values(KEY, 1, 20, give(ROWS[0] + 1), family(), draws=19),
    "theorem_assumptions": lambda give: A.theorem_assumptions(give(ROWS), KEY, directions=2, leading=2, resamples=20),
    "theorem_one_bound": lambda give: A.theorem_one_bound(give(FALLING), give(FALLING), give(FALLING)),
    "top_eigenvalues": lambda give: A.top_eigenvalues(lambda v: v @ SQUARE, give(ROWS[:2])).values,
    "train_convnet": lambda give: A.train_convnet(
        give(LARGER), give.marks(MARKS[:12]), KEY, epochs=1, batch_size=6, width=1, learning_rate=1e-6
    ).logits(give(LARGER)),
    "train_subspaces": lambda give: A.train_subspaces(
        jax.random.split(KEY, 1), jax.tree.map(lambda leaf: leaf[None], problems()), give(FRAMES[None, None]), steps=2
    ),
    "truth_starts": lambda give: A.truth_starts(KEY, give(FRAMES[None])),
    "variance_ratio": lambda give: A.variance_ratio(
        give(ROWS), give.marks(MARKS), give(OTHERS), give.marks(MARKS), KEY, replicates=5
    ),
    "vector_correlation": lambda give: A.vector_correlation(give(UNIT), give(AXES)),
}

_RESULT, _NUMBERS, _DENOISER, _MADE = (
    "a result",
    "takes single numbers",
    "takes a denoiser or what one did",
    "takes what a function here made",
)
WITHOUT = {
    **dict.fromkeys(
        """BoundFit ClassificationError Estimate Expansion Fit GapTrend LinearityScores Neighbours Problems
        Recovery Runs SameNoise ScoreDistances Trajectories""".split(),
        _RESULT,
    ),
    **dict.fromkeys(
        """FitSweep Grid Schedule TheoremDesign exactly normal_estimate TimeGrid class_key coupled_deviation coupled_distances
        expected_coverage grid_cells low_rank_problems marchenko_pastur_edges optimal_stopping panel_steps
        random_convolutions random_directions universality_gap vp_grid""".split(),
        _NUMBERS,
    ),
    **dict.fromkeys(
        """KLMeasure generator_expansion map_spectra observe_norms pair_distances path_expansion score_kl snapshots
        step_expansion target_log_density trace_trajectories weight_nmse""".split(),
        _DENOISER,
    ),
    **dict.fromkeys(
        """ConvNet choose_learning_rate draw_gaussian fit_bound frechet_distance gap_to_bound mean_over_pairs
        recover_by_k_subspaces recover_by_pca share_difference write_statistics""".split(),
        _MADE,
    ),
    **dict.fromkeys("read_features read_statistics SSCD".split(), "takes a file"),
    **dict.fromkeys("proportion".split(), "takes truth values, which it only compares"),
    **dict.fromkeys(
        "bounded_mean corrected_t_interval equivalence jackknife_interval t_interval".split(),
        "takes measurements, to float64 at once",
    ),
}


@cache
def network_state():
    return T.initial_levels(NET, 2, T.LevelTraining(steps=1, batch_size=4))


@cache
def many_networks():
    return jax.vmap(lambda key: M.MLPDenoiser.init(key, (D,), width=4, depth=1))(jax.random.split(KEY, 2))


EMPIRICAL = M.EmpiricalDenoiser(IMAGES)
ONE_ROW = ROWS[0]


def denoised(make, one=ONE):
    make = cache(make)
    return lambda give: make()(give(one), 30.0)


def dynamics(give):
    runs = T.Runs(give(ROWS[None, :8, :1]), jax.random.split(KEY, 1), np.full(1, 1e-6), np.full(1, 2))
    recipe = T.Recipe(M.ShallowNet(width=2), SDE, epochs=1, every=1, batch_size=4)
    return T.train_dynamics(runs, recipe, lambda score, aux: score(jnp.ones(1), 0.5)).losses


def edm_training(give):
    config = T.TrainingConfig(duration_kimg=0.008, batch_size=8, learning_rate=1e-6)
    state = T.initial_state(EDM, config)
    return next(T.train_steps(EDM, state, give(LARGER), None, config))[1]["loss"]


@cache
def edm_params():
    return EDM.init(KEY)


def loss_of(function):
    return lambda give: function(EDM, edm_params(), give(LARGER[0]), 0.5, give(LARGER[1]))


OTHER = {
    "GaussianDenoiser": denoised(lambda: GAUSSIAN),
    "GaussianDenoiser.fit": lambda give: gaussian_answer(M.GaussianDenoiser.fit(give(IMAGES))),
    "GaussianDenoiser.fit, few": lambda give: gaussian_answer(M.GaussianDenoiser.fit(give(IMAGES[:3]))),
    "GaussianDenoiser.from_moments": lambda give: gaussian_answer(
        M.GaussianDenoiser.from_moments(give(ROWS[0]), give(SQUARE))
    ),
    "BoxMixture": lambda give: M.BoxMixture.of([0.5, 0.5], give(MEANS), give(MEANS + 9))(jnp.ones(2), 3.0),
    "BoxMixture, x": denoised(lambda: M.BoxMixture.of([0.5, 0.5], MEANS, MEANS + 9), np.array([3, 4])),
    "BoxMixture.log_density": lambda give: M.BoxMixture.of([0.5, 0.5], MEANS, MEANS + 9).log_density(
        give(MEANS[0]), 3.0
    ),
    "EmpiricalDenoiser": lambda give: [M.EmpiricalDenoiser(give(IMAGES))(give(ONE), 30.0)],
    "EmpiricalDenoiser.log_density": lambda give: EMPIRICAL.log_density(give(ONE), 30.0),
    "MoLRGDenoiser": lambda give: M.MoLRGDenoiser(
        np.array([0.4, 0.6]), give(MEANS @ AXES[:2]), give(FRAMES), give(SPREADS[:, 0]), 5.0
    )(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.draw": lambda give: M.MoLRGDenoiser(
        np.array([0.4, 0.6]), give(MEANS @ AXES[:2]), give(FRAMES), give(SPREADS[:, 0]), 5.0
    ).draw(KEY),
    "MoLRGDenoiser.jacobian": lambda give: LAW.jacobian(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.log_density": lambda give: LAW.log_density(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.responsibilities": lambda give: LAW.responsibilities(give(ONE_ROW), 30.0),
    "MoLRGDenoiser.score": lambda give: LAW.score(give(ONE_ROW), 30.0),
    "MoLRG.of": lambda give: M.MoLRG.of(
        give(np.array([1, 0])), give(MEANS @ AXES[:2]), give(FRAMES), give(SPREADS[:, 0])
    ),
    "MoLRG.sample": lambda give: M.MoLRG.random(KEY, (D,), (2, 2)).sample(KEY, np.arange(4), give.marks(MARKS[:4] % 2)),
    "LinearDenoiser": denoised(lambda: M.LinearDenoiser.of_gaussian(GAUSSIAN, SIGMAS)),
    "LinearDenoiser.of_gaussian": lambda give: M.LinearDenoiser.of_gaussian(GAUSSIAN, give(SIGMAS)),
    "LinearDenoiser, its maps": lambda give: M.LinearDenoiser(give(SIGMAS), give(np.stack([AXES] * 3)), give(ROWS[:3]))(
        jnp.ones(D), 20.0
    ),
    "LinearNetwork": denoised(lambda: M.NetworkDenoiser({"weight": jnp.eye(D), "bias": jnp.ones(D)}, NET)),
    "MLPDenoiser": denoised(lambda: M.MLPDenoiser.init(KEY, (2, 2, 1), width=4, depth=1)),
    "EDMDenoiser": denoised(lambda: EDM.denoiser(EDM.init(KEY)), LARGER[0]),
    "RandomFeatures": lambda give: features()(give(ONE_ROW[:1]), 0.5),
    "gaussian_mixture": lambda give: M.gaussian_mixture([0.5, 0.5], give(MEANS), give(SPREADS)).log_density(
        jnp.ones(2), 3.0
    ),
    "QuadraticLoss": lambda give: LOSS(give(np.array([[1, 2, 3]]))),
    "antithetic_moments": lambda give: antithetic_moments(GAUSSIAN, give(IMAGES), 30.0, KEY),
    "author_learning_rates": lambda give: T.author_learning_rates(give(SIGMAS)),
    "cross_moments": lambda give: cross_moments(GAUSSIAN, give(IMAGES), 30.0, KEY),
    "distill_by_adam": lambda give: (
        T.distill_by_adam(
            GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, epochs=1, learning_rates=give(np.array([1, 2, 3]))
        ).losses
    ),
    "distill_exactly": lambda give: T.distill_exactly(GAUSSIAN, give(IMAGES), give(SIGMAS), KEY).denoiser(
        jnp.ones((2, 2, 1)), 20.0
    ),
    "dsm_loss": lambda give: T.dsm_loss(NET, NET.init(KEY), give(IMAGES), give(IMAGES), 1.0)[0],
    "edm_loss": loss_of(T.edm_loss),
    "edm_sigma": lambda give: T.edm_sigma(give(np.array([0, 1, 2]))),
    "empirical_loss": lambda give: T.empirical_loss(
        features(),
        SDE,
        give(ROWS[:5, :1] % 7),
        give(np.array([1])),
        give(ROWS[:4, :1] % 3),
        give(np.array([1, 2, 3, 4])),
    ),
    "gaussian_arms": lambda give: gaussian_arms(give(CLASSES), KEY, 3),
    "gradient_flow": lambda give: T.gradient_flow(LOSS, give(np.array([0, 1, 9])), give(np.array([[1, 2, 3]]))),
    "loss_weight": lambda give: T.loss_weight(SDE, "likelihood", give(np.array([1, 1]))),
    "population_loss": lambda give: T.population_loss(
        features(),
        SDE,
        ScoreOfDensity(TARGET, SDE),
        give(np.array([1])),
        give(ROWS[None, :5, :1] % 7),
        give(ROWS[None, :5, 0]),
    ),
    "train_dynamics": dynamics,
    "train_levels": lambda give: T.train_levels(
        NET, network_state(), give(IMAGES), give(SIGMAS[:2]), T.LevelTraining(steps=1, batch_size=4)
    )[1],
    "train_network": lambda give: T.train_network(
        EDM, give(LARGER), T.TrainingConfig(duration_kimg=0.008, batch_size=8)
    )[1],
    "train_steps": edm_training,
    "train_together": lambda give: T.train_together(
        many_networks(),
        give(ROWS.reshape(2, -1, D)),
        np.array([9, 20]),
        jax.random.split(KEY, 2),
        T.TogetherConfig(steps=1, chunk=1),
    )[1],
    "transform": lambda give: T.transform(
        give(LARGER[0]), T.Geometry(*jnp.linspace(0.1, 0.8, len(T.Geometry._fields)))
    ),
    "ve_loss": loss_of(T.ve_loss),
    "ve_sigma": lambda give: T.ve_sigma(give(np.array([0, 1]))),
    "vesde_loss": loss_of(T.vesde_loss),
    "vesde_sigma": lambda give: T.vesde_sigma(give(np.array([0, 1]))),
    "vp_loss": loss_of(T.vp_loss),
    "vp_sigma": lambda give: T.vp_sigma(give(np.array([0, 1]))),
    "PixelScale": lambda give: data.PixelScale.fit(give(IMAGES)).apply(give(IMAGES)),
    "PixelScale.invert": lambda give: data.PixelScale.fit(IMAGES).invert(give(IMAGES)),
    "area_mean": lambda give: data.area_mean(give(LARGER), 2),
    "checked_images": lambda give: checked_images(give(IMAGES), 2),
    "checked_levels": lambda give: checked_levels(give(SIGMAS), {}),
    "to_uint8": lambda give: to_uint8(give(IMAGES[:, 0] % 2)[..., None]),
}
>>>>>>> molrg
CASES = {**ANALYSIS, **OTHER}
#: Those that trace the arrays themselves: each dtype is compiled anew, so that by default two are tried.
TRACED = ("em_mixture", "k_subspaces", "lloyd", "spectral_labels", "squared_singular_values")
#: Those whose programs take seconds to compile: tried as slow tests.
COSTLY = """BoxMixture EDMDenoiser antithetic_moments distill_by_adam edm_loss fit_mixture fit_size_accuracy fit_two_layer
    flow_kl population_loss recover_by_sgd score_log_density train_convnet train_dynamics train_subspaces train_together transform
    ve_loss vesde_loss vp_loss train_network train_steps MLPDenoiser em_mixture lloyd fit_classes spectral_labels k_subspaces kmeans fit_classifiers
    descend_exact_loss drawn_loss exact_loss empirical_loss gaussian_flow grid_kl RandomFeatures tail_test_p_values theorem_assumptions""".split()


def whole(array):
    return np.ascontiguousarray(array, np.float32)


def read_only(array):
    fixed = whole(array)
    fixed.flags.writeable = False
    return fixed


FORMS = {
    **{name: partial(np.ascontiguousarray, dtype=name) for name in ("uint8", "int16", "int64", "float16")},
    "Fortran-ordered": lambda array: np.asfortranarray(whole(array)),
    "read-only": read_only,
    "every second row": lambda array: np.repeat(whole(array), 2, axis=0)[::2],
    "reversed columns": lambda array: whole(array[..., ::-1])[..., ::-1],
    "uint8, every second row": lambda array: np.repeat(np.ascontiguousarray(array, np.uint8), 2, axis=0)[::2],
    **{name: partial(np.ascontiguousarray, dtype=name) for name in (">f4", ">i2")},
}


class Give:
    """Hands out every array of a case in one form, and labels in a form of their own; or one of them alone."""

    def __init__(self, form, marks=np.asarray, only=None):
        self.form, self.of_marks, self.only, self.count = form, marks, only, 0

    def _one(self, array, form, plain):
        self.count += 1
        return (form if self.only in (None, self.count - 1) else plain)(array)

    def __call__(self, array):
        return self._one(array, self.form, whole)

    def marks(self, array):
        return self._one(array, self.of_marks, np.asarray)


def leaves(result):
    """The numbers of a result, one after another."""
    if dataclasses.is_dataclass(result):
        return leaves([getattr(result, field.name) for field in dataclasses.fields(result)])
    if isinstance(result, dict):
        return leaves(list(result.values()))
    if isinstance(result, list | tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [] if result is None or isinstance(result, str) else [np.asarray(result, np.float64)]


def same_numbers(found, expected):
    """Whether two results hold the same numbers, up to the rounding of float32."""
    found, expected = leaves(found), leaves(expected)
    assert expected, "a case without numbers would compare nothing"
    return len(found) == len(expected) and all(
        ours.shape == theirs.shape
        and np.isclose(ours, theirs, rtol=1e-3, atol=1e-4 * largest_of(theirs), equal_nan=True).all()
        for ours, theirs in zip(found, expected)
    )


def largest_of(numbers):
    """The largest magnitude of the finite ones."""
    return float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0))


def marks_as(form):
    """Labels in the integers of a form, where it has any."""
    return partial(np.ascontiguousarray, dtype=form) if "int" in form and "," not in form else np.asarray


NAMES = [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in CASES]
#: What the default run tries: the others are layouts and integers that NumPy brings to one of these.
FEW = ("uint8", "float16", "reversed columns", ">i2")


def forms_of(name, forms):
    """JAX itself takes no arrays of a foreign byte order as arguments of compiled programs."""
    return [form for form in forms if name not in TRACED or form[0] != ">"]


def forms_that_differ(name, forms):
    """Those of the forms in which a case gives other numbers than as contiguous float32."""
    expected = CASES[name](Give(whole))
    return [form for form in forms if not same_numbers(CASES[name](Give(FORMS[form], marks_as(form))), expected)]


@pytest.mark.parametrize("name", NAMES)
def test_whole_numbers_in_a_few_forms_give_the_same_numbers(name):
    assert forms_that_differ(name, forms_of(name, FEW)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_in_any_form_give_the_same_numbers(name):
    assert forms_that_differ(name, forms_of(name, FORMS)) == []


@pytest.mark.parametrize(
    "other", [{"a": [1.0, 2.0]}, {"a": [1.0, 2.01], "b": 3.0}, {"a": [1.0], "b": 3.0}, {"a": [1.0, np.nan], "b": 3.0}]
)
def test_other_numbers_are_told_apart(other):
    numbers = {"a": [1.0, 2.0], "b": 3.0}
    assert same_numbers({"a": [1.0001, 2.0], "b": 3.0}, numbers) and not same_numbers(other, numbers)


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the functions' own refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", NAMES)
def test_booleans_and_text_are_refused(name, unchecked):
    counted = Give(whole)
    CASES[name](counted)
    for number in range(counted.count):
        for form in (lambda array: np.asarray(array) > 0, lambda array: np.asarray(array).astype(str)):
            # A program that traces its arguments cannot be given text by JAX.
            with pytest.raises((InputError, TypeError) if name in TRACED else InputError):
                CASES[name](Give(form, form, number))


def test_every_public_function_is_here_or_has_a_reason_not_to_be():
    public = {name for name, thing in vars(A).items() if callable(thing) and not name.startswith("_")}
    assert set(WITHOUT) <= public <= set(ANALYSIS) | set(WITHOUT) and not set(ANALYSIS) & set(WITHOUT)
    takes_arrays = {name for name in vars(T) if name.islower() and callable(getattr(T, name))}
    takes_none = (
        "augment draw_geometry flow_curves gauss_hermite image_order initial_levels initial_state lemma_ratios "
        "quadratic_loss seeded_runs train_in_directory"
    )
    assert takes_arrays - set(OTHER) == set(
        f"{takes_none} train_side_by_side train_with_snapshots trains_together update updates_done".split()
    )
