"""Versions of a router: kept, chosen, followed, damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hills import collected, words

from cowest_graph import exact_match, metric
from cowest_graph.routing.fitting import Fitted, fit_router
from cowest_graph.routing.lessons import Taught, examples
from cowest_graph.routing.registry import FollowingRouter, RouterRegistry
from cowest_graph.routing.router import ARRAYS, SPEC, Router
from cowest_graph.routing.seen import Seen
from cowest_graph.routing.targets import Target

SIMPLE = Seen("How high is Aal? (map 900)", "towns", "Explanation: Aal is 412 high.\nAnswer: 412")
SUM = Seen(
    "How high are Aal and Esk together? (map 901)",
    "towns",
    "Explanation: Aal is 412 high. Esk is 200 high.\nAnswer: 615",
)


def taught(count: int = 120, seed: int = 0) -> Taught:
    return examples(collected(count, seed), evaluator=metric(exact_match))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_router(taught().examples, Target(quality=0.98), embed=words)


# --- kept ---


def test_a_version_decides_as_it_did_before_it_was_kept(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path / "routers")
    name = routers.add(fitted.router, fitted.card)
    again = routers.load(name, embed=words)
    for seen in (SIMPLE, SUM):
        ours, theirs = fitted.router.decide(seen, "k"), again.decide(seen, "k")
        assert ours.way == theirs.way
        assert theirs.router == name == "r0001"
        assert ours.expected == pytest.approx(theirs.expected)
    card = routers.card(name)
    assert card["queries"]["test"] > 0
    assert card["target"]["quality"] == 0.98
    assert not {each.suffix for each in routers.path(name).iterdir()} - {".json", ".safetensors"}


def test_promote_then_rollback_is_identity(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    first, second = (routers.add(fitted.router, fitted.card) for _ in range(2))
    assert (first, second, routers.current) == ("r0001", "r0002", None)
    routers.promote(first)
    routers.promote(second)
    assert routers.rollback() == first == routers.current
    routers.promote("none")
    assert routers.current is None
    with pytest.raises(LookupError, match="there are: r0001, r0002"):
        routers.promote("r0009")
    with pytest.raises(LookupError):
        routers.promote("../r0001")
    with pytest.raises(ValueError, match="taken"):
        routers.add(fitted.router, fitted.card, name="r0001")
    with pytest.raises(ValueError, match="cannot name"):
        routers.add(fitted.router, fitted.card, name="../x")


def test_a_running_graph_follows_the_choice(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    following = FollowingRouter(routers, after_draft=True, embed=words)
    assert following.decide(SIMPLE, "k").way == "both"
    routers.promote(routers.add(fitted.router, fitted.card))
    assert following.decide(SIMPLE, "k").way == "weak"
    other = fit_router(taught().examples, Target(quality=0.98), moment="before", embed=words)
    routers.promote(routers.add(other.router, other.card))
    assert following.decide(SIMPLE, "k").way == "both"  # decides at another moment
    routers.rollback()
    assert following.decide(SIMPLE, "k").router == "r0001"


def test_a_damaged_version_is_told_and_never_chosen(fitted: Fitted, tmp_path: Path) -> None:
    routers = RouterRegistry(tmp_path)
    name = routers.add(fitted.router, fitted.card)
    folder = routers.path(name)
    spec, arrays = (folder / SPEC).read_text(), (folder / ARRAYS).read_bytes()

    def changed(**parts: Any) -> None:
        (folder / SPEC).write_text(json.dumps({**json.loads(spec), **parts}))

    def cut() -> None:
        (folder / ARRAYS).write_bytes(arrays[: len(arrays) // 2])

    for damage in (
        lambda: changed(format=99),
        lambda: changed(policy={"costs": {"weak": 0.0}, "fallback": "both"}),
        lambda: changed(features={"groups": ["query_shape"], "domains": [], "embedding": "x"}),
        lambda: (folder / SPEC).write_text("{"),
        cut,
    ):
        (folder / SPEC).write_text(spec)
        (folder / ARRAYS).write_bytes(arrays)
        damage()
        with pytest.raises(ValueError, match="no router that can be read"):
            Router.load(folder)
        with pytest.raises(ValueError):
            routers.promote(name)
    assert routers.current is None
