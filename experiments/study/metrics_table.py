"""``metrics.json`` as a table, for spreadsheets and data frames: a row for each number."""

import csv
import io
from collections.abc import Iterator
from typing import Any


def as_table(metrics: Any) -> str:
    """CSV with the columns ``metric`` and ``value``: a metric is called by its place in the JSON, names and places in
    lists (from 0) with dots between them, such as ``accuracy.gaps.0``; numbers are written in full.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("metric", "value"))
    table.writerows(_rows(metrics, ""))
    return text.getvalue()


def _rows(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        yield name, "" if value is None else value
    else:
        for key, entry in entries:
            yield from _rows(entry, f"{name}.{key}".removeprefix("."))
