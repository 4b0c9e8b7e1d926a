"""The agent as it runs: one per directory, from its lock to its end.

Owns the lock, the log, what ends the agent (a signal, ``host.retire``, idleness, the end of its standard
input) and the wiring of its parts. It must not know what any part does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import logging.handlers
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.host_agent import old_programs
from gateway.host_agent.archives import Archives
from gateway.host_agent.files import Files
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.observe import Observer
from gateway.host_agent.operations import Operations
from gateway.host_agent.program import EXIT_TAKEN, LOG, SOCKET, program_digest
from gateway.host_agent.server import Server
from gateway.host_agent.workspaces import Workspaces

LOG_BYTES = 1 << 20
"""Of the log and of the one before it."""
TICK_S = 1.0

log = logging.getLogger(__name__)


class Execs(Protocol):
    """The part that owns processes."""

    @property
    def running(self) -> int: ...

    def operations(self) -> Operations: ...

    def usage(self) -> dict[str, dict[str, float | None]]:
        """By exec: cpu_s, rss_mb."""
        ...

    def capabilities(self) -> dict[str, Any]: ...

    async def holds(self, isolation: Isolation) -> dict[str, Any]:
        """Of what is demanded."""
        ...

    async def end_session(self, session: str) -> None: ...

    async def close(self, end_running: bool) -> None: ...


OpenExecs = Callable[[Path, Workspaces], Execs]


@dataclass(frozen=True)
class Terms:
    """How long an agent serves."""

    idle_exit_s: float | None = None
    """Without connection and command for so long it ends; None: never."""
    until_eof: bool = False
    """It ends, and its commands with it, when its standard input does."""


class Taken(Exception):
    """Another agent serves this directory."""


def serve(directory: Path, terms: Terms, open_execs: OpenExecs) -> int:
    """Returns the exit code."""
    os.umask(0o022)
    try:
        with locked(directory):
            start_log(directory)
            for name in old_programs.clear_up(directory):
                log.info("%s is not needed any more", name)
            asyncio.run(_serve(directory.resolve(), terms, open_execs))
    except Taken:
        return EXIT_TAKEN
    return 0


async def _serve(directory: Path, terms: Terms, open_execs: OpenExecs) -> None:
    await Agent(directory, terms, open_execs).run()


class Agent:
    """To be made within the loop that runs it."""

    def __init__(self, directory: Path, terms: Terms, open_execs: OpenExecs) -> None:
        self._directory = directory
        self._terms = terms
        self._workspaces = Workspaces(directory)
        self._files = Files(self._workspaces.root, time.monotonic)
        self._archives = Archives(self._workspaces.root, time.monotonic)
        self._execs = open_execs(directory, self._workspaces)
        self._observer = Observer(directory, self._execs.usage)
        for end in (self._execs.end_session, self._files.end_session, self._archives.end_session):
            self._workspaces.before_removal(end)
        self._instance = secrets.token_hex(8)
        self._program = program_digest()
        self._stop = asyncio.Event()
        self._server = Server(self._operations(), self._hello, self._retire, self._stop)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP has no meaning here")
        if self._terms.until_eof:
            loop.add_reader(sys.stdin.fileno(), self._read_stdin)
        await self._server.listen(self._directory)
        log.info("agent %s serves, pid %d", self._instance, os.getpid())
        trash = loop.create_task(self._workspaces.empty_trash(), name="empty the trash")
        try:
            await self._until_end()
        finally:
            trash.cancel()
            await self._close()

    async def _until_end(self) -> None:
        idle_since_s = time.monotonic()
        while not self._stop.is_set():
            now, limit_s = time.monotonic(), self._terms.idle_exit_s
            if self._server.connections or self._execs.running:
                idle_since_s = now
            elif limit_s is not None and now - idle_since_s >= limit_s:
                log.info("nobody asked for %.0f s", limit_s)
                return
            self._files.expire()
            self._archives.expire()
            await self._tick()

    async def _tick(self) -> None:
        idle_s = self._terms.idle_exit_s
        tick_s = TICK_S if idle_s is None else min(TICK_S, max(0.01, idle_s / 4))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), tick_s)

    async def _close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / SOCKET).unlink()
        await self._execs.close(end_running=True)
        await self._server.close()
        await self._workspaces.close()
        self._files.close()
        self._archives.close()
        log.info("agent %s ended", self._instance)

    def _operations(self) -> Operations:
        parts = (self._execs, self._workspaces, self._files, self._archives, self._observer)
        found: Operations = {}
        for part in parts:
            found.update(part.operations())
        return found

    async def _hello(self, isolation: Isolation) -> dict[str, Any]:
        can = {**self._observer.capabilities(), **self._execs.capabilities()}
        return {
            "agent": self._program,
            "instance": self._instance,
            "boot_id": _boot_id(),
            "capabilities": {**can, **await self._execs.holds(isolation)},
        }

    async def _retire(self, end_running: bool) -> bool:
        if self._execs.running and not end_running:
            return False
        await self._execs.close(end_running=True)
        return True

    def _read_stdin(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.set()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """The directory is ours while the lock is. Raises Taken, OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Taken from error
    finally:
        os.close(lock)


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """Of ours alone, also where users of sessions get through the directory."""

    def _open(self) -> Any:
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return super()._open()


def start_log(directory: Path) -> None:
    handler = _PrivateLog(directory / LOG, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _boot_id() -> str | None:
    """Another after each start of the host: what ran before is gone."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
