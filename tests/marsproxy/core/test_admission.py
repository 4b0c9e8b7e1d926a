"""The hold queue by itself, and the footprint."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.admission import MAX_SERVED_TENANTS, HoldQueue, footprint
from marsproxy.core.lanes import HeldTurn
from marsproxy.core.priority import TurnClass

WEIGHTS = {"light": 1.0, "heavy": 3.0}


def held(turn_id: str, deadline_s: float, tenant: str = "", arrived_s: float = 0.0) -> HeldTurn:
    return HeldTurn(turn_id, "session", TurnClass.NEW, arrived_s, deadline_s, tenant)


def queue_of(*turns: HeldTurn, weights: dict[str, float] | None = None) -> HoldQueue:
    queue = HoldQueue(weights)
    for turn in turns:
        queue.add(turn)
    return queue


def order(queue: HoldQueue) -> list[str]:
    return [held.turn_id for held in queue]


def serve_head(queue: HoldQueue, amount: float) -> HeldTurn:
    """The first candidate goes, as the policy lets it go."""
    head = queue.windows(look_ahead=0, max_overtakes=0)[0].turns[0]
    queue.serve(head.tenant, amount)
    queue.remove(head.turn_id)
    return head


# -- one tenant -----------------------------------------------------------------------------------


def test_the_queue_is_in_order_of_deadline_and_then_of_arrival():
    queue = queue_of(held("late", 30.0), held("first", 10.0), held("second", 10.0), held("soon", 5.0))
    assert order(queue) == ["soon", "first", "second", "late"]


@given(st.lists(st.floats(0, 400), max_size=30))
def test_the_position_of_a_turn_is_its_place_in_the_queue(deadlines):
    queue = HoldQueue()
    for number, deadline_s in enumerate(deadlines):
        newcomer = held(f"t{number}", deadline_s)
        queue.add(newcomer)
        assert order(queue)[queue.position(newcomer) - 1] == newcomer.turn_id


def test_every_turn_that_is_passed_remembers_it():
    queue = queue_of(*(held(f"n{number}", float(number)) for number in range(4)))
    window = queue.windows(look_ahead=3, max_overtakes=9)[0].turns
    queue.overtake(window[2], window[:2])
    assert [held.overtaken for held in queue] == [1, 1, 0, 0]
    assert len(queue.windows(look_ahead=3, max_overtakes=2)[0].turns) == 4
    assert [held.turn_id for held in queue.windows(look_ahead=3, max_overtakes=1)[0].turns] == ["n0"]


def test_a_turn_does_not_pass_itself():
    (turn,) = queue_of(held("n", 0.0))
    HoldQueue().overtake(turn, [turn])
    assert turn.overtaken == 0


def test_no_more_than_the_look_ahead_are_tried():
    queue = queue_of(*(held(f"n{number}", float(number)) for number in range(9)))
    assert [held.turn_id for held in queue.windows(look_ahead=2, max_overtakes=9)[0].turns] == [
        "n0",
        "n1",
        "n2",
    ]
    assert [held.turn_id for held in queue.windows(look_ahead=0, max_overtakes=9)[0].turns] == ["n0"]
    assert HoldQueue().windows(look_ahead=3, max_overtakes=9) == []


def test_a_removed_turn_is_gone_once():
    queue = queue_of(held("n1", 0.0), held("r1", 1.0))
    removed = queue.remove("r1")
    assert removed is not None
    assert removed.turn_id == "r1"
    assert queue.remove("r1") is None
    assert order(queue) == ["n1"]
    assert "r1" not in queue


def test_the_longest_waiting_are_found_whatever_their_deadlines():
    queue = queue_of(
        held("n1", 900.0, arrived_s=0.0), held("r1", 3.0, arrived_s=1.0), held("n2", 2.0, "b", 2.0)
    )
    assert queue.longest_waiting_s() == 0.0
    assert [held.turn_id for held in queue.held_too_long(10.0, now=11.0)] == ["n1", "r1"]
    assert HoldQueue().longest_waiting_s() is None


# -- tenants --------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([1_000.0, 5_000.0, 20_000.0]), min_size=60, max_size=60))
def test_while_both_wait_the_service_of_two_tenants_is_as_their_weights(amounts):
    """Start-time fair queueing: what two have had over their weights differs by no more than the largest
    that each was given at once, however the sizes fall, so the quotient comes to that of the weights."""
    queue = queue_of(
        *(held(f"{tenant}-{number}", float(number), tenant) for number in range(60) for tenant in WEIGHTS),
        weights=WEIGHTS,
    )
    served = dict.fromkeys(WEIGHTS, 0.0)
    bound = sum(20_000.0 / weight for weight in WEIGHTS.values())
    for amount in amounts[:-1]:
        served[serve_head(queue, amount).tenant] += amount
        assert abs(served["light"] / 1 - served["heavy"] / 3) <= bound


def test_many_equal_services_come_to_the_quotient_of_the_weights():
    queue = queue_of(
        *(held(f"{tenant}-{number}", float(number), tenant) for number in range(400) for tenant in WEIGHTS),
        weights=WEIGHTS,
    )
    tenants = [serve_head(queue, 1_000.0).tenant for _ in range(400)]
    assert Fraction(tenants.count("heavy"), tenants.count("light")) == 3


def test_a_tenant_that_comes_back_has_no_credit():
    """It had nothing waiting while another was served a hundred times; now they take turns."""
    queue = queue_of(*(held(f"busy-{number}", 0.0, "busy") for number in range(110)))
    queue.add(held("back-0", 0.0, "back"))
    assert serve_head(queue, 1.0).tenant == "busy"
    assert serve_head(queue, 1.0).tenant == "back"
    for _ in range(99):
        serve_head(queue, 1.0)
    for number in range(1, 5):
        queue.add(held(f"back-{number}", 0.0, "back"))
    assert [serve_head(queue, 1.0).tenant for _ in range(6)].count("back") == 3


def test_a_tenant_that_comes_back_has_no_debt():
    """It was served a hundred times while it was alone; who comes now does not get a hundred turns ahead."""
    queue = queue_of(*(held(f"old-{number}", 0.0, "old") for number in range(100)))
    for _ in range(100):
        serve_head(queue, 1.0)
    for number in range(10):
        queue.add(held(f"new-{number}", 0.0, "new"))
    assert serve_head(queue, 1.0).tenant == "new"
    for number in range(100, 110):
        queue.add(held(f"old-{number}", 0.0, "old"))
    assert [serve_head(queue, 1.0).tenant for _ in range(8)].count("old") == 4


def test_who_empties_its_lane_does_not_get_ahead_by_it():
    """A tenant whose turns come one by one is no better off than one whose turns wait together."""
    queue = queue_of(*(held(f"many-{number}", 0.0, "many") for number in range(20)))
    served = []
    for number in range(10):
        queue.add(held(f"one-{number}", 0.0, "one"))
        served += [serve_head(queue, 1.0).tenant for _ in range(2)]
        if "one" not in served[-2:]:
            queue.remove(f"one-{number}")
    assert abs(served.count("one") - served.count("many")) <= 1


def test_other_tenants_heads_are_tried_too_when_the_first_lane_is_stuck():
    queue = queue_of(
        *(held(f"a-{number}", float(number), "a") for number in range(9)),
        held("b-0", 50.0, "b"),
        held("c-0", 60.0, "c"),
    )
    window = [held.turn_id for held in queue.windows(look_ahead=2, max_overtakes=9)[0].turns]
    assert window == ["a-0", "a-1", "a-2", "b-0", "c-0"]


def test_the_position_counts_tenants_that_take_turns():
    queue = queue_of(
        held("a-0", 0.0, "a"), held("a-1", 1.0, "a"), held("b-0", 0.0, "b"), held("b-1", 1.0, "b")
    )
    positions = {held.turn_id: queue.position(held) for held in queue}
    assert positions == {"a-0": 1, "b-0": 2, "a-1": 3, "b-1": 4}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 100)), min_size=1, max_size=30))
def test_positions_are_within_the_queue_and_the_first_is_the_head(turns):
    queue = queue_of(*(held(f"t{n}", deadline_s, tenant) for n, (tenant, deadline_s) in enumerate(turns)))
    positions = {held.turn_id: queue.position(held) for held in queue}
    head = queue.windows(look_ahead=0, max_overtakes=9)[0].turns[0]
    assert all(1 <= position <= len(queue) for position in positions.values())
    assert [turn_id for turn_id, position in positions.items() if position == 1] == [head.turn_id]


def test_what_is_remembered_of_tenants_that_left_is_bounded():
    queue = HoldQueue()
    for number in range(MAX_SERVED_TENANTS + 10):
        queue.add(held(f"t{number}", 0.0, f"tenant-{number}"))
        serve_head(queue, 1.0)
    assert len(queue) == 0
    assert len(queue._served) <= MAX_SERVED_TENANTS
    assert len(queue._lanes) == 0


# -- sizes ----------------------------------------------------------------------------------------


@given(st.integers(0, 200_000), st.floats(0, 200_000), st.floats(0, 1))
def test_a_footprint_lies_between_the_context_and_the_expected_peak(context, peak, beta):
    reserved = footprint(context, peak, beta)
    assert context <= reserved <= max(context, peak) + 1e-6


@pytest.mark.parametrize(("beta", "reserved"), [(0.0, 10_000), (0.5, 25_000), (1.0, 40_000)])
def test_a_footprint_is_the_context_and_a_share_of_the_growth(beta, reserved):
    assert footprint(10_000, 40_000, beta) == reserved
    assert footprint(50_000, 40_000, beta) == 50_000
