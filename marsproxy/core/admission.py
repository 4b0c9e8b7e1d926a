"""Who waits, and who may go next. Knows sizes and deadlines; knows nothing of turns already running."""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

from marsproxy.core.commands import Reason
from marsproxy.core.priority import DELAY_S, TurnClass


def footprint(context_tokens: int, expected_peak: float, beta: float) -> float:
    """Tokens to reserve for a session: its context and part of the growth still to come.

    ``footprint = context + beta * max(0, peak - context)``. The context alone would admit until the
    pool collapses: sessions start at a few per cent of what they grow to.
    """
    return context_tokens + beta * max(0.0, expected_peak - context_tokens)


@dataclass(slots=True)
class HeldTurn:
    turn_id: str
    session_id: str
    turn_class: TurnClass
    arrived_s: float
    reason: Reason = Reason.BEHIND_OTHERS
    overtaken: int = 0

    @property
    def deadline_s(self) -> float:
        """The queue's order. As the engine's (see ``priority``), but from this turn's arrival on."""
        return self.arrived_s + DELAY_S[self.turn_class]


class HoldQueue:
    """Held turns by deadline: returns before new sessions, unless one of those has waited very long.

    One lane each for returns and new sessions. Within a lane the order of arrival is the order of
    deadlines, so nothing needs sorting.
    """

    def __init__(self) -> None:
        self._returns: OrderedDict[str, HeldTurn] = OrderedDict()
        self._new: OrderedDict[str, HeldTurn] = OrderedDict()

    def __len__(self) -> int:
        return len(self._returns) + len(self._new)

    def __iter__(self) -> Iterator[HeldTurn]:
        return heapq.merge(self._returns.values(), self._new.values(), key=lambda held: held.deadline_s)

    def add(self, held: HeldTurn) -> None:
        """``held`` has arrived just now: nobody in its lane came later."""
        lane = self._new if held.turn_class is TurnClass.NEW else self._returns
        lane[held.turn_id] = held

    def remove(self, turn_id: str) -> HeldTurn | None:
        return self._returns.pop(turn_id, None) or self._new.pop(turn_id, None)

    def position_of_latest(self, held: HeldTurn) -> int:
        """Where the last of a lane stands; 1 is next. Counts one by one only new turns that are overdue."""
        if held.turn_class is TurnClass.NEW:
            return len(self)
        overdue = takewhile(lambda new: new.deadline_s < held.deadline_s, self._new.values())
        return len(self._returns) + sum(1 for _ in overdue)

    def candidates(self, look_ahead: int, max_overtakes: int) -> list[HeldTurn]:
        """The turns to try, in order: the head, and a few behind it unless it was passed too often."""
        window = list(islice(self, 1 + look_ahead))
        if window and window[0].overtaken >= max_overtakes:
            return window[:1]
        return window

    def overtake(self, passer: HeldTurn) -> None:
        """``passer`` is going although others were before it. It is a candidate, so they are few."""
        for held in self:
            if held is passer:
                return
            held.overtaken += 1

    def held_too_long(self, max_hold_s: float, now: float) -> list[HeldTurn]:
        """Summed as for the timer that asks: a difference could be off by a rounding, and never be due."""
        return [
            held
            for lane in (self._returns, self._new)
            for held in takewhile(lambda held: held.arrived_s + max_hold_s <= now, lane.values())
        ]

    def longest_waiting_s(self) -> float | None:
        """When the turn that has waited longest arrived."""
        heads = [next(iter(lane.values())).arrived_s for lane in (self._returns, self._new) if lane]
        return min(heads, default=None)
