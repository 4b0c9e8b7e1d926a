"""The way to one agent: up or down, and made again whenever it breaks.

Owns when to connect, and how many requests may be under way. It must not know what the requests mean
(``agent_client``) nor how a connection is made (the transports).

Theory of operation. One task goes round: *connect* (the transport, then the introduction), *up* until the
conversation breaks, wait, again. The wait doubles from one failure to the next, up to a bound, and is cut by
a random share, so that the gateways of a room do not all return in the same instant. A connection that held
for a while starts it over; one that breaks as soon as it is made does not.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gateway.conversation import Channel, Conversation, KeepAlive, LinkBroken
from gateway.host_agent.wire import Frame
from gateway.introduction import Hello, Introduction, Unsuitable
from gateway.tasks import Tasks

log = logging.getLogger(__name__)


class LinkState(StrEnum):
    CONNECTING = "connecting"
    """For the first time, or at once after a break."""
    UP = "up"
    DOWN = "down"
    """The last attempt failed; ``Link.trouble`` says why, and another will be made."""


class ConnectError(Exception):
    """There is no way to the agent now; the message says why in a way that helps an administrator."""


class Transport(Protocol):
    async def connect(self) -> Channel:
        """To the agent, which is put there and started if it has to be. Raises ConnectError. May be
        cancelled."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LinkSettings:
    connect_timeout_s: float = 60.0
    """For all of it: SSH, perhaps through another host, and the agent's program sent over and started."""
    first_wait_s: float = 0.1
    """After a break. An agent that was started again, or sshd, is back as fast."""
    longest_wait_s: float = 15.0
    """A host that booted is noticed so soon; a dead one is not asked more often."""
    max_in_flight: int = 1000
    """A command that runs has one request under way, that waits for its end. An agent takes 1024 of each
    connection; at that it would hear neither a cancel nor the question whether it lives."""
    keep_alive: KeepAlive = field(default_factory=KeepAlive)


class Link:
    """``open`` it, and ``close`` it after its last use."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        introduction: Introduction,
        *,
        settings: LinkSettings | None = None,
        rng: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``name``: of the host, for people."""
        self.name = name
        self.hello: Hello | None = None
        """Of the last connection; None before the first."""
        self.trouble: str | None = None
        """Why it is not up, or was not before."""
        self.generation = 0
        """Counts connections."""
        self._transport = transport
        self._introduction = introduction
        self._settings = settings or LinkSettings()
        self._rng = rng
        self._sleep = sleep
        self._state = LinkState.CONNECTING
        self._changed = asyncio.Event()
        self._watchers: list[Callable[[LinkState], None]] = []
        self._conversation: Conversation | None = None
        self._slots = asyncio.Semaphore(self._settings.max_in_flight)
        self._tasks = Tasks()
        self._not_up_since: float | None = None

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def not_up_s(self) -> float:
        """How long it has not been up; 0 while it is."""
        if self._state is LinkState.UP or self._not_up_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._not_up_since

    def watch(self, on_change: Callable[[LinkState], None]) -> None:
        """Called with each new state, from the event loop; it must not raise."""
        self._watchers.append(on_change)

    def open(self) -> None:
        self._not_up_since = asyncio.get_running_loop().time()
        self._tasks.spawn(f"link to {self.name}", self._keep_it_up())

    async def close(self) -> None:
        """Whoever waits for an answer gets LinkBroken."""
        await self._tasks.close()
        await self._transport.close()

    async def until_up(self) -> None:
        """On a connection that has not broken, as far as anyone knows."""
        while self._conversation is None or self._conversation.is_broken:
            await self._changed.wait()

    async def ask(
        self, op: str, fields: dict[str, Any], payload: bytes = b"", *, generation: int | None = None
    ) -> Frame:
        """The answer, ok or not. ``generation``: on that connection or not at all. Raises LinkBroken, also
        when it is not up: it waits for answers, not for connections."""
        async with self._slots:
            is_other = generation not in (None, self.generation)
            if self._conversation is None or is_other:
                raise LinkBroken(self.trouble or "it is not up", was_sent=False)
            return await self._conversation.ask(op, fields, payload)

    async def _keep_it_up(self) -> None:
        wait_s = 0.0
        while True:
            if wait_s > 0:
                await self._sleep(wait_s * (0.5 + self._rng() / 2))
            lasted_s = await self._once()
            held = lasted_s is not None and lasted_s > self._settings.longest_wait_s
            wait_s = 0.0 if held else wait_s
            wait_s = min(max(2 * wait_s, self._settings.first_wait_s), self._settings.longest_wait_s)

    async def _once(self) -> float | None:
        """One connection, from its making to its break. How long it was up; None if it never was."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                conversation = await self._connect()
        except TimeoutError:
            self._fail(f"no connection within {self._settings.connect_timeout_s:g} s")
            return None
        except ConnectError as error:
            self._fail(str(error))
            return None
        except Exception:
            log.exception("host %s: connecting failed in a way that nobody thought of", self.name)
            self._fail("connecting failed inside the gateway; its log says more")
            return None
        since_s = asyncio.get_running_loop().time()
        try:
            self._conversation = conversation
            self.generation += 1
            self._enter(LinkState.UP)
            self.trouble = await conversation.until_broken()
        finally:
            self._conversation = None
            self._not_up_since = asyncio.get_running_loop().time()
            self._enter(LinkState.CONNECTING)
            await conversation.close()
        log.warning("host %s: %s", self.name, self.trouble)
        return self._not_up_since - since_s

    async def _connect(self) -> Conversation:
        while True:
            conversation = Conversation(await self._transport.connect(), self._settings.keep_alive)
            hello = None
            try:
                hello = await self._introduction.meet(conversation)
            except LinkBroken as broken:
                raise ConnectError(f"the agent left before it had said hello: {broken.trouble}") from broken
            except Unsuitable as reason:
                raise ConnectError(str(reason)) from reason
            finally:
                if hello is None:
                    await conversation.close()
            if hello is not None:
                self.hello = hello
                return conversation

    def _fail(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.warning("host %s: %s", self.name, trouble)
        self.trouble = trouble
        self._enter(LinkState.DOWN)

    def _enter(self, state: LinkState) -> None:
        if state is self._state:
            return
        self._state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for watcher in self._watchers:
            watcher(state)
