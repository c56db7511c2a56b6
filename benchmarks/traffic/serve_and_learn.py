"""An app serves, people speak late, one `cowest loop --from-traffic` learns: end to end, offline.

    python benchmarks/traffic/serve_and_learn.py runs/traffic --queries 200

The models are the embedded ones. The app is given no reference, and neither is the loop: only the
people, who are simulated, know what is right, and they say it of a few answers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cowest_graph import (
    AdapterRegistry,
    LocalWeak,
    Trace,
    TraceStore,
    create_collaboration,
    embedded,
    exact_match,
    final_answer,
)
from cowest_graph.exploring import Explore, wait_for_exploration

CAPITALS = """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid Portugal:Lisbon Austria:Vienna
Poland:Warsaw Hungary:Budapest Greece:Athens Turkey:Ankara Russia:Moscow Ukraine:Kyiv
Sweden:Stockholm Norway:Oslo Finland:Helsinki Denmark:Copenhagen Ireland:Dublin
Belgium:Brussels Switzerland:Bern Romania:Bucharest Bulgaria:Sofia Serbia:Belgrade
Croatia:Zagreb Egypt:Cairo Kenya:Nairobi Ghana:Accra Nigeria:Abuja Morocco:Rabat
Tunisia:Tunis Algeria:Algiers Ethiopia:Addis_Ababa Senegal:Dakar Japan:Tokyo
China:Beijing Thailand:Bangkok Vietnam:Hanoi Indonesia:Jakarta Malaysia:Kuala_Lumpur
Iran:Tehran Iraq:Baghdad Canada:Ottawa Mexico:Mexico_City Cuba:Havana Peru:Lima
Chile:Santiago Colombia:Bogota Ecuador:Quito Argentina:Buenos_Aires Brazil:Brasilia
Australia:Canberra
"""
ASKED = (
    "What is the capital of {}?",
    "Name the capital city of {}.",
    "Which city is the capital of {}?",
    "{}: what is its capital?",
)


def main() -> None:
    """Serve, listen, learn; print what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--explore", type=float, default=0.1)
    options.add_argument("--thumbs", type=int, default=30)
    options.add_argument("--corrections", type=int, default=5)
    options.add_argument("--drafts", type=int, default=4)
    options.add_argument("--steps", type=int, default=18)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    told = run(**vars(given))
    print(json.dumps(told, indent=2))


def run(
    folder: Path,
    *,
    queries: int,
    explore: float,
    thumbs: int,
    corrections: int,
    drafts: int,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """All of it; counts, the loop's rounds, and where its pairs are from.

    Args:
        folder: a new one, for the store, the adapters and the loop.
        queries: that the app serves.
        explore: the share of them that is answered again.
        thumbs, corrections: that people give, when all is served.
        drafts: further drafts of an explored query.
        steps: of each training.
        seed: of the order, the draws and training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, began = random.Random(seed), time.perf_counter()
    capitals = [pair.split(":") for pair in CAPITALS.split()]
    every = [(form.format(country), place) for form in ASKED for country, place in capitals]
    asked = {query: place.replace("_", " ") for query, place in rng.sample(every, queries)}
    served = serve(folder, list(asked), explore, drafts, rng)
    with TraceStore(folder / "traces.db") as store:
        speak(store, asked, thumbs, corrections, rng)
        traces = list(store)
    assert all(trace.reference is None for trace in traces), "nobody was told what is right"
    learning = time.perf_counter()
    rounds = learn(folder, seed, steps)
    with TraceStore(folder / "traces.db") as store:
        pairs = [traced(store, each) for each in sources(folder)]
    return {
        "served": served,
        "traces": len(traces),
        "explored": sum(t.exploration is not None and t.exploration.solo.drawn for t in traces),
        "pairs": len(pairs),
        "sources": pairs,
        **rounds,
        "seconds": {
            "serving": round(learning - began),
            "learning": round(time.perf_counter() - learning),
        },
    }


def serve(folder: Path, queries: list[str], share: float, drafts: int, rng: random.Random) -> int:
    """Answer them all; how many were answered."""
    adapters = AdapterRegistry(folder / "adapters", base=embedded.weak_model())
    weak = LocalWeak(
        str(embedded.weak_model()), adapters=adapters, max_tokens=24, temperature=0.0, seed=0
    )
    explore = Explore(
        share,
        share,
        num_drafts=drafts,
        max_strong_tokens_per_hour=2_000_000,
        at_once=1000,  # the app is quicker than the stand-in: all that is drawn shall be there
        chance=rng.random,
    )
    with TraceStore(folder / "traces.db") as store:
        graph = create_collaboration(
            weak, embedded.strong_model(), traces=store, style="answer", explore=explore
        ).compile()
        said = [graph.invoke({"query": query})["answer"].text for query in queries]
        wait_for_exploration()
    weak.close()
    return sum(bool(answer) for answer in said)


def speak(
    store: TraceStore, asked: dict[str, str], thumbs: int, corrections: int, rng: random.Random
) -> None:
    """What people say, when all is served: explored queries' people are asked first."""
    traces = sorted(store, key=lambda trace: (not drawn(trace), rng.random()))
    for trace in traces[:thumbs]:
        answer = final_answer(trace.attempts[0].answer or "")
        right = exact_match(answer, asked[trace.query])
        store.feedback(run_id=trace.run_id, key="thumbs", score=right, source="people")
        if not right and corrections:
            corrections -= 1
            told = f"Answer: {asked[trace.query]}"
            store.feedback(run_id=trace.run_id, key="fix", correction=told, source="people")


def drawn(trace: Trace) -> bool:
    """Whether it was explored."""
    return trace.exploration is not None and trace.exploration.solo.drawn


def learn(folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """One `cowest loop --from-traffic`; what it printed."""
    train = f"{{ max_steps = {steps}, per_device_train_batch_size = 4, learning_rate = 1e-4 }}"
    (folder / "cowest.toml").write_text(
        f"""[weak]
max_tokens = 24

[strong]
temperature = 0.0

[evaluator]
kind = "exact_match"

[collect]
style = "answer"
max_concurrency = 4

[train]
preset = "tiny"
seed = {seed}
num_processes = 1
sft = {train}
dpo = {train}
"""
    )
    command = [sys.executable, "-P", "-m", "trainer.cli", "loop", "--from-traffic", "--json"]
    made = subprocess.run(
        command, cwd=folder, check=True, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    told: dict[str, Any] = json.loads(made.stdout)
    return told


def sources(folder: Path) -> list[dict[str, Any]]:
    """Where each pair is from, as the loop wrote it."""
    found = [*folder.glob("cowest-loop/*/sources.jsonl")]
    return [json.loads(line) for path in found for line in path.read_text().splitlines()]


def traced(store: TraceStore, source: dict[str, Any]) -> dict[str, Any]:
    """A pair's source with what it leads to: its calls, its propensity, its feedback."""
    trace = store.get(source["trace_key"])
    assert trace is not None
    said = {each.id: each for each in store.feedbacks(trace_key=trace.key)}
    sides = {name: trace.attempts[source[name]] for name in ("chosen", "rejected")}
    return {
        "query": trace.query,
        "drafts": {name: each.draft for name, each in sides.items()},
        "answers": {name: each.answer for name, each in sides.items()},
        "calls": {name: [call.role for call in each.calls] for name, each in sides.items()},
        "propensity": source["drafts_propensity"],
        "feedback": [
            {"key": said[i].key, "score": said[i].score, "correction": said[i].correction}
            for i in source["feedback"]
        ],
    }


if __name__ == "__main__":
    main()
