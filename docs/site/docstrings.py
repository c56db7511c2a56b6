"""Examples in docstrings as blocks of code, which Markdown would not take them for.

An extension of griffe, which reads the sources for the API reference. Knows text alone: `>>>` and
what it prints, and what stands below `Example:`.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n((?:    .*(?:\n|\Z)|\n)+)", re.MULTILINE)
_SESSION = re.compile(r"^( *)>>> (?:.+(?:\n|\Z))+", re.MULTILINE)


class FencedExamples(griffe.Extension):
    """Puts fences around the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that has been read."""
        if obj.docstring is not None and not obj.is_alias:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """A docstring's text with fences around its examples."""
    text = _EXAMPLE.sub(_fenced_example, text)
    return _SESSION.sub(lambda found: _within("pycon", found[0], found[1]), text)


def _fenced_example(found: re.Match[str]) -> str:
    code = found[1]
    kept = code if ">>> " in code else _within("python", code, "    ")
    return f"Example:\n{kept}\n"


def _within(language: str, code: str, indent: str) -> str:
    return f"{indent}```{language}\n{code.rstrip()}\n{indent}```\n"
