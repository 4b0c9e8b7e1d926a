"""The operations ``exec.*``: from frames to the commands of this host and back.

Owns the fields of these operations. Cancelling one has no effect on a command: nothing is awaited between the
first change and the last, or the command's own task does it.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from gateway.host_agent import exec_fields as read
from gateway.host_agent.books import LONGEST_TAKEN_S, TAKEN_S, Books
from gateway.host_agent.command import Command, EndedBy
from gateway.host_agent.commands import Commands
from gateway.host_agent.confines import Confines
from gateway.host_agent.containment import Containment, find_containment
from gateway.host_agent.exec_directory import ExecDirectories
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.launcher import Launcher, Workspaces, keep_descriptors, raise_open_files
from gateway.host_agent.operations import Caller, Operation, Operations, Refused
from gateway.host_agent.order import order_of, terminal_size
from gateway.host_agent.running import Running
from gateway.host_agent.shell_state import ShellStates
from gateway.host_agent.spool import Pump
from gateway.host_agent.terminal import resize
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault, Frame, Op

_LONGEST_WAIT_S = 600.0
_ROOM_WAIT_S = 10.0
"""For input that a command does not read: then the answer says how far it got."""
_LARGEST_PAGE = 1000
_PAGE_BYTES = 1 << 20
"""A page of the list ends early when the records in it are large; a header holds four times that."""


class Execs:
    """``close`` it."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    @property
    def running(self) -> int:
        return self._commands.running

    def usage(self) -> dict[str, dict[str, float | None]]:
        """By exec: cpu_s, rss_mb; None is unknown."""
        return self._commands.usage()

    def capabilities(self) -> dict[str, Any]:
        return self._commands.capabilities()

    async def holds(self, isolation: Isolation) -> dict[str, Any]:
        """Of what is demanded."""
        return await self._commands.holds(isolation)

    async def end_session(self, session: str) -> None:
        await self._commands.end_session(session)

    async def close(self, end_running: bool) -> None:
        await self._commands.close(end_running)

    def operations(self) -> Operations:
        operations: Operations = {
            Op.START: self._start,
            Op.LOOK: self._look,
            Op.WAIT: self._wait,
            Op.LIST: self._list,
            Op.READ: self._read,
            Op.STDIN: self._stdin,
            Op.SIGNAL: self._signal,
            Op.STOP: self._stop,
            Op.RESIZE: self._resize,
            Op.FORGET: self._forget,
        }
        return {name: self._when_sure(each) for name, each in operations.items()}

    def _when_sure(self, operation: Operation) -> Operation:
        """What is asked for is known, and does not hang between being started and being refused."""

        async def answer(frame: Frame, caller: Caller) -> Frame:
            await self._commands.recovered()
            if operation != self._stop:
                await self._commands.settled(str(frame.header.get("exec")))
            return await operation(frame, caller)

        return answer

    async def _start(self, frame: Frame, caller: Caller) -> Frame:
        command, existed = await self._commands.start(order_of(frame, caller.isolation))
        return Frame({**command.status(), "existed": existed})

    async def _look(self, frame: Frame, caller: Caller) -> Frame:
        return Frame(self._command(frame).status())

    async def _wait(self, frame: Frame, caller: Caller) -> Frame:
        command = self._command(frame)
        wait_s = read.number(frame.header, "wait_s", most=_LONGEST_WAIT_S)
        inline_bytes = read.whole(frame.header, "inline_bytes", most=MAX_PAYLOAD_BYTES, default=0)
        await command.ended(wait_s)
        if command.outcome is None:
            return Frame(command.status())
        stdout = command.streams["stdout"].read(0, inline_bytes)
        stderr = command.streams["stderr"].read(0, min(inline_bytes, MAX_PAYLOAD_BYTES - len(stdout)))
        return Frame({**command.status(), "inline": [len(stdout), len(stderr)]}, stdout + stderr)

    async def _list(self, frame: Frame, caller: Caller) -> Frame:
        after = read.text(frame.header, "after", "")
        limit = read.whole(frame.header, "limit", 1, _LARGEST_PAGE, _LARGEST_PAGE)
        page: list[dict[str, Any]] = []
        left = _PAGE_BYTES
        for command in self._commands.books.page(after, limit):
            page.append({**command.status(), "session": command.session, "record": dict(command.record)})
            left -= len(str(page[-1]))
            if left <= 0:
                break
        return Frame({"execs": page})

    async def _read(self, frame: Frame, caller: Caller) -> Frame:
        spool = self._command(frame).streams[read.one_of(frame.header, "stream", ("stdout", "stderr"))]
        offset = read.whole(frame.header, "offset")
        limit = read.whole(frame.header, "limit", 1, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES)
        await spool.readable(offset, read.number(frame.header, "wait_s", most=_LONGEST_WAIT_S, default=0))
        data = spool.read(offset, limit)
        next_offset = offset + len(data)
        return Frame(
            {
                "next_offset": next_offset,
                "is_eof": spool.is_eof(next_offset),
                "total_bytes": spool.total_bytes,
                "kept_bytes": spool.kept_bytes,
            },
            data,
        )

    async def _stdin(self, frame: Frame, caller: Caller) -> Frame:
        offset = read.whole(frame.header, "offset")
        is_eof = read.flag(frame.header, "is_eof")
        end = offset + len(frame.payload)
        running = self._running(frame)
        if running is None:  # Who is over reads nothing more; that is no error of the sender.
            return Frame({"next_offset": end})
        feed = running.feed
        if feed is None:
            raise Refused(Fault.BAD_REQUEST, "exec: it was started without keep_stdin")
        if offset > feed.offset:
            raise Refused(
                Fault.BAD_REQUEST, f"offset: must not lie behind {feed.offset}", next_offset=feed.offset
            )
        until_s = time.monotonic() + _ROOM_WAIT_S
        while feed.accept(offset, frame.payload, is_eof=is_eof) < end and time.monotonic() < until_s:
            await feed.room(until_s - time.monotonic())
        return Frame({"next_offset": feed.offset})

    async def _signal(self, frame: Frame, caller: Caller) -> Frame:
        number = _signal_named(read.text(frame.header, "signal"))
        scope = read.one_of(frame.header, "scope", ("group", "tree"), "group")
        running = self._running(frame)
        if running is None or running.leader.is_gone:
            return Frame({"was_sent": False})
        if scope == "group":
            return Frame({"was_sent": running.leader.signal_group(number)})
        return Frame({"was_sent": await self._commands.signal_tree(running, number)})

    async def _stop(self, frame: Frame, caller: Caller) -> Frame:
        grace_s = read.number(frame.header, "grace_s", most=3600)
        running = self._running(frame)
        if running is not None:
            running.stop(EndedBy.STOP, grace_s)
        return Frame(self._command(frame).status())

    async def _resize(self, frame: Frame, caller: Caller) -> Frame:
        size = terminal_size(frame.header)
        running = self._running(frame)
        if running is not None:
            if running.terminal_fd is None:
                raise Refused(Fault.BAD_REQUEST, "exec: it has no terminal")
            if not running.leader.is_gone:
                resize(running.terminal_fd, size)
        return Frame({})

    async def _forget(self, frame: Frame, caller: Caller) -> Frame:
        taken_s = read.number(frame.header, "taken_s", most=LONGEST_TAKEN_S, default=TAKEN_S)
        self._commands.forget(read.exec_name(frame.header), taken_s)
        return Frame({})

    def _command(self, frame: Frame) -> Command:
        return self._commands.books.get(read.exec_name(frame.header))

    def _running(self, frame: Frame) -> Running | None:
        return self._commands.running_of(read.exec_name(frame.header))


def _signal_named(name: str) -> signal.Signals:
    """With SIG before it or without."""
    full = name if name.startswith("SIG") else f"SIG{name}"
    try:
        return signal.Signals[full]
    except KeyError:
        raise read.bad("signal", "must be the name of a signal, such as SIGINT") from None


def open_execs(directory: Path, workspaces: Workspaces, containment: Containment | None = None) -> Execs:
    """Within a running event loop. Only one may use ``directory`` at a time: the caller has the lock."""
    keep_descriptors()
    open_files = raise_open_files()
    if containment is None:
        containment = find_containment(directory)
    directories = ExecDirectories(directory / "execs")
    states = ShellStates(directory / "shell_states")
    confines = Confines(directory, workspaces)
    launcher = Launcher(workspaces, containment, confines, states, Pump(), dict(os.environ), open_files)
    return Execs(
        Commands(Books(directories), launcher, containment, confines, states, workspaces, directories)
    )
