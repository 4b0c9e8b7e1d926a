"""Who of those that wait goes next: virtual deadlines, the look-ahead and its bound, tenants."""

from dataclasses import replace
from typing import Any

from marsproxy.core.commands import ForwardTurn, Reason
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policy import RETURN_WORK_SHARE
from tests.marsproxy.core.playbook import (
    ANY,
    STEADY,
    Foretold,
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    full_playbook,
    goes,
    waits,
)


def test_a_cold_return_is_due_as_soon_as_if_it_had_come_with_what_is_left_of_its_work():
    """100 seconds of work at a slack of 1: it passes a new session that came less than the rest before."""
    comes_s = 3 + 100 * (1 - RETURN_WORK_SHARE)
    (
        full_playbook(deadline_slack=1.0, warm_share=1.0, idle_gap_s=1000.0)
        .at(2, answers("a1"))
        .at(2, arrives("g1"), goes("g1"))
        .at(2, calls_tool("b1"))
        .at(2, arrives("early1"), waits("early1"))
        .at(4, arrives("late1"), waits("late1", position=2))
        .at(comes_s, arrives("a2"), waits("a2", position=2))
        .at(101, answers("c1"), goes("early1"))
        .at(102, answers("d1"), goes("a2", "return"))
        .at(103, answers("e1"), goes("late1"))
    )


def test_a_session_with_a_history_that_nobody_remembers_is_a_return():
    (
        full_playbook(deadline_slack=1.0)
        .at(2, arrives("h1"), waits("h1"))
        .at(3, arrives("old9", kind=TurnKind.CONTINUATION), waits("old9", position=1))
        .at(4, answers("b1"), goes("old9", "return"))
    )


def test_a_sub_agent_of_a_counted_parent_goes_before_new_sessions():
    (
        full_playbook(deadline_slack=1.0)
        .at(2, arrives("h1"), waits("h1"))
        .at(3, arrives("sub1", parent_session_id="a"), waits("sub1", position=1))
        .at(4, arrives("orphan1", parent_session_id="nobody"), waits("orphan1", position=3))
        .at(5, answers("b1"), goes("sub1", "return"))
        .at(6, answers("c1"), goes("h1"))
    )


def test_a_few_small_ones_may_pass_one_that_does_not_fit():
    (
        full_playbook()
        .at(2, arrives("big1", tokens=40_000), waits("big1"))
        .at(2, arrives("g1"), waits("g1", position=2))
        .at(3, answers("a1"), goes("g1"))
    )


def test_only_the_first_few_are_tried():
    """One large head, three large ones behind it, and a small fifth that would fit."""
    book = full_playbook()
    for position, name in enumerate(["p", "q", "r", "s"], start=1):
        book.at(2, arrives(f"{name}1", tokens=40_000), waits(f"{name}1", position=position))
    book.at(2, arrives("g1"), waits("g1", Reason.BEHIND_OTHERS, position=5))
    book.at(3, answers("a1"))


def test_nobody_passes_a_turn_that_was_passed_often_enough():
    book = full_playbook(max_overtakes=2)
    book.at(2, arrives("big1", tokens=40_000), waits("big1"))
    for position, name in enumerate(["g", "h", "i"], start=2):
        book.at(2, arrives(f"{name}1"), waits(f"{name}1", position=position))
    (
        book.at(3, answers("a1"), goes("g1"))
        .at(4, answers("b1"), goes("h1"))
        .at(5, answers("c1"))
        .at(6, answers("d1"))
        .at(7, answers("e1"), goes("big1"))
    )


def test_returns_that_keep_arriving_do_not_starve_a_new_session():
    """One place, and every minute a return that is due before the new session: until they come too late."""
    book = Playbook(deadline_slack=6.0, max_hold_s=10_000.0)
    book.at(1, arrives("a1", tokens=80_000), goes("a1")).at(1, arrives("new1", tokens=80_000), waits("new1"))
    holder, minute = "a1", 1
    while 60 * minute + 600 * RETURN_WORK_SHARE < 601:
        comer = f"r{minute}-1"
        book.at(60 * minute, arrives(comer, tokens=80_000, kind=TurnKind.CONTINUATION), waits(comer))
        book.at(60 * minute + 1, answers(holder, context=80_000), goes(comer, "return"))
        holder, minute = comer, minute + 1
    late = arrives("late9", tokens=80_000, kind=TurnKind.CONTINUATION)
    book.at(60 * minute, late, waits("late9", position=2))
    book.at(60 * minute + 1, answers(holder, context=80_000), goes("new1"))


def test_two_first_turns_of_one_session_go_together():
    """Best-of-n: when the session is admitted, its other turns are continuations, not further waiters."""
    (
        full_playbook()
        .at(2, arrives("g1"), waits("g1"))
        .at(2, arrives("h1"), waits("h1", position=2))
        .at(2, arrives("g2"), waits("g2", position=3))
        .at(3, answers("a1"), goes("g1"), goes("g2", "continuation"))
    )


