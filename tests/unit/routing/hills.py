"""A world in which the right way can be read off a query or a draft, and an embedding of words."""

from __future__ import annotations

import random
import zlib
from typing import Any

import numpy as np

from cowest_graph.traces import Attempt, Call, Route, Trace

TOWNS = ("Aal", "Birk", "Coln", "Dorn", "Esk", "Fjord", "Gran", "Holt", "Iver", "Jarl")


def words(texts: list[str]) -> Any:
    """A vector of hashed words a text; offline, and without a model."""
    table = np.zeros((len(texts), 64))
    for row, text in enumerate(texts):
        for word in text.lower().split():
            table[row, zlib.crc32(word.strip("?.,").encode()) % 64] += 1.0
    return table + 1e-6


def calls(role: str, tokens: int) -> list[Call]:
    return [Call(role=role, input_tokens=tokens - 10, output_tokens=10)]


def collected(count: int = 120, seed: int = 0) -> list[Trace]:
    """Collections: simple questions the weak model answers itself, sums it leaves half done."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        simple = number % 2 == 0
        one, other = draw.sample(TOWNS, 2)
        height, more = draw.randrange(100, 900), draw.randrange(100, 900)
        total = height if simple else height + more
        asked = f"How high is {one}?" if simple else f"How high are {one} and {other} together?"
        said = str(total) if simple else str(total + draw.randrange(8))
        lines = f"{one} is {height} high." + ("" if simple else f" {other} is {more} high.")
        found.append(
            Trace(
                query=f"{asked} (map {number})",
                reference=str(total),
                domain="towns",
                solo="Answer: I do not know",
                solo_score=0.0,
                calls=calls("solo", 60),
                attempts=[
                    Attempt(
                        index=0,
                        draft=f"Explanation: {lines}\nAnswer: {said}",
                        answer=f"Answer: {total}",
                        score=1.0,
                        calls=[*calls("draft", 50), *calls("refine", 100)],
                    )
                ],
            )
        )
    return found


def routed(way: Any, propensity: float, query: str, **fields: Any) -> Trace:
    """A query of real traffic."""
    route = Route(way=way, propensity=propensity, router="r0001")
    return Trace(kind="inference", query=query, reference="7", route=route, **fields)


def drafted_twice(count: int = 120, seed: int = 0) -> list[Trace]:
    """Collections of sums with two drafts, of which the one that names both heights helps.

    Which of the two comes first is left to chance.
    """
    draw = random.Random(seed)
    found = []
    for number in range(count):
        one, other = draw.sample(TOWNS, 2)
        height, more = draw.randrange(100, 900), draw.randrange(100, 900)
        full = f"Explanation: {one} is {height} high. {other} is {more} high.\nAnswer: 7"
        half = f"Explanation: {one} is {height} high. {other} is on the map.\nAnswer: 7"
        said = draw.sample([(full, 1.0), (half, 0.0)], 2)
        found.append(
            Trace(
                query=f"How high are {one} and {other} together? (map {number})",
                reference=str(height + more),
                domain="towns",
                num_drafts=2,
                solo="Answer: I do not know",
                solo_score=0.0,
                calls=calls("solo", 60),
                attempts=[
                    Attempt(
                        index=index,
                        draft=draft,
                        answer="Answer: 0",
                        score=score,
                        calls=[*calls("draft", 50), *calls("refine", 100)],
                    )
                    for index, (draft, score) in enumerate(said)
                ],
            )
        )
    return found
