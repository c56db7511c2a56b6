"""A model of two random layers and 512 tokens: training obeys its laws with any weights."""

from __future__ import annotations

from pathlib import Path

import pytest

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ("What does fault code VEX mean? It is dust, clean it. I cannot tell, ask somebody.",)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with config, weights and tokenizer, as of a downloaded model."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cowest_graph.prompts import draft_prompt

    folder = tmp_path_factory.mktemp("tiny")
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
        hidden_size=64,
        intermediate_size=128,
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
