"""What a report may not say: numbers of the default configuration in statements of a run with another one."""

import dataclasses
import html
import json
import re

#: Smaller numbers occur in statements for other reasons (thresholds, orders of moments, degrees of freedom).
LEAST = 20


def numbers(value):
    """All numbers of a configuration, nested ones too."""
    if dataclasses.is_dataclass(value):
        return set().union(*(numbers(getattr(value, field.name)) for field in dataclasses.fields(value)), set())
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, (tuple, list)):
        return set().union(*map(numbers, value), set())
    return {float(value)} if isinstance(value, (int, float)) and not isinstance(value, bool) else set()


def statements(out):
    """Statements of all claims and parts, and captions of the figures, of a run."""
    claims, found = json.loads((out / "claims.json").read_text()), []
    while claims:
        claim = claims.pop()
        claims += claim["parts"]
        found.append((claim["id"], claim["statement"]))
    page = html.unescape((out / "report.html").read_text())
    return found + [("caption", text) for text in re.findall("<figcaption>(.*?)<code>", page, re.S)]


def check_statements(out, default, constants=()):
    """No statement of a run names a number of ``default`` that its configuration lacks; ``constants`` stand in the
    code.
    """
    ran = json.loads((out / "config.json").read_text())
    foreign = {n for n in numbers(default) - numbers(ran) if n >= LEAST} - {float(n) for n in constants}
    assert foreign, "the two configurations must differ"
    for name, text in statements(out):
        # Of figures of the papers the numbers are names.
        said = re.sub(r"\b(Figs?|Table|Section|equation|arXiv)\.? [\d., and]+", "", text).replace(",", "")
        survived = {float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", said)} & foreign
        assert not survived, (name, survived, text)
        assert "all data there are" not in text
    assert "all data there are" not in (out / "claims.json").read_text()


def exact_claims(out):
    """Identifiers of the claims, parts among them, that are marked as exact."""
    claims, found = json.loads((out / "claims.json").read_text()), set()
    while claims:
        claim = claims.pop()
        claims += claim["parts"]
        if claim["exact"] and not claim["parts"]:
            found.add(claim["id"])
    return found
