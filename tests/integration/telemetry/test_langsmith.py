"""Feedback that goes to LangSmith, by its own client and over a socket."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langsmith import Client
from langsmith.utils import LangSmithAuthError
from langsmith_server import LangSmith, langsmith

from cowest_graph import TraceStore, create_collaboration, exact_match, metric
from cowest_graph.masking import learn
from cowest_graph.telemetry.langsmith import push_feedback
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import PAIR, wrong_pair
from trainer.cli import run

RUN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def server() -> Iterator[LangSmith]:
    with langsmith({RUN}) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with TraceStore(tmp_path / "traces.db") as found:
        weak, strong = ScriptedModel(["Answer: B12"]), ScriptedModel(["Answer: B12"])
        graph = create_collaboration(
            weak, strong, traces=found, evaluator=metric(exact_match)
        ).compile()
        graph.invoke({"query": "Which?", "reference": "B12"}, {"run_id": uuid.UUID(RUN)})
        yield found


def client_of(server: LangSmith, key: str | None = None) -> Client:
    return Client(api_url=server.url, api_key=key or server.key, auto_batch_tracing=False)


def test_feedback_of_a_run_and_of_its_trace_arrives_once_however_often_it_is_sent(
    server: LangSmith, store: TraceStore
) -> None:
    learn("PLANTED-SECRET")
    (trace,) = store
    store.feedback(run_id=RUN, key="thumbs", score=1, source="ada")
    store.feedback(trace_key=trace.key, key="right", correction="B9", comment="no PLANTED-SECRET")
    store.feedback(trace_key=trace.key, key="tags", value=["a", "b"])
    store.feedback(trace_key=trace.key, key=PAIR, value=wrong_pair(0, 1))
    for _ in range(2):
        pushed = push_feedback(store, client_of(server), project="my-app")
        assert (pushed.sent, pushed.without_run, pushed.unknown) == (3, 0, 0)
    assert server.posts == 6
    said = {each["key"]: each for each in server.feedback.values()}
    assert len(server.feedback) == len(said) == 3
    assert {each["run_id"] for each in said.values()} == {RUN}
    assert {each["session_id"] for each in said.values()} == {server.project}
    assert said["thumbs"]["score"] == 1
    assert said["thumbs"]["feedback_source"]["metadata"]["source"] == "ada"
    assert said["right"]["correction"] == {"answer": "B9"}
    assert said["right"]["comment"] == "no ***"
    assert said["tags"]["value"] == {"value": ["a", "b"]}


def test_what_has_no_run_there_is_counted_and_the_rest_is_sent(
    server: LangSmith, store: TraceStore
) -> None:
    store.feedback(trace_key="nobody", key="thumbs", score=0)
    store.feedback(run_id="run-1", key="thumbs", score=0)
    store.feedback(run_id=str(uuid.uuid4()), key="thumbs", score=0)
    store.feedback(run_id=RUN, key="thumbs", score=1)
    pushed = push_feedback(store, client_of(server), project="my-app")
    assert (pushed.sent, pushed.without_run, pushed.unknown) == (1, 2, 1)


def test_only_what_was_said_since_is_sent(server: LangSmith, store: TraceStore) -> None:
    store.feedback(run_id=RUN, key="thumbs", score=1)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert push_feedback(store, client_of(server), project="my-app", since=later).sent == 0


def test_where_there_is_nothing_to_send_nobody_is_asked(store: TraceStore) -> None:
    nowhere = Client(api_url="http://127.0.0.1:9", api_key="k", auto_batch_tracing=False)
    assert push_feedback(store, nowhere, project="my-app").sent == 0


def test_a_refused_key_is_told(server: LangSmith, store: TraceStore) -> None:
    store.feedback(run_id=RUN, key="thumbs", score=1)
    with pytest.raises(LangSmithAuthError):
        push_feedback(store, client_of(server, "lsv2_wrong"), project="my-app")


def test_the_verb_sends_it(
    server: LangSmith,
    store: TraceStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    store.feedback(run_id=RUN, key="thumbs", score=1)
    monkeypatch.setenv("LANGSMITH_ENDPOINT", server.url)
    monkeypatch.setenv("LANGSMITH_API_KEY", server.key)
    monkeypatch.setenv("COWEST_TRACES_URL", f"sqlite:///{tmp_path}/traces.db")
    assert run(["push-feedback", "--project", "my-app", "--gains"]) == 0
    assert "sent 1 pieces" in capsys.readouterr().out
