"""No secret leaves in any form, and no other text is changed."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from cowest_graph import Trace, TraceStore, create_collaboration, create_collector, judge
from cowest_graph.calls import failed_call
from cowest_graph.masking import (
    learn,
    learn_environment,
    learn_from,
    learn_url,
    masked,
    masked_data,
    masked_error,
)
from cowest_graph.replies import as_message
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces.databases import Database

SECRET = 'pä"ss/w+rd=1&2@home'


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS = {
    "plain": SECRET,
    "percent": quote(SECRET, safe=""),
    "percent, slash kept": quote(SECRET),
    "plus": quote_plus(SECRET),
    "twice": quote(quote(SECRET, safe=""), safe=""),
    "JSON": json.dumps(SECRET)[1:-1],
    "JSON, not ASCII": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "JSON in JSON": json.dumps(json.dumps(SECRET))[3:-3],
    "HTML": html.escape(SECRET),
    "repr": repr(SECRET)[1:-1],
    "base64": basic(SECRET),
    "Basic, as user": basic(f"{SECRET}:"),
    "Basic, as password": basic(f":{SECRET}"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_secret_is_masked_in_every_form(form: str) -> None:
    learn(SECRET)
    assert masked(f"it said {form}, twice {form}") == "it said ***, twice ***"
    assert masked_data({"a": [form, 1, None], form: {"b": form}}) == {
        "a": ["***", 1, None],
        "***": {"b": "***"},
    }


@given(st.text(max_size=80))
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    learn("a-secret-that-no-text-has-4711")
    assert masked(text) == text or SECRET in text


@pytest.mark.parametrize("short", ["x", "none", "EMPTY", "secret", ""])
def test_what_is_too_short_for_a_secret_masks_no_word(short: str) -> None:
    learn(short, None, SecretStr(short))
    assert masked(f"the word {short} stays") == f"the word {short} stays"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:tr0ub4dor&3x@host/v1",
        "postgresql+psycopg://me:tr0ub4dor&3x@host/d",
        "https://host/v1?api_key=tr0ub4dor%263x&page=2",
        "https://host/v1?x=1&token=tr0ub4dor%263x",
        "https://tr0ub4dor&3x@host/v1",
    ],
)
def test_userinfo_and_query_tokens_of_a_url_are_secrets(url: str) -> None:
    learn_url(url)
    assert masked("tr0ub4dor&3x; tr0ub4dor%263x; me, host, page=2") == "***; ***; me, host, page=2"


def test_the_basic_form_of_userinfo_is_a_secret() -> None:
    learn_url("https://somebody:somewhat-long@host/v1")
    assert masked(f"Basic {basic('somebody:somewhat-long')}") == "Basic ***"


@pytest.mark.parametrize("password", ["p@sswo@rd-long", "with/slash-long"])
def test_a_password_with_a_sign_that_is_not_encoded_is_whole(password: str) -> None:
    learn_url(f"postgresql://me:{password}@host/database")
    assert masked(f"FATAL: {password}") == "FATAL: ***"
    assert masked("host/database") == "host/database"


def test_the_environment_s_keys_are_known_by_their_names() -> None:
    learn_environment(
        {
            "SOME_API_KEY": "key-of-environment-1",
            "PGPASSWORD": "key-of-environment-2",
            "HTTPS_PROXY": "http://me:key-of-environment-3@proxy:1",
            "GREETING": "a word that stays",
        }
    )
    said = "key-of-environment-1 key-of-environment-2 key-of-environment-3 a word that stays"
    assert masked(said) == "*** *** *** a word that stays"


def test_what_a_model_was_made_with_is_known() -> None:
    model = ChatOpenAI(
        model="m",
        api_key=SecretStr("key-of-the-client-1"),
        base_url="http://me:key-of-the-client-2@127.0.0.1:9/v1?token=key-of-the-client-3",
        default_headers={"Authorization": "Bearer key-of-the-client-4"},
    )
    learn_from(model.bind(temperature=0) | RunnableLambda(lambda reply: reply))
    for number in (1, 2, 3, 4):
        assert masked(f"key-of-the-client-{number}") == "***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Incorrect key sk-proj-abcdefghijklmnop1234", "Incorrect key sk-***"),
        ("{'Authorization': 'Bearer abcdefgh12345678'}", "{'Authorization': 'Bearer ***'}"),
        ("at postgresql://me:pw@host/d", "at postgresql://me:***@host/d"),
        ("at postgresql://me:p@w@host/d", "at postgresql://me:***@host/d"),
        ("at http://127.0.0.1:80/v1?mail=a@b", "at http://127.0.0.1:80/v1?mail=a@b"),
        ("a risk-free basic answer: Bearer", "a risk-free basic answer: Bearer"),
    ],
)
def test_an_error_loses_what_looks_like_a_key(text: str, expected: str) -> None:
    assert masked_error(text) == masked_error(ValueError(text)) == expected


# --- nothing is cut before it is masked ---

LONG = "a-very-long-key-" + "0123456789" * 4


@pytest.mark.parametrize("at", range(440, 500, 7))
def test_a_key_at_the_cut_of_an_error_is_whole_when_it_is_masked(at: int) -> None:
    learn(LONG)
    error = failed_call("draft", ValueError("x" * at + LONG + "y" * 99))["error"]
    assert "a-very-long-key" not in str(error)


@pytest.mark.parametrize("at", range(140, 200, 7))
def test_a_key_at_the_cut_of_a_judge_s_words_is_whole_when_it_is_masked(at: int) -> None:
    learn(LONG)
    judging = judge(ScriptedModel(["x" * at + LONG + "y" * 99]))
    asked: Any = {
        "inputs": {"query": "?"},
        "outputs": {"text": "!", "answer": "!"},
        "reference_outputs": {"reference": "."},
    }
    said = judging.invoke(asked)
    assert said["score"] is None
    assert "a-very-long-key" not in str(said["comment"])


def test_a_torso_s_end_is_masked_before_it_is_cut() -> None:
    learn(LONG)
    torso = AIMessage(LONG + "y" * 50, response_metadata={"model_provider": "openai"})
    with pytest.raises(EOFError) as error:
        as_message(torso)
    assert "0123456789" not in str(error.value)


# --- what is kept ---


def test_a_key_that_an_endpoint_repeats_is_neither_answered_nor_stored(tmp_path: Path) -> None:
    key = "key-that-comes-back-4711"
    learn(key)
    echoing = ScriptedModel([f"Your key is {key}."])
    with TraceStore(tmp_path / "traces.db") as traces:
        out = create_collaboration(echoing, echoing, traces=traces).compile().invoke({"query": "?"})
        assert out["answer"].text == "Your key is ***."
        collector = create_collector(
            echoing, echoing, evaluator=judge(echoing), traces=traces, num_drafts=2
        ).compile()
        collector.invoke({"query": "?", "reference": f"not {key}"})
        traces.remember("k", "solo", {"text": key, "calls": []})
        traces.record(Trace(query=f"my {key}", domain=key))
        traces.to_jsonl(tmp_path / "out.jsonl")
        assert [trace.query for trace in traces][-1] == "my ***"
    for file in tmp_path.iterdir():
        assert key.encode() not in file.read_bytes(), file


def test_a_store_s_url_has_no_password() -> None:
    shown = Database("postgresql://me:p@ssw0rd-long@127.0.0.1:9/d").url
    assert shown == "postgresql+psycopg://me:***@127.0.0.1:9/d"
