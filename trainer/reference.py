"""Reference log-probabilities of preference rows: computed once, stored, used again.

Knows TRL's `DPOTrainer` and a JSON file for each reference model. Knows no loss and no recipe. What
was stored is the reference's own answer in the precision path of the run: the file's name is a hash
of everything it depends on, and an entry's name is a hash of the row's tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cowest_graph.adapters import base_fingerprint

FOLDER = ".references"
_BATCHES = 4  # a forward pass alone takes this many times the rows of a training step

Logps = tuple[float, float]  # chosen, rejected: summed over the completion, in nats


class References:
    """The stored log-probabilities of one reference model.

    Args:
        path: the JSON file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # damaged: as if there were none
            stored = {}
        self._rows: dict[str, Logps] = {key: (pair[0], pair[1]) for key, pair in stored.items()}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> Logps:
        """What the reference says of a row.

        Raises:
            KeyError: for a row that is not stored.
        """
        return self._rows[key]

    def add(self, rows: Mapping[str, Logps]) -> None:
        """Store these rows too; another process sees all of them or none."""
        self._rows.update(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(self._rows), encoding="utf-8")
        part.replace(self.path)


def references(base: Path, start: Path, *precision_path: object) -> References:
    """The stored log-probabilities of an adapter on its base.

    Args:
        base: the base model's folder.
        start: the SFT adapter's folder; the file lies beside it, in `.references`.
        precision_path: whatever else decides the last bits: device, dtype, versions, arguments.
    """
    digest = hashlib.sha256(base_fingerprint(base).encode())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        digest.update((start / name).read_bytes())
    digest.update(repr(precision_path).encode())
    return References(start.parent / FOLDER / f"{digest.hexdigest()[:24]}.json")


def row_key(row: Mapping[str, Sequence[int]]) -> str:
    """A preference row's name: a hash of the tokens of its prompt, chosen and rejected."""
    parts = [list(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def store_references(
    trainer: Any, stored: References, note: Callable[[str], None] = lambda text: None
) -> None:
    """Give a DPO trainer's rows their reference log-probabilities; what is missing is computed.

    Afterwards the trainer takes them from its rows and runs no reference model any more.

    Args:
        trainer: a `trl.DPOTrainer` that is not yet trained.
        stored: from `references`.
        note: called with one sentence.
    """
    rows = trainer.train_dataset
    keys = [row_key(row) for row in rows]
    missing = {key: number for number, key in enumerate(keys) if key not in stored}
    if missing:
        computed = _compute(trainer, [rows[number] for number in missing.values()])
        fresh = dict(zip(missing, computed, strict=True))
        _share(trainer, stored, fresh)
    known = [stored[key] for key in keys]
    trainer.train_dataset = rows.add_column(
        "ref_chosen_logps", [chosen for chosen, _ in known]
    ).add_column("ref_rejected_logps", [rejected for _, rejected in known])
    trainer.precompute_ref_logps = True
    note(
        f"reference log-probabilities: {len(missing)} rows computed, "
        f"{len(set(keys)) - len(missing)} found in {stored.path.parent.name}/{stored.path.name}"
    )


def _share(trainer: Any, stored: References, fresh: Mapping[str, Logps]) -> None:
    """Only one process writes; the others hold the same."""
    if trainer.accelerator.is_main_process:
        stored.add(fresh)
    else:
        stored._rows.update(fresh)


def _compute(trainer: Any, rows: Sequence[Mapping[str, Any]]) -> list[Logps]:
    """The trainer's own reference pass over all rows, in their order."""
    order = sorted(range(len(rows)), key=lambda number: rows[number]["prompt_ids"])
    size = trainer.args.precompute_ref_batch_size
    size = size or _BATCHES * trainer.args.per_device_train_batch_size
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
    mine: dict[int, Logps] = {}
    for numbers in batches[rank::processes]:
        for number, pair in zip(numbers, _pairs(trainer, rows, numbers), strict=True):
            mine[number] = pair
    everything = _gathered(mine, processes)
    return [everything[number] for number in range(len(rows))]


def _pairs(trainer: Any, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int]) -> list[Logps]:
    batch = trainer.data_collator([dict(rows[number]) for number in numbers])
    device = trainer.accelerator.device
    batch = {name: value.to(device) for name, value in batch.items()}
    model = trainer.model if trainer.ref_model is None else trainer.ref_model
    was_training = model.training
    model.eval()
    chosen, rejected = trainer.compute_ref_log_probs(model, batch)
    model.train(was_training)
    return list(zip(chosen.float().tolist(), rejected.float().tolist(), strict=True))


def _gathered(mine: dict[int, Logps], processes: int) -> dict[int, Logps]:
    if processes == 1:
        return mine
    from accelerate.utils import gather_object

    gathered: list[dict[int, Logps]] = gather_object([mine])
    return {number: pair for part in gathered for number, pair in part.items()}
