"""Pages of the site that are not in docs/: the README, and whatever a page links to.

A link in a page is written as the repository has it, so that it leads somewhere in a checkout and
wherever the repository is shown. This hook of mkdocs takes files that are linked to, but are not in
docs/, into the site under their own path, and turns the links there. A link to a file that is not
there is left alone, and ends a strict build. Knows links in Markdown and mkdocs' files; knows
neither navigation nor docstrings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[2]
DOCS = "docs"
STARTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md")  # in the navigation, linked or not

_FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
_INFO = re.compile(r"^(```+\w+) [\w -]+$", re.MULTILINE)  # "python no-run", which ours alone reads
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to, and what that links to."""
    found = [f"{DOCS}/{file.src_uri}" for file in files.documentation_pages()]
    seen = {*found, *STARTS}
    left = [*found, *STARTS]
    while left:
        origin = left.pop()
        if not origin.startswith(f"{DOCS}/"):
            files.append(_page(origin, config))
        if origin.endswith(".md"):
            new = {at for at in _linked(origin) if (ROOT / at).is_file() and at not in seen}
            seen |= new
            left += sorted(new)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page to where the site has what they lead to."""
    markdown = _INFO.sub(r"\1", markdown)
    own: str = page.file.src_uri
    if (ROOT / DOCS / own).is_file():
        origin = f"{DOCS}/{own}"
    elif (ROOT / own).is_file():
        origin = own
    else:  # a page of source, which has no links
        return markdown

    def turned(link: re.Match[str]) -> str:
        target = _target(origin, link["path"])
        if (ROOT / target).is_dir():  # a site has no folders to look into
            return link["text"]
        if not (ROOT / target).is_file():
            return link[0]
        there = relpath(_in_site(target), PurePosixPath(own).parent)
        return f"[{link['text']}]({there}{link['anchor'] or ''})"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(turned, markdown[end:])])


def _linked(origin: str) -> Iterator[str]:
    text = _FENCE.sub("", (ROOT / origin).read_text("utf-8"))
    return (_target(origin, link["path"]) for link in _LINK.finditer(text))


def _target(origin: str, path: str) -> str:
    """What a link in a file of the repository leads to, from the repository's root."""
    return normpath(f"{PurePosixPath(origin).parent}/{path}")


def _in_site(target: str) -> str:
    """Where the site has a file of the repository."""
    if target.startswith(f"{DOCS}/"):
        return target.removeprefix(f"{DOCS}/")
    return target if target.endswith(".md") else f"{target}.md"


def _page(origin: str, config: Any) -> File:
    """A file from elsewhere as a page: Markdown as it is, everything else as a block of code."""
    text = (ROOT / origin).read_text("utf-8")
    if not origin.endswith(".md"):
        text = f"# {origin}\n\n````{PurePosixPath(origin).suffix.removeprefix('.')}\n{text}\n````\n"
    kept = InclusionLevel.NOT_IN_NAV  # it need not be, and may be
    return File.generated(config, _in_site(origin), content=text, inclusion=kept)
