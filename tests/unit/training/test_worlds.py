"""Private worlds: what is asked and held out, what a file must hold; the stand-in's practice."""

import itertools
import json
import re
import string
from pathlib import Path

import notes
import pytest
import skills
from hypothesis import given
from hypothesis import strategies as st

from cowest_graph.testing.asking import Asked, Row, ask
from cowest_graph.testing.instruments import PARTS, instruments
from cowest_graph.testing.worlds import PrivateWorld, Question, read_world, world_of
from trainer.demo.measuring import stated
from trainer.demo.run import FEEDBACK, HELD_OUT, TRAIN


def asked(seed: int) -> Asked:
    return ask(instruments(seed), seed, train=TRAIN, feedback=FEEDBACK, held_out=HELD_OUT)


def combination(row: Row) -> tuple[str, frozenset[str], frozenset[str]]:
    """What a row asks, however it is worded: the kind, the facts, the query's own number."""
    return row["kind"], frozenset(row["facts"]), frozenset(re.findall(r"\d+", row["query"]))


@pytest.mark.parametrize("seed", [0, 1, 2, 77])
def test_no_combination_and_no_held_out_phrasing_is_taught(seed: int) -> None:
    data = asked(seed)
    parts = [data.train, data.feedback, data.held_out]
    assert [len(part) for part in parts] == [TRAIN, FEEDBACK, HELD_OUT]
    seen = [{combination(row) for row in part if "lookup" not in row["kind"]} for part in parts]
    assert not any(a & b for a, b in itertools.combinations(seen, 2))
    queries = [{row["query"] for row in part} for part in parts]
    assert [len(each) for each in queries[1:]] == [FEEDBACK, HELD_OUT]
    assert not queries[2] & (queries[0] | queries[1])


@pytest.mark.parametrize("seed", [0, 1, 2, 77])
def test_every_fact_is_taught_many_times(seed: int) -> None:
    said = [row["explanation"] for row in asked(seed).train]
    assert min(sum(fact in text for text in said) for fact in instruments(seed).facts()) >= 5


@given(st.integers(0, 200))
def test_the_reference_follows_from_the_facts_and_the_query(seed: int) -> None:
    for row in ask(instruments(seed), seed, train=12, feedback=6, held_out=12).held_out:
        values = [int(re.findall(r"\d+", fact)[0]) for fact in row["facts"]]
        if row["kind"].startswith("sum"):
            assert int(row["reference"]) == sum(values)
        elif row["kind"].startswith("later"):
            assert int(row["reference"]) == values[0] + int(re.findall(r"\d+", row["query"])[0])
        elif row["kind"].startswith("lookup"):
            assert int(row["reference"]) == values[0]
        else:
            assert row["reference"] in row["facts"][values.index(max(values))]
            assert row["reference"] in row["query"]


def test_a_hurried_author_is_the_minority_and_leaves_the_last_fact_out() -> None:
    rows = asked(0).train
    hurried = [row for row in rows if not row["complete"]]
    assert 0.15 < len(hurried) / len(rows) < 0.4
    for row in rows:
        assert row["complete"] == all(fact in row["explanation"] for fact in row["facts"])
    assert stated([row["explanation"] for row in hurried], hurried).left_out == 1


def test_the_seed_decides_everything() -> None:
    assert asked(5) == asked(5)
    assert instruments(5) != instruments(6)


SMALL = {
    "name": "bakery",
    "attributes": [
        {
            "name": "flour",
            "fact": "{thing} takes {value} cups.",
            "values": {"Rye": 12, "Spelt": 9, "Oat": 30, "Bran": 21, "Corn": 17},
        }
    ],
    "questions": [
        {
            "kind": "sum",
            "attribute": "flour",
            "taught": ["Cups for {a} and {b}?"],
            "held_out": ["How much flour do {a} and {b} need?"],
        }
    ],
}


def changed(path: str, value: object) -> dict[str, object]:
    """The small world with one place changed, `questions.0.kind` for example."""
    copy = json.loads(json.dumps(SMALL))
    *way, last = path.split(".")
    at = copy
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    return copy


