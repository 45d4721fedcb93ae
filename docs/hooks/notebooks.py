"""Notebooks: Python files of cells in ``docs/notebooks``, run when the site is built: each gives a page and an .ipynb.

What a notebook gave is kept in ``build/notebooks`` under a digest of it and of all code of dgu and the studies, so that
it runs again only where one of these changed. A cell that raises, such as the check at a notebook's end, stops the
build. ``DGU_DOCS_NOTEBOOKS=no`` in the environment leaves the cells unrun, for quick looks at the other pages.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.structure.files import File
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from site_nav import fill

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "notebooks"
#: Longest that one cell may take, in seconds: on an idle machine a whole notebook takes at most three minutes.
_CELL = 1800
log = logging.getLogger("mkdocs.plugins.notebooks")


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, its pictures and the notebook itself, and fill the section of the navigation."""
    pages, sources = [], sorted((ROOT / "docs" / "notebooks").glob("*.py"))
    with ThreadPoolExecutor(2) as pool:  # Each compiles for much of its time, on one core.
        notebooks = list(pool.map(executed, sources))
    exporter = MarkdownExporter(preprocessors=[CoalesceStreamsPreprocessor])  # Progress bars as they ended.
    for source, notebook in zip(sources, notebooks):
        text, pictures = exporter.from_notebook_node(notebook)
        for name, content in pictures["outputs"].items():
            files.append(File.generated(config, f"notebooks/{source.stem}_{name}", content=content))
            text = text.replace(f"]({name})", f"]({source.stem}_{name})")
        title, _, rest = text.lstrip().partition("\n")
        text = f"{title}\n\n[This page as a notebook]({source.stem}.ipynb), with what its cells gave.\n{rest}"
        files.append(File.generated(config, f"notebooks/{source.stem}.md", content=text))
        files.append(File.generated(config, f"notebooks/{source.stem}.ipynb", content=nbformat.writes(notebook)))
        pages.append(f"notebooks/{source.stem}.md")
    fill(config.nav, "Notebooks", pages)
    return files


def executed(source: Path) -> Any:
    """The notebook of a file of cells, with the outputs of its cells."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    if os.environ.get("DGU_DOCS_NOTEBOOKS") == "no":
        return notebook
    kept = KEPT / f"{source.stem}-{_digest(source)}.ipynb"
    if not kept.exists():
        started = time.monotonic()
        folder = KEPT / source.stem
        shutil.rmtree(folder, ignore_errors=True)  # Finished runs of studies would be read back.
        folder.mkdir(parents=True)
        NotebookClient(notebook, timeout=_CELL, resources={"metadata": {"path": str(folder)}}).execute()
        log.info("%s: run in %.0f s", source.name, time.monotonic() - started)
        for old in KEPT.glob(f"{source.stem}-*.ipynb"):
            old.unlink()
        kept.write_text(nbformat.writes(notebook))
    return nbformat.read(kept, as_version=4)


def _digest(source: Path) -> str:
    code = [source, *sorted((ROOT / "dgu").rglob("*.py")), *sorted((ROOT / "experiments").rglob("*.py"))]
    return hashlib.sha256(json.dumps([file.read_text() for file in code]).encode()).hexdigest()[:16]
