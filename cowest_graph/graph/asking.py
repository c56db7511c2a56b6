"""What a model is asked: its prompt, after what of the conversation it can take.

Knows prompts and conversations. Knows no node, no state and no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from cowest_graph.conversation import fitting, plain
from cowest_graph.prompts import Prompts


def asked_after(
    prompts: Prompts,
    name: str,
    values: Mapping[str, str],
    history: Sequence[BaseMessage],
    model: Any,
) -> list[BaseMessage]:
    """The prompt after a conversation, as a model sees it.

    Args:
        prompts: the wording.
        name: draft, solo or refine.
        values: query, and for refine the draft.
        history: what came before; the weak model sees tools in words alone.
        model: whose limit counts.

    Raises:
        ValueError: where the query and the system message alone are too long.
    """
    known = plain(history) if name == "draft" else list(history)
    kept = fitting(known, prompts.messages(name, values), model)
    return prompts.messages(name, values, kept)
