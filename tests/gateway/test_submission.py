"""What a key means, whatever breaks."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.errors import Refusal
from gateway.limits import Limits
from gateway.protocol import ExecRequest, ExecState, LimitsRequest
from gateway.store import Claim, MemoryStore, StoreUnavailable
from gateway.submission import keyed_exec_id, request_digest
from tests.gateway.fake_gateway import ended, gateway_on, run, session_of
from tests.gateway.fake_host import CAPABILITIES, FakeHost

REQUEST = ExecRequest(command="true")


class WeakStore(MemoryStore):
    """A durable one, that is not there when told so; perhaps it did what was asked all the same."""

    def __init__(self) -> None:
        super().__init__(Limits(), lambda: 0.0)
        self.is_there = True
        self.does_it_all_the_same = False
        self.claims = 0

    @property
    def is_durable(self) -> bool:
        return True

    async def claim(self, exec_id: str, claim: Claim) -> Claim | None:
        self.claims += 1
        if self.is_there or self.does_it_all_the_same:
            found = self.claim_now(exec_id, claim)
        if not self.is_there:
            raise StoreUnavailable("gone")
        return found

    async def release(self, exec_id: str) -> None:
        if not self.is_there:
            raise StoreUnavailable("gone")
        await super().release(exec_id)

    async def put_exec(self, exec_id: str, record: bytes) -> None:
        if not self.is_there:
            raise StoreUnavailable("gone")
        await super().put_exec(exec_id, record)

    async def close(self) -> None:
        pass


async def refusal(awaitable: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as refused:
        await awaitable
    return refused.value.status, refused.value.code


async def test_one_key_is_one_command_also_while_it_is_claimed() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        await session_of(gateway)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(gateway, "k")) for _ in range(5)]
        assert len({task.result() for task in tasks}) == 1
        assert host.starts == [keyed_exec_id("", "k")]
        assert await refusal(run(gateway, "k", "false")) == (409, "idempotency_key_reused")
        host.finish(host.starts[0])
        record = await ended(tasks[0].result())
        assert await run(gateway, "k") is record


async def test_keys_of_tenants_are_apart() -> None:
    assert keyed_exec_id("a", "bc") != keyed_exec_id("ab", "c")
    assert keyed_exec_id("a", "b") == keyed_exec_id("a", "b")


async def test_caller_that_leaves_does_not_undo_it() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        await session_of(gateway)
        for ticks in range(5):
            task = asyncio.get_running_loop().create_task(run(gateway, f"k{ticks}", cpu=0.05))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        records = [await run(gateway, f"k{ticks}", cpu=0.05) for ticks in range(5)]
        assert sorted(host.starts) == sorted(record.id for record in records)


async def test_without_its_store_a_key_runs_nothing_and_a_command_without_one_runs() -> None:
    host, store = FakeHost(), WeakStore()
    async with gateway_on(host, store=store) as gateway:
        await session_of(gateway)
        store.is_there = False
        assert await refusal(run(gateway, "k")) == (503, "store_unavailable")
        assert host.starts == []
        record = await run(gateway)
        assert (record.state, len(host.starts)) == (ExecState.RUNNING, 1)
        store.is_there = True
        assert (await run(gateway, "k")).state is ExecState.RUNNING


async def test_claim_that_was_made_and_not_answered_may_be_used_by_the_retry() -> None:
    """It was refused, so nothing was sent; the claim that is there is ours."""
    host, store = FakeHost(), WeakStore()
    async with gateway_on(host, store=store) as gateway:
        await session_of(gateway)
        store.is_there, store.does_it_all_the_same = False, True
        assert await refusal(run(gateway, "k")) == (503, "store_unavailable")
        store.is_there = True
        assert (await run(gateway, "k")).state is ExecState.RUNNING
        assert len(host.starts) == 1


async def test_refused_command_gives_its_key_back() -> None:
    host = FakeHost()
    async with gateway_on(host, limits=Limits(slots=1, queue_limit=0, short_places=0)) as gateway:
        await session_of(gateway)
        first = await run(gateway)
        assert await refusal(run(gateway, "k")) == (429, "queue_full")
        host.finish(first.id)
        await ended(first)
        assert (await run(gateway, "k")).state is ExecState.RUNNING


async def test_bad_command_claims_nothing() -> None:
    store = WeakStore()
    async with gateway_on(FakeHost(), store=store) as gateway:
        await session_of(gateway)
        assert await refusal(run(gateway, "k", cpu=100)) == (400, "invalid_value")
        assert store.claims == 0


async def test_full_table_of_keys_runs_nothing() -> None:
    host = FakeHost()
    async with gateway_on(host, limits=Limits(slots=2, max_idempotency_keys=1)) as gateway:
        await session_of(gateway)
        await run(gateway, "k1")
        assert await refusal(run(gateway, "k2")) == (429, "too_many_idempotency_keys")
        assert len(host.starts) == 1


async def test_forgotten_result_is_410_and_not_run_again() -> None:
    host = FakeHost()
    async with gateway_on(host, limits=Limits(slots=2, max_execs=0)) as gateway:
        await session_of(gateway)
        record = await run(gateway, "k")
        host.finish(record.id)
        await ended(record)
        assert await refusal(run(gateway, "k")) == (410, "exec_forgotten")
        assert len(host.starts) == 1


async def test_claim_of_an_earlier_gateway_that_sent_nothing_is_used() -> None:
    """Its command waited in a queue that is gone. The host's directory would keep a second run away."""
    host, store = FakeHost(), WeakStore()
    async with gateway_on(
        host, store=store, limits=Limits(slots=1, short_places=0), on_stop="keep"
    ) as gateway:
        await session_of(gateway)
        await run(gateway)
        queued = await gateway.submission.submit(gateway.sessions.use("", "s"), REQUEST, "k")
        assert queued.state is ExecState.QUEUED
        store.is_there = False  # As after a crash, nothing that this gateway does at its end is seen.
    store.is_there = True
    host.finish(*host.running())
    async with gateway_on(host, store=store) as gateway:
        record = await run(gateway, "k")
        assert (record.state, host.starts.count(record.id)) == (ExecState.RUNNING, 1)


