"""Phase transitions of subspace recovery: the whole grid by PCA, and by SGD against a plain PyTorch loop, in one
process.

    python -m benchmarks.molrg [--quick] [--full] [--json PATH]

The grid: one subspace of rank d = 2..8 in 48 dimensions, N = 2..15 points on it, 98 cells, ``trials`` trials in each.

- ``pca``: all problems drawn, solved and tested, one compiled program each for the draw and the rest.
- ``dgu``: Algorithm 1 on the denoising loss, all cells of as many trials as there are devices side by side: 64 times of
  the variance-preserving process, batches of 128, plain SGD at .1. ``steps`` of 5,000 are run and the rest
  extrapolated, as a step always takes the same time; ``--full`` runs the whole study, all cells, trials and steps.
- ``torch``: the same algorithm on one problem (d = 5, N = 10), batches by indexing of tensors in memory, autograd and
  ``torch.optim.SGD``, ``peer_steps`` steps; ``peer_threads`` threads: one is the faster at this size.

Medians over ``rounds`` rounds, in turn; compilation is reported apart. Compared are seconds per trial of a cell and
step. Held to: PCA's grid in 5 s, SGD's in 25 minutes on two cores, and 10 times the peer's throughput per trial.
"""

import dataclasses
import statistics

import jax
import numpy as np
import torch
import tyro

from benchmarks import provenance
from benchmarks.timing import alternate, seconds, use_cores
from dgu.analysis import (
    grid_cells,
    low_rank_problems,
    random_starts,
    recover_by_pca,
    recover_by_sgd,
    vp_grid,
)
from dgu.core.keys import seeded

DIMENSION, BATCH, RATE, STEPS, PEER_RANK, PEER_SIZE = 48, 128, 0.1, 5000, 5, 10
RANKS, SIZES = range(2, 9), range(2, 16)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    trials: int = 20
    """Trials in each cell, of the studies that are reported."""
    steps: int = 500
    """Steps of SGD that are really run."""
    peer_steps: int = 500
    """Steps of the PyTorch loop that are really run."""
    peer_threads: int = 1
    """Threads of PyTorch."""
    rounds: int = 3
    """Times that each is measured, in turn."""
    threads: int = 2
    """Cores the process may use, and CPU devices of JAX."""
    full: bool = False
    """Run SGD's whole study once, too."""
    quick: bool = False
    """Two trials, 10 steps, one round: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def peer_loss(bases: torch.Tensor, clean: torch.Tensor, noisy: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """The denoising loss of a batch; ``gain`` is ``s / (s^2 + gamma^2)`` of each example."""
    return ((gain[:, None] * (noisy @ bases @ bases.T) - clean) ** 2).sum(dim=1).mean()


def peer_run(rows: torch.Tensor, rank: int, steps: int) -> torch.Tensor:
    """Algorithm 1 on one problem, the way one writes it in PyTorch."""
    scale, noise = (torch.as_tensor(part, dtype=torch.float32) for part in vp_grid())
    bases = torch.nn.Parameter(torch.randn(rows.shape[1], rank) / rows.shape[1] ** 0.5)
    optimizer = torch.optim.SGD([bases], lr=RATE)
    for _ in range(steps):
        clean = rows[torch.randint(len(rows), (BATCH,))]
        time = torch.randint(len(scale), (BATCH,))
        s, gamma = scale[time], noise[time]
        noisy = s[:, None] * clean + gamma[:, None] * torch.randn_like(clean)
        optimizer.zero_grad()
        peer_loss(bases, clean, noisy, s / (s**2 + gamma**2)).backward()
        optimizer.step()
    return bases.detach()


def pca_grid(trials: int) -> np.ndarray:
    """Success of every problem, and whether theory wants it."""
    cells = grid_cells(RANKS, SIZES, range(trials))
    problems = low_rank_problems(seeded(0), *cells, dimension=DIMENSION, components=1)
    return np.asarray(recover_by_pca(problems).success) == (cells.sizes >= cells.ranks)


def sgd_grid(trials: range, steps: int) -> np.ndarray:
    """Success of these trials of every cell, (trials, cells)."""
    key = seeded(1)
    cells = grid_cells(RANKS, SIZES, trials)
    problems = low_rank_problems(key, *cells, dimension=DIMENSION, components=1)
    keys = jax.vmap(lambda trial: jax.random.fold_in(key, trial))(np.asarray(trials))
    found, _, _ = recover_by_sgd(
        keys, problems, random_starts(key, problems.truth), steps=steps, batch_size=BATCH, learning_rate=RATE
    )
    return np.asarray(found.success).reshape(len(trials), -1)


def full_study(config: Config) -> tuple[float, float]:
    """Seconds of SGD's whole study, compiled before, and the share of problems in which it does what PCA does."""
    at_once = jax.device_count()
    chunks = [range(first, first + at_once) for first in range(0, config.trials, at_once)]
    sgd_grid(chunks[0], STEPS)
    success: list[np.ndarray] = []
    wall, _ = seconds(lambda: success.extend(sgd_grid(chunk, STEPS) for chunk in chunks))
    cells = grid_cells(RANKS, SIZES, [0])
    return wall, float((np.concatenate(success)[: config.trials] == (cells.sizes >= cells.ranks)[None]).mean())


