"""Replicas, backends, a store and a gateway as processes, and the wires between them.

Owns how they are set up, broken and taken down. It must not know who uses it or what has to hold.

    sessions -> balancer -> replicas -> wires -> backends
                                     -> wires -> store

Every replica knows a backend by the same address: the forwarder in front of it asks the kernel which replica
a connection is from, and delivers on that one's wire.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis.asyncio

from gateway.tasks import Tasks
from tests.scale.callers import caller_of
from tests.scale.namespaces import Namespaces
from tests.scale.programs import HANG_S, Program, module
from tests.scale.wires import Address, Forwarder, Wire

STORE = "redis"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a world is made of."""

    replicas: int = 3
    backends: int = 3
    store: bool = True
    """Without one, there can be one replica only."""
    persists: bool = True
    """Whether the store finds its keys again after it was killed."""
    kv_tokens: int = 40_000
    """Of each backend: what the sessions have to share."""
    speed: float = 4.0
    """Of the engines: an answer takes a tenth of a second, so that faults meet many of them."""
    gateway: bool = True
    namespaces: bool = False
    """Each replica in a network of its own."""
    settings: tuple[str, ...] = ()
    """More of each replica's command line."""


@dataclass
class World:
    sizes: Sizes
    directory: Path
    tasks: Tasks
    replicas: list[Program] = field(default_factory=list)
    backends: list[Program] = field(default_factory=list)
    store: Program | None = None
    gateway: Program | None = None
    wires: dict[tuple[str, str], Wire] = field(default_factory=dict)
    """From a replica to a backend or the store, by their names."""
    fronts: dict[str, Forwarder] = field(default_factory=dict)
    """Before each backend and the store."""
    namespaces: Namespaces | None = None
    balancer: Forwarder = field(init=False)
    _turn: int = 0

    def __post_init__(self) -> None:
        self.balancer = Forwarder(self.tasks, self._replicas_in_turn, lambda _: Wire())

    @property
    def programs(self) -> list[Program]:
        others = [each for each in (self.store, self.gateway) if each is not None]
        return [*self.replicas, *self.backends, *others]

    @property
    def url(self) -> str:
        """Where clients connect to: each connection goes to the next replica."""
        return self.balancer.url

    def event_logs(self) -> list[Path]:
        """Directories: each replica has one, or one for each of its workers."""
        of_replicas = [self.directory / each.name for each in self.replicas]
        workers = [path for each in of_replicas for path in sorted(each.iterdir()) if path.is_dir()]
        return workers or of_replicas

    def request_log(self, backend: Program) -> Path:
        return self.directory / f"{backend.name}.served"

    def wire(self, replica: Program, program: Program) -> Wire:
        return self.wires.setdefault((replica.name, program.name), Wire())

    async def kill(self, program: Program) -> None:
        await program.kill()
        if program.name in self.fronts:
            await self.fronts[program.name].down()

    async def restart(self, program: Program) -> None:
        await program.start()
        if program.name in self.fronts:
            await self.fronts[program.name].up()

    @asynccontextmanager
    async def connect_store(self) -> AsyncIterator["redis.asyncio.Redis"]:
        """Straight to it, past the wires."""
        client = redis.asyncio.Redis(unix_socket_path=str(self.directory / "redis.sock"))
        try:
            yield client
        finally:
            await client.aclose()

    def _replicas_in_turn(self) -> Sequence[Address]:
        """All that run, each time another one first."""
        self._turn += 1
        known = [(each.host, each.port) for each in self.replicas if each.url and each.is_running]
        first = self._turn % len(known) if known else 0
        return [*known[first:], *known[:first]]

    # -- setting up -----------------------------------------------------------------------------------

    async def start(self) -> None:
        if self.sizes.namespaces:
            self.namespaces = Namespaces(self.sizes.replicas)
        for number in range(1, self.sizes.backends + 1):
            self.backends.append(self._backend(f"backend-{number}"))
        if self.sizes.store:
            self.store = self._store()
        if self.sizes.gateway:
            self.gateway = self._program("gateway", *module("gateway", "serve", "--port", "0"))
        behind = [each for each in (*self.backends, self.store, self.gateway) if each is not None]
        await asyncio.gather(*(each.start() for each in behind))
        for program in (*self.backends, *([self.store] if self.store else [])):
            await self._put_front(program)
        self.replicas += [self._replica(number) for number in range(self.sizes.replicas)]
        await asyncio.gather(*(each.start() for each in self.replicas))
        await self.balancer.up()

    async def stop(self) -> None:
        """Replicas first, so that none of them sees the others go."""
        await asyncio.gather(*(each.stop() for each in self.replicas))
        await self.balancer.close()
        for front in self.fronts.values():
            await front.close()
        await asyncio.gather(*(each.stop() for each in self.programs))
        if self.namespaces is not None:
            self.namespaces.close()

    async def _put_front(self, program: Program) -> None:
        host = "127.0.0.1"
        if self.namespaces is not None:
            is_store = program is self.store
            host = self.namespaces.store_host if is_store else self.namespaces.backends_host
        front = Forwarder(self.tasks, partial(self._address, program), partial(self._wire_of, program), host)
        await front.up()
        self.fronts[program.name] = front

    def _address(self, program: Program) -> Sequence[Address]:
        if program is self.store:
            return [str(self.directory / "redis.sock")]
        return [(program.host, program.port)]

    def _wire_of(self, program: Program, port: int) -> Wire:
        """A wire of nobody for those who are no replica."""
        by_pid = {each.pid: each for each in self.replicas if each.is_running}
        pid = caller_of(port, by_pid)
        return Wire() if pid is None else self.wire(by_pid[pid], program)

    def _program(self, name: str, *command: str, ready: str = " ready on ") -> Program:
        return Program(name, command, self.directory / f"{name}.log", ready)

    def _backend(self, name: str) -> Program:
        sizes = self.sizes
        program = self._program(name)
        program.command = module(
            *(
                "loadgen",
                "engine",
                "--port",
                "0",
                "--stream-interval",
                "8",
                "--scheduling-policy",
                "priority",
            ),
            *("--speed", str(sizes.speed), "--kv-tokens", str(sizes.kv_tokens)),
            *("--request-log", str(self.request_log(program))),
        )
        return program

    def _store(self) -> Program:
        # A record may be appended up to a second before the disk has it; what a kill of the process
        # alone loses of that is nothing, as the kernel has it.
        keeps = ("--appendonly", "yes") if self.sizes.persists else ("--appendonly", "no")
        socket = str(self.directory / "redis.sock")
        return self._program(
            STORE,
            *("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", *keeps),
            *("--dir", str(self.directory), "--logfile", ""),
            ready="eady to accept connections",  # one word more in other versions
        )

    def _replica(self, number: int) -> Program:
        name = f"replica-{number + 1}"
        words = ["marsproxy", "serve", "--port", "0", "--event-log", str(self.directory / name)]
        for backend in self.backends:
            words += ["--backend", self.fronts[backend.name].url]
        if self.store is not None:
            words += ["--store", f"redis://{self.fronts[STORE].host}:{self.fronts[STORE].port}/0"]
        if self.gateway is not None and self.namespaces is None:
            words += ["--gateway", self.gateway.url]
        if self.namespaces is not None:
            words += ["--host", self.namespaces.host(number)]
        words += ["--event-log.max-files", "1000", *self.sizes.settings]
        program = self._program(name, *module(*words))
        if self.namespaces is not None:
            self.namespaces.move_in(program, number)
        return program


@asynccontextmanager
async def open_world(sizes: Sizes) -> AsyncIterator[World]:
    tasks = Tasks()
    with tempfile.TemporaryDirectory(prefix="mars-scale-") as directory:
        world = World(sizes, Path(directory), tasks)
        try:
            async with asyncio.timeout(HANG_S):
                await world.start()
            yield world
        finally:
            for wire in world.wires.values():
                wire.delay_s = 0.0
                wire.mend()
            await world.stop()
            await tasks.close()
