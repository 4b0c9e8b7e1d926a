"""The shells of SWE-ReX' runtimes: which there are, and one command at a time in each.

A shell is a name and what its last command left in the workspace (``shell_gate``), so the table here may
forget: a shell that is not in it is looked for in the workspace. It holds what only counts while commands
run.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gateway.exec_record import Exec
from gateway.session_record import Session

MAX_RUNTIMES = 4096
"""More than there are sessions by default."""
MAX_SHELLS = 64
"""Of one runtime. Agents have one or two."""


@dataclass(eq=False, slots=True)
class Shell:
    name: str
    made_by: str | None
    """Request id; None of one that was found in the workspace."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    current: Exec | None = None
    """Its last command, over or not."""

    @property
    def running(self) -> Exec | None:
        return None if self.current is None or self.current.state.is_final else self.current

    @contextlib.asynccontextmanager
    async def at_rest(self) -> AsyncIterator[None]:
        """One command at a time, also where whoever started the last one has left."""
        async with self.turn:
            if self.running is not None:
                await self.running.ended.wait()
            yield


@dataclass(eq=False, slots=True)
class Runtime:
    """One session of the gateway, as SWE-ReX sees it."""

    session: Session
    shells: dict[str, Shell] = field(default_factory=dict)
    preparing: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_prepared: bool = False

    @property
    def is_idle(self) -> bool:
        return not self.preparing.locked() and all(
            shell.running is None and not shell.turn.locked() for shell in self.shells.values()
        )


class Runtimes:
    def __init__(self, max_runtimes: int = MAX_RUNTIMES) -> None:
        self._max_runtimes = max_runtimes
        self._runtimes: OrderedDict[tuple[str, str], Runtime] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runtimes)

    def of(self, session: Session) -> Runtime:
        """A session that was ended and made anew is another one."""
        key = (session.tenant, session.id)
        found = self._runtimes.get(key)
        if found is None or found.session is not session:
            found = self._runtimes[key] = Runtime(session)
        self._runtimes.move_to_end(key)
        self._forget_idle()
        return found

    def forget(self, runtime: Runtime) -> None:
        key = (runtime.session.tenant, runtime.session.id)
        if self._runtimes.get(key) is runtime:
            del self._runtimes[key]

    def _forget_idle(self) -> None:
        excess = len(self._runtimes) - self._max_runtimes
        if excess > 0:
            idle = [key for key, each in self._runtimes.items() if each.is_idle]
            for key in idle[:excess]:
                del self._runtimes[key]
