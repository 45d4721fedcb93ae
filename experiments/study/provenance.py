"""How a run was made: the command that makes it again, versions, commit and hardware; and how to cite it."""

import functools
import os
import platform
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import dgu
from experiments.study.configuration import config_to_json, options

#: File of a run directory that says where the run was finished.
ENVIRONMENT = "environment.json"


def command_of(name: str, preset: str, config: Any, presets: Mapping[str, Any]) -> str:
    """The command that runs the experiment ``name`` with these options: those that differ from the preset's."""
    given, usual = (options(config_to_json(each)) for each in (config, presets[preset]))
    words = ["python", "-m", f"experiments.{name}", *(["--preset", preset] if preset != "default" else [])]
    for option, value in given.items():
        if value != usual[option]:
            words += _words(option, value)
    return shlex.join(words)


def _words(option: str, value: Any) -> list[str]:
    """An option with its value, as it is typed."""
    if isinstance(value, bool):
        holders, dot, last = option.removeprefix("--").rpartition(".")
        return [option if value else f"--{holders}{dot}no-{last}"]
    return [option, *map(str, value if isinstance(value, list) else [value])]


def environment() -> list[tuple[str, str]]:
    """Versions, the commit of a checkout, and hardware: what may change numbers or times between machines."""
    import jax

    devices = jax.devices()
    return [
        ("dgu", dgu.__version__ + (f", commit {commit()}" if commit() else "")),
        ("python", platform.python_version()),
        *((name, metadata.version(name)) for name in ("jax", "jaxlib", "flax", "optax", "numpy")),
        ("devices", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"),
        ("processors", f"{os.cpu_count()} x {_processor()}"),
        ("memory", _memory()),
        ("system", f"{platform.system()} {platform.machine()}"),
    ]


@functools.cache
def commit() -> str:
    """The commit of the checkout that dgu runs from, with "-dirty" where files differ from it; empty elsewhere."""
    home = Path(dgu.__file__).parents[1]
    if not (home / ".git").exists():
        return ""
    asked = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()


def _processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, OSError, ValueError):
        return "unknown"


def citations(study: str) -> Iterator[str]:
    """What a text that uses the results of a study should cite: dgu, and the papers that the study reproduces."""
    about = "dgu: what have diffusion models learned, and how Gaussian is it?"
    yield f"The dgu authors. {about} Version {dgu.__version__}{f', commit {commit()}' if commit() else ''}."
    from experiments.study.listing import papers  # Which imports the studies' own vocabulary.

    for paper in papers():
        if study in paper.studies:
            yield f"{paper.cite or paper.title}. arXiv:{paper.arxiv}."


def sources(names: Iterable[str]) -> dict[str, str]:
    """The papers by the short names that claims call them by, of those that are named."""
    from experiments.study.listing import papers

    named = set(names)
    return {
        paper.name: f"{paper.cite or paper.title}. arXiv:{paper.arxiv}." for paper in papers() if paper.name in named
    }
