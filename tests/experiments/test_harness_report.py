"""The report is one file that needs nothing else, escapes what it shows, and holds the figures themselves."""

import base64
import csv
import dataclasses
import html.parser
import io
import re
import shlex

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.study.arguments import parse
from experiments.study.costs import Cost, cost_table, scaled
from experiments.study.judged import JudgedClaim
from experiments.study.metrics_table import as_table
from experiments.study.provenance import citations, command_of, sources
from experiments.study.report import FigureEntry, Report, Table, write_report
from experiments.study.run_directory import RunDirectory

EVIL = 'a <script>alert("x")</script> & b'


class Page(html.parser.HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = RunDirectory.open(tmp_path_factory.mktemp("report"), {"sampler": {"steps": 18}, "name": EVIL})
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.add_subplot().imshow(np.eye(3))
    directory.save_figure("figures/eye.png", figure)
    directory.stage("draw", lambda: {"x": 1})
    about = dict(paper="concentration", figure="Fig 5", unit="points", note=EVIL)
    claims = [
        JudgedClaim(
            id=f"claim-{word}",
            statement=EVIL,
            value=0.5,
            interval=(low, low + 1),
            kind="at least",
            bounds=(2.0,),
            **about,
        )
        for word, low in (("yes", 3.0), ("no", 0.0), ("open", 1.5))
    ]
    absent = {name: value for name, value in about.items() if name != "note"}
    claims.append(
        JudgedClaim.not_applicable(id="claim-absent", statement=EVIL, why="four epochs are too few", **absent)
    )
    sure = dataclasses.replace(claims[0], id="sure-thing", check=True, holm=None)
    claims[0] = dataclasses.replace(claims[0], p_value=0.002, holm=True, one_network=True, changed=f"it was {EVIL}")
    known = dataclasses.replace(claims[1], id="known-thing", figure="control")
    joined = JudgedClaim.all_of(claims[:2], id="joined", paper="own", figure="", statement="Both.")
    tables = [Table(EVIL, ("n", EVIL), [(196, 0.123456), (EVIL, "x")])]
    figures = [FigureEntry("figures/eye.png", EVIL)]
    cited = (f"dgu {EVIL}", f"Paper {EVIL}. arXiv:2501.00001.")
    terms = {EVIL: f"means {EVIL}"}
    report = Report(
        *(EVIL, f"Answer: {EVIL}", [sure, *claims, known, joined], figures, tables), {}, terms, f"Why {EVIL}?", cited,
        {"concentration": f"Paper {EVIL}."},
    )  # fmt: skip
    directory.write_json("environment.json", {"dgu": EVIL, "devices": "8 x TPU"})
    write_report(directory, report, {"sampler": {"steps": 18}, "name": EVIL}, f"python -m experiments.{EVIL}")
    text = (directory.path / "report.html").read_text()
    return directory, report, text, Page(text)


def test_it_is_self_contained_and_escaped(written):
    _, _, text, page = written
    assert "script" not in page.tags and "link" not in page.tags
    assert EVIL in "".join(page.text) and "<script" not in text
    assert f"Sources: “concentration” is Paper {EVIL}. Figures, tables," in "".join(page.text)
    assert not re.search(r"(https?:)?//[a-z]|@import|url\(", re.sub(r'base64,[^"]*', "", text))
    for name, value in page.attributes:
        assert name not in ("href", "srcset", "onload", "onclick")
        assert name != "src" or value.startswith("data:image/png;base64,")


def test_the_images_in_it_are_the_figures(written):
    directory, _, _, page = written
    (data,) = [value for name, value in page.attributes if name == "src"]
    image = Image.open(io.BytesIO(base64.b64decode(data.split(",")[1])))
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(directory.path / "figures/eye.png")))
    assert image.size == (600, 300)
    assert [value for name, value in page.attributes if name == "width"] == ["260"]
    assert ("alt", EVIL) in page.attributes and "figcaption" in page.tags


def test_verdicts_are_words_and_colours_and_all_sections_are_there(written):
    _, report, text, page = written
    words = "".join(page.text)
    for claim in (*report.claims, *report.claims[-1].parts):
        assert claim.id in words and claim.measured in words and claim.threshold in words
    assert "four epochs are too few" in words
    for verdict in ("supported", "not supported", "undecided", "not applicable"):
        assert f'class="verdict {verdict.replace(" ", "-")}"' in text and verdict in words
        assert f".{verdict.replace(' ', '-')} {{ color:" in text
    for expected in ("sampler.steps", "18", "0.1235", "jax", "cpu", "draw", "total"):
        assert expected in words
    assert "prefers-color-scheme: dark" in text


