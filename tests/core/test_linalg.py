"""Decompositions under vmap: same bits and derivatives as JAX's own, and no two that wait for each other."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dgu import analysis
from dgu.analysis import fit_gaussian
from dgu.analysis.moments.spectra import class_spectra
from dgu.core import linalg
from dgu.models import EmpiricalDenoiser
from tests.experiments.universality_study import ROOT, environment

#: Ours, and what it stands for.
PAIRS = {
    "eigh": (linalg.eigh, lambda a: tuple(jnp.linalg.eigh(a)), (6, 6)),
    "eigvalsh": (linalg.eigvalsh, jnp.linalg.eigvalsh, (6, 6)),
    "svd": (linalg.svd, lambda a: tuple(jnp.linalg.svd(a, full_matrices=False)), (7, 4)),
    "wide svd": (linalg.svd, lambda a: tuple(jnp.linalg.svd(a, full_matrices=False)), (4, 7)),
    "svdvals": (linalg.svdvals, lambda a: jnp.linalg.svd(a, compute_uv=False), (7, 4)),
    "left_vectors": (linalg.left_vectors, lambda a: jnp.linalg.svd(a)[0], (7, 4)),
    "qr": (linalg.qr, lambda a: tuple(jnp.linalg.qr(a)), (7, 4)),
    "triangle": (linalg.triangle, lambda a: jnp.linalg.qr(a, mode="r"), (7, 4)),
}


def matrices(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("name", PAIRS)
def test_batches_have_the_bits_of_jax(name):
    ours, theirs, shape = PAIRS[name]
    for leading in ((), (5,), (2, 3)):
        given = matrices(*leading, *shape)
        jax.tree.map(np.testing.assert_array_equal, ours(given), theirs(given))
    given = matrices(2, 3, *shape)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.vmap(jax.vmap(ours)))(given), theirs(given))


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "left_vectors"])
def test_derivatives_are_those_of_jax(name):
    ours, theirs, shape = PAIRS[name]
    with jax.enable_x64(True):
        given = jnp.asarray(np.random.default_rng(1).normal(size=(3, *shape)))
        step = jnp.asarray(np.random.default_rng(2).normal(size=(3, *shape)))

        def total(f):
            return lambda a: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(f(a)))

        def derivatives(f):
            """Of a batch forward and in reverse, mapped from outside, and a second one."""
            return (
                jax.jvp(jax.vmap(f), (given,), (step,)),
                jax.grad(total(jax.vmap(f)))(given),
                jax.vmap(jax.grad(total(f)))(given),
                jax.jvp(jax.grad(total(f)), (given[0],), (step[0],)),
            )

        found, expected = jax.jit(lambda: (derivatives(ours), derivatives(theirs)))()
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), found, expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_triangular_systems(transposed):
    with jax.enable_x64(True):
        upper = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 5))) + 4 * jnp.eye(5)[None]
        right = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)))

        def ours(a, b):
            return linalg.solve_triangular(a, b, transposed=transposed)

        def theirs(a, b):
            return jax.scipy.linalg.solve_triangular(a, b, trans=int(transposed))

        np.testing.assert_array_equal(jax.vmap(ours)(upper, right), jax.vmap(theirs)(upper, right))
        np.testing.assert_array_equal(jax.vmap(ours, (None, 0))(upper[0], right), [theirs(upper[0], b) for b in right])
        gradients = [
            jax.grad(lambda a, b, f=f: jnp.sin(jax.vmap(f)(a, b)).sum(), (0, 1))(upper, right) for f in (ours, theirs)
        ]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12), *gradients)


def test_equal_eigenvalues_have_a_derivative_of_their_sum():
    gradient = jax.grad(lambda a: linalg.eigvalsh(a).sum())(jnp.eye(3))
    np.testing.assert_allclose(gradient, np.eye(3), atol=1e-6)


def test_other_platforms_keep_the_batched_kernel():
    exported = jax.export.export(jax.jit(jax.vmap(fit_gaussian)), platforms=["cuda"])(matrices(4, 9, 5))
    assert "stablehlo.while" not in exported.mlir_module() and "gesvdj" in exported.mlir_module()
    here = jax.export.export(jax.jit(jax.vmap(fit_gaussian)), platforms=["cpu"])(matrices(4, 9, 5))
    assert "stablehlo.while" in here.mlir_module()
    jax.export.export(jax.jit(jax.vmap(fit_gaussian)), platforms=["tpu"])(matrices(4, 9, 5))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_batch_that_is_split_over_a_mesh(kind):
    rows = matrices(8, 9, 5)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(kind,))
    split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
    whole, found = (jax.jit(jax.vmap(fit_gaussian))(given).root for given in (rows, split))
    np.testing.assert_allclose(found, whole, atol=1e-6)


ROWS = {
    "fit_gaussian": lambda x: analysis.fit_gaussian(x).root,
    "covariance_spectrum": analysis.covariance_spectrum,
    "squared_singular_values": analysis.squared_singular_values,
    "orthonormalised": lambda x: analysis.orthonormalised(x[:, :2]),
    "class_spectra": lambda x: class_spectra(x, np.arange(len(x)) % 2),
    "gram_spectrum": lambda x: analysis.gram_spectrum(x, np.arange(len(x)) % 2, 3),
    "moments": lambda x: analysis.moments(x.reshape(-1, 5, 1, 1)).covariance(),
    "mixture_samples": lambda x: analysis.mixture_samples(x.reshape(8, -1, 5), jax.random.key(0), 3),
    "EmpiricalDenoiser": lambda x: EmpiricalDenoiser(x)(jnp.ones(5), 3.0),
    "svdvals": linalg.svdvals,
    "qr": linalg.qr,
    "gradient": jax.jit(jax.grad(lambda x: linalg.svdvals(x).sum())),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_are_split_by_their_type(name):
    rows = matrices(24, 5)
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Explicit,))
    split = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
    found, expected = ROWS[name](split), ROWS[name](rows)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x), y, atol=2e-5), found, expected)


#: The patterns that used to hang, each repeated on some number of devices, in a process that can be killed.
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
devices, calls, size = map(int, sys.argv[1:])
jax.config.update("jax_num_cpu_devices", devices)
from jax.sharding import NamedSharding, PartitionSpec
from dgu.core import parallel
from dgu.analysis import fit_gaussian
from dgu.analysis.universality.arms import gaussian_arms
from dgu.analysis.subspaces.distances import principal_angles
from dgu.models.molrg import basis_of
rng = np.random.default_rng(0)
rows = [jnp.asarray(rng.normal(size=(16, size + 4, size)), jnp.float32) for _ in range(2)]
fits = jax.jit(lambda x, y: (jax.vmap(fit_gaussian)(x).root, jax.vmap(fit_gaussian)(y).root))
angles = jax.jit(lambda x, y: jax.vmap(principal_angles)(*(jax.vmap(basis_of)(a[:, :, :9]) for a in (x, y))))
mesh = parallel.data_mesh()
placings = [lambda a: a, *(lambda a, spec=spec: jax.device_put(a, NamedSharding(mesh, spec))
                           for spec in (PartitionSpec("data"), PartitionSpec()))]
for place in placings[: 3 if devices > 1 else 1]:
    x, y = map(place, rows)
    for _ in range(calls):
        jax.block_until_ready((fits(x, y), angles(x, y)))  # Several programs under way at once, too.
for _ in range(calls // 20 + 1):
    jax.block_until_ready(gaussian_arms(rows[0], jax.random.key(0), 9, low_rank=size))
print("all done")
"""


def run_batches(devices, calls, size, timeout):
    command = [sys.executable, "-c", PROGRAM, str(devices), str(calls), str(size)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0 and "all done" in done.stdout, done.stderr[-2000:]


@pytest.mark.slow  # A process of its own takes half a minute on a busy machine.
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_two_hundred_batches_end_on_any_number_of_devices(devices):
    run_batches(devices, 200, 64, timeout=1200)
