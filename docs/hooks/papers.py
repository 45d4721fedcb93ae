"""The pages of the papers and the list of the pages of results, made from what the studies declare and have stored."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from site_nav import fill

from experiments.study import paper_pages

DOCS = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and fill the sections Papers and Results of the navigation."""
    pages = paper_pages.pages(DOCS)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    fill(config.nav, "Papers", [path for path in pages if path.startswith("papers/")])
    results = sorted(file.stem for file in (DOCS / "results").glob("*.md"))
    fill(config.nav, "Results", ["results/index.md", *({name: f"results/{name}.md"} for name in results)])
    return files
