"""The command ``dgu``: every study and program by its name, from an installed package as from a checkout.

``dgu NAME ...`` takes the options of ``python -m experiments.NAME ...`` and ends with the same exit codes.
"""

import importlib
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dgu
from dgu.core.errors import MAX_VALUE, InputError, shortened
from experiments.study.catalogue import questions
from experiments.study.ends import in_one_line


@dataclass(frozen=True)
class Program:
    """A program that is no study.

    Attributes:
        about: what it does, in one line.
        arguments: the options that are given without their names, in this order.
        joins: whether several processes may run it together.
    """

    about: str
    arguments: tuple[str, ...] = ()
    joins: bool = False

    @property
    def usage(self) -> str:
        """The arguments as the help shows them."""
        return "".join(f" {option.removeprefix('--').upper()}" for option in self.arguments)


PROGRAMS = {
    "train": Program("Train a diffusion model by the recipe of EDM or EDM2.", joins=True),
    "sample": Program("Sample a network: PNG files, an EDM data set, or arrays.", joins=True),
    "metrics": Program("Frechet distance and KID of generated images, on features from files."),
    "model_card": Program("Measure a model of labelled images, and write its model card."),
    "report": Program("Make the report of a finished run again, whichever study it is of.", ("--run",)),
    "export": Program("Write a network as one file, .safetensors or .npz.", ("--checkpoint", "--out")),
    "doctor": Program("Say what dgu finds here: versions, devices, memory, data sets, networks, caches."),
}
EXAMPLES = (
    "dgu universality --preset smoke",
    "dgu audit --samples my_images.npz --reference my_training_images.npz",
    "dgu report runs/universality-smoke",
)


def main(argv: Sequence[str]) -> None:
    """What ``dgu`` does with these arguments."""
    asked = {name: _first_sentence(question) for name, question in questions().items()}
    with in_one_line("dgu"):
        word, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
        if word in ("--help", "-h", "--version", "list"):
            if rest:
                raise InputError(f"dgu {word}: {shortened(repr(rest[0]), MAX_VALUE)}: must be left out")
            width = shutil.get_terminal_size().columns
            pages = {"--version": [f"dgu {dgu.__version__}"], "list": listed(asked)}
            print("\n".join(pages.get(word) or usage(asked, width)))
            return
        name = word.replace("-", "_")
        if name not in asked and name not in PROGRAMS:
            names = ", ".join([*asked, *PROGRAMS, "list"])
            raise InputError(f"command = {shortened(repr(word), MAX_VALUE)}: must be one of {names} (dgu --help)")
    start(name, rest)


def _first_sentence(question: str) -> str:
    """What a study asks, without what else its help says of it."""
    first, mark, _ = question.partition("? ")
    return first + mark.rstrip()


def start(name: str, argv: Sequence[str]) -> None:
    """Run a study or a program in this process."""
    with in_one_line(name):
        module = importlib.import_module(f"experiments.{name}")
    program = PROGRAMS.get(name)
    if program is None:
        module.STUDY(argv)
    elif program.joins:
        module.command(argv)
    else:
        module.main(named(argv, program.arguments))


def named(argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """The arguments with the names of the ``options`` before those that were given without one."""
    found: list[str] = []
    for place, argument in enumerate(argv):
        if argument.startswith("-"):
            return [*found, *argv[place:]]
        found += [*options[place : place + 1], argument]
    return found


def listed(asked: Mapping[str, str]) -> list[str]:
    """The studies and what they ask, a line each, however long."""
    column = max(map(len, asked))
    return [f"{name:<{column}}  {question}" for name, question in asked.items()]


def usage(asked: Mapping[str, str], width: int) -> list[str]:
    """The page of ``dgu --help``, for a terminal of this ``width``."""
    programs = {name + program.usage: program.about for name, program in PROGRAMS.items()}
    programs |= {"list": "The studies and what each asks, a line each."}
    column = max(map(len, (*asked, *programs)))
    return [
        "usage: dgu NAME [OPTIONS]     (dgu NAME --help explains them; dgu --version)",
        "",
        "studies",
        *_rows(asked, column, width),
        "",
        "programs",
        *_rows(programs, column, width),
        "",
        "examples",
        *(f"  {example}" for example in EXAMPLES),
    ]


def _rows(entries: Mapping[str, str], column: int, width: int) -> Iterator[str]:
    """The entries, each with its text beside it."""
    for name, text in entries.items():
        wrapped = textwrap.wrap(text, max(20, width - column - 4))
        yield f"  {name:<{column}}  {wrapped[0]}"
        yield from (" " * (column + 4) + line for line in wrapped[1:])
