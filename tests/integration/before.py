"""What users have on disk: a store, a registry, and a loop, a bench and a training, all killed.

    python tests/integration/before.py

writes it by the code of the commit that is checked out, as `before.tar.gz` beside this file;
`test_before.py` opens and resumes it by the code of today. It was written at b054f2c. A run's
folder is named by the paths of its model and its start: it is made and opened at one fixed path.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIXED = Path("/tmp/cowest-before")
PACKED = Path(__file__).with_name("before.tar.gz")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
ANSWERED = 9  # calls of the bench before it is killed
STEPS = 600  # of the training
STOPPED = 12  # messages of the loop before it is stopped


def pair() -> tuple[Any, Any]:
    """A weak model whose drafts are right in turn, and a strong one that believes them."""
    from cowest_graph.testing import ScriptedModel

    def refined(messages: list[Any]) -> str:
        return "Answer: right" if "Answer: right" in messages[-1].text else "Answer: wrong"

    return ScriptedModel(["Answer: right", "Answer: wrong"], version="v1"), ScriptedModel(refined)


def collecting(traces: Any) -> dict[str, Any]:
    """What the collectors have in common."""
    from cowest_graph import exact_match, metric

    return {"evaluator": metric(exact_match), "num_drafts": 2, "traces": traces}


def collect(folder: Path) -> list[dict[str, Any]]:
    """Two collections, an inference and one with a failure; returns the traces as plain data."""
    from cowest_graph import TraceStore, create_collaboration, create_collector

    weak, strong = pair()
    silent = type(strong)([TimeoutError("nobody")])
    with TraceStore(f"sqlite:///{folder / 'traces.db'}") as traces:
        collector = create_collector(weak, strong, **collecting(traces)).compile()
        for number in range(2):
            collector.invoke({"query": f"learn {number}", "reference": "right"})
        create_collaboration(weak, strong, traces=traces).compile().invoke({"query": "asked, once"})
        unanswered = create_collector(weak, silent, **collecting(traces)).compile()
        unanswered.invoke({"query": "not answered", "reference": "right"})
        return read(traces)


def read(traces: Any) -> list[dict[str, Any]]:
    """Every trace of a store as plain data, the oldest first."""
    found = [trace.model_dump(mode="json") for trace in traces]
    return sorted(found, key=lambda trace: str(trace["query"]))


def register(folder: Path, source: Path) -> dict[str, Any]:
    """Two versions, both promoted, then one step back."""
    from cowest_graph import AdapterRegistry

    adapters = AdapterRegistry(folder / "adapters")
    for name in ("first", "second"):
        adapters.add(source, name=name, card={"kind": "sft"})
        adapters.promote(name)
    adapters.rollback()
    return {"names": sorted(adapters.names()), "current": adapters.current}


def loop(folder: Path, source: Path) -> dict[str, Any]:
    """A loop that was stopped, and what it would have come to."""
    from test_loop import World

    skills = (5, 10, 10)
    (folder / "whole").mkdir()
    whole = World(folder / "whole", source, *skills)
    rounds = [summary(each) for each in whole.run(rounds=3)]
    (folder / "world").mkdir()
    this = World(folder / "world", source, *skills)
    left = iter([False] * STOPPED + [True])
    this.stop = lambda: next(left, False)
    try:
        this.run(rounds=3)
    except KeyboardInterrupt:
        shutil.rmtree(folder / "whole")
        told = {"skills": this.skills, "learnt": this.learnt, "calls": this.calls}
        return {**told, "rounds": rounds, "all_calls": whole.calls}
    raise AssertionError("the loop ended before it was stopped")


def summary(each: Any) -> list[Any]:
    """What a round decided, without the names that a registry gives."""
    verdict = each.verdict
    return [
        each.number,
        verdict and [verdict.candidate, verdict.current, verdict.queries],
        each.promoted,
    ]


def bench(folder: Path) -> dict[str, Any]:
    """A bench that was killed after some calls, and what it would have come to."""
    from test_bench import Models, _without_seconds, strong, weak

    models = Models(weak(), strong())
    whole = run_bench(folder / "whole", models)
    shutil.rmtree(folder / "whole")
    ran = subprocess.run([sys.executable, __file__, "killed-bench", str(folder)], check=False)
    assert ran.returncode == -signal.SIGKILL, ran
    calls = len(models.weak.calls) + len(models.strong.calls)
    return {"rows": plain(_without_seconds(whole["rows"])), "all_calls": calls}


def plain(rows: Any) -> Any:
    """As JSON keeps it: lists for tuples."""
    return json.loads(json.dumps(rows))


def run_bench(folder: Path, models: Any) -> dict[str, Any]:
    """The bench of the fixture: one query at a time."""
    import test_bench

    asked = {"limit": None, "embeddings": False, "resamples": 100, "max_concurrency": 1}
    plan = test_bench.Plan(methods=test_bench.FREE, **asked)  # type: ignore[arg-type]
    return test_bench.bench(folder, plan, models=models)


def killed_bench(folder: Path) -> None:
    """Run the bench and kill this process by SIGKILL after some calls."""
    from test_bench import Models, strong, weak

    left = [ANSWERED]

    def limited(model: Any) -> Any:
        def reply(messages: list[Any]) -> str:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return str(model._script(messages))

        return type(model)(reply, model_name=model.model_name)

    run_bench(folder / "bench", Models(limited(weak()), limited(strong())))


def job(folder: Path) -> Any:
    """So many small steps that its worker is killed long before the last."""
    from trainer import TrainingJob

    args = {
        "max_steps": STEPS,
        "save_steps": 20,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
    }
    lora = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    return TrainingJob(str(folder / "model"), preset="tiny", lora=lora, args=args, precision="fp32")


def preference_rows() -> Any:
    """The rows of the fixture's DPO run."""
    from faults import collected

    from trainer import training_rows

    return training_rows("dpo", collected(10))