def test_checks_of_the_program_are_listed_apart(written):
    _, report, _, page = written
    claims, checks = "".join(page.text).split("Checks of the program", 1)
    assert "sure-thing" in checks and "sure-thing" not in claims and "claim-yes" not in checks
    # The joint claim has no p value of its own but that of its one tested part.
    assert "2 of 6 claims test a value that has a random error" in claims
    assert "0.002 H" in claims and f"Changed after its first run: it was {EVIL}" in claims
    assert f"{report.claims[1].measured} ¹" in claims and "¹ The interval is over images" in claims


def test_it_says_what_was_asked_answers_first_and_tells_how_it_was_made(written):
    _, _, text, page = written
    words = "".join(page.text)
    order = [
        *(f"Why {EVIL}?", f"Answer: {EVIL}", f"The study follows: Paper {EVIL}. arXiv:2501.00001.", "Claims"),
        *("What the words mean", f"means {EVIL}", "claim-yes", "Controls", "known-thing", "Checks of the program"),
        *("sure-thing", "Figures", "Tables", "How it was made", f"python -m experiments.{EVIL}"),
        *("Where the run was finished", "8 x TPU", "Where this page was made", "How to cite", f"dgu {EVIL}"),
    ]
    place = 0
    for part in order:
        place = words.index(part, place)
    assert "@media print" in text and text.count("<details") == text.count("</details>") == 3


def test_a_figure_is_a_picture_and_a_vector_drawing_whose_bytes_depend_on_it_alone(written, tmp_path):
    directory, *_ = written
    drawn = (directory.path / "figures/eye.pdf").read_bytes()
    assert drawn.startswith(b"%PDF-") and b"CreationDate" not in drawn
    again = Figure(figsize=(2, 1), dpi=50)
    again.add_subplot().imshow(np.eye(3))
    other = RunDirectory.open(tmp_path / "other", {})
    other.save_figure("figures/eye.png", again)
    assert (other.path / "figures/eye.pdf").read_bytes() == drawn


def test_metrics_are_a_table_too():
    metrics = {"b": {"gap": [0.1, None, {"x": 1 / 3}], "name": 'a, "b"'}, "n": 3, "yes": True, "none": {}, "empty": []}
    rows = list(csv.reader(io.StringIO(as_table(metrics))))
    assert rows == [
        ["metric", "value"],
        *(["b.gap.0", "0.1"], ["b.gap.1", ""], ["b.gap.2.x", repr(1 / 3)], ["b.name", 'a, "b"'], ["n", "3"]),
        ["yes", "True"],
    ]


@dataclasses.dataclass(frozen=True)
class Inner:
    deep: bool = True
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Asked:
    name: str = "a b"
    fast: bool = False
    inner: Inner = Inner()


def test_the_command_in_it_gives_the_options_of_the_run():
    presets = {"default": Asked(), "smoke": Asked(fast=True)}
    assert command_of("fake", "default", Asked(), presets) == "python -m experiments.fake"
    config = Asked("it's", False, Inner(False, (3, 4)))
    line = command_of("fake", "smoke", config, presets)
    start, words = "python -m experiments.fake ", shlex.split(line)
    assert line.startswith(f"{start}--preset smoke --name ")
    parsed = parse(presets, words[3:], name="fake", description="")
    assert parsed.config == config and parsed.preset == "smoke"


def test_the_papers_of_a_study_are_cited():
    own, *papers = citations("universality")
    assert own.startswith("The dgu authors. dgu: ") and [line.split()[-1] for line in papers] == ["arXiv:2501.07741."]
    assert list(citations("audit"))[1:] == []
    assert list(sources(["own", "molrg", "molrg"])) == ["molrg"] and sources(["molrg"])["molrg"].endswith("2409.02426.")


def test_a_missing_figure_is_an_error(written, tmp_path):
    directory = RunDirectory.open(tmp_path, {})
    with pytest.raises(FileNotFoundError):
        write_report(directory, Report("t", "a", [], [FigureEntry("figures/none.png", "c")]), {})
    assert not (tmp_path / "report.html").exists()


def test_cost_table_sums_but_takes_the_largest_memory():
    text = cost_table([Cost("sample", 3500, 1.5e12, 2e9, 5e6), Cost("fit", 0, 5e11, 3e9, 1e6)])
    total = text.splitlines()[5].split("  ")
    assert [cell.strip() for cell in total if cell.strip()] == ["total", "3,500", "2 T", "3 GB", "0 B", "6 MB"]
    assert len({len(line) for line in text.splitlines()[:6]}) == 1
    shown = [scaled(value, "B") for value in (0, 999, 999.7, 12_345, 1e18, 3e21, 3e27)]
    assert shown == ["0 B", "999 B", "1 kB", "12.3 kB", "1 EB", "3 ZB", "3e+03 YB"]
    assert scaled(2e6) == "2 M"
