"""The embedded server's process: what it says when it cannot serve, and that it never outlives us.

Real weights, real processes, SIGKILL.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cowest_graph import embedded
from cowest_graph.weak.servers.llama_server import LlamaServer

pytest.importorskip("xllamacpp", reason="the embedded server is not installed")


def runs(pid: int) -> bool:
    """Whether a process is there, and more than a name that nobody has asked after."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(pid: int, seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.1)
    return not runs(pid)


def test_a_closed_server_is_gone_and_closing_twice_does_nothing() -> None:
    server = LlamaServer(embedded.packaged_weights(), "model", context=256, parallel=1)
    assert runs(server.pid)
    server.close()
    server.close()
    assert not runs(server.pid)


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    (broken := tmp_path / "broken.gguf").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"cannot serve .*broken\.gguf"):
        LlamaServer(broken, "model")


def test_it_ends_with_a_process_that_is_killed() -> None:
    script = (
        "import time; from cowest_graph import embedded\n"
        "with embedded.StrongServer(context=256) as server:\n"
        "    print(server._server.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.send_signal(signal.SIGKILL)
    assert ended(pid)


def test_it_hears_no_interrupt_that_is_for_us() -> None:
    with embedded.StrongServer(context=256) as server:
        assert os.getpgid(server._server.pid) != os.getpgid(0)


def test_the_prompt_cache_changes_no_bit() -> None:
    facts = "The belt costs 12 coins. The drum costs 30 coins."
    prompts = [f"Question {n}: {facts} What do they cost?" for n in range(6)]
    prompts += [f"{prompts[0]} Expert {n} says {n}." for n in range(6)]
    orders = [list(range(12)), random.Random(1).sample(range(12), 12)]
    with embedded.StrongServer(context=512) as server:
        model = server.chat_model(max_tokens=24, logprobs=True)
        fresh = model.bind(extra_body={**(model.extra_body or {}), "cache_prompt": False})

        def said(asking: object, place: int) -> list[tuple[str, float]]:
            message = asking.invoke(prompts[place])  # type: ignore[attr-defined]
            tokens = message.response_metadata["logprobs"]["content"]
            return [(token["token"], token["logprob"]) for token in tokens]

        first = {place: said(fresh, place) for place in range(12)}
        for order in orders:
            assert {place: said(model, place) for place in order} == first
