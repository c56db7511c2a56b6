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
