"""What is bounded, what runs out, and the timers that see to it."""

from marsproxy.core.commands import Reason, SetTimer
from marsproxy.core.events import SessionEnded, TimerFired
from marsproxy.core.policy import Policy
from marsproxy.core.sessions import Phase
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings
from tests.marsproxy.core.playbook import (
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    forgotten,
    goes,
    reading,
    refused,
    side_call,
    waits,
)


def one_place(sessions: SessionSettings | None = None, **changes: object) -> Playbook:
    """The pool holds one session, and ``a`` has taken it."""
    return Playbook(sessions=sessions, pool_tokens=20_000, **changes).at(0, arrives("a1"), goes("a1"))


# -- waiting --------------------------------------------------------------------------------------


def test_one_turn_more_than_may_wait_is_refused():
    (
        one_place(max_held_turns=2)
        .at(1, arrives("b1"), waits("b1"))
        .at(1, arrives("c1"), waits("c1", position=2))
        .at(1, arrives("d1"), refused("d1", Reason.QUEUE_FULL))
        .at(2, aborts("c1"))
        .at(3, arrives("e1"), waits("e1", position=2))
    )


def test_a_turn_that_fits_is_never_refused_for_the_queue():
    """With no room to wait at all, a session still starts when its budget is there."""
    (
        Playbook(pool_tokens=20_000, max_held_turns=0)
        .at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), refused("b1", Reason.QUEUE_FULL))
        .at(2, answers("a1"))
        .at(3, arrives("c1"), goes("c1"))
    )


def test_a_turn_that_has_waited_too_long_is_refused():
    book = (
        one_place(max_hold_s=100.0)
        .at(1, arrives("b1"), waits("b1"))
        .at(2, arrives("c1"), waits("c1", position=2))
        .fires(101, refused("b1", Reason.HELD_TOO_LONG))
        .fires(102, refused("c1", Reason.HELD_TOO_LONG))
        .at(110, answers("a1"))
    )
    session = book.policy.sessions.get("b")
    assert session is not None
    assert session.phase is Phase.IDLE


def test_a_refused_turn_may_be_asked_for_again():
    (
        one_place(max_hold_s=100.0)
        .at(1, arrives("b1"), waits("b1"))
        .fires(101, refused("b1", Reason.HELD_TOO_LONG))
        .at(102, aborts("b1"))
        .at(103, arrives("b2"), waits("b2"))
        .at(104, answers("a1"), goes("b2"))
    )


def test_refusing_the_head_lets_the_next_be_tried():
    (
        Playbook(max_hold_s=100.0, look_ahead=0)
        .at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("big1", tokens=90_000), waits("big1"))
        .at(2, arrives("b1"), waits("b1", Reason.BEHIND_OTHERS, position=2))
        .fires(101, refused("big1", Reason.HELD_TOO_LONG), goes("b1"))
    )


# -- the session table ----------------------------------------------------------------------------


def test_the_longest_idle_session_makes_room_in_a_full_table():
    (
        Playbook(sessions=SessionSettings(max_sessions=2))
        .at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), goes("b1"))
        .at(2, answers("b1"))
        .at(3, answers("a1"))
        .at(4, arrives("c1"), forgotten("b"), goes("c1"))
    )


def test_a_table_full_of_sessions_at_work_refuses_a_new_one():
    (
        Playbook(sessions=SessionSettings(max_sessions=2))
        .at(0, arrives("a1"), goes("a1"))
        .at(1, arrives("b1"), goes("b1"))
        .at(2, arrives("c1"), refused("c1", Reason.TABLE_FULL))
        .at(3, arrives("b2"), goes("b2", "continuation"))
    )


def test_a_dropped_session_gives_its_budget_to_those_who_wait():
    """The newcomer is a side call, which needs none of it."""
    (
        one_place(SessionSettings(max_sessions=2))
        .at(1, arrives("b1"), waits("b1"))
        .at(2, calls_tool("a1"))
        .at(3, side_call("c1"), forgotten("a"), goes("c1", "side"), goes("b1"))
    )


def test_all_that_a_dropped_session_makes_room_for_go_the_newcomer_too():
    """It stands behind four others, and is still decided on once."""
    book = Playbook(sessions=SessionSettings(max_sessions=5))
    book.at(0, arrives("big1", tokens=90_000), goes("big1")).at(1, calls_tool("big1", context=90_000))
    for position, name in enumerate("abcd", start=1):
        book.at(2, arrives(f"{name}1"), waits(f"{name}1", position=position))
    going = [goes(f"{name}1") for name in "abcde"]
    book.at(3, arrives("e1"), forgotten("big"), *going)


def test_a_quiet_session_is_forgotten():
    (
        Playbook(sessions=SessionSettings(idle_expiry_s=100.0))
        .at(0, arrives("a1"), goes("a1"))
        .at(10, calls_tool("a1"))
        .quiet_until(109)
        .fires(110, forgotten("a"))
    )


