"""The folder of an adapter: PEFT's files, checked without a tensor library, and a card beside them.

Knows file formats and fingerprints. Knows no registry and no choice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from typing_extensions import TypedDict

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "card.json"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a version may be called."""

_RESERVED = ("current.json", "history.jsonl")  # and what `repair` puts aside of them
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


def check_name(name: str) -> None:
    """Refuse what cannot name a version.

    Raises:
        ValueError: with what can.
    """
    if name == "base":
        raise ValueError(f"{name!r} is the bare base model, not an adapter in a folder")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name an adapter: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if name.lower().startswith(_RESERVED):
        raise ValueError(
            f"{name!r} cannot name an adapter: a registry's own files are called so; choose another"
        )


def is_version(path: Path) -> bool:
    """A real folder of ours; links lead outside, hidden folders are work in progress."""
    return (
        not path.name.startswith(".")
        and not path.is_symlink()
        and (path / CARD).is_file()
        and (path / CONFIG).is_file()
    )


def files(source: Path) -> list[Path]:
    """The files to copy, without hidden ones and what trainers leave behind."""
    found = (path for path in sorted(source.rglob("*")) if path.is_file())
    return [
        path
        for path in found
        if path.name not in _LEFT_OUT
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]


def check_folder(source: Path) -> dict[str, Any]:
    """Refuse what is not a PEFT folder of plain tensors; returns adapter_config.json.

    Raises:
        ValueError: with what was wrong.
    """
    if not source.is_dir():
        raise ValueError(f"no adapter folder {source}; give the folder that PEFT saved")
    for path in source.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{path} leads outside the adapter's folder; copy the file in")
    if pickles := [path.name for path in files(source) if path.suffix.lower() in _PICKLES]:
        raise ValueError(
            f"{source} holds pickles ({', '.join(pickles)}), which run code when they are loaded; "
            "save the adapter as safetensors"
        )
    config = read_json(source / CONFIG)
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: when there is no file, or no JSON object in it.
    """
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


def full_card(version: str, card: Mapping[str, Any] | None, config: Mapping[str, Any]) -> Card:
    """A card with all fields: what was given, and what adapter_config.json says of the base."""
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
        "created_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    full: Card = {**empty, **given, "name": version}  # type: ignore[typeddict-item]
    return full
