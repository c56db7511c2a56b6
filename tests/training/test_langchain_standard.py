"""LangChain's own standard tests on the weak model in this process, on real SmolLM2.

What is skipped, and why: tools (the chat template of SmolLM2-135M has no place for them; they are
run on a template that has, below), images, audio and PDF (it reads text), a model's name for one
call (it holds one model; `adapter=` is what a call may choose), recorded cassettes (there is no
network to record).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from cowest_graph import LocalWeak

TOOLS = Path(__file__).parent / "tools.jinja"


class _OfLocalWeak:
    has_tool_calling = False
    supports_model_override = False
    chat_model_class = LocalWeak


class TestUnit(_OfLocalWeak, ChatModelUnitTests):
    """Nothing is loaded here."""

    chat_model_params = {"model": "a/folder"}  # noqa: RUF012


class TestIntegration(_OfLocalWeak, ChatModelIntegrationTests):
    """On the stock model."""

    chat_model_params: dict[str, Any] = {}  # noqa: RUF012

    @pytest.fixture(scope="class")
    def loaded(self, smollm2: Path) -> Iterator[LocalWeak]:
        with LocalWeak(smollm2, temperature=0, max_tokens=64) as weak:
            yield weak.load()

    @pytest.fixture
    def model(self, loaded: LocalWeak) -> LocalWeak:
        return loaded


class TestTools(TestIntegration):
    """On the same weights with a chat template that says tools; what is asked for is forced."""

    has_tool_calling = True

    @pytest.fixture(scope="class")
    def loaded(
        self, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[LocalWeak]:
        folder = tmp_path_factory.mktemp("tools")
        for file in smollm2.iterdir():
            (folder / file.name).symlink_to(file)
        (folder / "chat_template.jinja").unlink()
        (folder / "chat_template.jinja").write_text(TOOLS.read_text())
        with LocalWeak(folder, temperature=0, max_tokens=64) as weak:
            yield weak.load()
