"""The house rules that a diff cannot show: who imports whom, what is public, what is not loaded."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import cowest_graph
import trainer

ROOT = Path(__file__).parents[3]
PACKAGES = ("cowest_graph", "trainer")

# Each room may import the rooms beside it, of its own package; third parties are free. A room is a
# file, or a folder (a wing), whose files may import each other as long as there is no circle.
_WEAK = "cowest_graph.weak"
ROOMS = {
    "cowest_graph.conversation": "",
    "cowest_graph.state": "conversation",
    "cowest_graph.failures": "",
    "cowest_graph.files": "",
    "cowest_graph.masking": "",
    "cowest_graph.metrics": "",
    "cowest_graph.prompts": "conversation",
    "cowest_graph.threads": "",
    "cowest_graph.replies": "masking",
    "cowest_graph.evaluators": "masking metrics prompts replies state",
    "cowest_graph.judging": "evaluators masking prompts replies state",
    "cowest_graph.traces": "files masking prompts state",
    "cowest_graph.telemetry": "failures masking traces",
    "cowest_graph.collecting": "conversation failures masking state threads traces",
    "cowest_graph.calls": "evaluators failures masking prompts replies state telemetry threads",
    "cowest_graph.shadows": "calls masking prompts state telemetry threads traces",
    "cowest_graph.exploring": "calls conversation evaluators masking prompts state telemetry "
    "threads traces",
    "cowest_graph.graph": "calls conversation evaluators exploring failures judging masking "
    "prompts replies routing shadows state telemetry threads traces",
    "cowest_graph.routing": "adapters benchmark domains evaluators files metrics prompts traces",
    "cowest_graph.apps": "calls conversation evaluators graph masking prompts traces",
    "cowest_graph.batching": "calls collecting files masking",
    "cowest_graph.domains": "evaluators metrics prompts state",
    "cowest_graph.baselines": "calls domains evaluators failures graph prompts state",
    "cowest_graph.benchmark": "domains evaluators failures masking metrics prompts replies state "
    "threads",
    "cowest_graph.testing": "domains",
    "cowest_graph.adapters": "files",
    f"{_WEAK}.hardware": "",
    f"{_WEAK}.sharing": "",
    f"{_WEAK}.turns": "",
    f"{_WEAK}.versions": "adapters",
    f"{_WEAK}.swapping": "adapters",
    f"{_WEAK}.following": "adapters weak.swapping weak.versions",
    f"{_WEAK}.engine": "adapters weak.sharing weak.turns weak.versions",
    f"{_WEAK}.servers": "adapters files weak.hardware weak.sharing weak.versions",
    f"{_WEAK}.local": "weak.engine weak.swapping weak.turns",
    f"{_WEAK}.vllm": "weak.servers weak.swapping",
    f"{_WEAK}.llama": "adapters files weak.following weak.servers",
    "cowest_graph.embedded": "weak.servers",
    "trainer.console": "",
    "trainer.presets": "",
    "trainer.run": "",
    "trainer.fast": "",
    "trainer.gate": "",
    "trainer.routing": "gate",
    "trainer.foreseen": "",
    "trainer.replay": "",
    "trainer.drift": "",
    "trainer.objectives": "presets",
    "trainer.job": "objectives presets",
    "trainer.rows": "objectives",
    "trainer.checks": "rows",
    "trainer.backends": "job presets run",
    "trainer.tuning": "backends fast job rows run",
    "trainer.sft": "backends checks fast rows tuning",
    "trainer.dpo": "backends checks job objectives rows tuning",
    "trainer.kto": "backends checks objectives rows tuning",
    "trainer.worker": "backends dpo job kto run sft tuning",
    "trainer.plan": "backends checks job presets rows run",
    "trainer.launch": "checks job objectives presets rows run",
    "trainer.course": "objectives rows",
    "trainer.loop": "checks console course gate job launch rows run",
    "trainer.engines": "",
    "trainer.traffic": "checks console job launch loop rows run",
    "trainer.bench": "checks console job launch rows run",
    "trainer.demo": "job launch rows",
    "trainer.reports": "console demo",
    "trainer.studio": "rows",
    "trainer.cli": "bench checks console course demo drift engines foreseen gate job launch loop "
    "plan replay reports routing rows run studio traffic",
    "trainer.entry": "cli",
}
# What `trainer` may take of `cowest_graph` beside its rooms' faces: files within a wing.
PUBLIC = {
    "cowest_graph.baselines.collaborating",
    "cowest_graph.benchmark.ledger",
    "cowest_graph.benchmark.scoreboard",
    "cowest_graph.domains.retrieval",
    "cowest_graph.telemetry.langsmith",
    "cowest_graph.testing.asking",
    "cowest_graph.testing.instruments",
    "cowest_graph.testing.worlds",
    f"{_WEAK}.hardware",
    f"{_WEAK}.servers.command",
    f"{_WEAK}.servers.llama_server",
    f"{_WEAK}.turns",
    f"{_WEAK}.vllm",
}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the two packages, by its name."""
    paths = [path for package in PACKAGES for path in sorted(root.glob(f"{package}/**/*.py"))]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imports(path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules of ours that a file imports, anywhere in it, for types alone, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = {f"{node.module}.{alias.name}": str(node.module) for alias in node.names}
            found |= {name if name in known else module for name, module in whole.items()}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def room(module: str) -> str:
    """The room that a module is in: its longest prefix in the table."""
    parts = module.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in ROOMS), module)


