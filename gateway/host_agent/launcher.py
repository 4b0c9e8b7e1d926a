"""From an order to a process that is on its way, or to nothing at all.

Owns the order of steps: environment and directory, control group, streams, process. Each step is undone if a
later one fails; nothing here waits, so that nobody can be cancelled in the middle.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gateway.host_agent.cgroups import Group
from gateway.host_agent.confines import Confines
from gateway.host_agent.containment import Containment
from gateway.host_agent.environment import environment
from gateway.host_agent.exec_directory import ExecDirectory
from gateway.host_agent.order import Order
from gateway.host_agent.owner import Owner, acting_as
from gateway.host_agent.privileges import Confinement
from gateway.host_agent.process import EXIT_NOT_FOUND, Launch, Leader, not_started, spawn
from gateway.host_agent.shell_state import NoShell, ShellState, ShellStates, wrapped
from gateway.host_agent.spool import Channel, Pump, Spool
from gateway.host_agent.standard_input import Feed, complete_input
from gateway.host_agent.terminal import open_terminal
from gateway.host_agent.wire import MARKER, OWNER


class Workspaces(Protocol):
    """What commands need of the part that has the workspaces."""

    def path(self, session: str) -> Path:
        """Raises Refused: there is no such session."""
        ...

    def owner(self, session: str) -> Owner | None:
        """The user of its own that the session has, if it has one."""
        ...

    def start_directory(self, session: str, cwd: str, allow_outside: bool) -> Path:
        """Raises Refused."""
        ...


@dataclass
class Launched:
    """What belongs to a process that runs."""

    leader: Leader
    group: Group | None
    stdout: Spool
    stderr: Spool
    channels: list[Channel]
    feed: Feed | None
    terminal_fd: int | None
    """Master of its terminal; one of the channels owns it."""
    given_env: Mapping[str, str]
    """What it would have begun with if no earlier command had left anything."""


@dataclass
class _Streams:
    stdin: int
    stdout: int
    stderr: int
    channels: list[Channel] = field(default_factory=list)
    feed: Feed | None = None
    terminal_fd: int | None = None


class Launcher:
    def __init__(
        self,
        workspaces: Workspaces,
        containment: Containment,
        confines: Confines,
        states: ShellStates,
        pump: Pump,
        agents_env: Mapping[str, str],
        open_files: tuple[int, int] | None,
    ) -> None:
        self._workspaces = workspaces
        self._containment = containment
        self._confines = confines
        self._states = states
        self._pump = pump
        self._agents_env = agents_env
        self._open_files = open_files
        """What commands are allowed, where the agent allows itself more."""

    def launch(self, order: Order, directory: ExecDirectory) -> Launched:
        """Raises Refused, for reasons of ours or of the workspace."""
        workspace = self._workspaces.path(order.session)
        confinement = self._confines.of(order)
        given = environment(self._agents_env, workspace, order.env, has_terminal=order.tty is not None)
        state = self._states.of(order.session) if order.keeps_env_cwd else ShellState()
        directories = self._directories(order, state, confinement)
        argv = _argv(order, given)
        stdout = Spool(directory.stdout, order.max_output_bytes)
        stderr = Spool(directory.stderr, order.max_output_bytes)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as undo:
            group = self._containment.open(order.exec_id, order.limits)
            undo.callback(self._containment.remove, order.exec_id, group)
            try:
                entrances = [] if group is None else group.entrances()
                ours.callback(_close_all, entrances)
                streams = self._streams(order, stdout, stderr, ours, undo)
                state_fd = _state_file(directory, ours) if order.keeps_env_cwd else None
            except OSError as error:
                raise not_started(f"no pipe or file for its input and output: {error.strerror}") from error
            leader = spawn(
                Launch(
                    argv=argv,
                    directories=directories,
                    env={**state.environment(given), **self._mark(order)},
                    streams=(streams.stdin, streams.stdout, streams.stderr),
                    entrances=entrances,
                    has_terminal=order.tty is not None,
                    fsize_mb=order.fsize_mb,
                    open_files=self._open_files,
                    state_fd=state_fd,
                    confinement=confinement,
                )
            )
            undo.pop_all()
        if streams.feed is not None:
            streams.feed.accept(0, order.stdin, is_eof=not order.keeps_stdin)
        return Launched(
            leader, group, stdout, stderr, streams.channels, streams.feed, streams.terminal_fd, given
        )

    def _mark(self, order: Order) -> dict[str, str]:
        return {MARKER: order.exec_id, OWNER: self._containment.owner}

    def _directories(self, order: Order, state: ShellState, confinement: Confinement | None) -> list[Path]:
        """Where the last command was, if it is still there, else as it was ordered."""
        left = state.directory(order.cwd)
        if confinement is not None and confinement.namespaces:
            return self._directories_in_sandbox(order, left)
        if left is not None and _is_directory(left, confinement):
            return [Path(left)]
        return [self._workspaces.start_directory(order.session, order.cwd, order.may_start_outside)]

    def _directories_in_sandbox(self, order: Order, left: str | None) -> list[Path]:
        """What is there outside of the workspace only the command itself will see."""
        if order.may_start_outside and order.cwd.startswith("/"):
            ordered = Path(order.cwd)
        else:
            ordered = self._workspaces.start_directory(order.session, order.cwd, False)
        return [ordered] if left is None else [Path(left), ordered]

    def _streams(
        self,
        order: Order,
        stdout: Spool,
        stderr: Spool,
        ours: contextlib.ExitStack,
        undo: contextlib.ExitStack,
    ) -> _Streams:
        """``ours`` closes what only the child needs."""
        if order.tty is not None:
            stderr.complete()
            return self._terminal(order, stdout, ours, undo)
        stdin, feed = _input(order, ours, undo)
        streams = _Streams(stdin, -1, -1, feed=feed)
        streams.stdout = self._pipe(stdout, streams, ours, undo)
        if order.merges_output:
            stderr.complete()
            streams.stderr = streams.stdout
        else:
            streams.stderr = self._pipe(stderr, streams, ours, undo)
        return streams

    def _pipe(
        self, spool: Spool, streams: _Streams, ours: contextlib.ExitStack, undo: contextlib.ExitStack
    ) -> int:
        channel, write_fd = self._pump.open(spool)
        ours.callback(os.close, write_fd)
        undo.callback(channel.close)
        streams.channels.append(channel)
        return write_fd

    def _terminal(
        self, order: Order, stdout: Spool, ours: contextlib.ExitStack, undo: contextlib.ExitStack
    ) -> _Streams:
        assert order.tty is not None
        master, slave = open_terminal(order.tty)
        ours.callback(os.close, slave)
        channel = self._pump.attach(master, stdout)
        undo.callback(channel.close)
        feed = Feed(master, is_terminal=True)
        undo.callback(feed.close)
        return _Streams(slave, slave, slave, [channel], feed, master)


def _input(order: Order, ours: contextlib.ExitStack, undo: contextlib.ExitStack) -> tuple[int, Feed | None]:
    if not order.keeps_stdin:
        fd = complete_input(order.stdin)
        ours.callback(os.close, fd)
        return fd, None
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read_fd)
    feed = Feed(write_fd)
    undo.callback(feed.close)
    return read_fd, feed


def _is_directory(path: str, confinement: Confinement | None) -> bool:
    """To the eyes of the command's user."""
    try:
        with acting_as(None if confinement is None else confinement.owner):
            return Path(path).is_dir()
    except OSError:
        return False


def _state_file(directory: ExecDirectory, ours: contextlib.ExitStack) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(directory.shell_state, flags, 0o600)
    ours.callback(os.close, fd)
    return fd


def _argv(order: Order, given: Mapping[str, str]) -> list[str]:
    if not order.keeps_env_cwd:
        return list(order.argv)
    shell = shutil.which(order.argv[0], path=given.get("PATH", os.defpath))  # Not by the PATH that was left.
    if shell is None:
        raise not_started("no such program", EXIT_NOT_FOUND)
    try:
        return [shell, *wrapped(order.argv)[1:]]
    except NoShell:
        raise not_started('state: "env_cwd" needs argv to be bash, -c or -lc, and one text') from None


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def raise_open_files() -> tuple[int, int] | None:
    """As many descriptors as the system lets us have: each command takes five of ours. Returns what there was
    before, for the commands (a program that uses select() breaks with more), or None if nothing changed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return None
    return soft, hard


def keep_descriptors() -> None:
    """Whatever whoever started us left open is not for commands. What we open ourselves never is."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        if int(name) > 2:
            with contextlib.suppress(OSError):  # The one by which we read this list.
                os.set_inheritable(int(name), False)
