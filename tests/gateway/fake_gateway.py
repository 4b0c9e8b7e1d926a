"""A whole gateway on hosts in memory, without HTTP."""
# ruff: noqa: ASYNC110 - looking now and then is the test

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gateway.admission import AdmissionSettings, HostQueue
from gateway.exec_record import Exec
from gateway.gateway import Gateway, open_gateway
from gateway.hosts import HostPlan
from gateway.limits import Limits
from gateway.protocol import ExecRequest, ExecState, SessionRequest
from gateway.session_record import Session
from gateway.tenants import Tenants
from tests.gateway.fake_host import FakeHost


@contextlib.asynccontextmanager
async def gateway_on(*fakes: FakeHost, **options: Any) -> AsyncIterator[Gateway]:
    limits = options.pop("limits", Limits(slots=2, short_places=0))
    labels = options.pop("labels", {})
    plans = [
        HostPlan(
            fake,
            HostQueue(
                AdmissionSettings(
                    slots=limits.slots, queue_limit=limits.queue_limit, short_places=limits.short_places
                )
            ),
            labels.get(fake.name, {}),
        )
        for fake in fakes
    ]
    are_there = not any(fake.is_gone for fake in fakes)
    options = {"start_wait_s": 60 if are_there else 0.05, **options}
    async with open_gateway(limits, Tenants({}), hosts=plans, **options) as gateway:
        yield gateway


async def session_of(gateway: Gateway, name: str = "s", tenant: str = "", **settings: Any) -> Session:
    session, _ = await gateway.sessions.put(tenant, name, SessionRequest(**settings))
    return session


async def run(
    gateway: Gateway, key: str | None = None, command: str = "true", session: str = "s", **fields: Any
) -> Exec:
    """Until it runs or is over."""
    record = await gateway.submission.submit(
        gateway.sessions.use("", session), ExecRequest(command=command, **fields), key
    )
    async with asyncio.timeout(20):
        while record.state in (ExecState.QUEUED, ExecState.STARTING):
            await record.stepped.wait()
    return record


async def ended(record: Exec) -> Exec:
    await asyncio.wait_for(record.ended.wait(), 20)
    return record


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
