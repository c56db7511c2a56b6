"""Laws of routes and shadows: shares, what sticks, what ends them; a registry after a crash."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_adapters import peft_folder, snapshot, truncate
from waiting import eventually

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.adapters.choices import Chosen, replayed
from cowest_graph.adapters.folders import check_folder
from cowest_graph.weak.versions import Versions

NAMES = ["v0001", "v0002", "v0003", "v0004"]
shares = st.dictionaries(st.sampled_from([*NAMES, "base"]), st.floats(0.01, 0.25), max_size=4)


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterRegistry:
    """Four versions, the first of them chosen."""
    registry = AdapterRegistry(tmp_path / "adapters")
    source = peft_folder(tmp_path / "trained")
    for _ in NAMES:
        registry.add(source)
    registry.promote("v0001")
    return registry


@given(shares, st.text(max_size=20))
def test_a_key_keeps_its_version_while_a_share_grows(routes: dict[str, float], key: str) -> None:
    routes.pop("v0001", None)
    chosen = Chosen("v0001").route(routes, None)
    mine = chosen.candidate(key)
    assert chosen.candidate(key) == mine
    if routes and mine == min(routes):
        assert chosen.route({**routes, mine: routes[mine] + 0.1}, None).candidate(key) == mine
    if mine is None:
        assert chosen.route({}, None).candidate(key) is None


def test_each_version_gets_its_share(adapters: AdapterRegistry) -> None:
    adapters.route({"v0002": 0.1, "base": 0.3})
    assert adapters.routes == AdapterRegistry(adapters.folder).routes == {"base": 0.3, "v0002": 0.1}
    sticky = Counter(adapters.choose(f"thread {number}") for number in range(5000))
    drawn = Counter(adapters.choose() for _ in range(5000))
    for counted in (sticky, drawn):  # 5 sigmas: a false alarm in two million runs
        assert abs(counted["v0002"] - 500) < 106
        assert abs(counted[None] - 1500) < 162
        assert set(counted) == {"v0001", "v0002", None}


def test_all_drafts_may_go_to_a_candidate(adapters: AdapterRegistry) -> None:
    adapters.route({"v0003": 1.0})
    assert {adapters.choose(str(number)) for number in range(200)} == {"v0003"}
    adapters.route({})
    assert {adapters.choose(str(number)) for number in range(200)} == {"v0001"}


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        ({"v0002": 0.0}, "share of 'v0002' is 0.0"),
        ({"v0002": 1.5}, "share of 'v0002' is 1.5"),
        ({"v0002": float("nan")}, "share of 'v0002' is nan"),
        ({"v0002": 0.6, "v0003": 0.5}, r"more than 1 in all: 0\.6 \+ 0\.5"),
        ({"v0001": 0.1}, "'v0001' is the chosen version"),
        ({"v0009": 0.1}, "no adapter 'v0009'"),
        ({"../x": 0.1}, "cannot name an adapter"),
    ],
)
def test_an_impossible_route_changes_nothing(
    adapters: AdapterRegistry, routes: dict[str, float], says: str
) -> None:
    adapters.route({"v0004": 0.2}, shadow="v0003")
    before = snapshot(adapters.folder)
    with pytest.raises((ValueError, LookupError), match=says):
        adapters.route(routes)
    with pytest.raises(ValueError, match="'v0001' is the chosen version"):
        adapters.route({}, shadow="v0001")
    assert snapshot(adapters.folder) == before
    assert (adapters.routes, adapters.shadow) == ({"v0004": 0.2}, "v0003")


def test_a_promoted_candidate_is_none_any_more_and_others_go_on(adapters: AdapterRegistry) -> None:
    adapters.route({"v0002": 0.1, "v0003": 0.2}, shadow="v0004")
    adapters.promote("v0002")
    assert (adapters.routes, adapters.shadow) == ({"v0003": 0.2}, "v0004")
    adapters.promote("v0004")
    assert (adapters.routes, adapters.shadow) == ({"v0003": 0.2}, None)
    adapters.route({"v0002": 0.5})
    assert adapters.rollback() == "v0002"
    assert adapters.routes == {}
    logged = adapters.history()
    assert [line["action"] for line in logged] == [
        *("promote", "route", "promote", "promote", "route", "rollback")
    ]
    assert logged[1]["routes"] == {"v0002": 0.1, "v0003": 0.2}
    assert [line["shadow"] for line in logged] == [None, "v0004", "v0004", None, None, None]


def test_a_candidate_cannot_be_deleted(adapters: AdapterRegistry) -> None:
    adapters.route({"v0002": 0.1}, shadow="v0003")
    for name in ("v0002", "v0003"):
        with pytest.raises(ValueError, match="candidate"):
            adapters.delete(name)
    adapters.route({})
    adapters.delete("v0002")
    assert adapters.names() == ["v0001", "v0003", "v0004"]


def test_a_candidate_whose_folder_is_gone_gets_no_draft(adapters: AdapterRegistry) -> None:
    adapters.route({"v0002": 1.0})
    (adapters.path("v0002") / "card.json").unlink()
    assert adapters.choose("x") == "v0001"


# --- after a crash ---


def garbled(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "null", "[]", "{}", b"\xff\0", '{"current": 7, "before": []}'),
        '{"current": null, "before": "v1"}',
        '{"current": null, "before": [], "routes": {"a": 2}}',
    ],
)
def test_a_damaged_choice_is_refused_and_repaired(
    adapters: AdapterRegistry, content: str | bytes
) -> None:
    adapters.promote("v0002")
    adapters.route({"v0003": 0.25}, shadow="v0004")
    choice = adapters.folder / "current.json"
    good = choice.read_text()
    choice.write_bytes(garbled(content))
    before = snapshot(adapters.folder)
    for refused in (
        lambda: adapters.current,
        lambda: adapters.choose("x"),
        lambda: adapters.promote("v0001"),
        lambda: adapters.rollback(),
        lambda: adapters.route({"v0003": 0.1}),
        lambda: adapters.delete("v0003"),
    ):
        with pytest.raises(ValueError, match=r"current\.json is damaged .*adapters --repair"):
            refused()
    assert snapshot(adapters.folder) == before
    assert "current.json is damaged" in adapters.damage()[0]
    said = adapters.repair()
    assert choice.read_text() == good
    assert said[1:] == ["in use now: v0002"]
    kept = next(adapters.folder.glob("current.json.damaged-*"))
    assert kept.read_bytes() == garbled(content)
    assert adapters.damage() == adapters.repair() == []
    assert adapters.rollback() == "v0001"


def test_a_torn_line_of_the_history_costs_no_other_line(adapters: AdapterRegistry) -> None:
    adapters.promote("v0002")
    history = adapters.folder / "history.jsonl"
    whole = adapters.history()
    history.write_text(history.read_text() + '{"at": "2026-11-21T', encoding="utf-8")
    adapters.promote("v0003")  # the choice itself is not touched by it
    with pytest.raises(ValueError, match=r"history\.jsonl is damaged in line 3.*--repair"):
        adapters.history()
    assert adapters.add(adapters.path("v0001")) == "v0005"
    adapters.repair()
    assert adapters.history()[:2] == whole
    assert [line["version"] for line in adapters.history()] == ["v0001", "v0002", "v0003"]
    assert adapters.current == "v0003"


def test_no_name_is_given_twice_after_the_history_was_garbled(adapters: AdapterRegistry) -> None:
    adapters.delete("v0004")
    history = adapters.folder / "history.jsonl"
    history.write_bytes(b"\xff{" + history.read_bytes().replace(b"\n", b""))
    assert adapters.add(adapters.path("v0001")) == "v0005"


def test_a_half_copied_folder_is_refused_with_what_to_do(adapters: AdapterRegistry) -> None:
    (adapters.folder / "v0007").mkdir()
    (adapters.folder / "v0007" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    truncate(adapters.path("v0002"))
    before = snapshot(adapters.folder)
    with pytest.raises(LookupError, match=r"v0007 is not whole.*add the adapter again"):
        adapters.promote("v0007")
    for refused in (
        lambda: adapters.promote("v0002"),
        lambda: adapters.route({"v0002": 0.1}),
        lambda: adapters.route({}, shadow="v0002"),
    ):
        with pytest.raises(ValueError, match=r"damaged or cut off.*copy it again"):
            refused()
    assert snapshot(adapters.folder) == before
    assert adapters.current == "v0001"
    assert any("v0002, v0007" in line and "add" in line for line in adapters.damage())


def test_a_chosen_version_that_broke_gives_way_to_the_one_before(adapters: AdapterRegistry) -> None:
    adapters.promote("v0002")
    adapters.promote("v0003")
    adapters.route({"v0004": 0.5})
    truncate(adapters.path("v0003"))
    truncate(adapters.path("v0004"))
    assert any("v0003 is in use" in line for line in adapters.damage())
    assert adapters.repair() == ["in use now: v0002"]
    assert (adapters.current, adapters.routes) == ("v0002", {})
    assert adapters.rollback() == "v0001"


def test_a_copy_that_was_killed_is_cleared_away(adapters: AdapterRegistry) -> None:
    peft_folder(adapters.folder / ".new-abc" / "v0005")
    assert "broke off" in adapters.damage()[0]
    assert adapters.repair() == ["removed a copy that broke off: .new-abc"]
    assert adapters.names() == NAMES
    assert adapters.damage() == []


moves = st.one_of(
    st.tuples(st.just("promote"), st.sampled_from([*NAMES, "base"])),
    st.tuples(st.just("rollback"), st.just("")),
    st.tuples(st.just("route"), shares),
)


@settings(max_examples=25)
@given(st.lists(moves, max_size=8))
def test_the_history_alone_leads_to_the_choice(made: list[tuple[str, object]]) -> None:
    chosen, history = Chosen(), []
    for action, what in made:
        if action == "promote":
            chosen = chosen.promote(None if what == "base" else str(what))
        elif action == "rollback":
            chosen = chosen.rollback()
        else:
            assert isinstance(what, dict)
            now = chosen.current or "base"
            chosen = chosen.route({k: v for k, v in what.items() if k != now}, None)
        line = {"action": action, "version": chosen.current, "routes": dict(chosen.routes)}
        history.append(json.loads(json.dumps({**line, "shadow": chosen.shadow})))
    assert replayed(history, NAMES) == chosen
    assert Chosen.from_json(json.loads(json.dumps(chosen.as_json()))) == chosen


# --- a running model meanwhile ---


def harm_choice(adapters: AdapterRegistry) -> None:
    (adapters.folder / "current.json").write_text("")


def harm_choice_by_half(adapters: AdapterRegistry) -> None:
    choice = adapters.folder / "current.json"
    choice.write_text(choice.read_text()[:20])


def choose_one_that_is_cut_off(adapters: AdapterRegistry) -> None:
    truncate(adapters.path("v0003"))
    choice = {"current": "v0003", "before": ["v0001", "v0002"]}
    (adapters.folder / "current.json").write_text(json.dumps(choice))


def choose_one_that_was_never_there(adapters: AdapterRegistry) -> None:
    (adapters.folder / "current.json").write_text('{"current": "v0042", "before": ["v0002"]}')


@pytest.mark.parametrize(
    "harm",
    [
        harm_choice,
        harm_choice_by_half,
        choose_one_that_is_cut_off,
        choose_one_that_was_never_there,
    ],
)
def test_the_version_in_use_stays_in_use(
    adapters: AdapterRegistry, caplog: pytest.LogCaptureFixture, harm: Callable[[Any], None]
) -> None:
    def read(name: str, path: Path) -> str:
        check_folder(path)
        return name

    serving = Versions(AdapterRegistry(adapters.folder), read, "nothing", every=0.01)
    serving.start()
    try:
        adapters.promote("v0002")
        assert eventually(lambda: serving.serving == "v0002")
        harm(adapters)
        assert eventually(lambda: "still on v0002" in caplog.text)
        assert (serving.serving, serving.choose("thread")) == ("v0002", "v0002")
        assert serving.lease("v0002").result() == "v0002"
        assert adapters.damage()
        adapters.repair()
        assert adapters.current == "v0002"
        adapters.promote("v0004")
        assert eventually(lambda: serving.serving == "v0004")
    finally:
        serving.close()
