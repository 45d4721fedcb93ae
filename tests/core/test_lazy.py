"""Packages that load their public names on use: each name once, the same in whichever order, and nothing before."""

import subprocess
import sys
import textwrap

import pytest

INIT = """
from typing import TYPE_CHECKING

from dgu.core.lazy import load_on_use

if TYPE_CHECKING:
    from lazy_package.both import both as both
    from lazy_package.other import first as first
    from lazy_package.other import second as second

load_on_use(__name__)
"""
BOTH = 'print("both loaded")\n\ndef both():\n    return "the function"\n'
OTHER = 'print("other loaded")\nfirst, second = object(), 2\n'


@pytest.fixture
def run(tmp_path):
    """What a program in a fresh interpreter prints, line by line, beside a package of two modules."""
    (tmp_path / "lazy_package").mkdir()
    for name, text in (("__init__", INIT), ("both", BOTH), ("other", OTHER)):
        (tmp_path / "lazy_package" / f"{name}.py").write_text(text)

    def found(program):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{textwrap.dedent(program)}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout.splitlines()

    return found


def test_a_name_is_loaded_when_it_is_asked_for_and_once(run):
    program = """
        import lazy_package
        print("imported")
        from lazy_package import first
        print(lazy_package.first is first, lazy_package.second)
    """
    assert run(program) == ["imported", "other loaded", "True 2"]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import lazy_package.both",
        "from lazy_package.both import both as its_own",
        "import importlib; importlib.import_module('lazy_package.both')",
        "from lazy_package import both",
    ],
)
def test_a_name_that_a_module_shares_is_the_public_one(run, before):
    program = f"""
        {before}
        import sys, lazy_package
        from lazy_package import both
        print(both(), lazy_package.both(), sys.modules["lazy_package.both"].both is both)
    """
    assert run(program) == ["both loaded", "the function the function True"]


def test_all_names_are_listed_and_star_imports_take_them(run):
    program = """
        import lazy_package
        print(lazy_package.__all__, {"both", "first", "second", "__name__"} <= set(dir(lazy_package)))
        from lazy_package import *
        print(both(), second)
    """
    listed = "['both', 'first', 'second'] True"
    assert run(program) == [listed, "both loaded", "other loaded", "the function 2"]


def test_a_name_can_be_replaced_as_in_any_module(run):
    program = """
        import lazy_package
        lazy_package.second = 3
        import lazy_package.other
        print(lazy_package.second, lazy_package.other.second)
    """
    assert run(program) == ["other loaded", "3 2"]


def test_unknown_names_are_refused_as_ever(run):
    program = """
        import lazy_package
        try:
            lazy_package.third
        except AttributeError as error:
            print(error)
        try:
            from lazy_package import third
        except ImportError as error:
            print(str(error).split(" (")[0])
    """
    assert run(program) == [
        "module 'lazy_package' has no attribute 'third'",
        "cannot import name 'third' from 'lazy_package'",
    ]
