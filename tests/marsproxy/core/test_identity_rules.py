"""Ambiguity: who gets a turn when several could, and when nobody may."""

from dataclasses import replace

import pytest

from marsproxy.core.evidence import Level, Schema, TurnKind
from marsproxy.core.identity import IdentityLimits, SessionIndex
from tests.marsproxy.core.identity_playbook import Playbook


def test_concurrent_identical_requests_are_samples() -> None:
    book = Playbook()
    samples = [book.ask("sys task").resolution for _ in range(8)]
    assert len({s.session_id for s in samples}) == 8
    assert all(s.kind is TurnKind.FIRST for s in samples)


def test_samples_are_told_apart_by_their_answers() -> None:
    book = Playbook()
    samples = [book.ask("sys task") for _ in range(8)]
    for n, sample in enumerate(samples):
        sample.answered(f"a{n}")
    for n in (5, 0, 7, 3):
        assert book.ask(f"sys task a{n} r").resolution.session_id == samples[n].resolution.session_id


def test_samples_with_one_answer_are_told_apart_by_call_ids() -> None:
    book = Playbook()
    samples = [book.ask("sys task") for _ in range(4)]
    for n, sample in enumerate(samples):
        sample.answered("same", f"call-{n}")
    for n in (2, 0, 3, 1):
        turn = book.ask("sys task same r", body=str(n), echoed_call_ids=(f"call-{n}",)).resolution
        assert turn.session_id == samples[n].resolution.session_id


def test_indistinguishable_samples_continue_in_the_order_of_their_answers() -> None:
    """Same answer, no ids: each takes one continuation, the longest waiting first, and no two the same."""
    book = Playbook()
    samples = [book.ask("sys task") for _ in range(3)]
    for n in (1, 2, 0):
        samples[n].answered("same")
    turns = [book.ask(f"sys task same r{n}").resolution.session_id for n in range(3)]
    assert turns == [samples[n].resolution.session_id for n in (1, 2, 0)]


def test_indistinguishable_samples_stay_apart_while_results_agree() -> None:
    book = Playbook()
    one, two = book.ask("sys task"), book.ask("sys task")
    one.answered("same")
    two.answered("same")
    first = book.ask("sys task same r").answered("b1")
    second = book.ask("sys task same r").answered("b2")
    assert {first.session_id, second.session_id} == {one.resolution.session_id, two.resolution.session_id}
    assert [first.kind, second.kind] == [TurnKind.CONTINUATION] * 2


def test_a_group_is_no_parent_unless_it_is_the_id_of_a_session() -> None:
    """Of the same tenant; and a session that names neither itself nor a parent has none."""
    book = Playbook()
    one = book.ask("sys task", id="one", group_id="group").answered("a")
    stranger = book.ask("sys task", id="one", tenant="other").answered("a")
    assert one.parent_session_id is None
    assert book.ask("sys task", id="two", group_id="group").answered("a").parent_session_id is None
    child = book.ask("sys sub-task", id="three", group_id="one").answered("b")
    assert child.parent_session_id == one.session_id
    other = book.ask("sys sub-task", id="three", group_id="one", tenant="other").answered("b")
    assert other.parent_session_id == stranger.session_id
    assert book.ask("sys other-task", group_id="one").resolution.parent_session_id is None
    named = book.ask("sys sub-task", id="four", group_id="one", parent_id="two").resolution
    assert named.parent_session_id == book.ask("sys task", id="two").resolution.session_id


def test_stated_retry_of_a_request_in_flight_is_no_sample() -> None:
    book = Playbook()
    first = book.ask("sys task", retry_count=0)
    again = book.ask("sys task", retry_count=1)
    assert again.resolution.session_id == first.resolution.session_id
    assert (again.resolution.kind, again.resolution.turn) == (TurnKind.RETRY, 1)
    first.abandoned()
    again.answered("a1")
    assert book.ask("sys task a1 r1").resolution.session_id == first.resolution.session_id


def test_stated_retries_of_samples_in_flight_spread_over_them() -> None:
    book = Playbook()
    samples = [book.ask("sys task").resolution.session_id for _ in range(4)]
    retries = [book.ask("sys task", retry_count=1).resolution.session_id for _ in range(4)]
    assert sorted(retries) == sorted(samples)


