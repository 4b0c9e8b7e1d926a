"""Tools on hosts in virtual time: who runs when, for how long, and what is seen of it."""

import pytest

from loadgen.sim.tool_hosts import Discipline, ToolHosts, ToolHostShape, ToolStep
from loadgen.workload import ToolCall
from marsproxy.core.events import ToolPhase


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


def test_without_a_shape_durations_are_as_traced() -> None:
    hosts = ToolHosts(None)
    for key, seconds in {"a": 0.1, "b": 0.3, "c": 0.0}.items():
        hosts.submit(key, call(seconds), 7.0)
    assert ends(run_out(hosts)) == {"c": 7.0, "a": 7.1, "b": 7.3}


def test_two_tools_share_a_core() -> None:
    hosts = sharing()
    hosts.submit("a", call(2.0), 0.0)
    hosts.submit("b", call(1.0), 1.0)
    # a has one second left when b comes: each gets half the core.
    assert ends(run_out(hosts)) == pytest.approx({"a": 3.0, "b": 3.0})


def test_slots_wait_in_order() -> None:
    hosts = slots()
    assert [step.phase for step in hosts.submit("a", call(2.0), 0.0)] == [
        ToolPhase.QUEUED,
        ToolPhase.STARTED,
    ]
    assert [step.phase for step in hosts.submit("b", call(1.0), 0.5)] == [ToolPhase.QUEUED]
    assert (hosts.running, hosts.queued) == (1, 1)
    assert hosts.advance(2.0) == [
        ToolStep("a", ToolPhase.FINISHED, 2.0, queue_s=0.0, run_s=2.0, memory_peak_mb=0.0),
        ToolStep("b", ToolPhase.STARTED, 2.0, queue_s=1.5),
    ]
    assert hosts.next_change_s == pytest.approx(3.0)
