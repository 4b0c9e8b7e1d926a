"""Remembers which command a caller's key stands for, so that a retry attaches instead of running again.

Pure; time is an argument. Keys belong to a tenant. A key is remembered before its command can start,
and no key is forgotten before its time, whatever the pressure: a full table refuses new ones.
"""

from collections import OrderedDict
from dataclasses import dataclass

Key = tuple[str, str]
"""Tenant and key."""


@dataclass(frozen=True, slots=True)
class Claim:
    exec_id: str
    body_digest: bytes
    expires_at_s: float


class IdempotencyTable:
    def __init__(self, max_keys: int, ttl_s: float) -> None:
        self._max_keys = max_keys
        self._ttl_s = ttl_s
        self._claims: OrderedDict[Key, Claim] = OrderedDict()
        """Oldest first: all live equally long."""

    def __len__(self) -> int:
        return len(self._claims)

    def find(self, key: Key, now: float) -> Claim | None:
        self._expire(now)
        return self._claims.get(key)

    def try_claim(self, key: Key, body_digest: bytes, exec_id: str, now: float) -> bool:
        """False when the table is full. The key must not be taken."""
        self._expire(now)
        assert key not in self._claims
        if len(self._claims) >= self._max_keys:
            return False
        self._claims[key] = Claim(exec_id, body_digest, now + self._ttl_s)
        return True

    def release(self, key: Key) -> None:
        """Of a command that was refused: a retry may run it."""
        del self._claims[key]

    def _expire(self, now: float) -> None:
        while self._claims:
            key, claim = next(iter(self._claims.items()))
            if claim.expires_at_s > now:
                return
            del self._claims[key]
