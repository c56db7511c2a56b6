"""What is wrong with rows, before anything trains on them: texts, tokens, held-out queries.

Knows TRL's row formats, tokenizers and chat templates. Knows no model, no recipe and no process.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.rows import ROW

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

_NAMED = 5  # faults that an error names one by one
_PARTS = ("completion", "chosen", "rejected")
_HASH = re.compile(r"[0-9a-f]{64}")

KINDS = {
    "empty": "empty",
    "same": "chosen equal to rejected",
    "held_out": "held out",
    "cut": "longer than allowed",
    "end": "a wrong number of end-of-turn tokens",
    "template": "another prompt than serving's",
}
"""Kinds of faults, and what a summary calls them."""


@dataclass(frozen=True)
class Fault:
    """One reason not to train on one row; `row` counts from 1."""

    row: int
    kind: str
    said: str

    def __str__(self) -> str:
        return f"row {self.row} {self.said}"


class HeldOut:
    """Queries that must not be trained on, as texts or as SHA-256 of their normalised texts.

    >>> held = HeldOut(["What is  B12?"])
    >>> "what is b12?" in held
    True

    Args:
        queries: texts; what is 64 hexadecimal digits is taken for a hash (`query_hash`).
    """

    def __init__(self, queries: Iterable[str]) -> None:
        given = [str(query) for query in queries]
        self.texts = {_plain(query) for query in given if not _HASH.fullmatch(query)}
        self._hashes = {query for query in given if _HASH.fullmatch(query)}
        self._all = self._hashes | {query_hash(text) for text in self.texts}

    @classmethod
    def read(cls, path: str | Path) -> HeldOut:
        """From a file: JSON lines with "query", or one hash a line.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: for a line that is neither.
        """
        queries: list[str] = []
        for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
            if line.strip():
                queries.append(_query_of_line(line.strip(), f"{path}, line {number}"))
        return cls(queries)

    def __or__(self, other: HeldOut) -> HeldOut:
        return HeldOut([*self.texts, *self._hashes, *other.texts, *other._hashes])

    def __contains__(self, query: str) -> bool:
        return query_hash(query) in self._all

    def __len__(self) -> int:
        return len(self._all)

    def within(self, prompt: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a prompt's messages hold one of the texts, for rows without their queries.

        Raises:
            ValueError: when there are hashes, which only a query itself can be compared with.
        """
        if self._hashes:
            raise ValueError(
                "held-out hashes need rows that know their queries, as demonstrations() and "
                "preferences() make them; give the queries themselves"
            )
        said = _plain(" ".join(str(message.get("content") or "") for message in prompt))
        return any(
            re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said)
            for text in self.texts
            if text in said  # fast, and nearly always False
        )


def seen_in_training(adapter: Path, held_out: HeldOut) -> int | None:
    """How many of an adapter's training rows ask a held-out query; None where no rows are told.

    Args:
        adapter: its folder, with the `rows.jsonl` that `train_sft` and `train_dpo` leave there.
        held_out: the queries.
    """
    rows = adapter / "rows.jsonl"
    if not rows.exists():
        return None
    with rows.open(encoding="utf-8") as lines:
        return sum(json.loads(line)["prompt"][-1]["content"] in held_out for line in lines)


def query_hash(query: str) -> str:
    """SHA-256 in hexadecimal of a query without regard to case and white space."""
    return hashlib.sha256(_plain(query).encode()).hexdigest()


def text_faults(
    rows: Sequence[Mapping[str, Any]],
    *,
    queries: Sequence[str] = (),
    held_out: HeldOut | None = None,
) -> list[Fault]:
    """What can be told without a tokenizer: empty texts, equal pairs, held-out queries.

    Args:
        rows: TRL rows with "prompt", and "completion" or "chosen" and "rejected".
        queries: of each row; empty where they are not known: then prompts are searched.
        held_out: queries that must not be trained on.
    """
    found: list[Fault] = []
    for number, row in enumerate(rows, start=1):
        told = f"({_asked(row)!r})"
        empty = [part for part in _PARTS if part in row and not _text(row[part])]
        found += [Fault(number, "empty", f"{told}: the {part} is empty") for part in empty]
        if "chosen" in row and not empty and _text(row["chosen"]) == _text(row["rejected"]):
            found.append(Fault(number, "same", f"{told}: chosen equals rejected"))
        if held_out is not None and (
            queries[number - 1] in held_out if queries else held_out.within(row["prompt"])
        ):
            found.append(Fault(number, "held_out", f"{told}: the query is held out"))
    return found


