"""Where rows are from: JSON lines in a folder, or a data set of a hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

Row = Mapping[str, Any]


def data_folder() -> Path | None:
    """Where the domains' files are, by the environment variable COWEST_DATA; None where unset."""
    chosen = os.environ.get("COWEST_DATA")
    return Path(chosen).expanduser() if chosen else None


def jsonl_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; blank lines are none."""
    rows: list[Row] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                rows.append(cast(Row, json.loads(line)))
            except json.JSONDecodeError as error:
                said = f"not JSON: {error.msg} at column {error.colno}"
                raise ValueError(f"{path}, line {number}: {said}") from None
    return rows


def hub_rows(source: str, split: str) -> list[Row]:
    """The rows of "OWNER/NAME", ":CONFIG", "@SPLIT"; class numbers become class names."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{source} is on a hub, and `datasets` is not installed; install cowest-graph[train]"
        ) from error
    named, _, chosen = source.partition("@")
    # A folder of this machine may have a colon in it; a hub's name has an owner and one slash.
    name, _, config = (named, "", "") if Path(named).exists() else named.partition(":")
    table = datasets.load_dataset(name, config or None, split=chosen or split)
    classes = {
        column: feature.names
        for column, feature in table.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return [_named(row, classes) for row in table]


def _named(row: Row, classes: Mapping[str, Sequence[str]]) -> Row:
    """The row with class numbers as names; -1 is a hub's way of giving no label."""
    names = {c: names[row[c]] if row[c] >= 0 else None for c, names in classes.items()}
    return {**row, **names}
