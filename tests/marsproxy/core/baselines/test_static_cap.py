"""Two places on each backend, whatever happens."""

from typing import Any

import pytest

from marsproxy.core.baselines.static_cap import StaticCap
from marsproxy.core.commands import Reason
from marsproxy.core.events import SessionEnded
from marsproxy.core.settings import AdmissionSettings, ConfigError, SessionSettings
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.playbook import (
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    fails,
    forgotten,
    reading,
    side_call,
    waits,
)


def full(**changes: Any) -> Playbook:
    """``a`` and ``b`` have the two places."""
    return (
        book(StaticCap, static_cap_sessions=2, **changes)
        .at(0, arrives("a1"), goes("a1"))
        .at(0, arrives("b1"), goes("b1"))
    )


def test_who_came_first_goes_first():
    (
        full()
        .at(1, arrives("c1"), waits("c1"))
        .at(1, arrives("d1"), waits("d1", Reason.BEHIND_OTHERS, position=2))
        .at(2, answers("a1"), goes("c1"))
        .at(3, answers("b1"), goes("d1"))
    )


def test_a_place_is_held_through_a_gap_however_long_while_nothing_runs():
    (
        full()
        .at(1, calls_tool("a1"))
        .at(1, calls_tool("b1"))
        .at(2, arrives("c1"), waits("c1"))
        .at(500, reading())
        .at(500, arrives("a2"), goes("a2", "continuation"))
    )


@pytest.mark.parametrize("ending", [answers("a1"), aborts("a1"), fails("a1")])
def test_a_place_is_free_when_the_session_rests_or_was_given_up(ending):
    full().at(1, arrives("c1"), waits("c1")).at(2, ending, goes("c1"))


def test_a_place_is_free_when_the_session_is_over_or_forgotten():
    (
        full(sessions=SessionSettings(idle_expiry_s=50.0))
        .at(1, calls_tool("a1"))
        .at(2, calls_tool("b1"))
        .at(3, arrives("c1"), waits("c1"))
        .at(3, arrives("d1"), waits("d1", Reason.BEHIND_OTHERS, position=2))
        .at(4, SessionEnded("a"), forgotten("a"), goes("c1"))
        .fires(52, forgotten("b"), goes("d1"))
    )


def test_neither_telemetry_nor_side_calls_move_it():
    (
        full()
        .at(1, reading(kv_used_ratio=0.01))
        .at(1, side_call("a2"), goes("a2", "side"))
        .at(1, side_call("c1"), goes("c1", "side"))
        .at(2, arrives("d1"), waits("d1"))
    )


def test_each_backend_has_as_many():
    (
        book(StaticCap, static_cap_sessions=1, backends=("one", "two"))
        .at(0, arrives("a1"), goes("a1", backend="one"))
        .at(0, arrives("b1"), goes("b1", backend="two"))
        .at(1, arrives("c1"), waits("c1"))
        .at(2, answers("b1"), goes("c1", backend="two"))
    )


def test_there_is_no_cap_of_none():
    with pytest.raises(ConfigError, match=r"admission.static_cap_sessions: 0 is not allowed"):
        AdmissionSettings(static_cap_sessions=0)
