"""Texts that must follow a grammar: JSON of a schema, or a tool call.

Knows llguidance's grammars and token masks. Knows no messages, no adapters and no decoding loop.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

# As JSON is mostly written; free white space would be filled up by a small model.
_OPTIONS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_CHARACTERS = 2  # of a forced text's free strings, for each token that the text may have
_LIMITS = {"maxLength", "enum", "const", "pattern", "format"}


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

    def __init__(self, tokenizer: Tokenizer, stop_ids: Collection[int], vocabulary: int) -> None:
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
        from llguidance import LLTokenizer

        with self._lock:
            if self._words is None:
                self._words = LLTokenizer(
                    _vocabulary_of(self._tokenizer),
                    n_vocab=self._vocabulary,
                    eos_token=self._stop_ids,
                )
            return self._words


def grammar_of(kwargs: Mapping[str, Any], max_tokens: int) -> str | None:
    """What a call's arguments force its text to be: a tool call, JSON, or nothing.

    Strings without a limit of their own get one, and objects have the properties that are named
    (unless additionalProperties says otherwise), so that a model that rambles still ends the text
    within its tokens.

    Args:
        kwargs: with OpenAI's `tools`, `tool_choice` and `response_format`, where given.
        max_tokens: of the text.

    Raises:
        ValueError: for a response format that there is not.
    """
    choice, tools = kwargs.get("tool_choice"), kwargs.get("tools") or []
    form = kwargs.get("response_format") or {"type": "text"}
    if tools and choice not in (None, "auto", "none"):
        allowed = [tool for tool in tools if choice in ("required", tool["function"]["name"])]
        return _tool_call_grammar(allowed, max_tokens)
    if form["type"] == "text":
        return None
    if form["type"] == "json_object":
        return _json_grammar({"type": "object"}, max_tokens)
    if form["type"] == "json_schema":
        return _json_grammar(form["json_schema"]["schema"], max_tokens)
    raise ValueError(
        f"no response_format {form['type']!r}; there are: text, json_object, json_schema"
    )


def _json_grammar(schema: Mapping[str, Any], max_tokens: int) -> str:
    from llguidance import LLMatcher

    bounded = _bounded(schema, max_tokens)
    return str(LLMatcher.grammar_from_json_schema(json.dumps(bounded), overrides=_OPTIONS))


def _tool_call_grammar(tools: Sequence[Mapping[str, Any]], max_tokens: int) -> str:
    """Exactly one call of one of these tools, in the form of Hermes and Qwen."""
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
    schema = {"anyOf": _bounded(shapes, max_tokens), "x-guidance": _OPTIONS}
    lark = f'start: "<tool_call>\\n" call "\\n</tool_call>"\ncall: %json {json.dumps(schema)}\n'
    return str(LLMatcher.grammar_from_lark(lark))


def _bounded(schema: Any, max_tokens: int) -> Any:
    """The schema with an end: no properties beside those it names, no string without a limit."""
    free = [node for node in _nodes(schema) if _is_free(node)]
    limit = max(1, _CHARACTERS * max_tokens // max(1, len(free)))
    return _with_limit(schema, limit)


def _with_limit(node: Any, limit: int) -> Any:
    if isinstance(node, list):
        return [_with_limit(each, limit) for each in node]
    if not isinstance(node, Mapping):
        return node
    same = {key: _with_limit(value, limit) for key, value in node.items()}
    if _is_free(node):
        return {**same, "maxLength": limit}
    if isinstance(node.get("properties"), Mapping) and "type" in node:
        return {"additionalProperties": False, **same}
    return same


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _nodes(each)


def _is_free(node: Mapping[str, Any]) -> bool:
    return node.get("type") == "string" and not _LIMITS & node.keys()


def _vocabulary_of(tokenizer: Tokenizer) -> str:
    """The tokenizer as JSON that llguidance reads its tokens' bytes from.

    It looks at the decoder to tell how bytes are written; a tokenizer that came out of a GGUF file
    has a decoder of both kinds, where the pre-tokenizer says which one is meant.
    """
    from tokenizers import Tokenizer, decoders

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    if "ByteLevel" in repr(backend.pre_tokenizer):
        backend.decoder = decoders.ByteLevel()
    return str(backend.to_str())