def forbidden(root: Path = ROOT) -> list[str]:
    """Every import that the tables do not allow."""
    known, found = modules(root), []
    for name, path in known.items():
        if name in (*PACKAGES, _WEAK):  # faces hand on, whatever it is
            continue
        here, package = room(name), name.split(".")[0]
        allowed = {f"{package}.{beside}" for beside in ROOMS.get(here, "").split()}
        for target in imports(path, known):
            there = room(target)
            outside = not target.startswith(package)
            if outside and package == "trainer":
                wrong = target.count(".") > 1 and target not in PUBLIC
            elif target in PACKAGES:
                wrong = outside
            else:
                wrong = outside or (there != here and there not in allowed)
            if wrong:
                found.append(f"{name} imports {target}; allowed: {sorted(allowed)}")
    return found


def circles(edges: Mapping[str, set[str]]) -> list[str]:
    """The modules that come back to themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [*edges.get(start, ())]
        while left:
            if (one := left.pop()) not in seen:
                seen.add(one)
                left += edges.get(one, ())
        return seen

    return [name for name in edges if name in reached(name)]


def test_every_room_imports_only_what_the_table_allows() -> None:
    assert forbidden() == []
    assert {room(name) for name in modules()} - {*PACKAGES, _WEAK} == set(ROOMS)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("trainer/fast/bad.py", "from trainer.cli import main"),
        ("trainer/fast/bad.py", "if TYPE_CHECKING:\n    from trainer.cli import main"),
        ("cowest_graph/weak/engine/bad.py", "def f():\n    import cowest_graph.weak.local"),
        ("cowest_graph/bad.py", "from trainer import train_dpo"),
        ("trainer/gate/fixed.py", "from cowest_graph.traces.tables import TRACES"),
    ],
)
def test_a_planted_import_is_found(file: str, line: str, tmp_path: Path) -> None:
    for name in modules().values():
        (copy := tmp_path / name.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(name.read_text("utf-8"), "utf-8")
    assert forbidden(tmp_path) == []
    with (tmp_path / file).open("a") as planted:
        planted.write(f"\n{line}\n")
    assert len(forbidden(tmp_path)) == 1


def test_nothing_imports_itself_by_a_detour() -> None:
    known = modules()
    edges = {name: imports(path, known) - {name} for name, path in known.items()}
    assert circles(edges) == []
    rooms: dict[str, set[str]] = {}
    for name, targets in edges.items():
        if name not in (*PACKAGES, _WEAK):
            rooms.setdefault(room(name), set()).update(
                room(target) for target in targets if room(target) != room(name)
            )
    assert circles(rooms) == []
    edges["cowest_graph.state"] = {"cowest_graph.graph"}  # a circle that is one is found
    assert "cowest_graph.graph" in circles(edges)


def test_only_one_file_names_unsloth_in_code() -> None:
    for path in modules().values():
        if path.name != "backends.py":
            imported = {
                alias.name
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
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


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from trainer.cli import run; run(['--help']);"
        "heavy = {'langchain_core', 'langgraph', 'langsmith', 'sqlalchemy', 'torch'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stderr.strip() == "set()"


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
