"""What the stand-in's calls cost by the weights' quantization, each question asked of every one.

    python benchmarks/stand_in/speed.py --questions 30

The packaged weights beside the same ones as Q8_0 and as Q4_0 (the embedding stays Q8_0), with the
note reader and, for the packaged ones, without; and with the note reader in the weights, which is
what is served. Side by side, question by question, so that whatever else the machine does falls on
all alike; seconds a call, as a ratio to the first, and how many answers stay the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from cowest_graph import embedded
from cowest_graph.prompts import text_of
from cowest_graph.testing.asking import ask
from cowest_graph.testing.instruments import instruments
from cowest_graph.weak.servers.llama_server import LlamaServer
from cowest_graph.weak.servers.merging import copy_fields
from trainer.demo.measuring import PROMPTS

_SEED = 100  # a development world
_BESIDE, _WITHIN = "packaged (Q4_1)", "merged (Q8_0)"


def main() -> None:
    """Print a line a way of serving."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--questions", type=int, default=30)
    given = options.parse_args()
    data = ask(instruments(_SEED), _SEED, train=100, held_out=60)
    rows = data.held_out[: given.questions]
    asked = [{"query": row["query"], "draft": " ".join(row["facts"])} for row in rows]
    packaged = embedded.packaged_weights()
    with tempfile.TemporaryDirectory() as folder:
        weights = {_BESIDE: packaged, "packaged, no adapter": packaged}
        for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0):
            weights[kind.name] = Path(folder) / f"{kind.name}.gguf"
            requantized(packaged, weights[kind.name], kind)
        weights[_WITHIN] = embedded.skilled_weights()  # what is served
        servers = {name: _served(name, file) for name, file in weights.items()}
        for server in servers.values():
            _call(server, asked[0])  # not counted
        seconds = dict.fromkeys(servers, 0.0)
        said: dict[str, list[str]] = {name: [] for name in servers}
        for question in asked:
            for name, server in servers.items():
                took, answer = _call(server, question)
                seconds[name] += took
                said[name].append(answer)
        for name in (_BESIDE, _WITHIN):
            said[name] += [_call(servers[name], each)[1] for each in _lacking(rows)]
        for server in servers.values():
            server.close()
    for name, total in seconds.items():
        print(f"{name:22} {total / len(asked):.3f} s a call, {total / seconds[_BESIDE]:.2f}")
    same = [a == b for a, b in zip(said[_BESIDE], said[_WITHIN], strict=True)]
    whole, lacking = same[: len(asked)], same[len(asked) :]
    print(
        f"{_WITHIN} answers as {_BESIDE}: {sum(whole)} of {len(whole)} with whole notes, ", end=""
    )
    print(f"{sum(lacking)} of {len(lacking)} where notes lack a fact")


def _lacking(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """The questions with a wrong conclusion alone, and with one fact before it."""
    for row in rows:
        for notes in ("", f"{row['facts'][0]}\n"):
            yield {"query": row["query"], "draft": f"{notes}Answer: 77"}


def _served(name: str, weights: Path) -> LlamaServer:
    lora = None if name.endswith("no adapter") or name == _WITHIN else embedded.NOTE_READER
    return LlamaServer(weights, name, lora=lora, parallel=1, repeatable=True)


def _call(server: LlamaServer, question: dict[str, str]) -> tuple[float, str]:
    """Seconds of one greedy answer in the forced format, and the answer."""
    sampling = {"top_k": 1, "min_p": 0.0, "grammar": embedded.ANSWER_GRAMMAR}
    model = server.chat_model(temperature=0.0, max_tokens=320, extra_body=sampling)
    began = time.perf_counter()
    answer = (PROMPTS.refine | model).invoke(question)
    return time.perf_counter() - began, text_of(answer)


def requantized(source: Path, target: Path, kind: GGMLQuantizationType) -> None:
    """The same weights in another quantization; what is Q8_0 or float32 stays as it is."""
    reader, writer = GGUFReader(source), GGUFWriter(target, "llama")
    copy_fields(reader, writer)
    for tensor in reader.tensors:
        if tensor.tensor_type in (GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            values = quants.dequantize(tensor.data, tensor.tensor_type)
            writer.add_tensor(tensor.name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
