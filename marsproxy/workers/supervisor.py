"""The parent of several workers: starts them, starts them again, and ends them.

Theory of operation. There is a *slot* for each worker that is wanted. A slot has one process, or none for the
pause between a death and the next attempt; the pause doubles with each death that follows soon, so that a
worker that cannot live does not burn the machine. A rolling restart (SIGUSR2) goes slot by slot: the next
process is ready before the present one is told to leave. A stop tells all workers to leave, and told again,
to leave at once; whoever does not go is killed. SIGHUP is passed on: it means to read files again.

Owns processes and their sockets. It serves nothing and applies no record, so it has nothing to hang on.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import uvloop

from marsproxy.config import Config
from marsproxy.core.settings import ConfigError
from marsproxy.server import prepare_process, say_ready, started_backends
from marsproxy.tasks import TaskOwner
from marsproxy.workers.assignment import Assignment, encoded
from marsproxy.workers.frames import Frame, FrameSocket, Kind
from marsproxy.workers.pages import PageExchange
from marsproxy.workers.port import reserve
from marsproxy.workers.record_order import Member, RecordOrder
from marsproxy.workers.worker import EXIT_CONFIGURATION

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 30.0
"""Between a worker's death and the next attempt."""
HEALTHY_S = 60.0
"""A worker that lived for so long died of something new: the pause begins anew."""
START_TIMEOUT_S = 60.0
"""From a worker's start to its READY; a cold start on a busy two-core machine takes a few seconds."""
KILL_AFTER_S = 15.0
"""Beyond the pause and the grace of a stop, for whoever has not gone by then."""


@dataclass(slots=True, eq=False)
class Worker:
    """One process in a slot."""

    process: Process
    member: Member
    ready: "asyncio.Future[bool]"
    """False when it died before it was."""
    started_s: float

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None


