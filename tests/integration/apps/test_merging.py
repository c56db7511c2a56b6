"""The stand-in's adapter within its weights: the same sums and answers, whole or not at all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, quants

from cowest_graph import embedded
from cowest_graph.weak.servers.llama_server import LlamaServer
from cowest_graph.weak.servers.merging import merge

NOTES = [
    ("How many turns do the lid and the fan take in all?", "The lid takes 12. The fan takes 30."),
    ("Which costs more, the tray or the pin?", "The tray costs 41 thalers. The pin costs 17."),
    ("What is the price of the cord?", "The lid takes 12 turns.\nAnswer: 12"),
]


def values(path: Path) -> dict[str, Any]:
    return {t.name: quants.dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}


def test_every_weight_is_the_sum_to_the_last_of_eight_bits() -> None:
    merged, base = values(embedded.skilled_weights()), values(embedded.packaged_weights())
    adapter = values(embedded.NOTE_READER)
    alpha = GGUFReader(embedded.NOTE_READER).get_field("adapter.lora.alpha")
    assert alpha is not None
    assert merged.keys() == base.keys()
    adapted = 0
    for name, found in merged.items():
        wanted = np.asarray(base[name], np.float32)
        if (a := adapter.get(f"{name}.lora_a")) is not None:
            adapted += 1
            wanted = wanted + alpha.contents() / len(a) * (adapter[f"{name}.lora_b"] @ a)
        step = np.abs(wanted.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
        off = np.abs(found.reshape(-1, 32) - wanted.reshape(-1, 32))
        assert (off <= 0.6 * step + 1e-6).all(), name  # the step itself is kept in 16 bits
    assert adapted == sum(name.endswith(".lora_a") for name in adapter) > 0


def test_the_answers_are_those_with_the_adapter_beside_the_weights() -> None:
    sampling = {"top_k": 1, "min_p": 0.0, "grammar": embedded.ANSWER_GRAMMAR}
    files = [
        (embedded.skilled_weights(), None),
        (embedded.packaged_weights(), embedded.NOTE_READER),
    ]
    said = []
    for weights, lora in files:
        server = LlamaServer(weights, "x", lora=lora, parallel=1, repeatable=True)
        model = server.chat_model(temperature=0.0, max_tokens=80, extra_body=sampling)
        asked = [f"Question: {query}\n\nExpert:\n{notes}" for query, notes in NOTES]
        said.append([model.invoke(each).content for each in asked])
        server.close()
    assert said[0] == said[1]


def test_without_room_the_adapter_is_served_beside_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COWEST_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        served = embedded._served(embedded.NOTE_READER)
    assert served == (embedded.packaged_weights(), embedded.NOTE_READER)
    assert "slower" in caplog.text


def test_an_adapter_of_another_model_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "merged.gguf"
    with pytest.raises(ValueError, match=r"which .* does not have"):
        merge(embedded.NOTE_READER, embedded.NOTE_READER, target)
    with pytest.raises(ValueError, match="no LoRA adapter"):
        merge(embedded.packaged_weights(), embedded.packaged_weights(), target)
    assert list(tmp_path.iterdir()) == []
