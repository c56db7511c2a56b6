"""The guide to a domain of one's own: its files and commands as docs/domains.md has them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from trainer.cli import run

GUIDE = (Path(__file__).parents[3] / "docs" / "domains.md").read_text(encoding="utf-8")

MODELS = """
import math
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from cowest_graph.testing import ScriptedModel


class Sure(ScriptedModel):
    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = self._reply(messages, kwargs)
        content = [{"token": f"{word} ", "logprob": -0.1} for word in message.text.split()]
        about = {**message.response_metadata, "logprobs": {"content": content}}
        message = message.model_copy(update={"response_metadata": about})
        return ChatResult(generations=[ChatGeneration(message=message)])


def reply(messages):
    text = messages[-1].text
    return "CORRECT" if "what is wrong" in text else "Explanation: e.\\nAnswer: billing"


weak = Sure(reply, model_name="small")
strong = Sure(reply, model_name="large")
"""


def _block(language: str, nth: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)[nth]


def test_the_guide_ends_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = _block("python")
    assert len(code.splitlines()) <= 30
    Path("support.py").write_text(code, encoding="utf-8")
    Path("guide_models.py").write_text(MODELS, encoding="utf-8")
    Path("cowest.toml").write_text(_block("toml"), encoding="utf-8")
    monkeypatch.setenv("COWEST_WEAK_MODEL", "guide_models:weak")
    monkeypatch.setenv("COWEST_STRONG_MODEL", "guide_models:strong")
    monkeypatch.setenv("COWEST_EVALUATOR_KIND", "exact_match")
    _write_data(Path("data"))
    for line in _block("console").splitlines():
        words = shlex.split(line.removeprefix("$ "))
        assert words[0] == "cowest"
        extra = ["--no-embeddings"] if words[1] == "bench" else []
        assert run([*words[1:], *extra]) == 0, capsys.readouterr().err
    assert Path("report/report.html").exists()
    results = json.loads(Path("bench/bench.json").read_text(encoding="utf-8"))
    rows = {row["method"]: row for row in results["rows"]}
    assert len(rows) == 13
    # A scripted model has no adapters: what must be trained is left out, and said to be.
    left_out = {name for name, row in rows.items() if not row["scored"]}
    assert left_out == {"rlwf", "rlaif", "cowest_aligned"}
    assert all("no adapters" in rows[name]["note"] for name in left_out)
    assert rows["cowest"]["scores"]["accuracy"]["mean"] == pytest.approx(0.5)
    assert "cowest less" in capsys.readouterr().out
    _every_verb(capsys)


def _every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """The last part's commands; scripted models have no weights: there a training ends."""
    ends = {"sft": "the weights of", "loop": "takes no adapters", "dpo": "the weights of"}
    done = []
    for line in _block("console", 1).splitlines():
        words = shlex.split(line.removeprefix("$ "))
        verb = words[2] if words[1] == "train" else words[1]
        code, said = run(words[1:]), capsys.readouterr().err
        assert (code, ends.get(verb, "") in said) == (2 if verb in ends else 0, True), said
        done.append(verb)
    assert done == ["collect", "sft", "collect", "dpo", "ask", "loop"]


def _write_data(folder: Path) -> None:
    folder.mkdir()
    shown = [json.loads(line) for line in _block("json").splitlines()]
    for name, count in (("train", 10), ("dev", 4)):
        rows = [
            {**shown[n % 2], "subject": f"{name} {n}: {shown[n % 2]['subject']}"}
            for n in range(count)
        ]
        lines = [json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
