"""The names of OpenTelemetry's conventions and ours, and what of calls and traces they hold.

Knows the semantic conventions of generative AI (still in development there: every name stands here
and nowhere else), LangChain's words for a request, and our records. Knows no span and no meter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult

from cowest_graph.masking import masked_beside, masked_data
from cowest_graph.traces import Trace

OPERATION, WORKFLOW = "gen_ai.operation.name", "gen_ai.workflow.name"
PROVIDER, MODEL = "gen_ai.provider.name", "gen_ai.request.model"
RESPONSE_MODEL, FINISH = "gen_ai.response.model", "gen_ai.response.finish_reasons"
READ, WROTE = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED, TOKEN_TYPE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.token.type"
FINGERPRINT = "openai.response.system_fingerprint"
TIER = "openai.response.service_tier"
INPUT_MESSAGES, OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
SCORE, CONVERSATION = "gen_ai.evaluation.score.value", "gen_ai.conversation.id"
ERROR = "error.type"
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable by which spans are asked to hold texts."""

ROLE, VERSION, FAILURE = "cowest.role", "cowest.weak_version", "cowest.failure"
KEY, DOMAIN, INDEX = "cowest.trace_key", "cowest.domain", "cowest.index"
RUN = "cowest.run_id"
_NAMED = (DOMAIN, CONVERSATION, RUN)
MEASURED = (OPERATION, PROVIDER, MODEL, RESPONSE_MODEL, ERROR, ROLE)
"""Of a call's attributes, those that metrics have: few values each."""

_REQUEST = {  # LangChain's words for what a chat model is asked with
    "ls_provider": PROVIDER,
    "ls_model_name": MODEL,
    "ls_temperature": "gen_ai.request.temperature",
    "ls_max_tokens": "gen_ai.request.max_tokens",
    "ls_stop": "gen_ai.request.stop_sequences",
}
_ARGUMENTS = {
    name: f"gen_ai.request.{name}"
    for name in ("temperature", "max_tokens", "top_p", "top_k", "seed")
}
_ROLES = {"human": "user", "ai": "assistant"}

Attributes = dict[str, Any]


def kept(attributes: Mapping[str, Any]) -> Attributes:
    """What is there of them, without a secret; what an app named, as it may leave."""
    there = {name: value for name, value in attributes.items() if value is not None}
    return masked_data(there) | {n: masked_beside(str(there[n])) for n in _NAMED if n in there}


def of_state(role: str, state: Mapping[str, Any]) -> Attributes:
    """What is known of a call before it is made."""
    asked = state.get("asked") or {}
    return kept(
        {
            ROLE: role,
            VERSION: state.get("weak_version"),
            KEY: state.get("key"),
            DOMAIN: asked.get("domain"),
            INDEX: state.get("index"),
        }
    )


def of_request(metadata: Mapping[str, Any], arguments: Mapping[str, Any]) -> Attributes:
    """What a chat model is asked with.

    Args:
        metadata: of its run, in LangChain's words.
        arguments: of the call.
    """
    given = {theirs: arguments.get(ours) for ours, theirs in _ARGUMENTS.items()}
    told = {theirs: metadata.get(ours) for ours, theirs in _REQUEST.items()}
    found = {**given, **{name: value for name, value in told.items() if value is not None}}
    plain = {name: value for name, value in found.items() if _is_plain(value)}
    return kept({OPERATION: "chat", **plain})


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(each, str) for each in value)
    return isinstance(value, str | bool | int | float)


def of_record(record: Mapping[str, Any]) -> Attributes:
    """What is known of a call when it has ended, as its record says it."""
    finish = record.get("finish_reason")
    return kept(
        {
            RESPONSE_MODEL: record.get("model"),
            VERSION: record.get("weak_version"),
            READ: record.get("input_tokens"),
            WROTE: record.get("output_tokens"),
            CACHED: record.get("cached_tokens"),
            FINGERPRINT: record.get("fingerprint"),
            TIER: record.get("service_tier"),
            FINISH: None if finish is None else [str(finish)],
            FAILURE: record.get("failure"),
            ERROR: record.get("failure"),
        }
    )


def of_reply(result: LLMResult) -> Attributes:
    """The same of a chat model's reply."""
    message = reply_of(result)
    if message is None:
        return {}
    usage, about = message.usage_metadata, message.response_metadata
    details = (usage.get("input_token_details") if usage else None) or {}
    record = {
        "model": about.get("model_name"),
        "weak_version": about.get("weak_version"),
        "input_tokens": usage["input_tokens"] if usage else None,
        "output_tokens": usage["output_tokens"] if usage else None,
        "cached_tokens": details.get("cache_read"),
        "fingerprint": about.get("system_fingerprint"),
        "service_tier": about.get("service_tier"),
        "finish_reason": about.get("finish_reason"),
    }
    return of_record(record)


def reply_of(result: LLMResult) -> AIMessage | None:
    """The message that a chat model gave; None where it gave none."""
    said = result.generations[0] if result.generations else []
    message = getattr(said[0], "message", None) if said else None
    return message if isinstance(message, AIMessage) else None


def messages(said: Sequence[BaseMessage]) -> str:
    """Messages in the conventions' form, as JSON, as they may leave: see `masked_beside`."""
    return json.dumps([_message(each) for each in said], ensure_ascii=False)


def _message(message: BaseMessage) -> dict[str, Any]:
    part = {"type": "text", "content": masked_beside(str(message.text))}
    finish = message.response_metadata.get("finish_reason")
    told = {} if finish is None else {"finish_reason": str(finish)}
    return {"role": _ROLES.get(message.type, message.type), "parts": [part], **told}


def of_trace(trace: Trace) -> Attributes:
    """What a pass came to: its gain where there was one attempt, and the gains where several."""
    gains = [a.gain for a in trace.attempts if a.gain is not None]
    only = trace.attempts[0] if len(trace.attempts) == 1 else None
    return kept(
        {
            KEY: trace.key,
            DOMAIN: trace.domain,
            VERSION: trace.weak_version,
            CONVERSATION: trace.thread_id,
            "cowest.kind": trace.kind,
            RUN: trace.run_id,
            "cowest.style": trace.style,
            "cowest.route": getattr(trace.route, "way", None),
            "cowest.router": getattr(trace.route, "router", None),
            "cowest.solo_score": trace.solo_score,
            "cowest.score": None if only is None else only.score,
            "cowest.gain": None if only is None else only.gain,
            "cowest.gains": gains if len(trace.attempts) > 1 else None,
            "cowest.failures": len(trace.failures),
        }
    )
