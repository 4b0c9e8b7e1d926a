"""The engine's tokenizer: a token is four bytes of UTF-8, its id those bytes as a little-endian number.

That is not how a model's tokenizer cuts text, but it has what the KV cache cares about: it is fast
(100,000 tokens and their block hashes in a few milliseconds), reversible, about as dense as English
(four bytes a token), and *prefix-stable*: appending text changes no token but the last partial one.

A partial token is filled up with NUL bytes. A rendered chat fills up after every piece (``prompt``), so
that the tokens of an answer are the same when they are generated and when they come back as history.
"""

import struct

from xxhash import xxh3_64_intdigest

TOKEN_BYTES = 4


def encode(text: str) -> bytes:
    """The bytes of ``text``, filled up to whole tokens."""
    return fill_up(text.encode("utf-8", "replace"))


def fill_up(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % TOKEN_BYTES)


def token_count(data: bytes) -> int:
    return -(-len(data) // TOKEN_BYTES)


def token_ids(data: bytes) -> list[int]:
    whole = fill_up(data)
    return list(struct.unpack(f"<{len(whole) // TOKEN_BYTES}I", whole))


def bytes_of(ids: list[int]) -> bytes:
    """The inverse of ``token_ids``; raises ``ValueError`` for an id outside 0 to 2**32 - 1."""
    try:
        return struct.pack(f"<{len(ids)}I", *ids)
    except struct.error as exc:
        raise ValueError("token ids must be between 0 and 4294967295") from exc


def decode(data: bytes) -> str:
    """Text without the fill; bytes that are no UTF-8 become U+FFFD."""
    return data.replace(b"\0", b"").decode("utf-8", "replace")


def prefix_hashes(data: bytes, block_tokens: int, salt: str | None = None) -> list[int]:
    """A hash per full block of tokens, each of the whole prefix up to the block's end.

    ``salt`` separates callers that must not share cached blocks (vLLM's ``cache_salt``).
    """
    size = block_tokens * TOKEN_BYTES
    prefix = 0 if salt is None else xxh3_64_intdigest(salt.encode())
    view = memoryview(data)
    hashes = []
    for start in range(0, len(data) - size + 1, size):
        prefix = xxh3_64_intdigest(view[start : start + size], prefix)
        hashes.append(prefix)
    return hashes
