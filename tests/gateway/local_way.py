"""A real agent on this machine, and everything between it and a test."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from gateway.agent_bundle import AgentBundle
from gateway.agent_client import AgentHost
from gateway.host import HostExec
from gateway.introduction import Introduction
from gateway.link import Link, LinkSettings
from gateway.transport_local import LocalTransport
from tests.gateway.orders import order


def commands(directory: Path) -> list[int]:
    """Pids of those whose home is a workspace in it."""
    return _processes(lambda pid: os.fsencode(directory) + b"/" in (pid / "environ").read_bytes())


def agents(directory: Path) -> list[int]:
    """Pids of those that serve this directory."""

    def is_agent(pid: Path) -> bool:
        words = (pid / "cmdline").read_bytes().split(b"\0")
        return b"serve" in words and os.fsencode(directory) in words

    return _processes(is_agent)


def _processes(is_wanted: Callable[[Path], bool]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and is_wanted(entry):
                found.append(int(entry.name))
    return found


class LocalWay:
    def __init__(self, directory: Path, bundle: AgentBundle, *, is_private: bool = False) -> None:
        transport = LocalTransport(directory, bundle, is_private=is_private)
        settings = LinkSettings(first_wait_s=0.02, longest_wait_s=0.2)
        self.link = Link("here", transport, Introduction("gw", bundle.digest), settings=settings)
        self.host = AgentHost(self.link, lost_after_s=60)

    async def __aenter__(self) -> "LocalWay":
        self.link.open()
        await self.link.until_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.close()

    @property
    def instance(self) -> str:
        assert self.link.hello is not None
        return self.link.hello.instance

    async def run(self, command: str, exec_id: str = "ex-1") -> HostExec:
        await self.host.put_session("s", {})
        return await self.host.start(order(command, exec_id))