def test_lost_requests_of_samples_come_back_one_by_one() -> None:
    book = Playbook()
    lost = {book.ask("sys task").abandoned().session_id for _ in range(4)}
    assert len(lost) == 1, "one after the other, each is a retry of the one before"
    together = [book.ask("sys task") for _ in range(4)]
    for sample in together:
        sample.abandoned()
    back = {book.ask("sys task").resolution.session_id for _ in range(4)}
    assert back == {sample.resolution.session_id for sample in together}


def test_first_request_again_after_its_answer_is_another_sample() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    second = book.ask("sys task").resolution
    assert second.session_id != first.session_id
    assert (second.kind, second.level, second.parent_session_id) == (TurnKind.FIRST, Level.NEW, None)


def test_first_request_again_is_a_retry_if_the_client_says_so() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    assert book.ask("sys task", retry_count=2).resolution == replace(
        first, kind=TurnKind.RETRY, level=Level.PREFIX, matched_messages=2
    )


def test_later_request_again_after_its_answer_is_regenerated() -> None:
    """Either answer may then be continued."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    second = book.ask("sys task a1 r1").answered("a2")
    again = book.ask("sys task a1 r1").answered("b2")
    assert (again.session_id, again.kind, again.turn) == (first.session_id, TurnKind.RETRY, second.turn)
    after = book.ask("sys task a1 r1 b2 r2").resolution
    assert (after.session_id, after.matched_messages) == (first.session_id, 5)


def test_later_request_again_while_in_flight_is_a_fork() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 r1")
    sample = book.ask("sys task a1 r1").resolution
    assert sample.session_id != first.session_id
    assert sample.parent_session_id == first.session_id


def test_other_parameters_after_a_failure_are_still_a_retry() -> None:
    """A fallback model: the messages say that it is the same turn."""
    book = Playbook()
    first = book.ask("sys task", body="big model").abandoned()
    again = book.ask("sys task", body="small model").resolution
    assert (again.session_id, again.kind) == (first.session_id, TurnKind.RETRY)


def test_turn_in_place_of_a_lost_one_goes_on_from_the_one_before() -> None:
    """The context was too long: the client cuts it and tries again."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 long-result").abandoned()
    cut = book.ask("sys task a1 cut-result").resolution
    assert (cut.session_id, cut.kind, cut.turn) == (first.session_id, TurnKind.CONTINUATION, 3)


def test_lost_turn_comes_back_after_its_successor_was_lost_too() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    for _ in range(3):
        book.ask("sys task a1 r1").abandoned()
    back = book.ask("sys task a1 r1").answered("a2")
    after = book.ask("sys task a1 r1 a2 r2").resolution
    assert {back.session_id, after.session_id} == {first.session_id}
    assert (back.turn, after.turn) == (2, 3)


def test_user_interrupts_and_adds_a_message() -> None:
    """There is no answer to match; the lost request is what the new one extends."""
    book = Playbook()
    first = book.ask("sys task").abandoned()
    more = book.ask("sys task wait-do-this").resolution
    assert (more.session_id, more.kind) == (first.session_id, TurnKind.CONTINUATION)


def test_rewritten_history_does_not_go_to_a_finished_twin() -> None:
    """The twin ended after its first turn, and its request is a prefix of the rewritten one."""
    book = Playbook()
    twin = book.ask("sys task").answered("z1")
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 r1").answered("a2")
    book.ask("sys task a1 r1 a2 r2").answered("a3")
    condensed = book.ask("sys task summary r2 a3 r3").resolution
    assert (condensed.session_id, condensed.kind) == (first.session_id, TurnKind.CONDENSED)
    assert condensed.session_id != twin.session_id


def test_retry_does_not_land_on_the_sample_that_took_its_turn() -> None:
    book = Playbook()
    lost = book.ask("sys task", retry_count=0).abandoned()
    taker = book.ask("sys task", retry_count=0)
    assert taker.resolution.session_id == lost.session_id
    retry = book.ask("sys task", retry_count=1).answered("b1")
    taker.answered("a1")
    assert retry.session_id != lost.session_id


