"""The shapes of rows: a list of them with its report, and messages as TRL takes them.

Knows conversations. Knows no gain and no pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from langchain_core.messages import BaseMessage, convert_to_openai_messages
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.conversation import plain
from cowest_graph.prompts import Prompts, draft_prompt

if TYPE_CHECKING:
    from cowest_graph.traces import Drafted, Trace

    AnyTrace = Trace | Drafted

Row = dict[str, Any]
Messages = list[dict[str, str]]
Report = TypeVar("Report")


class Rows(list[Row], Generic[Report]):
    """A list of TRL rows, with a `report` of what was dropped and why.

    Args:
        rows: the rows.
        report: what became of what was given.
        queries: of each row, so that held-out ones are found; empty where they are not known.
        sources: where each row is from (`scores.source_of`); empty unless it was asked for.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        report: Report,
        queries: Iterable[str] = (),
        sources: Iterable[dict[str, Any]] = (),
    ) -> None:
        super().__init__(rows)
        self.report: Report = report
        self.queries: tuple[str, ...] = tuple(queries)
        self.sources: tuple[dict[str, Any], ...] = tuple(sources)


def prompt_of(trace: AnyTrace) -> Messages:
    """What the weak model was asked for a trace's drafts."""
    told = [dict(message) for message in trace.draft_prompt]
    return told or asked(draft_prompt(trace.style), trace.query)


def asked(prompt: ChatPromptTemplate, query: str, history: Sequence[BaseMessage] = ()) -> Messages:
    """A draft prompt as messages."""
    said = Prompts(draft=prompt).messages("draft", {"query": query}, plain(history))
    return [dict(message) for message in convert_to_openai_messages(said)]


def assistant(content: str) -> Messages:
    """A completion."""
    return [{"role": "assistant", "content": content}]
