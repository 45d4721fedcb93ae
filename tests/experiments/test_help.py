"""Help texts of every command: lines that fill the width, whole words, and names as they are typed."""

import contextlib
import dataclasses
import importlib
import io
import itertools
import re

import pytest

from dgu.core.errors import InputError
from experiments import metrics, model_card
from experiments.study import pages
from experiments.study.arguments import option_types, parse, parse_alone, refuse_renamed
from experiments.study.guide import Guide
from experiments.study.help import help_texts, restored, shown, unwrapped
from experiments.study.options import Options, as_typed, option

STUDIES = ("universality", "concentration", "hidden_gaussian", "generalization", "molrg", "audit", "explain")
WITH_PRESETS = (*STUDIES, "train", "sample")
ALONE = {"metrics": metrics, "model_card": model_card, "study.pages": pages}
#: Options that every command has, or that belong to other commands than the one whose help names them.
COMMON = {"--preset", "--out", "--dry-run", "--report-only"}
OF_OTHERS = {("train", "--checkpoint"), ("universality", "--checkpoint")}


def module_of(name):
    return ALONE[name] if name in ALONE else importlib.import_module(f"experiments.{name}")


def default_of(name):
    """The default options of a command, or their dataclass where some have no default."""
    module = module_of(name)
    if name in ALONE:
        return module.Config
    return (module.STUDY.presets if name in STUDIES else module.PRESETS)["default"]


def printed(name, width, monkeypatch, asked="--help-all"):
    """What the help prints on a terminal of ``width`` columns."""
    monkeypatch.setenv("COLUMNS", str(width))
    module, page = module_of(name), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(page), pytest.raises(SystemExit) as end:
        (module.STUDY.main if name in STUDIES else module.main)([asked])
    assert end.value.code == 0
    page.seek(0)
    return page.read()


def texts(page):
    """The texts in a page of help: (lines, columns that they may take)."""
    head, *boxes = re.split(r"^╭.*╮$", page.partition("\nexamples:")[0], flags=re.M)
    width = max(map(len, page.splitlines()))
    yield [line.strip() for line in head.splitlines()[2:] if line.strip()], None
    for box in boxes:
        rows = [line[2:-2].rstrip() for line in box.splitlines() if line.startswith("│")]
        rule = next((place for place, row in enumerate(rows) if set(row) == {"─"}), None)
        if rule is not None:
            yield rows[:rule], width - 4
            rows = rows[rule + 1 :]
        # Where texts begin: on lines of their own, or else beside the options.
        own = [re.match(" +", row).end() for row in rows if row.startswith(" ")]
        indent = min(own) if own else re.match("-.*?  +", rows[0]).end()
        entries = []
        for row in rows:
            if row.startswith("-"):
                entries.append([])
            if row[indent - 2 : indent] == "  " and row[indent:]:
                entries[-1].append(row[indent:])
        yield from ((entry, width - 4 - indent) for entry in entries)


@pytest.mark.parametrize("width", [80, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*WITH_PRESETS, *ALONE])
def test_lines_of_help_end_only_where_the_next_word_would_not_fit(name, width, monkeypatch):
    page = printed(name, width, monkeypatch)
    assert max(map(len, page.splitlines())) <= width and "``" not in page
    breaks = 0
    for lines, columns in texts(page):
        for line, below in itertools.pairwise(lines):
            # The description stands free, its further lines indented by two.
            room = columns or width - 2
            assert len(line) + 1 + len(below.split()[0]) > room - 1, (line, below)
            breaks += 1
    assert breaks or name == "study.pages"


def fields(kind, default, path=""):
    """(path, dataclass that has it, value) of every field."""
    for field in dataclasses.fields(kind):
        value = getattr(default, field.name, dataclasses.MISSING)
        yield f"{path}{field.name}", kind, value
        if dataclasses.is_dataclass(value):
            yield from fields(type(value), value, f"{path}{field.name}.")


@pytest.mark.parametrize("name", [*WITH_PRESETS, *ALONE])
def test_help_names_options_as_they_are_typed_and_explains_each(name, monkeypatch):
    default = default_of(name)
    kind = default if name in ALONE else type(default)
    every = list(fields(kind, default))
    leaves = [path for path, _, value in every if not dataclasses.is_dataclass(value)]
    typed = {as_typed(path) for path in leaves}
    assert len(typed) == len(leaves)
    groups = {one.rpartition(".")[0] for one in typed}
    internal = {path for path, *_ in every} | {path.split(".")[-1] for path, *_ in every}
    internal = {path for path in internal if re.search(r"[._]", path.rstrip("_"))}
    page = printed(name, 120, monkeypatch)
    told = [re.sub(r"\((default: .*|required)\)$", "", " ".join(lines)) for lines, _ in texts(page)]
    assert len(told) > len(leaves) and all(told)
    for text in told:
        words = re.findall(r"(?<![\w.-])[a-z]\w*(?:\.\w+)*", text)
        assert not internal & set(words), text
        for named in re.findall(r"(?<!\w)--[a-z][\w.-]*\w", text):
            assert named in typed | groups | COMMON or (name, named) in OF_OTHERS, text
    for one in typed:
        *outer, _ = one[2:].split(".")
        assert all(b not in (a, a.removesuffix("s")) for a, b in itertools.pairwise(outer)), one
        assert f"│ {one} " in page or f"│ {one}," in page, one


