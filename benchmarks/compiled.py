"""``torch.compile`` on the network of the PyTorch peer, which is what its users reach for first.

Only the network is compiled, forward and backward, for one shape, in the compiler's default mode; the sampler's steps
and Adam stay eager. The first call compiles, and takes a C++ compiler on CPUs: where that fails, the reason stands in
place of a time.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peer import Peer
from benchmarks.timing import seconds


def compiled(peer: Peer) -> Peer:
    """The same network, compiled; it shares the weights, with tensors of its own."""
    twin = copy.copy(peer)
    twin.tensors = {name: tensor.detach().clone() for name, tensor in peer.tensors.items()}
    eager = twin.denoise

    def at_first(*given: torch.Tensor) -> torch.Tensor:
        # Here, as the compiler may refuse before it sees a tensor. Shapes stay the same in a benchmark.
        twin.denoise = torch.compile(eager, dynamic=False)  # type: ignore[method-assign]
        return twin.denoise(*given)

    twin.denoise = at_first  # type: ignore[method-assign]
    return twin


def first_call(work: Callable[[], Any]) -> tuple[float | None, str | None]:
    """Seconds of a program's first call, which compiles it; or None and why it failed, in one line."""
    try:
        return seconds(work)[0], None
    except Exception as error:  # Whatever stops the compiler is an outcome, too.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return None, f"{type(error).__name__}: {' '.join(lines)[:160]}"
