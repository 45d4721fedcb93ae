"""The worked examples of the documentation run as they are printed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dgu.core.errors import InputError

ROOT = Path(__file__).parents[1]


def blocks(page):
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


#: Pages whose blocks run one after the other as one script, without more than that to test.
SCRIPTS = ("../README.md", "concepts.md", "using.md")
#: Pages whose blocks are run by tests of their own, here and in ``test_readme_examples.py``.
OTHERS = ("adding-a-denoiser.md", "adding-a-study.md", "gradients.md", "guidance.md", "pretrained.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", SCRIPTS)
def test_the_blocks_of_a_page_run(page):
    exec(compile("\n".join(blocks(page)), page, "exec"), {})


def test_every_page_with_code_is_run():
    files = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
    with_code = {file for file in files if "```python\n" in file.read_text()}
    assert with_code == {(ROOT / "docs" / page).resolve() for page in (*SCRIPTS, *OTHERS)}


def test_notebooks_end_with_a_check_that_can_fail():
    """They are run where the site is built; here only that each asserts something at its end, and compiles."""
    files = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
    assert len(files) == 5
    for file in files:
        text = file.read_text()
        compile(text, file.name, "exec")
        assert "assert " in text.rpartition("# %%")[2], file.name


def test_adding_a_denoiser():
    names: dict = {}
    exec(compile("\n".join(blocks("adding-a-denoiser.md")), "adding-a-denoiser.md", "exec"), names)
    with pytest.raises(AssertionError, match="the denoiser fails"):
        names["check_denoiser"](lambda x, sigma: x[:1], (8, 8, 1), names["jax"].random.key(1))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The package of the worked study, written where ``experiments`` is looked for, and its files."""
    files = {}
    for block in blocks("adding-a-study.md"):
        name, code = re.match(r"# (\S+)\n(.*)", block, re.DOTALL).groups()
        files[name] = code
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    import experiments

    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path / "experiments")])
    yield files
    sys.modules.pop("experiments.images_needed", None)


def test_adding_a_study(study, tmp_path, capsys):
    package = {name: code for name, code in study.items() if name.startswith("experiments/")}
    assert sum(len(code.strip().splitlines()) for code in package.values()) <= 90
    names: dict = {}
    exec(compile(study["tests/experiments/test_images_needed.py"], "test_images_needed.py", "exec"), names)
    names["test_smoke_run_and_its_report"](tmp_path, capsys)
    run = tmp_path / "run"
    assert sorted(file.name for file in (run / "figures").iterdir()) == [
        *("denoised.pdf", "denoised.png", "errors.pdf", "errors.png"),
    ]

    from experiments.images_needed import STUDY, Config

    from experiments.study.listing import figures

    assert [made.name for made in figures(STUDY)] == [
        "images_needed/figures/errors.png",
        "images_needed/figures/denoised.png",
    ]
    with pytest.raises(InputError, match=r"fit\.sigma = 0\.0"):
        Config(sigma=0.0)
    before = json.loads((run / "claims.json").read_text())
    (run / "report.html").write_text((run / "report.html").read_text().replace("Images needed", "Nothing"))
    STUDY.main(["--preset", "smoke", "--out", str(run), "--report-only"])
    assert "Images needed" in (run / "report.html").read_text()
    assert json.loads((run / "claims.json").read_text()) == before
    STUDY.main(["--dry-run"])
    assert "15,000" in capsys.readouterr().out


def test_the_shell_commands_of_the_readme_name_what_exists():
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "using.md").read_text()
    modules = set(re.findall(r"python -m (experiments\.\w+|dgu\.models\.\w+)", text))
    assert {"experiments.universality", "experiments.audit", "dgu.models.edm_import"} <= modules
    for module in modules - {"experiments.NAME"}:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0


def test_the_numbers_on_guidance_are_those_of_the_code(capsys):
    """And the point of the page: above weight 1 the guided law is not the product of powers."""
    text = (ROOT / "docs" / "guidance.md").read_text()
    exec(compile("\n".join(blocks("guidance.md")), "guidance.md", "exec"), {})
    table, claim = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == table + claim and claim.endswith(": supported\n")
    guided, product = (
        [float(line.split()[column].rstrip(",")) for line in table.splitlines()[1:]] for column in (2, 4)
    )
    assert guided[0] == pytest.approx(product[0], abs=1e-3) and all(
        ours < other - 0.02 for ours, other in zip(guided[1:], product[1:])
    )


def test_the_numbers_on_flow_maps_are_those_of_the_code_and_of_the_closed_forms(capsys):
    """Of a Gaussian: all 0 of the posterior mean, and of the flow map what the page's table says."""
    text = (ROOT / "docs" / "pretrained.md").read_text()
    names: dict = {}
    exec(compile("\n".join(blocks("pretrained.md")), "pretrained.md", "exec"), names)
    _, printed = re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    number = re.compile(r"-?\d+\.?\d*")
    shown, made = (
        [[float(found) for found in number.findall(line)] for line in page.splitlines() if "sigma" not in line]
        for page in (printed, capsys.readouterr().out)
    )
    assert np.shape(made) == (8, 7)
    np.testing.assert_allclose(made, shown, atol=0.011, rtol=1e-3)
    sigma, variance = np.asarray(made)[:4, 0], names["variance"]
    scale = np.sqrt(variance / (variance + sigma**2))
    expected = np.zeros((2, 4)), np.stack([scale - 1, 1 - sigma**2 * scale / (2 * variance * (1 - scale))])
    for measured, exact in zip(np.asarray(made).reshape(2, 4, 7), expected):
        values, low, high = measured[:, [1, 4]].T, measured[:, [2, 5]].T, measured[:, [3, 6]].T
        # Intervals are 4 standard errors wide; twice that, and the rounding to two decimals.
        assert (np.abs(values - exact) < (high - low) + 0.01).all()
