"""Every table has a bound and an expiry, and every ending of a turn is safe."""

from typing import Any

import pytest

from marsproxy.core.evidence import AnswerEvidence, TurnKind
from marsproxy.core.identity import IdentityLimits, SessionIndex
from tests.marsproxy.core.agent_fleet import Fleet, Shape, digest
from tests.marsproxy.core.identity_playbook import Playbook


def limited(**limits: Any) -> Playbook:
    return Playbook(SessionIndex(IdentityLimits(**limits), b"salt"))


def test_least_recently_used_session_makes_room() -> None:
    book = limited(sessions=3)
    sessions = [book.ask(f"sys task-{n}").answered(f"a{n}") for n in range(3)]
    book.ask("sys task-0 a0 r0").answered("a0-2")
    book.ask("sys task-3").answered("a3")
    assert len(book.index) == 3
    kept = book.ask("sys task-0 a0 r0 a0-2 more").resolution
    gone = book.ask("sys task-1 a1 r1").resolution
    assert kept.session_id == sessions[0].session_id
    assert gone.kind is TurnKind.FIRST


def test_session_with_a_turn_in_flight_makes_room_last() -> None:
    book = limited(sessions=2)
    busy = book.ask("sys task-0")
    book.ask("sys task-1").answered("a1")
    book.ask("sys task-2").answered("a2")
    busy.answered("a0")
    after = book.ask("sys task-0 a0 r0").resolution
    assert after.session_id == busy.resolution.session_id


def test_table_full_of_busy_sessions_still_takes_new_ones() -> None:
    book = limited(sessions=2)
    asked = [book.ask(f"sys task-{n}") for n in range(5)]
    assert len(book.index) == 2
    for turn in asked:
        turn.answered("late")
    assert len(book.index) == 2


def test_too_many_turns_in_flight_give_up_the_oldest() -> None:
    book = limited(turns_in_flight=2)
    oldest = book.ask("sys task-0")
    book.ask("sys task-1")
    book.ask("sys task-2")
    oldest.answered("a0")
    again = book.ask("sys task-0").resolution
    assert (again.session_id, again.kind) == (oldest.resolution.session_id, TurnKind.RETRY)


def test_idle_sessions_expire_and_busy_ones_do_not() -> None:
    book = limited(idle_s=100.0, turn_s=1_000.0)
    idle = book.ask("sys task-0").answered("a0")
    busy = book.ask("sys task-1")
    seen = book.now - 1.0
    assert book.index.expire(seen + 99.0) == []
    assert book.index.expire(seen + 100.0) == [idle.session_id]
    assert book.index.expire(seen + 500.0) == []
    book.now += 500.0
    busy.answered("a1")
    assert book.index.expire(book.now + 99.0) == []
    assert book.index.expire(book.now + 100.0) == [busy.resolution.session_id]
    assert len(book.index) == 0


def test_turn_whose_end_nobody_reported_is_given_up() -> None:
    book = limited(idle_s=10.0, turn_s=100.0)
    turn = book.ask("sys task")
    assert book.index.expire(book.now + 50.0) == []
    assert book.index.expire(book.now + 100.0) == []
    assert book.index.expire(book.now + 110.0) == [turn.resolution.session_id]
    turn.answered("a1")
    assert len(book.index) == 0


def test_forgotten_session_takes_its_evidence_along() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1", "c1", response_id="r1")
    book.index.forget(first.session_id)
    book.index.forget(first.session_id)
    after = book.ask("sys task a1 r1", echoed_call_ids=("c1",)).resolution
    assert (after.kind, after.session_id != first.session_id) == (TurnKind.FIRST, True)


def test_forgetting_a_named_session_ends_its_branches() -> None:
    book = Playbook()
    main = book.ask("sys task", id="mine").answered("a1", "c1")
    branch = book.ask("sub-sys sub-task", id="mine").answered("b1")
    assert branch.parent_session_id == main.session_id
    book.index.forget(branch.session_id)
    assert len(book.index) == 1
    book.ask("sub-sys sub-task", id="mine").answered("b1")
    book.index.forget(main.session_id)
    assert len(book.index) == 0
    again = book.ask("sys task", id="mine").resolution
    assert (again.session_id, again.kind) == (main.session_id, TurnKind.FIRST)


