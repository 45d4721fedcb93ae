"""Ten linear classifiers at once against a plain PyTorch loop, on the same work in the same process, alternating.

    python -m benchmarks.classifiers [--quick] [--json PATH]

The work of one run: 4 classes x 1,024 training rows of d = 12,288 float32 features, batches of 64 in a new order each
epoch, softmax and squared error, plain SGD; every ``eval_interval`` epochs the loss and accuracy over the training rows
and 1,024 validation rows. Each run has its own subset of a pool of 5,120 rows and its own orders.

- ``dgu``: ``fit_classifiers`` on all runs together. A call costs a fixed part (checks, upload, the Gram matrix, the
  weights from the coefficients) and a part per epoch. Both are measured: one call of ``eval_interval`` epochs and one
  of ``measure_epochs``; the difference gives the part per epoch; ``epochs`` epochs take fixed + epochs * part.
  ``--measure-epochs 600`` runs them all and extrapolates nothing. Compilation is reported apart.
- ``torch, resident``: the training rows of one run as a tensor, batches by indexing.
- ``torch, DataLoader``: the same rows in a ``TensorDataset``, shuffling ``DataLoader`` without workers.

The peers do one run each and ``peer_epochs`` epochs (a multiple of ``eval_interval``): their time per epoch is
constant.
Medians over ``rounds`` rounds. The figure compared is seconds per run and epoch.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
import torch
import tyro

from benchmarks import provenance
from dgu.analysis import Runs, fit_classifiers

CLASSES, FEATURES, TRAIN, POOL, VALIDATION, BATCH, RATE = 4, 12288, 4096, 5120, 1024, 64, 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    epochs: int = 600
    """Epochs of the training that is reported."""
    runs: int = 10
    """Runs trained together by dgu."""
    measure_epochs: int = 45
    """Epochs of the longer of dgu's two calls."""
    peer_epochs: int = 5
    """Epochs that each PyTorch loop really runs in a round."""
    eval_interval: int = 5
    """Epochs between evaluations, for all."""
    rounds: int = 3
    """Times that each is measured, in turn."""
    threads: int = 2
    """Cores the process may use; threads of PyTorch, CPU devices of JAX."""
    method: str = "gram"
    """"gram", "weight" or "auto"; auto decides by the epochs of each call, so name one when these differ."""
    quick: bool = False
    """Two runs, 1,024 features, one round: does it work, no more."""
    json: str | None = None
    """File to write the figures to."""