def measure(config: Config) -> dict:
    """All figures, in seconds."""
    at_once = jax.device_count()
    cells = len(RANKS) * len(SIZES)
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((DIMENSION, PEER_RANK)))[0]
    rows = torch.as_tensor(rng.standard_normal((PEER_SIZE, PEER_RANK)) @ plane.T, dtype=torch.float32)
    right: list[np.ndarray] = []
    works = {
        "pca": lambda: right.append(pca_grid(config.trials)),
        "dgu": lambda: sgd_grid(range(at_once), config.steps),
        "torch": lambda: peer_run(rows, PEER_RANK, config.peer_steps),
    }
    first = {name: seconds(work)[0] for name, work in works.items()}
    times = alternate(works, config.rounds)
    walls = {name: statistics.median(wall for wall, _ in of) for name, of in times.items()}
    busy = {name: statistics.median(processor for _, processor in of) for name, of in times.items()}
    share = {"dgu": at_once * cells * config.steps, "torch": config.peer_steps}
    unit = {name: walls[name] / share[name] for name in share}
    processor = {name: busy[name] / share[name] for name in share}
    result = {
        "config": dataclasses.asdict(config),
        "pca_seconds": walls["pca"],
        "pca_as_theory": float(right[-1].mean()),
        "seconds_per_trial_step": unit,
        "ratio": unit["torch"] / unit["dgu"],
        "ratio_by_processor_time": processor["torch"] / processor["dgu"],
        "sgd_seconds_extrapolated": walls["dgu"] * STEPS / config.steps * -(-config.trials // at_once),
        "first_calls_with_compilation": first,
        "times": times,
    }
    if config.full:
        result["sgd_seconds"], result["sgd_as_theory"] = full_study(config)
    return result


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, trials=2, steps=10, peer_steps=10, rounds=1)
    use_cores(config.threads)
    torch.set_num_threads(config.peer_threads)
    result = measure(config)
    unit, first = result["seconds_per_trial_step"], result["first_calls_with_compilation"]
    cells = len(RANKS) * len(SIZES)
    print(f"{cells} cells, {config.trials} trials, {config.threads} cores, {config.rounds} rounds")
    print(
        f"PCA, all {cells * config.trials:,} problems: {result['pca_seconds']:.2f} s (first call {first['pca']:.1f} "
        "s), "
        f"{100 * result['pca_as_theory']:.2f} % as 1{{N >= d}}"
    )
    print(f"{'':34}{'us per trial and step':>22}{'dgu is faster by':>18}")
    print(f"{'dgu, SGD, all cells side by side':34}{1e6 * unit['dgu']:22.2f}")
    print(f"{'torch, one problem':34}{1e6 * unit['torch']:22.2f}{result['ratio']:17.1f}x")
    print(
        f"SGD, {config.trials} trials of {STEPS:,} steps: {result['sgd_seconds_extrapolated'] / 60:.1f} minutes, "
        f"from {config.steps} steps "
        f"(first call {first['dgu']:.1f} s). By processor time dgu is faster by "
        f"{result['ratio_by_processor_time']:.1f}x."
    )
    if config.full:
        print(
            f"The whole study: {result['sgd_seconds'] / 60:.1f} minutes, {100 * result['sgd_as_theory']:.1f} % of "
            f"problems as 1{{N >= d}}"
        )
    if config.json:
        provenance.write(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
