"""How large a folder, a file, a function and a verb may be, and who writes files whole."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from test_house import PACKAGES, ROOT, modules

from trainer.cli import app


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _tracked(*suffixes: str) -> list[Path]:
    """The files of the work tree, without what is built or installed in it."""
    places = [*PACKAGES, "tests", "benchmarks", "examples"]
    every = [path for place in places for path in (ROOT / place).rglob("*") if path.is_file()]
    return [p for p in every if "__pycache__" not in p.parts and p.suffix in suffixes]


def test_a_folder_has_at_most_18_files() -> None:
    counts: dict[Path, int] = {}
    for path in _tracked(".py", ".typed", ".gz", ".jinja", ".jsonl", ".md", ".toml", ".yaml"):
        counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {str(folder): count for folder, count in counts.items() if count > 18} == {}


def test_a_file_has_at_most_450_lines() -> None:
    lengths = {str(path): len(path.read_text("utf-8").splitlines()) for path in _tracked(".py")}
    assert {path: lines for path, lines in lengths.items() if lines > 450} == {}


def test_a_function_is_read_at_one_sight() -> None:
    lengths = {
        f"{path}:{node.lineno}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in modules().values()
        for node in _functions(ast.parse(path.read_text("utf-8")))
    }
    assert {name: lines for name, lines in lengths.items() if lines > 70} == {}
    assert sorted(lengths.values())[int(0.9 * len(lengths))] <= 22


def test_a_verb_parses_calls_and_prints() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    verbs = [verb.callback for group in groups if group for verb in group.registered_commands]
    assert len(verbs) > 15
    longest: dict[str, int] = {}
    for verb in filter(None, verbs):
        module = ast.parse(Path(inspect.getfile(verb)).read_text("utf-8"))
        (node,) = [n for n in module.body if getattr(n, "name", "") == verb.__name__]
        assert isinstance(node, ast.FunctionDef)
        body = node.body[1:] if ast.get_docstring(node) else node.body
        longest[node.name] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    assert {name: lines for name, lines in longest.items() if lines > 20} == {}


def test_one_place_writes_a_file_whole() -> None:
    """Whoever lays a file down at once goes through `cowest_graph.files`."""
    writers = [
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and (
            ast.unparse(node.func) in ("os.replace", "os.rename", "fcntl.flock")
            or (
                (isinstance(node.func, ast.Attribute) and node.func.attr == "replace")
                and len(node.args) == 1
                and not node.keywords
            )
        )
    ]
    assert set(writers) == {"cowest_graph.files"}
