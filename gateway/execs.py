"""Walks commands through their states: queued, starting, running, and one of six endings.

Owns the table of commands and the order of steps. It must not know HTTP or how a process is made: the queue of a
host says when, the host runs, ``Listener`` s are told. Each command lives in a task of its own, so nothing that a
client does, leaving included, ends it; only ``cancel``, its timeout (which its host keeps) and shutdown do.

A host that cannot be asked makes a command ``lost``: nobody knows how it ended, and its exit code is None. That
answer stays. What still runs there when the host is back is stopped (see ``adoption``).
"""

import asyncio
import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.admission import Offer
from gateway.command import Command
from gateway.errors import Refusal, adopting, draining, exec_not_found
from gateway.exec_record import Exec, exec_status
from gateway.exec_streams import ExecStreams
from gateway.heads import Heads
from gateway.host import Chunk, HostExec, HostFault, HostLost, StartError, TerminalSize
from gateway.host_agent.wire import Fault
from gateway.hosts import Host, Hosts
from gateway.limits import Limits
from gateway.listeners import Listener
from gateway.notes import ExecNote, as_record, new_exec, note_of
from gateway.protocol import EXIT_CANCELLED, ExecState, ExecStatus, Scope, StreamName
from gateway.tasks import Tasks

log = logging.getLogger(__name__)

_WAIT_S = 60.0
"""One wait at a host. Its end is told at once; this bounds what a host must remember of us."""
_CLOSING_S = 10.0
"""Beyond the grace of a command: what has not ended by then is on a host that does not answer."""


class Execs:
    def __init__(
        self, *, limits: Limits, hosts: Hosts, listeners: Sequence[Listener], clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._hosts = hosts
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

    def submit(self, command: Command) -> Exec:
        """Queue a command, or start it if there is room. Raises Refusal, and then it will never run."""
        if self._drain_reason is not None:
            raise draining()
        host = self._hosts.get(command.host)
        if host.is_draining:
            raise _host_draining(host)
        record = self._queued(command)
        if host.offer(command.ask(), record.granted) is Offer.FULL:
            raise _queue_full(host)
        self._active[record.id] = record
        for listener in self._listeners:
            listener.queued(record)
        self._tasks.spawn(f"exec {record.id}", self._live(record, command, host))
        return record

    def find(self, exec_id: str) -> Exec | None:
        return self._active.get(exec_id) or self._finished.get(exec_id)

    def adopt(self, record: Exec, seen: HostExec) -> None:
        """Go on with a command that an earlier gateway started, from what its host says of it."""
        host = self._hosts.get(record.host)
        self._active[record.id] = record
        self._tasks.spawn(f"exec {record.id}", self._resume(record, seen, host))

    def keep(self, record: Exec) -> None:
        """One that was over before this gateway began."""
        self._finished[record.id] = record
        self._kept_bytes += record.kept_bytes

    async def status(self, record: Exec) -> ExecStatus:
        """With the beginning of its output once it is over."""
        if record.state.is_final:
            return exec_status(record, self._clock(), None, await self._streams.head(record))
        await self._streams.glance(record)
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

    async def read(
        self, record: Exec, stream: StreamName, offset: int, limit: int, wait_s: float
    ) -> Chunk:
        """From any offset, at any time: of one that waits for its start, too. ``is_eof`` once nothing can
        follow. Raises Refusal: 410 ``output_forgotten``, 503 ``host_lost``."""
        return await self._streams.read(record, stream, offset, limit, wait_s)

    async def write_stdin(self, record: Exec, data: bytes, offset: int, *, is_eof: bool) -> int:
        """Next offset. Waits for the start of a queued one. Raises Refusal: 409 ``stdin_gap`` (message has the
        next offset), 409 ``exec_over``, 409 ``not_started``, 503 ``host_lost``."""
        return await self._streams.write_stdin(record, data, offset, is_eof=is_eof)

    async def signal(self, record: Exec, name: str, scope: Scope) -> bool:
        """False when it is over. Raises Refusal: 409 ``not_started``, 503 ``host_lost``."""
        return await self._streams.signal(record, name, scope)

    async def resize(self, record: Exec, size: TerminalSize) -> None:
        """The same."""
        await self._streams.resize(record, size)
