"""A study's options as plain JSON, stored in ``config.json`` of its run directory, and compared with those of a later
command.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgu.core.errors import InputError
from dgu.core.reading import read_json
from experiments.study.options import added_later, as_typed

#: The generator of all keys, ``dgu.core.prng.GENERATOR`` (which would take JAX along), stored in ``config.json`` beside
#: the options.
GENERATOR = "threefry2x32"


def config_to_json(config: Any) -> dict[str, Any]:
    """A (nested) dataclass as plain JSON: tuples as lists, paths as text, infinities as ``"inf"``."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, float) and math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return value

    return plain(config)


def read_config(file: Path) -> dict[str, Any]:
    """What ``config.json`` holds.

    Raises:
        InputError: it cannot be read.
    """
    given = f"--out = {str(file.parent)!r}"
    try:
        found = read_json(file, "the configuration of a run")
    except InputError as error:
        raise InputError(f"{given}: must hold a readable config.json, or give another ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{given}: must hold the config.json of a run, or give another ({file})")
    return found


def options(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a configuration by the names of their options, such as ``--sampler.num-steps``."""
    if isinstance(tree, dict):
        return {key: leaf for name, entry in tree.items() for key, leaf in options(entry, f"{prefix}.{name}").items()}
    return {as_typed(prefix.removeprefix(".")): tree}


def stored_options(stored: dict[str, Any], config: Any) -> dict[str, Any]:
    """The ``options`` of what ``config.json`` holds, with the defaults of those of ``config`` that were added later."""
    return {as_typed(name): default for name, default in added_later(config).items()} | options(stored)


def check_generator(stored: dict[str, Any], file: Path) -> None:
    """Take the generator's name out of what ``config.json`` holds; ``InputError`` where it is not ours.

    Runs from before it was stored used the same one.
    """
    found = stored.pop("prng", GENERATOR)
    if found != GENERATOR:
        raise InputError(
            f"{str(file)!r}: is of a run with the random generator {found!r}, not {GENERATOR}; --out another directory"
        )


#: Stands for the value of an option that a configuration lacks.
ABSENT = "(no such option)"


def first_difference(stored: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first option of ``given``, or else of ``stored``, that differs, with its value in each; None if none does."""
    for option in [*given, *(name for name in stored if name not in given)]:
        there, here = stored.get(option, ABSENT), given.get(option, ABSENT)
        if there != here or isinstance(there, bool) != isinstance(here, bool):
            return option, there, here
    return None


def check_same(stored: Mapping[str, Any], given: Mapping[str, Any], file: Path) -> None:
    """``InputError`` unless the options ``given`` are those ``stored`` in ``file``; it names the first that differs."""
    if different := first_difference(stored, given):
        option, there, here = different
        wanted = f"must be {there!r} as stored in {str(file)!r}"
        if there == ABSENT:
            wanted = f"is an option that {str(file)!r} lacks; must be a run of this version"
        raise InputError(f"{option} = {here!r}: {wanted}, or --out another directory")


def other_options(file: Path, config: Any) -> str:
    """How the options of a run that goes on differ from ``config``, as far as it has written them to ``file``."""
    try:
        stored, given = options(read_config(file)), options(config_to_json(config))
    except InputError:
        return ""
    different = first_difference({name: stored[name] for name in given if name in stored}, given)
    if different is None:
        return " with the same options"
    option, there, here = different
    return f" with {option} = {there!r}, not {here!r}"
