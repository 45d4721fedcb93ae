"""One of two processes on the loopback interface: samples into a shared store, then trains over both; or recovers
subspaces by SGD over its own devices. Run by tests.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from dgu.analysis import grid_cells, low_rank_problems, random_starts, recover_by_sgd
from dgu.core import parallel
from dgu.core.errors import InputError, require
from dgu.data import SampleStore
from dgu.models import ADMConfig, EDMNetwork, load_checkpoint
from dgu.samplers import karras_sigmas, sample
from dgu.training import TrainingConfig, initial_state, train_steps

COUNT, SHARD, LABELS = 22, 4, (3, 7)


def fill(folder: Path) -> SampleStore:
    """The store of samples of the bundled network, this process's part of it."""
    denoiser = load_checkpoint("fashion-mnist-14").denoiser
    store = SampleStore.open(folder, {}, (14, 14, 1), shard_size=SHARD)

    def make(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        key, sigmas = jax.random.key(0), karras_sigmas(2)
        return sample(denoiser, key, indices, sigmas, shape=(14, 14, 1), labels=labels, batch_size=SHARD)

    store.fill(make, LABELS, COUNT, process=(jax.process_index(), jax.process_count()))
    return store


def trained() -> dict[str, np.ndarray]:
    """Parameters after three updates on random images, over the devices of all processes."""
    unet = ADMConfig(8, 1, 1, label_dim=3, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    config = TrainingConfig(duration_kimg=0.048, batch_size=16, rampup_kimg=0.01, learning_rate=1e-2)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, (40, 8, 8, 1)).astype(np.float32), rng.integers(0, 3, 40)
    network = EDMNetwork(unet)
    *_, (state, _) = train_steps(network, initial_state(network, config), images, labels, config)
    leaves, _ = jax.tree_util.tree_flatten_with_path(state["ema"])
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def recovered() -> list[np.ndarray]:
    """Which subspaces SGD recovers, each trial on a device of this process."""
    trials = range(jax.local_device_count())
    problems = low_rank_problems(jax.random.key(0), *grid_cells((2, 3), (3, 6), trials), dimension=8, components=1)
    starts, keys = random_starts(jax.random.key(1), problems.truth), jax.random.split(jax.random.key(2), len(trials))
    found, bare, diverged = recover_by_sgd(keys, problems, starts, steps=200, batch_size=16)
    return [np.asarray(part) for part in (found.success, bare.success, diverged)]


def jobs(folder: Path) -> None:
    """What this process is given of jobs that both do; and the error of one of them."""
    parallel._PIECE = 2**14  # Results come in several pieces.

    def job(_: None, number: int) -> dict[str, np.ndarray]:
        large = np.arange(3000.0) * number
        return {"order": np.array(10 * number), "owners": np.array(jax.process_index()), "large": large}

    found = list(parallel.run_jobs(job, 5))
    np.savez(
        folder / f"{jax.process_index()}.npz", **{name: np.stack([one[name] for one in found]) for name in found[0]}
    )

    def odd(_: None, number: int) -> dict[str, np.ndarray]:
        require(number != 3, "x", number, "even")
        return {}

    try:
        list(parallel.run_jobs(odd, 5, what="level"))
    except InputError as error:
        print("InputError", error)


if __name__ == "__main__":
    parallel.initialize()
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["jobs"]:
        jobs(folder)
        sys.exit()
    if sys.argv[2:] == ["recover"]:
        np.savez(folder / f"{jax.process_index()}.npz", *recovered())
        sys.exit()
    fill(folder / "samples")
    parallel.barrier("filled")
    arrays = trained()
    if parallel.is_lead():
        np.savez(folder / "trained.npz", **arrays)
    print(jax.process_index(), jax.process_count(), len(jax.devices()), len(jax.local_devices()))
