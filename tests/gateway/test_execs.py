"""The life of a command, on hosts in memory that do what the test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.admission import AdmissionSettings, HostQueue
from gateway.command import Command
from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.exec_streams import until_left
from gateway.execs import Execs
from gateway.host import Chunk, EndedBy, HostFault, RunOrder, StartError, StreamCount, TerminalSize
from gateway.hosts import HostPlan, Hosts
from gateway.limits import Limits
from gateway.listeners import ToolRun
from gateway.protocol import ExecState, Scope, StreamName
from gateway.store import MemoryStore
from tests.gateway.fake_host import FakeHost


@dataclass
class Transcript:
    lines: list[tuple[str, str]] = field(default_factory=list)

    def queued(self, run: ToolRun) -> None:
        self.lines.append(("queued", run.id))

    def started(self, run: ToolRun) -> None:
        self.lines.append(("started", run.id))

    def finished(self, run: ToolRun) -> None:
        assert run.ending is not None
        self.lines.append((run.ending, run.id))


class Bench:
    def __init__(self, limits: Limits, hosts: int = 1) -> None:
        self.now = 100.0
        self.fakes = [FakeHost("here"), *(FakeHost(f"there{n}") for n in range(1, hosts))]
        self.host = self.fakes[0]
        settings = AdmissionSettings(slots=limits.slots, queue_limit=limits.queue_limit)
        self.hosts = Hosts([HostPlan(fake, HostQueue(settings)) for fake in self.fakes], lambda: self.now)
        for host in self.hosts:
            host.asked.set()
        self.transcript = Transcript()
        self.execs = Execs(
            limits=limits,
            hosts=self.hosts,
            store=MemoryStore(limits, lambda: self.now),
            listeners=[self.transcript],
            clock=lambda: self.now,
        )

    def submit(
        self,
        name: str,
        *,
        queue_timeout_s: float = 60,
        host: str = "here",
        body_digest: str | None = None,
        **order: Any,
    ) -> Exec:
        fields: dict[str, Any] = {
            "exec_id": name,
            "session": "s.t",
            "argv": ("true",),
            "cwd": ".",
            "env": {},
            "stdin": b"",
            "timeout_s": 10,
            "kill_grace_s": 7,
            "max_output_bytes": 10,
            "merges_output": False,
        }
        command = Command(
            tenant="t",
            session="s",
            host=host,
            order=RunOrder(**(fields | order)),
            command_digest="d",
            program="true",
            signature="true",
            queue_timeout_s=queue_timeout_s,
            cpu=1,
            memory_mb=None,
            labels={},
            body_digest=body_digest,
        )
        return self.execs.submit(command)

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    async def ended(self, record: Exec) -> None:
        await asyncio.wait_for(record.ended.wait(), 20)

    def assert_empty(self) -> None:
        for host in self.hosts:
            assert (host.queue.running, host.queue.queued, host.queue.used) == (0, 0, 0)
        assert self.execs.active_sessions() == set()


OpenBench = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def _open(hosts: int = 1, **limits: Any) -> AsyncIterator[Bench]:
    bench = Bench(Limits(**({"slots": 1, "queue_limit": 2} | limits)), hosts)
    yield bench
    bench.execs.drain("the test is over")
    await bench.execs.close()
    bench.assert_empty()


@pytest.fixture
def open_bench() -> OpenBench:
    return _open


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with _open() as bench:
        yield bench


async def test_states_of_a_command_that_exits(bench: Bench) -> None:
    record = bench.submit("a")
    assert record.state is ExecState.QUEUED
    await bench.settle()
    assert record.state is ExecState.RUNNING
    bench.now += 3
    bench.host.finish("a", returncode=4, run_s=2.75, cpu_s=2.5, max_rss_mb=70)
    await bench.ended(record)
    status = await bench.execs.status(record)
    assert (status.state, status.exit_code, status.run_s, status.queue_s) == (ExecState.EXITED, 4, 2.75, 0)
    assert (status.cpu_s, status.max_rss_mb, status.host) == (2.5, 70, "here")
    assert bench.transcript.lines == [("queued", "a"), ("started", "a"), ("exited", "a")]
    bench.assert_empty()


async def test_one_command_is_one_start_and_one_wait(bench: Bench) -> None:
    """No polling: what a command costs its host's connection does not grow with its length."""
    record = bench.submit("a")
    await bench.settle()
    bench.host.write("a", b"out")
    bench.host.finish("a")
    await bench.ended(record)
    await bench.execs.status(record)
    assert bench.host.calls == ["start", "wait"]


