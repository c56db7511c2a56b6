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
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from cowest_graph.adapters.choice_files import REPAIR, ChoiceFiles
from cowest_graph.adapters.choices import BASE, Choice, Chosen, replayed
from cowest_graph.adapters.folders import (
    CARD,
    CONFIG,
    NAME,
    WEIGHTS,
    Card,
    base_fingerprint,
    check_folder,
    check_name,
    files,
    full_card,
    is_version,
    read_json,
)
from cowest_graph.files import locked, replace_file, sync, unchanged

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

_NUMBERED = re.compile(r"v(\d+)")


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
        self._files = ChoiceFiles(self.folder)

    def __repr__(self) -> str:
        return f"AdapterRegistry({str(self.folder)!r})"

    # --- what there is ---

    def names(self) -> list[str]:
        """The versions there are, sorted by name."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if is_version(entry))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(NAME.fullmatch(name)) and is_version(self._at(name))

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
        check_name(name)
        if name not in self:
            if self._at(name).is_dir() and not self._at(name).is_symlink():
                raise LookupError(
                    f"{self._at(name)} is not whole, as if its copy had broken off; delete the "
                    "folder, and add the adapter again from its source"
                )
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
        return self._files.chosen.current

    @property
    def routes(self) -> dict[str, float]:
        """The share of drafts of each candidate, in (0, 1]; the rest is `current`'s. Cheap, too."""
        return dict(self._files.chosen.routes)

    @property
    def shadow(self) -> str | None:
        """The version that drafts beside the one in use, without effect; None for none. Cheap, too.

        "base" is the bare base model.
        """
        return self._files.chosen.shadow

    def choose(self, key: str | None = None) -> str | None:
        """The version for one draft: a candidate, by its share, or the chosen version. Cheap, too.

        Args:
            key: what sticks to its version, such as a thread id: the same key always falls into
                the same share, and stays there when the share grows. None draws by chance.

        Returns:
            A version; None is the bare base model. A candidate whose folder is gone is passed over.

        Raises:
            ValueError: when the choice file is damaged.
        """
        chosen = self._files.chosen
        candidate = chosen.candidate(key)
        if candidate is None:
            return chosen.current
        if candidate == BASE:
            return None
        if candidate not in self:
            log.warning("no folder of the routed %s; its share goes to the chosen one", candidate)
            return chosen.current
        return candidate

    def choice(self) -> dict[str, Any]:
        """All that is chosen, at one moment: `current`, `routes` and `shadow`, as plain data.

        Raises:
            ValueError: when the choice file is damaged.
        """
        chosen = self._files.chosen
        now = {"current": chosen.current, "routes": dict(chosen.routes), "shadow": chosen.shadow}
        return now

    def promote(self, name: str) -> None:
        """Choose a version: running models use it from their next request on.

        It is no candidate any more: its route and its shadow end. Those of others go on.

        Args:
            name: a version, or "base" for the bare base model.

        Raises:
            LookupError: for a version that there is not.
            ValueError: for one whose folder is damaged, and when the choice file is.
        """
        with locked(self.folder):
            chosen = self._files.read()
            self._files.write("promote", chosen.promote(self._checked(name)), chosen.current)

    def rollback(self) -> str | None:
        """Go back to what was chosen before the last promotion; None is the bare base model.

        Promote, then roll back, changes nothing (but the end of a route to what was promoted).
        Where nothing was chosen before, the base stays.

        Raises:
            ValueError: when the choice file is damaged.
        """
        with locked(self.folder):
            chosen = self._files.read()
            back = chosen.rollback()
            self._files.write("rollback", back, chosen.current)
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
        """
        with locked(self.folder):
            for name in [*shares, *([shadow] if shadow is not None else [])]:
                self._checked(name)
            chosen = self._files.read()
            self._files.write("route", chosen.route(shares, shadow), chosen.current)

    def history(self) -> list[Choice]:
        """Every promotion, rollback, route, deletion and repair, the oldest first.

        Raises:
            ValueError: when lines of the file are damaged.
        """
        return self._files.history()

    # --- what a crash left behind ---

    def damage(self) -> list[str]:
        """What is wrong in the folder, and what to do about each; empty when all is well."""
        with unchanged(self.folder):
            return self._damage()

    def _damage(self) -> list[str]:
        found = []
        try:
            chosen = self._files.read()
        except ValueError as error:
            found.append(str(error))
            chosen = Chosen()
        whole = self._whole()
        missing = sorted(chosen.names() - whole)
        found += [
            f"{name} is in use, and its folder is gone or damaged; {REPAIR}" for name in missing
        ]
        try:
            self.history()
        except ValueError as error:
            found.append(str(error))
        if broken := sorted({path.name for path in self._folders()} - whole):
            found.append(
                f"not whole: {', '.join(broken)}; delete these folders, and add the adapters again "
                "from their source"
            )
        if self._leftovers():
            found.append(f"copies that broke off take up room; {REPAIR}")
        return found

    def repair(self) -> list[str]:
        """Set the choice and the history right; what was done.

        A damaged choice is read from the history again, a version that cannot be used gives way to
        the one before it, lines of the history that cannot be read are dropped (the damaged file is
        kept beside), and copies that broke off are removed. Folders of versions are left alone.
        """
        done = []
        with locked(self.folder):
            history, damaged = self._files.legible()
            whole = self._whole()
            try:
                before: Chosen | None = self._files.read()
            except ValueError:
                done.append(f"kept the damaged choice as {self._files.put_aside()}")
                before = None
            if damaged:
                done.append(f"kept the damaged history as {self._files.rewrite(history)}")
            chosen = (replayed(history, whole) if before is None else before).within(whole)
            if chosen != before:
                previous = before.current if before is not None else None
                self._files.write("repair", chosen, previous)
                done.append(f"in use now: {chosen.current or 'the bare base model'}")
            for path in self._leftovers():
                shutil.rmtree(path, ignore_errors=True)
                done.append(f"removed a copy that broke off: {path.name}")
        return done

    def _whole(self) -> set[str]:
        """The versions that can be used."""
        found = set()
        for name in self.names():
            with suppress(ValueError):
                self._check(name)
                found.add(name)
        return found

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        entries = (path for path in self.folder.iterdir() if not path.name.startswith("."))
        return [path for path in entries if path.is_dir() and not path.is_symlink()]

    def _leftovers(self) -> list[Path]:
        return [*self.folder.glob(".new-*"), *self.folder.glob(".gone-*")]

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
            check_name(name)
        config = check_folder(source)
        with locked(self.folder):
            self._check_base(card)
            version = name or self._next_name()
            if os.path.lexists(self._at(version)):
                raise ValueError(
                    f"the name {version!r} is taken in {self.folder}/; choose another one, "
                    f"or delete({version!r}) first"
                )
            self._copy_in(source, version, full_card(version, card, config))
        return version

    def delete(self, name: str) -> None:
        """Remove a version for good.

        Raises:
            ValueError: for a version that is chosen, routed to, or the shadow now.
            LookupError: for a version that there is not.
        """
        with locked(self.folder):
            path = self.path(name)
            chosen = self._files.read()
            if name == chosen.current:
                raise ValueError(
                    f"{name!r} is the chosen adapter; promote another one or roll back first"
                )
            if name in chosen.names():
                raise ValueError(
                    f"{name!r} is a candidate (routed to, or the shadow); route({{}}) ends that"
                )
            if name in chosen.before:  # no rollback may lead to what is gone
                self._files.move(chosen.without(name))
            trash = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.folder))
            path.rename(trash / name)
            # So that no name is given twice.
            self._files.log("delete", name, chosen.current, chosen)
            shutil.rmtree(trash)  # nobody shall see it and take it for what a crash left

    def _copy_in(self, source: Path, version: str, card: Card) -> None:
        """Copy beside, then rename once: a killed copy leaves a hidden folder and no version."""
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            target = beside / version
            for file in files(source):
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                sync(copy)
            replace_file(target / CARD, json.dumps(card, indent=1, ensure_ascii=False))
            check_folder(target)  # what was checked is what was copied
            sync(target)
            target.rename(self._at(version))
            sync(self.folder)
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
        for name in self.names():
            with suppress(ValueError):  # a damaged card is `damage`'s affair, not every adapter's
                if known := self.card(name).get("base_hash"):
                    return known
        return None

    def _next_name(self) -> str:
        numbers = (_NUMBERED.fullmatch(entry.name) for entry in self.folder.iterdir())
        taken = [int(found[1]) for found in numbers if found]
        # Also of a damaged history: no name is given twice.
        return f"v{max([*taken, *self._files.numbers()], default=0) + 1:04d}"

    # --- the files behind ---

    def _at(self, name: str) -> Path:
        return self.folder / name

    def _checked(self, name: str) -> str | None:
        """A version that can be used; None is the bare base model."""
        if name == BASE:
            return None
        self._check(name)
        return name

    def _check(self, name: str) -> None:
        """What a running model needs of a version: its card, its configuration, its tensors."""
        check_folder(self.path(name))
        self.card(name)
