"""Requests to an agent that get their answer although the link breaks.

Owns how often a request is sent, how long an answer may take and how long a host may be away. What may be
sent again it must not know: its caller says that by the method it calls.

Theory of operation. A request whose answer was lost with the connection is sent again on the next one. When
the link is away for ``lost_after_s``, the host is *lost*: nobody knows what became of the request, unless it
was never sent.
"""

import asyncio
import contextlib
from typing import Any

from gateway import agent_answers
from gateway.conversation import LinkBroken
from gateway.host import HostFault, HostLost
from gateway.host_agent.wire import Fault, Frame, FrameError
from gateway.link import Link

ANSWER_S = 60.0
"""For an answer that waits for nothing but the host's disk. The connection lives, or it would break; what
takes so long hangs in the kernel there."""
SLOW_ANSWER_S = 1800.0
"""To remove a tree of millions of files, or for the last piece of one that is unpacked."""
_MAX_SENDS = 5
"""A request after which the connection broke each time is what breaks it."""
_MAX_POLLS = 900
"""Requests that wait on the host, of ``LinkSettings.max_in_flight``; the others go past them."""


class NeverSent(HostLost):
    """And so it did not happen."""


class AgentRequests:
    def __init__(self, link: Link, *, lost_after_s: float) -> None:
        self._link = link
        self._lost_after_s = lost_after_s
        self._polls = asyncio.Semaphore(_MAX_POLLS)

    async def poll(self, op: str, fields: dict[str, Any], wait_s: float) -> Frame:
        """As ``ask``, of an operation that takes ``wait_s``: how long the agent may wait before it answers.
        After a break it is what is left of it."""
        async with self._polls if wait_s > 0 else contextlib.nullcontext():
            return await self._ask(op, fields, b"", wait_s, ANSWER_S)

    async def ask(
        self, op: str, fields: dict[str, Any], payload: bytes = b"", *, answer_s: float = ANSWER_S
    ) -> Frame:
        """An answer that is yes. Raises HostFault, HostLost (NeverSent)."""
        return await self._ask(op, fields, payload, None, answer_s)

    async def connection(self) -> int:
        """For ``ask_on``. Raises HostLost."""
        await self._until_up(was_sent=False)
        return self._link.generation

    async def ask_on(self, connection: int, op: str, fields: dict[str, Any], payload: bytes = b"") -> Frame:
        """At most once, and only on that connection. Raises HostFault."""
        try:
            async with asyncio.timeout(SLOW_ANSWER_S):
                answer = await self._link.ask(op, fields, payload, generation=connection)
        except LinkBroken as broken:
            message = f"the connection to host {self._link.name} broke, and this with it: {broken.trouble}"
            raise HostFault(Fault.UNKNOWN_ARCHIVE, message) from broken
        except (TimeoutError, FrameError) as error:
            raise self._fault(error, op) from error
        return _checked(answer)

    async def _ask(
        self, op: str, fields: dict[str, Any], payload: bytes, wait_s: float | None, answer_s: float
    ) -> Frame:
        clock = asyncio.get_running_loop().time
        ends_at = clock() + (wait_s or 0.0)
        sends = 0
        while True:
            await self._until_up(was_sent=sends > 0)
            left_s = max(ends_at - clock(), 0.0)
            waiting = {} if wait_s is None else {"wait_s": left_s}
            try:
                async with asyncio.timeout(left_s + answer_s):
                    answer = await self._link.ask(op, {**fields, **waiting}, payload)
            except LinkBroken as broken:
                sends += broken.was_sent
                self._check_sends(sends)
            except (TimeoutError, FrameError) as error:
                raise self._fault(error, op) from error
            else:
                return _checked(answer)

    async def _until_up(self, *, was_sent: bool) -> None:
        try:
            async with asyncio.timeout(max(self._lost_after_s - self._link.not_up_s, 0.0)):
                await self._link.until_up()
        except TimeoutError as error:
            away = f"host {self._link.name} cannot be reached for {self._link.not_up_s:.0f} s"
            raise (HostLost if was_sent else NeverSent)(f"{away}: {self._link.trouble}") from error

    def _check_sends(self, sends: int) -> None:
        if sends >= _MAX_SENDS:
            raise HostLost(f"host {self._link.name}: the connection broke {sends} times under one request")

    def _fault(self, error: TimeoutError | FrameError, op: str) -> HostFault:
        if isinstance(error, FrameError):
            return HostFault(Fault.TOO_LARGE, str(error))
        return HostFault(Fault.INTERNAL, f"host {self._link.name} does not answer {op}")


def _checked(answer: Frame) -> Frame:
    if (fault := agent_answers.fault(answer)) is not None:
        raise fault
    return answer
