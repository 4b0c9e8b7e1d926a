"""Tools on hosts in virtual time: who runs when, for how long, and what is seen of it."""

import math
from dataclasses import replace
from typing import Any

import pytest

from loadgen.errors import LoadgenError
from loadgen.sim.tool_host import PRESSURE_WINDOW_S, THRASH_EXPONENT
from loadgen.sim.tool_hosts import QUEUE_WAIT_GAIN, Discipline, ToolHosts, ToolHostShape, ToolStep
from loadgen.workload import ToolCall
from marsproxy.core.events import ToolHostsObserved, ToolPhase


def call(seconds: float, cores: float = 1.0, memory_mb: float = 0.0) -> ToolCall:
    return ToolCall("bash", seconds, cores, memory_mb)


def sharing(cores: float = 1.0, memory_mb: float | None = None, hosts: int = 1) -> ToolHosts:
    return ToolHosts(ToolHostShape(cores, memory_mb, Discipline.SHARING, hosts))


def slots(cores: float = 1.0, memory_mb: float | None = None, hosts: int = 1) -> ToolHosts:
    return ToolHosts(ToolHostShape(cores, memory_mb, Discipline.SLOTS, hosts))


def run_out(hosts: ToolHosts) -> list[ToolStep]:
    steps: list[ToolStep] = []
    while (at_s := hosts.next_change_s) is not None:
        steps += hosts.advance(at_s)
    return steps


def ends(steps: list[ToolStep]) -> dict[str, float]:
    return {step.key: step.at_s for step in steps if step.phase is ToolPhase.FINISHED}


def phases(steps: list[ToolStep]) -> list[tuple[str, ToolPhase]]:
    return [(step.key, step.phase) for step in steps]


QUEUED, STARTED, FINISHED = ToolPhase.QUEUED, ToolPhase.STARTED, ToolPhase.FINISHED


def test_without_a_shape_durations_are_as_traced() -> None:
    hosts = ToolHosts(None)
    for key, seconds in {"a": 0.1, "b": 0.3, "c": 0.0}.items():
        assert phases(hosts.submit(key, call(seconds), 7.0)) == [(key, QUEUED), (key, STARTED)]
    assert (hosts.running, hosts.queued, hosts.cores_busy, hosts.memory_peak_mb) == (3, 0, 0, 0)
    assert hosts.observed(7.0) == ToolHostsObserved(running=3, queued=0)
    assert ends(run_out(hosts)) == {"c": 7.0, "a": 7.1, "b": 7.3}
    assert hosts.running == 0


def test_two_tools_share_a_core() -> None:
    hosts = sharing()
    hosts.submit("a", call(2.0), 0.0)
    hosts.submit("b", call(1.0), 1.0)
    # a has one second left when b comes: each gets half the core.
    assert ends(run_out(hosts)) == pytest.approx({"a": 3.0, "b": 3.0})


def test_cores_are_shared_by_what_each_tool_asks_for() -> None:
    hosts = sharing(cores=2)
    hosts.submit("two cores", call(1.0, cores=3.0), 0.0)
    hosts.submit("one core", call(1.0, cores=1.0), 0.0)
    assert hosts.cores_busy == 2
    assert ends(run_out(hosts)) == pytest.approx({"two cores": 2.0, "one core": 2.0})


def test_a_tool_that_waits_is_not_slowed_by_others() -> None:
    hosts = sharing()
    for key in "ab":
        hosts.submit(key, call(1.0), 0.0)
    hosts.submit("download", call(1.0, cores=0.0, memory_mb=10), 0.0)
    assert ends(run_out(hosts)) == pytest.approx({"download": 1.0, "a": 2.0, "b": 2.0})


def test_too_much_memory_slows_everything() -> None:
    hosts = sharing(cores=4, memory_mb=100)
    hosts.submit("a", call(1.0, memory_mb=100), 0.0)
    hosts.submit("b", call(1.0, cores=0, memory_mb=100), 0.0)
    slowed = 2**THRASH_EXPONENT
    assert hosts.cores_busy == pytest.approx(1 / slowed)
    assert ends(run_out(hosts)) == pytest.approx({"a": slowed, "b": slowed})
    assert hosts.memory_peak_mb == 200


