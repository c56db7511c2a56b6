"""Promotions under running requests: how soon drafts carry the new version, and who is held up.

    python benchmarks/swap.py [--swaps 10] [--clients 4]

Clients stream drafts without pause from the real SmolLM2 while versions are promoted and rolled
back. Printed: seconds from `promote` to the first request that begins on the new version; the gaps
between tokens with and without a swap under way (99th percentile and longest); whether the base was
loaded again; and whether greedy drafts after a rollback are byte-identical.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from cowest_graph import AdapterRegistry, LocalWeak
from cowest_graph.embedded import weak_model

QUERY = "Why do leaves fall in autumn?"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    base = weak_model()
    with tempfile.TemporaryDirectory() as folder:
        adapters = AdapterRegistry(Path(folder) / "adapters", base=base)
        names = [_random_adapter(base, adapters, Path(folder), seed) for seed in (1, 2)]
        weak = LocalWeak(str(base), adapters=adapters, temperature=0.0, max_tokens=40)
        adapters.promote(names[0])
        weak.load()
        before = weak.invoke(QUERY)
        engine = weak.engine
        found = _swap_under_load(weak, adapters, names, given.swaps, given.clients)
        while adapters.current != names[0]:
            adapters.rollback()
        weak.load()
        after = weak.invoke(QUERY)
        print(f"same engine, base not loaded again: {weak.engine is engine}")
        same = (after.content, after.response_metadata["weak_version"])
        print(f"greedy draft after rollback identical: {same == (before.content, names[0])}")
        _print(*found)
        weak.close()


def _random_adapter(base: Path, adapters: AdapterRegistry, folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    made = folder / f"made{seed}"
    get_peft_model(model, config).save_pretrained(made)
    return adapters.add(made)


def _swap_under_load(
    weak: LocalWeak, adapters: AdapterRegistry, names: list[str], swaps: int, clients: int
) -> tuple[list[float], list[tuple[float, float]], list[tuple[float, float]], int]:
    """Seconds to the new version; (when, gap) of all tokens; (from, to) of all swaps; requests."""
    gaps: list[tuple[float, float]] = []
    begun: list[tuple[float, str]] = []
    stop = threading.Event()

    def client(number: int) -> None:
        while not stop.is_set():
            started = last = time.perf_counter()
            version = ""
            for chunk in weak.stream(f"{QUERY} ({number})"):
                now = time.perf_counter()
                if last != started:  # the first token also waits for its prompt
                    gaps.append((now, now - last))
                last = now
                version = chunk.response_metadata.get("weak_version", version)
            begun.append((started, version))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(5)
    windows, waits = [], []
    for turn in range(swaps):
        wanted = names[(turn + 1) % 2]
        promoted = time.perf_counter()
        adapters.promote(wanted)
        while weak.version != wanted:
            time.sleep(0.005)
        waits.append(time.perf_counter() - promoted)
        windows.append((promoted, time.perf_counter()))
        time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join()
    _check(begun, windows, names)
    return waits, gaps, windows, len(begun)


def _check(begun: list[tuple[float, str]], windows: list[Any], names: list[str]) -> None:
    late = 0
    for turn, (promoted, _) in enumerate(windows):
        end = windows[turn + 1][0] if turn + 1 < len(windows) else float("inf")
        wanted = names[(turn + 1) % 2]
        late += sum(promoted + 2 < at < end and version != wanted for at, version in begun)
    print(f"requests that began over 2 s after a promotion on another version: {late}")


def _print(
    waits: list[float],
    gaps: list[tuple[float, float]],
    windows: list[tuple[float, float]],
    requests: int,
) -> None:
    during = [gap for at, gap in gaps if any(a <= at <= b + 1 for a, b in windows)]
    outside = [gap for at, gap in gaps if not any(a <= at <= b + 1 for a, b in windows)]
    print(f"{requests} requests, {len(gaps)} tokens, {len(waits)} swaps")
    print(
        f"promote to serving: median {statistics.median(waits):.2f} s, longest {max(waits):.2f} s"
    )
    for what, found in (("outside swaps", outside), ("during swaps", during)):
        ordered = sorted(found)
        middle, late = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        print(f"{what}: gap median {middle:.3f} s, p99 {late:.3f} s, longest {ordered[-1]:.3f} s")
    print(f"longest gap during swaps less longest outside: {max(during) - max(outside):+.3f} s")


if __name__ == "__main__":
    main()
