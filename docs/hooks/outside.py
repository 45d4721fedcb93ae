"""Pages of the site that are kept elsewhere in the repository, such as ``benchmarks/README.md``, and links to them.

The site is the folder ``docs`` laid over the root of the repository. Links are written as they hold in the repository,
so that they work on a page of the repository as well; here they are turned into those of the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from site_nav import paths

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)#\s:]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the navigation that are outside ``docs``, and their pictures."""
    for path in paths(config.nav):
        if not (ROOT / "docs" / path).exists() and (ROOT / path).exists():
            _add(files, config, path)
            for picture in _IMAGE.findall((ROOT / path).read_text()):
                found = posixpath.normpath(posixpath.join(posixpath.dirname(path), picture))
                if not found.startswith("docs/"):
                    _add(files, config, found)
    return files


def _add(files: Any, config: Any, path: str) -> None:
    files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that hold in the repository into links of the site."""
    here = page.file.src_uri
    if (ROOT / "docs" / here).exists():
        home = f"docs/{here}"
    elif (ROOT / here).exists():
        home = here
    else:  # Made by the build, with links of the site.
        return markdown

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(home), link[1]))
        if ":" in link[1] or not (ROOT / target).exists():
            return link[0]
        site = target.removeprefix("docs/") + ("/index.md" if (ROOT / target).is_dir() else "")
        return f"]({posixpath.relpath(site, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return _LINK.sub(moved, markdown)
