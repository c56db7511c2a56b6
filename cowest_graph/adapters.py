"""Adapters as versions: a version is a folder, the choice is a file.

Knows PEFT's folder format, cards, and which version is chosen. Knows no model, no torch and no
training: a running model reads `AdapterRegistry.current` and follows it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

BASE = "base"
"""The reserved name of the bare base model, for calls that want no adapter."""

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "card.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBERED = re.compile(r"v(\d+)")
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
_LEFT_OUT = {"training_args.bin"}  # what transformers' trainers leave beside every saved adapter


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


class Choice(TypedDict):
    """One line of the history. None is the bare base model."""

    at: str  # ISO 8601, UTC
    action: str  # promote, rollback, or delete
    version: str | None  # chosen now; with delete, what is gone
    previous: str | None  # chosen before


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
        self._choice: tuple[tuple[int, int, int], str | None] | None = None  # file stamp, current

    def __repr__(self) -> str:
        return f"AdapterRegistry({str(self.folder)!r}, current={self.current!r})"

    # --- what there is ---

    def names(self) -> list[str]:
        """The versions there are, sorted by name."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if _is_version(entry))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(_NAME.fullmatch(name)) and _is_version(self._at(name))

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
        return cast(Card, _read_json(self.path(name) / CARD))

    # --- what is chosen ---

    @property
    def current(self) -> str | None:
        """The chosen version; None is the bare base model. Cheap: one stat while nothing changes.

        Raises:
            ValueError: when the choice file is damaged.
        """
        try:
            stat = os.stat(self._choice_file)
        except FileNotFoundError:
            return None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        cached = self._choice
        if cached is None or cached[0] != stamp:
            self._choice = cached = (stamp, cast("str | None", self._read_choice()["current"]))
        return cached[1]

    def promote(self, name: str) -> None:
        """Choose a version: running models use it from their next request on.

        Args:
            name: a version, or "base" for the bare base model.

        Raises:
            LookupError: for a version that there is not.
        """
        with self._locked():
            chosen = None if name == BASE else self.path(name).name
            choice = self._read_choice()
            self._write_choice(
                "promote",
                {"current": chosen, "before": [*choice["before"], choice["current"]]},
                previous=choice["current"],
            )

    def rollback(self) -> str | None:
        """Go back to what was chosen before the last promotion; None is the bare base model.

        Promote, then roll back, changes nothing. Where nothing was chosen before, the base stays.
        """
        with self._locked():
            choice = self._read_choice()
            stack: list[str | None] = choice["before"] or [None]
            *before, chosen = stack
            self._write_choice(
                "rollback", {"current": chosen, "before": before}, previous=choice["current"]
            )
        return chosen

    def history(self) -> list[Choice]:
        """Every promotion, rollback and deletion, the oldest first."""
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
        config = _check_folder(source)
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
            ValueError: for the version that is chosen now.
            LookupError: for a version that there is not.
        """
        with self._locked():
            path = self.path(name)
            choice = self._read_choice()
            if choice["current"] == name:
                raise ValueError(
                    f"{name!r} is the chosen adapter; promote another one or roll back first"
                )
            if name in choice["before"]:  # no rollback may lead to what is gone
                kept = [version for version in choice["before"] if version != name]
                self._replace_json(self._choice_file, {**choice, "before": kept})
            trash = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.folder))
            os.replace(path, trash / name)
            self._log("delete", name, choice["current"])  # so that no name is given twice
        shutil.rmtree(trash)

    def _copy_in(self, source: Path, version: str, card: Card) -> None:
        """Copy beside, then rename once: a killed copy leaves a hidden folder and no version."""
        beside = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            target = beside / version
            for file in _files(source):
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                _fsync(copy)
            self._replace_json(target / CARD, card)
            _check_folder(target)  # what was checked is what was copied
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

    def _read_choice(self) -> dict[str, Any]:
        """`current`, and `before`: what rollbacks lead to, the nearest last."""
        if not self._choice_file.exists():
            return {"current": None, "before": []}
        choice = _read_json(self._choice_file)
        if not isinstance(choice.get("before"), list) or "current" not in choice:
            raise ValueError(
                f"{self._choice_file} is not a choice file; delete it to go back to the base"
            )
        return choice

    def _write_choice(
        self, action: str, choice: Mapping[str, Any], *, previous: str | None
    ) -> None:
        self._replace_json(self._choice_file, choice)
        self._log(action, choice["current"], previous)

    def _log(self, action: str, version: str | None, previous: str | None) -> None:
        line = Choice(at=_now(), action=action, version=version, previous=previous)
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


def base_fingerprint(model_folder: str | Path) -> str:
    """SHA-256 over a local model folder's configuration and weights; file names, then contents.

    Reads all weights once a process; later calls compare size and time of change only.

    Args:
        model_folder: a folder as `save_pretrained` writes it.

    Raises:
        ValueError: when there is no configuration or no weights.
    """
    folder = Path(model_folder)
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    config = folder / "config.json"
    if not config.is_file() or not weights:
        raise ValueError(
            f"{folder} is no model folder: it needs config.json and *.safetensors; "
            "save the model there with save_pretrained, or download it first"
        )
    digest = hashlib.sha256()
    for file in [config, *weights]:
        stat = file.stat()
        digest.update(file.name.encode() + b"\0")
        digest.update(_file_hash(str(file.resolve()), stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_hash(path: str, size: int, changed: int) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _check_name(name: str) -> None:
    if name == BASE:
        raise ValueError(f"{BASE!r} is the bare base model, not an adapter in a folder")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name an adapter: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )


def _is_version(path: Path) -> bool:
    """A real folder of ours; links lead outside, hidden folders are work in progress."""
    return (
        not path.name.startswith(".")
        and not path.is_symlink()
        and (path / CARD).is_file()
        and (path / CONFIG).is_file()
    )


def _files(source: Path) -> list[Path]:
    """The files to copy, without hidden ones and what trainers leave behind."""
    found = (path for path in sorted(source.rglob("*")) if path.is_file())
    return [
        path
        for path in found
        if path.name not in _LEFT_OUT
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]


def _check_folder(source: Path) -> dict[str, Any]:
    """Refuse what is not a PEFT folder of plain tensors; returns adapter_config.json.

    Raises:
        ValueError: with what was wrong.
    """
    if not source.is_dir():
        raise ValueError(f"no adapter folder {source}; give the folder that PEFT saved")
    for path in source.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{path} leads outside the adapter's folder; copy the file in")
    if pickles := [path.name for path in _files(source) if path.suffix.lower() in _PICKLES]:
        raise ValueError(
            f"{source} holds pickles ({', '.join(pickles)}), which run code when they are loaded; "
            "save the adapter as safetensors"
        )
    config = _read_json(source / CONFIG)
    if not config.get("peft_type"):
        raise ValueError(f"{source / CONFIG} names no peft_type; give a folder that PEFT saved")
    _check_weights(source / WEIGHTS)
    return config


def _check_weights(path: Path) -> None:
    """The header against the file's length; no tensor is read."""
    if not path.is_file():
        raise ValueError(f"no {path.name} in {path.parent}; save the adapter as safetensors")
    try:
        with safe_open(str(path), framework="np") as tensors:
            keys = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut off ({error}); copy it again") from error
    if not keys:
        raise ValueError(f"{path} holds no tensors; save the trained adapter again")


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"no {path.name} in {path.parent}; give a folder that PEFT saved"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