@pytest.mark.parametrize("is_known", [True, False])
async def test_claim_of_an_earlier_gateway_is_not_run_in_another_life_of_its_host(is_known: bool) -> None:
    """What says that it was run may be gone with the power."""
    host, store = FakeHost(), WeakStore()
    host.boot_id = "boot 1" if is_known else None
    async with gateway_on(host, store=store, on_stop="keep") as gateway:
        await session_of(gateway)
        assert (await run(gateway, "k")).state is ExecState.RUNNING
        store.is_there = False
    store.is_there = True
    host.lose_power()
    async with gateway_on(host, store=store) as gateway:
        assert await refusal(run(gateway, "k")) == (410, "exec_forgotten")
    assert len(host.starts) == 1


async def test_claim_on_another_host_is_not_run_here() -> None:
    """Only there could it be known whether it ran."""
    one, other, store = FakeHost("one"), FakeHost("other"), WeakStore()
    store.claim_now(keyed_exec_id("", "k"), Claim(request_digest("s", REQUEST), "other", "earlier"))
    async with gateway_on(one, other, store=store) as gateway:
        await session_of(gateway, host="one")
        assert await refusal(run(gateway, "k")) == (410, "exec_forgotten")
        assert one.starts == []


async def test_limits_that_a_host_cannot_hold_are_named() -> None:
    host = FakeHost()
    host.capabilities = msgspec.structs.replace(CAPABILITIES, can_limit_memory=False)
    async with gateway_on(host) as gateway:
        await session_of(gateway)
        with pytest.raises(Refusal) as refused:
            await run(gateway, limits=LimitsRequest(memory_mb=10))
        assert (refused.value.code, refused.value.param) == ("unsupported_limit", "limits.memory_mb")
        record = await run(gateway, limits=LimitsRequest(pids=10, fsize_mb=2))
        limits = host.execs[record.id].order.limits
        assert (limits.pids, limits.fsize_mb, limits.memory_mb) == (10, 2, None)


async def test_what_a_command_is_ordered_with() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        await session_of(gateway, env={"A": "s", "B": "s"}, cwd="sub", limits=LimitsRequest(pids=5))
        record = await run(gateway, env={"B": "e"}, cpu=0.5, state="env_cwd", on_exit="keep")
        order = host.execs[record.id].order
        assert (order.env["A"], order.env["B"], order.env["PAGER"]) == ("s", "e", "cat")
        assert (order.cwd, order.cpu_weight, order.keeps_state, order.keeps_children) == (
            "sub",
            0.5,
            True,
            True,
        )
        assert order.limits.pids == 5
        assert await refusal(run(gateway, state="env_cwd", shell="sh -c")) == (400, "invalid_value")


async def test_a_refusal_is_answered_and_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway_on(FakeHost()) as gateway:
        await session_of(gateway)
        with pytest.raises(Refusal, match="cwd"):
            await run(gateway, "k", cwd="..")
        gateway.execs.drain("it stops")
        with pytest.raises(Refusal) as refused:
            await run(gateway, "k2")
        assert refused.value.code == "draining"
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []
