"""Admission for commands that callers run themselves."""

import asyncio
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.gateway import Gateway
from gateway.leases import Lease
from gateway.limits import Limits
from gateway.protocol import LeaseEnding, LeaseRenewal, LeaseRequest, LeaseState
from tests.gateway.fake_gateway import ended, gateway_on, run, session_of, until
from tests.gateway.fake_host import FakeHost

ONE = Limits(slots=1, queue_limit=1, short_places=0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ask(gateway: Gateway, session: str = "a", **fields: Any) -> Lease:
    return gateway.leases.ask("t", LeaseRequest(session=session, **fields))


async def test_a_lease_from_ask_to_release() -> None:
    clock = Clock()
    async with gateway_on(FakeHost(), limits=ONE, clock=clock) as gateway:
        lease = ask(gateway, program="make", ttl_s=10)
        status = gateway.leases.status(lease)
        assert (status.state, status.host, status.expires_in_s) == (LeaseState.HELD, "here", 10)
        assert gateway.hosts.get("here").queue.used == 1
        clock.now += 4
        gateway.leases.renew(lease, LeaseRenewal(ttl_s=20))
        assert gateway.leases.status(lease).expires_in_s == 20
        for _ in range(2):
            gateway.leases.release(lease, LeaseEnding(exit_code=3, cpu_s=2.0))
        assert gateway.hosts.get("here").queue.used == 0
        assert (lease.exit_code, lease.run_s(clock.now), lease.ending) == (3, 4, "released")
        with pytest.raises(Refusal) as refused:
            gateway.leases.renew(lease, LeaseRenewal())
        assert (refused.value.status, refused.value.code) == (409, "lease_over")
        assert 'mars_gateway_leases_total{state="released"} 1.0' in gateway.metrics.exposition().decode()


async def test_a_renewal_says_what_runs_under_it() -> None:
    async with gateway_on(FakeHost(), limits=ONE) as gateway:
        lease, queued = ask(gateway, memory_mb=10), ask(gateway, memory_mb=10)
        for each in (lease, queued):
            gateway.leases.renew(each, LeaseRenewal(rss_mb=50))
        assert gateway.hosts.get("here").queue.memory_reserved_mb == 50


async def test_a_lease_waits_for_a_command_and_a_command_for_a_lease() -> None:
    host = FakeHost()
    async with gateway_on(host, limits=ONE) as gateway:
        await session_of(gateway)
        record = await run(gateway)
        lease = ask(gateway)
        assert gateway.leases.status(lease).queue_position == 0
        await gateway.leases.wait_held(lease, 0.01)
        assert lease.state is LeaseState.QUEUED
        host.finish(record.id)
        await ended(record)
        await gateway.leases.wait_held(lease, 20)
        assert lease.state is LeaseState.HELD
        task = asyncio.get_running_loop().create_task(run(gateway))
        await until(lambda: gateway.hosts.get("here").queue.queued == 1)
        gateway.leases.release(lease, LeaseEnding())
        assert (await task).state.value == "running"


async def test_a_lease_that_is_not_renewed_expires() -> None:
    clock = Clock()
    async with gateway_on(FakeHost(), limits=ONE, clock=clock, housekeeping_s=0.01) as gateway:
        lease = ask(gateway, ttl_s=5)
        clock.now += 6
        await until(lambda: lease.ending is not None)
        status = gateway.leases.status(lease)
        assert (status.state, status.reason) == (LeaseState.EXPIRED, "it was not renewed in time")
        assert gateway.hosts.get("here").queue.used == 0
        clock.now += Limits().exec_ttl_s + 1
        await until(lambda: is_forgotten(gateway, lease))


def is_forgotten(gateway: Gateway, lease: Lease) -> bool:
    try:
        gateway.leases.get("t", lease.id)
    except Refusal as refusal:
        return refusal.code == "lease_not_found"
    return False


async def test_no_room_in_time_and_no_room_at_all() -> None:
    async with gateway_on(FakeHost(), limits=ONE) as gateway:
        ask(gateway)
        late = ask(gateway, queue_timeout_s=0.02)
        with pytest.raises(Refusal) as refused:
            ask(gateway)
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        await gateway.leases.wait_held(late, 20)
        status = gateway.leases.status(late)
        assert (status.state, status.reason) == (LeaseState.REJECTED, "no CPU slot within 0.02 s")
        with pytest.raises(Refusal) as refused:
            ask(gateway, cpu=2)
        assert refused.value.param == "cpu"


async def test_release_in_the_moment_of_the_grant() -> None:
    """Granted, and its task has not noticed yet: the slots come back all the same."""
    async with gateway_on(FakeHost(), limits=ONE) as gateway:
        first, second = ask(gateway), ask(gateway)
        gateway.leases.release(first, LeaseEnding())
        assert second.granted.done()
        gateway.leases.release(second, LeaseEnding())
        await asyncio.sleep(0.01)
        assert second.state is LeaseState.RELEASED
        assert gateway.hosts.get("here").queue.used == 0


async def test_a_lease_is_where_its_session_is() -> None:
    async with gateway_on(FakeHost("one"), FakeHost("two")) as gateway:
        await session_of(gateway, "s", "t", host="two")
        assert (ask(gateway, "s").host, ask(gateway, "x").host) == ("two", "one")
        assert ask(gateway, "s", host="one").host == "one"
        with pytest.raises(Refusal) as refused:
            ask(gateway, host="three")
        assert (refused.value.status, refused.value.code) == (404, "host_not_found")


async def test_tenants_see_their_own() -> None:
    async with gateway_on(FakeHost()) as gateway:
        lease = ask(gateway)
        assert gateway.leases.get("t", lease.id) is lease
        with pytest.raises(Refusal):
            gateway.leases.get("other", lease.id)


async def test_shutdown_rejects_what_waits() -> None:
    async with gateway_on(FakeHost(), limits=ONE) as gateway:
        ask(gateway)
        queued = ask(gateway)
        gateway.drain()
        assert queued.state is LeaseState.REJECTED
        with pytest.raises(Refusal) as refused:
            ask(gateway)
        assert refused.value.status == 503