def test_a_session_with_a_turn_in_flight_is_not_quiet():
    (
        Playbook(sessions=SessionSettings(idle_expiry_s=100.0))
        .at(0, arrives("a1"), goes("a1"))
        .at(0, arrives("b1"), goes("b1"))
        .at(1, answers("b1"))
        .fires(101, forgotten("b"))
        .quiet_until(1000)
        .at(1000, answers("a1"))
        .fires(1100, forgotten("a"))
    )


def test_a_session_that_still_waits_is_not_quiet():
    (
        one_place(SessionSettings(idle_expiry_s=100.0), max_hold_s=10_000.0)
        .at(1, arrives("b1"), waits("b1"))
        .quiet_until(1000)
        .at(1000, answers("a1"), goes("b1"))
    )


# -- explicit ends --------------------------------------------------------------------------------


def test_a_session_that_is_said_to_be_over_is_forgotten_with_its_budget():
    (
        one_place()
        .at(1, arrives("b1"), waits("b1"))
        .at(2, calls_tool("a1"))
        .at(3, SessionEnded("a"), forgotten("a"), goes("b1"))
    )


def test_a_session_that_ends_with_a_turn_in_flight_is_forgotten_after_it():
    (
        one_place()
        .at(1, arrives("b1"), waits("b1"))
        .at(2, SessionEnded("a"))
        .at(3, calls_tool("a1"), forgotten("a"), goes("b1"))
    )


def test_a_session_that_ends_while_it_waits_is_still_answered():
    (
        one_place()
        .at(1, arrives("b1"), waits("b1"))
        .at(2, SessionEnded("b"))
        .at(3, answers("a1"), goes("b1"))
        .at(4, calls_tool("b1"), forgotten("b"))
    )


def test_a_session_that_is_over_and_whose_last_turn_is_refused_is_forgotten():
    (
        one_place(max_hold_s=100.0)
        .at(1, arrives("b1"), waits("b1"))
        .at(2, SessionEnded("b"))
        .fires(101, refused("b1", Reason.HELD_TOO_LONG), forgotten("b"))
    )


def test_a_side_call_in_flight_does_not_keep_the_budget_of_a_session_that_is_over():
    (
        one_place()
        .at(1, arrives("b1"), waits("b1"))
        .at(2, calls_tool("a1"))
        .at(3, side_call("a2"), goes("a2", "side"))
        .at(4, SessionEnded("a"), goes("b1"))
        .at(5, answers("a2", context=100), forgotten("a"))
    )


def test_nobody_minds_the_end_of_a_session_that_is_not_known():
    one_place().at(1, SessionEnded("stranger"))


def test_a_peak_is_learned_once():
    """A session that rested long ago says no more about the size of today's when it is forgotten."""
    book = Playbook(sessions=SessionSettings(idle_expiry_s=1000.0), growth_beta=1.0)
    for number in range(40):
        turn_id = f"old-{number}-1"
        book.at(0, arrives(turn_id), goes(turn_id)).at(0, answers(turn_id))
    for number in range(30):
        name = f"today-{number}-"
        book.at(500, arrives(f"{name}1"), goes(f"{name}1")).at(500, calls_tool(f"{name}1"))
        book.at(500, arrives(f"{name}2", tokens=80_000), goes(f"{name}2", "continuation"))
        book.at(500, answers(f"{name}2", context=80_000))
    (
        book.fires(1000, *[forgotten(f"old-{number}-") for number in range(40)])
        .at(1001, arrives("a1"), goes("a1"))
        .at(1001, arrives("b1"), waits("b1"))
    )


# -- timers ---------------------------------------------------------------------------------------


def bare_policy() -> Policy:
    settings = PolicySettings(
        AdmissionSettings(max_hold_s=100.0, idle_gap_s=30.0, fallback_concurrency=1),
        SessionSettings(idle_expiry_s=1000.0),
    )
    return Policy(settings, ["gpu"])


def timers(commands: list[object]) -> list[float]:
    return [command.at_s for command in commands if isinstance(command, SetTimer)]


def test_a_timer_is_moved_only_to_an_earlier_time():
    policy = bare_policy()
    assert timers(policy.handle(arrives("a1"), 0.0)) == []  # nothing falls due while it runs
    assert timers(policy.handle(arrives("b1"), 1.0)) == [101.0]
    assert timers(policy.handle(arrives("c1"), 2.0)) == []
    assert timers(policy.handle(calls_tool("a1"), 10.0)) == [40.0]
    assert timers(policy.handle(arrives("a2"), 20.0)) == []


def test_a_timer_that_came_for_nothing_is_set_again_for_what_is_left():
    policy = bare_policy()
    for event, now in [
        (arrives("a1"), 0.0),
        (arrives("b1"), 1.0),
        (calls_tool("a1"), 10.0),
        (arrives("a2"), 20.0),
    ]:
        policy.handle(event, now)
    assert timers(policy.handle(TimerFired(), 40.0)) == [101.0]


def test_a_policy_with_nothing_to_wait_for_asks_for_no_timer():
    policy = bare_policy()
    assert timers(policy.handle(reading(), 0.0)) == []
    assert timers(policy.handle(TimerFired(), 50.0)) == []
