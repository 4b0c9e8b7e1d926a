"""The commands of all tenants: queued, starting, running, and their six endings.

Owns the table of commands, their one settlement and who is told of it. It must not know HTTP or how a process
is made: the queue of a host says when, ``exec_walk`` walks each through its states, ``Listener`` s are told.
Each command lives in a task of its own, so nothing that a client does, leaving included, ends it; only
``cancel``, its timeout and shutdown do.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.admission import Ask, Offer
from gateway.command import Command
from gateway.ended_execs import EndedExecs
from gateway.errands import Errands, long_input_bytes
from gateway.errors import Refusal, adopting, draining, exec_not_found, queue_full
from gateway.exec_record import Exec, exec_status
from gateway.exec_streams import ExecStreams
from gateway.exec_walk import ExecWalk
from gateway.heads import Heads
from gateway.host import Chunk, HostExec, TerminalSize
from gateway.hosts import Host, Hosts
from gateway.limits import Limits
from gateway.listeners import Listener
from gateway.notes import EndedExec, ExecNote, new_exec, read_bytes, restored
from gateway.protocol import ExecState, ExecStatus, Scope, StreamName
from gateway.store import Store, StoreUnavailable
from gateway.tasks import Tasks

log = logging.getLogger(__name__)


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
        self._errands = Errands(hosts, limits.idempotency_ttl_s)
        self._walk = ExecWalk(
            heads=self._heads,
            inline_bytes=limits.inline_output_bytes,
            errands=self._errands,
            on_started=self._started,
            clock=clock,
        )
        self._tasks = Tasks()
        self._active: dict[str, Exec] = {}
        self._ended = EndedExecs(limits, self._forgotten)
        self._drain_reason: str | None = None
        self._is_leaving = False

    def __repr__(self) -> str:
        return f"<Execs [{len(self._active)} active, {len(self._ended)} ended]>"

    @property
    def kept_bytes(self) -> int:
        """Output of finished commands on their hosts."""
        return self._ended.kept_bytes

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
        self._tasks.spawn(
            f"exec {record.id}", self._live(record, host, self._walk.run(record, command, host))
        )
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
        return self._active.get(exec_id) or self._ended.find(exec_id)

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
        self._tasks.spawn(
            f"exec {record.id}", self._live(record, host, self._walk.follow(record, seen, host))
        )

    def keep(self, record: Exec) -> None:
        """One that is over; of those from before this gateway nobody is told."""
        self._ended.add(record)

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
            self._errands.stop(record, record.stop.result())

    async def wait_ended(self, record: Exec, timeout_s: float) -> None:
        if record.ended.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await record.ended.wait()

    async def wait_step(self, record: Exec, steps: int, timeout_s: float) -> None:
        """Returns when it has left more than ``steps`` states behind, or was left, or after the timeout:
        for events. ``position`` changes without a step."""
        if record.is_left:
            await asyncio.sleep(0)  # Who asks again and again must let others tell it so.
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
                record.leave()

    async def close(self) -> None:
        """After ``drain`` or ``leave``."""
        if not self._is_leaving:
            await self._tasks.join(self._limits.drain_grace_s + self._limits.drain_hosts_s)
        await self._tasks.close()
        if not self._is_leaving:
            self._forget_all()
        await self._errands.close(self._limits.drain_hosts_s)

    def forget_expired(self) -> None:
        self._ended.expire(self._clock(), len(self._active))

    def _forgotten(self, record: Exec) -> None:
        self._heads.drop(record.id)
        if record.started_at_s is not None:  # Also what its host refused has a directory there.
            self._errands.forget(record)

    def _forget_all(self) -> None:
        """Nobody will ask for them again, and the disks are the hosts'. Of one that is gone it stays."""
        for record in self._ended.all():
            if not self._hosts.get(record.host).is_gone:
                self._ended.forget(record)

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
            long_input_bytes=long_input_bytes(command.order),
        )
        return new_exec(command.order.exec_id, command.host, note, self._clock())

    def _started(self, record: Exec) -> None:
        for listener in self._listeners:
            listener.started(record)

    async def _live(self, record: Exec, host: Host, way: Coroutine[Any, Any, None]) -> None:
        try:
            await way
        except Exception:
            log.exception("exec %s is lost", record.id)
        finally:
            way.close()  # Of a task that was cancelled before its first step.
            self._settle(record, host)

    def _settle(self, record: Exec, host: Host) -> None:
        """The one ending, whatever happened: slots back, waiters and listeners told. Only of what runs on
        while we leave there is no ending."""
        if self._is_leaving and record.state in (ExecState.STARTING, ExecState.RUNNING):
            return
        if record.state is ExecState.QUEUED:
            self._walk.not_admitted(record)
        elif not record.state.is_final:
            record.lose("the gateway lost track of it", self._clock())
        del self._active[record.id]
        self.keep(record)
        host.end(record.id)
        if record.state is ExecState.LOST:
            self._errands.stop(record, 0.0)
        record.ended.set()
        for listener in self._listeners:
            listener.finished(record)
        self.forget_expired()


def _host_draining(host: Host) -> Refusal:
    message = f"host {host.name!r} is draining and starts nothing new"
    return Refusal(503, "host_draining", message, retry_after_s=30)
