"""Texts as token ids that nobody wrote: each name stands for one endless text, the same in every run.

A turn's prompt and answer are the beginning of its session's text, so the next turn's prompt extends both.
A text may begin with another one, a system prompt, and then shares that one's ids and block hashes. Hashes
are computed once for each block of a text, however many turns go over it: a long prompt costs its new
blocks. Ids are bytes, as one is then an eighth of a list's entry and ``list`` of them makes no objects.

Knows no vLLM: what hashes a block comes in as a function.
"""

from collections.abc import Callable
from random import Random

BlockHash = Callable[[bytes | None, list[int]], bytes]
"""Hash of a block, from that of the block before (None for the first) and its own ids."""

PIECE_TOKENS = 4096
"""How much of a text is made at a time."""


class TokenStream:
    def __init__(
        self,
        name: str,
        block_tokens: int,
        hash_block: BlockHash,
        begins_with: "TokenStream | None" = None,
        shared_tokens: int = 0,
    ) -> None:
        """The first ``shared_tokens`` ids are those of ``begins_with``."""
        self._rest = Random(f"text/{name}")
        self._block_tokens = block_tokens
        self._hash_block = hash_block
        self._ids = bytearray()
        self._hashes: list[bytes] = []
        if begins_with is not None:
            begins_with._grow(shared_tokens)
            self._ids += begins_with._ids[:shared_tokens]
            self._hashes += begins_with.hashes(0, shared_tokens // block_tokens)

    def ids(self, tokens: int) -> list[int]:
        """The first so many."""
        self._grow(tokens)
        return list(self._ids[:tokens])

    def id_at(self, index: int) -> int:
        self._grow(index + 1)
        return self._ids[index]

    def hashes(self, start: int, end: int) -> list[bytes]:
        """Of the blocks ``start`` to ``end - 1``."""
        size, hashes = self._block_tokens, self._hashes
        self._grow(end * size)
        for index in range(len(hashes), end):
            block = list(self._ids[index * size : (index + 1) * size])
            hashes.append(self._hash_block(hashes[-1] if hashes else None, block))
        return hashes[start:end]

    def _grow(self, tokens: int) -> None:
        while len(self._ids) < tokens:
            self._ids += self._rest.randbytes(PIECE_TOKENS)


class TokenStreams:
    """The texts by name. Bounded: the one used longest ago goes, and is the same if it comes back."""

    def __init__(self, block_tokens: int, hash_block: BlockHash, max_texts: int = 4096) -> None:
        self._block_tokens = block_tokens
        self._hash_block = hash_block
        self._max_texts = max_texts
        self._streams: dict[tuple[str, str | None, int], TokenStream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def get(self, name: str, shared: str | None = None, shared_tokens: int = 0) -> TokenStream:
        key = (name, shared, shared_tokens)
        stream = self._streams.pop(key, None) or self._make(name, shared, shared_tokens)
        self._streams[key] = stream
        while len(self._streams) > self._max_texts:
            del self._streams[next(iter(self._streams))]
        return stream

    def _make(self, name: str, shared: str | None, shared_tokens: int) -> TokenStream:
        begins_with = self.get(shared) if shared is not None else None
        return TokenStream(name, self._block_tokens, self._hash_block, begins_with, shared_tokens)
