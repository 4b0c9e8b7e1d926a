"""The terminals of each session, one for each kind of shell, and one client at a time that holds it.

A terminal's shell is a command like any other (an exec with a terminal and open input), so it outlives its
clients, its output is replayed from the spool, and it ends with its session. Which exec it is need not be
remembered: its idempotency key is derived from the session and a count, and the one that runs is found by
asking for it, also by a gateway that was started since.

Owns who holds what, and finding the shell. It must not know WebSockets.
"""

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.protocol import ExecRequest, OutputRequest, TtyRequest
from gateway.session_record import Session

SHELLS = {"bash": ["bash", "-i"], "sh": ["sh", "-i"]}
_SHELL_CPU = 0.05
"""A shell waits for keys nearly all the time; what it is charged is the least there is."""
_REMEMBERED_COUNTS = 4096
"""More than there are sessions by default. One that was forgotten is counted again from 0."""
Place = tuple[str, str, str]
"""Tenant, session, shell."""
_LEAVING_S = 1.0
"""Who closed a terminal and opens it at once must not meet their own hold: the end of a connection is read
some milliseconds after it, 100 and more on a busy machine (seen in tests on 2 cores)."""
_KEY_IS_SPENT = frozenset({"exec_forgotten", "idempotency_key_reused"})


class Submits(Protocol):
    async def submit(self, session: Session, request: ExecRequest, idempotency_key: str | None) -> Exec: ...


@dataclass(eq=False, slots=True)
class Hold:
    """Of one client on one terminal."""

    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody else has it now."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The client is gone."""


class Terminals:
    def __init__(
        self, submission: Submits, *, timeout_s: float, max_output_bytes: int, leaving_s: float = _LEAVING_S
    ) -> None:
        self._submission = submission
        self._timeout_s = timeout_s
        self._max_output_bytes = max_output_bytes
        self._leaving_s = leaving_s
        self._holds: dict[Place, Hold] = {}
        """Of clients that are connected."""
        self._counts: OrderedDict[Place, int] = OrderedDict()
        """Shells that each place has had, as far as is known; used last is last."""

    def __len__(self) -> int:
        return len(self._holds)

    async def hold(self, place: Place, *, takes_over: bool) -> Hold | None:
        """None if somebody has it and keeps it: one who is just leaving is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._leaving_s):
                while not takes_over and (holder := self._holds.get(place)) is not None:
                    await holder.left.wait()
        holder = self._holds.get(place)
        if holder is not None:
            if not takes_over:
                return None
            holder.taken.set()
        hold = self._holds[place] = Hold()
        return hold

    def leave(self, place: Place, hold: Hold) -> None:
        hold.left.set()
        if self._holds.get(place) is hold:
            del self._holds[place]

    async def shell(self, session: Session, shell: str) -> Exec:
        """The one that runs, or a new one. Raises Refusal."""
        place = (session.tenant, session.id, shell)
        count = self._counts.get(place, 0)
        while True:
            record = await self._shell(session, shell, count)
            if record is not None and not record.state.is_final:
                self._remember(place, count)
                return record
            count += 1

    async def _shell(self, session: Session, shell: str, count: int) -> Exec | None:
        request = ExecRequest(
            argv=SHELLS[shell],
            tty=TtyRequest(),
            stdin_open=True,
            cpu=_SHELL_CPU,
            timeout_s=self._timeout_s,
            output=OutputRequest(max_bytes=self._max_output_bytes),
            env={"TERM": "xterm-256color"},
        )
        # A line feed cannot be in a header: no client's key is ever one of ours.
        key = f"terminal\n{session.id}\n{shell}\n{count}"
        try:
            return await self._submission.submit(session, request, key)
        except Refusal as refusal:
            if refusal.code in _KEY_IS_SPENT:
                return None
            raise

    def _remember(self, place: Place, count: int) -> None:
        self._counts[place] = count
        self._counts.move_to_end(place)
        while len(self._counts) > _REMEMBERED_COUNTS:
            self._counts.popitem(last=False)
