"""The command ``dgu``: hands its arguments to the package ``experiments`` that was installed beside dgu."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path


def programs_problem() -> str:
    """Why the package ``experiments`` that Python finds cannot be used, in one line; empty where it is dgu's own.

    The name is a common one: another package of that name may come first on Python's path. It is looked for, not
    imported.
    """
    home = Path(__file__).resolve().parents[1]
    found = find_spec("experiments")
    own = home / "experiments" / "__init__.py"
    if not own.exists():
        return f"{own.parent}: must hold the studies, which were not installed with dgu"
    if found is not None and found.origin is not None and Path(found.origin).resolve() == own:
        return ""
    where = "nothing" if found is None else found.origin or next(iter(found.submodule_search_locations or ()), "")
    return (
        f"the package experiments that Python finds is {str(where)!r}: must be {str(own)!r}; "
        "take the other one out of PYTHONPATH, or use another environment"
    )


def main() -> None:
    """The command line of the process."""
    if problem := programs_problem():
        print(f"dgu: {problem}", file=sys.stderr)
        raise SystemExit(2)
    try:
        command = importlib.import_module("experiments.command")
    except KeyboardInterrupt:
        print("interrupted before anything was done", file=sys.stderr)
        raise SystemExit(130) from None
    command.main(sys.argv[1:])
