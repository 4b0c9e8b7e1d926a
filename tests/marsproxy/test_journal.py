"""The journal of a process by itself."""

from marsproxy.core.events import TimerFired
from marsproxy.core.shared_state import Happening, MemberJoined, MemberLeft, SharedState
from marsproxy.journal import MemoryJournal


class Told:
    def __init__(self) -> None:
        self.records: list[tuple[Happening, str, float]] = []

    @property
    def state(self) -> SharedState:
        raise NotImplementedError

    def applied(self, happening: Happening, member: str, now: float) -> None:
        self.records.append((happening, member, now))

    def adopt(self, state: SharedState, now: float) -> None:
        raise NotImplementedError


async def test_a_record_is_applied_at_once_and_in_order() -> None:
    replica, times = Told(), iter((1.0, 2.0))
    journal = MemoryJournal(replica, clock=lambda: next(times))
    journal.append(TimerFired())
    assert replica.records == [(MemberJoined("only"), "only", 1.0), (TimerFired(), "only", 1.0)]
    journal.append(MemberLeft("other"))
    await journal.settle()
    assert replica.records[2:] == [(MemberLeft("other"), "only", 2.0)]
    assert journal.leads