def make_data(features: int, runs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class means in noise, in [0, 1] like pixels; balanced subsets of the pool, one for each run."""
    rng = np.random.default_rng(0)
    y = np.arange(POOL + VALIDATION) % CLASSES
    x = (
        rng.random((len(y), features), dtype=np.float32) * 0.8
        + 0.2 * rng.random((CLASSES, features), dtype=np.float32)[y]
    )
    own = [np.concatenate([rng.permutation(np.flatnonzero(y[:POOL] == c))[: TRAIN // CLASSES] for c in range(CLASSES)])
           for _ in range(runs)]  # fmt: skip
    return x, y, np.stack(own).astype(np.int32)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def torch_run(
    x: torch.Tensor, y: torch.Tensor, held: tuple[torch.Tensor, torch.Tensor], config: Config, loader: bool
) -> None:
    """``peer_epochs`` epochs of one run, the way one writes it in PyTorch."""
    model = torch.nn.Linear(x.shape[1], CLASSES, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    criterion = torch.nn.MSELoss()
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    for epoch in range(config.peer_epochs):
        order = torch.randperm(len(x)).split(BATCH)
        for rows, labels in batches if loader else ((x[at], y[at]) for at in order):
            target = torch.nn.functional.one_hot(labels, CLASSES).to(rows.dtype)
            optimizer.zero_grad()
            criterion(torch.softmax(model(rows), dim=1), target).backward()
            optimizer.step()
        if (epoch + 1) % config.eval_interval == 0:
            with torch.no_grad():
                for rows, labels in ((x, y), held):
                    out = torch.softmax(model(rows), dim=1)
                    criterion(out, torch.nn.functional.one_hot(labels, CLASSES).to(rows.dtype)).item()
                    (out.argmax(dim=1) == labels).float().mean().item()


def measure(config: Config) -> dict:
    """All figures, in seconds."""
    features = 1024 if config.quick else FEATURES
    x, y, rows = make_data(features, config.runs)
    held = np.arange(POOL, POOL + VALIDATION)
    runs = Runs(rows, np.arange(config.runs), np.full(config.runs, RATE, np.float32))

    def ours(epochs: int) -> None:
        fit = fit_classifiers(
            x, y, runs, loss="softmax_mse", schedule="constant", epochs=epochs, validation=held, method=config.method,
            batch_size=BATCH, eval_interval=config.eval_interval, init="torch",
        )  # fmt: skip
        jax.block_until_ready(fit)

    own = torch.from_numpy(x[rows[0]]), torch.from_numpy(y[rows[0]])
    check = torch.from_numpy(x[held]), torch.from_numpy(y[held])
    works = {
        "short": lambda: ours(config.eval_interval),
        "long": lambda: ours(config.measure_epochs),
        "resident": lambda: torch_run(*own, check, config, loader=False),
        "loader": lambda: torch_run(*own, check, config, loader=True),
    }
    first = {name: seconds(work) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(config.rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    short, long = statistics.median(times["short"]), statistics.median(times["long"])
    per_epoch = (long - short) / (config.measure_epochs - config.eval_interval)
    fixed = long - per_epoch * config.measure_epochs
    ours_total = fixed + per_epoch * config.epochs
    unit = {
        "dgu": ours_total / (config.runs * config.epochs),
        "torch_resident": statistics.median(times["resident"]) / config.peer_epochs,
        "torch_loader": statistics.median(times["loader"]) / config.peer_epochs,
    }
    return {
        "config": dataclasses.asdict(config),
        "features": features,
        "seconds_per_run_epoch": unit,
        "ratio_to_resident": unit["torch_resident"] / unit["dgu"],
        "ratio_to_loader": unit["torch_loader"] / unit["dgu"],
        "dgu_fixed_seconds": fixed,
        "dgu_seconds_per_epoch_of_all_runs": per_epoch,
        "dgu_total_seconds": ours_total,
        "dgu_first_calls_with_compilation": [first["short"], first["long"]],
        "times": times,
    }


def main(config: Config) -> None:
    """Measure, print a table, write the file."""
    if config.quick:
        config = dataclasses.replace(config, runs=2, rounds=1, measure_epochs=15)
    if config.measure_epochs <= config.eval_interval or config.peer_epochs % config.eval_interval:
        raise SystemExit("measure_epochs must exceed eval_interval, peer_epochs must be a multiple of it")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: config.threads])
    jax.config.update("jax_num_cpu_devices", config.threads)
    torch.set_num_threads(config.threads)
    result = measure(config)
    unit = result["seconds_per_run_epoch"]
    print(
        f"{TRAIN} rows, {result['features']} features, batch {BATCH}, {config.threads} threads, {config.rounds} rounds"
    )
    print(f"{'':28}{'s per run and epoch':>20}{'dgu is faster by':>18}")
    print(f"{f'dgu, {config.runs} runs, {config.method}':28}{unit['dgu']:20.4f}{'':>18}")
    print(f"{'torch, resident tensors':28}{unit['torch_resident']:20.4f}{result['ratio_to_resident']:17.1f}x")
    print(f"{'torch, DataLoader':28}{unit['torch_loader']:20.4f}{result['ratio_to_loader']:17.1f}x")
    print(
        f"dgu: {result['dgu_fixed_seconds']:.1f} s once for all runs (Gram matrix, upload, checks), then "
        f"{result['dgu_seconds_per_epoch_of_all_runs']:.3f} s for an epoch of all runs (from a call of "
        f"{config.measure_epochs} epochs): {result['dgu_total_seconds']:.0f} s for {config.epochs} epochs. "
        f"PyTorch ran {config.peer_epochs} epochs of one run."
    )
    if config.json:
        provenance.write(config.json, result)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
