"""An agent's parts in this process, asked as by a gateway whose settings demand something of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent.archives import Archives
from gateway.host_agent.containment import Containment
from gateway.host_agent.execs import open_execs
from gateway.host_agent.files import Files
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault, Op
from gateway.host_agent.workspaces import Workspaces
from tests.gateway.host_agent.host import Host

IS_ROOT = os.geteuid() == 0
FIRST = 2_000_000 + os.getpid() * 100
"""Of the users of these tests: nobody else's, also where several run at once."""
USERS = Isolation(session_uids=(FIRST, FIRST + 2))


class Agent(Host):
    """What one gateway meets: ``isolation`` is what it said in its hello."""

    def __init__(self, directory: Path, isolation: Isolation, containment: Containment | None) -> None:
        self.workspaces = Workspaces(directory)
        execs = open_execs(directory, self.workspaces, containment)
        super().__init__(directory, execs)
        files = Files(self.workspaces.root, time.monotonic)
        archives = Archives(self.workspaces.root, time.monotonic)
        for part in (self.workspaces, files, archives):
            self._operations.update(part.operations())
        self.workspaces.before_removal(execs.end_session)
        self.caller.isolation = isolation

    async def put(self, session: str) -> Path:
        return Path((await self.ask(Op.SESSION_PUT, session=session, record={})).header["workspace"])

    async def remove(self, session: str) -> None:
        await self.ask(Op.SESSION_REMOVE, session=session)

    async def refused(self, op: str, **fields: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.ask(op, **fields)
        return caught.value

    async def refused_command(self, **fields: Any) -> str:
        with pytest.raises(Refused) as caught:
            await self.start("true", **fields)
        assert caught.value.fault == Fault.NOT_STARTED
        return caught.value.message

    async def out(self, command: str, **fields: Any) -> str:
        ended = await self.run(command, **fields)
        assert (ended["returncode"], ended["err"]) == (0, b""), ended
        return str(ended["out"].decode())


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """That others can get to: pytest's own is closed to them."""
    with tempfile.TemporaryDirectory(prefix="mars-confined-") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def agent_of(
    directory: Path, isolation: Isolation, containment: Containment | None = None
) -> AsyncIterator[Agent]:
    agent = Agent(directory, isolation, containment)
    try:
        yield agent
    finally:
        await asyncio.wait_for(agent.execs.close(True), 60)
        await agent.workspaces.close()
