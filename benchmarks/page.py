"""Runs the benchmarks and writes the page of what they measured, ``benchmarks/results.md``, with the figure of growth.

    python -m benchmarks.page              # everything that 20 minutes allow
    python -m benchmarks.page --long       # and the runs that take longer
    python -m benchmarks.page --stored     # the page of figures that are there, without measuring
    python -m benchmarks.page --quick      # does it work: a page beside its figures, and the repository's stays

Every part is a command of its own, run in turn, whose figures go to a file in ``folder`` (``--json``). The page is made
of the files that are there, also those of earlier runs; it says of each part the command, the day, and how busy the
machine was before. A part that fails is named, the others go on, and the command ends with exit code 1.
"""

import dataclasses
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tyro

from benchmarks.page_tables import TABLES, table


@dataclasses.dataclass(frozen=True)
class Part:
    """A command: ``python -m benchmarks.MODULE OPTIONS``; ``long`` if it is not among those of 20 minutes."""

    name: str
    module: str
    title: str
    options: tuple[str, ...] = ()
    long: bool = False

    @property
    def command(self) -> str:
        """As one types it."""
        return shlex.join(["python", "-m", f"benchmarks.{self.module}", *self.options])


PARTS = (
    Part("sampling", "sampling", "A sampler"),
    Part("networks", "networks", "A forward pass and a training step", ("--networks", "small-adm", "--rounds", "15")),
    Part("networks-16", "networks", "A training step of 16 images",
         ("--networks", "small-adm", "--passes", "training", "--batch", "16", "--rounds", "15", "--no-compile")),
    Part("networks-ddpmpp", "networks", "A forward pass of DDPM++ for CIFAR-10",
         ("--networks", "ddpmpp", "--passes", "forward", "--rounds", "3")),
    Part("networks-large", "networks", "A forward pass of NCSN++ and of the ADM for ImageNet-64",
         ("--networks", "ncsnpp", "imagenet64", "--passes", "forward", "--rounds", "3"), long=True),
    Part("samplers", "samplers", "Samplers of other libraries on one network"),
    Part("scikit", "scikit", "Linear classifiers of scikit-learn", ("--rounds", "2")),
    Part("classifiers", "classifiers", "Ten classifiers of images at once", ("--rounds", "2")),
    Part("dynamics", "dynamics", "Fifty small score networks at once", ("--runs", "50", "--rounds", "1")),
    Part("dynamics-full", "dynamics", "A hundred small score networks at once", long=True),
    Part("molrg", "molrg", "Recovery of subspaces"),
    Part("molrg-full", "molrg", "Recovery of subspaces, the whole study", ("--full",), long=True),
    Part("neighbours", "neighbours", "Nearest neighbours of 4,000 queries", ("--queries", "4000")),
    Part("neighbours-full", "neighbours", "Nearest neighbours of 10,000 queries", long=True),
    Part("local", "local", "Local denoisers of 6,000 training images"),
    Part("distillation", "distillation", "Linear distillation of a Gaussian, fewer images and epochs",
         ("--points", "0", "--images", "8192", "--epochs", "30")),
    Part("distillation-gaussian", "distillation", "Linear distillation of a Gaussian", ("--points", "0"), long=True),
    Part("distillation-points", "distillation", "Linear distillation of 64 points", long=True),
    Part("growth", "growth", "How time and memory grow"),
    Part("memory", "memory", "Memory of the studies' stages, predicted and measured"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run, and where it goes."""

    only: tuple[str, ...] = ()
    """Names of the parts to run; none: all of 20 minutes."""
    long: bool = False
    """Run the parts that take longer, too."""
    stored: bool = False
    """Run nothing: make the page of the figures in the folder."""
    quick: bool = False
    """Run every part with --quick."""
    folder: str | None = None
    """Folder of the files of figures; by default runs/benchmarks, with --quick runs/benchmarks-quick."""
    out: str | None = None
    """The page; by default benchmarks/results.md, with --quick results.md in the folder. The figure lies beside it."""


def run_part(part: Part, folder: Path, quick: bool) -> str | None:
    """Run a part's command: None, or the last line of its errors. Figures of an earlier run are gone then."""
    path = folder / f"{part.name}.json"
    path.unlink(missing_ok=True)
    # What a program makes small by --quick overrules the part's sizes; it leaves the whole study of molrg whole.
    options = [*(option for option in part.options if option != "--full"), "--quick"] if quick else list(part.options)
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *options, "--json", str(path)]
    print(f"== {part.name}: python -m benchmarks.{part.module} {shlex.join(options)}", flush=True)
    start = time.perf_counter()
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    print(f"== {time.perf_counter() - start:.0f} s", flush=True)
    if run.returncode:
        print(run.stderr, file=sys.stderr)
        last = ([line for line in run.stderr.splitlines() if line.strip()] or ["no message"])[-1].strip()
        return last.removeprefix(f"{sys.executable}: ")
    return None


def machines(stored: dict[str, dict[str, Any]]) -> list[str]:
    """A table of the machines and versions that the figures come from, one row if all have the same."""
    rows = []
    for name, figures in stored.items():
        origin = figures["origin"]
        versions = ", ".join(f"{package} {number}" for package, number in origin["versions"].items())
        row = [origin["processor"], str(origin["cores"]), origin["system"], versions]
        known = [one for one in rows if one[1:] == row]
        if known:
            known[0][0] += f", {name}"
        else:
            rows.append([name, *row])
    return table(["parts", "processor", "cores", "system", "versions"], rows)


def page(stored: dict[str, dict[str, Any]], failed: dict[str, str], figure: str | None) -> str:
    """The page's text.

    Args:
        stored: what each part's file holds, by its name.
        failed: why a part failed, by its name.
        figure: name of the file of the figure of growth, beside the page.
    """
    lines = [
        "# What the benchmarks measured",
        "",
        "Written by `python -m benchmarks.page`; [README.md](README.md) says what each program is and why. Medians "
        "stand with their quartiles in parentheses.",
        "",
        *machines(stored),
        "",
    ]
    for part in PARTS:
        if part.name not in stored and part.name not in failed:
            continue
        lines += [f"## {part.title}", ""]
        if part.name in failed:
            lines += [f"`{part.command}` failed: `{failed[part.name]}`.", ""]
            continue
        figures = stored[part.name]
        origin = figures["origin"]
        load = "" if origin["load_before"] is None else f"; load of the machine before: {origin['load_before']:.2f}"
        lines += [f"`{origin['command']}`, {origin['day']}{load}.", "", *TABLES[part.module](figures), ""]
        if part.module == "growth" and figure is not None:
            lines += [
                f"![Time and memory of each function against how much larger a size is than the smallest]({figure})",
                "",
                "Time of a compiled call, and below it the memory that the call needs beyond its inputs, against how "
                "many times a size is the smallest one. In the legends: the exponent of growth, and its range between "
                "neighbouring sizes.",
                "",
            ]
    missing = [part.name for part in PARTS if part.name not in stored and part.name not in failed]
    if missing:
        lines += [f"Not measured: {', '.join(missing)} (`python -m benchmarks.page --only {' '.join(missing)}`).", ""]
    return "\n".join(lines)


def main(config: Config) -> int:
    """Run the parts, write the page; 1 where a part failed."""
    names = [part.name for part in PARTS]
    unknown = sorted(set(config.only) - set(names))
    if unknown:
        raise SystemExit(f"only: {', '.join(unknown)}: must be of {', '.join(names)}")
    folder = Path(config.folder or ("runs/benchmarks-quick" if config.quick else "runs/benchmarks"))
    out = (
        Path(config.out)
        if config.out
        else folder / "results.md"
        if config.quick
        else Path(__file__).with_name("results.md")
    )
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [part for part in PARTS if (part.name in config.only if config.only else config.long or not part.long)]
    failed: dict[str, str] = {}
    for part in [] if config.stored else chosen:
        reason = run_part(part, folder, config.quick)
        if reason is not None:
            failed[part.name] = reason
    stored = {name: json.loads(path.read_text()) for name in names if (path := folder / f"{name}.json").exists()}
    if not stored and not failed:
        raise SystemExit(f"{folder}: no figures of any part")
    figure = None
    if "growth" in stored:
        from benchmarks.growth_figure import draw

        figure = "growth.svg"
        draw(stored["growth"]["curves"]).savefig(out.with_name(figure), metadata={"Date": None})
    out.write_text(page(stored, failed, figure))
    print(f"{out}: {len(stored)} parts" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