@dataclass(frozen=True)
class Tokens:
    """Rows measured: how many, tokens in all, tokens of the longest text, tokens of prompts."""

    rows: int
    tokens: int
    longest: int
    prompt_tokens: int


def token_faults(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    stops: Collection[int],
    limit: int,
) -> tuple[Tokens, list[Fault]]:
    """Measure every row's tokens, so that nothing is cut away or taught wrongly in silence.

    A text is at fault when it is longer than the limit; when the prompt alone is not how the
    whole text begins, or not what serving asks with (`cowest_graph.weak.turns.render`); or when
    a completion does not end with exactly one end-of-turn token.

    Args:
        rows: TRL rows with "prompt", and "completion" or "chosen" and "rejected".
        tokenizer: with a chat template.
        stops: ids of the tokens that end a turn.
        limit: tokens that prompt and completion may have together.

    Returns:
        The measures of all rows, and the faults.

    Raises:
        ValueError: when there is no chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "the model's tokenizer has no chat template, and the rows are messages; "
            "take an instruction-tuned model, or put a chat_template.jinja into its folder"
        )
    faults: list[Fault] = []
    total = longest = prompts = 0
    for number, row in enumerate(rows, start=1):
        prompt = _tokens(tokenizer, row["prompt"], add_generation_prompt=True)
        if _served(tokenizer, row["prompt"]) != prompt:
            said = f"({_asked(row)!r}): serving writes this prompt otherwise than training"
            faults.append(Fault(number, "template", said))
        for part in _PARTS:
            if part not in row:
                continue
            whole = _tokens(tokenizer, [*row["prompt"], *row[part]])
            total, longest = total + len(whole), max(longest, len(whole))
            prompts += len(prompt)
            if found := _fault(tokenizer, prompt, whole, stops, limit):
                kind, said = found
                faults.append(Fault(number, kind, f"({_asked(row)!r}), {part}: {said}"))
    return Tokens(len(rows), total, longest, prompts), faults


def check_rows(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    stops: Collection[int],
    limit: int,
) -> dict[str, int]:
    """`token_faults`, refused.

    Returns:
        The number of rows, of tokens in all, and of the longest text's tokens.

    Raises:
        ValueError: when there is a fault, with the rows' numbers, or no chat template.
    """
    measured, faults = token_faults(rows, tokenizer, stops, limit)
    refuse(faults)
    return {"rows": measured.rows, "tokens": measured.tokens, "longest": measured.longest}


def examined(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    model: PreTrainedModel,
    max_length: int | None,
    *,
    drop: bool,
    note: Callable[[str], None],
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows that can be trained on, numbered in the column "row", and their measures.

    Args:
        rows: TRL rows.
        tokenizer: with a chat template.
        model: a transformers model; its configuration gives stop tokens and the longest text.
        max_length: TRL's; None for the model's own limit alone.
        drop: leave faulty rows out, instead of refusing all.
        note: called with what was found.

    Raises:
        ValueError: when there are faults and they are not dropped, or no row is left.
    """
    limit = min(max_length or 10**9, model.config.get_text_config().max_position_embeddings)
    measured, faults = token_faults(
        rows, tokenizer, stop_tokens(model.generation_config, tokenizer), limit
    )
    faults = [*text_faults(rows), *faults]
    if not drop:
        refuse(faults)
    kept = without([{**row, ROW: number} for number, row in enumerate(rows, start=1)], faults)
    if faults:
        note(dropped(faults, len(rows)))
    note(f"{len(kept)} rows, {measured.tokens} tokens, longest {measured.longest}")
    return kept, {
        "rows": len(kept),
        "tokens": measured.tokens,
        "longest": measured.longest,
        "dropped_rows": len(rows) - len(kept),
    }


