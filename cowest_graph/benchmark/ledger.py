"""Running methods over queries: metered models, and a ledger that pays for no finished call twice.

Knows chat models, compiled graphs and one SQLite file. Knows no domain, no score and no training.
The bill of a query comes from the ledger also where its calls were paid for earlier, so that a
bench that was killed ends in the same table.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig

from cowest_graph.domains import Example
from cowest_graph.evaluators import model_name
from cowest_graph.failures import FATAL, failure_kind
from cowest_graph.masking import masked_error
from cowest_graph.prompts import text_of
from cowest_graph.replies import as_message
from cowest_graph.state import CallRecord
from cowest_graph.threads import side_by_side

BILL = "cowest_bill"
"""The metadata key under which a query's calls are billed."""

_TABLE = "CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"


@dataclass(frozen=True)
class Said:
    """What a method said to one query, and what it took."""

    key: str  # of the example
    text: str | None = None
    draft: str | None = None
    failure: str | None = None  # its kind, where the method raised
    error: str | None = None
    calls: list[CallRecord] = field(default_factory=list)


class Ledger:
    """Finished calls in one SQLite file, and the bills of the queries under way.

    A query's answer is not kept beside its calls: made again from them it costs nothing, and it
    cannot be older than the prompts, passages and models that it comes from.

    Args:
        path: the file; made with its folder. ":memory:" for none.

    >>> ledger = Ledger(":memory:")
    >>> ledger.keep("key", {"message": {"content": "Answer: 1"}, "seconds": 0.5})["seconds"]
    0.5
    >>> ledger.keep("key", {"message": {"content": "Answer: 2"}, "seconds": 0.1})["seconds"]
    0.5
    """

    def __init__(self, path: str | Path) -> None:
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.made = self.known = 0
        """Calls since it was opened: made, and found."""
        self._lock = threading.Lock()
        self._bills: dict[str, list[CallRecord]] = defaultdict(list)
        self._database = sqlite3.connect(path, check_same_thread=False, timeout=60)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(_TABLE)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def reply(self, key: str) -> dict[str, Any] | None:
        """A finished call's reply, or None."""
        with self._lock:
            row = self._database.execute("SELECT reply FROM calls WHERE key = ?", (key,)).fetchone()
            self.known += row is not None
        found: dict[str, Any] | None = None if row is None else json.loads(row[0])
        return found

    def keep(self, key: str, reply: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a finished call, and give what is kept: of two equal calls at once the first's."""
        with self._lock, self._database:
            self._database.execute("INSERT OR IGNORE INTO calls VALUES (?, ?)", (key, _json(reply)))
            self.made += 1
            (kept,) = self._database.execute(
                "SELECT reply FROM calls WHERE key = ?", (key,)
            ).fetchone()
        whole: dict[str, Any] = json.loads(kept)
        return whole

    def charge(self, bill: str | None, call: CallRecord) -> None:
        """Put a call on a query's bill."""
        with self._lock:
            self._bills[bill or ""].append(call)

    def bill(self, bill: str) -> list[CallRecord]:
        """The calls of a bill, which is closed."""
        with self._lock:
            return self._bills.pop(bill, [])


class Metered(BaseChatModel):
    """A chat model whose calls are kept in a ledger, and billed to the query that they are for.

    The same call (model, messages, arguments) is made once; later it costs no time and no money,
    but is billed with what it took.

    Args:
        inner: any chat model.
        role: weak, strong or judge; on the bill.
        identity: all that its replies depend on beside messages and arguments: model, temperature,
            seed.
        ledger: where calls are kept.
    """

    inner: Any
    role: str
    identity: str
    ledger: Any

    @property
    def model_name(self) -> str:
        """The inner model's name."""
        return model_name(self.inner) or "model"

    @property
    def _llm_type(self) -> str:
        return "cowest-metered"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        bill = (run_manager.metadata or {}).get(BILL) if run_manager else None
        key = self._key(messages, stop, kwargs)
        reply = self.ledger.reply(key)
        if reply is None:
            reply = self.ledger.keep(key, self._made(messages, stop, kwargs, bill))
        message = AIMessage(**reply["message"])
        self.ledger.charge(bill, _record(self.role, message, reply["seconds"]))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _made(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        arguments: dict[str, Any],
        bill: str | None,
    ) -> dict[str, Any]:
        started = time.perf_counter()
        stops = {"stop": stop} if stop else {}
        try:
            message = as_message(self.inner.invoke(messages, **stops, **arguments))
        except Exception as error:
            failed = CallRecord(role=self.role, model=self.model_name, failure=failure_kind(error))
            self.ledger.charge(bill, failed)
            raise
        fields = ("content", "response_metadata", "usage_metadata")
        return {
            "message": {name: getattr(message, name) for name in fields},
            "seconds": time.perf_counter() - started,
        }

    def _key(
        self, messages: list[BaseMessage], stop: list[str] | None, arguments: dict[str, Any]
    ) -> str:
        asked = [self.identity, convert_to_openai_messages(messages), stop, arguments]
        return hashlib.sha256(_json(asked).encode()).hexdigest()


def answers(
    graph: Runnable[Any, Any],
    examples: Sequence[Example],
    ledger: Ledger,
    *,
    max_concurrency: int = 8,
) -> Iterator[Said]:
    """A method's answers, as they finish; calls that the ledger has cost nothing.

    A query on which the method raises is given with its failure, and tried again next time.
    Leaving the iteration starts no further query.

    Args:
        graph: a compiled method, whose models are `Metered` on the same ledger.
        examples: whose queries are asked; the method is shown nothing else of them.
        ledger: of finished calls.
        max_concurrency: queries at a time.

    Raises:
        Exception: a failure that no further call can escape (a refused key, an unknown model).
    """
    asked = [{"query": example.query} for example in examples]
    # Of this run alone: a call that ends after the iteration was left is on nobody else's bill.
    bills = [uuid4().hex for _ in examples]
    configs = [RunnableConfig(metadata={BILL: b}, max_concurrency=max_concurrency) for b in bills]
    with side_by_side(graph, asked, configs) as results:
        for index, result in results:
            key = examples[index].key
            calls = ledger.bill(bills[index])
            if isinstance(result, Exception):
                kind = failure_kind(result)
                if kind in FATAL:
                    raise result
                yield Said(key, failure=kind, error=_told(result), calls=calls)
                continue
            yield Said(key, text_of(result["answer"]), _text(result.get("draft")), calls=calls)


def digest(*parts: object) -> str:
    """Sixteen hex digits of all that a run depends on."""
    return hashlib.sha256(_json([str(part) for part in parts]).encode()).hexdigest()[:16]


def _record(role: str, message: AIMessage, seconds: float) -> CallRecord:
    usage = message.usage_metadata
    return CallRecord(
        role=role,
        model=message.response_metadata.get("model_name"),
        weak_version=message.response_metadata.get("weak_version"),
        input_tokens=usage["input_tokens"] if usage else None,
        output_tokens=usage["output_tokens"] if usage else None,
        cached_tokens=(usage.get("input_token_details") or {}).get("cache_read") if usage else None,
        service_tier=message.response_metadata.get("service_tier"),
        seconds=seconds,
    )


def _told(error: Exception) -> str:
    """What a failure says, and where a request went that did not come back."""
    url = getattr(vars(error).get("request"), "url", None)
    where = masked_error(f" ({url})") if url else ""
    return f"{type(error).__name__}: {masked_error(error)}"[:500] + where


def _text(message: AIMessage | None) -> str | None:
    return None if message is None else text_of(message)


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True, default=str)
