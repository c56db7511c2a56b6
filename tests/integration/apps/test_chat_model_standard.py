"""LangChain's own standard tests on the collaboration as a chat model, on real SmolLM2.

Twice: with the stand-in strong model behind llama.cpp's server, which calls no tools (its chat
template has no place for them, and the server then ignores them), and with a strong model in this
process whose template says tools, so that calls can be forced. What is skipped, and why: images,
audio and PDF (both read text), a model's name for one call (the pair is what it is), JSON without a
schema and Anthropic's content blocks (forms of other makers), recorded cassettes (there is no
network to record). The agent's loop is expected to fail: a model of this size calls a tool only
when it must; tests/unit/apps has loops with a scripted strong model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx
import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from cowest_graph import CollaborativeChatModel, LocalWeak, embedded
from cowest_graph.testing import ScriptedModel

TOOLS = Path(__file__).parents[2] / "tools.jinja"


@cache
def weak() -> LocalWeak:
    return LocalWeak(embedded.weak_model(), temperature=0, max_tokens=8, dtype="float32").load()


@cache
def strong_with_tools() -> LocalWeak:
    folder = Path(mkdtemp(prefix="cowest-tools-"))
    for file in embedded.weak_model().iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(TOOLS.read_text())
    return LocalWeak(folder, temperature=0, max_tokens=128, dtype="float32").load()


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    for made in (weak, strong_with_tools):
        if made.cache_info().currsize:
            made().close()
            made.cache_clear()


class TestStandIn(ChatModelIntegrationTests):
    """The embedded pair."""

    chat_model_class = CollaborativeChatModel
    supports_model_override = False
    has_tool_calling = False
    has_structured_output = False

    @property
    def chat_model_params(self) -> dict[str, Any]:
        server = embedded.strong_server(stock=True)
        # A client of its own: LangChain's is kept for all, and each test has a loop of its own.
        client = httpx.AsyncClient()
        strong = server.chat_model(grammar=None, max_tokens=16, http_async_client=client)
        return {"weak": weak(), "strong": strong}


@pytest.mark.skipif(
    not os.environ.get("COWEST_ALL_PATHS"),
    reason="forced calls by a model of this size take minutes; set COWEST_ALL_PATHS=1",
)
class TestWithTools(ChatModelIntegrationTests):
    """Calls of tools are forced where a test may choose that."""

    chat_model_class = CollaborativeChatModel
    supports_model_override = False

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"weak": ScriptedModel(["A draft."]), "strong": strong_with_tools()}

    @pytest.mark.xfail(reason="a model of this size calls a tool only when it must", run=False)
    def test_agent_loop(self, model: Any) -> None: ...