@pytest.mark.parametrize(
    ("ended_by", "returncode", "state", "code", "signal_name"),
    [
        (EndedBy.ITSELF, -9, ExecState.EXITED, 137, "SIGKILL"),
        (EndedBy.ITSELF, -40, ExecState.EXITED, 168, "SIG40"),
        (EndedBy.TIMEOUT, -15, ExecState.TIMED_OUT, 124, "SIGTERM"),
        (EndedBy.TIMEOUT, 0, ExecState.TIMED_OUT, 124, None),
        (EndedBy.STOP, 3, ExecState.CANCELLED, 130, None),
        (EndedBy.OOM, -9, ExecState.OOM_KILLED, 137, "SIGKILL"),
        (EndedBy.NOBODY, None, ExecState.LOST, None, None),
    ],
)
async def test_endings(
    bench: Bench,
    ended_by: EndedBy,
    returncode: int | None,
    state: ExecState,
    code: int | None,
    signal_name: str | None,
) -> None:
    record = bench.submit("a")
    await bench.settle()
    bench.host.finish("a", ended_by, returncode)
    await bench.ended(record)
    status = await bench.execs.status(record)
    assert (status.state, status.exit_code, status.signal) == (state, code, signal_name)
    assert status.timed_out is (state is ExecState.TIMED_OUT)
    bench.assert_empty()


async def test_waits_for_its_slot_and_then_runs(bench: Bench) -> None:
    first, second = bench.submit("a"), bench.submit("b")
    await bench.settle()
    assert second.state is ExecState.QUEUED
    assert (await bench.execs.status(second)).queue_position == 0
    bench.now += 5
    bench.host.finish("a")
    await bench.ended(first)
    await bench.settle()
    assert second.state is ExecState.RUNNING
    assert (await bench.execs.status(second)).queue_s == 5
    bench.host.finish("b")
    await bench.ended(second)
    bench.assert_empty()


async def test_hosts_do_not_wait_for_each_other(open_bench: OpenBench) -> None:
    async with open_bench(hosts=2) as bench:
        records = [bench.submit("a"), bench.submit("b"), bench.submit("c", host="there1")]
        await bench.settle()
        states = [record.state.value for record in records]
        assert states == ["running", "queued", "running"]
        assert [list(fake.execs) for fake in bench.fakes] == [["a"], ["c"]]


async def test_full_queue_refuses_and_runs_nothing(bench: Bench) -> None:
    records = [bench.submit(name) for name in "abc"]
    with pytest.raises(Refusal) as refused:
        bench.submit("d")
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
    assert refused.value.retry_after_s is not None
    assert bench.execs.find("d") is None
    for record in records:
        await bench.settle()
        bench.host.finish(record.id)
        await bench.ended(record)
    assert set(bench.host.starts) == {"a", "b", "c"}
    bench.assert_empty()


async def test_queue_timeout_rejects_what_never_ran(bench: Bench) -> None:
    first, second = bench.submit("a"), bench.submit("b", queue_timeout_s=0.01)
    await bench.ended(second)
    status = await bench.execs.status(second)
    assert (status.state, status.exit_code, status.run_s) == (ExecState.REJECTED, None, None)
    assert status.reason == "no CPU slot within 0.01 s"
    assert (status.stdout.text, status.stdout.total_bytes) == ("", 0)
    assert first.state is ExecState.RUNNING
    assert bench.host.starts == ["a"]


async def test_cancel_while_queued(bench: Bench) -> None:
    first, second, third = (bench.submit(name) for name in "abc")
    await bench.settle()
    bench.execs.cancel(second, "enough")
    await bench.ended(second)
    status = await bench.execs.status(second)
    assert (status.state, status.exit_code, status.reason) == (ExecState.CANCELLED, 130, "enough")
    for record in (first, third):
        bench.host.finish(record.id)
        await bench.ended(record)
        await bench.settle()
    assert bench.host.starts == ["a", "c"]
    bench.assert_empty()


