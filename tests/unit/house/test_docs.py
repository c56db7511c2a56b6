"""The README's snippets run, and print what it says they print."""

import contextlib
import doctest
import importlib
import io
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", ["README.md", "docs/apps.md", "docs/traffic.md"])
def test_a_snippet_prints_what_the_document_says(document: str) -> None:
    text = (Path(__file__).parents[3] / document).read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S)
    assert found
    for code, expected in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, document, "exec"), {})
        assert printed.getvalue() == expected


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (Path(__file__).parents[3] / target).exists(), target


def _modules_with_examples() -> list[str]:
    root = Path(__file__).parents[3]
    files = [*root.glob("cowest_graph/**/*.py"), *root.glob("trainer/**/*.py")]
    having = [
        file for file in files if re.search(r"^\s*>>> (?!.*\+SKIP)", file.read_text("utf-8"), re.M)
    ]
    return [".".join(file.relative_to(root).with_suffix("").parts) for file in sorted(having)]


@pytest.mark.parametrize("name", _modules_with_examples())
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", ["cowest_graph", "trainer"])
def test_the_api_reference_has_every_public_name_once(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "api" / f"{name}.md").read_text(encoding="utf-8")
    told = re.findall(rf"^::: {name}\.(\w+)$", page, re.M)
    optional = ["CollaborationMiddleware"] if name == "cowest_graph" else []  # needs langchain
    assert sorted(told) == sorted([*importlib.import_module(name).__all__, *optional])
