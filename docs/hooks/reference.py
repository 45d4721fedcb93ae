"""The reference: a page for each package of dgu, of every name that it makes public, from the docstrings.

The names are those that a package's ``__init__.py``, or a module of public names such as ``dgu/keys.py``, imports as
themselves. Each is documented on one page, that of the package that it is defined in; others that offer it link there.
"""

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url
from site_nav import fill

ROOT = Path(__file__).parents[2]
#: Modules beside the packages that hold public names.
_MODULES = ("keys", "parallel", "errors", "checkpoint", "typing")
#: A name in code that may be one of the reference: ``dgu.samplers.sample``, ``samplers.sample``.
_CODE = re.compile(r"<code>((?:dgu\.)?[a-z_]+(?:\.\w+)+|dgu\.denoiser)</code>")


@dataclass(frozen=True)
class Package:
    """A package, or module of public names.

    Attributes:
        name: as it is imported.
        about: its docstring.
        homes: the module that each public name is imported from.
    """

    name: str
    about: str
    homes: dict[str, str]

    @property
    def page(self) -> str:
        return f"api/{self.name}.md"


@functools.cache
def packages() -> dict[str, Package]:
    """Every package with public names, by name."""
    files = [*(ROOT / "dgu").rglob("__init__.py"), *(ROOT / f"dgu/{name}.py" for name in _MODULES)]
    found = [_package(file) for file in files]
    return {each.name: each for each in sorted(found, key=lambda each: each.name) if each.homes}


def _package(file: Path) -> Package:
    tree = ast.parse(file.read_text())
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}
    return Package(name, ast.get_docstring(tree) or "", homes)


def defined(package: Package, name: str) -> str:
    """The path of a name in the module that defines it, followed through packages that hand it on."""
    home = package.homes[name]
    return defined(packages()[home], name) if home in packages() else f"{home}.{name}"


@functools.cache
def owners() -> dict[str, Package]:
    """The package on whose page each defined name is documented."""
    found: dict[str, Package] = {}
    for package in packages().values():
        for name in package.homes:
            path = defined(package, name)
            if path not in found or _shared(path, package) > _shared(path, found[path]):
                found[path] = package
    return found


def _shared(path: str, package: Package) -> int:
    return len(package.name) if path.startswith(f"{package.name}.") else 0


@functools.cache
def _definitions(module: str) -> dict[str, str]:
    """What the module says of each of its names: the first sentence of a docstring, or the comment above a constant."""
    file = ROOT / (module.replace(".", "/") + ".py")
    text = file.read_text()
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            above = node.lineno - 2
            comment: list[str] = []
            while above >= 0 and lines[above].startswith("#:"):
                comment.insert(0, lines[above].removeprefix("#:").strip())
                above -= 1
            if isinstance(target, ast.Name):
                found[target.id] = " ".join(comment)
    return {name: _first_sentence(text) for name, text in found.items()}


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.?!])\s+(?=[A-Z`])", paragraph)[0].removesuffix(":")
    outside_code = [
        part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(sentence.split("``"))
    ]
    return "``".join(outside_code)


def page_of(package: Package) -> str:
    """The page of a package, in Markdown with the directives of mkdocstrings."""
    rows, directives = [], []
    for name in sorted(package.homes, key=str.lower):
        path = defined(package, name)
        module, _, own = path.rpartition(".")
        rows.append(f"| [`{name}`][{path}] | {_definitions(module).get(own, '')} |")
        if owners()[path] is package:
            directives.append(f"::: {path}")
    inside = [each for each in packages().values() if each.name.startswith(f"{package.name}.")]
    links = [f"- [`{each.name}`]({each.name}.md): {_first_sentence(each.about)}" for each in inside]
    parts = [f"# {package.name}", package.about, *(["\n".join(links)] if package.name != "dgu" else [])]
    return "\n\n".join([*parts, "\n".join(["| name | what it is |", "|---|---|", *rows]), *directives]) + "\n"


def _start() -> str:
    rows = [f"| [`{each.name}`]({each.name}.md) | {_first_sentence(each.about)} |" for each in packages().values()]
    text = "Every public name, from its docstring. Import the rooms by name: `from dgu import samplers, models`."
    return "\n".join(["# API", "", text, "", "| package | what is in it |", "|---|---|", *rows, ""])


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, and fill the section API of the navigation."""
    files.append(File.generated(config, "api/index.md", content=_start()))
    for each in packages().values():
        files.append(File.generated(config, each.page, content=page_of(each)))
    fill(config.nav, "API", ["api/index.md", *({each.name: each.page} for each in packages().values())])
    return files


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Make links of public names in code, on every page."""

    def linked(code: re.Match[str]) -> str:
        room, _, name = code[1].removeprefix("dgu.").rpartition(".")
        package = packages().get(f"dgu.{room}" if room else "dgu")
        within = html.rfind("<a ", 0, code.start()) > html.rfind("</a>", 0, code.start())
        if within or package is None or name not in package.homes:
            return code[0]
        path = defined(package, name)
        to = get_relative_url(files.get_file_from_path(owners()[path].page).url, page.url)
        return f'<a href="{to}#{path}">{code[0]}</a>'

    return _CODE.sub(linked, html)