class Supervisor:
    """
    Args:
        port: where the workers listen.
    """

    def __init__(self, config: Config, backend_urls: list[str], port: int) -> None:
        self._config = config
        self._backend_urls = tuple(backend_urls)
        self._port = port
        self._forms_seed = secrets.randbits(63)
        self._order = RecordOrder(time.monotonic)
        self._exchange = PageExchange(self._send)
        self._members: dict[int, Member] = {}
        self._slots: list[Worker | None] = [None] * config.workers
        self._all: set[Worker] = set()
        """Those that live, in a slot or on their way out."""
        self._numbers = 0
        self._tasks = TaskOwner()
        self._stopping = asyncio.Event()
        self._is_rolling = False
        self.restarts = 0

    async def run(self) -> int:
        """Serve until told to stop; the exit code."""
        try:
            first = [await self._start(slot) for slot in range(self._config.workers)]
            ready = [await worker.ready for worker in first]
            if not all(ready) and not self._stopping.is_set():
                return max(worker.process.returncode or 1 for worker in first)
            if not self._stopping.is_set():
                say_ready(_url(self._config.listen.host, self._port))
            for slot in range(self._config.workers):
                self._tasks.spawn(f"slot-{slot}", self._keep(slot))
            await self._stopping.wait()
            await self._all_gone(self._config.stop.pause_s + self._config.stop.grace_s + KILL_AFTER_S)
            return 0
        finally:
            await self._tasks.close()
            await self._kill()

    def signalled(self, number: int) -> None:
        """SIGTERM and SIGINT stop, SIGUSR2 restarts one by one, SIGHUP is for the workers."""
        match number:
            case signal.SIGHUP:
                for worker in self._all:
                    if worker.is_alive:
                        worker.process.send_signal(signal.SIGHUP)
            case signal.SIGUSR2:
                if not self._is_rolling and not self._stopping.is_set():
                    self._is_rolling = True
                    self._tasks.spawn("rolling-restart", self._roll())
            case _:
                self._stop()

    def _stop(self) -> None:
        kind = Kind.STOP_NOW if self._stopping.is_set() else Kind.STOP
        self._stopping.set()
        for worker in self._all:
            worker.member.socket.send(Frame(kind, 1))

    # -- one worker -------------------------------------------------------------------------------

    async def _start(self, slot: int) -> Worker:
        self._numbers += 1
        number = self._numbers
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "marsproxy.workers.worker", str(theirs.fileno()), str(os.getpid())),
                stdin=DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        loop = asyncio.get_running_loop()
        link = FrameSocket(lambda frames: self._take(worker, frames), lambda: self._gone(worker))
        worker = Worker(process, self._order.connected(number, link), loop.create_future(), time.monotonic())
        self._members[number] = worker.member
        self._slots[slot] = worker
        self._all.add(worker)
        await loop.create_unix_connection(lambda: link, sock=ours)
        link.send_encoded(encoded(self._assignment(slot)))
        if self._stopping.is_set():
            link.send(Frame(Kind.STOP))
        self._tasks.spawn(f"worker-{number}", self._reap(worker))
        return worker

    def _assignment(self, slot: int) -> Assignment:
        config, log_dir = self._config, self._config.event_log.dir
        if log_dir is not None:  # each has the records of all, and each its own files
            config = replace(config, event_log=replace(config.event_log, dir=log_dir / f"worker-{slot + 1}"))
        return Assignment(config, self._backend_urls, self._port, self._forms_seed)

    def _take(self, worker: Worker, frames: list[Frame]) -> None:
        number, records = worker.member.number, []
        for frame in frames:
            match frame.kind:
                case Kind.READY:
                    self._exchange.serves(number)
                    if not worker.ready.done():
                        worker.ready.set_result(True)
                case Kind.GATHER:
                    self._exchange.wanted(number, frame.number)
                case Kind.PAGE:
                    self._exchange.came(number, frame.payload)
                case _:
                    records.append(frame)
        if records:
            self._order.take(worker.member, records)

    def _send(self, number: int, frame: Frame) -> None:
        if (member := self._members.get(number)) is not None:
            member.socket.send(frame)

    def _gone(self, worker: Worker) -> None:
        """Its socket ended."""
        self._order.gone(worker.member)
        self._exchange.gone(worker.member.number)
        self._members.pop(worker.member.number, None)

    async def _reap(self, worker: Worker) -> None:
        await worker.process.wait()
        self._all.discard(worker)
        if not worker.ready.done():
            worker.ready.set_result(False)

    # -- slots ------------------------------------------------------------------------------------

    async def _keep(self, slot: int) -> None:
        """Start a worker again whenever the one in the slot has died."""
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            worker = self._slots[slot]
            assert worker is not None
            code = await worker.process.wait()
            if self._stopping.is_set():
                return
            if self._slots[slot] is not worker:
                continue  # a rolling restart has put another in its place
            if time.monotonic() - worker.started_s >= HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            log.error("worker %d ended with code %d; another starts in %g s", slot + 1, code, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            if not self._stopping.is_set() and self._slots[slot] is worker:
                self.restarts += 1
                await self._start(slot)

    async def _roll(self) -> None:
        try:
            for slot, old in enumerate(list(self._slots)):
                new = await self._start(slot)
                if not await self._is_ready(new):
                    log.error("rolling restart: the new worker %d did not come up; given up", slot + 1)
                    new.process.kill()
                    return
                if old is not None and old.is_alive:
                    old.member.socket.send(Frame(Kind.STOP))
                    await old.process.wait()
            log.info("rolling restart: done")
        finally:
            self._is_rolling = False

    async def _is_ready(self, worker: Worker) -> bool:
        done, _ = await asyncio.wait((worker.ready,), timeout=START_TIMEOUT_S)
        return bool(done) and worker.ready.result()

    async def _all_gone(self, timeout_s: float) -> None:
        """Wait for it; a second stop does not wait for long, for the workers cut what they have."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for worker in list(self._all):
                    await worker.process.wait()

    async def _kill(self) -> None:
        for worker in list(self._all):
            if worker.is_alive:
                worker.process.kill()
                await worker.process.wait()


async def _supervise(config: Config) -> int:
    async with AsyncExitStack() as stack:
        reserved = stack.enter_context(reserve(config.listen.host, config.listen.port))
        urls = await stack.enter_async_context(started_backends(config))
        supervisor = Supervisor(config, urls, reserved.getsockname()[1])
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            loop.add_signal_handler(number, supervisor.signalled, number)
        code = await supervisor.run()
        if code == EXIT_CONFIGURATION:
            raise ConfigError("the workers refused the configuration; they have said why above")
        return code


def supervise(config: Config) -> int:
    """Run the proxy with several workers until it is told to stop; the exit code."""
    prepare_process(config)
    return uvloop.run(_supervise(config))


def _url(host: str, port: int) -> str:
    return f"http://{host}:{port}"
