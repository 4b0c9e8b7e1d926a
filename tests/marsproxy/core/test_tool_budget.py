"""When the tool hosts are too busy for one agent more."""

from dataclasses import replace

import pytest

from marsproxy.core.events import ToolHostsObserved, ToolObserved, ToolPhase
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings
from marsproxy.core.tool_budget import ToolBudget, are_full, is_memory_short

SETTINGS = AdmissionSettings(
    tools_per_core=2.5, tool_memory_target=0.9, tool_pressure_limit=0.6, telemetry_stale_s=10.0
)
SESSION = SessionState("a", "", "family", 0.0, 0.0)
IDLE = ToolHostsObserved(
    cores=4.0, running=0, queued=0, memory_available_mb=900, memory_total_mb=1_000, memory_pressure=0.0
)


def budget_with(*reports: ToolHostsObserved) -> ToolBudget:
    budget = ToolBudget(SETTINGS, LearnedForecast(SETTINGS))
    for report in reports:
        budget.hosts.observe(report, now=0.0)
    return budget


@pytest.mark.parametrize(
    ("running", "queued", "cores", "is_busy"),
    [
        (9, 0, 4.0, False),
        (10, 0, 4.0, True),
        (4, 6, 4.0, True),
        (0, 0, 4.0, False),
        (None, 6, 4.0, False),
        (100, None, 4.0, False),
        (100, 100, None, False),
    ],
)
def test_cores_are_busy_when_running_and_queued_reach_so_many_each(running, queued, cores, is_busy):
    hosts = ToolHostsObserved(cores=cores, running=running, queued=queued)
    assert are_full(hosts, per_place=2.5) is is_busy
    assert budget_with(hosts).is_busy(SESSION, 0.0) is is_busy


@pytest.mark.parametrize(
    ("available", "total", "is_short"),
    [
        (100, 1_000, False),
        (99, 1_000, True),
        (0, 1_000, True),
        (None, 1_000, False),
        (0, None, False),
        (0, 0, False),
    ],
)
def test_memory_is_short_when_less_than_the_rest_of_the_target_is_left(available, total, is_short):
    hosts = ToolHostsObserved(memory_available_mb=available, memory_total_mb=total)
    assert is_memory_short(hosts, target=0.9, foreseen_mb=0.0) is is_short
    assert budget_with(hosts).is_busy(SESSION, 0.0) is is_short


def test_the_memory_that_the_familys_tools_have_needed_is_foreseen():
    hosts = ToolHostsObserved(memory_available_mb=300, memory_total_mb=1_000)
    forecast = LearnedForecast(SETTINGS)
    budget = ToolBudget(SETTINGS, forecast)
    budget.hosts.observe(hosts, now=0.0)
    assert not budget.is_busy(SESSION, 0.0)
    for number in range(50):
        forecast.tool_finished(
            "family",
            ToolObserved(f"x{number}", ToolPhase.FINISHED, "g", tool_signature="make", memory_peak_mb=400.0),
        )
    assert budget.is_busy(SESSION, 0.0)


@pytest.mark.parametrize(("pressure", "is_busy"), [(0.6, False), (0.61, True), (None, False)])
def test_tools_that_wait_for_memory_are_a_reason_by_themselves(pressure, is_busy):
    assert budget_with(replace(IDLE, memory_pressure=pressure)).is_busy(SESSION, 0.0) is is_busy


@pytest.mark.parametrize(
    "short",
    [replace(IDLE, host="two", memory_pressure=0.9), replace(IDLE, host="two", memory_available_mb=1)],
)
def test_a_host_that_lacks_memory_is_left_out_with_its_cores(short):
    """The gateway sends new sessions elsewhere, and there must be a place for them there."""
    assert not budget_with(replace(IDLE, host="one", running=9), short).is_busy(SESSION, 0.0)
    assert budget_with(replace(IDLE, host="one", running=10), short).is_busy(SESSION, 0.0)
    assert budget_with(short).is_busy(SESSION, 0.0)


def test_room_on_one_host_makes_up_for_another():
    assert not budget_with(replace(IDLE, host="one", running=12), replace(IDLE, host="two")).is_busy(
        SESSION, 0.0
    )


@pytest.mark.parametrize(
    ("queued", "wait_s", "is_busy"),
    [(1, 5.1, True), (1, 5.0, False), (0, 5.1, False), (None, 5.1, False), (1, None, False)],
)
def test_hosts_whose_tools_wait_for_long_are_busy_though_they_are_few(queued, wait_s, is_busy):
    slow = replace(IDLE, running=4, queued=queued, queue_wait_s=wait_s)
    assert budget_with(slow).is_busy(SESSION, 0.0) is is_busy
    assert not budget_with(replace(slow, host="one"), replace(IDLE, host="two")).is_busy(SESSION, 0.0)


def test_hosts_never_heard_of_are_no_reason_to_wait():
    assert not budget_with().is_busy(SESSION, 0.0)


def test_neither_are_hosts_not_heard_of_lately():
    budget = budget_with(replace(IDLE, running=100))
    assert budget.is_busy(SESSION, 10.0)
    assert not budget.is_busy(SESSION, 10.1)
