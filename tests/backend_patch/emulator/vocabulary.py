"""A tokenizer small enough to read: words with and without a space before, and single characters."""

import string
from collections.abc import Sequence

EOS = 0
NOUNS = [f"{a}{b}r" for a in "bcdfgh" for b in "aeiou"]
PIECES = ["<end>", *NOUNS, *(f" {noun}" for noun in NOUNS), *string.printable]


class LittleTokenizer:
    """Longest piece first."""

    def __init__(self, pieces: Sequence[str] = PIECES) -> None:
        self.pieces = list(pieces)
        self._ids = {piece: token for token, piece in enumerate(self.pieces)}
        self._longest = max(map(len, self.pieces))

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]:
        ids = []
        while text:
            piece = next(text[:n] for n in range(self._longest, 0, -1) if text[:n] in self._ids)
            ids.append(self._ids[piece])
            text = text[len(piece) :]
        return ids

    def decode(self, ids: Sequence[int], /) -> str:
        return "".join(self.pieces[token] for token in ids)
