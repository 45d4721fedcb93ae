"""What a package index shows of the README leads to no file that is not there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def build():
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_of_the_repository_become_their_texts(build):
    text = "See [docs/a.md](docs/a.md), [a](https://b.org) and [c](#c).\n\n![A picture](docs/p.png)\n\nBelow.\n"
    assert build.standing_alone(text) == "See docs/a.md, [a](https://b.org) and [c](#c).\n\nBelow.\n"


def test_the_readme_stands_alone_and_says_the_same(build):
    text = (ROOT / "README.md").read_text()
    found = build.standing_alone(text)
    assert not re.findall(r"\]\((?!https?:|#)", found) and re.findall(r"\]\((?!https?:|#)", text)
    for kept in (r"```.*?```", r"^#.*$", r"^\|.*\|$"):
        flags = re.DOTALL if "`" in kept else re.MULTILINE
        assert len(re.findall(kept, found, flags)) == len(re.findall(kept, text, flags))
    blocks = re.findall(r"```.*?```", text, re.DOTALL)
    assert blocks and re.findall(r"```.*?```", found, re.DOTALL) == blocks
