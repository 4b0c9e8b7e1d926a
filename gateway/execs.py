"""Walks commands through their states: queued, starting, running, and one of five endings.

Owns the table of commands and the order of steps. It must not know HTTP or how a process is made:
``slots`` says when, a ``Runner`` runs, ``Listener`` s are told. Each command lives in a task of its
own, so nothing that a client does, leaving included, ends it; only ``cancel``, its timeout and
shutdown do.
"""

import asyncio
import logging
import math
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.errors import Refusal, draining
from gateway.exec_record import Exec, exec_status
from gateway.limits import Limits
from gateway.protocol import EXIT_CANCELLED, ExecState, ExecStatus
from gateway.runner import EndedBy, Exit, Runner, RunOrder, StartError
from gateway.slots import Offer, SlotQueue
from gateway.spool import Spool
from gateway.tasks import Tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, checked and complete."""

    tenant: str
    session: str
    argv: tuple[str, ...]
    digest: str
    """Hex SHA-256 of the command text."""
    program: str | None
    """Name of what it runs; None when that is not plain to see."""
    cwd: Callable[[], Path]
    """Resolved when it starts: the directories may have changed while it was queued. Raises StartError."""
    env: dict[str, str]
    stdin: bytes
    timeout_s: float
    queue_timeout_s: float
    kill_grace_s: float
    cpu: float
    max_output_bytes: int
    merges_output: bool
    labels: dict[str, str]


class Listener(Protocol):
    """Told of each step once, in order, on the event loop. Must neither block nor raise."""

    def queued(self, record: Exec) -> None: ...
    def started(self, record: Exec) -> None: ...
    def finished(self, record: Exec) -> None: ...


class Execs:
    def __init__(
        self,
        *,
        limits: Limits,
        slots: SlotQueue,
        runner: Runner,
        host: str,
        directory: Path,
        listeners: Sequence[Listener],
        clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._slots = slots
        self._runner = runner
        self._host = host
        self._directory = directory
        self._listeners = listeners
        self._clock = clock
        self._tasks = Tasks()
        self._active: dict[str, Exec] = {}
        self._finished: OrderedDict[str, Exec] = OrderedDict()
        """Oldest ending first."""
        self._spool_bytes = 0
        self._drain_reason: str | None = None

    def __repr__(self) -> str:
        return f"<Execs [{len(self._active)} active, {len(self._finished)} finished] {self._slots!r}>"

    @property
    def spool_bytes(self) -> int:
        return self._spool_bytes

    def submit(self, command: Command, exec_id: str) -> Exec:
        """Queue a command, or start it if there is room. Raises Refusal, and then it will never run."""
        if self._drain_reason is not None:
            raise draining()
        now = self._clock()
        offer = self._slots.offer(exec_id, (command.tenant, command.session), command.cpu, now)
        if offer is Offer.FULL:
            raise Refusal(
                429,
                "queue_full",
                f"{self._slots.queued} commands are waiting for a CPU slot; this one was not run",
                retry_after_s=self._slots.retry_after_s(),
            )
        record = self._record(command, exec_id, now)
        self._active[exec_id] = record
        for listener in self._listeners:
            listener.queued(record)
        if offer is Offer.GRANTED:
            record.granted.set_result(True)
        self._tasks.spawn(f"exec {exec_id}", self._live(record, command))
        return record

    def find(self, tenant: str, exec_id: str) -> Exec | None:
        record = self._active.get(exec_id) or self._finished.get(exec_id)
        return record if record is not None and record.tenant == tenant else None

    def status(self, record: Exec) -> ExecStatus:
        position = self._slots.position(record.id)
        return exec_status(record, self._clock(), self._host, position, self._limits.inline_output_bytes)

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

    async def wait_ended(self, record: Exec, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await record.ended.wait()
        except TimeoutError:
            pass

    def drain(self, reason: str) -> None:
        """Start nothing new and end what there is."""
        self._drain_reason = reason
        for record in list(self._active.values()):
            self.cancel(record, reason, self._limits.drain_grace_s)

    async def close(self) -> None:
        self.drain("the gateway shut down")
        await self._tasks.join()

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
        return count > self._limits.max_execs or self._spool_bytes > self._limits.max_spool_bytes

    def _forget(self, record: Exec) -> None:
        del self._finished[record.id]
        self._spool_bytes -= record.spool_bytes
        shutil.rmtree(record.stdout.path.parent, ignore_errors=True)

    def _record(self, command: Command, exec_id: str, now: float) -> Exec:
        loop = asyncio.get_running_loop()
        directory = self._directory / exec_id
        return Exec(
            id=exec_id,
            tenant=command.tenant,
            session=command.session,
            cpu=command.cpu,
            kill_grace_s=command.kill_grace_s,
            labels=command.labels,
            command_digest=command.digest,
            program=command.program,
            stdout=Spool(directory / "stdout", command.max_output_bytes),
            stderr=Spool(directory / "stderr", command.max_output_bytes),
            queued_at_s=now,
            granted=loop.create_future(),
            stop=loop.create_future(),
        )

    async def _live(self, record: Exec, command: Command) -> None:
        try:
            if await self._is_admitted(record, command.queue_timeout_s):
                record.step(ExecState.STARTING, self._clock())
                await self._run(record, command)
        except Exception:
            log.exception("exec %s is lost", record.id)
        finally:
            self._settle(record)

    async def _is_admitted(self, record: Exec, queue_timeout_s: float) -> bool:
        await asyncio.wait({record.granted}, timeout=queue_timeout_s)
        # Nothing is awaited between this look and taking or leaving the slots, so no grant crosses it.
        if not record.granted.done():
            record.granted.set_result(False)
            record.reason = f"no CPU slot within {queue_timeout_s:g} s"
            record.step(ExecState.REJECTED, self._clock())
        elif record.stop.done():
            record.exit_code = EXIT_CANCELLED
            record.step(ExecState.CANCELLED, self._clock())
        return not record.state.is_final

    async def _run(self, record: Exec, command: Command) -> None:
        try:
            order = self._order(record, command)
            exit_ = await self._runner.run(order, lambda: self._started(record), record.stop)
        except StartError as error:
            self._not_started(record, error)
        else:
            record.end(exit_, self._clock())

    def _order(self, record: Exec, command: Command) -> RunOrder:
        try:
            record.stdout.path.parent.mkdir(mode=0o700)
        except OSError as error:
            raise StartError(f"no directory for its output: {error.strerror}") from error
        return RunOrder(
            exec_id=record.id,
            argv=command.argv,
            cwd=str(command.cwd()),
            env=command.env,
            stdin=command.stdin,
            timeout_s=command.timeout_s,
            kill_grace_s=command.kill_grace_s,
            stdout=record.stdout,
            stderr=None if command.merges_output else record.stderr,
        )

    def _started(self, record: Exec) -> None:
        record.step(ExecState.RUNNING, self._clock())
        for listener in self._listeners:
            listener.started(record)

    def _not_started(self, record: Exec, error: StartError) -> None:
        record.reason = error.reason
        record.exit_code = error.exit_code
        state = ExecState.REJECTED if error.exit_code is None else ExecState.EXITED
        record.step(state, self._clock())

    def _settle(self, record: Exec) -> None:
        """The one ending, whatever happened: slots back, spools complete, waiters and listeners told."""
        now = self._clock()
        if not record.state.is_final:
            if record.state is ExecState.QUEUED:
                record.step(ExecState.REJECTED, now)
            else:
                record.end(Exit(EndedBy.NOBODY), now)
        del self._active[record.id]
        self._finished[record.id] = record
        for spool in (record.stdout, record.stderr):
            spool.complete()
        self._spool_bytes += record.spool_bytes
        for granted_id in self._slots.end(record.id, now):
            granted = self._active[granted_id].granted
            if not granted.done():
                granted.set_result(True)
        record.ended.set()
        for listener in self._listeners:
            listener.finished(record)
        self.forget_expired()
