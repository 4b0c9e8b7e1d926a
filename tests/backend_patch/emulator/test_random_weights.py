"""The file is a safetensors file, and the same every time."""

import json
from pathlib import Path

import numpy as np

from backend_patch.emulator.random_weights import shapes, write_weights

CONFIG = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "vocab_size": 32,
    "num_hidden_layers": 2,
}


def written(path: Path, seed: int = 1) -> bytes:
    write_weights(path, CONFIG, seed)
    return path.read_bytes()


def test_every_tensor_lies_where_the_header_says(tmp_path: Path) -> None:
    content = written(tmp_path / "model.safetensors")
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert {name: tuple(each["shape"]) for name, each in header.items()} == shapes(CONFIG)
    end = 0
    for each in header.values():
        start, stop = each["data_offsets"]
        assert start == end
        assert stop - start == 2 * int(np.prod(each["shape"]))
        end = stop
    assert len(content) == 8 + length + end


def test_weights_keep_the_size_of_what_goes_through(tmp_path: Path) -> None:
    content = written(tmp_path / "model.safetensors")
    length = int.from_bytes(content[:8], "little")
    start, stop = json.loads(content[8 : 8 + length])["lm_head.weight"]["data_offsets"]
    halves = np.frombuffer(content[8 + length + start : 8 + length + stop], np.uint16)
    values = (halves.astype(np.uint32) << 16).view(np.float32)
    assert 0.7 < np.std(values) * 8**0.5 < 1.3


def test_a_seed_always_gives_the_same(tmp_path: Path) -> None:
    assert written(tmp_path / "a") == written(tmp_path / "b")
    assert written(tmp_path / "a", seed=2) != written(tmp_path / "b")
