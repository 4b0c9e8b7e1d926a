"""Sorted lists against looking at everything."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.lanes import HeldTurn, Lanes
from marsproxy.core.priority import TurnClass

TURNS = st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 50), st.booleans()), max_size=40)


@given(TURNS)
def test_orders_and_places_are_those_that_looking_at_every_turn_would_find(steps):
    """Each step adds a turn; some serve the first lane, others take its first turn away."""
    lanes, held = Lanes(), []
    for number, (tenant, deadline_s, is_served) in enumerate(steps):
        turn = HeldTurn(f"t{number}", "s", TurnClass.NEW, 0.0, deadline_s, tenant, number=number)
        lanes.add(lanes.get(tenant) or lanes.open(tenant, deadline_s, number), turn)
        held.append(turn)
        if is_served:
            (lane,) = lanes.first(1)
            lanes.move(lane, lane.tag + 10.0)
        elif number % 3 == 0:
            (lane,) = lanes.first(1)
            held.remove(lane.turns[0])
            lanes.remove(lane, lane.turns[0])
        in_order = sorted({turn.tenant for turn in held}, key=lambda tenant: lanes.get(tenant).order)
        assert [lane.turns[0].tenant for lane in lanes] == in_order
        assert [lane.order for lane in lanes.first(3)] == [lane.order for lane in lanes][:3]
        for turn in held:
            assert lanes.ahead_of(turn) == ahead_of(turn, held, in_order)


def ahead_of(turn: HeldTurn, held: list[HeldTurn], tenants: list[str]) -> int:
    """In each round every lane gives one turn; lanes before this one have had one more."""
    rounds = sum(other.tenant == turn.tenant and other.key < turn.key for other in held)
    mine = tenants.index(turn.tenant)
    waiting = [sum(other.tenant == tenant for other in held) for tenant in tenants]
    return rounds + sum(
        min(waiting[place], rounds + (place < mine)) for place in range(len(tenants)) if place != mine
    )
