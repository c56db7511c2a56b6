"""The house rules that a diff cannot show: who imports whom, what is public, what is not loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import cowest_graph
import trainer

ROOT = Path(__file__).parents[2]

# Each room may import the rooms beside it, of its own package; third parties are free.
_RECIPE = {"backends", "checks", "job", "rows", "tuning"}
ALLOWED: dict[str, set[str]] = {
    "cowest_graph.state": set(),
    "cowest_graph.failures": set(),
    "cowest_graph.masking": set(),
    "cowest_graph.replies": {"masking"},
    "cowest_graph.threads": set(),
    "cowest_graph.compiled": set(),
    "cowest_graph.spool": {"masking", "records"},
    "cowest_graph.tracing": {"calls", "evaluators", "prompts", "records", "state"},
    "cowest_graph.metrics": set(),
    "cowest_graph.benchmark": set(),
    "cowest_graph.domains": {"state", "metrics", "prompts", "evaluators"},
    "cowest_graph.retrieval": {"state", "domains"},
    "cowest_graph.baselines": {
        "baselines",
        "calls",
        "domains",
        "evaluators",
        "failures",
        "graph",
        "prompts",
        "state",
    },
    "cowest_graph.benching": {
        *("domains", "evaluators", "failures", "masking", "prompts", "replies", "state"),
    },
    "cowest_graph.scoreboard": {"benching", "benchmark", "domains", "metrics", "state"},
    "cowest_graph.instruments": set(),
    "cowest_graph.testing": {"domains"},
    "cowest_graph.prompts": set(),
    "cowest_graph.evaluators": {"masking", "state", "metrics", "prompts", "replies"},
    "cowest_graph.records": {"state"},
    "cowest_graph.databases": {"masking"},
    "cowest_graph.summaries": set(),
    "cowest_graph.trace_tables": {"records", "databases"},
    "cowest_graph.exchange": {"masking", "records"},
    "cowest_graph.claims": {"databases", "trace_tables"},
    "cowest_graph.trace_counts": {"records", "summaries", "trace_tables"},
    "cowest_graph.traces": {
        *("claims", "databases", "exchange", "masking", "records", "spool", "summaries"),
        *("trace_counts", "trace_tables"),
    },
    "cowest_graph.shadows": {"calls", "masking", "prompts", "records", "traces"},
    "cowest_graph.calls": {
        *("state", "failures", "masking", "prompts", "evaluators", "replies", "threads"),
    },
    "cowest_graph.graph": {
        *("state", "calls", "compiled", "prompts", "evaluators", "replies", "shadows", "threads"),
        *("failures", "masking", "traces", "tracing"),
    },
    "cowest_graph.collecting": {"failures", "masking", "state", "traces"},
    "cowest_graph.choices": set(),
    "cowest_graph.adapter_folders": set(),
    "cowest_graph.files": set(),
    "cowest_graph.choice_files": {"adapter_folders", "choices", "files"},
    "cowest_graph.adapters": {"adapter_folders", "choice_files", "choices", "files"},
    "cowest_graph.embedded": {"weak"},
    "cowest_graph.weak": {"adapters", "adapter_folders", "weak"},
    "trainer.prefix_tree": set(),
    "trainer.shared_prefix": {"prefix_tree"},
    "trainer.reference": set(),
    "trainer.speed": {"reference", "shared_prefix"},
    "trainer.processes": set(),
    "trainer.presets": set(),
    "trainer.objectives": {"presets"},
    "trainer.job": {"objectives", "presets"},
    "trainer.pairs": set(),
    "trainer.rows": {"objectives", "pairs"},
    "trainer.space": set(),
    "trainer.resume": set(),
    "trainer.steps": set(),
    "trainer.checks": {"steps"},
    "trainer.start": {"reference", "steps"},
    "trainer.weighted": set(),
    "trainer.cards": set(),
    "trainer.child": set(),
    "trainer.watch": {"processes", "resume", "steps"},
    "trainer.backends": {"job", "presets", "resume", "watch"},
    "trainer.tuning": {
        *("backends", "job", "processes", "resume", "rows", "speed", "start", "steps", "watch"),
    },
    "trainer.sft": _RECIPE,
    "trainer.dpo": _RECIPE | {"objectives", "steps", "weighted"},
    "trainer.kto": _RECIPE | {"objectives", "steps"},
    "trainer.worker": {
        *("sft", "dpo", "kto", "backends", "job", "processes", "resume", "tuning", "watch"),
    },
    "trainer.launch": {
        *("cards", "checks", "child", "job", "objectives", "presets", "processes", "resume"),
        *("rows", "space"),
    },
    "trainer.options": set(),
    "trainer.gate": set(),
    "trainer.loop": {"checks", "child", "console", "gate", "job", "launch", "rows"},
    "trainer.loop_verbs": {"advice", "config", "console", "gate", "loop", "options"},
    "trainer.advice": set(),
    "trainer.entry": {"cli"},
    "trainer.console": set(),
    "trainer.listing": set(),
    "trainer.adapter_verbs": {"config", "console", "listing", "options"},
    "trainer.serve_verbs": {"config", "console", "options"},
    "trainer.models": {"job"},
    "trainer.config": {"advice", "job", "models"},
    "trainer.doctor": {"advice", "config", "job", "resume"},
    "trainer.bench_adapters": {"checks", "child", "job", "launch", "rows"},
    "trainer.bench": {"bench_adapters", "console", "job"},
    "trainer.analyses": {"bench"},
    "trainer.pages": set(),
    "trainer.report": {"console", "pages"},
    "trainer.bench_verbs": {
        "advice",
        "analyses",
        "bench",
        "bench_adapters",
        "config",
        "console",
        "models",
        "options",
        "report",
    },
    "trainer.demo": {"job", "rows", "launch"},
    "trainer.demo_report": {"demo", "pages"},
    "trainer.plan": {"backends", "checks", "job", "presets", "rows", "space"},
    "trainer.train_verbs": {
        *("advice", "cards", "checks", "config", "console", "launch", "options", "plan"),
    },
    "trainer.cli": {
        "pairs",
        "train_verbs",
        "adapter_verbs",
        "advice",
        "bench_verbs",
        "console",
        "config",
        "demo",
        "demo_report",
        "doctor",
        "listing",
        "loop_verbs",
        "options",
        "rows",
        "serve_verbs",
    },
}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {
                s for s in submodules if _file(s).exists() or _file(s).with_suffix("").is_dir()
            }
            found |= known or {node.module}
    return {name for name in found if name.split(".")[0] in ("cowest_graph", "trainer")}


def _file(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def test_every_room_imports_only_what_the_table_allows() -> None:
    for path in [*ROOT.glob("cowest_graph/**/*.py"), *ROOT.glob("trainer/*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            continue
        package, room = parts[0], parts[1]
        allowed = ALLOWED[f"{package}.{room}"]
        for name in _imports(path):
            target = name.split(".")
            if package == "cowest_graph":
                assert target[0] == "cowest_graph", f"{path} imports {name}"
            if target[0] == package and len(target) > 1:
                assert target[1] in allowed, f"{path} imports {name}, allowed: {allowed}"


def test_only_one_file_names_unsloth_in_code() -> None:
    for path in [*ROOT.glob("cowest_graph/**/*.py"), *ROOT.glob("trainer/*.py")]:
        if path.name != "backends.py":
            imported = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            assert "unsloth" not in imported, path


def test_importing_the_packages_brings_no_torch() -> None:
    code = "import cowest_graph, trainer, sys; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "False"


def test_the_public_names_are_the_contract() -> None:
    promised = {
        "AdapterRegistry",
        "LocalWeak",
        "TraceStore",
        "create_collaboration",
        "create_collector",
        "judge",
    }
    assert promised <= set(cowest_graph.__all__)
    assert cowest_graph.LocalWeak.__name__ == "LocalWeak"
    assert {"TrainingJob", "demonstrations", "preferences", "train_dpo", "train_sft"} <= set(
        trainer.__all__
    )
    assert all(getattr(trainer, name).__name__ == name for name in trainer.__all__)
    for name in cowest_graph.__all__:
        assert getattr(cowest_graph, name) is not None
