"""`cowest loop`: options, models from the configuration, what is printed.

Knows options and the configuration. Knows no round and no test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer import console
from trainer.cli.advice import need
from trainer.cli.config import Config
from trainer.cli.context import read_rows, settings_of
from trainer.cli.options import (
    AsJson,
    ConfigFile,
    ExplanationField,
    QueryField,
    ReferenceField,
    SkipBad,
    fields_of,
)

if TYPE_CHECKING:
    from trainer.gate import Gate
    from trainer.loop import Loop

_GOES_ON = "finished calls, adapters and verdicts are kept, the same command resumes from there"


def loop(
    rows: Annotated[
        Path, typer.Argument(help="JSON Lines file with query, reference and explanation.")
    ],
    held_out: Annotated[
        Path,
        typer.Option(
            "--held-out", help="JSON Lines file of queries for the gate; never trained on."
        ),
    ],
    feedback: Annotated[
        Path | None,
        typer.Option(help="JSON Lines file of queries to collect drafts on; ROWS by default."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Maximum number of rounds of feedback and DPO.")
    ] = 1,
    start: Annotated[
        str | None,
        typer.Option(help="Adapter to start from; by default the one in use, or SFT first."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Confidence that the gate asks for, between 0 and 1.")
    ] = 0.95,
    margin: Annotated[
        float,
        typer.Option(help="Required improvement; a negative value tolerates a loss of that size."),
    ] = 0.0,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the loop's state and decisions.")
    ] = Path("cowest-loop"),
    skip_bad: SkipBad = False,
    query_field: QueryField = None,
    reference_field: ReferenceField = None,
    explanation_field: ExplanationField = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Teach, test and serve in rounds: SFT, then collect, DPO, gate, promote."""
    need("local", "train")
    from trainer.gate import Gate

    gate, settings = Gate(confidence, margin), settings_of(config)
    named = fields_of(query_field, reference_field, explanation_field)
    taught = read_rows(rows, skip_bad, named)
    named["explanation"] = None  # is needed where something is taught
    asked = read_rows(held_out, skip_bad, named)
    tried = None if feedback is None else read_rows(feedback, skip_bad, named)
    with _looping(settings, gate, out) as looping:
        found = looping.run(taught, asked, feedback=tried, rounds=rounds, start=start)
        current = looping.adapters.current
    if as_json:
        console.show_json({"in_use": current, "rounds": [asdict(each) for each in found]})
        return
    for each in found:
        console.show(str(each))
    console.show(f"in use: {current or 'the bare weak model'}")


@contextmanager
def _looping(settings: Config, gate: Gate, folder: Path) -> Iterator[Loop]:
    """A loop with the configured models, evaluator and stores."""
    from trainer.loop import Loop

    with settings.store() as traces, settings.live_weak() as weak, console.kept(_GOES_ON):
        registry = getattr(weak, "adapters", None)
        if registry is None:
            raise ValueError(
                f"the weak model {settings.weak.model!r} takes no adapters, so that there is "
                "nothing to promote; set [weak] to a model that follows the registry"
            )
        yield Loop(
            settings.collectors(weak),
            traces,
            registry,
            settings.job,
            folder,
            gate=gate,
            store=settings.store,
            say=console.note,
        )
