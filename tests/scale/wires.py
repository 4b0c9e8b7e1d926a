"""Ways that can be cut: a TCP forwarder, and the faults of the wire on which it delivers.

A ``Wire`` is what one caller has to one program. Cut, it delivers nothing in either direction and tells
nobody: no reset, no refusal, as when packets are lost; mended, it delivers what waited, as TCP does. A
delay applies to each direction and keeps the order. Whoever closes its sending side closes both, which is all
that HTTP and Redis know. Knows addresses and bytes, no programs.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from gateway.tasks import Tasks

Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""

MAX_WAITING = 100_000
"""Deliveries kept while a wire is cut: minutes of what replicas say to a store."""
ROUNDS_OF_AN_ACCEPT = 3
"""Of the event loop, from a connection that is taken to its protocol. A server that is closed in between
drops the connection without closing it (CPython 3.11)."""


class Wire:
    """The state of one caller's way to one program."""

    def __init__(self) -> None:
        self.is_cut = False
        self.delay_s = 0.0
        """Added to each direction."""
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def cut(self) -> None:
        self.is_cut = True

    def mend(self) -> None:
        self.is_cut = False
        self._deliver_due()

    def deliver(self, what: Callable[[], None]) -> None:
        """Now, if nothing is in the way."""
        if not self._waiting and not self.is_cut and not self.delay_s:
            what()
            return
        assert len(self._waiting) < MAX_WAITING, "a wire was cut for too long"
        self._waiting.append((asyncio.get_running_loop().time() + self.delay_s, what))
        if self._timer is None and not self.is_cut:
            self._deliver_due()

    def _deliver_due(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and not self.is_cut:
            due_s, what = self._waiting[0]
            if due_s > loop.time():
                self._timer = loop.call_at(due_s, self._deliver_due)
                return
            self._waiting.popleft()
            what()


class Forwarder:
    """Listens on a port that stays the same, and joins each connection to the first target that takes it."""

    def __init__(
        self,
        tasks: Tasks,
        targets: Callable[[], Sequence[Address]],
        wire_of: Callable[[int], Wire],
        host: str = "127.0.0.1",
    ) -> None:
        """
        Args:
            targets: where to connect, in the order in which to try; asked for each connection.
            wire_of: the wire of whoever connects from this port of its own.
        """
        self.tasks = tasks
        self.targets = targets
        self.wire_of = wire_of
        self.host = host
        self.port = 0
        self.connections = 0
        """Taken so far."""
        self.refused = 0
        """Of these, those that no target took."""
        self.open: set[_Here] = set()
        self._server: asyncio.AbstractServer | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def up(self) -> None:
        """From now on it listens. Fine if it does already."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: _Here(self), self.host, self.port)
            self.port = server.sockets[0].getsockname()[1]
            self._server = server

    async def down(self) -> None:
        """Connections end, new ones are refused: what the kernel does for a program that was killed."""
        server, self._server = self._server, None
        if server is not None:
            loop = asyncio.get_running_loop()
            for listening in server.sockets:
                loop.remove_reader(listening.fileno())
            for _ in range(ROUNDS_OF_AN_ACCEPT):
                await asyncio.sleep(0)
            server.close()
        for end in tuple(self.open):
            end.abort()

    async def close(self) -> None:
        """Down for good; returns when nothing of it is open."""
        await self.down()
        while self.open:  # noqa: ASYNC110 - what was aborted is closed in the loop's next round
            await asyncio.sleep(0)
        await asyncio.sleep(0)


class _Here(asyncio.Protocol):
    """The end at the caller."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._transport: asyncio.Transport | None = None
        self._there: _There | None = None
        self._early: list[Callable[[_There], None]] = []
        self._is_over = False
        self.is_lost = False
        self._dial_state = "waiting"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        forwarder = self._forwarder
        forwarder.connections += 1
        forwarder.open.add(self)
        self._transport = transport
        self.wire = forwarder.wire_of(transport.get_extra_info("peername")[1])
        self.wire.deliver(lambda: _ignore(forwarder.tasks.spawn("dial", self._dial())))

    def data_received(self, data: bytes) -> None:
        self.wire.deliver(partial(self._to_there, lambda there: there.write(data)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.forget_if_over()
        self.wire.deliver(partial(self._to_there, lambda there: there.close(is_reset=exc is not None)))

    def forget_if_over(self) -> None:
        """When both ends are gone: over a slow wire the program learns of its end later than the caller."""
        will_dial = self._dial_state == "dialling" or (self._dial_state == "waiting" and not self._is_over)
        if self.is_lost and not will_dial and (self._there is None or self._there.is_lost):
            self._forwarder.open.discard(self)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, *, is_reset: bool) -> None:
        if self._transport is not None:
            self._transport.abort() if is_reset else self._transport.close()

    def abort(self) -> None:
        """Both ends, at once, whatever the wire is like: a program that is gone needs no wire."""
        self._is_over = True
        self.close(is_reset=True)
        if self._there is not None:
            self._there.close(is_reset=True)
        self.forget_if_over()

    async def _dial(self) -> None:
        if self._is_over:
            return
        self._dial_state = "dialling"
        try:
            await self._connect()
        finally:
            self._dial_state = "done"
            self.forget_if_over()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for target in self._forwarder.targets():
            try:
                if isinstance(target, str):
                    _, there = await loop.create_unix_connection(lambda: _There(self), target)
                else:
                    _, there = await loop.create_connection(lambda: _There(self), *target)
            except OSError:
                continue
            self._there = there
            if self._is_over:
                there.close(is_reset=True)
            early, self._early = self._early, []
            for what in early:
                what(there)
            return
        self._forwarder.refused += 1
        self.abort()

    def _to_there(self, what: "Callable[[_There], None]") -> None:
        if self._there is None:
            self._early.append(what)
        else:
            what(self._there)


class _There(asyncio.Protocol):
    """The end at the program."""

    def __init__(self, here: _Here) -> None:
        self._here = here
        self._transport: asyncio.Transport | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._here.wire.deliver(partial(self._here.write, data))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._here.forget_if_over()
        self._here.wire.deliver(partial(self._here.close, is_reset=exc is not None))

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, *, is_reset: bool) -> None:
        if self._transport is not None:
            self._transport.abort() if is_reset else self._transport.close()


def _ignore(_: object) -> None:
    """The owner of the task keeps it."""