def test_branch_keeps_its_main_line_alive() -> None:
    book = limited(idle_s=100.0)
    main = book.ask("sys task", id="mine").answered("a1", "c1")
    book.now += 90.0
    branch = book.ask("sub-sys sub-task", id="mine").answered("b1")
    assert book.index.expire(book.now + 50.0) == []
    assert book.index.expire(book.now + 100.0) == [branch.session_id, main.session_id]


def test_branches_under_one_id_are_bounded() -> None:
    book = limited(lines_per_id=4)
    main = book.ask("sys task", id="mine").answered("a1", "c1")
    for n in range(20):
        book.ask(f"sub-sys sub-task-{n}", id="mine").answered(f"b{n}")
    assert len(book.index) == 4
    after = book.ask("sys task a1 r1", id="mine", echoed_call_ids=("c1",)).resolution
    assert (after.session_id, after.kind) == (main.session_id, TurnKind.CONTINUATION)


def test_end_of_a_turn_of_a_session_forgotten_and_begun_again() -> None:
    book = Playbook()
    old = book.ask("sys task", id="mine")
    book.index.forget(old.resolution.session_id)
    new = book.ask("sys task", id="mine")
    old.abandoned()
    new.answered("a1")
    assert book.ask("sys task a1 r1", id="mine").resolution.turn == 2


def test_turn_ends_once_and_unknown_ends_are_ignored() -> None:
    book = Playbook()
    first = book.ask("sys task")
    first.answered("a1")
    first.abandoned()
    first.answered("other")
    book.index.abandoned("never seen", book.tick())
    book.index.answered("never seen", AnswerEvidence(digest("x")), book.tick())
    assert book.ask("sys task a1 r1").resolution.session_id == first.resolution.session_id
    assert book.ask("sys task other r1").resolution.session_id != first.resolution.session_id


def test_answer_that_was_not_understood_is_an_answer() -> None:
    book = Playbook()
    first = book.ask("sys task")
    book.index.answered(first.turn_id, AnswerEvidence(None), book.tick())
    after = book.ask("sys task whatever r1").resolution
    assert (after.session_id, after.matched_messages) == (first.resolution.session_id, 2)


def test_request_without_messages_is_known_by_its_body() -> None:
    book = Playbook()
    lost = book.ask("", body="prompt").abandoned()
    assert book.ask("", body="prompt").resolution.session_id == lost.session_id
    assert book.ask("", body="other").resolution.session_id != lost.session_id


def test_tables_hold_what_live_sessions_claim_and_nothing_else() -> None:
    index = SessionIndex(IdentityLimits(sessions=8))
    shapes = [Shape(f"a{n}", 12, task="one" if n < 4 else f"task {n}", condense_at=6) for n in range(20)]
    Fleet(index, seed=1, failure_ratio=0.3).play(shapes)
    assert len(index) == 8
    (tenant,) = index._tenants.values()
    frontiers = [f for s in index._sessions.values() for f in s.frontiers]
    assert set(tenant.requests) == {f.request_key for f in frontiers}
    assert set(tenant.replies) == {key for f in frontiers for key in f.answer_keys}
    assert set(tenant.answers) == {answer for f in frontiers for answer in f.answers}
    assert set(tenant.call_ids) == {call for f in frontiers for call in f.call_ids}
    assert len(frontiers) <= 8 * IdentityLimits().frontiers_per_session
    assert len(index.expire(1e9)) == 8
    assert not index._tenants
    assert not index._in_flight


@pytest.mark.parametrize("is_lost", [True, False])
def test_no_frontier_keeps_older_ones_alive(is_lost: bool) -> None:
    book = Playbook()
    history = "sys task"
    for n in range(30):
        turn = book.ask(history)
        turn.abandoned() if is_lost else turn.answered(f"a{n}")
        history += f" more-{n}" if is_lost else f" a{n} r{n}"
    (session,) = book.index._sessions.values()
    reached = set(session.frontiers)
    while new := {older for f in reached for older in f.superseded} - reached:
        reached |= new
    held = len(reached)  # apart from the assertion, which would print them all
    assert held <= 2 * IdentityLimits().frontiers_per_session


@pytest.mark.parametrize("name", ["sessions", "frontiers_per_session", "idle_s"])
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be more than 0, not 0"):
        IdentityLimits(**{name: 0})
