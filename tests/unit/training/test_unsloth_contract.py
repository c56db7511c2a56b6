"""What the trainer calls of Unsloth exists there, where it is installed; read, not imported."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

BACKENDS = Path(__file__).parents[3] / "trainer" / "backends.py"


def keywords_of(tree: ast.AST, method: str) -> set[str]:
    """The keywords of the calls `FastLanguageModel.METHOD(…)`."""
    return {
        keyword.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == method
        and getattr(node.func.value, "id", "") == "FastLanguageModel"
        for keyword in node.keywords
        if keyword.arg
    }


def parameters_of(source: Path, owner: str, method: str) -> set[str]:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == method:
                    return {a.arg for a in (*function.args.args, *function.args.kwonlyargs)}
    raise AssertionError(f"no {owner}.{method} in {source}")


def test_the_calls_fit_unsloths_signatures() -> None:
    found = importlib.util.find_spec("unsloth")
    if found is None or found.origin is None:
        pytest.skip("unsloth is not installed here")
    models = Path(found.origin).parent / "models"
    ours = ast.parse(BACKENDS.read_text(encoding="utf-8"))
    known = parameters_of(models / "loader.py", "FastLanguageModel", "from_pretrained")
    assert keywords_of(ours, "from_pretrained") <= known
    known = parameters_of(models / "llama.py", "FastLlamaModel", "get_peft_model")
    assert keywords_of(ours, "get_peft_model") <= known


def test_the_calls_are_found_at_all() -> None:
    ours = ast.parse(BACKENDS.read_text(encoding="utf-8"))
    assert "load_in_4bit" in keywords_of(ours, "from_pretrained")
    assert "random_state" in keywords_of(ours, "get_peft_model")