def refuse(faults: Sequence[Fault]) -> None:
    """Raise when there are faults, and name them.

    Raises:
        ValueError: with the count of each kind and the first rows.
    """
    if faults:
        raise ValueError(refusal(faults))


def refusal(faults: Sequence[Fault]) -> str:
    """Why rows are refused: the count of each kind, the first rows, what to do."""
    more = f"\n… and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    first = "\n".join(map(str, faults[:_NAMED]))
    return (
        f"{_sum(faults)} cannot be trained on as they are; correct them, or leave them out "
        f"with drop_bad_rows=True (--drop-bad-rows):\n{first}{more}"
    )


def dropped(faults: Sequence[Fault], rows: int) -> str:
    """What was left out, for a log: `3 of 40 rows left out (2 held out, 1 empty): rows 3, …`."""
    bad = sorted({fault.row for fault in faults})
    return f"{len(bad)} of {rows} rows left out ({_kinds(faults)}): rows {', '.join(map(str, bad))}"


def without(rows: Sequence[Any], faults: Sequence[Fault]) -> list[Any]:
    """The rows that have no fault.

    Raises:
        ValueError: when none is left.
    """
    bad = {fault.row for fault in faults}
    if len(bad) == len(rows) and rows:
        raise ValueError(f"no row is left to train on: {dropped(faults, len(rows))}")
    return [row for number, row in enumerate(rows, start=1) if number not in bad]


def stop_tokens(generation_config: Any, tokenizer: Tokenizer) -> set[int]:
    """The ids of the tokens at which generation stops, by the model's own configuration."""
    named = getattr(generation_config, "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return {i for i in (*several, tokenizer.eos_token_id) if i is not None}


def _sum(faults: Sequence[Fault]) -> str:
    bad = len({fault.row for fault in faults})
    return f"{bad} row{'s' * (bad > 1)} ({_kinds(faults)})"


def _kinds(faults: Sequence[Fault]) -> str:
    counted = Counter(fault.kind for fault in faults)
    return ", ".join(f"{number} {KINDS[kind]}" for kind, number in counted.items())


def _fault(
    tokenizer: Tokenizer,
    prompt: list[int],
    whole: list[int],
    stops: Collection[int],
    limit: int,
) -> tuple[str, str] | None:
    if len(whole) > limit:
        said = f"{len(whole)} tokens are more than the {limit} that max_length or the model allows"
        return "cut", said
    if whole[: len(prompt)] != prompt:
        said = "the chat template writes the prompt otherwise alone than before a completion"
        return "template", said
    own = whole[len(prompt) :]
    ends = [at for at, token in enumerate(own) if token in stops]
    if len(ends) != 1:
        said = f"{len(ends)} end-of-turn tokens in the completion, and there must be exactly one"
        return "end", said
    if rest := tokenizer.decode(own[ends[0] + 1 :]).strip():
        return "end", f"text after the end-of-turn token: {rest[:40]!r}"
    return None


def _served(tokenizer: Tokenizer, prompt: Any) -> list[int]:
    from langchain_core.messages import convert_to_messages

    from cowest_graph.weak.turns import render  # here: it brings torch

    return list(render(tokenizer, convert_to_messages(prompt)))


def _tokens(tokenizer: Tokenizer, messages: Any, **options: Any) -> list[int]:
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
    return list(encoded["input_ids"])


def _text(messages: Any) -> str:
    if isinstance(messages, str):
        return messages.strip()
    return "\n".join(str(message.get("content") or "") for message in messages).strip()


def _asked(row: Mapping[str, Any]) -> str:
    text = _text(row["prompt"][-1:]) if row["prompt"] else ""
    return text if len(text) <= 60 else text[:57] + "…"


def _query_of_line(line: str, where: str) -> str:
    if _HASH.fullmatch(line):
        return line
    try:
        query = json.loads(line)["query"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f'{where} is neither {{"query": …}} nor a hash of 64 digits') from None
    return str(query)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
