"""Add the claims that are new to the record of declarations, ``experiments/STUDY/declarations.toml``.

    python -m experiments.study.declarations --runs runs

What stands in the record is never changed. Runs, which may be smoke runs, tell how the interval of each claim is made;
without any, this is added by a later call.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgu.core.errors import require
from dgu.core.files import write_atomic
from experiments.study.claims import Claim
from experiments.study.command_line import run_command
from experiments.study.judged import JudgedClaim, read_claims
from experiments.study.listing import studies
from experiments.study.record import HOME, Declaration, added, complaints, record_of
from experiments.study.run_directory import RunDirectory
from experiments.study.study import Study

_HEAD = """\
# The first declaration of every claim with the options of the default preset: its test with thresholds, and how its
# interval was made. Added by `python -m experiments.study.declarations`, and never changed: a claim that tests anything
# else now says so in its `changed`.
"""


@dataclass(frozen=True)
class Config:
    """The record of declarations of every study."""

    runs: str | None = None
    """Folder of finished runs, each named STUDY-PRESET, which tell how intervals are made."""


def declared(study: Study) -> list[Claim]:
    """The claims of a study with the options of its default preset."""
    default = study.presets["default"]
    return [claim for part in study.chosen(default) for claim in part.declared(study.options_of(part, default))]


def text(record: Mapping[str, Declaration]) -> str:
    """A record as its file."""
    lines = [_HEAD.rstrip()]
    for name, entry in record.items():
        lines += ["", f"[{json.dumps(name)}]", f"test = {json.dumps(entry.test, ensure_ascii=False)}"]
        lines += [f"interval = {json.dumps(entry.interval, ensure_ascii=False)}"] if entry.interval else []
    return "\n".join(lines) + "\n"


def _ran(runs: str | None, study: str) -> Sequence[JudgedClaim]:
    """The claims of the finished runs of a study in the folder ``runs``."""
    if runs is None:
        return ()
    return [claim for run in sorted(Path(runs).glob(f"{study}-*")) for claim in read_claims(RunDirectory(run)) or ()]


def write(config: Config) -> None:
    """Add to the record of each study, and print what of its claims does not fit it.

    Raises:
        InputError: the folder of runs is none.
    """
    found = config.runs is None or Path(config.runs).is_dir()
    require(found, "--runs", config.runs, "a folder of finished runs")
    for name, study in studies().items():
        record = record_of(name)
        new = added(declared(study), _ran(config.runs, name), record)
        if new != record:
            _write(HOME / name / "declarations.toml", text(new))
        for line in complaints(name, declared(study), new):
            print(line)


def _write(file: Path, content: str) -> None:
    write_atomic(file, lambda stream: stream.write(content.encode()))
    print(file)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, write, name="study.declarations", argv=argv)


if __name__ == "__main__":
    main()
