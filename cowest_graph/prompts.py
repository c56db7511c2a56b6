"""The prompts of the method (paper, Figure 7, in our words), and how an answer is read back.

Knows wording and formats. Knows no model and no graph. A `Prompts` carries a version made from its
wording, stored in every trace, so that traces made with other words are told apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompts import ChatPromptTemplate

from cowest_graph.conversation import before

HISTORY = "history"
"""The placeholder for a conversation."""

DraftStyle = Literal["answer", "knowledge", "chain_of_thought"]

_DRAFT_STYLES: dict[str, str] = {
    "answer": "Give the answer in a few words, after the word Answer: and nothing else.",
    "knowledge": "Write down what one has to know about this subject to answer. Do not answer.",
    "chain_of_thought": "Explain in one sentence, then give the answer.",
}

# Figure 7 shows the format with placeholders and puts it last. Small strong models echo those and
# take the last words for the question: written out, and before the question, a 135M model keeps 19
# of 24 correct drafts instead of 4 of 16 (docs/log.md, 2026-11-21).
FORMAT = (
    'Write "Explanation:" and one paragraph that gives the reason. Then, on a new line, write '
    '"Answer:" and the answer in a few words.'
)
"""The answer's format in words, as the paper's prompts ask for it."""

SOLO = ChatPromptTemplate.from_messages(
    [("human", "Answer the question from your own knowledge. " + FORMAT + "\n\nQuestion: {query}")]
)
"""The strong model alone, with chain of thought: z ~ π_s(x)."""

REFINE = ChatPromptTemplate.from_messages(
    [
        (
            "human",
            "Here are a question and what a domain expert model wrote about it. Rely on the expert "
            "where it is helpful and correct; otherwise answer from your own knowledge.\n\n"
            + FORMAT
            + "\n\nQuestion: {query}\n\nExpert:\n{draft}",
        )
    ]
)
"""The collaboration: y* ~ π_s(x, y)."""

JUDGE = ChatPromptTemplate.from_messages(
    [
        (
            "human",
            "Score how correct a model's output is, from 1 to 10, given the ground truth.\n\n"
            "1: the answer and the explanation have major errors\n"
            "3: the answer is partly correct, the explanation has minor errors\n"
            "6: the answer differs a little from the ground truth but means the same, and the "
            "explanation is reasonable\n"
            "10: the answer is exactly the ground truth, and the explanation is reasonable\n\n"
            "Question: {query}\n\nGround truth: {reference}\n\nModel output:\n{output}\n\n"
            "Reply with one integer from 1 to 10 and nothing else.",
        )
    ]
)
"""The evaluator E, which sees the reference."""

JUDGE_AGAIN = "That was not a score. Reply with one integer from 1 to 10 and nothing else."
"""The corrective turn after a garbled score."""

_ANSWER = re.compile(r"^[\s*#>_-]*(?:final\s+)?answer[*_]*\s*:[*_]*\s*(.*)", re.I | re.M)
_EXPLANATION = re.compile(r"^[\s*#>_-]*explanation[*_]*\s*:[*_]*\s*", re.I)
_SHORT = 20  # words that an answer without its marker may have at most


def draft_prompt(style: str = "chain_of_thought") -> ChatPromptTemplate:
    """The weak model's prompt in one of the paper's three draft styles (section 4.3, Figure 3).

    Args:
        style: answer, knowledge, or chain_of_thought (the paper's best).

    Raises:
        ValueError: for another style.
    """
    if style not in _DRAFT_STYLES:
        raise ValueError(f"no draft style {style!r}; there are: {', '.join(_DRAFT_STYLES)}")
    return ChatPromptTemplate.from_messages(
        [("system", _DRAFT_STYLES[style]), ("human", "{query}")]
    )


def answer_schema(labels: Sequence[str] = (), *, explained: bool = True) -> dict[str, Any]:
    """The answer's format as a JSON schema, for endpoints that can force one.

    Args:
        labels: of a classification; the answer is one of them.
        explained: whether an explanation comes first.
    """
    explanation = {"type": "string", "description": "One paragraph of reasoning."}
    answer: dict[str, Any] = {"type": "string"}
    answer |= {"enum": list(labels)} if labels else {"description": "A few words."}
    parts = {"explanation": explanation, "answer": answer} if explained else {"answer": answer}
    return {
        "title": "refined_answer",
        "description": "An explanation and the short final answer.",
        "type": "object",
        "properties": parts,
        "required": list(parts),
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Prompts:
    """The wording that a collaboration uses; replace a template to use your own.

    A conversation that came before stands where a template has `MessagesPlaceholder("history")`;
    in one without it, after the system message, which is joined to the conversation's own.

    Args:
        draft: what the weak model is asked; sees {query}, and perhaps {history}.
        solo: what the strong model alone is asked; sees the same.
        refine: what the strong model is asked with a draft; sees {query} and {draft}, and perhaps
            {history}.

    Raises:
        ValueError: when a template asks for anything else, a reference above all.
    """

    draft: ChatPromptTemplate = field(default_factory=draft_prompt)
    solo: ChatPromptTemplate = field(default_factory=lambda: SOLO)
    refine: ChatPromptTemplate = field(default_factory=lambda: REFINE)

    def __post_init__(self) -> None:
        """Refuse a template that could leak what only the evaluator may see."""
        seen = {"draft": {"query"}, "solo": {"query"}, "refine": {"query", "draft"}}
        for name, allowed in seen.items():
            if extra := set(getattr(self, name).input_variables) - allowed - {HISTORY}:
                raise ValueError(
                    f"the {name} prompt asks for {', '.join(sorted(extra))}; it may use "
                    f"{', '.join(sorted(allowed))}"
                )

    def messages(
        self, name: str, values: Mapping[str, str], history: Sequence[BaseMessage] = ()
    ) -> list[BaseMessage]:
        """What a model is asked after a conversation.

        Args:
            name: draft, solo or refine.
            values: query, and for refine the draft.
            history: what came before.
        """
        template: ChatPromptTemplate = getattr(self, name)
        if self.places_history(name):
            placed = template.invoke({**values, HISTORY: list(history)}).to_messages()
            return before([], placed)
        return before(history, template.invoke(dict(values)).to_messages())

    def places_history(self, name: str) -> bool:
        """Whether a template says where the conversation stands."""
        template: ChatPromptTemplate = getattr(self, name)
        return HISTORY in {*template.input_variables, *template.optional_variables}

    @cached_property
    def version(self) -> str:
        """Twelve hex digits that change with any word of any template."""
        wording = [t.pretty_repr() for t in (self.draft, self.solo, self.refine)]
        return hashlib.sha256("\0".join(wording).encode()).hexdigest()[:12]


def completion(reference: str, explanation: str | None = None) -> str:
    """A reference as a draft should say it: the explanation where there is one, then the answer."""
    answer = f"Answer: {reference}"
    return f"Explanation: {explanation}\n{answer}" if explanation else answer


def final_answer(output: str | BaseMessage) -> str | None:
    """The short answer in a model's output; None when it cannot be told.

    Reads the last `Answer:` line, or the `answer` of a JSON object. A single short line without
    either counts as the answer itself.

    >>> final_answer("Explanation: 3 follows 2.\\nAnswer: 3")
    '3'
    >>> final_answer('{"explanation": "3 follows 2.", "answer": "3"}')
    '3'
    >>> final_answer("First, we add the two numbers.\\nThen we stop.") is None
    True
    """
    text = text_of(output).strip()
    if (parsed := _as_json(text)) is not None:
        return str(parsed["answer"]).strip() or None
    if found := _ANSWER.findall(text):
        return found[-1].strip().strip("*_").strip() or None
    if _EXPLANATION.match(text) or "\n" in text or len(text.split()) > _SHORT:
        return None
    return text or None


def explanation_of(output: str | BaseMessage) -> str | None:
    """The explanation in a model's output; None when it has none."""
    text = text_of(output).strip()
    if (parsed := _as_json(text)) is not None:
        return str(parsed.get("explanation") or "").strip() or None
    body = _ANSWER.split(text)[0]
    return _EXPLANATION.sub("", body).strip() or None


def readable(message: AIMessage) -> AIMessage:
    """The message with a JSON answer written out as `Explanation: … Answer: …`; others as is."""
    parsed = _as_json(text_of(message).strip())
    if parsed is None:
        return message
    said = completion(str(parsed["answer"]), str(parsed.get("explanation") or "") or None)
    return message.model_copy(update={"content": said})


def text_of(output: str | BaseMessage) -> str:
    """The text of a message, or the text itself."""
    return output if isinstance(output, str) else str(output.text)


def _as_json(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, numbers of thousands of digits, or too deep
        return None
    return parsed if isinstance(parsed, dict) and "answer" in parsed else None
