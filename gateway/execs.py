"""Walks commands through their states: queued, starting, running, and one of six endings.

Owns the table of commands and the order of steps. It must not know HTTP or how a process is made: the queue
of a host says when, the host runs, ``Listener`` s are told. Each command lives in a task of its own, so
nothing that a client does, leaving included, ends it; only ``cancel``, its timeout (which its host keeps) and
shutdown do.

A host that cannot be asked makes a command ``lost``: nobody knows how it ended, and its exit code is None.
That answer stays. What still runs there when the host is back is stopped (see ``adoption``).
"""

import asyncio
import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.admission import Ask, Offer
from gateway.command import Command
from gateway.errors import Refusal, adopting, draining, exec_not_found, queue_full
from gateway.exec_record import Exec, exec_status
from gateway.exec_streams import ExecStreams
from gateway.heads import Heads
from gateway.host import Chunk, HostExec, HostFault, HostLost, RunOrder, StartError, TerminalSize
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault
from gateway.hosts import Host, Hosts
from gateway.limits import Limits
from gateway.listeners import Listener
from gateway.notes import EndedExec, ExecNote, as_record, new_exec, note_of, read_bytes, restored
from gateway.protocol import EXIT_CANCELLED, ExecState, ExecStatus, Scope, StreamName
from gateway.store import Store, StoreUnavailable
from gateway.tasks import Tasks

log = logging.getLogger(__name__)

_WAIT_S = 60.0
"""One wait at a host. Its end is told at once; this bounds what a host must remember of us."""
_CLOSING_S = 10.0
"""Beyond the grace of a command: what has not ended by then is on a host that does not answer."""