def test_how_fast_a_host_slows_down_is_a_setting() -> None:
    hosts = ToolHosts(ToolHostShape(4, 100, Discipline.SHARING, thrash_exponent=1.0))
    for key in "ab":
        hosts.submit(key, call(1.0, memory_mb=150), 0.0)
    assert ends(run_out(hosts)) == pytest.approx({"a": 3.0, "b": 3.0})


def test_slots_wait_in_order() -> None:
    hosts = slots()
    assert phases(hosts.submit("a", call(2.0), 0.0)) == [("a", QUEUED), ("a", STARTED)]
    assert phases(hosts.submit("b", call(1.0), 0.5)) == [("b", QUEUED)]
    assert (hosts.running, hosts.queued) == (1, 1)
    assert hosts.advance(2.0) == [
        ToolStep("a", FINISHED, 2.0, queue_s=0.0, run_s=2.0, memory_peak_mb=0.0),
        ToolStep("b", STARTED, 2.0, queue_s=1.5),
    ]
    assert hosts.next_change_s == pytest.approx(3.0)


def test_slots_wait_for_memory_and_nothing_overtakes() -> None:
    hosts = slots(cores=8, memory_mb=100)
    hosts.submit("a", call(2.0, memory_mb=60), 0.0)
    assert phases(hosts.submit("large", call(1.0, memory_mb=50), 0.0)) == [("large", QUEUED)]
    assert phases(hosts.submit("small", call(1.0, memory_mb=10), 0.0)) == [("small", QUEUED)]
    assert phases(hosts.advance(2.0)) == [("a", FINISHED), ("large", STARTED), ("small", STARTED)]
    assert hosts.memory_used_mb == pytest.approx(60)


def test_a_tool_larger_than_the_host_runs_alone() -> None:
    hosts = slots(cores=2, memory_mb=100)
    hosts.submit("huge", call(1.0, memory_mb=200), 0.0)
    hosts.submit("small", call(1.0, memory_mb=1), 0.0)
    assert (hosts.running, hosts.queued) == (1, 1)
    slowed = 2**THRASH_EXPONENT
    assert ends(run_out(hosts)) == pytest.approx({"huge": slowed, "small": slowed + 1})


@pytest.mark.parametrize(
    ("cores", "per_core", "running"), [(2.0, 1.0, 2), (2.0, 2.5, 5), (0.5, 1.0, 1), (3.0, 0.5, 1)]
)
def test_slots_are_counted_by_core_and_one_at_least(cores: float, per_core: float, running: int) -> None:
    hosts = ToolHosts(ToolHostShape(cores, slots_per_core=per_core))
    for i in range(8):
        hosts.submit(str(i), call(1.0), 0.0)
    assert (hosts.running, hosts.queued) == (running, 8 - running)


def test_the_least_loaded_host_is_next() -> None:
    hosts = sharing(hosts=2)
    for key, seconds in {"a": 4.0, "b": 1.0, "c": 1.0}.items():
        hosts.submit(key, call(seconds), 0.0)
    # c shares the first host with a, as both are equally loaded; d finds the second one empty.
    hosts.advance(1.0)
    hosts.submit("d", call(1.0), 1.0)
    assert ends(run_out(hosts)) == pytest.approx({"c": 2.0, "d": 2.0, "a": 5.0})


def test_memory_counts_as_load() -> None:
    hosts = sharing(cores=4, memory_mb=100, hosts=2)
    hosts.submit("large", call(1.0, memory_mb=90), 0.0)
    hosts.submit("small", call(1.0, memory_mb=1), 0.0)
    hosts.submit("next", call(1.0, memory_mb=50), 0.0)
    assert hosts.memory_peak_mb == 90


def test_a_clients_own_time_is_on_no_host() -> None:
    hosts = slots()
    hosts.submit("busy", call(5.0), 0.0)
    steps = hosts.submit("client", call(0.7, cores=0), 0.0)
    assert phases(steps) == [("client", QUEUED), ("client", STARTED)]
    assert (hosts.running, hosts.queued) == (1, 0)
    assert ends(run_out(hosts)) == {"client": 0.7, "busy": 5.0}


