"""A process as a team runs it: a graph, a collection, feedback, exports, and all that can fail.

Everything that anybody says in it holds a secret and an e-mail address; the test searches whatever
it leaves. Arguments: the store's URL, a folder to write to.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from planted import planted
from sqlalchemy import create_engine

from cowest_graph import TraceStore, create_collaboration, create_collector
from cowest_graph.telemetry import instrument
from cowest_graph.testing import ScriptedModel

SECRET, MAIL = os.environ["PLANTED_API_KEY"], "ada.lovelace@example.org"
PLANTED = f"{MAIL} knows {SECRET}"


def main(url: str, folder: Path) -> None:
    """Do all that writes."""
    logging.basicConfig(level=logging.DEBUG, filename=folder / "app.log")
    for noisy in ("langsmith", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    spans = TracerProvider()
    exporter = ConsoleSpanExporter(out=(folder / "spans.jsonl").open("w", encoding="utf-8"))
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(tracer_provider=spans, content=True)
    with TraceStore(url, redact=redact) as store:
        answered(store)
        collected(store)
        told(store)
        store.record(planted(PLANTED))
        store.record(planted(f"{PLANTED} {uuid.uuid4()}"))
        print(json.dumps({"traces": len(store), "refused": store.redaction.refused}))
        store.to_jsonl(folder / "out.jsonl")
        store.to_dataset().to_json(folder / "dataset.jsonl")
    spooled(url)


def redact(text: str) -> str:
    """The hook: LangChain's detector, and one that breaks on some texts."""
    from cowest_graph.masking import redactor

    if "breaks the hook" in text:
        raise RuntimeError(f"no model for {text}")
    return redactor("email")(text)


def answered(store: TraceStore) -> None:
    """Served answers: one as it should be, one with a broken draft, one that breaks the hook."""
    config: Any = {
        "configurable": {"thread_id": f"thread of {PLANTED}"},
        "metadata": {"cowest": {"user": PLANTED, "tenant": PLANTED, "tags": [PLANTED]}},
    }
    history = [{"role": "user", "content": PLANTED}, {"role": "assistant", "content": PLANTED}]
    graph = create_collaboration(
        ScriptedModel([f"draft of {PLANTED}", ConnectionError(f"no route to {PLANTED}")] * 2),
        ScriptedModel([f"Answer: {PLANTED}"] * 4),
        traces=store,
        domain=PLANTED,
        evaluator=lambda **_: {"score": 1.0},
    ).compile()
    for query in (f"what of {PLANTED}?", f"and of {PLANTED}?", f"this breaks the hook: {PLANTED}"):
        asked = [*history, {"role": "user", "content": query}]
        said = graph.invoke({"messages": asked, "explanation": PLANTED}, config)
        assert MAIL in said["answer"].content, "the models see the original"


def collected(store: TraceStore) -> None:
    """A collection that is whole, and one whose judge and weak model fail: its journal stays."""
    drafts: list[Any] = [[f"draft {PLANTED}"], [OSError(PLANTED)]]
    for number, replies in enumerate(drafts):
        collector = create_collector(
            ScriptedModel(replies * 2),
            ScriptedModel([f"Answer: {PLANTED}"] * 3),
            evaluator=lambda **_: {"score": 1.0},
            traces=store,
            num_drafts=2,
            domain=PLANTED,
        ).compile()
        row = {"query": f"{number} of {PLANTED}", "reference": [PLANTED], "explanation": PLANTED}
        collector.invoke(row)
    store.remember("0" * 64, "solo", {"text": PLANTED, "calls": [{"error": PLANTED}]})


def told(store: TraceStore) -> None:
    """Feedback with everything that it can have."""
    said = {"value": {PLANTED: [PLANTED]}, "comment": PLANTED, "correction": PLANTED}
    store.feedback(run_id=PLANTED, key=PLANTED, source=PLANTED, **said)
    store.feedback(trace_key=PLANTED, key="thumbs", score=1)


def spooled(url: str) -> None:
    """A store that is out of order: traces wait beside it."""
    with TraceStore(url, redact=redact) as store:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("alter table cowest_counts rename to away")
        assert not store.offer(planted(f"{PLANTED} waits"))
        with engine.begin() as connection:
            connection.exec_driver_sql("alter table away rename to cowest_counts")
        engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