def test_two_samples_that_shared_a_lost_turn_come_back_as_two() -> None:
    book = Playbook()
    book.ask("sys task", retry_count=0).abandoned()
    book.ask("sys task", retry_count=0).abandoned()
    one = book.ask("sys task", retry_count=1).resolution
    two = book.ask("sys task", retry_count=1).resolution
    assert (one.kind, two.kind) == (TurnKind.RETRY, TurnKind.FIRST)
    assert one.session_id != two.session_id


def test_forks_of_one_answer_are_children() -> None:
    """The first to come continues the session, whoever it is; the others share its context only."""
    book = Playbook()
    parent = book.ask("sys task").answered("a1")
    forks = [book.ask(f"sys task a1 part-{n}").resolution for n in range(3)]
    assert forks[0].session_id == parent.session_id
    assert len({f.session_id for f in forks}) == 3
    assert [f.parent_session_id for f in forks[1:]] == [parent.session_id] * 2
    assert [f.matched_messages for f in forks] == [3, 3, 3]


def test_forks_with_call_ids_go_on_as_themselves() -> None:
    book = Playbook()
    parent = book.ask("sys task").answered("a1", "c1")
    one = book.ask("sys task a1 r1 x", echoed_call_ids=("c1",))
    two = book.ask("sys task a1 r1 y", echoed_call_ids=("c1",))
    one.answered("x1", "cx")
    two.answered("y1")
    two_more = book.ask("sys task a1 r1 y y1 more", echoed_call_ids=("c1",)).resolution
    one_more = book.ask("sys task a1 r1 x x1 rx", echoed_call_ids=("c1", "cx")).resolution
    assert one_more.session_id == one.resolution.session_id == parent.session_id
    assert two_more.session_id == two.resolution.session_id != parent.session_id
    assert two_more.level is Level.PREFIX, "its parent's call id is older evidence than its own answer"


def test_fork_with_call_ids_after_the_session_went_on() -> None:
    book = Playbook()
    parent = book.ask("sys task").answered("a1", "c1")
    book.ask("sys task a1 r1 x", echoed_call_ids=("c1",)).answered("x1", "cx")
    fork = book.ask("sys task a1 r1 y", echoed_call_ids=("c1",)).resolution
    assert (fork.kind, fork.parent_session_id) == (TurnKind.FIRST, parent.session_id)


def test_rewritten_history_with_call_ids_of_a_busy_session_is_a_child() -> None:
    book = Playbook()
    parent = book.ask("sys task").answered("a1", "c1")
    book.ask("sys task a1 r1", echoed_call_ids=("c1",))
    beside = book.ask("sub-sys excerpt r1", echoed_call_ids=("c1",)).resolution
    assert (beside.kind, beside.parent_session_id) == (TurnKind.FIRST, parent.session_id)


def test_later_request_with_call_ids_again_is_regenerated() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1", "c1")
    book.ask("sys task a1 r1", echoed_call_ids=("c1",)).answered("a2")
    again = book.ask("sys task a1 r1", echoed_call_ids=("c1",)).resolution
    assert (again.session_id, again.kind, again.turn) == (first.session_id, TurnKind.RETRY, 2)


def test_turn_lives_while_one_attempt_at_it_does() -> None:
    book = Playbook()
    first = book.ask("sys task", retry_count=0)
    book.ask("sys task", retry_count=1)
    first.abandoned()
    sample = book.ask("sys task", retry_count=0).resolution
    assert sample.session_id != first.resolution.session_id