@pytest.mark.parametrize("name", WITH_PRESETS)
def test_the_short_help_explains_a_few_options_and_names_all_others(name, monkeypatch):
    """And the options that it explains first, those of the examples, too, are options of the command."""
    module = module_of(name)
    guide = module.STUDY.guide if name in STUDIES else module.GUIDE
    every = option_types(default_of(name))
    page = printed(name, 80, monkeypatch, "--help")
    assert max(map(len, page.splitlines())) <= 80 and "--help-all explains" in page
    boxes, rest = page.split("more options, ")
    explained = set(re.findall(r"^│ (--[\w.-]+)", boxes, flags=re.M))
    assert set(guide.first) <= explained & every.keys() and 8 <= len(explained) <= 13
    groups = {prefix: int(count) for prefix, count in re.findall(r"^  (--[\w-]+)\.\* \((\d+)\)", rest, flags=re.M)}
    for one in every:
        outer = one.partition(".")[0] if "." in one else None
        assert one in explained or outer in groups or re.search(rf"{one}\b", rest), one
    for prefix, count in groups.items():
        assert count == sum(one.startswith(f"{prefix}.") for one in every), prefix
    assert len(guide.examples) >= 2
    presets = module.STUDY.presets if name in STUDIES else module.PRESETS
    offered = ("recompile", "dry_run", "probe", "report_only")
    for example in guide.examples:
        assert " ".join(page.replace("\\\n", " ").split()).count(f"experiments.{name} {example} ") == 1
        parse(presets, example.split(), name=name, description="", offered=offered, guide=guide)


@pytest.mark.parametrize("name", ["metrics", "model_card"])
def test_commands_with_few_options_explain_them_all_and_have_examples(name, monkeypatch):
    module = module_of(name)
    page = printed(name, 80, monkeypatch, "-h")
    assert page == printed(name, 80, monkeypatch) and "more options" not in page
    for example in module.GUIDE.examples:
        parse_alone(module.Config, example.split(), name=name)


def test_a_study_without_a_guide_explains_all(capsys):
    presets = {"default": Outer()}
    with pytest.raises(SystemExit):
        parse(presets, ["--help"], name="plain", description="What?")
    short = capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(presets, ["--help-all"], name="plain", description="What?")
    assert short == capsys.readouterr().out and "--inners.count" in short
    with pytest.raises(SystemExit):
        parse(presets, ["--size", "2", "-h"], name="plain", description="What?", guide=Guide(("--size",)))
    short = capsys.readouterr().out
    assert "--size INT" in short and "--inners.count" not in short and "--seed INT" in short
    assert short.endswith("--help-all explains:\n  --log\n  --inners.* (2)  Said of the field.\n")


@pytest.mark.parametrize("name", WITH_PRESETS)
def test_what_tyro_reads_has_every_preset(name):
    module = module_of(name)
    for preset in (module.STUDY.presets if name in STUDIES else module.PRESETS).values():
        again = restored(shown(type(preset), preset)(), type(preset), preset)
        assert again == preset and type(again) is type(preset)


@pytest.mark.parametrize(
    ("study", "old", "new"),
    [
        ("universality", "--training.training.batch-size", "--training.batch-size"),
        ("universality", "--training.training.seed=1", "--training.seed"),
        ("hidden_gaussian", "--networks.network.no-remat", "--networks.no-remat"),
    ],
)
def test_options_that_were_named_twice_are_refused_with_their_names_of_today(study, old, new, capsys):
    with pytest.raises(SystemExit) as end:
        module_of(study).STUDY.main([old, "5"])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"{study}: {old.split('=')[0]}: is called {new} now\n"
    assert new.replace(".no-", ".") in option_types(default_of(study))


def test_groups_are_renamed_by_whole_words():
    renamed = {"--old": "--new.old", "--part.old": "--part"}
    for typed, line in (("--old", "--new.old"), ("--old.seed", "--new.old.seed"), ("--part.old.no-x", "--part.no-x")):
        with pytest.raises(InputError, match=rf"^{typed}: is called {line} now$"):
            refuse_renamed([typed, "3"], renamed)
    refuse_renamed(["--older", "3", "--part.older", "--other.old"], renamed)


@dataclasses.dataclass(frozen=True)
class Inner(Options):
    """The inner
    ones."""

    count: int = option(3, ge=1)
    """How many
    of them: ``count`` of all,

    in two paragraphs.
    """
    bare: int = 4


@dataclasses.dataclass(frozen=True)
class Base(Options):
    seed: int = 0
    """A seed
    of all."""


@dataclasses.dataclass(frozen=True)
class Outer(Base):
    """The outer ones."""

    size: int = 1
    """A size."""
    inners: Inner = dataclasses.field(default_factory=Inner)
    """Said of
    the field."""


def test_docstrings_are_read_of_all_bases_and_unwrapped():
    assert help_texts(Outer) == {"seed": "A seed of all.", "size": "A size.", "inners": "Said of the field."}
    assert help_texts(Inner) == {"count": "How many of them: count of all,\n\nin two paragraphs."}
    assert unwrapped("  a\n  b  \n \n c") == "a b\n\nc"
    made = shown(Outer)
    assert made.__doc__ == "The outer ones." and [field.name for field in dataclasses.fields(made)] == [
        *("seed", "size", "inners"),
    ]
    assert made().inners.__doc__ == "Said of the field." and not isinstance(made(), Options)
    assert restored(dataclasses.replace(made(), size=7), Outer) == Outer(size=7)
    assert shown(Inner).__doc__ == "The inner ones."


def test_a_dataclass_is_not_named_twice():
    for name, typed in (
        ("training.training.seed", "--training.seed"),
        ("networks.network.drop_out", "--networks.drop-out"),
        ("autoencoders.networks", "--autoencoders.networks"),
        ("images.images", "--images.images"),
        ("a.b.b.b.c", "--a.b.c"),
        ("class_", "--class"),
    ):
        assert as_typed(name) == typed
