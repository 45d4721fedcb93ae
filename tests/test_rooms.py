"""Imports within the package run upwards only, in no circle, and never through the public root modules."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Rooms from top to bottom: a module imports from its own row and the rows above it.
ROWS = ("core", "data", "distributions", "models", "samplers", "training", "analysis", "plots")
#: What the programs share, from top to bottom; each study and each other command is a row of its own below.
SHARED = (
    "study", "pools", "sampling", "clocks", "decoding", "subjects", "descriptions", "train_config", "scalars", "train",
)  # fmt: skip
#: Public root modules, which only re-export names for users.
FOR_USERS = ("keys", "errors", "parallel", "checkpoint", "typing", "bases")
#: Root modules of the command ``dgu``, which import nothing of the package.
COMMAND = ("command", "__main__")


def name_of(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES, PROGRAMS = (
    {name_of(file): file for file in sorted((ROOT / package).rglob("*.py"))} for package in ("dgu", "experiments")
)


@cache
def imports(file, package="dgu"):
    """Modules of the package that a file imports, or imports names from."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES | PROGRAMS else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == package}


def row(module):
    room = module.split(".")[1]
    return ROWS.index("analysis" if room == "testing" else room)


INSIDE = sorted(name for name in MODULES if name.count(".") and name.split(".")[1] not in FOR_USERS + COMMAND)


@pytest.mark.parametrize("module", INSIDE)
def test_a_module_imports_from_its_own_row_and_rows_above(module):
    found = imports(MODULES[module])
    assert not [name for name in found if name == "dgu" or name.split(".")[1] in FOR_USERS]
    inside_testing = module.startswith("dgu.testing")
    assert not [
        name for name in found if row(name) > row(module) or (name.startswith("dgu.testing") and not inside_testing)
    ]


def test_no_module_imports_itself_through_others():
    plain = [name for name in INSIDE if MODULES[name].name != "__init__.py"]
    TopologicalSorter({name: imports(MODULES[name]) for name in plain}).prepare()


def test_no_sub_package_of_the_analyses_imports_itself_through_others():
    def package(name):
        return ".".join(name.split(".")[:3])

    graph = {}
    for name in INSIDE:
        if name.startswith("dgu.analysis."):
            graph.setdefault(package(name), set()).update(
                {package(other) for other in imports(MODULES[name])} - {package(name)}
            )
    assert len(graph) == 12
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", sorted(name for name in PROGRAMS if "." in name))
def test_a_program_imports_what_all_share_and_nothing_of_another_study(module):
    """So that the vocabulary of a study knows of no sampler and no subject, and a study can be removed."""
    own = module.split(".")[1]
    above = SHARED[: SHARED.index(own)] if own in SHARED else SHARED
    used = {name.split(".")[1] for name in imports(PROGRAMS[module], "experiments") if "." in name}
    assert used <= {own, *above}


def test_nothing_of_the_library_imports_a_program():
    assert not [name for name, file in MODULES.items() if imports(file, "experiments")]


@pytest.mark.parametrize("folder", ["experiments", "benchmarks"])
def test_programs_import_from_where_names_are_defined(folder):
    """Public root modules are for users; within the repository they would hide where a name comes from."""
    for file in (ROOT / folder).rglob("*.py"):
        assert not imports(file) & {f"dgu.{name}" for name in FOR_USERS}, file
