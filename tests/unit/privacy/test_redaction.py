"""What a store writes of a text: nothing that its hook takes out, in no field, whatever fails."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import planted

from cowest_graph import Trace, TraceStore, create_collaboration, create_collector
from cowest_graph.masking import (
    NotRedacted,
    Redaction,
    masked_error,
    presidio,
    redaction_of,
    redactor,
)
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Attempt, Token, trace_key

ADA = "ada@example.org"


def without_ada(text: str) -> str:
    return text.replace(ADA, "[MAIL]").replace("Ada", "[NAME]")


def failing(text: str) -> str:
    if "Ada" in text:
        raise RuntimeError(f"no model for {text}")
    return text


@pytest.fixture
def store() -> Any:
    with TraceStore(":memory:", redact=without_ada) as opened:
        yield opened


class TestDetectors:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("email", ADA),
            ("credit_card", "4111 1111 1111 1111"),
            ("ip", "192.168.7.13"),
            ("mac_address", "00:1b:44:11:3a:b7"),
            ("url", "https://example.org/u?id=7"),
        ],
    )
    def test_langchain_s_are_known_by_name(self, name: str, value: str) -> None:
        assert redactor(name)(f"it is {value} I think") == (
            f"it is [REDACTED_{name.upper()}] I think"
        )

    def test_an_unknown_name_is_refused_with_those_that_there_are(self) -> None:
        with pytest.raises(ValueError, match="no detector 'mail'; there are: email, credit_card"):
            redaction_of(["mail"])

    def test_what_is_no_function_is_refused(self) -> None:
        with pytest.raises(ValueError, match="a hook is a function from text to text, not 7"):
            redactor("email", 7)  # type: ignore[arg-type]

    def test_with_a_key_the_same_is_written_the_same_and_others_otherwise(self) -> None:
        hook = redactor("email", key="a key of ours")
        assert hook(ADA) == hook(ADA) != hook("bob@example.org")
        assert hook(ADA) != redactor("email", key="another key")(ADA)
        assert "ada" not in hook(ADA)

    @given(st.text(st.sampled_from("ab1.@:/-[] 4é"), max_size=40))
    def test_what_was_redacted_once_stays_as_it_is(self, text: str) -> None:
        hook = redactor("email", "credit_card", "ip", "mac_address", "url")
        assert hook(hook(text)) == hook(text)

    def test_presidio_s_findings_are_written_over_where_they_overlap_once(self) -> None:
        """With an analyzer of its interface; Presidio itself is not installed here."""

        class Analyzer:
            def analyze(self, text: str, language: str, **asked: Any) -> list[Any]:
                found = []
                for name, kind in [("Ada Lovelace", "PERSON"), ("Lovelace", "LOCATION")]:
                    if (start := text.find(name)) >= 0:
                        end = start + len(name)
                        found.append(SimpleNamespace(start=start, end=end, entity_type=kind))
                return found

        assert presidio(Analyzer())("Ask Ada Lovelace now") == "Ask [REDACTED_PERSON] now"


class TestTraces:
    def test_no_field_keeps_what_the_hook_takes_out(self, store: TraceStore) -> None:
        trace = planted(ADA)
        store.record(trace)
        (stored,) = list(store)
        assert ADA not in stored.model_dump_json()
        assert stored.attempts[0].draft == "[MAIL]"
        assert stored.history == [{"role": "user", "content": [{"type": "text", "text": "[MAIL]"}]}]

    def test_the_words_of_the_form_are_not_shown_to_the_hook(self) -> None:
        with TraceStore(":memory:", redact=lambda text: "***") as store:
            store.record(planted("anything"))
            (stored,) = list(store)
        assert stored.kind == "collection"
        assert stored.attempts[0].calls[0].role == "draft"
        assert stored.history == [{"role": "user", "content": [{"type": "text", "text": "***"}]}]

    def test_a_field_that_is_spared_is_kept(self) -> None:
        redaction = Redaction(without_ada, spare=["user"])
        with TraceStore(":memory:", redact=redaction) as store:
            store.record(Trace(query="Ada", user="Ada", history=[{"role": "x", "user": "Ada"}]))
            (stored,) = list(store.query(user="Ada"))
        assert (stored.query, stored.user) == ("[NAME]", "Ada")
        assert stored.history == [{"role": "x", "user": "[NAME]"}]

    @pytest.mark.parametrize(
        ("tokens", "draft", "kept"),
        [
            (["Hel", "lo"], "Hello", True),
            (["A", "da"], "Ada", False),
            (["A", "da", "!"], "!", False),  # what was thought before the draft
            (["ĠA", "da"], "Hello", False),
        ],
    )
    def test_a_redacted_draft_is_not_told_by_its_tokens(
        self, store: TraceStore, tokens: list[str], draft: str, kept: bool
    ) -> None:
        said = [Token(token=token, id=number) for number, token in enumerate(tokens)]
        store.record(Trace(query="x", attempts=[Attempt(index=0, draft=draft, tokens=said)]))
        (stored,) = list(store)
        assert (stored.attempts[0].tokens is not None) is kept

    def test_a_query_that_is_taken_out_whole_is_still_one(self) -> None:
        with TraceStore(":memory:", redact=lambda text: "") as store:
            store.record(Trace(query="Ada"))
            assert next(iter(store)).query == "***"

    def test_what_was_redacted_once_is_stored_again_as_it_is(self, store: TraceStore) -> None:
        store.record(planted(ADA))
        (stored,) = list(store)
        store.record(stored)
        assert list(store) == [stored]


class TestIdentity:
    def test_a_key_is_of_the_redacted_texts(self, store: TraceStore) -> None:
        trace = Trace(query=f"Who is {ADA}?")
        store.record(trace)
        (stored,) = list(store)
        identity = {name: getattr(stored, name) for name in _identity()}
        assert stored.key == trace_key(**identity) != trace.key
        assert store.key_of({**identity, "query": trace.query}) == stored.key

    def test_a_key_without_anything_to_redact_is_what_it_was(self, store: TraceStore) -> None:
        trace = Trace(query="6 + 1?")
        store.record(trace)
        assert store.get(trace.key) == trace

    def test_a_key_of_chance_stays(self, store: TraceStore) -> None:
        store.record(Trace(query="Ada", key="0" * 32, kind="inference"))
        assert store.get("0" * 32) is not None

    def test_queries_that_differ_in_what_is_redacted_are_one_without_a_key(self) -> None:
        def keys(store: TraceStore) -> set[str]:
            for who in (ADA, "bob@example.org"):
                store.record(Trace(query=f"Who is {who}?"))
            return {trace.key for trace in store}

        with TraceStore(":memory:", redact="email") as store:
            assert len(keys(store)) == 1
        with TraceStore(":memory:", redact=redactor("email", key="k")) as store:
            assert len(keys(store)) == 2

    def test_a_collection_goes_on_by_the_redacted_key(self, tmp_path: Path) -> None:
        asked: list[str] = []

        class Weak(ScriptedModel):
            def _generate(self, messages: Any, *rest: Any, **more: Any) -> Any:
                asked.append(str(messages[-1].content))
                return super()._generate(messages, *rest, **more)

        def collected() -> Any:
            with TraceStore(tmp_path / "t.db", redact=without_ada) as store:
                collector = create_collector(
                    Weak(["a draft for Ada"]),
                    ScriptedModel(["Answer: Ada"]),
                    evaluator=lambda **_: {"score": 1.0},
                    traces=store,
                    num_drafts=2,
                ).compile()
                found = collector.invoke({"query": "Who is Ada?", "reference": "Ada"})
                assert store.get(found["key"]) == Trace.model_validate(found["trace"])
                assert len(store) == 1
                return found

        first = collected()
        assert asked == ["Who is Ada?"] * 2  # the models see the original
        assert collected()["key"] == first["key"]
        assert len(asked) == 2  # and are not asked again


class TestFailure:
    def test_a_hook_that_raises_costs_no_answer_and_lets_nothing_through(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with TraceStore(tmp_path / "t.db", redact=failing) as store:
            graph = create_collaboration(
                ScriptedModel(["draft"]), ScriptedModel(["Answer: 7"]), traces=store
            ).compile()
            with caplog.at_level(logging.INFO):
                assert graph.invoke({"query": "Ada asks"})["answer"].content == "Answer: 7"
            assert len(store) == 0
            assert sum(each.lost for each in store.traffic().values()) == 1
            assert store.redaction.refused >= 1
        assert "the redact hook raised RuntimeError" in caplog.text
        assert "Ada" not in caplog.text
        assert all(b"Ada" not in path.read_bytes() for path in tmp_path.iterdir())

    def test_a_recorded_trace_is_refused_without_its_text(self) -> None:
        with (
            TraceStore(":memory:", redact=failing) as store,
            pytest.raises(NotRedacted) as refused,
        ):
            store.record(Trace(query="Ada asks"))
        assert "Ada" not in str(refused.value)
        assert refused.value.__context__ is None
        assert refused.value.__cause__ is None

    def test_a_hook_that_returns_no_text_is_a_failure(self) -> None:
        with pytest.raises(NotRedacted, match="returned a NoneType"):
            Redaction(lambda text: None).text("x")  # type: ignore[arg-type,return-value]

    def test_a_journalled_part_is_left_out_and_the_call_stands(self) -> None:
        with TraceStore(":memory:", redact=failing) as store:
            store.remember("k", "solo", {"text": "Ada", "calls": []})
            store.remember("k", "draft/0", {"text": "Bob", "calls": []})
            assert list(store.finished("k")) == ["draft/0"]
            assert store.redaction.refused == 1

    def test_an_export_leaves_out_what_cannot_be_redacted(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/t.db"
        with TraceStore(url) as store:
            store.record(Trace(query="Ada"))
            store.record(Trace(query="Bob"))
        with TraceStore(url, redact=failing) as store:
            assert store.to_jsonl(tmp_path / "out.jsonl") == 1
        assert "Ada" not in (tmp_path / "out.jsonl").read_text()


class TestElsewhere:
    def test_the_spool_is_redacted_before_it_is_written(self, tmp_path: Path) -> None:
        with TraceStore(tmp_path / "t.db", redact=without_ada) as store:
            with store._database.transaction(writes=True) as connection:
                connection.exec_driver_sql("alter table traces rename to gone")
            assert not store.offer(Trace(query=f"Ada, {ADA}", kind="inference"))
            spool = (tmp_path / "t.db.spool.jsonl").read_text()
        assert json.loads(spool)["query"] == "[NAME], [MAIL]"

    def test_an_older_store_s_traces_are_exported_redacted(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/t.db"
        with TraceStore(url) as store:
            store.record(planted(ADA))
        with TraceStore(url, redact=without_ada) as store:
            store.to_jsonl(tmp_path / "out.jsonl")
        assert ADA not in (tmp_path / "out.jsonl").read_text()

    def test_feedback_is_redacted(self, store: TraceStore) -> None:
        store.feedback(
            run_id=ADA, key=ADA, value={ADA: [ADA]}, comment=ADA, correction=ADA, source=ADA
        )
        (said,) = store.feedbacks()
        assert ADA not in said.model_dump_json()

    def test_errors_that_are_told_are_redacted_while_the_store_is_open(self) -> None:
        with TraceStore(":memory:", redact=without_ada):
            assert masked_error(ValueError(f"no {ADA}")) == "no [MAIL]"
        assert masked_error(ValueError(f"no {ADA}")) == f"no {ADA}"

    def test_an_error_is_not_told_where_the_hook_fails(self) -> None:
        with TraceStore(":memory:", redact=failing):
            assert "Ada" not in masked_error(ValueError("Ada is missing"))


def _identity() -> tuple[str, ...]:
    from cowest_graph.traces.records import IDENTITY

    return IDENTITY


def test_the_planted_trace_has_every_text_field() -> None:
    """A field that is added to a trace is planted here, too."""
    told = planted(ADA).model_dump()
    scores = ("_score", "_score_se")
    plain = {"schema_version", "created_at", "kind", "num_drafts", "key", "exploration"}
    lacking = [
        name
        for name, value in told.items()
        if name not in plain and not name.endswith(scores) and ADA not in str(value)
    ]
    assert lacking == []
