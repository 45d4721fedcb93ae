"""Packages whose public names are loaded when they are first asked for, so that importing one loads nothing else."""

import ast
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


def load_on_use(package: str) -> None:
    """Make every name that the ``__init__`` of ``package`` imports under ``if TYPE_CHECKING:`` a name of it.

    There ``from dgu.samplers.heun import heun as heun`` is what type checkers and editors read. When a program runs,
    the block is passed over: ``dgu.samplers.heun``, however it is asked for, imports the module ``dgu.samplers.heun``
    the first time, takes the function from it and keeps it. The names also make up ``__all__`` and ``dir()``. A public
    name stays what it is where a module beside it has the same name and is imported, in whichever order.

    Args:
        package: the ``__name__`` of the package, whose ``__init__`` calls this below the block.
    """
    module, homes = sys.modules[package], _declared(package)

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            value = getattr(importlib.import_module(homes[name]), name)
            setattr(self, name, value)
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            # Python binds each module that it imports in its package, also over a public name.
            if name not in homes or sys.modules.get(f"{package}.{name}") is not value:
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *homes})

    module.__class__ = Package
    module.__all__ = sorted(homes)  # type: ignore[attr-defined]


def _declared(package: str) -> dict[str, str]:
    """The module that each name is imported from, by name."""
    for node in ast.parse(inspect.getsource(sys.modules[package])).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            imports = [each for each in node.body if isinstance(each, ast.ImportFrom) and each.module]
            return {alias.name: str(each.module) for each in imports for alias in each.names}
    raise RuntimeError(f"{package}: must import its public names under `if TYPE_CHECKING:`")
