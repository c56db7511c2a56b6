"""A router from the command line: fitted from a store, shown, and let in by the gate."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hills import collected, drafted_twice, words

from cowest_graph import TraceStore, exact_match, metric
from cowest_graph.routing import Features, RouterRegistry, Target, examples, fit_router
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


def test_the_gate_lets_a_choice_in_that_is_better_and_no_cheaper(tmp_path: Path) -> None:
    found, scoring = RouterRegistry(tmp_path), metric(exact_match)
    traces = drafted_twice(160)
    taught = examples(traces, evaluator=scoring).examples
    everything = fit_router(
        taught, Target(share=1.0), drafts=2, features=Features(("draft_shape",))
    )
    paid = replace(everything.router.policy, price=0.0, nearest=None, quorum=0.0)
    chooses = found.add(replace(everything.router, policy=paid), everything.card)
    admission = admitted(chooses, found, traces, evaluator=scoring)
    assert admission.cost >= admission.current
    assert admission.better
    assert admission.passed
    assert "(better)" in str(admission)
    found.promote(chooses)
    again = admitted(chooses, found, traces, evaluator=scoring)
    assert again.verdict.passed  # within what may be lost
    assert not again.passed  # though it is neither better nor cheaper than itself


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
