"""A trace that has a text wherever a trace can have one, to be searched for afterwards."""

from __future__ import annotations

from cowest_graph.traces import Attempt, Call, Token, Trace


def planted(text: str) -> Trace:
    """A trace that has the text in every field that takes one."""
    call = Call(
        role="draft",
        model=text,
        weak_version=text,
        fingerprint=text,
        finish_reason=text,
        failure=text,
        error=f"ValueError: {text}",
    )
    attempt = Attempt(
        index=0,
        draft=text,
        answer=text,
        score=1.0,
        weak_version=text,
        tokens=[Token(token=text[:2], id=1), Token(token=text[2:], id=2)],
        calls=[call],
    )
    named = dict.fromkeys(
        (
            *("explanation", "domain", "weak", "weak_version", "strong", "evaluator", "prompts"),
            *("style", "run_id", "thread_id", "user", "tenant", "solo", "stopped"),
        ),
        text,
    )
    return Trace(
        query=text,
        reference=[text, text],
        history=[{"role": "user", "content": [{"type": "text", "text": text}]}],
        tags=[text, f"{text} tag"],
        draft_prompt=[{"role": "user", "content": text}],
        attempts=[attempt],
        shadow={"weak_version": text, "draft": text, "calls": [call]},
        route={"way": "both", "router": text, "expected": {text: 1.0}},
        calls=[call],
        **named,
    )
