"""IfQA (Yu et al., 2023): questions that begin with "if" and go against the facts."""

from collections.abc import Mapping
from typing import Any

from cowest_graph.domains import Domain

TASK = "The question supposes something that did not happen. Answer as briefly as possible."


def _with_context(row: Mapping[str, Any]) -> dict[str, Any]:
    context = "\n".join(row["context"])
    return {**_closed(row), "query": f"{row['question']}\n\nContext: {context}"}


def _closed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "query": row["question"],
        "reference": list(row["answers"]),
        "passages": row["context"],
    }


_DATA = {"train": "ifqa/train.jsonl", "dev": "ifqa/dev.jsonl"}

ifqa = Domain(name="ifqa", data=_DATA, row=_with_context, task=TASK)
"""With its context passages, as in the paper."""

ifqa_closed = Domain(name="ifqa_closed", data=_DATA, row=_closed, task=TASK)
"""Without them: what a model knows, or retrieves from the training split."""
