"""The served model's tokenizer as far as scripted answers need it. Lives in the API server's process."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = 512
"""Enough that no two answers are alike."""
TOKENIZER_FILE = "tokenizer.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenizerVocabulary:
    words: Sequence[str]
    encode: Callable[[str], Sequence[int]]

    def count(self, text: str) -> int:
        return len(self.encode(text))


def open_vocabulary(folder: Path) -> TokenizerVocabulary | None:
    """Of a model folder; None, with a warning, where it has no ``tokenizer.json``."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        _log.warning("no %s in the model folder: scripted answers are not lengthened", TOKENIZER_FILE)
        return None
    # It comes with vLLM; the module is read where there is none.
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return TokenizerVocabulary(words_of(tokenizer, encode), encode)


def words_of(tokenizer: Any, encode: Callable[[str], Sequence[int]], limit: int = WORDS) -> list[str]:
    """Plain words that are one token and come back as that token."""
    words: list[str] = []
    for token in range(tokenizer.get_vocab_size()):
        word = tokenizer.decode([token])
        if word[:1] == " " and word[1:].isascii() and word[1:].islower() and word[1:].isalpha():
            if len(word) > 2 and list(encode(word)) == [token]:
                words.append(word)
            if len(words) == limit:
                break
    return words
