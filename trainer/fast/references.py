"""Reference log-probabilities of preference rows: computed once, stored, used again.

Knows TRL's `DPOTrainer` and a JSON file for each reference model. Knows no loss and no recipe. What
was stored is the reference's own answer in the precision path of the run: the file's name is a hash
of everything it depends on, and an entry's name is a hash of the row's tokens. Which rows were
computed in one batch is stored, too: only a batch of the same shape gives the same last bits, so
one is computed again before what was found is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cowest_graph.adapters import base_fingerprint
from cowest_graph.files import replace_file

if TYPE_CHECKING:
    import torch
    from transformers import Trainer

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
            rows, batches = stored["rows"], stored["batches"]
        except (
            FileNotFoundError,
            ValueError,
            KeyError,
        ):  # damaged, or older: as if there were none
            rows, batches = {}, []
        self._rows: dict[str, Logps] = {key: (pair[0], pair[1]) for key, pair in rows.items()}
        self._batches: list[list[str]] = batches

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

    def batch_among(self, keys: Container[str]) -> list[str]:
        """The rows of one batch as it was computed, all of them among these; empty for none."""
        return next((batch for batch in self._batches if all(key in keys for key in batch)), [])

    def keep(self, rows: Mapping[str, Logps], batches: Sequence[Sequence[str]]) -> None:
        """Hold these rows too, without writing them.

        Args:
            rows: by their keys.
            batches: the keys of each batch in which they were computed.
        """
        self._rows.update(rows)
        fresh = [list(batch) for batch in batches]
        self._batches = fresh + [old for old in self._batches if rows.keys().isdisjoint(old)]

    def write(self) -> None:
        """Write the file; another process sees all of it or what was there before."""
        stored = {"rows": self._rows, "batches": self._batches}
        replace_file(self.path, json.dumps(stored))


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
    trainer: Trainer, stored: References, note: Callable[[str], None] = lambda text: None
) -> list[int]:
    """Give a DPO trainer's rows their reference log-probabilities; what is missing is computed.

    Afterwards the trainer takes them from its rows and runs no reference model any more. What was
    stored is used where one of its batches, computed again, gives the same: another CPU may not.

    Args:
        trainer: a `trl.DPOTrainer` that is not yet trained.
        stored: from `references`.
        note: called with one sentence.

    Returns:
        The places in the data set of rows that were computed in one batch, in its order.
    """
    rows = trainer.train_dataset
    keys = [row_key(row) for row in rows]
    places = {key: number for number, key in enumerate(keys)}
    usable = _still_right(trainer, stored, places)
    missing = [key for key in places if not usable or key not in stored]
    if missing:
        numbers = [places[key] for key in missing]
        batches = _batches(trainer, numbers)
        computed = _compute(trainer, batches)
        stored.keep(
            {keys[number]: pair for number, pair in computed.items()},
            [[keys[number] for number in batch] for batch in batches],
        )
        if trainer.accelerator.is_main_process:  # the others hold the same
            stored.write()
    known = [stored[key] for key in keys]
    trainer.train_dataset = rows.add_column(
        "ref_chosen_logps", [chosen for chosen, _ in known]
    ).add_column("ref_rejected_logps", [rejected for _, rejected in known])
    trainer.precompute_ref_logps = True
    note(
        f"reference log-probabilities: {len(missing)} rows computed, "
        f"{len(places) - len(missing)} found in {stored.path.parent.name}/{stored.path.name}"
    )
    return [places[key] for key in stored.batch_among(places)]


def allowed_error(value: Any, noise: torch.Tensor | float = 0.0) -> Any:
    """How far two log-probabilities may be apart that were computed alike.

    Args:
        value: one of them, in nats.
        noise: what the machine itself differs by when it computes the same twice.
    """
    return 1e-4 + 1e-5 * abs(value) + 4 * noise


def _still_right(trainer: Trainer, stored: References, places: Mapping[str, int]) -> bool:
    """Whether a batch of the stored ones says the same when it is computed again."""
    batch = stored.batch_among(places)
    if not batch:
        return False
    again = _pairs(trainer, [places[key] for key in batch])
    return all(
        abs(now - then) <= allowed_error(then)
        for key, pair in zip(batch, again, strict=True)
        for now, then in zip(pair, stored[key], strict=True)
    )


def _batches(trainer: Trainer, numbers: Sequence[int]) -> list[list[int]]:
    """Rows of one prompt beside each other, in batches for a forward pass."""
    rows = trainer.train_dataset
    prompts = {number: rows[number]["prompt_ids"] for number in numbers}
    order = sorted(numbers, key=prompts.__getitem__)
    size = trainer.args.precompute_ref_batch_size
    size = size or _BATCHES * trainer.args.per_device_train_batch_size
    return [order[at : at + size] for at in range(0, len(order), size)]


def _compute(trainer: Trainer, batches: Sequence[Sequence[int]]) -> dict[int, Logps]:
    """The trainer's own reference pass over batches of rows."""
    rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
    mine: dict[int, Logps] = {}
    for numbers in batches[rank::processes]:
        mine.update(zip(numbers, _pairs(trainer, numbers), strict=True))
    return _gathered(mine, processes)


def _pairs(trainer: Trainer, numbers: Sequence[int]) -> list[Logps]:
    batch = trainer.data_collator([dict(trainer.train_dataset[number]) for number in numbers])
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
