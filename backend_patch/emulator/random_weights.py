"""Random weights for the tiny model, in a safetensors file of our own writing.

The format (huggingface/safetensors, "Format"): eight bytes of header length, little-endian; a JSON header
that says of each tensor its type, its shape and where in the rest its bytes lie; the bytes, without gaps.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 1
SHARPNESS = 2.0
"""Of attention: queries and keys this much larger look at few places instead of at all alike."""


def write_weights(path: Path, config: Mapping[str, Any], seed: int = SEED) -> None:
    random = np.random.default_rng(seed)
    tensors = {name: _bfloat16(_values(name, shape, random)) for name, shape in shapes(config).items()}
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            file.write(tensor.tobytes())


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Qwen2 model."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    embedding = (config["vocab_size"], hidden)
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.q_proj.bias": (queries,),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.k_proj.bias": (keys,),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.v_proj.bias": (keys,),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    found = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": (hidden,),
        "lm_head.weight": embedding,
    }
    for number in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return found


def _values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """Large enough that the last token, those before it and their places all have their say in the next one:
    with the small weights that training begins with, a model says one token for ever."""
    if len(shape) == 1:
        return np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
    sharpness = SHARPNESS if "q_proj" in name or "k_proj" in name else 1.0
    size = 1.0 if "embed_tokens" in name else sharpness * shape[1] ** -0.5
    return random.normal(0.0, size, shape).astype(np.float32)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each number."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)
