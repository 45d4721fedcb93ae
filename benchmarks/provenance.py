"""Where figures come from (command, day, machine, versions), and the file that keeps both."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

#: Packages whose versions are named where they are installed.
PACKAGES = ("dgu", "jax", "jaxlib", "numpy", "scipy", "torch", "diffusers", "azula", "scikit-learn")
#: Of the minute before the program began, which is imported before it does any work.
_LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command(options: list[str]) -> str:
    """The command that runs this program with ``options``, without the files that it writes."""
    shown, skip = [], False
    for word in options:
        if skip or word.startswith(("--json=", "--figure=")):
            skip = False
        elif word in ("--json", "--figure"):
            skip = True
        else:
            shown.append(word)
    spec = sys.modules["__main__"].__spec__
    name = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", name, *shown])


def origin() -> dict[str, Any]:
    """Command, day, machine, versions and how busy the machine was before the program began."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": command(sys.argv[1:]),
        "day": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_before": _LOAD,
        "versions": versions,
    }


def write(path: str, figures: dict[str, Any]) -> None:
    """Write a program's figures and their origin."""
    with open(path, "w") as file:
        json.dump({**figures, "origin": origin()}, file, indent=1)