def train(folder: Path) -> Any:
    """An SFT adapter, and a DPO run on it whose worker was killed after a checkpoint."""
    import psutil  # type: ignore[import-untyped]
    from faults import demonstrated
    from folders import write_tiny_model

    from cowest_graph import AdapterRegistry
    from trainer import TrainingError, train_dpo, train_sft
    from trainer.run.resume import state_of

    write_tiny_model(folder / "model", hidden=16)
    adapters = AdapterRegistry(folder / "trained")
    sft = train_sft(demonstrated(10), job(folder), adapters, name="sft")

    def kill(line: dict[str, Any]) -> None:
        if line.get("step", 0) >= 20:
            for child in psutil.Process().children():
                child.kill()

    try:
        train_dpo(preference_rows(), job(folder), adapters, start=sft, progress=kill)
    except TrainingError:
        (run,) = (folder / "trained" / ".runs").iterdir()
        assert not (run / "output").exists()
        return state_of(run)
    raise AssertionError("the training ended before it was killed")


def unpacked() -> dict[str, Any]:
    """Lay the fixture at its path; returns what the code that made it said of it."""
    shutil.rmtree(FIXED, ignore_errors=True)
    with tarfile.open(PACKED) as packed:
        packed.extractall(FIXED, filter="data")
    told: dict[str, Any] = json.loads((FIXED / "told.json").read_text("utf-8"))
    return told


def main() -> None:
    """Make the fixture anew."""
    from folders import write_adapter

    shutil.rmtree(FIXED, ignore_errors=True)
    FIXED.mkdir()
    source = write_adapter(FIXED / "source")
    parts: dict[str, Callable[[], Any]] = {
        "traces": lambda: collect(FIXED),
        "registry": lambda: register(FIXED, source),
        "loop": lambda: loop(FIXED, source),
        "bench": lambda: bench(FIXED),
        "training": lambda: train(FIXED),
    }
    told = {name: make() for name, make in parts.items()}
    (FIXED / "told.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    with tarfile.open(PACKED, "w:gz") as packed:
        for path in sorted(FIXED.iterdir()):
            packed.add(path, arcname=path.name)
    print(f"{PACKED}: {PACKED.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    killed_bench(Path(sys.argv[2])) if sys.argv[1:] else main()
