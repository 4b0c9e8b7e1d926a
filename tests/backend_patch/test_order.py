"""Who goes first."""

from backend_patch.order import WaitClass, WaitingKey, prefill_key, waiting_key


def key(
    *, goes_first: bool = False, priority: int = 0, wait_class: WaitClass = WaitClass.NEW,
    session_arrival_s: float = 5.0, arrival_s: float = 5.0, number: int = 1,
) -> WaitingKey:  # fmt: skip
    return waiting_key(
        goes_first=goes_first, priority=priority, wait_class=wait_class,
        session_arrival_s=session_arrival_s, arrival_s=arrival_s, number=number,
    )  # fmt: skip


def test_waiting_order() -> None:
    """Each differs from the next in what counts for more than all that follows."""
    order = [
        key(goes_first=True, priority=9, arrival_s=1),
        key(goes_first=True, priority=1, arrival_s=2),
        key(priority=-1, arrival_s=9),
        key(wait_class=WaitClass.WARM, session_arrival_s=9),
        key(wait_class=WaitClass.COLD, session_arrival_s=2, arrival_s=8),
        key(wait_class=WaitClass.COLD, session_arrival_s=3, arrival_s=4),
        key(session_arrival_s=4, arrival_s=9),
        key(arrival_s=5),
        key(arrival_s=5, number=2),
    ]
    assert sorted(order, reverse=True) == order[::-1]
    assert len(set(order)) == len(order)


def test_prefill_order() -> None:
    """Priority, continuations, short rests."""
    order = [
        prefill_key(priority=0, is_continuation=True, remaining_tokens=900),
        prefill_key(priority=0, is_continuation=False, remaining_tokens=10),
        prefill_key(priority=0, is_continuation=False, remaining_tokens=20),
        prefill_key(priority=1, is_continuation=True, remaining_tokens=1),
    ]
    assert sorted(order, reverse=True) == order[::-1]
