"""Promotions under load: is any request lost, mixed, late or held up?

    python benchmarks/swap.py [--clients 16] [--seconds 60] [--every 1] [--swaps 200]

Clients ask the real SmolLM2 without pause, greedily, in blocks without swaps and blocks in which
versions are promoted or rolled back, in turn. Every answer is compared with what its version writes
when it is served alone. Printed: failed requests; answers that are not their version's; requests
that began over two seconds after a promotion on another version; latencies and gaps between tokens
with and without swaps; and, over `--swaps` more of them on an idle model, memory and open files.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cowest_graph import AdapterRegistry, LocalWeak
from cowest_graph.embedded import weak_model

TOPICS = ["leaves", "bread", "the moon", "old maps", "bees", "glass", "salt", "trains"]
BLOCKS = 4
QUERIES = [f"Why do people like {topic}?" for topic in TOPICS]


@dataclass
class Seen:
    """What the clients saw in one phase."""

    answers: list[tuple[float, float, str, str, str]] = field(default_factory=list)
    """Began, seconds, query, version, text."""
    gaps: list[float] = field(default_factory=list)  # seconds between two tokens of a text
    failures: list[str] = field(default_factory=list)
    promotions: list[tuple[float, str]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)  # seconds from promote to use


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two swaps")
    parser.add_argument("--swaps", type=int, default=200, help="swaps of the memory run")
    parser.add_argument("--tokens", type=int, default=16)
    given = parser.parse_args()
    base = weak_model()
    with tempfile.TemporaryDirectory() as folder:
        adapters = AdapterRegistry(Path(folder) / "adapters", base=base)
        names = [random_adapter(base, adapters, Path(folder), seed) for seed in (1, 2)]
        adapters.promote(names[0])
        with _weak(base, adapters, given.tokens) as weak:
            weak.load()
            engine = weak.engine
            alone = {
                (name, query): weak.invoke(query, adapter=name).text
                for name in (*names, "base")
                for query in QUERIES
            }
            print(f"{given.clients} clients, {given.tokens} tokens an answer", flush=True)
            phases = [("without swaps", Seen()), ("with swaps", Seen())]
            for _ in range(BLOCKS):  # they take turns, so that other work disturbs both alike
                for (_, seen), swapped in zip(phases, (None, names), strict=True):
                    ask(weak, given.clients, given.seconds / BLOCKS, seen, swapped, given.every)
            for what, seen in phases:
                report(what, seen, alone)
            print(f"p99 latency with swaps / without: {_ratio(phases, 0.99):.2f}")
            print(f"same engine, base not loaded again: {weak.engine is engine}")
            memory(weak, adapters, names, given.swaps)


def _weak(base: Path, adapters: AdapterRegistry, tokens: int) -> LocalWeak:
    """It keeps one version in memory: every swap reads its adapter from the disk anew."""
    return LocalWeak(base, adapters=adapters, temperature=0, max_tokens=tokens, max_adapters=1)


def random_adapter(base: Path, adapters: AdapterRegistry, folder: Path, seed: int) -> str:
    """Register an adapter that changes what is written."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    made = folder / f"made{seed}"
    get_peft_model(model, config).save_pretrained(made)
    return adapters.add(made)


def ask(
    weak: LocalWeak,
    clients: int,
    seconds: float,
    seen: Seen,
    names: list[str] | None,
    every: float,
) -> None:
    """Let clients ask without pause; with names, swap between them as well."""
    stop = threading.Event()

    def client(number: int) -> None:
        turn = number
        while not stop.is_set():
            query = QUERIES[turn % len(QUERIES)]
            turn += 1
            try:
                _ask_once(weak, query, seen)
            except Exception as error:
                seen.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    end = time.perf_counter() + seconds
    if names:
        _swap_until(end, weak, names, every, seen)
    else:
        time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()


def _ask_once(weak: LocalWeak, query: str, seen: Seen) -> None:
    began = last = time.perf_counter()
    version, pieces = "", []
    for chunk in weak.stream(query):
        now = time.perf_counter()
        if last != began:  # the first token also waits for its prompt and a place
            seen.gaps.append(now - last)
        last = now
        version = chunk.response_metadata.get("weak_version", version)
        pieces.append(chunk.text)
    seen.answers.append((began, time.perf_counter() - began, query, version, "".join(pieces)))


def _swap_until(end: float, weak: LocalWeak, names: list[str], every: float, seen: Seen) -> None:
    """Promote one and the other, and roll back every third time."""
    adapters = weak.adapters
    assert adapters is not None
    turn = 0
    while time.perf_counter() < end:
        at = time.perf_counter()
        if turn % 3 == 2:
            adapters.rollback()
        else:
            adapters.promote(names[turn % 2])
        turn += 1
        wanted = adapters.current or "base"
        while weak.version != wanted:
            time.sleep(0.002)
        seen.waits.append(time.perf_counter() - at)
        seen.promotions.append((at, wanted))
        time.sleep(max(0.0, every - (time.perf_counter() - at)))


def report(what: str, seen: Seen, alone: dict[tuple[str, str], str]) -> None:
    """Print one phase."""
    wrong = sum(alone[version, query] != text for _, _, query, version, text in seen.answers)
    latencies = [seconds for _, seconds, *_ in seen.answers]
    print(f"{what}: {len(seen.answers)} answers, {len(seen.failures)} failed {seen.failures[:3]}")
    print(f"  answers that are not their version's: {wrong}")
    print(f"  latency: median {at(latencies, 0.5):.2f} s, p99 {at(latencies, 0.99):.2f} s")
    print(
        f"  gaps between tokens: median {at(seen.gaps, 0.5):.3f} s, p99 {at(seen.gaps, 0.99):.3f} "
        f"s, longest {max(seen.gaps):.3f} s"
    )
    if not seen.promotions:
        return
    versions = sorted({version for _, _, _, version, _ in seen.answers})
    print(f"  {len(seen.promotions)} swaps; answers by {', '.join(versions)}")
    print(f"  promote to use: median {at(seen.waits, 0.5):.2f} s, longest {max(seen.waits):.2f} s")
    print(f"  requests that began over 2 s late on another version: {_late(seen)}")


def _late(seen: Seen) -> int:
    ends = [when for when, _ in seen.promotions[1:]] + [float("inf")]
    return sum(
        when + 2 < began < end and version != wanted
        for (when, wanted), end in zip(seen.promotions, ends, strict=True)
        for began, _, _, version, _ in seen.answers
    )


def _ratio(phases: list[tuple[str, Seen]], quantile: float) -> float:
    without, with_swaps = (at([a[1] for a in seen.answers], quantile) for _, seen in phases)
    return with_swaps / without


def at(values: list[float], quantile: float) -> float:
    """The value at a quantile."""
    return sorted(values)[int((len(values) - 1) * quantile)]


def memory(weak: LocalWeak, adapters: AdapterRegistry, names: list[str], swaps: int) -> None:
    """Swap, ask one token, and look at this process's memory and files."""

    def swap(times: int) -> None:
        for turn in range(times):
            adapters.promote(names[turn % 2])
            weak.load()
            weak.invoke("Hi", max_tokens=1)

    swap(10)  # what is set up once
    before = _resident(), _open_files()
    swap(swaps)
    after = _resident(), _open_files()
    print(
        f"{swaps} swaps: resident memory {before[0]:.0f} to {after[0]:.0f} MB "
        f"({(after[0] / before[0] - 1) * 100:+.2f} %), open files {before[1]} to {after[1]}"
    )


def _resident() -> float:
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    main()
