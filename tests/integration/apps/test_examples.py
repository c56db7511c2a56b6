"""The examples run as their first lines say, and their files can be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cowest_graph import TraceStore
from cowest_graph.collecting import read_queries
from trainer import demonstrations
from trainer.cli.config import Config

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(example: str, folder: Path, *words: str) -> list[str]:
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), "--offline-scripted", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_host_graph_answers_and_remembers_its_thread(tmp_path: Path) -> None:
    said = run("host_graph.py", tmp_path, "What does falcon-delta-red mean?", "thanks")
    assert said == [
        "> What does falcon-delta-red mean?",
        "Explanation: the expert says so.",
        "Answer: replace the coolant pump, overheating",
        "> thanks",
        "Ask me about a fault code, such as falcon-delta-red.",
        "(2 turns in thread 1)",
    ]
    assert run("host_graph.py", tmp_path, "thanks")[-1] == "(3 turns in thread 1)"
    assert run("host_graph.py", tmp_path, "thanks", "--thread", "2")[-1] == "(1 turns in thread 2)"


def test_the_host_chat_uses_its_tool_and_remembers_three_turns(tmp_path: Path) -> None:
    asked = ["What does falcon-delta-red mean?", "Is that part in stock?"]
    assert run("host_chat.py", tmp_path, *asked) == [
        "> What does falcon-delta-red mean?",
        "Explanation: the expert says so.",
        "Answer: replace the coolant pump, overheating",
        "> Is that part in stock?",
        "Explanation: the store says so.",
        "Answer: 12 of the coolant pump are in the store",
        "(2 turns and 3 traces in thread 1)",  # the call of the tool is one
    ]
    third = "Which code did I ask about first?"
    assert run("host_chat.py", tmp_path, third)[1:] == [
        "Explanation: you asked it before.",
        "Answer: falcon-delta-red",
        "(3 turns and 4 traces in thread 1)",
    ]
    other = run("host_chat.py", tmp_path, third, "--thread", "2")
    assert other[2:] == ["Answer: none", "(1 turns and 1 traces in thread 2)"]
    with TraceStore(tmp_path / "host_chat_traces.db") as traces:
        assert [t.query for t in traces.query(thread_id="1")] == [*asked, asked[1], third]


def test_the_quickstart_s_configuration_and_rows() -> None:
    folder = EXAMPLES / "quickstart"
    assert Config.load(folder / "cowest.toml", {}).train.preset == "tiny"
    train, _ = read_queries(folder / "train.jsonl")
    feedback, _ = read_queries(folder / "feedback.jsonl")
    assert len(demonstrations(train)) == len(train)
    taught = {row["explanation"] for row in train}  # it spells the code out
    assert not taught & {row["explanation"] for row in feedback}
    held_out, _ = read_queries(folder / "held_out.jsonl")
    codes = {_code(row) for row in held_out}
    assert len(codes) == 10
    assert not codes & {_code(row) for row in [*train, *feedback]}


def _code(row: dict[str, Any]) -> str:
    found = re.search(r"\w+-\w+-\w+", row["query"])
    assert found
    return found.group()


def test_langgraph_json_names_a_function_that_is_there() -> None:
    named = json.loads((EXAMPLES / "langgraph.json").read_text(encoding="utf-8"))["graphs"]["chat"]
    file, _, function = named.partition(":")
    assert f"def {function}() -> Any:" in (EXAMPLES / file).read_text(encoding="utf-8")