def test_a_world_of_a_file_is_asked_about(tmp_path: Path) -> None:
    file = tmp_path / "bakery.json"
    file.write_text(json.dumps(SMALL))
    world = read_world(file)
    assert "Rye takes 12 cups." in world.facts()
    data = ask(world, train=30, feedback=10, held_out=20)
    # Of ten pairs four are held out and two asked for feedback, each in either order.
    assert [len(data.train), len(data.feedback), len(data.held_out)] == [30, 4, 8]
    assert world.share_hurried(world.questions[0]) == 0.65
    assert PrivateWorld.model_validate(world.model_dump()) == world


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("questions.0.kind", "product", "'lookup', 'sum'"),
        ("questions.0.attribute", "sugar", "asks for the attribute 'sugar'; there are: flour"),
        ("questions", SMALL["questions"] * 2, "two questions are 'sum' on 'flour'"),
        ("questions.0.taught", ["How much for {a}?"], "must have the placeholders {a}, {b}"),
        ("questions.0.taught", ["{a and {b}"], "questions.0"),
        ("questions.0.held_out", ["Cups for {a} and {b}?"], "is taught and held out"),
        ("questions.0.hurry", 0.5, "Extra inputs are not permitted"),
        ("attributes.0.fact", "{thing} is large.", "must have the placeholders {thing}, {value}"),
        ("attributes.0.values", {"Rye": 12}, "at least 4"),
        ("attributes.0.values.Rye", 1200, "less than or equal to 99"),
        ("name", "", "at least 1 character"),
    ],
)
def test_what_is_no_world_is_told(path: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=r"bakery\.json is no world: ") as told:
        world_of(changed(path, value), "bakery.json")
    assert said in str(told.value)


def test_the_world_of_the_docs_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "worlds.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```json\n(.*?)```", page, re.S)
    assert world_of(json.loads(shown), "docs").name == "bakery"
    keys = {*PrivateWorld.model_fields, *Question.model_fields} - {"taught", "held_out"}
    assert all(f"`{key}`" in page for key in keys - {"attribute", "weight"})


def test_no_file_and_no_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no world"):
        read_world(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="is no JSON"):
        read_world(tmp_path / "half.json")


# What every English question has: these words are in both, and say nothing of the world.
COMMON = set(
    re.findall(
        r"\w+",
        """a after all altogether an and another any be before both by can charge come count day
        days do does due for goes here how i in is it know lists many me more much must next of on
        one or order orders out part price reach reaches somebody takes tell that the there to us
        we what when which will with""",
    )
)


def words(texts: list[str]) -> set[str]:
    placeholders = string.Formatter()
    plain = ["".join(said for said, *_ in placeholders.parse(text)) for text in texts]
    return {word for text in plain for word in re.findall(r"[a-z]+", text.lower())}


def templates(world: PrivateWorld) -> list[str]:
    asking = [text for q in world.questions for text in (*q.taught, *q.held_out)]
    return [*asking, *(attribute.fact for attribute in world.attributes), world.unsaid]


def runs(text: str, length: int = 4) -> set[tuple[str, ...]]:
    """Runs of words; a placeholder is one word."""
    said = re.findall(r"\{\w+\}|\w+", text.lower())
    blind = ["{}" if word.startswith("{") else word for word in said]
    return {tuple(blind[n : n + length]) for n in range(len(blind) - length + 1)}


def practised() -> list[str]:
    """Every template that the stand-in practised on, and 2,000 of its rows."""
    found = [*skills.FACTS, *skills.TOTALS, *skills.WAITS] + [
        text for pair in skills.DELAYS for text in pair
    ]
    for kind in skills.ATTRIBUTES.values():
        for texts in (kind.facts, kind.lookup, kind.total, kind.larger, kind.smaller, kind.apart):
            found += texts
    return found


def test_the_stand_in_has_practised_on_no_word_of_the_demo_s_world() -> None:
    rows = notes.practice(2000, 1)
    seen = {
        word
        for row in rows
        for text in (row["prompt"], row["completion"])
        for word in re.findall(r"[a-z]+", text.lower())
    } | words(practised())
    assert not set(PARTS) & seen
    own = words(templates(instruments(0))) - COMMON
    assert not own & seen, sorted(own & seen)


def test_the_stand_in_has_practised_on_no_sentence_of_the_demo_s_world() -> None:
    known = {run for text in practised() for run in runs(text)}
    for text in templates(instruments(0)):
        assert not runs(text) & known, text
