"""Options that several verbs have. Knows no verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; cowest.toml by default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out malformed rows and report them.")
]
ByEvaluator = Annotated[
    str | None, typer.Option(help="Use only traces that this evaluator scored.")
]
StaleToo = Annotated[
    bool, typer.Option("--stale", help="Use traces from before a drift of the strong model, too.")
]

_DOMAIN = "Domain in place of files"
DomainName = Annotated[
    str | None,
    typer.Option(
        "--domain",
        help="Domain as `module:attribute`: its data, prompts and metric, where neither an option "
        "nor the configuration names others.",
        rich_help_panel=_DOMAIN,
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder with its files; also COWEST_DATA.", rich_help_panel=_DOMAIN
    ),
]
HeldOutSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Split of it that is held out, never trained on; dev by default.",
        rich_help_panel=_DOMAIN,
    ),
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

_ENGINE = "Several machines"
EngineName = Annotated[
    Literal["local", "ray"],
    typer.Option(
        "--engine",
        help="Place to run: local (this process), or ray (workers on a cluster, by RAY_ADDRESS).",
        rich_help_panel=_ENGINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="On Ray; by default one a machine.", rich_help_panel=_ENGINE
    ),
]
WorkerGPUs = Annotated[
    float,
    typer.Option(
        "--gpus",
        min=0.0,
        help="GPUs of each worker, where its weak model runs in it.",
        rich_help_panel=_ENGINE,
    ),
]


def fields_of(
    query: str | None, reference: str | None, explanation: str | None
) -> dict[str, str | None]:
    """The file's names by ours."""
    return {"query": query, "reference": reference, "explanation": explanation}