class Execs:
    def __init__(
        self,
        *,
        limits: Limits,
        hosts: Hosts,
        store: Store,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._hosts = hosts
        self._store = store
        self._listeners = listeners
        self._clock = clock
        self._heads = Heads(limits.head_cache_bytes)
        self._streams = ExecStreams(hosts, self._heads, limits.inline_output_bytes)
        self._tasks = Tasks()
        self._errands = Tasks()
        """What hosts are told and nobody waits for."""
        self._active: dict[str, Exec] = {}
        self._finished: OrderedDict[str, Exec] = OrderedDict()
        """Oldest ending first."""
        self._kept_bytes = 0
        self._drain_reason: str | None = None
        self._is_leaving = False

    def __repr__(self) -> str:
        return f"<Execs [{len(self._active)} active, {len(self._finished)} finished]>"

    @property
    def kept_bytes(self) -> int:
        """Output of finished commands on their hosts."""
        return self._kept_bytes

    @property
    def head_bytes(self) -> int:
        """Beginnings of output in memory."""
        return self._heads.bytes

    def submit(self, command: Command) -> Exec:
        """Queue a command, or start it if there is room. Raises Refusal, and then it will never run."""
        if self._drain_reason is not None:
            raise draining()
        host = self._hosts.get(command.host)
        if host.is_draining:
            raise _host_draining(host)
        record = self._queued(command)
        if host.offer(command.ask(), record.granted) is Offer.FULL:
            raise queue_full(host.queue.queued, host.retry_after_s())
        self._active[record.id] = record
        for listener in self._listeners:
            listener.queued(record)
        self._tasks.spawn(f"exec {record.id}", self._live(record, command, host))
        return record

    async def get(self, tenant: str, exec_id: str) -> Exec:
        """Also one that only the store remembers. Raises Refusal 404, or 503 ``adopting``."""
        record = await self.recall(exec_id)
        if record is not None and record.tenant == tenant:
            return record
        raise exec_not_found(exec_id) if self._hosts.are_asked else adopting()

    async def recall(self, exec_id: str) -> Exec | None:
        """Of any tenant, from here or from the store; what the store has of it is over."""
        if (record := self.find(exec_id)) is not None:
            return record
        with contextlib.suppress(StoreUnavailable):
            found = await self._store.find_exec(exec_id)
            ended = None if found is None else read_bytes(found, EndedExec)
            if ended is not None and self.find(exec_id) is None and self._hosts.find(ended.host) is not None:
                self.keep(restored(ended, self._clock()))
        return self.find(exec_id)

    def find(self, exec_id: str) -> Exec | None:
        return self._active.get(exec_id) or self._finished.get(exec_id)

    def adopt(self, record: Exec, seen: HostExec) -> None:
        """Go on with a command that an earlier gateway started, from what its host says of it."""
        if seen.ended_by is not None:
            record.end(seen, self._clock())
            record.ended.set()
            self.keep(record)
            return
        host = self._hosts.get(record.host)
        host.adopt(
            Ask(record.id, (record.tenant, record.session), cpu=record.cpu, memory_mb=record.memory_mb)
        )
        self._active[record.id] = record
        self._tasks.spawn(f"exec {record.id}", self._resume(record, seen, host))

    def keep(self, record: Exec) -> None:
        """One that is over; of those from before this gateway nobody is told."""
        self._finished[record.id] = record
        self._kept_bytes += record.kept_bytes

    async def status(self, record: Exec) -> ExecStatus:
        """With the beginning of its output once it is over."""
        await self._streams.glance(record)
        if record.state.is_final:  # Perhaps only since that glance.
            return exec_status(record, self._clock(), None, await self._streams.head(record))
        return exec_status(record, self._clock(), self.position(record), {})

    def position(self, record: Exec) -> int | None:
        """How many commands start before it; None when it is not queued."""
        return self._hosts.get(record.host).queue.position(record.id)

    def active_in(self, tenant: str, session: str) -> list[Exec]:
        return [e for e in self._active.values() if (e.tenant, e.session) == (tenant, session)]

    def active_sessions(self) -> set[tuple[str, str]]:
        """Tenant and session of everything queued, starting and running."""
        return {(e.tenant, e.session) for e in self._active.values()}

    def cancel(self, record: Exec, reason: str, max_grace_s: float = math.inf) -> None:
        """Ask it to end; once it is asked or over, nothing more happens."""
        if record.state.is_final or record.stop.done():
            return
        record.reason = reason
        record.stop.set_result(min(record.kill_grace_s, max_grace_s))
        if not record.granted.done():
            record.granted.set_result(False)
        elif record.state is ExecState.RUNNING:
            self._errands.spawn(f"stop {record.id}", self._stop(record, record.stop.result()))

    async def wait_ended(self, record: Exec, timeout_s: float) -> None:
        if record.ended.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await record.ended.wait()

    async def wait_step(self, record: Exec, steps: int, timeout_s: float) -> None:
        """Returns when it has left more than ``steps`` states behind, or after the timeout: for events.
        ``position`` changes without a step."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while record.steps <= steps and not record.ended.is_set():
                    await record.stepped.wait()

    async def read(self, record: Exec, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        """From any offset, at any time: of one that waits for its start, too. ``is_eof`` once nothing can
        follow. Raises Refusal: 410 ``output_forgotten``, 503 ``host_lost``."""
        return await self._streams.read(record, stream, offset, limit, wait_s)

    async def write_stdin(self, record: Exec, data: bytes, offset: int, *, is_eof: bool) -> int:
        """Next offset. Waits for the start of a queued one. Raises Refusal: 409 ``stdin_gap`` (message has
        the next offset), 409 ``exec_over``, 409 ``not_started``, 503 ``host_lost``."""
        return await self._streams.write_stdin(record, data, offset, is_eof=is_eof)

    async def signal(self, record: Exec, name: str, scope: Scope) -> bool:
        """False when it is over. Raises Refusal: 409 ``not_started``, 503 ``host_lost``."""
        return await self._streams.signal(record, name, scope)

    async def resize(self, record: Exec, size: TerminalSize) -> None:
        """The same."""
        await self._streams.resize(record, size)

    def drain(self, reason: str) -> None:
        """Start nothing new and end what there is."""
        self._drain_reason = reason
        for record in list(self._active.values()):
            self.cancel(record, reason, self._limits.drain_grace_s)

    def leave(self, reason: str) -> None:
        """Start nothing new and leave what runs to the next gateway; who waits for it is answered that it
        runs."""
        self._drain_reason, self._is_leaving = reason, True
        for record in list(self._active.values()):
            if record.state is ExecState.QUEUED:
                self.cancel(record, reason)
            else:
                record.ended.set()

    async def close(self) -> None:
        """After ``drain`` or ``leave``."""
        if not self._is_leaving:
            await self._tasks.join(self._limits.drain_grace_s + _CLOSING_S)
        await self._tasks.close()
        if not self._is_leaving:
            self._forget_all()
        await self._errands.join(_CLOSING_S)
        await self._errands.close()

    def forget_expired(self) -> None:
        oldest_s = self._clock() - self._limits.exec_ttl_s
        while self._finished:
            record = next(iter(self._finished.values()))
            assert record.ended_at_s is not None
            if record.ended_at_s > oldest_s and not self._has_too_many():
                return
            self._forget(record)

    def _has_too_many(self) -> bool:
        count = len(self._finished) + len(self._active)
        return count > self._limits.max_execs or self._kept_bytes > self._limits.max_spool_bytes

    def _forget_all(self) -> None:
        """Nobody will ask for them again, and the disks are the hosts'. Of one that is gone it stays."""
        for record in list(self._finished.values()):
            if not self._hosts.get(record.host).is_gone:
                self._forget(record)

    def _forget(self, record: Exec) -> None:
        del self._finished[record.id]
        self._kept_bytes -= record.kept_bytes
        self._heads.drop(record.id)
        if record.started_at_s is not None:  # Also what its host refused has a directory there.
            self._errands.spawn(f"forget {record.id}", self._forget_there(record))

    def _queued(self, command: Command) -> Exec:
        note = ExecNote(
            tenant=command.tenant,
            session=command.session,
            labels=command.labels,
            command_digest=command.command_digest,
            program=command.program,
            signature=command.signature,
            cpu=command.cpu,
            memory_mb=command.memory_mb,
            kill_grace_s=command.order.kill_grace_s,
            body_digest=command.body_digest,
        )
        return new_exec(command.order.exec_id, command.host, note, self._clock())

    async def _live(self, record: Exec, command: Command, host: Host) -> None:
        try:
            if await self._is_admitted(record, command.queue_timeout_s):
                await self._run(record, command, host)
        except Exception:
            log.exception("exec %s is lost", record.id)
        finally:
            self._settle(record, host)

    async def _resume(self, record: Exec, seen: HostExec, host: Host) -> None:
        try:
            await self._until_ended(record, seen, host)
        except Exception:
            log.exception("exec %s is lost", record.id)
        finally:
            self._settle(record, host)

    async def _is_admitted(self, record: Exec, queue_timeout_s: float) -> bool:
        if not record.granted.done():
            await asyncio.wait({record.granted}, timeout=queue_timeout_s)
        # Nothing is awaited between this look and taking or leaving the slots, so no grant crosses it.
        if not record.granted.done():
            record.granted.set_result(False)
            record.reason = f"no CPU slot within {queue_timeout_s:g} s"
            record.step(ExecState.REJECTED, self._clock())
        elif record.stop.done():
            self._not_admitted(record)
        return not record.state.is_final

    def _not_admitted(self, record: Exec) -> None:
        if record.stop.done():
            record.exit_code = EXIT_CANCELLED
        record.step(ExecState.CANCELLED if record.stop.done() else ExecState.REJECTED, self._clock())

    async def _run(self, record: Exec, command: Command, host: Host) -> None:
        now = self._clock()
        record.step(ExecState.STARTING, now)
        note = as_record(note_of(record, now))
        try:
            order, rest = _first_piece(replace(command.order, record=note))
            seen = await host.client.start(order)
        except StartError as error:
            self._not_started(record, error.reason, error.exit_code)
        except HostLost:
            record.lose("its host was lost while it was started", self._clock())
        except HostFault as fault:
            self._refused(record, fault)
        else:
            self._started(record)
            if rest:
                self._errands.spawn(f"feed {record.id}", self._feed(record, rest, command.order))
            await self._until_ended(record, seen, host)

    async def _until_ended(self, record: Exec, seen: HostExec, host: Host) -> None:
        if record.stop.done():  # It was cancelled while it was started.
            self._errands.spawn(f"stop {record.id}", self._stop(record, record.stop.result()))
        try:
            while seen.ended_by is None:
                seen = await host.client.wait(record.id, _WAIT_S, self._limits.inline_output_bytes)
                record.update(seen)
        except HostLost:
            record.lose("its host was lost while it ran", self._clock())
        except HostFault as fault:
            record.lose(f"its host does not know it any more: {fault.message}", self._clock())
        else:
            if seen.head is not None:
                self._heads.put(record.id, seen.head)
            record.end(seen, self._clock())

    def _started(self, record: Exec) -> None:
        record.step(ExecState.RUNNING, self._clock())
        for listener in self._listeners:
            listener.started(record)

    def _not_started(self, record: Exec, reason: str, exit_code: int | None = None) -> None:
        record.reason = reason
        record.exit_code = exit_code
        state = ExecState.REJECTED if exit_code is None else ExecState.EXITED
        record.step(state, self._clock())

    def _refused(self, record: Exec, fault: HostFault) -> None:
        """A host that says no has not started it. Of two faults that is not so sure."""
        match fault.code:
            case Fault.GONE:
                record.lose("it was run before, and how it ended is forgotten", self._clock())
            case Fault.INTERNAL:
                record.lose(f"its host failed while it was started: {fault.message}", self._clock())
            case _:
                self._not_started(record, fault.message)

    def _settle(self, record: Exec, host: Host) -> None:
        """The one ending, whatever happened: slots back, waiters and listeners told. Only of what runs on
        while we leave there is no ending."""
        if self._is_leaving and record.state in (ExecState.STARTING, ExecState.RUNNING):
            return
        now = self._clock()
        if record.state is ExecState.QUEUED:
            self._not_admitted(record)
        elif not record.state.is_final:
            record.lose("the gateway lost track of it", now)
        del self._active[record.id]
        self.keep(record)
        host.end(record.id)
        if record.state is ExecState.LOST:
            self._errands.spawn(f"stop {record.id}", self._stop(record, 0.0))
        record.ended.set()
        for listener in self._listeners:
            listener.finished(record)
        self.forget_expired()

    async def _feed(self, record: Exec, rest: bytes, order: RunOrder) -> None:
        """What did not fit beside the start. Pieces wait for the command to read, so a slow one costs one
        piece here."""
        client, offset = self._hosts.get(record.host).client, len(order.stdin) - len(rest)
        with contextlib.suppress(HostLost, HostFault):
            while offset < len(order.stdin):
                piece = order.stdin[offset : offset + MAX_PAYLOAD_BYTES]
                is_eof = offset + len(piece) == len(order.stdin) and not order.keeps_stdin
                offset = await client.write_stdin(record.id, piece, offset, is_eof=is_eof)

    async def _stop(self, record: Exec, grace_s: float) -> None:
        """A host that is lost stops nothing; its return is ``adoption``'s to notice."""
        with contextlib.suppress(HostLost, HostFault):
            await self._hosts.get(record.host).client.stop(record.id, grace_s)

    async def _forget_there(self, record: Exec) -> None:
        with contextlib.suppress(HostLost, HostFault):
            await self._hosts.get(record.host).client.forget(record.id)


def _first_piece(order: RunOrder) -> tuple[RunOrder, bytes]:
    """A start with as much input as may come with it, and the rest."""
    if len(order.stdin) <= MAX_PAYLOAD_BYTES:
        return order, b""
    first, rest = order.stdin[:MAX_PAYLOAD_BYTES], order.stdin[MAX_PAYLOAD_BYTES:]
    return replace(order, stdin=first, keeps_stdin=True), rest


def _host_draining(host: Host) -> Refusal:
    message = f"host {host.name!r} is draining and starts nothing new"
    return Refusal(503, "host_draining", message, retry_after_s=30)
