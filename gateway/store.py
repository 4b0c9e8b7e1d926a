"""What must survive the gateway: who has a key, and what is known of commands and sessions.

Owns the protocol and the store in memory, which survives nothing: after a restart what the hosts still have
on record is put back into it (see ``adoption``). It must not know what the records mean.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gateway.limits import Limits

SESSION_TTL_S = 30 * 86400.0
"""Of a session's record since it was written last; it outlives its use only where a host was gone for
good."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim:
    """Of the id that a key stands for (``submission.keyed_exec_id``)."""

    body_digest: str
    host: str
    """Where alone it may run: there its directory is the lock."""
    owner: str
    """The gateway process that claimed it, or "" when a host told of it."""
    boot_id: str | None = None
    """Life of the host at that time; None when it had not been heard of."""


class StoreUnavailable(Exception):
    """It does not answer, or not with yes or no; what was asked may have been done all the same."""


class StoreFull(Exception):
    """No claim is dropped before its time, whatever the pressure: that could run a command twice."""


class Store(Protocol):
    """Everything raises StoreUnavailable and answers within seconds."""

    @property
    def is_durable(self) -> bool:
        """It survives the gateway: an id without a claim was never claimed."""
        ...

    async def claim(self, exec_id: str, claim: Claim) -> Claim | None:
        """None: it is ours from now on. Else who had it before, and nothing is changed. Raises StoreFull."""
        ...

    async def release(self, exec_id: str) -> None:
        """Of a command that was refused: a retry may run it."""
        ...

    async def put_exec(self, exec_id: str, record: bytes) -> None: ...

    async def find_exec(self, exec_id: str) -> bytes | None: ...

    async def put_session(self, name: str, record: bytes) -> None: ...

    async def remove_session(self, name: str) -> None: ...

    async def sessions(self) -> list[bytes]: ...

    async def weakness(self) -> str | None:
        """How it is set up to forget what it should keep, for an operator. None: it is not, or does not
        say."""
        ...

    async def close(self) -> None: ...


class MemoryStore:
    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._max_keys = limits.max_idempotency_keys
        self._max_execs = limits.max_execs
        self._max_sessions = limits.max_sessions
        self._claims: _Expiring[Claim] = _Expiring(limits.idempotency_ttl_s)
        self._execs: _Expiring[bytes] = _Expiring(limits.exec_ttl_s)
        self._sessions: _Expiring[bytes] = _Expiring(SESSION_TTL_S)

    @property
    def is_durable(self) -> bool:
        return False

    async def claim(self, exec_id: str, claim: Claim) -> Claim | None:
        return self.claim_now(exec_id, claim)

    def claim_now(self, exec_id: str, claim: Claim) -> Claim | None:
        found = self._claims.find(exec_id, self._clock())
        if found is not None:
            return found
        if len(self._claims) >= self._max_keys:
            raise StoreFull
        self._claims.put(exec_id, claim, self._clock())
        return None

    async def release(self, exec_id: str) -> None:
        self._claims.drop(exec_id)

    async def put_exec(self, exec_id: str, record: bytes) -> None:
        self._execs.put(exec_id, record, self._clock(), self._max_execs)

    async def find_exec(self, exec_id: str) -> bytes | None:
        return self._execs.find(exec_id, self._clock())

    async def put_session(self, name: str, record: bytes) -> None:
        self._sessions.put(name, record, self._clock(), self._max_sessions)

    async def remove_session(self, name: str) -> None:
        self._sessions.drop(name)

    async def sessions(self) -> list[bytes]:
        return self._sessions.values(self._clock())

    async def weakness(self) -> str | None:
        return None

    async def close(self) -> None:
        pass


class _Expiring(Generic[T]):
    """A table whose entries all live equally long, the oldest first."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._entries: OrderedDict[str, tuple[T, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, name: str, value: T, now: float, most: int | None = None) -> None:
        """At the back; with ``most`` the oldest make room."""
        self._entries.pop(name, None)
        self._entries[name] = (value, now + self._ttl_s)
        while most is not None and len(self._entries) > most:
            self._entries.popitem(last=False)

    def find(self, name: str, now: float) -> T | None:
        self._expire(now)
        found = self._entries.get(name)
        return None if found is None else found[0]

    def drop(self, name: str) -> None:
        self._entries.pop(name, None)

    def values(self, now: float) -> list[T]:
        self._expire(now)
        return [value for value, _ in self._entries.values()]

    def _expire(self, now: float) -> None:
        while self._entries:
            name, (_, expires_at_s) = next(iter(self._entries.items()))
            if expires_at_s > now:
                return
            del self._entries[name]
