"""A forward pass and a training step of a network in PyTorch, eager and compiled, and what they give."""

import dataclasses
from typing import Any, Literal

import jax
import numpy as np
import torch

from benchmarks.compiled import compiled, first_call
from benchmarks.peer import Peer, make_training_step
from benchmarks.timing import Work
from dgu.core.typing import PyTree
from dgu.models import EDMNetwork
from dgu.models.weights import params_to_arrays

Pass = Literal["forward", "training"]


@dataclasses.dataclass(frozen=True)
class Peers:
    """PyTorch's programs by name: ``works`` to time; what each gave, by ``outputs``; ``first`` calls that compiled, in
    seconds; why one ``failed``.

    An output is, forward, the denoised images (N, H, W, C); in training the gradient of the first convolution's kernel,
    which all others had a part in, for draws of one seed.
    """

    works: dict[str, Work]
    outputs: dict[str, np.ndarray]
    first: dict[str, float]
    failed: dict[str, str]


def torch_peers(
    network: EDMNetwork, params: PyTree, inputs: tuple, passed: Pass, *, threads: int, compile_too: bool
) -> Peers:
    """Peers on the same weights and inputs ``(x, sigma, labels)``; on the GPU where JAX and PyTorch both see one."""
    torch.set_num_threads(threads)
    gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
    half = torch.float16 if gpu else torch.bfloat16
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device, dtype = "cuda" if gpu else "cpu", half if network.compute_dtype == "bfloat16" else torch.float32
    x, sigma, labels = inputs
    rows = torch.from_numpy(np.eye(network.unet.label_dim, dtype=np.float32)[labels]).to(device)
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))).to(device)
    level = torch.from_numpy(sigma).to(device)

    def waited(value: Any) -> Any:
        if gpu:
            torch.cuda.synchronize()
        return value

    def work_and_output(peer: Peer) -> tuple[Work, Any]:
        """What is timed, and a function of what it gives."""
        if passed == "forward":
            evaluate = torch.inference_mode()(lambda: waited(peer.denoise(image, level, rows)))
            return evaluate, lambda: np.moveaxis(evaluate().cpu().numpy(), 1, -1)
        step = make_training_step(peer, 1e-4)

        def gradient() -> np.ndarray:
            torch.manual_seed(0)
            step(image, rows)
            return peer.tensors[f"enc.{network.unet.encoder[0][0]}.weight"].grad.cpu().numpy()

        return lambda: waited(step(image, rows)), gradient

    peers = {"torch": Peer(network, params_to_arrays(params), device, dtype)}
    if compile_too:
        peers["torch.compile"] = compiled(peers["torch"])
    found = Peers({}, {}, {}, {})
    for name, peer in peers.items():
        work, output = work_and_output(peer)
        if name == "torch.compile":
            taken, reason = first_call(lambda: found.outputs.update({name: output()}))  # noqa: B023 - called here
            if taken is None:
                found.failed[name] = str(reason)
                continue
            found.first[name] = taken
        else:
            found.outputs[name] = output()
        found.works[name] = work
    return found


def differences(peers: Peers, ours: np.ndarray | None, dropout: bool) -> dict[str, float]:
    """The largest difference of each peer's output, as a share of the largest magnitude: from ``ours`` forward, and in
    training (``ours`` None) the compiled network's from the eager one's, unless ``dropout`` draws unlike zeros.
    """
    if ours is None and (dropout or "torch.compile" not in peers.outputs):
        return {}
    expected = peers.outputs["torch"] if ours is None else ours
    names = [name for name in peers.outputs if ours is not None or name != "torch"]
    scale = np.abs(expected).max()
    return {name: float(np.abs(peers.outputs[name] - expected).max() / scale) for name in names}
