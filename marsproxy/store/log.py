"""The log of records in Redis, and who is a member: the scripts behind typed calls.

Owns keys, clients and time limits. It decides nothing: whoever calls is told what the store said, as a value
or as one of three failures.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from marsproxy.store import scripts
from marsproxy.store.redis_url import client_of
from marsproxy.store.status import StoreStatus

MAX_ENTRIES = 200_000
"""Of the log, about: some 0.6 GB. Reached only where nobody writes checkpoints, which trim it."""
READ_ENTRIES = 1_000
"""In one answer."""
KEEP_S = 120.0
"""The log is not trimmed of what is younger, whatever the checkpoint says: many times what a member may be
behind before its lease is over."""
READ_SLACK_S = 1.0
"""A blocked read may take so much longer than it asked to block."""


class StoreGone(Exception):
    """No answer in time, or none that makes sense."""


class Fenced(Exception):
    """This member was given up."""


class LogLost(Exception):
    """The log that this member wrote to is not there any more."""


class Raced(Exception):
    """Somebody else was faster; look again."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    id: str
    payload: bytes

    @property
    def ms(self) -> int:
        return id_order(self.id)[0]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One run of the log."""

    id: str
    offset_ms: int
    """What its times are ahead of the store's clock."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is before anybody joins."""

    epoch: Epoch | None
    others: int = 0
    """Live members that are not of this process."""
    has_log: bool = False


@dataclass(frozen=True, slots=True)
class Admission:
    """What a member that joined begins with."""

    joined_at: str
    """Id of the entry that says so."""
    position: str
    state: bytes


@dataclass(frozen=True, slots=True)
class Beat:
    store_s: float
    """The store's clock."""
    has_checkpoint: bool
    gone: tuple[str, ...]
    """Of the other members, those without a lease."""


def seed_key(group: str) -> str:
    return f"{{mars:{group}}}:seed"


def id_order(entry_id: str) -> tuple[int, int]:
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)