def test_a_cancelled_tool_makes_room() -> None:
    hosts = slots()
    for key in "abc":
        hosts.submit(key, call(2.0), 0.0)
    assert hosts.cancel("b", 0.5) == []
    assert phases(hosts.cancel("a", 1.0)) == [("c", STARTED)]
    assert ends(run_out(hosts)) == pytest.approx({"c": 3.0})
    assert (hosts.running, hosts.queued) == (0, 0)
    assert hosts.cancel("a", 4.0) == []


def test_a_cancelled_tool_gives_its_share_back() -> None:
    hosts = sharing()
    hosts.submit("a", call(2.0, memory_mb=5), 0.0)
    hosts.submit("b", call(2.0, memory_mb=5), 0.0)
    hosts.submit("client", call(2.0, cores=0), 0.0)
    assert hosts.cancel("b", 1.0) == hosts.cancel("client", 1.0) == []
    assert hosts.memory_used_mb == 5
    assert ends(run_out(hosts)) == pytest.approx({"a": 2.5})


def test_what_was_due_is_not_lost_by_a_caller_who_is_late() -> None:
    hosts = slots()
    hosts.submit("a", call(1.0), 0.0)
    hosts.submit("b", call(1.0), 0.0)
    assert phases(hosts.submit("c", call(1.0), 5.0)) == [
        ("a", FINISHED),
        ("b", STARTED),
        ("b", FINISHED),
        ("c", QUEUED),
        ("c", STARTED),
    ]


def test_a_tool_of_no_length_is_over_at_once() -> None:
    hosts = sharing()
    hosts.submit("a", call(0.0), 3.0)
    assert hosts.next_change_s == 3.0
    assert ends(hosts.advance(3.0)) == {"a": 3.0}


def test_a_key_is_in_use_until_its_tool_is_over() -> None:
    hosts = sharing()
    hosts.submit("a", call(1.0), 0.0)
    with pytest.raises(AssertionError, match="tool a is there twice"):
        hosts.submit("a", call(1.0), 0.5)
    hosts.submit("a", call(1.0), 1.0)
    assert ends(run_out(hosts)) == {"a": 2.0}


def test_what_is_observed() -> None:
    hosts = slots(cores=2, memory_mb=1000, hosts=2)
    for i in range(5):
        hosts.submit(str(i), call(1.0, memory_mb=100), 0.0)
    assert hosts.observed(0.0) == ToolHostsObserved(
        cores=4,
        running=4,
        queued=1,
        memory_available_mb=1600,
        memory_total_mb=2000,
        cpu_pressure=0,
        memory_pressure=0,
        queue_wait_s=0,
    )
    hosts.advance(1.0)
    assert hosts.observed(1.0).queue_wait_s == pytest.approx(QUEUE_WAIT_GAIN * 1.0)


def test_pressure_follows_the_last_ten_seconds() -> None:
    hosts = sharing(cores=1, memory_mb=100)
    for key in "ab":
        hosts.submit(key, call(5.0, memory_mb=100), 0.0)
    slowed = 2**THRASH_EXPONENT
    seen = hosts.observed(PRESSURE_WINDOW_S)
    assert seen.cpu_pressure == pytest.approx(1 - math.exp(-1))
    assert seen.memory_pressure == pytest.approx((1 - 1 / slowed) * (1 - math.exp(-1)))
    assert seen.memory_available_mb == 0
    over_s = max(ends(run_out(hosts)).values())
    assert over_s == pytest.approx(10 * slowed)
    assert (hosts.observed(over_s + 10 * PRESSURE_WINDOW_S).cpu_pressure or 0) < 0.001


def test_memory_without_a_bound_is_unknown() -> None:
    seen = sharing().observed(0.0)
    assert (seen.memory_total_mb, seen.memory_available_mb, seen.memory_pressure) == (None, None, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cores": 0}, "cores of a tool host are 0; allowed"),
        ({"cores": float("nan")}, "cores of a tool host are nan"),
        ({"memory_mb": 0}, "memory of a tool host is 0 MB"),
        ({"hosts": 0}, "0 tool hosts"),
        ({"slots_per_core": 0}, "slots per core are 0"),
        ({"thrash_exponent": -1}, "thrash exponent is -1"),
    ],
)
def test_a_senseless_shape_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadgenError, match=says):
        replace(ToolHostShape(2.0), **change)
