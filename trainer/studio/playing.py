"""The playground: one question to the weak model, to the strong one, and to both, side by side.

Knows streams of tokens. Knows no HTML. Nothing is recorded: whoever tries something out teaches
nothing by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langgraph.types import StreamMode

from cowest_graph import create_collaboration
from cowest_graph.graph import ANSWER, DRAFT
from cowest_graph.masking import masked_error
from cowest_graph.prompts import Prompts, text_of

Said = dict[str, str]
"""One piece of a stream: "who" (weak, strong, both) and "text", or "error", or "version"."""


@dataclass(frozen=True)
class Playground:
    """The two models, open.

    Args:
        weak, strong: chat models.
        prompts: the wording.
        close: gives the models back.
    """

    weak: Any
    strong: Any
    prompts: Prompts
    style: str = "chain_of_thought"
    close: Callable[[], None] = lambda: None

    async def ask(self, query: str) -> AsyncIterator[Said]:
        """What each says, piece by piece as it comes; an error of one is told, the others go on."""
        queue: asyncio.Queue[Said | None] = asyncio.Queue()
        tasks = [
            asyncio.create_task(_told(queue, "strong", self._alone(query, queue))),
            asyncio.create_task(_told(queue, "both", self._together(query, queue))),
        ]
        ended = asyncio.create_task(_end(tasks, queue))
        try:
            while (said := await queue.get()) is not None:
                yield said
        finally:
            for task in (*tasks, ended):
                task.cancel()

    async def _alone(self, query: str, queue: asyncio.Queue[Said | None]) -> None:
        asked = self.prompts.messages("solo", {"query": query})
        async for piece in self.strong.astream(asked):
            await queue.put({"who": "strong", "text": text_of(piece)})

    async def _together(self, query: str, queue: asyncio.Queue[Said | None]) -> None:
        graph = create_collaboration(
            self.weak, self.strong, prompts=self.prompts, style=self.style, on_weak_failure="raise"
        ).compile()
        whole: set[str] = set()  # who has said something: a model may not stream
        modes: list[StreamMode] = ["messages", "updates"]
        pieces: AsyncIterator[Any] = graph.astream({"query": query}, stream_mode=modes)
        async for mode, part in pieces:
            if mode == "messages":
                piece, about = part
                who = _who(about.get("tags") or [])
                if who is not None and text_of(piece):
                    whole.add(who)
                    await queue.put({"who": who, "text": text_of(piece)})
                continue
            for update in part.values():
                for said in _messages(update, whole):
                    await queue.put(said)


def _who(tags: list[str]) -> str | None:
    return "weak" if DRAFT in tags else "both" if ANSWER in tags else None


def _messages(update: Any, streamed: set[str]) -> list[Said]:
    """The draft's version, and what was not streamed."""
    found: list[Said] = []
    for name, who in (("draft", "weak"), ("answer", "both")):
        message = update.get(name) if isinstance(update, dict) else None
        if message is None:
            continue
        if who == "weak" and (version := message.response_metadata.get("weak_version")):
            found.append({"who": who, "version": str(version)})
        if who not in streamed:
            found.append({"who": who, "text": text_of(message)})
    return found


async def _told(queue: asyncio.Queue[Said | None], who: str, work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:
        await queue.put({"who": who, "error": masked_error(f"{type(error).__name__}: {error}")})


async def _end(tasks: list[asyncio.Task[None]], queue: asyncio.Queue[Said | None]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    await queue.put(None)