class Log:
    """
    Args:
        group: names the replicas that share this log, before all keys.
        process: what the ids of this process's members begin with.
        lease_s: for how long a member is one without a word.
        ttl_s: for how long keys outlive the last member.
        seed: of this replica, for a store that has none (any more).
    """

    def __init__(
        self, url: str, status: StoreStatus, *, group: str, process: str, lease_s: float, ttl_s: float,
        timeout_s: float, seed: int,
    ) -> None:  # fmt: skip
        self._redis = client_of(url, timeout_s=timeout_s)
        self._reader = client_of(url, timeout_s=timeout_s + READ_SLACK_S)
        self._read_block_ms = round(timeout_s * 1000)
        self._status = status
        self._group = group
        self._prefix = f"{{mars:{group}}}:"
        self._process = process
        self._seed = seed
        self._lease_ms = round(lease_s * 1000)
        self._ttl_ms = round(ttl_s * 1000)
        self._sha = {text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for text in _TEXTS}

    async def close(self) -> None:
        for client in (self._redis, self._reader):
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    # -- joining ----------------------------------------------------------------------------------

    async def look(self) -> Seen:
        word, *rest = await self._run(scripts.LOOK, [self._epoch_key], [self._prefix, self._process])
        if word == b"none":
            return Seen(None)
        epoch_id, offset_ms, others, has_log = rest
        return Seen(Epoch(epoch_id.decode(), int(offset_ms)), others, bool(has_log))

    async def found(
        self, instead_of: Epoch | None, epoch_id: str, member: str, *, now_s: float, state: bytes,
        blank: bytes, first: bytes,
    ) -> tuple[Epoch, str]:  # fmt: skip
        """Make this state that of all. Returns its position, after which ``first`` comes.

        Raises:
            Raced: somebody else has, or lives in the epoch that was to be replaced.
        """
        keys = [self._epoch_key, *(self._key(epoch_id, part) for part in ("log", "checkpoint", "members"))]
        word, *rest = await self._run(
            scripts.FOUND,
            [*keys, self._lease(epoch_id, member)],
            ["" if instead_of is None else instead_of.id, self._prefix, self._process, epoch_id, member,
             self._lease_ms, round(now_s * 1000), self._ttl_ms, state, blank, first],
        )  # fmt: skip
        if word != b"ok":
            raise Raced
        position, offset_ms = rest
        return Epoch(epoch_id, int(offset_ms)), position.decode()

    async def join(self, epoch: Epoch, member: str, entry: bytes) -> Admission | None:
        """None if there is no checkpoint to begin from.

        Raises:
            Raced: this is not the current epoch any more.
        """
        keys = [self._key(epoch.id, part) for part in ("log", "checkpoint", "members")]
        word, *rest = await self._run(
            scripts.JOIN,
            [self._epoch_key, *keys, self._lease(epoch.id, member)],
            [epoch.id, member, self._lease_ms, entry, self._process, self._lease(epoch.id, "")],
        )
        if word == b"unjoinable":
            return None
        if word != b"ok":
            raise Raced
        joined_at, position, state = rest
        return Admission(joined_at.decode(), position.decode(), state)

    # -- as a member ------------------------------------------------------------------------------

    async def append(
        self, epoch: Epoch, member: str, batch: int, payload: bytes, after: str
    ) -> list[LogEntry]:
        """Put an entry at the end. Returns what comes after ``after``, up to it if there is not too much."""
        word, *rest = await self._run(
            scripts.APPEND,
            [self._lease(epoch.id, member), self._key(epoch.id, "log")],
            [batch, self._lease_ms, after, payload, MAX_ENTRIES, READ_ENTRIES],
        )
        _check(word)
        return _entries(rest[0])

    async def beat(self, epoch: Epoch, member: str, others: Sequence[str]) -> Beat:
        keys = (self._epoch_key, *(self._key(epoch.id, part) for part in ("log", "checkpoint", "members")))
        word, *rest = await self._run(
            scripts.BEAT,
            [self._lease(epoch.id, member), *keys, seed_key(self._group)],
            [self._lease_ms, self._ttl_ms, self._lease(epoch.id, ""), self._seed, *others],
        )
        _check(word)
        (seconds, micros), has_checkpoint, gone = rest
        store_s = int(seconds) + int(micros) / 1e6
        return Beat(store_s, bool(has_checkpoint), tuple(each.decode() for each in gone))

    async def checkpoint(self, epoch: Epoch, member: str, position: str, state: bytes) -> None:
        oldest_ms = max(0, id_order(position)[0] - round(KEEP_S * 1000))
        keys = [self._lease(epoch.id, member), self._key(epoch.id, "log"), self._key(epoch.id, "checkpoint")]
        word, *_ = await self._run(
            scripts.CHECKPOINT, keys, [position, state, self._ttl_ms, f"{oldest_ms}-0"]
        )
        _check(word)

    async def leave(self, epoch: Epoch, member: str, entry: bytes) -> None:
        keys = [self._lease(epoch.id, member), self._key(epoch.id, "members"), self._key(epoch.id, "log")]
        word, *_ = await self._run(scripts.LEAVE, keys, [member, entry])
        _check(word)

    async def range(self, epoch: Epoch, after: str) -> list[LogEntry]:
        """What comes after it, as far as one answer goes."""
        self._status.commands += 1
        async with _translated():
            found = await self._redis.xrange(self._key(epoch.id, "log"), f"({after}", "+", READ_ENTRIES)
        return _entries(found)

    async def wait(self, epoch: Epoch, after: str) -> list[LogEntry]:
        """The same, as soon as there is something; nothing after a while without."""
        self._status.commands += 1
        streams: Any = {self._key(epoch.id, "log"): after}
        async with _translated():
            found: Any = await self._reader.xread(streams, count=READ_ENTRIES, block=self._read_block_ms)
        if not found:
            return []
        (_, entries), *_ = found.items() if isinstance(found, dict) else found
        return _entries(entries)

    # -- keys and commands ------------------------------------------------------------------------

    @property
    def _epoch_key(self) -> str:
        return self._prefix + "epoch"

    def _key(self, epoch_id: str, part: str) -> str:
        return f"{self._prefix}{epoch_id}:{part}"

    def _lease(self, epoch_id: str, member: str) -> str:
        return self._key(epoch_id, f"lease:{member}")

    async def _run(self, script: str, keys: list[str], arguments: list[Any]) -> list[Any]:
        redis: Any = self._redis
        self._status.commands += 1
        async with _translated():
            try:
                answer = await redis.evalsha(self._sha[script], len(keys), *keys, *arguments)
            except NoScriptError:  # a store that has just started
                self._status.commands += 1
                answer = await redis.eval(script, len(keys), *keys, *arguments)
        return list(answer)


_TEXTS = (
    scripts.LOOK, scripts.FOUND, scripts.JOIN, scripts.APPEND, scripts.BEAT, scripts.CHECKPOINT,
    scripts.LEAVE,
)  # fmt: skip


def _check(word: bytes) -> None:
    if word == b"fenced":
        raise Fenced
    if word != b"ok":
        raise LogLost


def _entries(found: Any) -> list[LogEntry]:
    return [LogEntry(id_.decode(), _payload(fields)) for id_, fields in found]


def _payload(fields: Any) -> bytes:
    """A script answers with names and values in a row, redis-py with a mapping."""
    return bytes(fields[b"r"] if isinstance(fields, dict) else fields[1])


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreGone(type(error).__name__) from error
