"""How leases ended: a bounded ring with sequence numbers, ready to be sent.

Owns numbering and the encoded text, so that a state that goes out fifty times a second need not encode the
same endings anew. What is taken from a lease block by block within one reading is one ending.
"""

from collections import deque

import msgspec

from backend_patch.protocol import Ending, LeaseEnding

CAPACITY = 256
"""Endings kept: a reader at 5 Hz misses none below 1,280 a second. With session names of up to 150 characters
all fit a snapshot; of longer ones the latest do."""

SessionKey = tuple[str, str]
"""Session and branch."""


class EndingLog:
    def __init__(self) -> None:
        self.last_seq = 0
        self.totals = dict.fromkeys(Ending, 0)
        self._ring: deque[tuple[LeaseEnding, bytes]] = deque(maxlen=CAPACITY)
        self._taken: dict[SessionKey, int] = {}
        """Tokens reclaimed and not yet an ending."""
        self._encoder = msgspec.json.Encoder()

    def add(self, key: SessionKey, how: Ending, tokens: int, hit_tokens: int | None = None) -> None:
        """RESUMED or EXPIRED; after what had been taken from the lease before."""
        self._flush(key)
        self._append(key, how, tokens, hit_tokens)

    def add_reclaimed(self, key: SessionKey, tokens: int) -> None:
        self._taken[key] = self._taken.get(key, 0) + tokens
        if len(self._taken) > CAPACITY:
            self.settle()

    def settle(self) -> None:
        """What was reclaimed up to now becomes endings."""
        for key in list(self._taken):
            self._flush(key)

    def after(self, seq: int) -> tuple[LeaseEnding, ...]:
        self.settle()
        return tuple(ending for ending, _text in self._ring if ending.seq > seq)

    def encoded(self, max_bytes: int) -> bytes:
        """The ring as the inside of a JSON array; without its oldest ones where it would be longer."""
        self.settle()
        texts = [text for _ending, text in self._ring]
        excess = sum(map(len, texts)) + len(texts) - 1 - max_bytes
        oldest = 0
        while excess > 0 and oldest < len(texts):
            excess -= len(texts[oldest]) + 1
            oldest += 1
        return b",".join(texts[oldest:])

    def _flush(self, key: SessionKey) -> None:
        tokens = self._taken.pop(key, 0)
        if tokens:
            self._append(key, Ending.RECLAIMED, tokens, None)

    def _append(self, key: SessionKey, how: Ending, tokens: int, hit_tokens: int | None) -> None:
        self.last_seq += 1
        self.totals[how] += 1
        ending = LeaseEnding(self.last_seq, key[0], how, tokens, hit_tokens, key[1])
        self._ring.append((ending, self._encoder.encode(ending)))