async def test_cancel_of_a_queued_one_in_the_moment_of_its_grant(bench: Bench) -> None:
    """Its slots are given back although it never ran."""
    first, second, third = (bench.submit(name) for name in "abc")
    await bench.settle()
    bench.host.finish("a")
    await bench.ended(first)
    assert second.granted.done()
    bench.execs.cancel(second, "enough")
    await bench.ended(second)
    await bench.settle()
    assert second.state is ExecState.CANCELLED
    assert third.state is ExecState.RUNNING


async def test_cancel_while_running_is_idempotent(bench: Bench) -> None:
    record = bench.submit("a")
    await bench.settle()
    for reason in ("first", "second"):
        bench.execs.cancel(record, reason)
    await bench.ended(record)
    bench.execs.cancel(record, "third")
    assert (record.state, record.reason) == (ExecState.CANCELLED, "first")
    assert bench.host.stops == [("a", 7)]
    bench.assert_empty()


async def test_cancel_while_it_is_started(bench: Bench) -> None:
    """It may be running already: the host is told as soon as it has answered."""
    bench.host.answers_late = asyncio.Event()
    record = bench.submit("a")
    await bench.settle()
    assert record.state is ExecState.STARTING
    bench.execs.cancel(record, "enough")
    await bench.settle()
    assert bench.host.stops == []
    bench.host.answers_late.set()
    await bench.ended(record)
    assert (record.state, bench.host.stops) == (ExecState.CANCELLED, [("a", 7)])


async def test_one_that_ended_while_it_was_cancelled_has_no_reason(bench: Bench) -> None:
    record = bench.submit("a")
    await bench.settle()
    bench.host.finish("a", returncode=3)
    bench.execs.cancel(record, "too late")
    await bench.ended(record)
    assert (record.state, record.exit_code, record.reason) == (ExecState.EXITED, 3, None)


@pytest.mark.parametrize(("code", "state"), [(None, ExecState.REJECTED), (127, ExecState.EXITED)])
async def test_what_cannot_start(bench: Bench, code: int | None, state: ExecState) -> None:
    bench.host.refuses = StartError("no way", code)
    record = bench.submit("a")
    await bench.ended(record)
    assert (record.state, record.exit_code, record.reason) == (state, code, "no way")
    assert bench.transcript.lines == [("queued", "a"), (state.value, "a")]
    bench.assert_empty()


@pytest.mark.parametrize(
    ("fault", "state"),
    [("no_space", ExecState.REJECTED), ("internal", ExecState.LOST), ("gone", ExecState.LOST)],
)
async def test_host_that_says_no(bench: Bench, fault: str, state: ExecState) -> None:
    """Whether it ran is not known where the host itself failed."""
    bench.host.refuses = HostFault(fault, "because")
    record = bench.submit("a")
    await bench.ended(record)
    assert (record.state, record.exit_code) == (state, None)
    assert record.reason


async def test_host_lost_while_it_runs_is_lost_not_success(bench: Bench) -> None:
    record = bench.submit("a")
    await bench.settle()
    bench.host.lose()
    await bench.ended(record)
    assert (record.state, record.exit_code) == (ExecState.LOST, None)
    assert record.reason == "its host was lost while it ran"
    bench.host.come_back()
    assert bench.host.running() == ["a"]


async def test_host_lost_while_it_is_started_is_lost(bench: Bench) -> None:
    """Perhaps it runs, so it is not ``rejected``: a caller might send that again."""
    bench.host.answers_late = asyncio.Event()
    record = bench.submit("a")
    await bench.settle()
    bench.host.lose()
    await bench.ended(record)
    assert (record.state, record.exit_code, bench.host.starts) == (ExecState.LOST, None, ["a"])


async def test_host_that_forgot_it_is_lost(bench: Bench) -> None:
    record = bench.submit("a")
    await bench.settle()
    bench.host.drop("a")
    await bench.ended(record)
    assert (record.state, record.exit_code) == (ExecState.LOST, None)
    assert record.reason == "its host does not know it any more"


