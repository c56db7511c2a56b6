"""Options that several verbs have. Knows no verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; cowest.toml by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out malformed rows and report them.")
]

_FIELDS = "Fields of the rows"
QueryField = Annotated[
    str | None,
    typer.Option("--query-field", help="What the file calls `query`.", rich_help_panel=_FIELDS),
]
ReferenceField = Annotated[
    str | None,
    typer.Option("--reference-field", help="What it calls `reference`.", rich_help_panel=_FIELDS),
]
ExplanationField = Annotated[
    str | None,
    typer.Option(
        "--explanation-field", help="What it calls `explanation`.", rich_help_panel=_FIELDS
    ),
]


def fields_of(
    query: str | None, reference: str | None, explanation: str | None
) -> dict[str, str | None]:
    """The file's names by ours."""
    return {"query": query, "reference": reference, "explanation": explanation}
