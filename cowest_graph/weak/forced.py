"""Texts that must follow a grammar: JSON of a schema, or a tool call.

Knows llguidance's grammars and token masks. Knows no messages, no adapters and no decoding loop.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_OPTIONS = {"whitespace_flexible": False}  # a small model would fill the text with blanks


class Matcher:
    """Where one text is in its grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def mask(self, logits: Tensor) -> None:
        """Forbid the tokens that cannot come next: sets them to minus infinity in logits [V]."""
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(words, bitorder="little")).bool()
        size = min(len(allowed), len(logits))
        logits[:size].masked_fill_(~allowed[:size].to(logits.device), float("-inf"))
        logits[size:] = float("-inf")

    def take(self, token: int) -> bool:
        """Note the token that was chosen; True when the text is whole and nothing can follow.

        Raises:
            RuntimeError: for a token that the grammar does not allow.
        """
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"the grammar cannot go on: {self._matcher.get_error()}")
        return bool(self._matcher.is_stopped())


class Grammars:
    """Makes matchers for one tokenizer; reading the vocabulary takes a moment, at the first one.

    Args:
        tokenizer: a fast tokenizer of transformers.
        stop_ids: tokens that end a text.
        vocabulary: columns of the model's logits, which may be more than the tokenizer's tokens.
    """

    def __init__(self, tokenizer: Any, stop_ids: Collection[int], vocabulary: int) -> None:
        self._tokenizer, self._stop_ids = tokenizer, sorted(stop_ids)
        self._vocabulary = vocabulary
        self._words: Any = None
        self._lock = threading.Lock()

    def matcher(self, grammar: str) -> Matcher:
        """A matcher at the grammar's beginning.

        Raises:
            ValueError: for a grammar that is none.
            ImportError: when llguidance is not installed.
        """
        from llguidance import LLMatcher

        matcher = LLMatcher(self._read_vocabulary(), grammar)
        if matcher.is_error():
            raise ValueError(f"this cannot be forced on a text: {matcher.get_error()}")
        return Matcher(matcher)

    def _read_vocabulary(self) -> Any:
        from llguidance.hf import from_tokenizer

        with self._lock:
            if self._words is None:
                self._words = from_tokenizer(
                    self._tokenizer, n_vocab=self._vocabulary, eos_token=self._stop_ids
                )
            return self._words


def json_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON texts that follow a schema.

    Args:
        schema: a JSON schema.
    """
    from llguidance import LLMatcher

    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS))


def tool_call_grammar(tools: Sequence[Mapping[str, Any]]) -> str:
    """The grammar of exactly one call of one of these tools, in the form of Hermes and Qwen.

    Args:
        tools: in OpenAI's form, at least one.
    """
    from llguidance import LLMatcher

    shapes = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema = {"anyOf": shapes, "x-guidance": _OPTIONS}
    lark = f'start: "<tool_call>\\n" call "\\n</tool_call>"\ncall: %json {json.dumps(schema)}\n'
    return str(LLMatcher.grammar_from_lark(lark))


def grammar_of(kwargs: Mapping[str, Any]) -> str | None:
    """What a call's arguments force its text to be: a tool call, JSON, or nothing.

    Args:
        kwargs: with OpenAI's `tools`, `tool_choice` and `response_format`, where given.

    Raises:
        ValueError: for a response format that there is not.
    """
    choice, tools = kwargs.get("tool_choice"), kwargs.get("tools") or []
    form = kwargs.get("response_format") or {"type": "text"}
    if tools and choice not in (None, "auto", "none"):
        return tool_call_grammar(
            [tool for tool in tools if choice in ("required", tool["function"]["name"])]
        )
    if form["type"] == "text":
        return None
    if form["type"] == "json_object":
        return json_grammar({"type": "object"})
    if form["type"] == "json_schema":
        return json_grammar(form["json_schema"]["schema"])
    raise ValueError(
        f"no response_format {form['type']!r}; there are: text, json_object, json_schema"
    )
