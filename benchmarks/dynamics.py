"""A hundred trainings of the small score network at once against a plain PyTorch loop of one, in the same process,
alternating.

    python -m benchmarks.dynamics [--quick] [--json PATH]

The work of one run: 1,000 examples of two modes at +-3, the one-hidden-layer Swish network of 16 units with Fourier
time features, batches of 32 in a new order each epoch (the last of 8), a fresh time and noise for every example,
denoising score matching weighted by the variance, plain SGD at .5, and the KL on a grid every 100 epochs.

- ``dgu``: ``train_dynamics`` on all runs together, all epochs; compilation is reported apart.
- ``torch``: one run and ``peer_epochs`` epochs, batches by indexing of tensors in memory, the KL at their end. Its time
  per epoch is constant. ``peer_threads`` threads: one is the faster for networks of this size, and both are measured if
  asked for.

Medians over ``rounds`` rounds. Compared are seconds per run and epoch. Held to: all of dgu's runs in 3 minutes on two
cores, and 8 times the peer's throughput per run.
"""

import dataclasses
import math
import statistics

import jax
import numpy as np
import torch
import tyro

from benchmarks import provenance
from benchmarks.timing import seconds, use_cores
from dgu.analysis import Grid, KLMeasure
from dgu.core.keys import seeded
from dgu.models import ShallowNet, two_modes
from dgu.samplers import VESDE
from dgu.training import Recipe, Runs, train_dynamics

