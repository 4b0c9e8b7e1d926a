"""Tokens of texts whose usage nobody recorded: by a tokenizer where one is given, else by their length."""

from pathlib import Path
from typing import Protocol

import msgspec

from loadgen.errors import LoadgenError
from loadgen.text import DEFAULT_CHARS_PER_TOKEN

NOT_TEXT = frozenset({"image", "image_url", "input_image", "document"})
"""Kinds of content whose bytes are no measure of their tokens; they are left out."""


class TokenCounter(Protocol):
    @property
    def name(self) -> str:
        """As sessions say how they were counted."""

    def count_in(self, content: object) -> int: ...


class CharacterCounter:
    name = "characters"

    def __init__(self, chars_per_token: float = DEFAULT_CHARS_PER_TOKEN) -> None:
        if not 0 < chars_per_token < float("inf"):
            raise LoadgenError(f"--chars-per-token is {chars_per_token}; allowed: more than 0")
        self._chars_per_token = chars_per_token

    def count_in(self, content: object) -> int:
        return round(len(text_in(content)) / self._chars_per_token)


class FileTokenizer:
    """A ``tokenizer.json``, as models of Hugging Face have one."""

    name = "tokenizer"

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as exc:
            raise LoadgenError(
                "--tokenizer needs the package tokenizers: pip install tokenizers, or leave it out"
            ) from exc
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as exc:
            raise LoadgenError(f"--tokenizer {path}: is no tokenizer.json: {exc}") from exc

    def count_in(self, content: object) -> int:
        return len(self._tokenizer.encode(text_in(content), add_special_tokens=False).ids)


def text_in(content: object) -> str:
    """What a model reads of a message's content: a string, blocks, or an object given as JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_in(part) for part in content)
    if isinstance(content, dict):
        kind = content.get("type")
        if isinstance(kind, str) and kind in NOT_TEXT:
            return ""
        for name in ("text", "content", "thinking", "output"):
            if isinstance(content.get(name), str | list):
                return text_in(content[name])
    return msgspec.json.encode(content).decode()
