"""The hold queue by itself, and the footprint."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.admission import HoldQueue, footprint
from marsproxy.core.lanes import HeldTurn
from marsproxy.core.priority import TurnClass


def queue_of(*turns: tuple[str, TurnClass, float]) -> HoldQueue:
    queue = HoldQueue()
    for turn_id, turn_class, arrived_s in turns:
        queue.add(HeldTurn(turn_id, "session", turn_class, arrived_s))
    return queue


def order(queue: HoldQueue) -> list[str]:
    return [held.turn_id for held in queue]


def test_returns_are_before_new_sessions_unless_those_waited_much_longer():
    queue = queue_of(
        ("n1", TurnClass.NEW, 0.0),
        ("n2", TurnClass.NEW, 500.0),
        ("r1", TurnClass.RETURN, 539.0),
        ("r2", TurnClass.RETURN, 541.0),
    )
    assert order(queue) == ["r1", "n1", "r2", "n2"]


@given(
    st.lists(st.tuples(st.sampled_from([TurnClass.NEW, TurnClass.RETURN]), st.floats(0, 400)), max_size=30)
)
def test_the_position_of_a_newcomer_is_its_place_in_the_queue(steps):
    queue, now = HoldQueue(), 0.0
    for number, (turn_class, pause_s) in enumerate(steps):
        now += pause_s
        held = HeldTurn(f"t{number}", "session", turn_class, now)
        queue.add(held)
        assert order(queue)[queue.position_of_latest(held) - 1] == held.turn_id


def test_every_turn_that_is_passed_remembers_it():
    queue = queue_of(*((f"n{number}", TurnClass.NEW, float(number)) for number in range(4)))
    passer = list(queue)[2]
    queue.overtake(passer)
    assert [held.overtaken for held in queue] == [1, 1, 0, 0]
    assert len(queue.candidates(look_ahead=3, max_overtakes=2)) == 4
    assert [held.turn_id for held in queue.candidates(look_ahead=3, max_overtakes=1)] == ["n0"]


def test_a_removed_turn_is_gone_once():
    queue = queue_of(("n1", TurnClass.NEW, 0.0), ("r1", TurnClass.RETURN, 1.0))
    removed = queue.remove("r1")
    assert removed is not None
    assert removed.turn_id == "r1"
    assert queue.remove("r1") is None
    assert order(queue) == ["n1"]


def test_the_longest_waiting_of_both_lanes_are_found():
    queue = queue_of(("n1", TurnClass.NEW, 0.0), ("r1", TurnClass.RETURN, 1.0), ("n2", TurnClass.NEW, 2.0))
    assert queue.longest_waiting_s() == 0.0
    assert {held.turn_id for held in queue.held_too_long(10.0, now=11.0)} == {"n1", "r1"}
    assert HoldQueue().longest_waiting_s() is None


@given(st.integers(0, 200_000), st.floats(0, 200_000), st.floats(0, 1))
def test_a_footprint_lies_between_the_context_and_the_expected_peak(context, peak, beta):
    reserved = footprint(context, peak, beta)
    assert context <= reserved <= max(context, peak) + 1e-6
