"""An adapter's model card for the Hugging Face hub, and pushing a version there.

Knows `huggingface_hub` and the registry's card. Knows no training and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cowest_graph.adapters import AdapterRegistry
from cowest_graph.failures import failure_kind
from cowest_graph.masking import masked_error

README = "README.md"
# What is uploaded: no rows, which may be private, no logs, and no paths of this machine.
_PUBLIC = ["adapter_config.json", "adapter_model.safetensors", README]

_ADVICE = {
    "connection": "cannot be reached; check network and proxy, or set HF_ENDPOINT",
    "timeout": "did not answer in time; try again later",
    "auth": "refused; log in with `hf auth login`, or set HF_TOKEN",
    "not_found": "knows no such repository; make it there first, or check OWNER/NAME",
    "server_error": "failed; try again later",
}

Upload = Callable[[str, Path, list[str]], str]


def write_model_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write README.md: what the adapter is, what it was made from, and how to make it again.

    Args:
        folder: the adapter's folder.
        card: the registry's card.
    """
    (folder / README).write_text(model_card(card), encoding="utf-8")


def name_base(folder: Path, base: str) -> None:
    """Write the base model's name into an adapter's configuration.

    Args:
        folder: the adapter's folder.
        base: the base's name on a hub.
    """
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "base_model_name_or_path": base}, indent=2), "utf-8")


def model_card(card: Mapping[str, Any]) -> str:
    """The model card's text, with the metadata that the hub reads.

    Args:
        card: the registry's card.
    """
    from huggingface_hub import ModelCard, ModelCardData

    objective = str(card.get("objective") or card.get("kind") or "sft")
    data = ModelCardData(
        base_model=_public_name(str(card.get("base") or "")),
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["cowest-graph", "lora", "trl", objective],
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(card, objective)}"))


def push_adapter(
    adapters: AdapterRegistry, name: str, repository: str, *, upload: Upload | None = None
) -> str:
    """Upload one version: weights, configuration, model card; no rows and no logs.

    Args:
        adapters: the registry.
        name: the version.
        repository: OWNER/NAME on the hub.
        upload: called with repository, folder and file names, returns an address; None for the
            Hugging Face hub, with the token that `hf auth login` keeps.

    Returns:
        Where it is now.

    Raises:
        LookupError: when there is no such version.
        ValueError: for a repository that is not OWNER/NAME.
        RuntimeError: when the hub cannot be reached, or refuses.
    """
    folder = adapters.path(name)
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"{repository!r} names no repository; give OWNER/NAME")
    if not (folder / README).is_file():
        write_model_card(folder, adapters.card(name))
    there = [file for file in _PUBLIC if (folder / file).is_file()]
    try:
        return (upload or _to_hub)(repository, folder, there)
    except Exception as error:
        if (advice := _ADVICE.get(failure_kind(error))) is None:
            raise
        said = " ".join(masked_error(error).split())[:200]
        raise RuntimeError(
            f"the Hugging Face hub {advice} ({said}). Nothing was uploaded"
        ) from error


def _to_hub(repository: str, folder: Path, files: list[str]) -> str:
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(repository, exist_ok=True)
    return str(hub.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files))


def _public_name(base: str) -> str | None:
    """A base's name on a hub; a folder's path says nothing to anybody else."""
    return base if base.count("/") == 1 and not base.startswith((".", "~", "/")) else None


def _text(card: Mapping[str, Any], objective: str) -> str:
    parents = ", ".join(card.get("parents") or []) or "none: a new adapter"
    versions = ", ".join(f"{name} {it}" for name, it in (card.get("versions") or {}).items())
    base = _public_name(str(card.get("base") or "")) or "a local folder"
    return f"""# A weak model's adapter, trained by CoWest-Graph

A LoRA adapter for drafts that a large model refines ("Synergistic Weak-Strong Collaboration by
Aligning Preferences").

| | |
|---|---|
| base | {base} (`{card.get("base_hash")}`) |
| objective | {objective} |
| parents | {parents} |
| rows | `{card.get("rows_hash")}` (SHA-256) |
| made | {card.get("created_at")} |
| backend | {card.get("backend")}, {card.get("device")}, {card.get("precision")} |
| versions | {versions} |

## Metrics

```json
{json.dumps(card.get("metrics") or {}, indent=2)}
```

## Hyperparameters

```json
{json.dumps(card.get("hyperparameters") or {}, indent=2, default=str)}
```

## Make it again

In this folder, where its `job.json` and `rows.jsonl` are: `{card.get("command")}`
"""
