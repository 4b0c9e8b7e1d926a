"""The file changes while it is in use."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from marsproxy.core.events import Event, TenantLimits, TenantsChanged
from marsproxy.core.settings import ConfigError
from marsproxy.metrics import Metrics
from marsproxy.tenants.door import Door, NotAdmitted
from marsproxy.tenants.file import tenant_id
from marsproxy.tenants.reload import TenantsFile
from tests.marsproxy.tenants.guests import Guests

HANG_S = 10.0
SOON_S = 0.005
NEVER_S = 3600.0


@dataclass
class Told:
    """A policy that does as it is told."""

    leads: bool = True
    told: tuple[TenantLimits, ...] = ()
    events: list[Event] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        assert isinstance(event, TenantsChanged)
        self.events.append(event)
        self.told = event.tenants


@asynccontextmanager
async def running(file: TenantsFile, told: Told, interval_s: float) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(file.run(told, interval_s))
        yield
        task.cancel()


async def until(condition) -> None:
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(SOON_S)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    guests = Guests(tmp_path / "tenants.toml")
    guests.write(red="weight = 2")
    return guests


def refused(metrics: Metrics) -> bool:
    return b'mars_tenants_read_total{outcome="refused"} 1.0' in metrics.render()[1]


def test_a_file_must_be_right_at_the_start(tmp_path: Path, metrics: Metrics) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        TenantsFile(tmp_path / "none.toml", Door(), metrics)


async def test_a_change_is_taken_while_it_runs(guests: Guests, metrics: Metrics) -> None:
    door, told = Door(), Told()
    file = TenantsFile(guests.path, door, metrics)
    async with running(file, told, SOON_S):
        await until(lambda: told.events)
        guests.write(red="weight = 3", blue="")
        await until(lambda: len(told.told) == 2)
    assert told.told == (TenantLimits(tenant_id("red"), 3.0), TenantLimits(tenant_id("blue")))
    assert len(told.events) == 2
    assert door.admit([(b"x-api-key", guests.keys["blue"].encode())]).name == "blue"


async def test_a_signal_asks_for_it_at_once(guests: Guests, metrics: Metrics) -> None:
    told = Told()
    async with running(TenantsFile(guests.path, Door(), metrics), told, NEVER_S):
        await until(lambda: told.events)
        guests.write(red="weight = 4")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: told.told[0].weight == 4)


async def test_a_broken_file_changes_nothing(
    guests: Guests, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    """It is complained of once, with its place, and mended by the next good one."""
    door, told = Door(), Told()
    before = guests.keys["red"]
    async with running(TenantsFile(guests.path, door, metrics), told, SOON_S):
        guests.path.write_text(f'[tenants.red]\nkeys = ["{before}"]')
        await until(lambda: refused(metrics))
        assert door.admit([(b"x-api-key", before.encode())]).name == "red"
        await asyncio.sleep(10 * SOON_S)
        guests.rotate("red")
        guests.write(red="")
        await until(lambda: told.told == (TenantLimits(tenant_id("red")),))
    [complaint] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "tenants.red.keys[0]" in complaint
    assert before not in caplog.text
    with pytest.raises(NotAdmitted):
        door.admit([(b"x-api-key", before.encode())])


async def test_a_file_that_goes_away_changes_nothing(guests: Guests, metrics: Metrics) -> None:
    door = Door()
    async with running(TenantsFile(guests.path, door, metrics), Told(), SOON_S):
        guests.path.unlink()
        await until(lambda: refused(metrics))
    assert door.admit([(b"x-api-key", guests.keys["red"].encode())]).name == "red"


async def test_the_limits_are_told_by_the_one_that_leads(guests: Guests, metrics: Metrics) -> None:
    """Also by one that comes to lead later, and by none where they hold already."""
    told = Told(leads=False)
    async with running(TenantsFile(guests.path, Door(), metrics), told, SOON_S):
        await asyncio.sleep(10 * SOON_S)
        assert told.events == []
        told.leads = True
        await until(lambda: told.events)
        await asyncio.sleep(10 * SOON_S)
    assert len(told.events) == 1
