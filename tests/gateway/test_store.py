"""What every store promises, in memory and on a real Redis."""
# ruff: noqa: ASYNC110 - looking now and then is the test

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from redis import asyncio as aioredis

from gateway.limits import ConfigError, Limits
from gateway.routes_probes import readyz
from gateway.store import Claim, MemoryStore, Store, StoreFull, StoreUnavailable
from gateway.store_redis import RedisStore
from gateway.store_watch import StoreWatch
from tests.gateway.fake_gateway import gateway_on
from tests.gateway.fake_host import FakeHost
from tests.gateway.redis_server import RedisServer

CLAIM = Claim("digest", "host", "owner")
MakeStore = Callable[..., Store]


@pytest.fixture(params=["memory", "redis"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    async with contextlib.AsyncExitStack() as stack:

        def make(**limits: float) -> Store:
            asked = replace(Limits(), **limits)
            if request.param == "memory":
                return MemoryStore(asked, time.monotonic)
            store = RedisStore(request.getfixturevalue("redis_server").url, asked)
            stack.push_async_callback(store.close)
            return store

        yield make


async def test_a_claim_is_made_once(make_store: MakeStore) -> None:
    store = make_store()
    claims = [replace(CLAIM, owner=str(number)) for number in range(8)]
    answers = await asyncio.gather(*(store.claim("ex-1", claim) for claim in claims))
    (winner,) = (claim for claim, answer in zip(claims, answers, strict=True) if answer is None)
    assert [answer for answer in answers if answer is not None] == [winner] * 7
    assert await store.claim("ex-2", CLAIM) is None


async def test_a_released_claim_may_be_made_again(make_store: MakeStore) -> None:
    store = make_store()
    await store.claim("ex-1", CLAIM)
    await store.release("ex-1")
    await store.release("ex-1")
    assert await store.claim("ex-1", CLAIM) is None


async def test_claims_expire(make_store: MakeStore) -> None:
    store = make_store(idempotency_ttl_s=0.05)
    assert await store.claim("ex-1", CLAIM) is None
    async with asyncio.timeout(30):
        while await store.claim("ex-1", CLAIM) is not None:
            await asyncio.sleep(0.01)


async def test_execs_expire_and_are_bounded(make_store: MakeStore) -> None:
    store = make_store(max_execs=2)
    assert await store.find_exec("a") is None
    for name in "abc":
        await store.put_exec(name, name.encode())
    assert [await store.find_exec(name) for name in "abc"] == [None, b"b", b"c"]
    store = make_store(exec_ttl_s=0.05)
    await store.put_exec("d", b"d")
    async with asyncio.timeout(30):
        while await store.find_exec("d") is not None:
            await asyncio.sleep(0.01)


async def test_sessions_are_listed_until_they_are_removed(make_store: MakeStore) -> None:
    store = make_store()
    assert await store.sessions() == []
    for name, record in [("a", b"1"), ("b", b"2"), ("a", b"3")]:
        await store.put_session(name, record)
    assert sorted(await store.sessions()) == [b"2", b"3"]
    await store.remove_session("a")
    await store.remove_session("a")
    assert await store.sessions() == [b"2"]


async def test_memory_takes_no_more_claims_and_forgets_none() -> None:
    now = 0.0
    store = MemoryStore(Limits(max_idempotency_keys=1, idempotency_ttl_s=60), lambda: now)
    await store.claim("ex-1", CLAIM)
    with pytest.raises(StoreFull):
        await store.claim("ex-2", CLAIM)
    assert await store.claim("ex-1", CLAIM) == CLAIM
    now = 60.0
    assert await store.claim("ex-2", CLAIM) is None


async def test_redis_that_goes_and_comes_back(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, Limits())
    try:
        assert await store.claim("ex-1", CLAIM) is None
        redis_server.stop()
        with pytest.raises(StoreUnavailable):
            await store.claim("ex-2", CLAIM)
        redis_server.start()
        assert await store.claim("ex-2", CLAIM) is None
    finally:
        await store.close()


async def test_what_was_claimed_is_found_by_the_next_gateway(redis_server: RedisServer) -> None:
    for found in (None, CLAIM):
        store = RedisStore(redis_server.url, Limits())
        assert await store.claim("ex-1", CLAIM) == found
        await store.close()
    other = RedisStore(redis_server.url, Limits(), prefix="other:")
    assert await other.claim("ex-1", CLAIM) is None
    await other.close()


def test_wrong_url_is_named() -> None:
    with pytest.raises(ConfigError, match="store: must be memory or a redis://"):
        RedisStore("http://127.0.0.1", Limits())


async def test_redis_that_may_drop_keys_is_told_of(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(redis_server.url, Limits())
    watch = StoreWatch(store, period_s=0.01)
    async with aioredis.Redis.from_url(redis_server.url) as redis:
        await watch.look()
        assert (watch.weakness, caplog.text) == (None, "")
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.run())
            async with asyncio.timeout(30):
                while watch.weakness is None:
                    await asyncio.sleep(0.01)
            watching.cancel()
        assert watch.weakness == "maxmemory-policy of Redis is allkeys-lru, not noeviction"
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        await redis.config_set("maxmemory-policy", "noeviction")
        await watch.look()
        assert (watch.weakness, caplog.records[-1].levelname) == (None, "WARNING")
        await redis.acl_setuser(
            "default", enabled=True, nopass=True, categories=["+@all"], commands=["-config"]
        )
        assert await store.weakness() is None
    redis_server.stop()
    with pytest.raises(StoreUnavailable):
        await store.weakness()
    await watch.look()
    redis_server.start()
    await store.close()


async def test_ready_says_that_keys_may_be_dropped(redis_server: RedisServer) -> None:
    async with aioredis.Redis.from_url(redis_server.url) as redis:
        await redis.config_set("maxmemory-policy", "volatile-ttl")
    async with gateway_on(FakeHost(), store=RedisStore(redis_server.url, Limits())) as gateway:
        async with asyncio.timeout(30):
            while gateway.store_watch.weakness is None:
                await asyncio.sleep(0.01)
        answer = await readyz(gateway)
    assert (answer.status_code, bytes(answer.body).decode()) == (
        200,
        "ready\nbut commands could run twice: maxmemory-policy of Redis is volatile-ttl, not noeviction\n",
    )
