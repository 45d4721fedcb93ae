"""Every public function of ``dgu.analysis`` that takes arrays, as a function of how the arrays are given."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import dgu.analysis as A
import dgu.models as M
from dgu.analysis.concentration.tails import sub_gaussian_norm, tail_bound
from dgu.analysis.moments.spectra import class_spectra, marchenko_pastur_quantiles, spectrum_ratio
from dgu.analysis.subspaces.distances import principal_angles
from dgu.analysis.subspaces.mixture_em import em_mixture
from dgu.analysis.subspaces.phase import recover_by_bases
from dgu.analysis.universality.recipe import Recipe
from dgu.samplers import ScoreOfDensity
from dgu.samplers.gaussian_path import spectrum_path
from dgu.training.classifiers.fit import predict
from dgu.training.classifiers.two_layer import TwoLayerClassifier
from tests.dtypes.arrays import (
    AXES,
    CLASSES,
    CURVES,
    FALLING,
    FRAMES,
    GAUSSIAN,
    GRID,
    IMAGES,
    KEY,
    LARGER,
    LOSS,
    MARKS,
    MEANS,
    ONE,
    OTHERS,
    RISING,
    ROWS,
    RUNS,
    SDE,
    SIGMAS,
    SPREADS,
    SQUARE,
    TARGET,
    TRAINED,
    TURNED,
    UNIT,
    VALUES,
    D,
    K,
    N,
    family,
    problems,
)


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
    "joint_p_value": lambda give: A.joint_p_value(give(np.array([0, 3])), give(np.array([9, 4]))),
    "least_of_others": lambda give: A.least_of_others(give(CURVES)),
    "level_outputs": lambda give: A.level_outputs({"a": GAUSSIAN}, give(IMAGES[:2]), give(SIGMAS), KEY)[1],
    "level_paths": lambda give: A.level_paths({"a": GAUSSIAN}, give(IMAGES[:2]), give(np.array([30, 9])))["a"],
    "level_triplets": lambda give: A.level_triplets(GAUSSIAN, give(IMAGES[:2]), give(np.array([30, 9])), 2, KEY).values,
    "linearity": lambda give: A.linearity(
        GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, weights=give(np.array([[0, 1]])), pairs=2
    ),
    "contribution_scores": lambda give: (
        A.contribution_scores(
            GAUSSIAN, give(IMAGES), give(SIGMAS), KEY, skip=give(np.array([0, 0, 0])), triples=2
        ).measured
    ),
    "mixing_weights": lambda give: A.mixing_weights(give(np.array([0, 1]))),
    "compare_spectra": lambda give: A.compare_spectra(give(ROWS), give(OTHERS), KEY, blocks=2),
    "concentration_scale": lambda give: A.concentration_scale(give(ROWS), 3),
    "copying_test": lambda give: A.copying_test(
        give(ROWS[:, 0]), give(OTHERS[:, 0]), ROWS[:, 1] > 150, OTHERS[:, 1] > 150
    ),
    "covariance_spectrum": lambda give: A.covariance_spectrum(give(ROWS)),
    "denoising_loss": lambda give: A.denoising_loss(GAUSSIAN, give(IMAGES), KEY, sigmas=(30.0,)),
    "density_coverage": lambda give: A.density_coverage(give(ROWS), give(OTHERS)),
    "early_stopping": lambda give: A.early_stopping(give(CURVES)),
    "decay_exponent": lambda give: A.decay_exponent(
        give(np.array([2, 9, 30])), give(np.array([9, 5, 1])), give(np.array([1, 2, 2]))
    ),
    "descend_exact_loss": lambda give: A.descend_exact_loss(
        give(FRAMES[:1]), give(ROWS), A.vp_grid(3), rate=1e-9, steps=1
    ),
    "clustering_objective": lambda give: A.clustering_objective(give(UNIT)[None], give(ROWS))[0],
    "drawn_loss": lambda give: A.drawn_loss(give(UNIT), give(ROWS), A.vp_grid(3), jax.random.split(KEY, 2)),
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
    "gap_trend": lambda give: A.gap_trend(give(np.array([2, 9])), [give(ROWS[:, 0]), give(ROWS[:, 1])], largest=200),
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
    "local_dimension": lambda give: A.local_dimension(GAUSSIAN, give(IMAGES[:3]), give(np.array([30, 9, 5]))).value,
    "loss_attack": lambda give: A.loss_attack(give(ROWS), give(OTHERS), (1.0, 2.0, 3.0, 4.0)).at_level,
    "marchenko_pastur_density": lambda give: A.marchenko_pastur_density(give(np.array([0, 1, 2])), 50, 10),
    "marchenko_pastur_quantiles": lambda give: marchenko_pastur_quantiles(give(np.array([0, 1])), 50, 10),
    "median_interval": lambda give: A.median_interval(give(ROWS[:, 0])),
    "min_norm_interpolator": lambda give: A.min_norm_interpolator(give(ROWS[:3]), give(OTHERS[:3]), give(AXES)),
    "mixture_bound": lambda give: A.mixture_bound(give(FALLING), give(FALLING), give(FALLING), give(FALLING)),
    "mixture_samples": lambda give: A.mixture_samples(give(CLASSES), KEY, 3),
    "mode_scores": lambda give: A.mode_scores(give(np.arange(51)[None] % 7), A.Grid(), 3.0, 0.3).slopes,
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
    "prior_kl": lambda give: A.prior_kl(TARGET, SDE, give(ROWS[:9, :1] % 7), KEY),
    "projector_distances": lambda give: A.projector_distances(give(FRAMES), give(TURNED)),
    "quadratic_features": lambda give: A.quadratic_features(give(ROWS)),
    "random_starts": lambda give: A.random_starts(KEY, give(FRAMES[None])),
    "rank_correlation": lambda give: A.rank_correlation(give(ROWS[0]), give(ROWS[1])),
    "rank_trend": lambda give: A.rank_trend(give(np.arange(D)), give(ROWS[:3])),
    "recover_by_bases": lambda give: recover_by_bases(give(FRAMES[None]), give(TURNED[None]))[1],
    "recover_by_sgd": lambda give: A.recover_by_sgd(
        jax.random.split(KEY, 1), problems(), give(FRAMES[None]), steps=2, batch_size=2
    )[2],
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
    "class_separation": lambda give: (
        A.class_separation(
            give(ROWS), give.marks(MARKS), give(OTHERS), give.marks(MARKS), give(np.array([20, 60])), KEY
        ).mean
    ),
    "collapse_level": lambda give: A.collapse_level(give(FALLING), 50),
    "collapse_map": lambda give: A.collapse_map(give(LARGER), 3),
    "crossing_level": lambda give: A.crossing_level(give(np.array([1, 2, 4])), give(np.array([3, 2, 0])), 1.0),
    "effective_noise": lambda give: A.effective_noise(give(FALLING), give(SIGMAS), 9),
    "fitted_gains": lambda give: A.fitted_gains(give(FALLING), give(SIGMAS), 9),
    "fitted_loss": lambda give: A.fitted_loss(give(FALLING), give(SIGMAS), 9),
    "fitted_sampling": lambda give: A.fitted_sampling(give(FALLING), 9),
    "flow_gains": lambda give: A.flow_gains(give(FALLING), give(SIGMAS), give(np.array([0, 1, 3]))),
    "flow_variances": lambda give: A.flow_variances(give(FALLING), give(np.array([0, 1, 3]))),
    "learning_times": lambda give: A.learning_times(give(FALLING[:2])),
    "moment_gaps": lambda give: A.moment_gaps(GAUSSIAN, give(IMAGES), give(SIGMAS), KEY).squared_error,
    "mutual_information": lambda give: A.mutual_information(give(RISING), give(RISING[::-1])),
    "noisy_entropy": lambda give: A.noisy_entropy(give(RISING), give(RISING[::-1]), 3),
    "posterior_moments": lambda give: A.posterior_moments(GAUSSIAN, give(ONE), 30.0, give(ONE)),
    "source_weights": lambda give: A.source_weights(give(ROWS), give(np.array([20, 60])), KEY, of=give.marks(MARKS)),
    "speciation_level": lambda give: A.speciation_level(give(ROWS), give.marks(MARKS)),
    "two_timescales": lambda give: A.two_timescales(LOSS, LOSS, give(RISING)).population,
    "u_turns": lambda give: A.u_turns(GAUSSIAN, give(IMAGES), give(np.array([20, 60])), KEY, num_steps=3),
    "smoothed": lambda give: A.smoothed(give(CURVES), 3),
    "state_triplets": lambda give: (
        A.state_triplets(GAUSSIAN, give(IMAGES[None, :2]), give(np.array([30])), 2, KEY).values
    ),
    "spacing": lambda give: A.spacing(give.marks(MARKS), give(ROWS)),
    "spectral_labels": lambda give: jax.jit(partial(A.spectral_labels, KEY, clusters=2, threshold=0.9))(
        give(ROWS[:12]), np.ones(12, bool)
    ),
    "spectrum_path": lambda give: spectrum_path(
        give(FALLING), give(GRID), multiplicity=give(FALLING), mean_square=give(FALLING)
    ),
    "sample_novelty": lambda give: A.sample_novelty(give(ROWS), give(OTHERS), give(IMAGES.reshape(N, D)[::-1]), 0.5),
    "subspace_distances": lambda give: A.subspace_distances(give(ROWS), give(FRAMES)),
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
        """BoundFit ClassSeparation ClassificationError ContributionScores Estimate Expansion Fit FittedGains FittedSampling GapTrend LinearityScores ModeScores MomentGaps Neighbours Problems
        Recovery Runs SameNoise ScoreDistances Timescales Trajectories""".split(),
        _RESULT,
    ),
    **dict.fromkeys(
        """FitSweep Grid gaussian_fit_kl Schedule TheoremDesign exactly normal_estimate TimeGrid class_key coupled_deviation coupled_distances
        expected_coverage grid_cells low_rank_problems marchenko_pastur_edges optimal_stopping panel_steps
        random_convolutions random_directions universality_gap vp_grid""".split(),
        _NUMBERS,
    ),
    **dict.fromkeys(
        """KLMeasure asymmetry class_kept generator_expansion map_spectra observe_norms pair_distances path_expansion score_kl snapshots
        step_expansion target_log_density trace_trajectories weight_nmse""".split(),
        _DENOISER,
    ),
    **dict.fromkeys(
        """ConvNet choose_learning_rate draw_gaussian fit_bound frechet_distance gap_to_bound independent_difference
        independent_ratio mean_over_pairs
        recover_by_k_subspaces recover_by_pca share_difference write_statistics""".split(),
        _MADE,
    ),
    **dict.fromkeys("read_features read_statistics SSCD".split(), "takes a file"),
    **dict.fromkeys("proportion".split(), "takes truth values, which it only compares"),
    **dict.fromkeys(
        "bounded_mean equivalence jackknife_interval t_interval".split(),
        "takes measurements, to float64 at once",
    ),
}
