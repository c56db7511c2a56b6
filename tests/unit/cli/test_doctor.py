"""The doctor: it says what is wrong, says so honestly, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import TraceStore
from trainer.cli.config import Config
from trainer.cli.verbs.doctor import Finding, examine

SECRET = "sk-secret-0123456789"


def good() -> ScriptedModel:
    return ScriptedModel(["Explanation: they add up.\nAnswer: four"])


def rambling() -> ScriptedModel:
    return ScriptedModel(["Let me think.\nWell."])


def failing() -> ScriptedModel:
    return ScriptedModel([ValueError(f"the key {SECRET} is wrong")])


def scoring() -> ScriptedModel:
    return ScriptedModel(["9"])


def found(folder: Path, **sections: dict[str, object]) -> dict[str, Finding]:
    here = {
        "weak": {"model": f"{__name__}:good"},
        "strong": {"model": f"{__name__}:good", "api_key": SECRET},
        "evaluator": {"kind": "exact_match"},
        "traces": {"url": f"sqlite:///{folder}/traces.db"},
        "adapters": {"folder": folder / "adapters"},
    }
    findings = examine(Config.model_validate(here | sections))
    assert SECRET not in str(findings)
    return {finding.subject: finding for finding in findings}


def test_where_all_is_well_nothing_fails_and_nothing_is_made(tmp_path: Path) -> None:
    findings = found(tmp_path)
    assert [finding for finding in findings.values() if finding.ok is False] == []
    assert list(tmp_path.iterdir()) == []


def test_an_answer_in_another_format_is_said(tmp_path: Path) -> None:
    strong = found(tmp_path, strong={"model": f"{__name__}:rambling"})["strong model"]
    assert "not in the format" in strong.said


def test_an_endpoint_that_fails_is_a_finding_and_the_others_are_looked_at(tmp_path: Path) -> None:
    findings = found(tmp_path, strong={"model": f"{__name__}:failing", "api_key": SECRET})
    assert findings["strong model"] == Finding("strong model", False, "the key *** is wrong")
    assert findings["evaluator"].ok is True


@pytest.mark.parametrize(
    ("judge", "ok", "words"),
    [
        ("scoring", True, "9 of 10"),
        ("good", False, "no score from 1 to 10"),
        ("failing", False, ""),
    ],
)
def test_a_judge_must_give_a_score(tmp_path: Path, judge: str, ok: bool, words: str) -> None:
    model = {"model": f"{__name__}:{judge}", "api_key": SECRET}
    finding = found(tmp_path, strong=model, evaluator={"kind": "judge"})["evaluator"]
    assert finding.ok is ok
    assert words in finding.said


def test_stores_and_models_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("some text")
    findings = found(
        tmp_path,
        weak={"model": str(tmp_path / "none")},
        traces={"url": f"sqlite:///{tmp_path}/text.db"},
    )
    assert findings["traces"].ok is False
    assert "is not a trace store" in findings["traces"].said
    assert findings["weak model"].ok is False
    missing = found(tmp_path, traces={"url": f"sqlite:///{tmp_path}/no/t.db"})["traces"]
    assert missing.ok is False
    assert "make it first" in missing.said


def test_traces_are_counted(tmp_path: Path) -> None:
    TraceStore(tmp_path / "traces.db").close()
    assert found(tmp_path)["traces"].said.endswith("traces.db: 0 traces")


def test_a_choice_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "current.json").write_text('{"current": "v0009", "before": []}')
    finding = found(tmp_path)["adapters"]
    assert finding.ok is False
    assert "v0009 is in use, and its folder is gone" in finding.said
