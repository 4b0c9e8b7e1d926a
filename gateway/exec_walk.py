"""The way of one command: it waits for its slots, is started, and is waited for until it is over.

Owns the order of steps and what a host's answers make of a command. It must not know the table of commands,
and gives no slots back: ``execs`` settles whatever became of it here.

One start and one wait, whatever its length: its deadline is its host's, and the end is told at once. A host
that cannot be asked makes it ``lost``: nobody knows how it ended, and its exit code is None.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.command import Command
from gateway.errands import Errands, first_piece
from gateway.exec_record import Exec
from gateway.heads import Heads
from gateway.host import HostExec, HostFault, HostLost, StartError
from gateway.host_agent.wire import Fault
from gateway.hosts import Host
from gateway.notes import as_record, note_of
from gateway.protocol import EXIT_CANCELLED, ExecState

_WAIT_S = 60.0
"""One wait at a host; then another. It bounds what a host must remember of us."""


class ExecWalk:
    def __init__(
        self,
        *,
        heads: Heads,
        inline_bytes: int,
        errands: Errands,
        on_started: Callable[[Exec], None],
        clock: Callable[[], float],
    ) -> None:
        self._heads = heads
        self._inline_bytes = inline_bytes
        self._errands = errands
        self._on_started = on_started
        self._clock = clock

    async def run(self, record: Exec, command: Command, host: Host) -> None:
        if await self._is_admitted(record, command.queue_timeout_s):
            await self._start(record, command, host)

    async def follow(self, record: Exec, seen: HostExec, host: Host) -> None:
        """One that runs there, to its end."""
        if record.stop.done():  # It was cancelled while it was started.
            self._errands.stop(record, record.stop.result())
        try:
            while seen.ended_by is None:
                seen = await host.client.wait(record.id, _WAIT_S, self._inline_bytes)
                record.update(seen)
        except HostLost:
            record.lose("its host was lost while it ran", self._clock())
        except HostFault as fault:
            record.lose(f"its host does not know it any more: {fault.message}", self._clock())
        else:
            if seen.head is not None:
                self._heads.put(record.id, seen.head)
            record.end(seen, self._clock())

    def not_admitted(self, record: Exec) -> None:
        if record.stop.done():
            record.exit_code = EXIT_CANCELLED
        record.step(ExecState.CANCELLED if record.stop.done() else ExecState.REJECTED, self._clock())

    async def _is_admitted(self, record: Exec, queue_timeout_s: float) -> bool:
        if not record.granted.done():
            await asyncio.wait({record.granted}, timeout=queue_timeout_s)
        # Nothing is awaited between this look and taking or leaving the slots, so no grant crosses it.
        if not record.granted.done():
            record.granted.set_result(False)
            record.reason = f"no CPU slot within {queue_timeout_s:g} s"
            self.not_admitted(record)
        elif record.stop.done():
            self.not_admitted(record)
        return not record.state.is_final

    async def _start(self, record: Exec, command: Command, host: Host) -> None:
        now = self._clock()
        record.step(ExecState.STARTING, now)
        order, first = command.order, first_piece(command.order)
        is_split = record.long_input_bytes is not None
        note = as_record(note_of(record, now))
        try:
            seen = await host.client.start(
                replace(order, stdin=first, keeps_stdin=order.keeps_stdin or is_split, record=note)
            )
        except StartError as error:
            self._not_started(record, error.reason, error.exit_code)
        except HostLost:
            record.lose("its host was lost while it was started", self._clock())
        except HostFault as fault:
            self._refused(record, fault)
        else:
            record.step(ExecState.RUNNING, self._clock())
            self._on_started(record)
            if is_split:
                self._errands.feed(record, order)
            await self.follow(record, seen, host)

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
