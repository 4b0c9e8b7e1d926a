"""Orders of tenants and turns, against sorting everything."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.lanes import HeldTurn, Lanes
from marsproxy.core.priority import TurnClass

steps = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abcd"), st.integers(0, 20)),
    st.tuples(st.just("remove"), st.just(""), st.integers(0, 50)),
    st.tuples(st.just("serve"), st.sampled_from("abcd"), st.integers(0, 9)),
)


def turns_ahead(lanes: Lanes, held: HeldTurn) -> int:
    """By playing it: the lanes take turns, in their order, until it is its."""
    queues = [list(lane.turns) for lane in lanes]
    ahead = 0
    while True:
        for queue in filter(None, queues):
            if queue.pop(0) is held:
                return ahead
            ahead += 1


@given(st.lists(steps, max_size=40))
def test_the_place_of_a_turn_is_what_taking_turns_gives(taken: list[tuple[str, str, int]]) -> None:
    lanes, waiting = Lanes(), []
    for number, (step, tenant, amount) in enumerate(taken):
        lane = lanes.get(tenant)
        if step == "add":
            held = HeldTurn(f"t{number}", "s", TurnClass.NEW, 0.0, float(amount), tenant, number=number)
            lanes.add(lane or lanes.open(tenant, float(amount), number), held)
            waiting.append(held)
        elif step == "remove" and waiting:
            gone = waiting.pop(amount % len(waiting))
            its = lanes.get(gone.tenant)
            assert its is not None
            lanes.remove(its, gone)
        elif step == "serve" and lane is not None:
            lanes.move(lane, lane.tag + amount)
        assert [lanes.ahead_of(held) for held in waiting] == [turns_ahead(lanes, held) for held in waiting]
        assert [lane.order for lane in lanes] == sorted(lane.order for lane in lanes)
        assert lanes.first(2) == list(lanes)[:2]
        assert sorted(held.turn_id for lane in lanes for held in lane.turns) == sorted(
            held.turn_id for held in waiting
        )
        assert all(lane.keys == sorted(held.key for held in lane.turns) for lane in lanes)
        assert len(lanes) == len({held.tenant for held in waiting})
