"""Pages of results, made from what finished runs have stored.

    python -m experiments.study.pages --runs runs/molrg-default

Each run gives one page of Markdown, ``docs/results/NAME.md``: the command, the terms that the study declares, and every
claim with its value, interval, threshold and verdict. The numbers on the pages are those of ``claims.json``; nothing is
typed by hand. The run's figures are kept small in ``docs/results/NAME``, for the pages of the papers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dgu.core.errors import InputError, require
from dgu.core.files import folder_obstacle, write_atomic
from experiments.study.command_line import run_command
from experiments.study.configuration import (
    check_generator,
    config_to_json,
    first_difference,
    options,
    read_config,
    stored_options,
)
from experiments.study.judged import JudgedClaim, counted, read_claims
from experiments.study.listing import studies
from experiments.study.multiplicity import EXPLAINED, by_chance
from experiments.study.report import CHECKS, ONE_NETWORK
from experiments.study.run_directory import RunDirectory
from experiments.study.study import Study

#: Longest side of a figure that is kept, in pixels: legible on a page, at some 40 kB.
_LONGEST = 1200
#: What a cell of a table in Markdown must not hold as it is.
_ESCAPES = str.maketrans({"|": "\\|", "\n": " "})


@dataclass(frozen=True)
class Config:
    """Pages of results from finished runs."""

    runs: str
    """Directory of a finished run, or a folder that holds several, each named STUDY-PRESET."""
    out: Path = Path("docs/results")
    """Folder of the pages."""


def page(name: str, preset: str, claims: Sequence[JudgedClaim], terms: Mapping[str, str] | None = None) -> str:
    """The page of one run of the study ``name``, in Markdown.

    Args:
        name: the study, as in ``python -m experiments.NAME``.
        preset: the preset that ran.
        claims: its claims.
        terms: what the words of its claims mean, by term.
    """
    option = "" if preset == "default" else f" --preset {preset}"
    lines = [
        f"# Results of `python -m experiments.{name}{option}`",
        "",
        f"{counted(claims)}. Intervals are at 95 %: a claim is supported if its whole interval keeps to the threshold, "
        "not supported if the whole interval violates it, and undecided otherwise, and where the interval has no width "
        "since all runs gave the same. In brackets stands the source: a paper with its figure or theorem, or “own” for "
        "a claim that no paper makes.",
        "",
        "This page was made by `python -m experiments.study.pages` from the `claims.json` of the run; its report has "
        "the figures.",
        "",
        *(f"- **{term}**: {meaning}" for term, meaning in (terms or {}).items()),
        *([""] if terms else []),
        *_table(claim for claim in claims if not claim.check),
    ]
    if chance := by_chance(claims):
        lines += ["", f"{chance} {EXPLAINED}"]
    if any(claim.one_network for claim in claims):
        lines += ["", ONE_NETWORK]
    if checks := [claim for claim in claims if claim.check]:
        lines += ["", "## Checks of the program", "", CHECKS, "", *_table(checks)]
    return "\n".join(lines) + "\n"


def _table(claims: Iterable[JudgedClaim]) -> list[str]:
    return ["| claim | value | threshold | p | verdict |", "|---|---|---|---|---|", *map(_row, claims)]


def _row(claim: JudgedClaim) -> str:
    note = f" *{claim.remarks}*" if claim.remarks else ""
    measured = claim.measured + " ¹" * claim.one_network
    about = f"`{claim.id}` {claim.statement} ({claim.origin}){note}"
    cells = (about, measured, claim.threshold, claim.significance, claim.verdict)
    return "| " + " | ".join(cell.translate(_ESCAPES) for cell in cells) + " |"


def page_of(run: Path) -> tuple[str, str]:
    """The study and the page of the finished run in ``run``, a directory called STUDY-PRESET.

    Raises:
        InputError: the run is not finished, its directory has another name, or it is a run of another study or with
            other options than those of the preset.
    """
    name, dash, preset = run.resolve().name.partition("-")
    require(
        bool(dash and name and preset), "--runs", str(run), "a directory called STUDY-PRESET, such as molrg-default"
    )
    file = run / "config.json"
    stored = read_config(file)
    check_generator(stored, file)
    directory = RunDirectory(run)
    claims = read_claims(directory) if directory.finished else None
    if claims is None:
        raise InputError(f"--runs = {str(run)!r}: must be the directory of a finished run")
    study = studies().get(name)
    if study is not None:
        _check_options(run, stored, study, preset)
    return name, page(name, preset, claims, study.terms if study is not None else None)


def _check_options(run: Path, stored: dict[str, Any], study: Study, preset: str) -> None:
    """``InputError`` unless the run's options are those of the preset in its name."""
    require(preset in study.presets, "--runs", str(run), f"named after one of the presets {', '.join(study.presets)}")
    config = study.presets[preset]
    different = first_difference(stored_options(stored, config), options(config_to_json(config)))
    if different is not None:
        option, there, here = different
        wanted = f"a run of {study.name} --preset {preset}, in which {option} is {here!r}, not {there!r}"
        raise InputError(f"--runs = {str(run)!r}: must be {wanted}")


def write_pages(config: Config) -> None:
    """Write the page of each run, and print where it is; nothing where one of the runs has none.

    Raises:
        InputError: as ``page_of``; there is no run, or the pages' folder is a file.
    """
    if found := folder_obstacle(config.out):
        raise InputError(f"--out = {str(config.out)!r}: must be a folder ({found})")
    given = Path(config.runs)
    runs = [given] if (given / "config.json").exists() else sorted(p.parent for p in given.glob("*-*/config.json"))
    require(bool(runs), "--runs", config.runs, "the directory of a finished run, or a folder of such directories")
    pages = [page_of(run) for run in runs]
    names = [name for name, _ in pages]
    require(len(set(names)) == len(names), "--runs", config.runs, "one run of each study")
    config.out.mkdir(parents=True, exist_ok=True)
    for run, (name, text) in zip(runs, pages):
        _write(config.out / f"{name}.md", text)
        keep_figures(run / "figures", config.out / name)


def _write(file: Path, text: str) -> None:
    write_atomic(file, lambda stream: stream.write(text.encode()))
    print(file)


def keep_figures(figures: Path, out: Path) -> None:
    """Write each figure of a run into the folder ``out``, as WebP of at most 1,200 pixels, in place of those there."""
    from PIL import Image

    found = {file.stem: file for file in figures.glob("*.png")}
    for old in out.glob("*.webp"):
        if old.stem not in found:
            old.unlink()
    for stem, file in found.items():
        out.mkdir(exist_ok=True)
        picture = Image.open(file).convert("RGB")
        picture.thumbnail((_LONGEST, _LONGEST))
        write_atomic(out / f"{stem}.webp", partial(picture.save, format="webp", quality=80, method=6))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ``argv`` is that of the process by default."""
    run_command(Config, write_pages, name="study.pages", argv=argv)


if __name__ == "__main__":
    main()
