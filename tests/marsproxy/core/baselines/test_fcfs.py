"""First come, first served: every turn goes the moment it comes."""

from marsproxy.core.baselines.fcfs import Fcfs
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendUnreachable, SessionEnded
from marsproxy.core.settings import SessionSettings
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.playbook import answers, arrives, calls_tool, forgotten, refused, side_call


def test_whoever_comes_goes():
    (
        book(Fcfs)
        .at(0, arrives("a1"), goes("a1", priority=0))
        .at(0, arrives("b1", tokens=1_000_000), goes("b1", priority=0))
        .at(1, calls_tool("a1"))
        .at(2, arrives("a2"), goes("a2", "continuation", priority=0))
        .at(2, side_call("a3"), goes("a3", "side", priority=0))
    )


def test_a_session_stays_where_it_is_and_a_new_one_goes_where_fewest_are_at_work():
    (
        book(Fcfs, backends=("one", "two"))
        .at(0, arrives("a1"), goes("a1", backend="one"))
        .at(0, arrives("b1"), goes("b1", backend="two"))
        .at(1, calls_tool("a1"))
        .at(1, answers("b1"))
        .at(2, arrives("c1"), goes("c1", backend="two"))
        .at(3, arrives("a2"), goes("a2", "continuation", backend="one"))
    )


def test_a_session_leaves_a_backend_that_is_gone():
    (
        book(Fcfs, backends=("one", "two"))
        .at(0, arrives("a1"), goes("a1", backend="one"))
        .at(1, calls_tool("a1"))
        .at(2, BackendUnreachable("one"))
        .at(3, arrives("a2"), goes("a2", "continuation", backend="two"))
        .at(3, side_call("a3"), goes("a3", "side", backend="two"))
    )


def test_sessions_are_forgotten_when_they_end_or_fall_quiet():
    (
        book(Fcfs, sessions=SessionSettings(idle_expiry_s=100.0))
        .at(0, arrives("a1"), goes("a1"))
        .at(1, SessionEnded("a"))
        .at(2, calls_tool("a1"), forgotten("a"))
        .at(3, arrives("b1"), goes("b1"))
        .at(4, calls_tool("b1"))
        .fires(104, forgotten("b"))
    )


def test_a_full_table_forgets_who_is_quiet_and_refuses_when_nobody_is():
    (
        book(Fcfs, sessions=SessionSettings(max_sessions=1))
        .at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), refused("b1", Reason.TABLE_FULL))
        .at(2, calls_tool("a1"))
        .at(3, arrives("b2"), forgotten("a"), goes("b2"))
    )
