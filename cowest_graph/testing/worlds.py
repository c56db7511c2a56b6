"""A private world as data: things, what is known of each, how one asks; a JSON file.

Knows the file's schema and what a world must hold to be asked about. Knows no model; `asking` makes
the questions, `instruments` draws the demo's own world.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Kind = Literal["lookup", "sum", "difference", "larger", "smaller", "later", "left"]

PLACES: dict[str, set[str]] = {
    "lookup": {"a"},
    "sum": {"a", "b"},
    "difference": {"a", "b"},
    "larger": {"a", "b"},
    "smaller": {"a", "b"},
    "later": {"a", "x"},
    "left": {"a", "x"},
}
"""Kind of question → the placeholders of its phrasings: two things, or a thing and a number."""

Name = Annotated[str, Field(min_length=1, max_length=60)]
Phrasing = Annotated[str, Field(min_length=3, max_length=300)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Attribute(_Strict):
    """A quantity that every one of its things has."""

    name: Name
    fact: Phrasing = Field(description="The sentence that states a value; with {thing}, {value}.")
    values: dict[Name, Annotated[int, Field(ge=1, le=99)]] = Field(
        min_length=4, description="Thing → value. The stand-in practised mostly on 5 to 50."
    )

    @model_validator(mode="after")
    def _placed(self) -> Attribute:
        _holds(f"attribute {self.name!r}", self.fact, {"thing", "value"})
        return self


class Question(_Strict):
    """One kind of question about one attribute, in several phrasings."""

    kind: Kind
    attribute: Name
    taught: list[Phrasing] = Field(
        min_length=1, description="Phrasings of the demonstrations and the feedback queries."
    )
    held_out: list[Phrasing] = Field(
        min_length=1, description="Phrasings of the held-out questions; none of them is taught."
    )
    weight: float = Field(1.0, gt=0, description="Its share among the questions.")
    demonstrated: float | None = Field(
        None, ge=0, description="Its share among the demonstrations; `weight` by default."
    )
    hurried: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of its demonstrations by the hurried author, who leaves a fact out; by "
        "default 0.65 for the last question with two things, 0.1 for the others.",
    )

    @model_validator(mode="after")
    def _placed(self) -> Question:
        for text in (*self.taught, *self.held_out):
            _holds(f"question {self.kind!r} on {self.attribute!r}", text, PLACES[self.kind])
        if both := set(self.taught) & set(self.held_out):
            raise ValueError(f"{sorted(both)[0]!r} is taught and held out; it can be only one")
        return self


class PrivateWorld(_Strict):
    """Things that no general model knows, and what is asked about them.

    Raises:
        ValueError: for what cannot be asked; the message names the place.
    """

    name: Name
    attributes: list[Attribute] = Field(min_length=1)
    questions: list[Question] = Field(min_length=1)
    unsaid: Phrasing = Field(
        "The {thing} is in the records.",
        description="What the hurried author writes in place of a fact; with {thing}.",
    )

    @model_validator(mode="after")
    def _whole(self) -> PrivateWorld:
        _holds("unsaid", self.unsaid, {"thing"})
        names = [attribute.name for attribute in self.attributes]
        if len(set(names)) < len(names):
            raise ValueError(f"two attributes have one name; there are: {', '.join(names)}")
        asked = [(question.kind, question.attribute) for question in self.questions]
        for kind, attribute in set(asked):
            if asked.count((kind, attribute)) > 1:  # what one teaches the other would hold out
                raise ValueError(
                    f"two questions are {kind!r} on {attribute!r}; put their phrasings in one"
                )
        for question in self.questions:
            if question.attribute not in names:
                raise ValueError(
                    f"a question asks for the attribute {question.attribute!r}; there are: "
                    f"{', '.join(names)}"
                )
        return self

    def attribute(self, name: str) -> Attribute:
        """The attribute of that name."""
        return next(attribute for attribute in self.attributes if attribute.name == name)

    def share_hurried(self, question: Question) -> float:
        """The share of a question's demonstrations that leave a fact out."""
        if question.hurried is not None:
            return question.hurried
        told = any(q.hurried is not None for q in self.questions)
        two = [q for q in self.questions if "b" in PLACES[q.kind]]
        return 0.65 if not told and two and question is two[-1] else 0.1

    def facts(self) -> list[str]:
        """Every fact as its sentence."""
        return [
            attribute.fact.format(thing=thing, value=value)
            for attribute in self.attributes
            for thing, value in attribute.values.items()
        ]


def read_world(path: Path) -> PrivateWorld:
    """A world from its JSON file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no JSON, or no world; the message names the first place.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no world {path}; give a JSON file (docs/worlds.md has its schema)"
        )
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    return world_of(plain, str(path))


def world_of(plain: Any, source: str) -> PrivateWorld:
    """A world from plain data.

    Args:
        plain: what the JSON file holds.
        source: named in the error.

    Raises:
        ValueError: when it is no world.
    """
    try:
        return PrivateWorld.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{source} is no world: {place}: {said}{more}") from None


def _holds(place: str, text: str, wanted: set[str]) -> None:
    """Refuse a text whose placeholders are not the wanted ones."""
    try:
        found = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"{place}: {text!r}: {error}") from None
    if found != wanted:
        braced = ", ".join(f"{{{name}}}" for name in sorted(wanted))
        raise ValueError(f"{place}: {text!r} must have the placeholders {braced} and no others")
