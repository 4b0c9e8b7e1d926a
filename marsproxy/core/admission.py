"""Who waits, and who may go next. Knows sizes and budgets; knows nothing of turns already running."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from marsproxy.core.commands import Reason
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import SessionState


def footprint(session: SessionState, context_tokens: int, expected_peak: float, beta: float) -> float:
    """Tokens to reserve for a session: its context and part of the growth still to come.

    ``footprint = context + beta * max(0, peak - context)``. The context alone would admit until the
    pool collapses: sessions start at a few per cent of what they grow to.
    """
    context = max(session.context_tokens, context_tokens)
    return context + beta * max(0.0, expected_peak - context)


@dataclass(slots=True)
class HeldTurn:
    turn_id: str
    session_id: str
    turn_class: TurnClass
    arrived_s: float
    reason: Reason = Reason.BEHIND_OTHERS
    overtaken: int = 0


class HoldQueue:
    """Held turns, returns before new sessions, first come first served within each."""

    def __init__(self) -> None:
        self._returns: OrderedDict[str, HeldTurn] = OrderedDict()
        self._new: OrderedDict[str, HeldTurn] = OrderedDict()

    def __len__(self) -> int:
        return len(self._returns) + len(self._new)

    def __iter__(self) -> Iterator[HeldTurn]:
        return chain(self._returns.values(), self._new.values())

    def add(self, held: HeldTurn) -> None:
        lane = self._new if held.turn_class is TurnClass.NEW else self._returns
        lane[held.turn_id] = held

    def remove(self, turn_id: str) -> HeldTurn | None:
        return self._returns.pop(turn_id, None) or self._new.pop(turn_id, None)

    def position(self, turn_id: str) -> int:
        """1 is next. Linear: asked once when a turn is held."""
        return next((i for i, held in enumerate(self, start=1) if held.turn_id == turn_id), 0)

    def candidates(self, look_ahead: int, max_overtakes: int) -> list[HeldTurn]:
        """The turns to try, in order: the head, and a few behind it unless it was passed too often."""
        window = list(islice(self, 1 + look_ahead))
        if window and window[0].overtaken >= max_overtakes:
            return window[:1]
        return window

    def overtake(self, passer: HeldTurn) -> None:
        """``passer`` is going although others were before it."""
        for held in self:
            if held is passer:
                return
            held.overtaken += 1

    def oldest(self) -> list[HeldTurn]:
        """The longest-waiting turn of each lane."""
        return [next(iter(lane.values())) for lane in (self._returns, self._new) if lane]
