"""`cowest loop`: options, models from the configuration, what is printed.

Knows options and the configuration. Knows no round and no test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer import console
from trainer.cli.advice import need
from trainer.cli.config import Config
from trainer.cli.context import Source, settings_of, source_of
from trainer.cli.options import (
    AsJson,
    ConfigFile,
    DataFolder,
    DomainName,
    ExplanationField,
    HeldOutSplit,
    QueryField,
    ReferenceField,
    SkipBad,
    fields_of,
)
from trainer.cli.verbs.gains import ScoreFrom, scores_called

if TYPE_CHECKING:
    from trainer.gate import Gate
    from trainer.loop import Round
    from trainer.traffic import TrafficLoop

Rows = list[dict[str, Any]]
TrainRows = Annotated[
    int | None, typer.Option("--train-rows", min=1, help="Learn from the first N rows only.")
]
FeedbackRows = Annotated[
    int | None, typer.Option("--feedback-rows", min=1, help="Collect on the first N queries only.")
]
HeldOutRows = Annotated[
    int | None, typer.Option("--held-out-rows", min=1, help="Test with the first N queries only.")
]
GateName = Annotated[
    str | None,
    typer.Option(help="Gate: fixed (all held-out queries) or sequential (until it is sure)."),
]
FromTraffic = Annotated[
    bool,
    typer.Option(
        "--from-traffic",
        help="Learn from the store's inference traces: corrections, and explored queries.",
    ),
]
HeldOutShare = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, help="Share of the queries of --from-traffic that only the gate asks."
    ),
]

_GOES_ON = "finished calls, adapters and verdicts are kept, the same command resumes from there"


def loop(
    rows: Annotated[
        Path | None, typer.Argument(help="JSON Lines file with query, reference and explanation.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            help="JSON Lines file of queries for the gate; never trained on. Needed without a "
            "domain.",
        ),
    ] = None,
    feedback: Annotated[
        Path | None,
        typer.Option(help="JSON Lines file of queries to collect drafts on; ROWS by default."),
    ] = None,
    domain: DomainName = None,
    data: DataFolder = None,
    split: HeldOutSplit = None,
    train_rows: TrainRows = None,
    feedback_rows: FeedbackRows = None,
    held_out_rows: HeldOutRows = None,
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
    gate: GateName = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the loop's state and decisions.")
    ] = Path("cowest-loop"),
    from_traffic: FromTraffic = False,
    score_from: ScoreFrom = "feedback",
    held_out_share: HeldOutShare = 0.3,
    skip_bad: SkipBad = False,
    query_field: QueryField = None,
    reference_field: ReferenceField = None,
    explanation_field: ExplanationField = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Teach, test and serve in rounds: SFT, then collect, DPO, gate, promote."""
    need("local", "train")
    named = fields_of(query_field, reference_field, explanation_field)
    files, own = (rows, feedback, held_out), (domain, data, split)
    source = source_of(rows, *own, fields=named, skip_bad=skip_bad, more=files[1:])
    settings = settings_of(config, source.domain)
    judge = settings.gate(confidence, margin, gate)
    with _looping(settings, judge, out) as looping:
        if from_traffic:
            found = _from_traffic(looping, source, files, score_from, held_out_share)
        else:
            taught, tried, asked = _parts(source, files, (train_rows, feedback_rows, held_out_rows))
            found = looping.run(taught, asked, feedback=tried, rounds=rounds, start=start)
        current = looping.adapters.current
    if as_json:
        console.show_json({"in_use": current, "rounds": [asdict(each) for each in found]})
        return
    for each in found:
        console.show(str(each))
    console.show(f"in use: {current or 'the bare weak model'}")


def _from_traffic(
    looping: TrafficLoop,
    source: Source,
    files: Sequence[Path | None],
    score_from: str,
    share: float,
) -> list[Round]:
    """The rounds of what was served."""
    from trainer.traffic import traffic_of

    if source.domain is not None or any(files):
        raise ValueError("--from-traffic reads the store alone: no ROWS, --held-out or --domain")
    traffic = traffic_of(looping.traces, score_from=scores_called(score_from), share=share)
    console.note(f"traffic: {traffic}")
    return looping.learn(traffic)


def _parts(
    source: Source, files: Sequence[Path | None], most: Sequence[int | None]
) -> tuple[Rows, Rows | None, Rows]:
    """What is learnt from, collected on (None: the same) and asked by the gate.

    Of each the first `most` rows; what is held out beyond them is not learnt from, either.
    """
    from trainer.checks import HeldOut

    rows, feedback, held_out = files
    asked = source.held_out(held_out)
    spared = HeldOut([*source.forbidden, *(r["query"] for r in asked[most[2] or len(asked) :])])

    def first(given: Rows, count: int | None) -> Rows:
        kept = [row for row in given if row["query"] not in spared]
        if left := len(given) - len(kept):
            console.note(f"{left} of {len(given)} rows are held out: they are not learnt from")
        return kept[:count]

    taught = first(source.learnt(rows), most[0])
    same = feedback is None and source.domain is None
    tried = None if same else first(source.feedback(feedback), most[1])
    return taught, tried, asked[: most[2]]


@contextmanager
def _looping(settings: Config, gate: Gate, folder: Path) -> Iterator[TrafficLoop]:
    """A loop with the configured models, evaluator and stores."""
    from trainer.traffic import TrafficLoop

    with settings.store() as traces, settings.live_weak() as weak, console.kept(_GOES_ON):
        registry = getattr(weak, "adapters", None)
        if registry is None:
            raise ValueError(
                f"the weak model {settings.weak.model!r} takes no adapters, so that there is "
                "nothing to promote; set [weak] to a model that follows the registry"
            )
        yield TrafficLoop(
            settings.collectors(weak),
            traces,
            registry,
            settings.job,
            folder,
            gate=gate,
            course=settings.course(),
            store=settings.store,
            say=console.note,
        )
