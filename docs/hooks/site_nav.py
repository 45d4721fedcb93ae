"""Sections of the navigation that are filled when the site is built."""

from collections.abc import Iterator, Sequence
from typing import Any


def fill(nav: list[Any], title: str, pages: Sequence[Any]) -> None:
    """Put ``pages`` into the section called ``title``, wherever it is; one that is missing is a ``KeyError``."""
    for section in _sections(nav):
        if title in section:
            section[title] = list(pages)
            return
    raise KeyError(f"mkdocs.yml: nav must have a section {title!r}")


def paths(nav: Any) -> Iterator[str]:
    """Every page that the navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from paths(each)


def _sections(nav: list[Any]) -> Iterator[dict[str, Any]]:
    for each in nav:
        if isinstance(each, dict):
            yield each
            for inside in each.values():
                yield from _sections(inside) if isinstance(inside, list) else ()
