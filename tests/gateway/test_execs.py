"""The life of a command, with a runner that does what the test says."""
# ruff: noqa: ASYNC240 - looking at real files and counters, now and then, is the test

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.execs import Command, Execs
from gateway.limits import Limits
from gateway.protocol import ExecState
from gateway.runner import EndedBy, Exit, RunOrder, StartError
from gateway.slots import SlotQueue


class ScriptedRunner:
    """Each command runs until ``finish``; ``stop`` ends it as a runner must."""

    def __init__(self) -> None:
        self.orders: dict[str, RunOrder] = {}
        self.exits: dict[str, asyncio.Future[Exit]] = {}
        self.refuses: StartError | None = None
        self.breaks: Exception | None = None

    async def run(self, order: RunOrder, on_started: Callable[[], None], stop: asyncio.Future[float]) -> Exit:
        if self.refuses is not None:
            raise self.refuses
        self.orders[order.exec_id] = order
        exit_ = self.exits[order.exec_id] = asyncio.get_running_loop().create_future()
        on_started()
        if self.breaks is not None:
            raise self.breaks
        await asyncio.wait({exit_, stop}, return_when=asyncio.FIRST_COMPLETED)
        return exit_.result() if exit_.done() else Exit(EndedBy.STOP, -15)

    def finish(self, record: Exec, exit_: Exit | None = None) -> None:
        self.exits[record.id].set_result(exit_ or Exit(EndedBy.ITSELF, 0))


@dataclass
class Transcript:
    lines: list[tuple[str, str]] = field(default_factory=list)

    def queued(self, record: Exec) -> None:
        self.lines.append(("queued", record.id))

    def started(self, record: Exec) -> None:
        self.lines.append(("started", record.id))

    def finished(self, record: Exec) -> None:
        self.lines.append((record.state.value, record.id))


class Bench:
    def __init__(self, directory: Path, limits: Limits) -> None:
        self.now = 100.0
        self.runner = ScriptedRunner()
        self.slots = SlotQueue(limits.slots, limits.queue_limit)
        self.transcript = Transcript()
        self.execs = Execs(
            limits=limits,
            slots=self.slots,
            runner=self.runner,
            host="here",
            directory=directory,
            listeners=[self.transcript],
            clock=lambda: self.now,
        )
        self.directory = directory

    def submit(self, name: str, *, queue_timeout_s: float = 60, session: str = "s", cpu: float = 1) -> Exec:
        command = Command(
            tenant="t",
            session=session,
            argv=("true",),
            digest="d",
            program="true",
            cwd=lambda: self.directory,
            env={},
            stdin=b"",
            timeout_s=10,
            queue_timeout_s=queue_timeout_s,
            kill_grace_s=7,
            cpu=cpu,
            max_output_bytes=10,
            merges_output=False,
            labels={},
        )
        return self.execs.submit(command, name)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def assert_empty(self) -> None:
        assert (self.slots.running, self.slots.queued, self.slots.used) == (0, 0, 0)
        assert self.execs.active_sessions() == set()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Limits(slots=1, queue_limit=2))


async def test_states_of_a_command_that_exits(bench: Bench) -> None:
    record = bench.submit("a")
    assert record.state is ExecState.QUEUED
    await bench.settle()
    assert record.state is ExecState.RUNNING
    bench.now += 3
    bench.runner.finish(record, Exit(EndedBy.ITSELF, 4, cpu_s=2.5, max_rss_mb=70))
    await record.ended.wait()
    status = bench.execs.status(record)
    assert (status.state, status.exit_code, status.run_s, status.queue_s) == (ExecState.EXITED, 4, 3, 0)
    assert (status.cpu_s, status.max_rss_mb, status.host) == (2.5, 70, "here")
    assert bench.transcript.lines == [("queued", "a"), ("started", "a"), ("exited", "a")]
    bench.assert_empty()


@pytest.mark.parametrize(
    ("exit_", "state", "code", "signal_name"),
    [
        (Exit(EndedBy.ITSELF, -9), ExecState.EXITED, 137, "SIGKILL"),
        (Exit(EndedBy.TIMEOUT, -15), ExecState.TIMED_OUT, 124, "SIGTERM"),
        (Exit(EndedBy.TIMEOUT, 0), ExecState.TIMED_OUT, 124, None),
        (Exit(EndedBy.STOP, 3), ExecState.CANCELLED, 130, None),
        (Exit(EndedBy.NOBODY), ExecState.LOST, None, None),
    ],
)
async def test_endings(
    bench: Bench, exit_: Exit, state: ExecState, code: int | None, signal_name: str | None
) -> None:
    record = bench.submit("a")
    await bench.settle()
    bench.runner.finish(record, exit_)
    await record.ended.wait()
    status = bench.execs.status(record)
    assert (status.state, status.exit_code, status.signal) == (state, code, signal_name)
    assert status.timed_out is (state is ExecState.TIMED_OUT)
    bench.assert_empty()


async def test_waits_for_its_slot_and_then_runs(bench: Bench) -> None:
    first, second = bench.submit("a"), bench.submit("b")
    await bench.settle()
    assert second.state is ExecState.QUEUED
    assert bench.execs.status(second).queue_position == 0
    bench.now += 5
    bench.runner.finish(first)
    await bench.settle()
    assert second.state is ExecState.RUNNING
    assert bench.execs.status(second).queue_s == 5
    bench.runner.finish(second)
    await second.ended.wait()
    bench.assert_empty()


