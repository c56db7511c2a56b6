"""A large trace store: how long its verbs take, what memory they hold, and who waits for an import.

Makes a store of scripted traces in FOLDER, then runs each measurement in a process of its own, so
that its peak memory is its own. Prints one JSON object a line.

    python benchmarks/large_store.py FOLDER [--traces 200000] [--keep]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cowest_graph import Trace, TraceStore

WORDS = [f"word{n}" for n in range(2000)]


def traces(count: int) -> Iterator[Trace]:
    """Traces as a collection of five drafts makes them: about 7 KB each as JSON."""
    luck = random.Random(0)

    def text(words: int) -> str:
        return " ".join(luck.choices(WORDS, k=words))

    call = {"role": "draft", "model": "m", "input_tokens": 9, "output_tokens": 9, "seconds": 0.5}
    for number in range(count):
        attempts = [
            {
                "index": index,
                "draft": text(20),
                "answer": text(20),
                "score": float(luck.randint(1, 10)),
                "weak_version": f"v{number % 3}",
                "calls": [call] * 3,
            }
            for index in range(5)
        ]
        yield Trace(
            query=f"{number}: {text(15)}?",
            reference=text(5),
            weak_version=f"v{number % 3}",
            num_drafts=5,
            draft_prompt=[{"role": "system", "content": text(12)}],
            solo=text(20),
            solo_score=5.0,
            attempts=attempts,
            calls=[call] * 2,
        )


def fill(folder: Path, count: int) -> None:
    """As an import: the file first, for what is measured is the store."""
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(trace.model_dump_json() + "\n" for trace in traces(count))


def imported(folder: Path) -> dict[str, float]:
    """An import, and how long another process's writer waited while it ran."""
    waits: list[float] = []
    done = threading.Event()

    def write() -> None:
        with TraceStore(folder / "traces.db") as other:
            while not done.wait(0.2):
                began = time.perf_counter()
                other.record(Trace(query=f"meanwhile {len(waits)}"))
                waits.append(time.perf_counter() - began)

    with TraceStore(folder / "traces.db") as store:
        writer = threading.Thread(target=write)
        writer.start()
        store.from_jsonl(folder / "in.jsonl")
        done.set()
        writer.join()
    return {"longest_wait": round(max(waits), 3), "written_meanwhile": len(waits)}


def summary(folder: Path) -> dict[str, float]:
    with TraceStore(folder / "traces.db") as store:
        return {"helped": store.summary().helped}


def preference_rows(folder: Path) -> dict[str, float]:
    from trainer import preferences

    with TraceStore(folder / "traces.db") as store:
        return {"rows": len(preferences(store.select(kind="collection")))}


def exported_pairs(folder: Path) -> dict[str, float]:
    from trainer.cli import run

    (folder / "cowest.toml").write_text(f'[traces]\nurl = "sqlite:///{folder}/traces.db"\n')
    words = [
        "pairs",
        "--config",
        str(folder / "cowest.toml"),
        "--export",
        str(folder / "out.jsonl"),
    ]
    if run(words):
        raise SystemExit("the export failed")
    return {"bytes": (folder / "out.jsonl").stat().st_size}


def exported_traces(folder: Path) -> dict[str, float]:
    with TraceStore(folder / "traces.db") as store:
        return {"traces": store.to_jsonl(folder / "out.jsonl")}


MEASURED: dict[str, Callable[[Path], dict[str, float]]] = {
    "import": imported,
    "traces": summary,
    "preferences": preference_rows,
    "pairs --export": exported_pairs,
    "traces --export": exported_traces,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--traces", type=int, default=200_000)
    parser.add_argument("--keep", action="store_true", help="do not delete the store at the end")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    if arguments.only:
        began = time.perf_counter()
        found = MEASURED[arguments.only](folder)
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told = {"what": arguments.only, "seconds": round(seconds, 2), "peak_mib": round(peak)}
        print(json.dumps({**told, **found}), flush=True)
        return
    folder.mkdir(parents=True)
    fill(folder, arguments.traces)
    for name in MEASURED:
        subprocess.run([sys.executable, __file__, str(folder), "--only", name], check=True)
    size = (folder / "traces.db").stat().st_size / 2**20
    print(json.dumps({"what": "store", "mib": round(size)}))
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
