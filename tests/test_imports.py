"""What is loaded, in a fresh interpreter: no room loads what it does not use, and no study what its work alone needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import scipy

from experiments.study.listing import studies

ROOT = Path(__file__).parents[1]
ROOMS = ("analysis", "data", "distributions", "models", "plots", "samplers", "testing", "training")
#: What takes long to load.
HEAVY = {"diffrax", "equinox", "flax", "jax", "jaxlib", "matplotlib", "optax", "orbax", "scipy"}
#: Prints the modules that are loaded after the program above it, on the last line.
SHOW = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"

#: Prints the help of a command.
HELP = """
import contextlib, runpy, sys
sys.argv[1:] = ["--help"]
with contextlib.suppress(SystemExit):
    runpy.run_module("experiments.{command}", run_name="__main__", alter_sys=True)
"""


def loaded(program):
    """The modules that are loaded after a program, in an interpreter of its own, and what else it printed."""
    done = subprocess.run([sys.executable, "-c", program + SHOW], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    *printed, modules = done.stdout.splitlines()
    return set(json.loads(modules)), "\n".join(printed)


def top(modules):
    return {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("package", ["dgu", *(f"dgu.{room}" for room in ROOMS)])
def test_a_package_loads_nothing_but_itself(package):
    modules, _ = loaded(f"import {package}")
    assert {name for name in modules if name.startswith("dgu")} - {package} <= {"dgu", "dgu.core", "dgu.core.lazy"}
    assert not top(modules) & (HEAVY | {"numpy", "jaxtyping"})


@pytest.mark.parametrize(
    ("name", "used", "unused"),
    [
        ("samplers.sample", "jax", HEAVY - {"jax", "jaxlib"}),
        ("samplers.reverse_sde", "jax", HEAVY - {"jax", "jaxlib"}),
        ("models.load_checkpoint", "jax", HEAVY - {"jax", "jaxlib"}),
        ("models.EDMNetwork", "jax", HEAVY - {"jax", "jaxlib"}),
        ("training.TrainingConfig", "dgu", HEAVY),
        ("data.load", "PIL", HEAVY),
        ("plots.forest", "matplotlib", HEAVY - {"matplotlib"}),
    ],
)
def test_a_name_loads_what_it_uses(name, used, unused):
    room, attribute = name.split(".")
    modules, _ = loaded(f"from dgu.{room} import {attribute}")
    assert used in top(modules) and not top(modules) & unused


@pytest.mark.parametrize("command", [*studies(), "train", "sample", "metrics", "model_card", "report", "export"])
def test_a_command_prints_its_help_without_what_its_work_alone_needs(command):
    modules, printed = loaded(HELP.format(command=command))
    assert f"python -m experiments.{command}" in printed and ("--out" in printed or command == "report")
    assert not top(modules) & (HEAVY - {"jax", "jaxlib", "scipy"})
    assert not modules & {f"scipy.{package}" for package in scipy.__all__}