MU, RATE, BATCH, WIDTH, T_EPS, FIRST = 3.0, 0.5, 32, 16, 0.065, 1e-5
SDE, MEASURE, GRID = VESDE(), KLMeasure(), Grid()


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    runs: int = 100
    """Runs trained together by dgu."""
    epochs: int = 2000
    """Epochs of each, all of them run."""
    every: int = 100
    """Epochs between measurements of the KL."""
    examples: int = 1000
    """Training examples of a run."""
    chunk_size: int = 25
    """Runs in one of dgu's compiled programs."""
    peer_epochs: int = 20
    """Epochs that the PyTorch loop really runs in a round."""
    peer_threads: int = 1
    """Threads of PyTorch."""
    rounds: int = 3
    """Times that each is measured, in turn."""
    threads: int = 2
    """Cores the process may use, and CPU devices of JAX."""
    quick: bool = False
    """Four runs of 4 epochs: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


class PeerNet(torch.nn.Module):
    """The network, the way one writes it in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = torch.nn.Parameter(torch.randn(2) * 30, requires_grad=False)
        self.inner, self.time, self.outer = (
            torch.nn.Linear(1, WIDTH),
            torch.nn.Linear(4, WIDTH),
            torch.nn.Linear(WIDTH, 1),
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The score at x (b, 1) and t (b,)."""
        phase = 2 * math.pi * t[:, None] * self.frequencies[None]
        hidden = self.inner(x) + self.time(torch.cat([phase.sin(), phase.cos()], dim=1))
        return self.outer(torch.nn.functional.silu(hidden)) / 16 / peer_std(t)[:, None]


def peer_std(t: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the kernel."""
    rate = 2 * math.log(SDE.base)
    return torch.sqrt(torch.expm1(rate * t) / rate)


def peer_loss(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Loss of a batch, with its draws."""
    t = torch.rand(len(x)) * (1 - FIRST) + FIRST
    noise, std = torch.randn_like(x), peer_std(t)[:, None]
    return torch.mean(torch.sum((net(x + std * noise, t) * std + noise) ** 2, dim=1))


def peer_kl(net: torch.nn.Module, log_p: torch.Tensor) -> float:
    """The KL on the grid, by the same trapezoids."""
    fine = torch.as_tensor(GRID.fine, dtype=torch.float32)
    with torch.no_grad():
        slopes = net(fine[:, None], torch.full((len(fine),), T_EPS))[:, 0]
    integral = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(slopes, fine)])[:: GRID.refine]
    log_mass = log_p + math.log(GRID.step)
    return float(torch.sum(log_mass.exp() * (log_mass - torch.log_softmax(integral, dim=0))))


def peer_run(data: torch.Tensor, log_p: torch.Tensor, epochs: int, every: int) -> float:
    """One run: its last KL."""
    net, kl = PeerNet(), math.nan
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    for epoch in range(epochs):
        for rows in torch.randperm(len(data)).split(BATCH):
            optimizer.zero_grad()
            peer_loss(net, data[rows]).backward()
            optimizer.step()
        if (epoch + 1) % every == 0:
            kl = peer_kl(net, log_p)
    return kl


def make_runs(config: Config) -> Runs:
    """Data, keys and targets of all runs."""
    target = two_modes(MU)
    keys = jax.random.split(seeded(0), (config.runs, config.examples))
    data = np.asarray(jax.jit(jax.vmap(jax.vmap(target.draw)))(keys))
    told = MEASURE.aux(SDE, target, T_EPS, GRID)
    aux = {name: np.broadcast_to(value, (config.runs, *value.shape)) for name, value in told.items()}
    rates, units = np.full(config.runs, RATE, np.float32), np.full(config.runs, WIDTH, np.int32)
    return Runs(data, jax.random.split(seeded(1), config.runs), rates, units, aux)


def measure(config: Config) -> dict:
    """All figures, in seconds."""
    runs = make_runs(config)
    recipe = Recipe(ShallowNet(WIDTH), SDE, epochs=config.epochs, every=config.every, batch_size=BATCH, t_eps=FIRST)
    last: dict[str, np.ndarray] = {}

    def ours() -> None:
        found = train_dynamics(runs, recipe, MEASURE, chunk_size=config.chunk_size)
        last["kl"], last["diverged"] = found.measured["kl"], found.diverged

    # Compiled, once for each device, by a call of the same shapes on a chunk for each.
    first = seconds(
        lambda: train_dynamics(
            jax.tree.map(lambda leaf: leaf[: config.chunk_size * len(jax.local_devices())], runs),
            recipe,
            MEASURE,
            chunk_size=config.chunk_size,
        )
    )
    data, log_p = torch.from_numpy(np.array(runs.data[0])), torch.from_numpy(np.array(runs.aux["log_p"][0]))
    # Its one measurement at the end of ``peer_epochs`` stands for more than its share.
    works = {"dgu": ours, "torch": lambda: peer_run(data, log_p, config.peer_epochs, config.peer_epochs)}
    works["torch"]()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(config.rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    walls = {name: statistics.median(wall for wall, _ in values) for name, values in times.items()}
    busy = {name: statistics.median(processor for _, processor in values) for name, values in times.items()}
    share = {"dgu": config.runs * config.epochs, "torch": config.peer_epochs}
    unit = {name: walls[name] / share[name] for name in walls}
    processor = {name: busy[name] / share[name] for name in busy}
    return {
        "config": dataclasses.asdict(config),
        "seconds_per_run_epoch": unit,
        "processor_seconds_per_run_epoch": processor,
        "ratio": unit["torch"] / unit["dgu"],
        "ratio_by_processor_time": processor["torch"] / processor["dgu"],
        "dgu_seconds": walls["dgu"],
        "dgu_first_chunks_with_compilation": first[0],
        "median_kl_at_the_end": float(np.median(last["kl"][:, -1][~last["diverged"]])),
        "diverged": int(last["diverged"].sum()),
        "times": times,
    }


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(
            config, runs=4, chunk_size=2, epochs=4, every=2, examples=100, peer_epochs=2, rounds=1
        )
    use_cores(config.threads)
    torch.set_num_threads(config.peer_threads)
    result = measure(config)
    unit = result["seconds_per_run_epoch"]
    print(f"{config.examples} examples, batch {BATCH}, {WIDTH} units, {config.threads} cores, {config.rounds} rounds")
    print(f"{'':28}{'s per run and epoch':>20}{'dgu is faster by':>18}")
    print(f"{f'dgu, {config.runs} runs together':28}{unit['dgu']:20.6f}")
    print(f"{'torch, one run':28}{unit['torch']:20.6f}{result['ratio']:17.1f}x")
    print(
        f"dgu: {result['dgu_seconds']:.1f} s for {config.runs} runs of {config.epochs} epochs, compiled before (a "
        "chunk for each device with "
        f"compilation {result['dgu_first_chunks_with_compilation']:.1f} s); median KL at the end "
        f"{result['median_kl_at_the_end']:.3f}, "
        f"{result['diverged']} diverged. By processor time dgu is faster by {result['ratio_by_processor_time']:.1f}x."
    )
    if config.json:
        provenance.write(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