async def test_full_queue_refuses_and_runs_nothing(bench: Bench) -> None:
    records = [bench.submit(name) for name in "abc"]
    with pytest.raises(Refusal) as refused:
        bench.submit("d")
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
    assert refused.value.retry_after_s is not None
    assert bench.execs.find("t", "d") is None
    for record in records:
        await bench.settle()
        bench.runner.finish(record)
    await records[-1].ended.wait()
    assert set(bench.runner.orders) == {"a", "b", "c"}
    bench.assert_empty()


async def test_queue_timeout_rejects_what_never_ran(bench: Bench) -> None:
    first, second = bench.submit("a"), bench.submit("b", queue_timeout_s=0.01)
    await second.ended.wait()
    status = bench.execs.status(second)
    assert (status.state, status.exit_code, status.run_s) == (ExecState.REJECTED, None, None)
    assert status.reason == "no CPU slot within 0.01 s"
    assert "b" not in bench.runner.orders
    assert first.state is ExecState.RUNNING
    bench.runner.finish(first)
    await first.ended.wait()
    bench.assert_empty()


async def test_cancel_while_queued(bench: Bench) -> None:
    first, second, third = (bench.submit(name) for name in "abc")
    await bench.settle()
    bench.execs.cancel(second, "enough")
    await second.ended.wait()
    status = bench.execs.status(second)
    assert (status.state, status.exit_code, status.reason) == (ExecState.CANCELLED, 130, "enough")
    for record in (first, third):
        bench.runner.finish(record)
        await record.ended.wait()
        await bench.settle()
    assert set(bench.runner.orders) == {"a", "c"}
    bench.assert_empty()


async def test_cancel_of_a_queued_one_in_the_moment_of_its_grant(bench: Bench) -> None:
    """Its slots are given back although it never ran."""
    first, second, third = (bench.submit(name) for name in "abc")
    await bench.settle()
    bench.runner.finish(first)
    await first.ended.wait()
    assert second.granted.done()
    bench.execs.cancel(second, "enough")
    await second.ended.wait()
    await bench.settle()
    assert second.state is ExecState.CANCELLED
    assert third.state is ExecState.RUNNING
    bench.runner.finish(third)
    await third.ended.wait()
    bench.assert_empty()


async def test_cancel_while_running_is_idempotent(bench: Bench) -> None:
    record = bench.submit("a")
    await bench.settle()
    for reason in ("first", "second"):
        bench.execs.cancel(record, reason)
    await record.ended.wait()
    bench.execs.cancel(record, "third")
    assert (record.state, record.reason, record.stop.result()) == (ExecState.CANCELLED, "first", 7)
    bench.assert_empty()


@pytest.mark.parametrize(("code", "state"), [(None, ExecState.REJECTED), (127, ExecState.EXITED)])
async def test_what_cannot_start(bench: Bench, code: int | None, state: ExecState) -> None:
    bench.runner.refuses = StartError("no way", code)
    record = bench.submit("a")
    await record.ended.wait()
    assert (record.state, record.exit_code, record.reason) == (state, code, "no way")
    assert bench.transcript.lines == [("queued", "a"), (state.value, "a")]
    bench.assert_empty()


async def test_broken_runner_is_lost_not_success(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.runner.breaks = OSError("connection to the host is gone")
    record = bench.submit("a")
    await record.ended.wait()
    assert (record.state, record.exit_code) == (ExecState.LOST, None)
    assert "exec a is lost" in caplog.text
    bench.assert_empty()


async def test_waiter_that_leaves_changes_nothing(bench: Bench) -> None:
    record = bench.submit("a")
    waiter = asyncio.get_running_loop().create_task(bench.execs.wait_ended(record, 60))
    await bench.settle()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert record.state is ExecState.RUNNING
    bench.runner.finish(record)
    await record.ended.wait()
    bench.assert_empty()


@pytest.mark.parametrize("ticks", range(6))
async def test_task_cancelled_at_each_await(bench: Bench, ticks: int) -> None:
    """Before its slot, waiting for it, running: the slot comes back, and one ending is told."""
    first, second = bench.submit("a"), bench.submit("b")
    tasks = {t.get_name(): t for t in asyncio.all_tasks()}
    for _ in range(1 + ticks):
        await asyncio.sleep(0)
    for name in ("exec a", "exec b"):
        tasks[name].cancel()
    for record in (first, second):
        await asyncio.wait_for(record.ended.wait(), 20)
        assert record.state.is_final
        assert record.exit_code is None
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(tasks["exec a"], tasks["exec b"])
    endings = [line for line in bench.transcript.lines if line[0] in ("lost", "rejected")]
    assert sorted(name for _, name in endings) == ["a", "b"]
    bench.assert_empty()


async def test_drain_ends_all_and_takes_nothing_new(bench: Bench) -> None:
    running, queued = bench.submit("a"), bench.submit("b")
    await bench.settle()
    await bench.execs.close()
    assert (running.state, queued.state) == (ExecState.CANCELLED, ExecState.CANCELLED)
    assert running.stop.result() == 5
    with pytest.raises(Refusal) as refused:
        bench.submit("c")
    assert refused.value.status == 503
    bench.assert_empty()


async def test_finished_ones_are_forgotten_by_age_and_by_number(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Limits(slots=1, max_execs=2, exec_ttl_s=10))
    for name in "abc":
        record = bench.submit(name)
        await bench.settle()
        bench.runner.finish(record)
        await record.ended.wait()
    assert [bench.execs.find("t", name) is not None for name in "abc"] == [False, True, True]
    bench.now += 11
    bench.execs.forget_expired()
    assert [bench.execs.find("t", name) is not None for name in "abc"] == [False, False, False]
    assert list(tmp_path.iterdir()) == []


async def test_other_tenants_see_nothing(bench: Bench) -> None:
    record = bench.submit("a")
    assert bench.execs.find("t", "a") is record
    assert bench.execs.find("other", "a") is None
    await bench.execs.close()
