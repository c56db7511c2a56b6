"""Adapters as versions: a version is a folder, the choice is a file.

Knows PEFT's folder format, cards, and which version is chosen. Knows no model, no torch and no
training: a running model reads `AdapterRegistry.current` and follows it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from cowest_graph.adapter_folders import (
    CARD,
    CONFIG,
    WEIGHTS,
    base_fingerprint,
    check_folder,
    files,
    is_version,
    read_json,
)
from cowest_graph.choices import BASE, Choice, Chosen

__all__ = [
    "BASE",
    "CARD",
    "CONFIG",
    "WEIGHTS",
    "AdapterRegistry",
    "Card",
    "Choice",
    "base_fingerprint",
]

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBERED = re.compile(r"v(\d+)")


class Card(TypedDict, total=False):
    """What is known of a version. Missing is None, never 0; keys beside these are kept."""

    name: str
    kind: str | None  # sft, dpo, …
    parents: list[str]  # the versions it was trained from
    base: str | None  # the base model's name
    base_hash: str | None  # `base_fingerprint` of the base model
    rows_hash: str | None  # of the rows it was trained on
    hyperparameters: dict[str, Any]
    versions: dict[str, str]  # of the libraries
    metrics: dict[str, Any]
    backend: str | None
    created_at: str  # ISO 8601, UTC


class AdapterRegistry:
    """Versions of an adapter in one folder, and which of them is chosen.

    Safe for several processes: a version appears by one rename, the choice moves by one
    `os.replace`, and writers take turns by a lock file. Readers need no lock.

    Args:
        folder: where the versions lie; made when the first one is added.
        base: folder of the base model that every adapter here is for. Its fingerprint is compared
            with the cards'. Without it, the first card that names a base sets it.

    Example:
        >>> adapters = AdapterRegistry("adapters")
        >>> adapters.names(), adapters.current
        ([], None)
    """

    def __init__(self, folder: str | Path, *, base: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.base = None if base is None else Path(base)
        self._cached: tuple[tuple[int, int, int], Chosen] | None = None  # file stamp, choice

    def __repr__(self) -> str:
        return f"AdapterRegistry({str(self.folder)!r}, current={self.current!r})"

    # --- what there is ---

    def names(self) -> list[str]:
        """The versions there are, sorted by name."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if is_version(entry))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(_NAME.fullmatch(name)) and is_version(self._at(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def path(self, name: str) -> Path:
        """The PEFT folder of a version.

        Raises:
            ValueError: for what is no version's name at all, such as `../x`.
            LookupError: for a version that there is not.
        """
        _check_name(name)
        if name not in self:
            there_are = ", ".join(self.names()) or "none yet"
            raise LookupError(f"no adapter {name!r} in {self.folder}/; there are: {there_are}")
        return self._at(name)

    def card(self, name: str) -> Card:
        """The card of a version.

        Raises:
            ValueError: when the card is damaged, or for what is no version's name.
            LookupError: for a version that there is not.
        """
        return cast(Card, read_json(self.path(name) / CARD))

    # --- what is chosen ---

    @property
    def current(self) -> str | None:
        """The chosen version; None is the bare base model. Cheap: one stat while nothing changes.

        Raises:
            ValueError: when the choice file is damaged.
        """
        return self._chosen.current

    @property
    def routes(self) -> dict[str, float]:
        """The share of drafts of each candidate, in (0, 1]; the rest is `current`'s. As cheap."""
        return dict(self._chosen.routes)

    @property
    def shadow(self) -> str | None:
        """The version that drafts beside the one in use, without effect; None for none. As cheap.

        "base" is the bare base model.
        """
        return self._chosen.shadow

    def choose(self, key: str | None = None) -> str | None:
        """The version for one draft: a candidate, by its share, or the chosen version. As cheap.

        Args:
            key: what sticks to its version, such as a thread id: the same key always falls into
                the same share, and stays there when the share grows. None draws by chance.

        Returns:
            A version; None is the bare base model. A candidate whose folder is gone is passed over.

        Raises:
            ValueError: when the choice file is damaged.
        """
        chosen = self._chosen
        candidate = chosen.candidate(key)
        if candidate is None:
            return chosen.current
        if candidate == BASE:
            return None
        if candidate not in self:
            log.warning("no folder of the routed %s; its share goes to the chosen one", candidate)
            return chosen.current
        return candidate

    def promote(self, name: str) -> None:
        """Choose a version: running models use it from their next request on.

        It is no candidate any more: its route and its shadow end. Those of others go on.

        Args:
            name: a version, or "base" for the bare base model.

        Raises:
            LookupError: for a version that there is not.
            ValueError: for one whose folder is damaged, and when the choice file is.
        """
        with self._locked():
            chosen = self._read_choice()
            self._write_choice("promote", chosen.promote(self._checked(name)), chosen.current)

    def rollback(self) -> str | None:
        """Go back to what was chosen before the last promotion; None is the bare base model.

        Promote, then roll back, changes nothing (but the end of a route to what was promoted).
        Where nothing was chosen before, the base stays.

        Raises:
            ValueError: when the choice file is damaged.
        """
        with self._locked():
            chosen = self._read_choice()
            back = chosen.rollback()
            self._write_choice("rollback", back, chosen.current)
        return back.current

    def route(self, shares: Mapping[str, float], *, shadow: str | None = None) -> None:
        """Try versions on part of the drafts (canaries), and one beside them (shadow).

        What was routed before ends; `route({})` ends all. Running models follow from their next
        request on.

        Args:
            shares: version → share of drafts, above 0 and up to 1, at most 1 in all; the chosen
                version gets the rest. "base" is the bare base model.
            shadow: a version that drafts beside the one in use; its drafts are kept in the traces
                and never used.

        Raises:
            LookupError: for a version that there is not.
            ValueError: for impossible shares, for the chosen version itself, for a version whose
                folder is damaged, and when the choice file is damaged.

        Example:
            >>> AdapterRegistry("adapters").route({"v0007": 0.1})
            Traceback (most recent call last):
            LookupError: no adapter 'v0007' in adapters/; there are: none yet
        """
        with self._locked():
            for name in [*shares, *([shadow] if shadow is not None else [])]:
                self._checked(name)
            chosen = self._read_choice()
            self._write_choice("route", chosen.route(shares, shadow), chosen.current)

    def history(self) -> list[Choice]:
        """Every promotion, rollback, route and deletion, the oldest first."""
        try:
            lines = self._history_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.strip()]

    # --- what comes and goes ---

    def add(
        self, source: str | Path, *, card: Mapping[str, Any] | None = None, name: str | None = None
    ) -> str:
        """Copy a PEFT folder in as a new version; either all of it is there afterwards, or nothing.

        Args:
            source: folder with adapter_config.json and adapter_model.safetensors; whatever else
                lies there (a training log) comes along.
            card: what is known of the adapter; see `Card`. `base_hash` is compared.
            name: default v0001, v0002, …

        Returns:
            The version's name.

        Raises:
            ValueError: for an adapter of another base, a pickle, missing or damaged files, a name
                that is taken or impossible. Nothing is changed.
        """
        source = Path(source)
        if name is not None:
            _check_name(name)
        config = check_folder(source)
        with self._locked():
            self._check_base(card)
            version = name or self._next_name()
            if os.path.lexists(self._at(version)):
                raise ValueError(
                    f"the name {version!r} is taken in {self.folder}/; choose another one, "
                    f"or delete({version!r}) first"
                )
            self._copy_in(source, version, _full_card(version, card, config))
        return version

    def delete(self, name: str) -> None:
        """Remove a version for good.

        Raises:
            ValueError: for a version that is chosen, routed to, or the shadow now.
            LookupError: for a version that there is not.
        """
        with self._locked():
            path = self.path(name)
            chosen = self._read_choice()
            if name == chosen.current:
                raise ValueError(
                    f"{name!r} is the chosen adapter; promote another one or roll back first"
                )
            if name in chosen.names():
                raise ValueError(
                    f"{name!r} is a candidate (routed to, or the shadow); route({{}}) ends that"
                )
            if name in chosen.before:  # no rollback may lead to what is gone
                self._replace_json(self._choice_file, chosen.without(name).as_json())
            trash = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.folder))
            os.replace(path, trash / name)
            self._log("delete", name, chosen.current, chosen)  # so that no name is given twice
        shutil.rmtree(trash)

    def _copy_in(self, source: Path, version: str, card: Card) -> None:
        """Copy beside, then rename once: a killed copy leaves a hidden folder and no version."""
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            target = beside / version
            for file in files(source):
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                _fsync(copy)
            self._replace_json(target / CARD, card)
            check_folder(target)  # what was checked is what was copied
            _fsync(target)
            os.replace(target, self._at(version))
            _fsync(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _check_base(self, card: Mapping[str, Any] | None) -> None:
        theirs = (card or {}).get("base_hash")
        ours = self._base_hash() if theirs else None
        if theirs and ours and theirs != ours:
            raise ValueError(
                f"this adapter is for the base {(card or {}).get('base')!r} "
                f"({theirs[:12]}…), but the adapters in {self.folder}/ are for another one "
                f"({ours[:12]}…); use a registry of its own for it"
            )

    def _base_hash(self) -> str | None:
        if self.base is not None:
            return base_fingerprint(self.base)
        hashes = (self.card(name).get("base_hash") for name in self.names())
        return next((known for known in hashes if known), None)

    def _next_name(self) -> str:
        numbers = (_NUMBERED.fullmatch(entry.name) for entry in self.folder.iterdir())
        taken = [int(found[1]) for found in numbers if found]
        seen = (_NUMBERED.fullmatch(line["version"] or "") for line in self.history())
        return f"v{max([*taken, *(int(found[1]) for found in seen if found)], default=0) + 1:04d}"

    # --- the files behind ---

    def _at(self, name: str) -> Path:
        return self.folder / name

    @property
    def _choice_file(self) -> Path:
        return self.folder / "current.json"

    @property
    def _history_file(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def _chosen(self) -> Chosen:
        try:
            stat = os.stat(self._choice_file)
        except FileNotFoundError:
            return Chosen()
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        cached = self._cached
        if cached is None or cached[0] != stamp:
            self._cached = cached = (stamp, self._read_choice())
        return cached[1]

    def _read_choice(self) -> Chosen:
        if not self._choice_file.exists():
            return Chosen()
        try:
            return Chosen.from_json(read_json(self._choice_file))
        except ValueError as error:
            raise ValueError(f"{self._choice_file} is damaged: {error}") from error

    def _checked(self, name: str) -> str | None:
        """A version that can be used; None is the bare base model."""
        if name == BASE:
            return None
        check_folder(self.path(name))
        return name

    def _write_choice(self, action: str, chosen: Chosen, previous: str | None) -> None:
        self._replace_json(self._choice_file, chosen.as_json())
        self._log(action, chosen.current, previous, chosen)

    def _log(self, action: str, version: str | None, previous: str | None, now: Chosen) -> None:
        line = Choice(
            at=_now(),
            action=action,
            version=version,
            previous=previous,
            routes=dict(now.routes),
            shadow=now.shadow,
        )
        with self._history_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _replace_json(self, path: Path, content: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=".", suffix=".json", dir=self.folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl  # not on every platform; readers do without

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _check_name(name: str) -> None:
    if name == BASE:
        raise ValueError(f"{BASE!r} is the bare base model, not an adapter in a folder")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name an adapter: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def _full_card(version: str, card: Mapping[str, Any] | None, config: Mapping[str, Any]) -> Card:
    given = dict(card or {})
    empty: Card = {
        "name": version,
        "kind": None,
        "parents": [],
        "base": config.get("base_model_name_or_path"),
        "base_hash": None,
        "rows_hash": None,
        "hyperparameters": {},
        "versions": {},
        "metrics": {},
        "backend": None,
        "created_at": _now(),
    }
    full: Card = {**empty, **given, "name": version}  # type: ignore[typeddict-item]
    return full


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
