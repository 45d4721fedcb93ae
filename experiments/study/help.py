"""The options as ``--help`` shows them: a dataclass for tyro whose names read well and whose texts fit lines of any
width.

tyro takes the docstring below a field as its help text with every line break of the source, and names options after
fields alone. What it reads is therefore a copy of the dataclass of options, made by ``shown``; what it returns becomes
an instance of the original by ``restored``.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from typing import Annotated, Any, get_type_hints

import tyro

from experiments.study.options import named_twice


def shown(kind: Any, default: Any = None, inside: str = "", about: str = "") -> Any:
    """A frozen dataclass with the fields of ``kind``, for tyro: help texts unwrapped, nested dataclasses copied, too.

    Args:
        kind: a dataclass of options.
        default: an instance, whose values are the defaults; None for those of the fields.
        inside: the field that holds it, if any. A dataclass that would be named twice (see ``as_typed``) gives its
            options and its description to the one that holds it.
        about: its description; by default the docstring of ``kind``.
    """
    hints, texts = get_type_hints(kind, include_extras=True), help_texts(kind)
    descriptions = [about or unwrapped(kind.__doc__ or "")]
    fields: list[tuple[str, Any, Any]] = []
    for field in dataclasses.fields(kind):
        hint, value = hints[field.name], value_of(field, default)
        if dataclasses.is_dataclass(value):
            hint = shown(type(value), value, field.name, texts.get(field.name, ""))
            value = hint()
            if named_twice(inside, field.name):
                descriptions.append(hint.__doc__)
                hint = Annotated[hint, tyro.conf.arg(name="")]
        elif field.name in texts:
            hint = Annotated[hint, tyro.conf.arg(help=texts[field.name])]
        fields.append((field.name, hint, dataclasses.field(default=value)))
    made = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
    made.__doc__ = " ".join(descriptions)
    return made


def restored(read: Any, kind: Any, default: Any = None) -> Any:
    """The instance of ``kind`` with the values of ``read``, an instance of ``shown(kind, default)``."""
    values = {}
    for field in dataclasses.fields(kind):
        value, original = getattr(read, field.name), value_of(field, default)
        nested = dataclasses.is_dataclass(original)
        values[field.name] = restored(value, type(original), original) if nested else value
    return kind(**values)


def value_of(field: dataclasses.Field[Any], default: Any = None) -> Any:
    """The value of a field in the instance ``default``; without one its own default, or ``dataclasses.MISSING``."""
    if default is not None:
        return getattr(default, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def help_texts(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a class and of its bases, by field, ``unwrapped``."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        except (OSError, TypeError):  # Built in, or made without source.
            continue
        assert isinstance(tree, ast.ClassDef)
        for field, text in itertools.pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = unwrapped(ast.literal_eval(text.value))
    return found


def unwrapped(text: str) -> str:
    """A docstring for a terminal: each paragraph in one line, without the marks of code."""
    paragraphs = re.split(r"\n\s*\n", text.replace("``", "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
