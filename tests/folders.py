"""Folders as users have them: an adapter of PEFT's, and a model. The smallest that will do."""

from __future__ import annotations

import json
import struct
from pathlib import Path

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ("What does fault code VEX mean? It is dust, clean it. I cannot tell, ask somebody.",)


def write_adapter(folder: Path) -> Path:
    """The smallest folder that a registry takes for an adapter."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    tensors = struct.pack("<Q", len(header)) + header + b"\0" * 4
    (folder / "adapter_model.safetensors").write_bytes(tensors)
    return folder


def write_tiny_model(folder: Path, *, hidden: int = 64) -> Path:
    """Config, random weights and tokenizer, as of a downloaded model: two layers, 512 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cowest_graph.prompts import draft_prompt

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    ends = ["<|im_start|>", "<|im_end|>"]
    training = trainers.BpeTrainer(
        vocab_size=512, special_tokens=ends, initial_alphabet=alphabet, show_progress=False
    )
    asked = draft_prompt().format_messages(query=TEXTS[0])[-1].text
    learnt.train_from_iterator([asked, *TEXTS], training)
    words = PreTrainedTokenizerFast(
        tokenizer_object=learnt, eos_token=ends[1], pad_token=ends[1], chat_template=CHATML
    )
    words.save_pretrained(folder)

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.1,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.convert_tokens_to_ids(ends[0]),
        pad_token_id=words.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