def test_a_waiting_turn_that_gives_up_lets_the_next_be_tried():
    book = full_playbook(look_ahead=0)
    book.at(2, answers("a1"))
    book.at(2, arrives("big1", tokens=40_000), waits("big1"))
    book.at(2, arrives("g1"), waits("g1", Reason.BEHIND_OTHERS, position=2))
    book.at(3, aborts("big1"), goes("g1"))


# -- virtual deadlines ----------------------------------------------------------------------------


def ordered_playbook(slack: float = 1.0, **changes: Any) -> Playbook:
    """Jobs of the family ``short`` take 10 seconds, those of ``long`` 1,000."""
    work = Foretold(work_s={"short": 10.0, "long": 1_000.0})
    return full_playbook(deadline_slack=slack, forecast=work, **changes)


def test_short_work_goes_first():
    (
        ordered_playbook()
        .at(2, arrives("l1", family="long"), waits("l1", position=1))
        .at(3, arrives("s1", family="short"), waits("s1", position=1))
        .at(4, answers("a1"), goes("s1"))
        .at(5, answers("b1"), goes("l1"))
    )


def test_of_equal_work_the_smaller_goes_first():
    """It takes less of the pool for as long: three times the size is due after three times as long."""
    (
        full_playbook(deadline_slack=1.0)
        .at(2, arrives("big1", tokens=45_000), waits("big1", position=1))
        .at(3, arrives("g1"), waits("g1", position=1))
        .at(4, answers("a1"), goes("g1"))
    )


def test_a_deadline_does_not_move_so_long_work_has_its_turn():
    """Due at 1,002, before the short work that comes at 993 or later."""
    (
        ordered_playbook(max_hold_s=10_000.0)
        .at(2, arrives("l1", family="long"), waits("l1"))
        .at(991, arrives("s1", family="short"), waits("s1", position=1))
        .at(993, arrives("s2-1", family="short"), waits("s2-1", position=3))
        .at(994, answers("a1"), goes("s1"))
        .at(995, answers("b1"), goes("l1"))
        .at(996, answers("c1"), goes("s2-1"))
    )


def test_without_slack_they_go_in_the_order_in_which_they_came():
    (
        ordered_playbook(slack=0.0)
        .at(2, arrives("l1", family="long"), waits("l1"))
        .at(3, arrives("s1", family="short"), waits("s1", position=2))
        .at(4, answers("a1"), goes("l1"))
    )


def test_with_the_order_switched_off_returns_are_nine_minutes_ahead_of_new_sessions():
    parts = replace(STEADY, order=False)
    (
        ordered_playbook(parts=parts, max_hold_s=10_000.0)
        .at(2, arrives("l1", family="long"), waits("l1"))
        .at(5, arrives("s1", family="short"), waits("s1", position=2))
        .at(541, arrives("old9", kind=TurnKind.CONTINUATION), waits("old9", position=1))
        .at(543, arrives("late9", kind=TurnKind.CONTINUATION), waits("late9", position=3))
        .at(544, answers("a1"), goes("old9", "return"))
        .at(545, answers("b1"), goes("l1"))
        .at(546, answers("c1"), goes("late9", "return"))
    )


# -- tenants --------------------------------------------------------------------------------------


def test_two_tenants_take_turns_by_weight():
    """Each session is as large as another, so the tenant of weight 3 starts three to the other's one."""
    book = full_playbook(tenant_weights={"heavy": 3.0})
    for number, tenant in enumerate(["light"] * 4 + ["heavy"] * 9):
        name = f"{tenant}-{number}-"
        book.at(2, arrives(f"{name}1", tenant=tenant), waits(f"{name}1", ANY, position=ANY))
    running, began = [f"{name}1" for name in "abcdef"], []
    for second in range(12):
        commands = book.policy.handle(answers(running.pop(0)), 3.0 + second)
        (turn_id,) = [command.turn_id for command in commands if isinstance(command, ForwardTurn)]
        running.append(turn_id)
        began.append(turn_id.split("-")[0])
    assert [began[:4].count("heavy"), began[:8].count("heavy"), began[:12].count("heavy")] == [3, 6, 9]


def test_a_tenant_with_many_waiting_does_not_keep_another_out():
    book = full_playbook()
    for number in range(5):
        name = f"many-{number}-"
        book.at(2, arrives(f"{name}1", tenant="many"), waits(f"{name}1", ANY, position=number + 1))
    (
        book.at(3, arrives("one1", tenant="one"), waits("one1", position=2))
        .at(4, answers("a1"), goes("many-0-1"))
        .at(5, answers("b1"), goes("one1"))
    )
