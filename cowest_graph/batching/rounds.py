"""A collection in rounds: the graph asks, what it asked is bought as batches, and it goes on.

Knows a compiled collector whose models are `batched`, and OpenAI's client for files and batches. In
the first round drafts are written, and solo answers and refinements asked for; in the second come
judgements; a round without a new question is the last.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable

from cowest_graph.batching.book import Book, Submission
from cowest_graph.collecting import RowOutcome, collect
from cowest_graph.masking import masked

TAG = "cowest_submission"
"""The key of a batch's metadata under which the endpoint keeps our id of it."""

_ENDED = {"completed", "failed", "expired", "cancelled"}
_UNKNOWN = (404, 405, 501)  # what endpoints say to an address that they do not have
_SLACK = 3600.0  # seconds by which clocks may differ, here and at the endpoint
_OTHERWISE = {
    "expired": (408, "the batch expired before it was answered"),
    "cancelled": (None, "the batch was cancelled"),
}

Say = Callable[[str], None]


def collect_in_batches(
    collector: Runnable[Any, Any],
    rows: Sequence[Mapping[str, Any]],
    book: Book,
    *,
    max_concurrency: int = 8,
    every: float = 30.0,
    say: Say = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[RowOutcome, None, None]:
    """Collect a trace a row, with what `batched` models are asked bought in batches.

    Leaving it, or being killed, loses nothing: the same rows with the same book go on with the
    batches that were bought.

    Args:
        collector: a compiled `create_collector`, whose strong model or judge is `batched`.
        rows, max_concurrency: as in `collecting.collect`.
        book: of the collection.
        every: seconds between two looks at a batch.
        say: gets the sentences.
        sleep: waits so many seconds.

    Raises:
        BlockingIOError: when another process uses the book.
        RuntimeError: when the endpoint takes no batches, or refuses one as a whole.
        Exception: as `collecting.collect`.
    """
    with book.alone():
        book.begin()
        while True:
            for _ in collect(collector, rows, max_concurrency=max_concurrency):
                pass
            if not book.waiting():
                break
            _buy(book, every, say, sleep)
        whole = True
        for outcome in collect(collector, rows, max_concurrency=max_concurrency):
            whole = whole and outcome.trace is not None and outcome.trace.complete
            yield outcome
        if whole:
            book.clear()


def _buy(book: Book, every: float, say: Say, sleep: Callable[[float], None]) -> None:
    """Buy what is asked for, and wait until all of it has come back."""
    for lane in book.lanes:
        book.pending(lane)
    told: dict[str, str] = {}
    while left := book.open():
        for submission in left:
            client = book.lanes.get(submission.lane)
            if client is None:
                raise RuntimeError(
                    f"{book.path} has a batch for {submission.lane}, which is not asked now; "
                    "collect with that model again, or remove the file"
                )
            batch = _bought(book, submission, client)
            state = _state(batch)
            if told.get(submission.id) != state:
                told[submission.id] = state
                say(f"batch {batch.id}: {state}")
            if batch.status in _ENDED:
                _read_back(book, submission, client, batch)
        if book.open():
            sleep(every)


def _state(batch: Any) -> str:
    done = batch.request_counts
    if done is None:
        return str(batch.status)
    return f"{batch.status}, {done.completed + done.failed} of {done.total} requests"


def _bought(book: Book, submission: Submission, client: Any) -> Any:
    """The endpoint's batch; bought now where it was not."""
    if submission.batch is not None:
        return client.batches.retrieve(submission.batch)
    from openai import APIStatusError

    try:
        batch = _found(client, submission) or _made(book, submission, client)
    except APIStatusError as error:
        if error.status_code not in _UNKNOWN:
            raise
        raise RuntimeError(
            f"the endpoint {client.base_url} takes no batches (status {error.status_code}); "
            "collect without --batch"
        ) from error
    book.bought(submission.id, batch.id)
    return batch


def _found(client: Any, submission: Submission) -> Any:
    """The batch that was bought before a crash, and not put down any more."""
    for batch in client.batches.list(limit=100):
        if batch.created_at < submission.begun - _SLACK:
            return None
        if (batch.metadata or {}).get(TAG) == submission.id:
            return batch
    return None


def _made(book: Book, submission: Submission, client: Any) -> Any:
    lines = io.BytesIO()
    for key, body in book.bodies(submission.id):
        asked = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.write(json.dumps(asked, ensure_ascii=False).encode() + b"\n")
    lines.seek(0)
    file = client.files.create(file=("cowest.jsonl", lines), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={TAG: submission.id},
    )


def _read_back(book: Book, submission: Submission, client: Any, batch: Any) -> None:
    """Keep what a batch brought.

    Raises:
        RuntimeError: when it was refused as a whole; it is forgotten, and may be bought again.
    """
    replies: dict[str, Any] = {}
    failures: dict[str, tuple[int | None, str]] = {}
    for line in _lines(client, batch.output_file_id, batch.error_file_id):
        response = line.get("response") or {}
        if response.get("status_code") == 200 and isinstance(response.get("body"), dict):
            replies[line["custom_id"]] = response["body"]
        else:
            failures[line["custom_id"]] = (response.get("status_code"), _why(line, response))
    otherwise = _OTHERWISE.get(batch.status, (None, f"nothing came back; it is {batch.status}"))
    book.read_back(submission.id, replies, failures, otherwise)
    if batch.status == "failed":
        said = "; ".join(str(each.message) for each in (batch.errors.data if batch.errors else []))
        raise RuntimeError(f"the endpoint refused batch {batch.id}: {masked(said) or 'no reason'}")


def _lines(client: Any, *files: str | None) -> Iterator[dict[str, Any]]:
    for file in files:
        if file is not None:
            # Not splitlines(): a text may hold U+2028, which JSON does not escape.
            for line in client.files.content(file).text.split("\n"):
                if line.strip():
                    yield json.loads(line)


def _why(line: Mapping[str, Any], response: Mapping[str, Any]) -> str:
    body = response.get("body")
    error = line.get("error") or (body.get("error") if isinstance(body, dict) else body) or {}
    said = error.get("message") if isinstance(error, dict) else error
    return masked(str(said or f"status {response.get('status_code')}"))[:500]
