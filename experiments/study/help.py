"""The options as ``--help`` shows them: a dataclass for tyro whose names read well and whose texts fit lines of any
width.

tyro takes the docstring below a field as its help text with every line break of the source, and names options after
fields alone. What it reads is therefore a copy of the dataclass of options, made by ``shown``; what it returns becomes
an instance of the original by ``restored``.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, get_type_hints

import tyro

from experiments.study.options import as_typed, named_twice


def shown(
    kind: Any,
    default: Any = None,
    path: str = "",
    about: str = "",
    explained: Callable[[str], bool] = lambda option: True,
) -> Any:
    """A frozen dataclass with the fields of ``kind``, for tyro: help texts unwrapped, nested dataclasses copied, too.

    Args:
        kind: a dataclass of options.
        default: an instance, whose values are the defaults; None for those of the fields.
        path: the fields that hold it, if any, such as ``"training"``. A dataclass that would be named twice (see
            ``as_typed``) gives its options and its description to the one that holds it.
        about: its description; by default the docstring of ``kind``.
        explained: whether an option, as it is typed, has a place in the help; the others are left out.
    """
    hints, texts = get_type_hints(kind, include_extras=True), help_texts(kind)
    descriptions = [about or unwrapped(kind.__doc__ or "")]
    fields: list[tuple[str, Any, Any]] = []
    inside = path.rpartition(".")[2]
    for field in dataclasses.fields(kind):
        hint, value = hints[field.name], value_of(field, default)
        name = f"{path}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(value):
            hint = shown(type(value), value, name, texts.get(field.name, ""), explained)
            if not dataclasses.fields(hint):
                continue
            value = hint()
            twice = named_twice(inside, field.name)
            descriptions += [hint.__doc__] * twice
            # Without the text tyro would look for one in the source of the copy, which takes long and finds none.
            hint = Annotated[hint, tyro.conf.arg(name="" if twice else None, help=hint.__doc__)]
        elif not explained(as_typed(name)):
            continue
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
    """The docstrings below the fields of a dataclass and of its bases, by field, ``unwrapped``."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if "__dataclass_fields__" in vars(owner):
            found |= _texts_below_fields(owner.__module__).get(owner.__qualname__, {})
    return found


@functools.cache
def _texts_below_fields(module: str) -> dict[str, dict[str, str]]:
    """Of every class of a module the docstrings below its fields. ``inspect.getsource`` of a class would parse the
    module again for each.
    """
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):  # Built in, or made without source.
        return {}
    return {
        name: {
            field.target.id: unwrapped(ast.literal_eval(text.value))
            for field, text in itertools.pairwise(body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
        }
        for name, body in _classes(ast.parse(source).body)
    }


def _classes(body: Sequence[ast.stmt], inside: str = "") -> Iterator[tuple[str, Sequence[ast.stmt]]]:
    """The classes among statements, in other classes, and in functions: qualified name and statements of each."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield inside + node.name, node.body
            yield from _classes(node.body, f"{inside}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield from _classes(node.body, f"{inside}{node.name}.<locals>.")


def unwrapped(text: str) -> str:
    """A docstring for a terminal: each paragraph in one line, without the marks of code."""
    paragraphs = re.split(r"\n\s*\n", text.replace("``", "").strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
