"""What the studies ask, read from their source without loading any of them, which would take seconds."""

import ast
from pathlib import Path

#: The folder of the studies.
HOME = Path(__file__).parents[1]


def questions(home: Path = HOME) -> dict[str, str]:
    """What each study asks, by the name of its package: the ``question`` of ``STUDY = Study(...)`` in its
    ``__init__.py``.
    """
    found = {file.parent.name: _question(file) for file in sorted(home.glob("*/__init__.py"))}
    return {name: question for name, question in found.items() if question}


def _question(file: Path) -> str:
    """The question of the study that a file declares; empty where it declares none."""
    for node in ast.parse(file.read_bytes()).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if any(isinstance(target, ast.Name) and target.id == "STUDY" for target in node.targets):
            given = {keyword.arg: keyword.value for keyword in node.value.keywords}
            third = node.value.args[2] if len(node.value.args) > 2 else None
            question = given.get("question", third)
            return question.value if isinstance(question, ast.Constant) and isinstance(question.value, str) else ""
    return ""
