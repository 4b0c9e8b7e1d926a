"""One hint for each session, the latest, and never one that came too late."""

import pytest

from backend_patch.protocol import KvOp, KvRequest
from marsproxy.hint_queue import HintQueue
from marsproxy.patch_metrics import Dropped


class Rig:
    def __init__(self, limit: int = 10) -> None:
        self.dropped: list[tuple[KvOp, Dropped]] = []
        self.queue = HintQueue(limit, lambda op, why: self.dropped.append((op, why)))

    def put(self, *hints: str) -> None:
        """Each like ``pin a``."""
        for hint in hints:
            op, session = hint.split()
            self.queue.put(KvRequest(KvOp(op), session))

    def take(self, most: int = 100) -> list[str]:
        return [f"{request.op.value} {request.session}" for request in self.queue.take(most)]


def test_the_latest_stands() -> None:
    """In the place of the first."""
    rig = Rig()
    rig.put("pin a", "pin b", "release a")
    assert rig.take() == ["release a", "pin b"]
    assert rig.dropped == [(KvOp.PIN, Dropped.REPLACED)]


def test_an_end_stands_for_all() -> None:
    """Before it and after."""
    rig = Rig()
    rig.put("recycle a", "end a", "pin a", "end a")
    assert rig.take() == ["end a"]
    assert [op for op, _ in rig.dropped] == [KvOp.RECYCLE, KvOp.PIN, KvOp.END]


@pytest.mark.parametrize("op", KvOp)
def test_a_turn_overtakes_whatever_waits(op: KvOp) -> None:
    """Of its own session; what comes after it is about what comes after it."""
    rig = Rig()
    rig.put(f"{op} a", "pin b")
    rig.queue.overtake("a")
    rig.queue.overtake("a")
    rig.put("pin a")
    assert rig.take() == ["pin b", "pin a"]
    assert rig.dropped == [(op, Dropped.OVERTAKEN)]


def test_a_full_queue_drops_the_oldest_release() -> None:
    """Else the oldest."""
    rig = Rig(limit=3)
    rig.put("pin a", "release b", "release c", "end d", "end e", "pin f")
    assert rig.take() == ["end d", "end e", "pin f"]
    assert rig.dropped == [
        (KvOp.RELEASE, Dropped.NO_ROOM),
        (KvOp.RELEASE, Dropped.NO_ROOM),
        (KvOp.PIN, Dropped.NO_ROOM),
    ]


def test_replacing_needs_no_room() -> None:
    rig = Rig(limit=1)
    rig.put("pin a", "release a")
    assert rig.dropped == [(KvOp.PIN, Dropped.REPLACED)]
    assert len(rig.queue) == 1


def test_some_at_a_time() -> None:
    """The oldest first."""
    rig = Rig()
    rig.put("pin a", "pin b", "pin c")
    assert (rig.take(2), rig.take(2), rig.take(2)) == (["pin a", "pin b"], ["pin c"], [])
