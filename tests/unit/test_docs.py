"""The README's snippets run, and print what it says they print."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import pytest

import cowest_graph
import trainer

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_snippet_prints_what_the_readme_says() -> None:
    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.S)
    assert found
    for code, expected in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), {})
        assert printed.getvalue() == expected


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (Path(__file__).parents[2] / target).exists(), target


def _modules() -> list[str]:
    names = []
    for package in (cowest_graph, trainer):
        found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        # The engine's modules import torch; their examples run with the training tests.
        heavy = ("weak.engine", "weak.rows", "weak.lora", "weak.sampling")
        names += [m.name for m in found if not m.name.endswith(heavy)]
    return names


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
