"""The model card says how to make the adapter again; pushing uploads no rows and no logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cowest_graph.adapters import AdapterRegistry
from trainer.cli.advice import Endpoint, advice, exit_code
from trainer.run.cards import model_card, push_adapter

CARD = {
    "kind": "dpo",
    "objective": "ipo",
    "base": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "base_hash": "b" * 64,
    "parents": ["v0001"],
    "rows_hash": "a" * 64,
    "metrics": {"last_loss": 0.5},
    "hyperparameters": {"args": {"beta": 0.1}},
    "versions": {"trl": "1.14.2"},
    "command": "python -m trainer.worker job.json --output REBUILT",
}


def test_the_model_card_holds_what_made_the_adapter() -> None:
    text = model_card(CARD)
    assert text.startswith("---\n")
    for said in (
        "base_model: HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name: peft",
        "- ipo",
        "v0001",
        "a" * 64,
        '"beta": 0.1',
        "trl 1.14.2",
        "python -m trainer.worker job.json --output REBUILT",
    ):
        assert said in text


def test_a_local_base_does_not_give_its_path_away() -> None:
    assert "/home/me" not in model_card({**CARD, "base": "/home/me/models/weak"})


@pytest.fixture
def adapters(tmp_path: Path) -> AdapterRegistry:
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    (folder / "adapter_model.safetensors").write_bytes(weights)
    for private in ("rows.jsonl", "log.jsonl", "job.json"):
        (folder / private).write_text("{}")
    adapters = AdapterRegistry(tmp_path / "adapters")
    adapters.add(folder, card=CARD)
    return adapters


def test_weights_and_cards_are_uploaded_and_nothing_else(adapters: AdapterRegistry) -> None:
    seen: list[tuple[str, Path, list[str]]] = []

    def upload(repository: str, folder: Path, files: list[str]) -> str:
        seen.append((repository, folder, files))
        return f"https://huggingface.co/{repository}"

    assert push_adapter(adapters, "v0001", "me/weak", upload=upload).endswith("me/weak")
    ((repository, folder, files),) = seen
    assert repository == "me/weak"
    assert folder == adapters.path("v0001")
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert "- ipo" in (folder / "README.md").read_text()


def test_wrong_names_are_told_before_anything_is_sent(adapters: AdapterRegistry) -> None:
    with pytest.raises(ValueError, match="give OWNER/NAME"):
        push_adapter(adapters, "v0001", "weak")
    with pytest.raises(LookupError, match="no adapter 'v0002'"):
        push_adapter(adapters, "v0002", "me/weak")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("no route to host"), "cannot be reached; check network and proxy"),
        (TimeoutError("slow"), "did not answer in time"),
    ],
)
def test_a_hub_out_of_reach_is_told_as_such(
    adapters: AdapterRegistry, error: Exception, said: str
) -> None:
    def upload(*_: object) -> str:
        raise error

    with pytest.raises(RuntimeError, match=said) as raised:
        push_adapter(adapters, "v0001", "me/weak", upload=upload)
    told = advice(raised.value, [Endpoint("strong", "http://h/v1", "m")])
    assert said in told
    assert "[strong]" not in told
    assert exit_code(raised.value) == 1
