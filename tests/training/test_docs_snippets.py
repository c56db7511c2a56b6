"""The snippets of the docs that train or load a model run as they stand there.

The tiny model stands for SmolLM2 and a scripted one for GPT-4; the rest is the text of the docs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage

from cowest_graph import AdapterRegistry, LocalWeak
from cowest_graph.testing import ScriptedModel

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
TRAIN = [{"query": f"What does fault {i} mean?", "reference": f"clean part {i}"} for i in range(4)]
HELD_OUT = [{"query": f"And fault {i}?", "reference": f"clean part {i}"} for i in range(7, 9)]


def strong(messages: list[BaseMessage]) -> str:
    """An answer that differs from draft to draft, or a score that does."""
    said = "".join(message.text for message in messages)
    number = sum(map(ord, said))
    return str(1 + number % 10) if "1 to 10" in said else f"Answer: {number}"


def small(model: str, **more: Any) -> LocalWeak:
    """The live model, which writes a few words, the same ones on every machine."""
    return LocalWeak(model, max_tokens=6, dtype="float32", seed=0, **more)


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a document's blocks that hold a word, in their order, in one namespace."""
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"train_set": TRAIN, "test_set": HELD_OUT, "held_out": HELD_OUT}
    replaced = {
        '"HuggingFaceTB/SmolLM2-135M-Instruct"': repr(str(tiny_model)),
        'ChatOpenAI(model="gpt-4o")': "scripted",
        "LocalWeak(": "small(",
        # A step or two of each run, on the CPU; the paper's accumulation would be one step, too.
        'preset="paper"': 'preset="tiny"',
    }
    given |= {"scripted": ScriptedModel(strong, model_name="gpt-4o"), "small": small}

    def run(document: str, word: str, **more: Any) -> dict[str, Any]:
        text = (ROOT / document).read_text(encoding="utf-8")
        blocks = [b for b in re.findall(r"```python.*?\n(.*?)```", text, re.S) if word in b]
        assert blocks, f"no snippet of {document} has {word}"
        given.update(more)
        for code in blocks:
            for old, new in replaced.items():
                code = code.replace(old, new)
            exec(compile(code, document, "exec"), given)
        return given

    return run


def test_snippets_that_train_do_so(run: Callable[..., Any], tmp_path: Path) -> None:
    after = run("README.md", "train_dpo")
    adapters: AdapterRegistry = after["adapters"]
    assert adapters.current == after["sft"]
    assert adapters.card(after["dpo"])["parents"] == [after["sft"]]

    after = run("docs/training.md", "train_dpo")  # on the traces that the README's collected
    assert adapters.card(after["dpo"])["objective"] == "kto"

    run("docs/training.md", "report_to")
    (curves,) = (tmp_path / "adapters" / ".curves").iterdir()
    assert list(curves.glob("events.out.tfevents.*"))

    after = run("docs/training.md", "Loop(")
    assert str(after["done"]).startswith("round 1: dpo-")
    run("docs/training_speed.md", "num_processes")
    after["weak"].close()
