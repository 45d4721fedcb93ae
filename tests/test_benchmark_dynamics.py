"""What the benchmark of training dynamics compares with us is the same network, loss and divergence."""

import jax
import numpy as np
import pytest

from dgu.analysis import score_kl
from dgu.models import ShallowNet, ShallowScore, two_modes

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
dynamics = pytest.importorskip("benchmarks.dynamics")


def test_the_dynamics_peer_is_the_same_network_loss_and_kl():
    """Its parameters in our network: the score, the loss for its draws, and the KL on the grid."""
    torch.manual_seed(0)
    peer = dynamics.PeerNet()
    take = lambda tensor: jax.numpy.asarray(tensor.detach().numpy())  # noqa: E731
    params = {
        "x_kernel": take(peer.inner.weight).T, "x_bias": take(peer.inner.bias), "t_kernel": take(peer.time.weight).T,
        "t_bias": take(peer.time.bias), "out_kernel": take(peer.outer.weight), "out_bias": take(peer.outer.bias),
    }  # fmt: skip
    frozen = {"frequencies": take(peer.frequencies), "mask": np.ones(16, np.float32)}
    score = ShallowScore(params, frozen, ShallowNet(16), dynamics.SDE)
    x, t = np.array([[0.3], [-4.0]], np.float32), np.array([0.065, 0.8], np.float32)
    theirs = peer(torch.from_numpy(x), torch.from_numpy(t)).detach().numpy()
    np.testing.assert_allclose([score(jax.numpy.asarray(a), b) for a, b in zip(x, t)], theirs, rtol=2e-4, atol=1e-5)
    torch.manual_seed(1)
    loss = float(dynamics.peer_loss(peer, torch.from_numpy(x)).detach())
    torch.manual_seed(1)
    drawn = (torch.rand(2) * (1 - dynamics.FIRST) + dynamics.FIRST).numpy()
    noise, std = torch.randn(2, 1).numpy(), np.asarray(dynamics.SDE.std(drawn))[:, None]
    at = jax.numpy.asarray(x + std * noise)
    ours = std * np.stack([score(a, b) for a, b in zip(at, drawn)]) + noise
    np.testing.assert_allclose(loss, np.mean(np.sum(ours**2, axis=1)), rtol=1e-4)
    target = two_modes(dynamics.MU)
    log_p = torch.from_numpy(
        np.array(dynamics.MEASURE.aux(dynamics.SDE, target, dynamics.T_EPS, dynamics.GRID)["log_p"])
    )
    np.testing.assert_allclose(dynamics.peer_kl(peer, log_p), score_kl(score, dynamics.SDE, target), rtol=1e-3)
