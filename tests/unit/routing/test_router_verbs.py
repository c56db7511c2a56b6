"""A router from the command line: fitted from a store, shown, and let in by the gate."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hills import collected, words

from cowest_graph import TraceStore, exact_match, metric
from cowest_graph.routing import RouterRegistry, Target
from trainer.cli import run
from trainer.gate import Gate
from trainer.routing import admitted, fit_from

# Read without the embedding model: words and shapes are enough here.
pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with TraceStore(f"sqlite:///{tmp_path}/traces.db") as traces:
        for trace in collected(160):
            traces.record(trace)
    return tmp_path


def routers(folder: Path, **settings: Any) -> tuple[RouterRegistry, str]:
    found = RouterRegistry(folder / "routers")
    with TraceStore(f"sqlite:///{folder}/traces.db") as traces:
        name = fit_from(
            traces,
            Target(quality=0.98),
            found,
            evaluator=metric(exact_match),
            embed=words,
            say=lambda _: None,
            **settings,
        )
    return found, name


def test_it_is_kept_with_figures_of_what_it_never_saw(store: Path) -> None:
    found, name = routers(store)
    card = found.card(name)
    metrics = card["metrics"]
    assert metrics["queries"] == card["queries"]["test"] > 10
    assert set(metrics["curves"]) == {"router", "query alone (RouteLLM)"}
    assert metrics["curves"]["router"]["area"]["low"] > 0
    assert card["of"] == {"weak": [], "weak_version": [], "strong": []}
    assert card["versions"]["scikit-learn"]
    assert found.current is None


def test_the_gate_lets_a_cheaper_router_in_and_a_worse_one_not(store: Path) -> None:
    found, name = routers(store)
    scoring = metric(exact_match)
    given: dict[str, Any] = {"evaluator": scoring, "gate": Gate(margin=-0.2), "embed": words}
    with TraceStore(f"sqlite:///{store}/traces.db") as traces:
        admission = admitted(name, found, traces, **given)
        assert admission.passed
        assert admission.cost < admission.current
        router = found.load(name, embed=words)
        policy = type(router.policy)(**{**vars(router.policy), "price": float("inf")})
        always = type(router)(
            router.features, router.scorers, policy, known=router.known, embed=router.embed
        )
        cheap = found.add(always, found.card(name))
        refused = admitted(cheap, found, traces, **given)
        assert not refused.passed
        assert refused.cost == 0
        found.promote(name)
        same = admitted(name, found, traces, **given)
        assert not same.passed  # it is no cheaper than itself
        nothing, blind = routers(store, test=0.0)
        with pytest.raises(ValueError, match="no query was held out"):
            admitted(blind, nothing, traces, evaluator=scoring)


def test_the_verbs_show_and_choose(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, name = routers(store)
    monkeypatch.chdir(store)
    (store / "cowest.toml").write_text('[evaluator]\nkind = "exact_match"\n')
    assert run(["router", "show"]) == 2
    assert "no router is in use" in capsys.readouterr().err
    assert run(["router", "show", name, "--to", "router.html"]) == 0
    told = capsys.readouterr().out
    assert "always both" in told
    assert "RouteLLM" in told
    page = (store / "router.html").read_text()
    assert "<svg" in page
    assert not re.search(r"(src|href)=.http", page)
    assert run(["router", "promote", name, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"current": name}
    assert run(["router", "rollback"]) == 0
    assert "no router" in capsys.readouterr().out
    assert run(["router", "fit"]) == 2
    assert "one of quality, share, budget" in capsys.readouterr().err
