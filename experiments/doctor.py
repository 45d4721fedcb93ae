"""What dgu finds on this machine, and where it looks: ``dgu doctor``, or ``python -m experiments.doctor``.

Versions, devices and memory, data sets, networks, and the folder of compiled programs. Nothing is written. The exit
code is 1 where something that every study needs cannot be used, which stands in the last line.
"""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import dgu
from dgu.core.errors import InputError, one_line, printable
from experiments.study.command_line import run_command
from experiments.study.compilation import MOST, compilation, folder

#: What must be there, and what some programs use where it is.
_NEEDED = ("jax", "jaxlib", "numpy", "scipy", "flax", "optax", "orbax-checkpoint", "matplotlib", "safetensors")
_OPTIONAL = {
    "torch": "PyTorch modules as denoisers",
    "onnxruntime": "copies found by SSCD",
    "tensorboardX": "scalars of a training",
}
#: What changes how JAX works.
_VARIABLES = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "XLA_FLAGS", "CUDA_VISIBLE_DEVICES", "JAX_COMPILATION_CACHE_DIR")
#: Files that the current folder is searched for.
_NETWORKS = ("*.pkl", "*.npz", "*.safetensors", "*/model_index.json", "*/network.npz", "runs/*/network.npz")


@dataclass(frozen=True)
class Config:
    """Say what dgu finds on this machine and where it looks: versions, devices, memory, data sets, networks, caches."""


def run(config: Config) -> None:
    """Print what is found; exit code 1 where what every study needs cannot be used."""
    for title, lines in (
        ("versions", versions()),
        ("devices and memory", devices()),
        ("data sets", data_sets()),
        ("networks (--checkpoint)", networks()),
        ("compiled programs and runs", folders()),
    ):
        print(title, flush=True)
        for line in lines:
            print(f"  {printable(line)}", flush=True)
    if found := problem():
        print(f"problem: {printable(found)}", flush=True)
        raise SystemExit(1)
    print("everything that the studies need by default is here")


def versions() -> Iterator[str]:
    """Python, the packages, and where dgu is."""
    yield f"dgu {dgu.__version__} in {Path(dgu.__file__).parent}"
    yield f"python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield ", ".join(f"{name} {_version(name)}" for name in _NEEDED)
    for name, use in _OPTIONAL.items():
        yield f"{name} {_version(name) if find_spec(name) else 'is not installed'} (optional: {use})"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "without a version"


def devices() -> Iterator[str]:
    """Devices of JAX with their memory, processors, memory of the host, and variables that change how JAX works."""
    import jax

    for device in jax.devices():
        held = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
        yield f"{device.platform} {device.id}: {device.device_kind}" + (f", {_size(held)}" if held else "")
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield f"processors: {own} for this process, {os.cpu_count()} in all"
    yield f"memory of the host: {_host_memory()}; images of a file may take {_image_limit()} (DGU_MAX_GIB)"
    given = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    yield f"variables: {' '.join(given) or 'none of ' + ', '.join(_VARIABLES)}"


def _host_memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return f"{_size(page * os.sysconf('SC_PHYS_PAGES'))}, {_size(page * os.sysconf('SC_AVPHYS_PAGES'))} free"
    except (AttributeError, OSError, ValueError):
        return "unknown"


def _image_limit() -> str:
    from dgu.core.reading import byte_limit

    try:
        return _size(byte_limit())
    except InputError as error:
        return str(error)


def data_sets() -> Iterator[str]:
    """Each set known by name: where it is and whether it holds what it must, or the commands that bring it."""
    from dgu.data.named import DATA_VARIABLE, NAMED_SETS, read_named

    yield f"looked for in ${DATA_VARIABLE} = {os.environ.get(DATA_VARIABLE) or '(not set)'} and where systems put them"
    for name, known in NAMED_SETS.items():
        missing: dict[str, str] = {}
        for split in known.digests:
            try:
                count = len(read_named(name, split).images)
                yield f"{name} {split}: {count:,} images, verified, {next(known.places(split))[0]}"
            except InputError as error:
                missing[split] = str(error)
        # What brings one split brings all, and is said once.
        yield from list(missing.values())[:1]


def networks() -> Iterator[str]:
    """The networks in the package, and files and folders here that may be networks."""
    from dgu.models.pretrained import BUNDLED

    yield from (f"{name}: in the package" for name in BUNDLED)
    here = sorted({str(path) for pattern in _NETWORKS for path in Path().glob(pattern)})
    yield f"in {Path().resolve()}: {', '.join(here[:20]) or 'none'}" + (", ..." if len(here) > 20 else "")


def folders() -> Iterator[str]:
    """The folder of compiled programs with its size, the one where runs go, and the space on the disk."""
    path = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or folder())
    sizes = [entry.stat().st_size for entry in path.glob("*") if entry.is_file()] if path.is_dir() else []
    bound = f"at most {_size(MOST)} when a run starts; --recompile does without"
    yield f"{path}: {len(sizes)} files, {_size(sum(sizes))} ({bound})"
    runs = Path("runs")
    finished = len(list(runs.glob("*/report.html"))) if runs.is_dir() else 0
    yield f"{runs.resolve()}: {finished} finished runs; {_size(shutil.disk_usage(Path()).free)} free on the disk"


def problem() -> str:
    """Why the studies' defaults cannot be used, in one line; empty where they can."""
    import jax
    import numpy as np

    from dgu.data import load
    from dgu.models import load_checkpoint

    try:
        image = load("fashion-mnist-mini", "test", 14).images[0]
        denoiser = load_checkpoint("fashion-mnist-14").denoiser.given(0)
        with compilation(quick=True, kept=False):
            denoised = jax.jit(lambda denoiser, x: denoiser(x, 1.0))(denoiser, image)
    except Exception as error:  # Whatever it is: that is what is asked here.
        return f"{type(error).__name__}: {one_line(error)}"
    return "" if np.isfinite(denoised).all() else "the bundled network gives numbers that are not finite"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, run, name="doctor", argv=argv)


if __name__ == "__main__":
    main()
