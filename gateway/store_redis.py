"""The store in Redis: it survives the gateway, and several starts of it find the same.

Owns names and commands of Redis. Any URL that redis-py reads works: ``redis://``, ``rediss://`` (TLS),
``unix://``, with user and password in it (never logged). Redis that is gone is StoreUnavailable within
``_TIMEOUT_S``; the next call tries again. Nothing here is dropped before its time as long as Redis itself
drops nothing: its ``maxmemory-policy`` must be ``noeviction``, the default, which ``weakness`` asks for; full
memory is then StoreUnavailable too.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis import asyncio as aioredis
from redis.exceptions import RedisError, ResponseError
from redis.utils import str_if_bytes

from gateway.limits import ConfigError, Limits
from gateway.store import SESSION_TTL_S, Claim, StoreUnavailable

_TIMEOUT_S = 2.0
"""Of connecting and of each command: Redis answers in milliseconds or is gone."""
_MAX_CONNECTIONS = 32
_CLAIM_ATTEMPTS = 3
"""A claim that is there at the first look and expired at the second may be tried again."""
_PAGE = 500
_KEEPS_ALL = "noeviction"


class RedisStore:
    def __init__(self, url: str, limits: Limits, *, prefix: str = "mars:gateway:") -> None:
        try:
            pool = aioredis.BlockingConnectionPool.from_url(
                url,
                max_connections=_MAX_CONNECTIONS,
                timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
            )
        except ValueError as error:
            raise ConfigError("store: must be memory or a redis://, rediss:// or unix:// URL") from error
        self._redis = aioredis.Redis.from_pool(pool)
        self._prefix = prefix
        self._claim_ttl_ms = _ms(limits.idempotency_ttl_s)
        self._exec_ttl_ms = _ms(limits.exec_ttl_s)
        self._max_execs = limits.max_execs

    @property
    def is_durable(self) -> bool:
        return True

    async def claim(self, exec_id: str, claim: Claim) -> Claim | None:
        name, value = self._name("claim", exec_id), msgspec.json.encode(claim)
        async with _translated():
            for _ in range(_CLAIM_ATTEMPTS):
                if await self._redis.set(name, value, nx=True, px=self._claim_ttl_ms):
                    return None
                if (found := await self._redis.get(name)) is not None:
                    return msgspec.json.decode(found, type=Claim)
        raise StoreUnavailable("claims expire while they are looked at")

    async def release(self, exec_id: str) -> None:
        async with _translated():
            await self._redis.delete(self._name("claim", exec_id))

    async def put_exec(self, exec_id: str, record: bytes) -> None:
        """The list of ids, oldest first, bounds their number; each record expires by itself."""
        ids = self._prefix + "execs"
        async with _translated():
            async with self._redis.pipeline(transaction=False) as batch:
                batch.set(self._name("exec", exec_id), record, px=self._exec_ttl_ms)
                batch.rpush(ids, exec_id)
                batch.pexpire(ids, self._exec_ttl_ms)
                batch.llen(ids)
                *_, count = await batch.execute()
            if (surplus := count - self._max_execs) > 0:
                oldest: Any = await self._redis.lpop(ids, surplus)
                names = [self._name("exec", id_.decode()) for id_ in oldest or ()]
                if names:
                    await self._redis.delete(*names)

    async def find_exec(self, exec_id: str) -> bytes | None:
        async with _translated():
            return _as_bytes(await self._redis.get(self._name("exec", exec_id)))

    async def put_session(self, name: str, record: bytes) -> None:
        async with _translated():
            await self._redis.set(self._name("session", name), record, px=_ms(SESSION_TTL_S))

    async def remove_session(self, name: str) -> None:
        async with _translated():
            await self._redis.delete(self._name("session", name))

    async def sessions(self) -> list[bytes]:
        async with _translated():
            pattern = self._name("session", "*")
            names = [name async for name in self._redis.scan_iter(match=pattern, count=_PAGE)]
            found: list[Any] = []
            for begin in range(0, len(names), _PAGE):
                found += await self._redis.mget(names[begin : begin + _PAGE])
        return [bytes(record) for record in found if record is not None]

    async def weakness(self) -> str | None:
        """Managed servers and careful administrators permit no CONFIG; that is no news of ours."""
        try:
            async with _translated():
                found: Any = await self._redis.config_get("maxmemory-policy")
        except StoreUnavailable as error:
            if isinstance(error.__cause__, ResponseError):
                return None
            raise
        policy = next((str_if_bytes(value) for value in found.values()), _KEEPS_ALL)
        return None if policy == _KEEPS_ALL else f"maxmemory-policy of Redis is {policy}, not {_KEEPS_ALL}"

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()  # type: ignore[no-untyped-call, unused-ignore]
            await self._redis.connection_pool.disconnect()

    def _name(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}:{name}"


def _as_bytes(value: Any) -> bytes | None:
    """What redis-py may answer has as many types as it has settings; with ours it is bytes."""
    return None if value is None else bytes(value)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@contextlib.asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError, msgspec.DecodeError) as error:
        raise StoreUnavailable(type(error).__name__) from error
