"""What a model reads of a message, and how many tokens that is taken for."""

from pathlib import Path
from typing import Any

import pytest

from loadgen.errors import LoadgenError
from loadgen.importers.counting import CharacterCounter, FileTokenizer, text_in


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (None, ""),
        ("abc", "abc"),
        ([{"type": "text", "text": "ab"}, {"type": "tool_result", "content": [{"text": "c"}]}], "abc"),
        ([{"type": "image", "source": {"data": "AAAA" * 99}}, "x"], "x"),
        ({"type": "thinking", "thinking": "hm", "signature": "zzzz"}, "hm"),
        ({"cmd": "ls"}, '{"cmd":"ls"}'),
        (7, "7"),
    ],
)
def test_what_is_read(content: Any, read: str) -> None:
    assert text_in(content) == read


def test_characters() -> None:
    assert CharacterCounter().count_in("x" * 40) == 10
    assert CharacterCounter(3.2).count_in("x" * 32) == 10


@pytest.mark.parametrize("chars", [0, -1, float("nan"), float("inf")])
def test_characters_have_a_range(chars: float) -> None:
    with pytest.raises(LoadgenError, match="--chars-per-token"):
        CharacterCounter(chars)


def test_a_tokenizer_that_cannot_be_used_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """Whether the package is installed beside this one or not."""
    with pytest.raises(LoadgenError, match="--tokenizer"):
        FileTokenizer(tmp_path / "tokenizer.json")
