import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.slots import MIN_CPU, Offer, SlotQueue


def test_grants_at_once_while_there_is_room() -> None:
    queue = SlotQueue(2, queue_limit=10)
    assert queue.offer("a", "s", 1, now=0) is Offer.GRANTED
    assert queue.offer("b", "s", 1, now=0) is Offer.GRANTED
    assert queue.offer("c", "s", 1, now=0) is Offer.QUEUED
    assert queue.end("a", now=1) == ["c"]
    assert repr(queue) == "<SlotQueue [slots: 2.0/2.0 | running: 2, queued: 0]>"


def test_full_queue_remembers_nothing() -> None:
    queue = SlotQueue(1, queue_limit=1)
    queue.offer("a", "s", 1, now=0)
    queue.offer("b", "s", 1, now=0)
    assert queue.offer("c", "s", 1, now=0) is Offer.FULL
    with pytest.raises(KeyError):
        queue.end("c", now=1)
    assert queue.end("a", now=1) == ["b"]


def test_wait_follows_the_latest_starts() -> None:
    """A fifth of the way with each; and fades when nothing starts any more."""
    queue = SlotQueue(1, queue_limit=10)
    assert queue.wait_s(0.0) is None
    queue.offer("a", "s", 1, now=0)
    assert queue.wait_s(0.0) == 0
    queue.offer("b", "s", 1, now=0)
    queue.end("a", now=10)
    assert queue.wait_s(10.0) == pytest.approx(2.0)
    queue.end("b", now=10)
    assert queue.wait_s(20.0) == pytest.approx(1.0)


def test_wait_is_at_least_that_of_who_still_waits() -> None:
    """Nothing starts, so no mean would tell."""
    queue = SlotQueue(1, queue_limit=10)
    for name, now in (("a", 0.0), ("b", 5.0), ("c", 50.0)):
        queue.offer(name, "s", 1, now=now)
    assert queue.wait_s(65.0) == 60.0
    queue.end("b", now=65.0)
    assert queue.wait_s(65.0) == 15.0


def test_no_queue_at_all() -> None:
    queue = SlotQueue(1, queue_limit=0)
    assert queue.offer("a", "s", 1, now=0) is Offer.GRANTED
    assert queue.offer("b", "s", 1, now=0) is Offer.FULL


def test_sessions_take_turns() -> None:
    """A session with many commands does not make one with few wait for all of them."""
    queue = SlotQueue(1, queue_limit=10)
    queue.offer("x", "other", 1, now=0)
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        queue.offer(name, name[0], 1, now=0)
    assert [queue.position(name) for name in ("a1", "b1", "c1", "a2", "b2", "a3")] == [0, 1, 2, 3, 4, 5]
    order = queue.end("x", now=1)
    while order[-1:] and (following := queue.end(order[-1], now=2)):
        order += following
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_wide_command_is_not_overtaken() -> None:
    queue = SlotQueue(2, queue_limit=10)
    queue.offer("a", "s", 1, now=0)
    queue.offer("wide", "t", 2, now=0)
    queue.offer("narrow", "u", 1, now=0)
    assert queue.used == 1
    assert queue.end("a", now=1) == ["wide"]
    assert queue.end("wide", now=2) == ["narrow"]


def test_giving_up_a_wide_head_lets_the_rest_go() -> None:
    queue = SlotQueue(2, queue_limit=10)
    queue.offer("a", "s", 1, now=0)
    queue.offer("wide", "t", 2, now=0)
    queue.offer("narrow", "u", 1, now=0)
    assert queue.end("wide", now=1) == ["narrow"]


def test_sleepers_are_charged_too() -> None:
    queue = SlotQueue(1, queue_limit=100)
    offers = [queue.offer(str(n), "s", 0, now=0) for n in range(21)]
    assert offers == [Offer.GRANTED] * 20 + [Offer.QUEUED]


def test_retry_after_follows_run_times() -> None:
    queue = SlotQueue(1, queue_limit=0)
    assert queue.retry_after_s() == 1
    queue.offer("a", "s", 1, now=0)
    queue.end("a", now=30)
    queue.offer("b", "s", 1, now=30)
    assert queue.retry_after_s() == 30
    queue.end("b", now=100_000)
    queue.offer("c", "s", 1, now=100_000)
    assert queue.retry_after_s() == 60


CPUS = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 1.0, 1.7, 2.0, 4.0])
STEPS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), CPUS), max_size=120)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS, slots=st.sampled_from([4, 4.5, 8]), limit=st.integers(0, 12))
def test_no_order_of_offers_and_ends_breaks_the_accounts(
    steps: list[tuple[int, int, float]], slots: float, limit: int
) -> None:
    """Slots are never over-committed, each exec is granted at most once, nothing is stuck, nothing leaks."""
    queue = SlotQueue(slots, limit)
    waiting: dict[str, int] = {}
    holding: dict[str, float] = {}
    cpu_of: dict[str, float] = {}
    granted_ever: set[str] = set()

    def grant(ids: list[str]) -> None:
        for exec_id in ids:
            assert exec_id not in granted_ever
            granted_ever.add(exec_id)
            del waiting[exec_id]
            holding[exec_id] = max(cpu_of[exec_id], MIN_CPU)

    for now, (pick, session, cpu) in enumerate(steps):
        live = [*waiting, *holding]
        if pick < 15 and live:
            exec_id = live[pick % len(live)]
            was_waiting = waiting.pop(exec_id, None) is not None
            if not was_waiting:
                del holding[exec_id]
            grant(queue.end(exec_id, now))
        else:
            exec_id = f"e{now}"
            cpu_of[exec_id] = cpu
            match queue.offer(exec_id, session, cpu, now):
                case Offer.GRANTED:
                    waiting[exec_id] = session
                    grant([exec_id])
                case Offer.QUEUED:
                    waiting[exec_id] = session
                case Offer.FULL:
                    assert len(waiting) == limit
        assert sum(holding.values()) <= slots + 1e-9
        assert queue.used == pytest.approx(sum(holding.values()))
        assert (queue.running, queue.queued) == (len(holding), len(waiting))
        assert len(waiting) <= limit
        assert holding or not waiting
        assert sorted(queue.position(e) for e in waiting) == list(range(len(waiting)))  # type: ignore[type-var]

    while live := [*holding]:
        del holding[live[0]]
        grant(queue.end(live[0], 1000))
    assert not waiting
    assert repr(queue) == f"<SlotQueue [slots: 0.0/{float(slots)} | running: 0, queued: 0]>"
