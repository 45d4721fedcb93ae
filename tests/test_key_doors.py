"""Every function that takes a key draws the same whatever generator the key is of, and refuses what is no key."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dgu
from dgu import analysis, models, samplers, training
from dgu.analysis.universality import arms
from dgu.core import keys, noisy
from dgu.core.errors import InputError
from dgu.distributions import bases
from dgu.distributions.bases import draw_initial, initial_noise
from dgu.distributions.class_gaussians import class_key, class_keys, draw_gaussians, fit_gaussian, fit_gaussians
from dgu.distributions.equal_moments import equal_moments
from dgu.models import blocks, posterior_identities
from dgu.samplers.trajectories import draw_starts
from dgu.testing import check_denoiser
from dgu.training.subspaces.sgd import train_subspaces

ROOT = Path(__file__).parent.parent
NAMES = ("key", "keys", "example")
KEY = jax.random.key(3, impl="threefry2x32")
SHAPE = (3, 2)


def doors():
    """All public functions and methods of dgu with a parameter that is a key, by name, without the tests' type
    checks.
    """
    found = {}
    for module in pkgutil.walk_packages(dgu.__path__, "dgu."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.name:
                continue
            functions = {name: value}
            if inspect.isclass(value):
                if getattr(value, "_is_protocol", False):
                    continue
                functions = {
                    f"{name}.{entry}": member
                    for entry, member in vars(value).items()
                    if entry[0] != "_" or entry == "__call__"
                }
            for label, function in functions.items():
                function = getattr(function, "__func__", function)  # A class method.
                if not callable(function):
                    continue
                function = inspect.unwrap(function)
                if inspect.isfunction(function) and set(NAMES) & set(inspect.signature(function).parameters):
                    found[f"{module.name.removeprefix('dgu.')}.{label}"] = function
    return found


DOORS = doors()
#: Of several keys, whose number the other arguments give.
MANY = {
    "analysis.subspaces.one_subspace.drawn_loss",
    "analysis.subspaces.phase.recover_by_sgd",
    "training.subspaces.sgd.train_subspaces",
    "samplers.together.sample_together",
    "training.together.train_together",
}


def test_the_doors_are_found():
    assert len(DOORS) > 100 and MANY < set(DOORS)
    assert {
        "samplers.sample.sample",
        "distributions.class_gaussians.GaussianMixtureSampler.sample",
        "core.keys.stream",
    } < set(DOORS)


@pytest.mark.parametrize("name", sorted(set(DOORS) - MANY))
def test_what_is_no_key_is_refused_at_the_door(name):
    """Before anything else is looked at: the other arguments are nonsense."""
    function = DOORS[name]
    parameters = inspect.signature(function).parameters
    needed = [p for p, about in parameters.items() if about.default is about.empty and about.kind < about.VAR_KEYWORD]
    given = {
        p: 0 if p in ("index", "step") else object()
        for p in needed
        if parameters[p].kind != inspect.Parameter.VAR_POSITIONAL
    }
    key = next(p for p in NAMES if p in parameters)
    for wrong in (7, np.zeros(2, np.float32), jax.random.split(KEY)):
        with pytest.raises(InputError, match=rf"^{key}( = |: has shape \(2,\); must be one key)") as error:
            result = function(**given | {key: wrong})
            if inspect.isgenerator(result):
                next(result)
        assert "\n" not in str(error.value)


# --- the same results, bit for bit
# ---------------------------------------------------------------------------------------


@cache
def rows(n=24, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@cache
def images():
    return 0.5 * rows(16, 6).reshape(16, *SHAPE)


@cache
def gaussian():
    return models.GaussianDenoiser.fit(images())


@cache
def mixture():
    return models.MoLRG.random(KEY, (6,), (2, 1))


@cache
def hierarchy():
    return models.RandomHierarchy.random(KEY, depth=2)


def half(x, sigma):
    return x / (1 + sigma**2)


def problems(key):
    return analysis.low_rank_problems(key, np.array([1, 1]), np.array([4, 4]), np.arange(2), dimension=5, components=1)


SIGMAS = samplers.karras_sigmas(3)
LABELS = np.repeat(np.arange(2), 12)
MOMENTS = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), np.tile(np.eye(3), (3, 1, 1))
CASES = {
    "core.keys.stream": lambda key: jax.random.key_data(keys.stream(key, "a", 3)),
    "core.keys.streams": lambda key: jax.random.key_data(keys.streams(key, ["a", 3])),
    "core.keys.example_key": lambda key: jax.random.key_data(keys.example_key(key, 5)),
    "distributions.bases.draw_initial": lambda key: jax.vmap(lambda i: draw_initial(key, (4,)) + i)(jnp.arange(2)),
    "core.keys.draw_step": lambda key: keys.draw_step(key, 2, (4,)),
    "distributions.bases.initial_noise": lambda key: jax.vmap(lambda i: initial_noise(key, i, SHAPE))(jnp.arange(3)),
    "core.keys.step_noise": lambda key: jax.vmap(lambda i: keys.step_noise(key, i, 1, SHAPE))(jnp.arange(3)),
    "distributions.bases.StudentT.__call__": lambda key: bases.StudentT(5)(key, (4,)),
    "distributions.bases.MultivariateStudentT.__call__": lambda key: bases.MultivariateStudentT(5)(key, (4,)),
    "core.noisy.noisy_input": lambda key: jax.vmap(lambda i: noisy.noisy_input(key, jnp.asarray(images()[0]), i, 0.5))(jnp.arange(3)),
    "core.noisy.noisy_batch": lambda key: noisy.noisy_batch(key, images()[:3], 0.5),
    "analysis.linearity.level_by_level.level_outputs": lambda key: analysis.level_outputs({"half": jax.tree_util.Partial(half)}, images()[:3], SIGMAS[:2], key),
    "analysis.linearity.level_by_level.state_triplets": lambda key: analysis.state_triplets(gaussian(), images()[None, :2], SIGMAS[:1], 1, key, max_rounds=2).values,
    "analysis.linearity.level_by_level.level_triplets": lambda key: analysis.level_triplets(gaussian(), images()[:2], SIGMAS[:2], 1, key, max_rounds=2).values,
    "samplers.sample.sample": lambda key: samplers.sample(gaussian(), key, range(5), SIGMAS, shape=SHAPE, batch_size=1, churn=samplers.Churn(10)),
    "samplers.heun.heun": lambda key: samplers.heun(gaussian(), images()[0], SIGMAS, key=key, churn=samplers.Churn(10)),
    "samplers.ablation.Ablation.__call__": lambda key: samplers.Ablation()(gaussian(), images()[0], SIGMAS, key=key, churn=samplers.Churn(10)),
    "samplers.likelihood.log_likelihood": lambda key: samplers.log_likelihood(gaussian(), images()[0], key=key, probes=3, rtol=1e-2, atol=1e-2),
    "samplers.likelihood.dequantize": lambda key: samplers.dequantize(np.arange(5, dtype=np.uint8), key),
    "samplers.reverse.reverse_sde": lambda key: samplers.reverse_sde(lambda x, t: -x, samplers.VESDE(), jnp.ones(3), np.linspace(1, 0.1, 4), key),
    "models.mixtures.EmpiricalDenoiser.draw": lambda key: models.EmpiricalDenoiser(images()).draw(key),
    "models.mixtures.MoLRGDenoiser.draw": lambda key: jax.vmap(lambda i: mixture().denoiser.draw(jax.random.fold_in(keys.threefry(key), i)))(jnp.arange(3)),
    "models.mixtures.MoLRGDenoiser.draw_label": lambda key: mixture().denoiser.draw_label(key),
    "models.molrg.MoLRG.random": lambda key: models.MoLRG.random(key, (6,), (2, 1)),
    "models.molrg.MoLRG.sample": lambda key: mixture().sample(key, np.arange(4)),
    "models.molrg.MoLRG.labels": lambda key: mixture().labels(key, np.arange(9)),
    "models.molrg.random_basis": lambda key: models.random_basis(key, 5, 2),
    "models.random_hierarchy.RandomHierarchy.random": lambda key: models.RandomHierarchy.random(key),
    "models.random_hierarchy.RandomHierarchy.draw": lambda key: hierarchy().draw(key),
    "models.random_hierarchy.RandomHierarchy.draw_label": lambda key: hierarchy().draw_label(key),
    "analysis.clocks.source_weights.source_weights": lambda key: analysis.source_weights(rows(), SIGMAS[:2], key),
    "analysis.clocks.speciation.class_separation": lambda key: analysis.class_separation(rows(), LABELS, rows(seed=1), LABELS, SIGMAS[1::-1], key).mean,
    "analysis.clocks.class_kept.class_kept": lambda key: analysis.class_kept(hierarchy(), SIGMAS[1:2], key, draws=8).value,
    "analysis.clocks.u_turns.u_turns": lambda key: analysis.u_turns(gaussian(), images()[:2], SIGMAS[:1], key, num_steps=2),
    "analysis.identities.moments.moment_gaps": lambda key: analysis.moment_gaps(gaussian(), images()[:3], SIGMAS[:1], key).squared_error,
    "models.random_features.RandomFeatures.draw": lambda key: models.RandomFeatures.draw(key, 7),
    "models.shallow.ShallowNet.init": lambda key: models.ShallowNet(8).init(key),
    "models.mlp.MLPDenoiser.init": lambda key: models.MLPDenoiser.init(key, SHAPE, width=8, depth=1),
    "models.blocks.dropout": lambda key: blocks.dropout(jnp.ones(20), 0.5, key),
    "models.blocks.dropped_label": lambda key: jax.vmap(lambda i: blocks.dropped_label(i * jnp.ones(20), 0.5, key))(jnp.ones(3)),
    "training.augment.draw_geometry": lambda key: training.draw_geometry(key, 0.9),
    "training.distillation.distill_exactly": lambda key: training.distill_exactly(half, images(), SIGMAS[:2], key, draws=2, ridge=1e-3).denoiser,
    "models.posterior_identities.orthogonality_score": lambda key: posterior_identities.orthogonality_score(gaussian(), jnp.asarray(images()[:3]), [0.5, 1.0], key),
    "testing.contract.check_denoiser": lambda key: [value for value in as_tree(check_denoiser(gaussian(), SHAPE, key)).values() if isinstance(value, float)],
    "distributions.class_gaussians.draw_gaussian": lambda key: analysis.draw_gaussian(fit_gaussian(jnp.asarray(rows())), key, np.arange(4)),
    "distributions.class_gaussians.draw_gaussians": lambda key: draw_gaussians(fit_gaussians(rows()[None]), key, 3),
    "distributions.equal_moments.equal_moments": lambda key: equal_moments(key, 5, 3),
    "distributions.class_gaussians.class_key": lambda key: jax.random.key_data(class_key(key, 1)),
    "distributions.class_gaussians.class_keys": lambda key: jax.random.key_data(class_keys(key, 2)),
    "distributions.class_gaussians.GaussianMixtureSampler.sample": lambda key: analysis.GaussianMixtureSampler.fit(rows(), LABELS).sample(key, 1, range(4), batch_size=3),
    "analysis.universality.arms.gaussian_arms": lambda key: arms.gaussian_arms(rows()[None], key, 6),
    "analysis.subspaces.edits.random_directions": lambda key: analysis.random_directions(key, 2, SHAPE),
    "analysis.universality.argmax.argmax_error": lambda key: analysis.argmax_error(*MOMENTS, key=key, points=16),
    "analysis.subspaces.kmeans.kmeans": lambda key: analysis.kmeans(rows(), 3, key, restarts=3),
    "analysis.concentration.coupling.coupled_distances": lambda key: analysis.coupled_distances(key, 5, (2, 3)),
    "analysis.quality.frechet.choose_rows": lambda key: analysis.choose_rows(rows(), 5, key),
    "analysis.universality.features.quadratic_features": lambda key: analysis.quadratic_features(rows(), num_features=5, key=key),
    "analysis.linearity.level_losses.level_losses": lambda key: analysis.level_losses(half, images(), key, sigmas=SIGMAS[:2]),
    "analysis.concentration.lipschitz.lipschitz_family": lambda key: [np.asarray(leaf) for leaf in jax.tree.leaves(analysis.lipschitz_family(key, 6))],
    "analysis.quality.membership.denoising_loss": lambda key: analysis.denoising_loss(gaussian(), images(), key),
    "analysis.moments.power_laws.power_law_fit": lambda key: analysis.power_law_fit(rows(40, 10), key, first=2, last=8, draws=10),
    "analysis.quality.distances.kernel_distance": lambda key: analysis.kernel_distance(rows(), rows(seed=1), key, block_size=12),
    "analysis.quality.distances.nearest_neighbours": lambda key: analysis.nearest_neighbours(rows(8), rows(9, seed=1), rows(9, seed=2), key, replicates=20),
    "analysis.quality.distances.variance_ratio": lambda key: analysis.variance_ratio(rows(), LABELS, rows(seed=1), LABELS, key, replicates=20),
    "training.subspaces.problems.low_rank_problems": lambda key: problems(key),
    "training.subspaces.problems.random_starts": lambda key: analysis.random_starts(key, jnp.ones((3, 1, 4, 2))),
    "analysis.concentration.tail_test.tail_test": lambda key: analysis.tail_test(rows(), analysis.lipschitz_family(KEY, 4), key, draws=19),
    "analysis.concentration.tails.tail_estimates": lambda key: analysis.tail_estimates(rows(50, 2), key, resamples=20),
    "samplers.trajectories.draw_starts": lambda key: draw_starts(key, jnp.arange(3), 2.0, shape=SHAPE, base="gaussian"),
    "analysis.moments.two_sample.moment_distances": lambda key: analysis.moment_distances(rows(), rows(seed=1), key, blocks=2),
}  # fmt: skip


def plain(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.tree.map(lambda leaf: leaf, as_tree(tree)))]


def as_tree(value):
    """Results that are no pytrees, such as plain dataclasses, by their fields."""
    if hasattr(value, "__dataclass_fields__") and jax.tree_util.all_leaves([value]):
        return {name: as_tree(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


#: Those whose programs take seconds to compile: tried as slow tests.
COSTLY = """models.mixtures.MoLRGDenoiser.draw samplers.likelihood.log_likelihood samplers.ablation.Ablation.__call__
    models.shallow.ShallowNet.init analysis.concentration.tails.tail_estimates analysis.subspaces.kmeans.kmeans
    testing.contract.check_denoiser analysis.concentration.tail_test.tail_test models.mlp.MLPDenoiser.init
    analysis.moments.power_laws.power_law_fit samplers.heun.heun models.blocks.dropout
    distributions.class_gaussians.GaussianMixtureSampler.sample analysis.universality.arms.gaussian_arms
    training.distillation.distill_exactly analysis.universality.argmax.argmax_error""".split()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in sorted(CASES)]
)
def test_results_do_not_depend_on_the_keys_generator(name):
    assert name in DOORS
    expected = plain(CASES[name](KEY))
    assert expected
    for other in (jax.random.key(3, impl="rbg"), jax.random.key(3, impl="unsafe_rbg")):
        found = plain(CASES[name](other))
        assert len(found) == len(expected)
        for got, wanted in zip(found, expected):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.slow
def test_arrays_of_keys_are_converted_too():
    given = problems(KEY)
    starts = analysis.random_starts(KEY, given.truth)
    data = np.stack([images(), images()])

    networks = jax.vmap(lambda key: models.MLPDenoiser.init(key, SHAPE, width=8, depth=1))(jax.random.split(KEY, 2))

    def runs(of):
        config = training.TogetherConfig(steps=2, batch_size=4)
        together = training.train_together(networks, data, np.array([16, 16]), of, config)
        return together, analysis.recover_by_sgd(of, given, starts, steps=2, batch_size=4)

    converted = keys.threefry(jax.random.split(jax.random.key(3, impl="rbg"), 2), shape=(2,))
    for got, wanted in zip(plain(runs(jax.random.split(jax.random.key(3, impl="rbg"), 2))), plain(runs(converted))):
        np.testing.assert_array_equal(got, wanted)
    for wrong in (converted[:1], jnp.arange(2), 3):
        with pytest.raises(InputError, match=r"^keys"):
            training.train_together(networks, data, np.array([16, 16]), wrong)
        with pytest.raises(InputError, match=r"^keys"):
            train_subspaces(wrong, given, jnp.zeros((2, 1, 1, 5, 1)))


# --- keys that are made here
# -----------------------------------------------------------------------------------------------


def test_seeds_give_threefry_keys_under_any_default():
    for name in ("rbg", "unsafe_rbg", "threefry2x32"):
        with jax.default_prng_impl(name):
            assert str(jax.random.key_impl(keys.seeded(3))) == "threefry2x32"
            np.testing.assert_array_equal(jax.random.key_data(keys.seeded(3)), jax.random.key_data(KEY))
            traced = jax.jit(lambda seed: jax.random.key_data(keys.seeded(seed)))(3)
            np.testing.assert_array_equal(traced, jax.random.key_data(KEY))


@pytest.mark.parametrize("wrong", [2.5, "3", None, 2**32, 10**20, -(2**31) - 1])
def test_seeds_that_jax_would_bend_are_refused(wrong):
    with pytest.raises(InputError, match=r"^seed = "):
        keys.seeded(wrong)


def test_keys_are_made_in_one_place():
    """No other call of ``jax.random.key`` or ``PRNGKey``: its generator is whatever JAX is set to."""
    places = []
    for file in [*(ROOT / "dgu").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("jax.random.key", "jax.random.PRNGKey", "random.key", "random.PRNGKey"):
                places.append(str(file.relative_to(ROOT)))
    assert places == ["dgu/core/prng.py"]


@pytest.mark.slow
def test_a_study_gives_the_same_bytes_whatever_jax_is_set_to(tmp_path):
    for name, setting in (("plain", {}), ("rbg", {"JAX_DEFAULT_PRNG_IMPL": "rbg"})):
        command = [
            sys.executable,
            "-m",
            "experiments.concentration",
            "--preset",
            "smoke",
            "--out",
            str(tmp_path / name),
        ]
        subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | setting,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    files = [
        sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*") if p.is_file()) for n in ("plain", "rbg")
    ]
    assert files[0] == files[1]
    for file in files[0]:
        if file.name not in ("timings.json", "report.html"):  # Seconds differ.
            assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "rbg" / file).read_bytes(), file
