"""A model folder that vLLM serves: small, made in a second, nothing downloaded.

It is a Qwen2 of two megabytes with a byte-level tokenizer, so it can spell everything, and a chat template
whose tool calls vLLM's ``hermes`` parser reads. Without weights it is for ``--load-format dummy`` and for the
emulated accelerator; with weights, for runs on the CPU that have to give the same tokens twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from backend_patch.emulator.chat_template import (
    CHAT_TEMPLATE,
    END_OF_TEXT,
    GENERATION_PROMPT,
    TOOL_TAGS,
    TURN_END,
    TURN_START,
)
from backend_patch.emulator.random_weights import write_weights
from backend_patch.emulator.training_text import training_lines

DEFAULT_CONTEXT_TOKENS = 131_072
LEAST_CONTEXT_TOKENS = 1024
VOCABULARY = 8192
"""Large enough for four characters of English a token, small enough to train in half a second."""

LAYERS = 12
"""A token takes a few milliseconds of CPU then. With two layers the engine makes tokens as fast as vLLM's API
server takes them, and on a busy machine that server then leaves other requests waiting for seconds."""

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen2 cuts text before it merges bytes. Transformers 5 takes this cut and NFC for every model of that
type, whatever its ``tokenizer.json`` says, so the vocabulary has to be learned with them."""

SPECIAL = (END_OF_TEXT, TURN_START, TURN_END, GENERATION_PROMPT)
"""The opening of an answer is one token: no text that follows can melt into its last character, so an answer
has the same tokens as history that it had when it was generated."""


class ModelError(ValueError):
    """The model cannot be made as asked."""


def write_tiny_model(
    folder: Path, *, context_tokens: int = DEFAULT_CONTEXT_TOKENS, weights: bool = False
) -> None:
    if context_tokens < LEAST_CONTEXT_TOKENS:
        raise ModelError(f"context_tokens is {context_tokens}; allowed: {LEAST_CONTEXT_TOKENS} or more")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = trained_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokenizer.token_to_id(TURN_END)
    config = model_config(context_tokens) | {"eos_token_id": end, "pad_token_id": 0}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": end, "pad_token_id": 0})
    _write_json(folder / "tokenizer_config.json", tokenizer_config(context_tokens))
    if weights:
        write_weights(folder / "model.safetensors", config)


def model_config(context_tokens: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": context_tokens,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "bos_token_id": None,
    }


def tokenizer_config(context_tokens: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def trained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TOOL_TAGS),
        special_tokens=[AddedToken(each, special=True, normalized=False) for each in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_lines(), trainer)
    # Not special: the tool parser has to see them in the text.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TOOL_TAGS])
    return tokenizer


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
