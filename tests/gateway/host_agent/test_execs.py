"""Real processes, through the operations that a gateway has. What each host has for containment is used; what
must hold without it is also tried without."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import STATUS_FIELDS, Fault, Op
from tests.gateway.host_agent.host import Host, open_host, processes_of


@pytest.fixture(params=[True, False], ids=["cgroups", "no-cgroups"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path, cgroups=request.param) as host:
        yield host


async def test_output_and_exit_code(host: Host) -> None:
    ended = await host.run("echo out; echo err >&2; exit 3")
    assert (ended["ended_by"], ended["returncode"]) == ("itself", 3)
    assert (ended["out"], ended["err"]) == (b"out\n", b"err\n")
    assert (ended["stdout"], ended["stderr"]) == ((4, 4), (4, 4))
    assert set(STATUS_FIELDS) <= set(ended)