async def test_broken_host_client_is_lost_and_stopped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.host.refuses = OSError("nobody thought of this")  # type: ignore[assignment]
    record = bench.submit("a")
    await bench.ended(record)
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


@pytest.mark.parametrize("ticks", range(8))
async def test_task_cancelled_at_each_await(bench: Bench, ticks: int) -> None:
    """Before its slot, waiting for it, starting, running: the slot comes back, and one ending is told."""
    first, second = bench.submit("a"), bench.submit("b")
    tasks = {t.get_name(): t for t in asyncio.all_tasks()}
    for _ in range(1 + ticks):
        await asyncio.sleep(0)
    for name in ("exec a", "exec b"):
        tasks[name].cancel()
    for record in (first, second):
        await bench.ended(record)
        assert record.state.is_final
        assert record.exit_code is None
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(tasks["exec a"], tasks["exec b"])
    endings = [line for line in bench.transcript.lines if line[0] in ("lost", "rejected")]
    assert sorted(name for _, name in endings) == ["a", "b"]
    bench.assert_empty()
    await bench.settle()
    assert bench.host.running() == [], "what nobody follows is stopped"


async def test_drain_ends_all_and_takes_nothing_new(bench: Bench) -> None:
    running, queued = bench.submit("a"), bench.submit("b")
    await bench.settle()
    bench.execs.drain("the gateway is shutting down")
    await bench.execs.close()
    assert (running.state, queued.state) == (ExecState.CANCELLED, ExecState.CANCELLED)
    assert bench.host.stops == [("a", 5)]
    assert bench.host.forgotten == ["a"], "nobody can ask for its output any more"
    with pytest.raises(Refusal) as refused:
        bench.submit("c")
    assert refused.value.status == 503
    bench.assert_empty()


async def test_leaving_lets_run_what_runs(bench: Bench) -> None:
    running, queued = bench.submit("a"), bench.submit("b")
    await bench.settle()
    waiter = asyncio.get_running_loop().create_task(bench.execs.wait_ended(running, 60))
    await bench.settle()
    bench.execs.leave("the gateway is shutting down")
    await asyncio.wait_for(waiter, 20)
    await bench.execs.close()
    assert (running.state, queued.state) == (ExecState.RUNNING, ExecState.CANCELLED)
    assert (bench.host.running(), bench.host.stops) == (["a"], [])
    assert [line for line in bench.transcript.lines if line[1] == "a"] == [("queued", "a"), ("started", "a")]
    bench.hosts.get("here").end("a")
    bench.execs._active.clear()


async def test_what_is_forgotten_stays_taken_for_as_long_as_its_key_is_known(open_bench: OpenBench) -> None:
    async with open_bench(max_execs=0, idempotency_ttl_s=7 * 86400.0) as bench:
        for name, digest in (("with", "d"), ("without", None)):
            record = bench.submit(name, body_digest=digest)
            await bench.settle()
            bench.host.finish(name)
            await bench.ended(record)
        await bench.settle()
        assert bench.host.taken_s["with"] == 7 * 86400.0
        assert 0 < bench.host.taken_s["without"] < 86400.0


@pytest.mark.parametrize("is_started", [True, False])
async def test_leaving_lets_go_who_waits(bench: Bench, is_started: bool) -> None:
    """Output that is not there, the next step, input of one that starts: the next gateway has them."""
    if not is_started:
        bench.host.is_slow = asyncio.Event()
    record = bench.submit("a")
    await bench.settle()
    assert record.state is (ExecState.RUNNING if is_started else ExecState.STARTING)
    execs, loop = bench.execs, asyncio.get_running_loop()
    reading = loop.create_task(execs.read(record, StreamName.STDOUT, 0, 10, 600))
    stepping = loop.create_task(execs.wait_step(record, record.steps, 600))
    await bench.settle()
    execs.leave("the gateway is shutting down")
    assert await asyncio.wait_for(reading, 20) == Chunk(b"", 0, False, 0, 0)
    await asyncio.wait_for(stepping, 20)
    async with asyncio.timeout(20):
        watching = loop.create_task(until_left(record))
        while not watching.done():
            await execs.wait_step(record, record.steps, 600)
            await execs.read(record, StreamName.STDOUT, 0, 10, 600)
    if not is_started:
        with pytest.raises(Refusal, match="not started"):
            await execs.write_stdin(record, b"x", 0, is_eof=True)
    await execs.close()
    assert not bench.host.stops
    bench.hosts.get("here").end("a")
    bench.execs._active.clear()


