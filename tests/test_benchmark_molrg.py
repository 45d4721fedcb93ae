"""The benchmark of phase transitions runs, and the program it compares with us has the same loss."""

import importlib.util
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import vp_grid
from dgu.training.subspaces.sgd import batch_loss, draw_batch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def test_the_peer_has_our_loss_and_gradient():
    import torch

    from benchmarks import molrg

    rng = np.random.default_rng(0)
    rows, bases = rng.standard_normal((6, 8)).astype(np.float32), rng.standard_normal((8, 2)).astype(np.float32)
    batch = draw_batch(jax.random.key(0), vp_grid(), 32, 8)
    where = np.floor(np.asarray(batch.where) * 6).astype(int)
    scale, noise, eps = (np.array(part) for part in (batch.scale, batch.noise, batch.eps))
    noisy = scale[:, None] * rows[where] + noise[:, None] * eps
    theirs = torch.nn.Parameter(torch.from_numpy(bases))
    loss = molrg.peer_loss(
        theirs, *(torch.from_numpy(part) for part in (rows[where], noisy, scale / (scale**2 + noise**2)))
    )
    loss.backward()
    ours = jax.jit(jax.value_and_grad(lambda v: batch_loss(v, jnp.asarray(rows)[None], jnp.asarray([6.0]), batch)[0]))
    value, slope = ours(jnp.asarray(bases)[:, None, None])
    # Ours leaves out the mean size of the examples, which does not depend on the bases.
    size = np.square(rows[where]).sum(axis=1).mean()
    np.testing.assert_allclose(value + size, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(slope[:, 0, 0], theirs.grad.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_benchmark_runs(monkeypatch, tmp_path, capsys):
    from benchmarks import molrg

    # The cores and the devices of the test process are not the benchmark's to choose.
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    path = tmp_path / "figures.json"
    molrg.main(molrg.Config(quick=True, threads=1, json=str(path)))
    figures, printed = json.loads(path.read_text()), capsys.readouterr().out
    assert figures["pca_as_theory"] == 1
    assert set(figures["seconds_per_trial_step"]) == {"dgu", "torch"} and figures["ratio"] > 0
    assert "98 cells, 2 trials" in printed
