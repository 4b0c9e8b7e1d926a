"""Sessions that are kept apart: by users of their own, by sandboxes, by both; and that nothing runs with less
than was demanded. Real processes, of an agent's parts in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent.execs import open_execs
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.operations import Refused
from gateway.host_agent.session_uids import uids_of_processes
from gateway.host_agent.wire import Fault, Op
from gateway.host_agent.workspaces import Workspaces
from tests.gateway.host_agent.host import Host

pytestmark = pytest.mark.slow  # real processes throughout

FIRST = 2_000_000 + os.getpid() * 100
"""Of the users of these tests: nobody else's, also where several run at once."""
USERS = Isolation(session_uids=(FIRST, FIRST + 2))
IS_ROOT = os.geteuid() == 0


class Agent(Host):
    """What commands of one gateway meet: ``isolation`` is what it said in its hello."""

    def __init__(self, directory: Path, isolation: Isolation) -> None:
        self.workspaces = Workspaces(directory)
        execs = open_execs(directory, self.workspaces)
        super().__init__(directory, execs)
        self._operations.update(self.workspaces.operations())
        self.workspaces.before_removal(execs.end_session)
        self.caller.isolation = isolation

    async def put(self, session: str) -> Path:
        return Path((await self.ask(Op.SESSION_PUT, session=session, record={})).header["workspace"])

    async def remove(self, session: str, **fields: Any) -> None:
        await self.ask(Op.SESSION_REMOVE, session=session, **fields)

    async def refused(self, op: str = Op.SESSION_PUT, **fields: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.ask(op, **fields)
        return caught.value


@pytest.fixture
def directory() -> Iterator[Path]:
    """That others can get to: pytest's own is closed to them."""
    with tempfile.TemporaryDirectory(prefix="mars-confines-") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def agent_of(directory: Path, isolation: Isolation = USERS) -> AsyncIterator[Agent]:
    agent = Agent(directory, isolation)
    try:
        yield agent
    finally:
        await asyncio.wait_for(agent.execs.close(True), 60)
        await agent.workspaces.close()


async def test_each_session_is_a_user(directory: Path) -> None:
    async with agent_of(directory) as agent:
        workspace = await agent.put("s")
        if not IS_ROOT:
            return
        found = workspace.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (FIRST, FIRST, 0o700)
        text = "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; echo $HOME; pwd; touch made"
        ended = await agent.run(text)
        said = f"{FIRST}\n{FIRST}\n{FIRST}\nNoNewPrivs:\t1\n{workspace}\n{workspace}\n"
        assert (ended["out"].decode(), ended["err"], ended["returncode"]) == (said, b"", 0)
        assert (workspace / "made").stat().st_uid == FIRST