async def test_finished_ones_are_forgotten_by_age_and_by_number(open_bench: OpenBench) -> None:
    async with open_bench(max_execs=2, exec_ttl_s=10) as bench:
        for name in "abc":
            record = bench.submit(name)
            await bench.settle()
            bench.host.finish(name)
            await bench.ended(record)
        assert [bench.execs.find(name) is not None for name in "abc"] == [False, True, True]
        bench.now += 11
        bench.execs.forget_expired()
        assert [bench.execs.find(name) is not None for name in "abc"] == [False, False, False]
        await bench.settle()
        assert bench.host.forgotten == ["a", "b", "c"]


async def test_other_tenants_see_nothing(bench: Bench) -> None:
    record = bench.submit("a")
    assert await bench.execs.get("t", "a") is record
    for tenant, name in [("other", "a"), ("t", "b")]:
        with pytest.raises(Refusal) as refused:
            await bench.execs.get(tenant, name)
        assert refused.value.status == 404


async def test_draining_host_starts_nothing_new(bench: Bench) -> None:
    first, second = bench.submit("a"), bench.submit("b")
    await bench.settle()
    bench.hosts.drain("here", is_draining=True)
    with pytest.raises(Refusal) as refused:
        bench.submit("c")
    assert (refused.value.status, refused.value.code) == (503, "host_draining")
    bench.host.finish("a")
    await bench.ended(first)
    await bench.settle()
    assert second.state is ExecState.QUEUED
    bench.hosts.drain("here", is_draining=False)
    await bench.settle()
    assert second.state is ExecState.RUNNING


async def test_gone_host_starts_nothing_until_it_is_back(bench: Bench) -> None:
    host = bench.hosts.get("here")
    host.lost()
    record = bench.submit("a")
    await bench.settle()
    assert record.state is ExecState.QUEUED
    host.came_back()
    await bench.settle()
    assert record.state is ExecState.RUNNING


async def test_heads_are_answered_from_memory_and_read_again_when_old(open_bench: OpenBench) -> None:
    async with open_bench(head_cache_bytes=4, inline_output_bytes=4) as bench:
        for name in "ab":
            record = bench.submit(name)
            await bench.settle()
            bench.host.write(name, b"outfull")
            bench.host.finish(name)
            await bench.ended(record)
        bench.host.calls.clear()
        old, young = (bench.execs.find(name) for name in "ab")
        assert old is not None
        assert young is not None
        for record in (young, old):
            stdout = (await bench.execs.status(record)).stdout
            assert (stdout.text, stdout.kept_bytes, stdout.next_offset) == ("outf", 7, 4)
        assert bench.host.calls == ["read"]
        bench.host.lose()
        assert (await bench.execs.status(old)).stdout.text == "outf"
        status = await bench.execs.status(young)
        assert (status.stdout.text, status.stdout.kept_bytes, status.exit_code) == (None, 7, 0)


async def test_output_by_offset_while_it_runs_and_after(bench: Bench) -> None:
    record = bench.submit("a")
    read = bench.execs.read
    early = asyncio.get_running_loop().create_task(read(record, StreamName.STDOUT, 0, 100, 20))
    await bench.settle()
    bench.host.write("a", b"one")
    assert (await early).data == b"one"
    chunk = await read(record, StreamName.STDOUT, 1, 1, 0)
    assert (chunk.data, chunk.next_offset, chunk.is_eof) == (b"n", 2, False)
    assert (await bench.execs.status(record)).stdout.total_bytes == 3
    last = asyncio.get_running_loop().create_task(read(record, StreamName.STDOUT, 3, 100, 20))
    await bench.settle()
    bench.host.finish("a")
    assert ((await last).data, (await last).is_eof) == (b"", True)
    await bench.ended(record)
    chunk = await read(record, StreamName.STDOUT, 1, 100, 0)
    assert (chunk.data, chunk.is_eof) == (b"ne", True)


