"""Opens the way to each configured host for as long as a gateway runs.

Owns which transport, link and queue a host gets from its settings, and the order of closing. It must not know
what is done with them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from gateway.admission import AdmissionSettings, HostQueue
from gateway.agent_bundle import AgentBundle, build_agent
from gateway.agent_client import AgentHost
from gateway.conversation import LinkBroken
from gateway.host_agent.wire import Op
from gateway.hosts import HostPlan
from gateway.hosts_file import HostSettings, LocalWay, SshWay
from gateway.introduction import Introduction
from gateway.limits import Limits
from gateway.link import Link, Transport
from gateway.ssh_connection import SshConnections
from gateway.transport_local import LocalTransport
from gateway.transport_ssh import SshTransport

_RETIRE_S = 5.0
"""For an agent to end. One that does not serves the next gateway."""
_NAME = "mars-gateway"
"""As agents write it into their logs."""


@contextlib.asynccontextmanager
async def open_hosts(
    settings: Sequence[HostSettings],
    limits: Limits,
    *,
    directory: Path,
    is_private: bool,
    environ: Mapping[str, str],
    retires: bool = False,
) -> AsyncIterator[list[HostPlan]]:
    """``directory``: of the agent on the gateway's own host; ``is_private``: it goes with us, and so does
    that agent with all that it runs. ``environ``: where passphrases of keys are. ``retires``: agents end with
    us too, unless somebody's commands run there."""
    bundle = await asyncio.to_thread(build_agent)
    connections = SshConnections(environ)
    links = []
    plans = []
    try:
        for each in settings:
            transport = _transport(each, bundle, connections, directory, is_private=is_private)
            link = Link(each.name, transport, Introduction(_NAME, bundle.digest, each.isolation))
            link.open()
            links.append(link)
            client = AgentHost(link, lost_after_s=each.lost_after_s)
            plans.append(HostPlan(client, HostQueue(_admission(each, limits)), each.labels))
        yield plans
    finally:
        if retires:
            await asyncio.gather(*(_retire(link) for link in links))
        async with asyncio.TaskGroup() as group:
            for link in links:
                group.create_task(link.close())
        await connections.close()


async def _retire(link: Link) -> None:
    with contextlib.suppress(LinkBroken, TimeoutError):
        async with asyncio.timeout(_RETIRE_S):
            await link.ask(Op.RETIRE, {"end_running": False})


def _transport(
    settings: HostSettings,
    bundle: AgentBundle,
    connections: SshConnections,
    directory: Path,
    *,
    is_private: bool,
) -> Transport:
    match settings.way:
        case LocalWay(directory=own):
            return LocalTransport(own or directory, bundle, is_private=is_private and own is None)
        case SshWay(address, there, python):
            return SshTransport(connections.to(address), bundle, directory=there, python=python)


def _admission(settings: HostSettings, limits: Limits) -> AdmissionSettings:
    """``limits.slots`` is about the gateway's own host; others have their cores."""
    default = limits.slots if isinstance(settings.way, LocalWay) else None
    return AdmissionSettings(
        slots=default if settings.slots is None else settings.slots,
        queue_limit=limits.queue_limit,
        short_places=limits.short_places,
        memory_mb=settings.memory_mb,
    )
