"""The collaboration as middleware of `create_agent`: a draft before each call of its model.

Knows LangChain's agents. Needs `langchain` (the extra `apps`).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from cowest_graph.apps.chat_model import CHAT, NOTES
from cowest_graph.calls import failed_call, model_call, noted
from cowest_graph.graph.chains import chosen_version, drafting_chain, learn_secrets
from cowest_graph.graph.runs import whose
from cowest_graph.graph.streaming import hidden
from cowest_graph.graph.tracing import Facts, State
from cowest_graph.masking import masked_error
from cowest_graph.prompts import Prompts, draft_prompt, text_of
from cowest_graph.traces import TraceStore

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    raise ImportError(
        'CollaborationMiddleware needs langchain; install: pip install "cowest-graph[apps]"'
    ) from error

log = logging.getLogger(__name__)

Request: TypeAlias = ModelRequest[Any]
Response: TypeAlias = ModelResponse[Any]


class CollaborationMiddleware(AgentMiddleware[Any, Any, Any]):
    """A weak model's draft as notes to the agent's own model, which is the strong one.

    Before each call of the agent's model the weak model drafts, after the conversation and the
    results of tools; its draft stands after the last human turn, or after the results. A draft that
    fails costs no answer. Each answer (a reply that calls no tool) leaves a trace of kind
    "inference", with the agent's run and thread.

    Args:
        weak: π_w, any chat model.
        traces: where answers are recorded; None for nowhere.
        prompts: your own wording, of which `draft` is used.
        style: draft style: answer, knowledge, or chain_of_thought.
        domain: a name kept in the traces.
    """

    def __init__(
        self,
        weak: Any,
        *,
        traces: TraceStore | None = None,
        prompts: Prompts | None = None,
        style: str = "chain_of_thought",
        domain: str | None = None,
    ) -> None:
        super().__init__()
        learn_secrets(weak)
        self._weak, self._traces, self._style, self._domain = weak, traces, style, domain
        self._prompts = prompts or Prompts(draft_prompt(style), CHAT.solo, CHAT.refine)
        drafting = hidden(drafting_chain(weak, self._prompts))
        self._drafting: Runnable[Any, Any] = model_call(drafting, key="draft", role="draft")

    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> Response:
        """Draft, call the agent's model with the draft, record."""
        if not _asks(request):
            return handler(request)
        facts, state = self._begun(request)
        try:
            state |= self._drafting.invoke(state, ensure_config())
        except Exception as error:
            state |= _without(error)
        started = time.perf_counter()
        response = handler(_with_notes(request, state))
        self._record(facts, state, response, time.perf_counter() - started)
        return response

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """The same, async; files and stores are waited for on threads."""
        if not _asks(request):
            return await handler(request)
        facts, state = await asyncio.to_thread(self._begun, request)
        try:
            state |= await self._drafting.ainvoke(state, ensure_config())
        except Exception as error:
            state |= _without(error)
        started = time.perf_counter()
        response = await handler(_with_notes(request, state))
        seconds = time.perf_counter() - started
        await asyncio.to_thread(self._record, facts, state, response, seconds)
        return response

    def _begun(self, request: Request) -> tuple[Facts, State]:
        config: RunnableConfig = ensure_config()
        facts = Facts(
            self._weak, request.model, None, self._prompts, self._style, self._domain, num_drafts=1
        )
        system = [request.system_message] if request.system_message else []
        asked = facts.asked({"messages": [*system, *request.messages]})
        version = chosen_version(self._weak, config)
        state: State = {"asked": asked, "weak_version": version, "calls": []}
        return facts, {**state, "key": uuid.uuid4().hex, "whose": whose(config)}

    def _record(self, facts: Facts, state: State, response: Response, seconds: float) -> None:
        answer = next((m for m in response.result if isinstance(m, AIMessage)), None)
        if self._traces is None or answer is None or answer.tool_calls:
            return
        try:
            update = noted("answer", "refine")(answer, seconds)
            calls = [*state["calls"], *update["calls"]]
            self._traces.offer(facts.answered({**state, **update, "calls": calls}))
        except Exception as lost:  # the answer is what counts
            log.warning("an answer was not recorded: %s", masked_error(lost))


def _asks(request: Request) -> bool:
    return any(isinstance(message, HumanMessage) for message in request.messages)


def _without(error: Exception) -> State:
    log.warning("the draft failed (%s); the agent's model goes on", masked_error(error))
    return {"draft": None, "calls": [failed_call("draft", error)]}


def _with_notes(request: Request, state: State) -> Request:
    if state["draft"] is None:
        return request
    notes = NOTES.format(draft=text_of(state["draft"]))
    messages: list[AnyMessage] = list(request.messages)
    last = messages[-1] if messages else None
    if isinstance(last, HumanMessage) and isinstance(last.content, str):
        text = f"{last.content}\n\n{notes}"
        messages[-1] = last.model_copy(update={"content": text})
    else:
        messages.append(HumanMessage(notes))
    return request.override(messages=messages)
