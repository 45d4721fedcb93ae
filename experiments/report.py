"""Make figures, claims and report of a finished run again: ``dgu report RUN``, or ``python -m experiments.report --run
RUN``.

Nothing is measured. The study is the one whose options the run has stored.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from dgu.core.errors import InputError
from experiments.study.command_line import run_command
from experiments.study.configuration import check_generator, config_to_json, options, read_config, stored_options
from experiments.study.listing import studies
from experiments.study.study import Study


@dataclasses.dataclass(frozen=True)
class Config:
    """Make figures, claims and report of a finished run again from what it stored, without measuring."""

    run: Path
    """Directory of a finished run of a study."""


def study_of(stored: Mapping[str, Any], known: Mapping[str, Study]) -> Study | None:
    """The study whose options are those that a ``config.json`` holds, or None."""
    for study in known.values():
        default = study.presets["default"]
        if stored_options(dict(stored), default).keys() == options(config_to_json(default)).keys():
            return study
    return None


def restored_config(stored: Mapping[str, Any], default: Any) -> Any:
    """The options that ``config_to_json`` stored, as a dataclass like ``default``, which gives those added later.

    Raises:
        InputError: an option has a value that it cannot have.
    """
    hints, values = get_type_hints(type(default), include_extras=False), {}
    for field in dataclasses.fields(default):
        present = getattr(default, field.name)
        if field.name in stored:
            found, nested = stored[field.name], dataclasses.is_dataclass(present)
            present = restored_config(found, present) if nested else _typed(found, hints[field.name])
        values[field.name] = present
    return type(default)(**values)


def _typed(value: Any, hint: Any) -> Any:
    """A value of JSON as an option of this type has it."""
    kinds = _kinds(hint)
    if isinstance(value, list):
        return tuple(_typed(entry, hint) for entry in value)
    if isinstance(value, str) and str not in kinds:
        if Path in kinds:
            return Path(value)
        if value in ("inf", "-inf") and float in kinds:
            return float(value)
    return value


def _kinds(hint: Any) -> set[Any]:
    """The types within a type: ``{float, NoneType}`` of ``tuple[float, ...] | None``."""
    inner = get_args(hint)
    return {kind for part in inner for kind in _kinds(part)} if inner else {hint}


def run(config: Config) -> None:
    """Make the report again, and print the claims and where it is."""
    file = config.run / "config.json"
    if not file.exists():
        raise InputError(f"run = {str(config.run)!r}: must be the directory of a run (no config.json here)")
    stored = read_config(file)
    check_generator(stored, file)
    known = studies()
    study = study_of(stored, known)
    if study is None:
        raise InputError(f"run = {str(config.run)!r}: must be a run of this version of {', '.join(known)}")
    study.report(restored_config(stored, study.presets["default"]), config.run)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, run, name="report", argv=argv)


if __name__ == "__main__":
    main()