def test_lost_regeneration_opens_nothing_again() -> None:
    """The turn has an answer still, so the turn before it is not to be continued."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 r1").answered("a2")
    book.ask("sys task a1 r1").abandoned()
    fork = book.ask("sys task a1 other").resolution
    after = book.ask("sys task a1 r1 a2 r2").resolution
    assert (fork.kind, fork.parent_session_id) == (TurnKind.FIRST, first.session_id)
    assert (after.kind, after.session_id) == (TurnKind.CONTINUATION, first.session_id)


def test_call_without_tools_that_ends_late_is_no_point_to_go_on_from() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    aside = book.ask("sys task a1 sum-up", has_tools=False)
    book.ask("sys task a1 r1").answered("a2")
    aside.answered("summary")
    late = book.ask("sys task a1 sum-up summary more").resolution
    after = book.ask("sys task a1 r1 a2 r2").resolution
    assert (late.kind, late.parent_session_id) == (TurnKind.FIRST, first.session_id)
    assert (after.kind, after.session_id) == (TurnKind.CONTINUATION, first.session_id)


def test_many_calls_without_tools_do_not_push_the_session_out() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    for n in range(10):
        book.ask(f"sys task a1 suggest-{n}", has_tools=False).answered(f"s{n}")
    second = book.ask("sys task a1 r1").resolution
    assert (second.session_id, second.kind) == (first.session_id, TurnKind.CONTINUATION)


def test_rewritten_history_that_fits_two_sessions_is_neither() -> None:
    book = Playbook()
    twins = [book.ask("sys task") for _ in range(2)]
    for n, twin in enumerate(twins):
        twin.answered(f"a{n}")
        book.ask(f"sys task a{n} r{n}").answered("submit")
    stranger = book.ask("sys task summary submit r").resolution
    assert stranger.session_id not in {twin.resolution.session_id for twin in twins}


def test_forks_of_a_stored_response_are_children() -> None:
    book = Playbook()
    parent = book.ask("user", schema=Schema.RESPONSES).answered("a1", response_id="r-1")
    follow = {"schema": Schema.RESPONSES, "previous_response_id": "r-1"}
    one = book.ask("this", **follow).resolution
    two = book.ask("that", **follow).answered("b1", response_id="r-3")
    assert one.session_id == parent.session_id
    assert (two.parent_session_id, two.kind, two.level) == (parent.session_id, TurnKind.FIRST, Level.BODY)
    deeper = book.ask("and", schema=Schema.RESPONSES, previous_response_id="r-3").resolution
    assert (deeper.session_id, deeper.turn) == (two.session_id, 2)


def test_retry_of_a_response_continuation() -> None:
    book = Playbook()
    parent = book.ask("user", schema=Schema.RESPONSES).answered("a1", response_id="r-1")
    follow = {"schema": Schema.RESPONSES, "previous_response_id": "r-1"}
    book.ask("go", **follow).abandoned()
    again = book.ask("go", **follow).answered("a2", response_id="r-2")
    regenerated = book.ask("go", **follow).resolution
    assert [(r.session_id, r.kind, r.turn) for r in (again, regenerated)] == [
        (parent.session_id, TurnKind.RETRY, 2)
    ] * 2


def test_unknown_response_begins_a_session() -> None:
    book = Playbook()
    turn = book.ask("go", schema=Schema.RESPONSES, previous_response_id="gone").resolution
    assert (turn.kind, turn.level) == (TurnKind.FIRST, Level.NEW)


def test_latest_known_call_id_decides() -> None:
    book = Playbook()
    one = book.ask("sys one").answered("a1", "c1")
    two = book.ask("sys two").answered("b1", "c2")
    turn = book.ask("other system and words", echoed_call_ids=("c1", "c2", "unknown")).resolution
    assert turn.session_id == two.session_id != one.session_id
    assert (turn.kind, turn.level) == (TurnKind.CONDENSED, Level.CALL_ID)


def test_call_id_that_two_sessions_were_given_tells_nothing() -> None:
    book = Playbook()
    book.ask("sys one").answered("a1", "call-0")
    two = book.ask("sys two").answered("b1", "call-0")
    by_prefix = book.ask("sys two b1 r1", echoed_call_ids=("call-0",)).resolution
    stranger = book.ask("sys three z1 r1", echoed_call_ids=("call-0",)).resolution
    assert (by_prefix.session_id, by_prefix.level) == (two.session_id, Level.PREFIX)
    assert stranger.level is Level.NEW


def test_shared_system_prompt_and_task_are_no_evidence() -> None:
    book = Playbook()
    book.ask("sys task").answered("a1")
    stranger = book.ask("sys other-task z1 r1").resolution
    same_task = book.ask("other-sys task z1 r1").resolution
    assert [stranger.level, same_task.level] == [Level.NEW] * 2


def test_one_common_answer_is_no_evidence() -> None:
    """Another run, whose start was not seen, happened to say the same."""
    book = Playbook()
    book.ask("sys task").answered("ls")
    stranger = book.ask("sys other-task ls r1").resolution
    assert stranger.level is Level.NEW


def test_rewritten_history_of_a_busy_session_is_someone_else() -> None:
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    book.ask("sys task a1 r1").answered("a2")
    book.ask("sys task a1 r1 a2 r2")
    other = book.ask("sys task summary r1 a2 x").resolution
    assert other.session_id != first.session_id


def test_extension_of_a_request_in_flight_is_a_branch_even_under_an_id() -> None:
    book = Playbook()
    first = book.ask("sys task", id="mine")
    beside = book.ask("sys task aside", id="mine")
    first.answered("a1")
    beside.answered("b1")
    after = book.ask("sys task a1 r1", id="mine").resolution
    beside_after = book.ask("sys task aside b1 s1", id="mine").resolution
    assert beside.resolution.parent_session_id == first.resolution.session_id
    assert after.session_id == first.resolution.session_id
    assert (beside_after.session_id, beside_after.turn) == (beside.resolution.session_id, 2)
    assert (beside_after.kind, beside_after.matched_messages) == (TurnKind.CONTINUATION, 4)


def test_same_id_same_body_is_one_turn() -> None:
    book = Playbook()
    first = book.ask("sys task", id="mine")
    again = book.ask("sys task", id="mine").resolution
    first.answered("a1")
    once_more = book.ask("sys task", id="mine").resolution
    assert [(r.kind, r.turn) for r in (again, once_more)] == [(TurnKind.RETRY, 1)] * 2


def test_side_call_that_is_continued_was_the_session() -> None:
    """Title and main call both without tools, the title first."""
    book = Playbook()
    text = {"id": "mine", "has_tools": False}
    title = book.ask("title-sys task", **text).answered("A title")
    main = book.ask("sys task", **text).answered("a1")
    second = book.ask("sys task a1 r1", **text).answered("a2")
    third = book.ask("sys task a1 r1 a2 r2", **text).resolution
    assert main.kind is TurnKind.SIDE
    assert [r.kind for r in (second, third)] == [TurnKind.CONTINUATION] * 2
    assert third.session_id == title.session_id


def test_handoff_keeps_the_session() -> None:
    """Another system prompt, the same history: tool results come back, so it is the same run."""
    book = Playbook()
    first = book.ask("triage-sys task", id="mine").answered("transfer", "c1")
    second = book.ask("expert-sys task transfer r1", id="mine", echoed_call_ids=("c1",)).resolution
    assert (second.session_id, second.kind) == (first.session_id, TurnKind.CONDENSED)


def test_fresh_start_under_an_id_that_awaits_nothing() -> None:
    book = Playbook()
    first = book.ask("sys task", id="mine").answered("done")
    cleared = book.ask("new-sys new-task", id="mine").resolution
    assert (cleared.session_id, cleared.kind) == (first.session_id, TurnKind.CONDENSED)


def test_rewind_to_an_earlier_request_under_an_id_and_back() -> None:
    book = Playbook()
    first = book.ask("sys task", id="mine").answered("a1")
    book.ask("sys task a1 r1", id="mine").answered("a2")
    rewound = book.ask("sys task", id="mine").answered("b1")
    back = book.ask("sys task a1 r1 a2 r2", id="mine").resolution
    assert [(r.session_id, r.kind) for r in (rewound, back)] == [(first.session_id, TurnKind.CONDENSED)] * 2
    assert [r.turn for r in (rewound, back)] == [3, 4]
    assert back.matched_messages == 5


def test_title_of_the_same_words_is_still_no_turn() -> None:
    book = Playbook()
    book.ask("sys task", id="mine", has_tools=False)
    main = book.ask("sys task", id="mine").resolution
    assert (main.kind, main.turn) == (TurnKind.FIRST, 1)


def test_call_taken_for_a_title_that_is_continued_was_the_session() -> None:
    book = Playbook()
    opener = book.ask("sys task", id="mine", has_tools=False).answered("a1")
    book.ask("helper-sys task", id="mine").answered("h1")
    second = book.ask("sys task a1 r1", id="mine", has_tools=False).resolution
    assert (second.session_id, second.kind) == (opener.session_id, TurnKind.CONTINUATION)


def test_rewind_under_an_id_is_the_same_session() -> None:
    book = Playbook()
    first = book.ask("sys task", id="mine").answered("a1")
    book.ask("sys task a1 ask-2", id="mine").answered("a2")
    edited = book.ask("sys task a1 ask-2-edited", id="mine").resolution
    assert (edited.session_id, edited.kind, edited.matched_messages) == (
        first.session_id,
        TurnKind.CONDENSED,
        3,
    )


def test_our_own_session_id_is_an_id() -> None:
    """A client that sends back what it read in our header."""
    book = Playbook()
    first = book.ask("sys task").answered("a1")
    named = book.ask("sys task a1 r1", id=first.session_id).resolution
    assert (named.session_id, named.kind, named.level) == (
        first.session_id,
        TurnKind.CONTINUATION,
        Level.HEADER,
    )


def test_response_id_under_an_explicit_id() -> None:
    book = Playbook()
    conversation = {"id": "conv", "schema": Schema.RESPONSES}
    first = book.ask("user", **conversation).answered("a1", response_id="r-1")
    second = book.ask("more", previous_response_id="r-1", **conversation).resolution
    assert (second.session_id, second.kind, second.turn) == (first.session_id, TurnKind.CONTINUATION, 2)


def test_family_never_merges() -> None:
    book = Playbook()
    one = book.ask("sys task", family="key").resolution
    two = book.ask("sys other", family="key").resolution
    assert one.session_id != two.session_id


def test_tenants_never_meet() -> None:
    book = Playbook()
    mine = book.ask("sys task", tenant="a", schema=Schema.RESPONSES).answered("a1", "c1", response_id="r-1")
    by_prefix = book.ask("sys task a1 r1", tenant="b", schema=Schema.RESPONSES).resolution
    by_call = book.ask("x", tenant="b", schema=Schema.RESPONSES, echoed_call_ids=("c1",)).resolution
    by_response = book.ask("y", tenant="b", schema=Schema.RESPONSES, previous_response_id="r-1").resolution
    by_our_id = book.ask("z", tenant="b", id=mine.session_id).resolution
    theirs = (by_prefix, by_call, by_response, by_our_id)
    assert len({mine.session_id, *(r.session_id for r in theirs)}) == 5
    assert [r.kind for r in theirs] == [TurnKind.FIRST] * 4
    one, two = (
        book.ask("s", tenant="a", id="same").resolution,
        book.ask("s", tenant="b", id="same").resolution,
    )
    assert one.session_id != two.session_id


def test_schemas_never_meet() -> None:
    book = Playbook()
    chat = book.ask("sys task", schema=Schema.CHAT).answered("a1")
    other = book.ask("sys task a1 r1", schema=Schema.MESSAGES).resolution
    assert other.session_id != chat.session_id
    assert other.matched_messages == 0


def test_explicit_ids_survive_a_restart_and_others_never_repeat() -> None:
    runs = [Playbook(SessionIndex(IdentityLimits(), salt)) for salt in (b"monday", b"tuesday")]
    named = [run.ask("sys task", id="conv").resolution.session_id for run in runs]
    numbered = [run.ask("sys task").resolution.session_id for run in runs]
    assert named[0] == named[1]
    assert numbered[0] != numbered[1]


def test_one_course_of_events_has_one_outcome() -> None:
    def run() -> list[str]:
        book = Playbook()
        return [book.ask("sys task").answered(f"a{n}").session_id for n in range(5)]

    assert run() == run()


def test_turn_id_cannot_be_in_flight_twice() -> None:
    book = Playbook()
    book.ask("sys task")
    book.sent = 0
    with pytest.raises(AssertionError, match="turn 1 is in flight already"):
        book.ask("sys other")
