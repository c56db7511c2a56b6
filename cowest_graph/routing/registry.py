"""Routers as versions: a version is a folder, the choice is a file, as with adapters.

Knows folders, cards and the choice. Knows no learning. Loading a version runs nothing of it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cowest_graph.adapters.choice_files import ChoiceFiles
from cowest_graph.adapters.choices import Choice
from cowest_graph.adapters.folders import CARD, NAME, read_json
from cowest_graph.files import locked, replace_file, sync
from cowest_graph.routing.features import Embed
from cowest_graph.routing.router import ARRAYS, SPEC, Router
from cowest_graph.routing.seen import Seen
from cowest_graph.traces.records import Route

log = logging.getLogger(__name__)

NONE = "none"
"""The reserved name of no router: both models answer, always."""
_NUMBERED = re.compile(r"r(\d+)")


class RouterRegistry:
    """Versions of a router in one folder, and which of them is chosen.

    A version appears by one rename, the choice moves by one replacement, and writers take turns by
    a lock file, as in `AdapterRegistry`.

    Args:
        folder: where the versions lie; made when the first one is added.

    >>> RouterRegistry("routers").names()
    []
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = ChoiceFiles(self.folder)

    def __repr__(self) -> str:
        return f"RouterRegistry({str(self.folder)!r})"

    def names(self) -> list[str]:
        """The versions there are, sorted by name."""
        if not self.folder.is_dir():
            return []
        return sorted(each.name for each in self.folder.iterdir() if _is_version(each))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(NAME.fullmatch(name)) and name in self.names()

    def path(self, name: str) -> Path:
        """The folder of a version.

        Raises:
            LookupError: for a version that there is not.
        """
        if name not in self:
            there_are = ", ".join(self.names()) or "none yet"
            raise LookupError(f"no router {name!r} in {self.folder}/; there are: {there_are}")
        return self.folder / name

    def card(self, name: str) -> dict[str, Any]:
        """What is known of a version: target, rows, metrics, versions of the libraries.

        Raises:
            LookupError: for a version that there is not.
            ValueError: when the card is damaged.
        """
        return read_json(self.path(name) / CARD)

    def load(self, name: str, *, embed: Embed | None = None) -> Router:
        """A version.

        Raises:
            LookupError: for a version that there is not.
            ValueError: for one that is damaged.
        """
        return Router.load(self.path(name), embed=embed)

    # --- what is chosen ---

    @property
    def current(self) -> str | None:
        """The chosen version; None is no router. Cheap: one stat while nothing changes.

        Raises:
            ValueError: when the choice file is damaged.
        """
        return self._files.chosen.current

    def promote(self, name: str) -> None:
        """Choose a version: running graphs use it from their next query on.

        Args:
            name: a version, or "none" for no router.

        Raises:
            LookupError: for a version that there is not.
            ValueError: for one that is damaged, and when the choice file is.
        """
        wanted = None if name == NONE else name
        with locked(self.folder):
            if wanted is not None:
                self.load(wanted)
            chosen = self._files.read()
            self._files.write("promote", chosen.promote(wanted), chosen.current)

    def rollback(self) -> str | None:
        """Go back to what was chosen before the last promotion; None is no router."""
        with locked(self.folder):
            chosen = self._files.read()
            back = chosen.rollback()
            self._files.write("rollback", back, chosen.current)
        return back.current

    def history(self) -> list[Choice]:
        """What was chosen when, the oldest first."""
        return self._files.history()

    def add(self, router: Router, card: Mapping[str, Any], *, name: str | None = None) -> str:
        """Keep a router as a new version; either all of it is there afterwards, or nothing.

        Args:
            router: as it was fitted.
            card: what is known of it.
            name: default r0001, r0002, …

        Returns:
            The version's name.

        Raises:
            ValueError: for a name that is taken or impossible.
        """
        if name is not None and (name == NONE or not NAME.fullmatch(name)):
            raise ValueError(
                f"{name!r} cannot name a router: use letters, digits, '.', '_' and '-', beginning "
                f"with a letter or digit, and not {NONE!r}"
            )
        with locked(self.folder):
            version = name or self._next_name()
            if (self.folder / version).exists():
                raise ValueError(f"the name {version!r} is taken in {self.folder}/; choose another")
            beside = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
            try:
                target = beside / version
                router.save(target)
                made = datetime.now(UTC).isoformat(timespec="milliseconds")
                full = {"created_at": made, **card, "name": version}
                replace_file(target / CARD, json.dumps(full, indent=1, ensure_ascii=False))
                Router.load(target)  # what is kept can be read
                sync(target)
                target.rename(self.folder / version)
                sync(self.folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        return version

    def _next_name(self) -> str:
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        taken = [int(found[1]) for each in entries if (found := _NUMBERED.fullmatch(each.name))]
        named = [line["version"] or "" for line in self._files.legible()[0]]
        taken += [int(found[1]) for name in named if (found := _NUMBERED.fullmatch(name))]
        return f"r{max(taken, default=0) + 1:04d}"


class FollowingRouter:
    """The registry's chosen router, whichever that is when a query comes.

    A graph's edges say whether it decides before the draft or after it, so a version of the other
    kind is not followed: both models answer, and a warning says so, until the graph is built anew.
    So does the number of drafts that are drawn: a version that wants more chooses among those.

    Args:
        registry: of the versions.
        after_draft: when it decides; None for as the chosen version does.
        embed: as `Features.table`.
    """

    def __init__(
        self,
        registry: RouterRegistry,
        *,
        after_draft: bool | None = None,
        embed: Embed | None = None,
    ) -> None:
        self._registry, self._embed = registry, embed
        self._loaded: tuple[str, Router] | None = None
        now = self._chosen()
        told = now.after_draft if now is not None else True
        self.after_draft = told if after_draft is None else after_draft
        self.logprobs = now.logprobs if now is not None else False
        self.second = now.second if now is not None else False
        self.drafts = now.drafts if now is not None else 1

    def decide(self, seen: Seen, key: str) -> Route:
        """As `choose`, of one draft."""
        return self.choose([seen], key)[1]

    def choose(self, drafted: Sequence[Seen], key: str) -> tuple[int, Route]:
        """By the chosen version, among as many drafts as are drawn; without one both answer.

        Raises:
            ValueError: for a chosen version that is damaged; the graph lets both answer then.
        """
        router = self.now()
        return (0, Route(way="both")) if router is None else router.choose(drafted, key)

    def now(self) -> Router | None:
        """The chosen version; None where there is none that this graph can follow.

        Raises:
            ValueError: as `choose`.
        """
        router = self._chosen()
        if router is not None and router.after_draft != self.after_draft:
            when = "after the draft" if router.after_draft else "before the draft"
            log.warning("router %s decides %s, and this graph does not", router.name, when)
            return None
        return router

    def _chosen(self) -> Router | None:
        name = self._registry.current
        if name is None:
            return None
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = (name, self._registry.load(name, embed=self._embed))
        return self._loaded[1]


def _is_version(path: Path) -> bool:
    there: Callable[[str], bool] = lambda name: (path / name).is_file()  # noqa: E731
    hidden = path.name.startswith(".") or path.is_symlink()
    return not hidden and there(CARD) and there(SPEC) and there(ARRAYS)
