"""The session table: its bound, its expiry, and what keeps a session in it."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.sessions import SessionState, SessionTable
from marsproxy.core.settings import SessionSettings


def table_of(*session_ids: str, **settings: float) -> SessionTable:
    """Each session had one turn, at 0, 1, 2... in this order."""
    table = SessionTable(SessionSettings(**settings))  # type: ignore[arg-type]
    for number, session_id in enumerate(session_ids):
        session = SessionState(session_id, "", "family", number, number)
        table.add(session)
        table.open_turn(session, f"{session_id}1", number)
        table.close_turn(session, f"{session_id}1", number)
    return table


def open_turn(table: SessionTable, session_id: str, turn_id: str, now: float) -> SessionState:
    session = table.get(session_id)
    assert session is not None
    table.open_turn(session, turn_id, now)
    return session


def test_the_longest_quiet_is_the_one_whose_last_turn_ended_first():
    table = table_of("a", "b")
    a = open_turn(table, "a", "a2", 5)
    table.close_turn(a, "a2", 6)
    assert table.longest_quiet() is table.get("b")


def test_a_session_is_quiet_only_when_all_its_turns_have_ended():
    table = table_of("a", idle_expiry_s=10.0)
    a = open_turn(table, "a", "a2", 5)
    open_turn(table, "a", "a3", 6)
    table.close_turn(a, "a2", 7)
    assert table.longest_quiet() is None
    assert table.next_expiry_s() is None
    assert table.expired(1_000) == []
    table.close_turn(a, "a3", 8)
    assert table.next_expiry_s() == 18
    assert table.expired(17.9) == []
    assert table.expired(18) == [a]


def test_a_removed_session_is_neither_known_nor_quiet():
    table = table_of("a", "b", max_sessions=2)
    assert table.is_full()
    a = table.get("a")
    assert a is not None
    table.remove(a)
    assert (len(table), table.is_full(), table.get("a")) == (1, False, None)
    assert [session.id for session in table] == ["b"]
    assert table.longest_quiet() is table.get("b")


@given(last_event_s=st.floats(0, 1e9), idle_expiry_s=st.floats(1, 604_800))
def test_a_session_is_expired_at_the_very_time_that_was_asked_for(last_event_s, idle_expiry_s):
    """A rounding apart, and the timer would fire for it over and over."""
    table = table_of("a", idle_expiry_s=idle_expiry_s)
    a = open_turn(table, "a", "a2", last_event_s)
    table.close_turn(a, "a2", last_event_s)
    expiry_s = table.next_expiry_s()
    assert expiry_s is not None
    assert table.expired(expiry_s) == [a]


def test_the_peak_stays_when_the_context_shrinks():
    session = SessionState("a", "", "family", 0.0, 0.0)
    session.grow_to(50_000)
    session.grow_to(10_000)
    assert (session.context_tokens, session.peak_tokens) == (10_000, 50_000)
