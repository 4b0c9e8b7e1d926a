"""The tool hosts' gate: only new sessions wait for it, and only when it is known to be shut."""

from dataclasses import replace

import pytest

from marsproxy.core.commands import Reason
from marsproxy.core.evidence import TurnKind
from marsproxy.core.histogram import certain
from tests.marsproxy.core.playbook import (
    STEADY,
    Foretold,
    Playbook,
    answers,
    arrives,
    calls_tool,
    goes,
    reading,
    tools,
    waits,
)


def test_busy_tool_hosts_keep_new_sessions_out_but_not_returns():
    (
        Playbook(tools_per_core=2.5)
        .at(1, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), goes("b1"))
        .at(1, answers("b1"))
        .at(2, tools(10, cores=4.0))
        .at(3, arrives("c1"), waits("c1", Reason.TOOLS_BUSY))
        .at(3, arrives("b2"), goes("b2", "continuation"))
        .at(3, arrives("old9", kind=TurnKind.CONTINUATION), goes("old9", "return"))
        .at(4, tools(9, cores=4.0), goes("c1"))
    )


@pytest.mark.parametrize("unknown", [tools(None), tools(100, cores=None)])
def test_tool_hosts_of_which_nothing_is_known_are_not_busy(unknown: object):
    (
        Playbook()
        .at(1, arrives("a1"), goes("a1"))
        .at(2, unknown)  # type: ignore[arg-type]
        .at(3, arrives("b1"), goes("b1"))
    )


def test_an_old_word_of_the_tool_hosts_counts_for_nothing():
    (
        Playbook(telemetry_stale_s=10.0, idle_gap_s=100.0)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, tools(100))
        .at(13, reading())
        .at(13, arrives("b1"), goes("b1"))
    )


def test_busy_tool_hosts_never_keep_out_the_only_session():
    Playbook().at(1, tools(100)).at(2, arrives("a1"), goes("a1")).at(
        2, arrives("b1"), waits("b1", Reason.TOOLS_BUSY)
    )


def test_the_tools_are_everybodys_so_an_empty_backend_does_not_open_the_gate():
    (
        Playbook(backends=["one", "two"])
        .at(1, arrives("a1"), goes("a1", backend="one"))
        .at(2, tools(100))
        .at(3, arrives("b1"), waits("b1", Reason.TOOLS_BUSY))
    )


def test_a_sub_agent_of_a_session_at_work_passes_busy_tool_hosts():
    """Its parent waits for it, and holds its memory meanwhile."""
    (
        Playbook()
        .at(1, arrives("a1"), goes("a1"))
        .at(2, tools(100))
        .at(3, arrives("sub1", parent_session_id="a"), goes("sub1", "return"))
    )


def test_hosts_short_of_memory_keep_new_sessions_out():
    short = replace(tools(0), memory_available_mb=99, memory_total_mb=1_000)
    (
        Playbook(tool_memory_target=0.9)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, short)
        .at(3, arrives("b1"), waits("b1", Reason.TOOLS_BUSY))
        .at(4, replace(short, memory_available_mb=100), goes("b1"))
    )


def test_hosts_whose_tools_wait_for_memory_keep_new_sessions_out():
    pressed = replace(tools(0), memory_pressure=0.61)
    (
        Playbook(tool_pressure_limit=0.6)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, pressed)
        .at(3, arrives("b1"), waits("b1", Reason.TOOLS_BUSY))
        .at(4, replace(pressed, memory_pressure=0.6), goes("b1"))
    )


def test_hosts_are_busy_together():
    """Ten per host, of cores that are enough for them with the idle host's and not without."""
    (
        Playbook(tools_per_core=2.5)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, replace(tools(10), host="one"))
        .at(2, replace(tools(0), host="two"))
        .at(3, arrives("b1"), goes("b1"))
        .at(4, replace(tools(10), host="two"))
        .at(5, arrives("c1"), waits("c1", Reason.TOOLS_BUSY))
    )


def test_a_head_that_waits_for_tools_lets_a_return_pass_and_asks_for_no_timer_that_is_over():
    """A place that somebody in a gap would yield is of no use to who lacks a tool host."""
    (
        Playbook(forecast=Foretold(gap=certain(1e6)))
        .at(1, arrives("a1"), goes("a1"))
        .at(2, calls_tool("a1"))
        .at(3, tools(100))
        .at(4, arrives("b1"), waits("b1", Reason.TOOLS_BUSY))
        .at(5, arrives("old9", kind=TurnKind.CONTINUATION), goes("old9", "return"))
        .quiet_until(20)
        .at(21, arrives("a2"), goes("a2", "continuation"))
    )


def test_with_the_cpu_budget_switched_off_busy_tool_hosts_keep_nobody_out():
    parts = replace(STEADY, cpu_budget=False)
    (
        Playbook(parts=parts)
        .at(1, arrives("a1"), goes("a1"))
        .at(2, tools(100))
        .at(3, arrives("b1"), goes("b1"))
    )