async def test_reading_what_never_started(bench: Bench) -> None:
    first, queued = bench.submit("a"), bench.submit("b", queue_timeout_s=0.05)
    chunk = await bench.execs.read(queued, StreamName.STDOUT, 0, 100, 0)
    assert (chunk.data, chunk.is_eof) == (b"", False)
    chunk = await bench.execs.read(queued, StreamName.STDOUT, 0, 100, 20)
    assert (chunk.data, chunk.is_eof) == (b"", True)
    assert queued.state is ExecState.REJECTED
    assert first.state is ExecState.RUNNING


async def test_output_that_is_forgotten_or_out_of_reach_is_said(open_bench: OpenBench) -> None:
    async with open_bench(head_cache_bytes=0) as bench:
        record = bench.submit("a")
        await bench.settle()
        bench.host.write("a", b"one")
        bench.host.finish("a")
        await bench.ended(record)
        bench.host.lose()
        with pytest.raises(Refusal) as refused:
            await bench.execs.read(record, StreamName.STDOUT, 0, 100, 0)
        assert (refused.value.status, refused.value.code) == (503, "host_lost")
        bench.host.come_back()
        await bench.host.forget("a", 60.0)
        with pytest.raises(Refusal) as refused:
            await bench.execs.read(record, StreamName.STDOUT, 0, 100, 0)
        assert (refused.value.status, refused.value.code) == (410, "output_forgotten")


async def test_input_signals_and_sizes_pass_through(bench: Bench) -> None:
    record = bench.submit("a")
    assert await bench.execs.write_stdin(record, b"abc", 0, is_eof=False) == 3
    assert await bench.execs.write_stdin(record, b"bcd", 1, is_eof=True) == 4
    with pytest.raises(Refusal) as refused:
        await bench.execs.write_stdin(record, b"z", 9, is_eof=False)
    assert (refused.value.status, refused.value.code) == (409, "stdin_gap")
    assert refused.value.message == "offset: must not lie behind 4"
    assert await bench.execs.signal(record, "SIGINT", Scope.TREE)
    await bench.execs.resize(record, TerminalSize(80, 24))
    one = bench.host.execs["a"]
    assert (bytes(one.stdin), one.signals, one.sizes) == (
        b"abcd",
        [("SIGINT", "tree")],
        [TerminalSize(80, 24)],
    )
    bench.host.finish("a")
    await bench.ended(record)
    assert not await bench.execs.signal(record, "SIGINT", Scope.GROUP)
    with pytest.raises(Refusal) as refused:
        await bench.execs.write_stdin(record, b"", 4, is_eof=True)
    assert (refused.value.status, refused.value.code) == (409, "exec_over")


async def test_long_input_comes_in_pieces(bench: Bench) -> None:
    data = bytes(range(256)) * 10_000
    record = bench.submit("a", stdin=data)
    await bench.settle()
    one = bench.host.execs["a"]
    assert bytes(one.stdin) == data
    assert one.order.keeps_stdin
    bench.host.finish("a")
    await bench.ended(record)


async def test_steps_are_waited_for(bench: Bench) -> None:
    bench.submit("a")
    record = bench.submit("b")
    await bench.settle()
    await bench.execs.wait_step(record, 0, 0.01)
    assert record.steps == 0
    waiter = asyncio.get_running_loop().create_task(bench.execs.wait_step(record, 0, 20))
    bench.host.finish("a")
    await waiter
    assert record.state is not ExecState.QUEUED
    await bench.settle()
    bench.host.finish("b")
    await bench.execs.wait_step(record, record.steps, 20)
    assert record.state is ExecState.EXITED


async def test_counts_of_streams_are_the_host_s(bench: Bench) -> None:
    record = bench.submit("a")
    await bench.settle()
    bench.host.write("a", b"x" * 50)
    bench.host.write("a", b"e", StreamName.STDERR)
    bench.host.finish("a")
    await bench.ended(record)
    assert (record.stdout, record.stderr) == (StreamCount(50, 10), StreamCount(1, 1))
    assert (await bench.execs.status(record)).stdout.truncated
