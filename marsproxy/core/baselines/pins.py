"""KV that a policy has asked the engine to hold for sessions between two turns.

A pin lasts from the turn's end until its time is over. If the session's next turn arrives before that, the
pin holds until the engine has started the turn, however long it queues: Continuum never unpins a program
that is in the waiting queue (arXiv 2511.02230, section 5.2), InferCept none that has resumed.

Pins are hard: nobody takes their blocks while anything runs. When the engine broke one all the same, what is
left of it holds memory for a session that has to prefill in any case, and is released.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from marsproxy.core.commands import Command, HintKv, KvAction, YieldsTo
from marsproxy.core.sessions import SessionState


@dataclass(slots=True)
class Pin:
    backend: str
    until_s: float


class Pins:
    """At most one for each session. ``order`` takes the hints that follow."""

    def __init__(self, order: Callable[[Command], None]) -> None:
        self._order = order
        self._by_session: dict[str, Pin] = {}

    def __len__(self) -> int:
        return len(self._by_session)

    def keep(self, session_id: str, backend: str, ttl_s: float, now: float) -> None:
        """The session's last turn in flight has ended there."""
        self._by_session[session_id] = Pin(backend, now + ttl_s)
        self._order(HintKv(session_id, backend, KvAction.KEEP, ttl_s, YieldsTo.NOBODY))

    def is_live(self, session_id: str, now: float) -> bool:
        pin = self._by_session.get(session_id)
        return pin is not None and now <= pin.until_s

    def await_turn(self, session: SessionState, backend: str, now: float) -> bool:
        """The next turn is here, about to be forwarded: does it find a pin? Then the pin waits with it.

        Not beside another turn in flight, a side call: an engine would begin such a pin when that ends,
        perhaps after this turn.
        """
        pin = self._by_session.get(session.id)
        if pin is None:
            return False
        if now > pin.until_s:
            del self._by_session[session.id]
            return False
        if pin.backend != backend:
            self.release(session.id)
            return False
        if pin.until_s < inf and len(session.open_turns) == 1:
            pin.until_s = inf
            self._order(HintKv(session.id, backend, KvAction.KEEP, None, YieldsTo.NOBODY))
        return True

    def started(self, session_id: str) -> None:
        """The turn that the pin waited for refers to the blocks itself now, and the engine ended the pin."""
        self._by_session.pop(session_id, None)

    def refused(self, session: SessionState) -> None:
        """The engine has nothing to hold. Said of a session with a turn in flight it means no more than
        that the blocks are in use."""
        if not session.open_turns:
            self._by_session.pop(session.id, None)

    def release(self, session_id: str) -> None:
        """Nobody is waited for any more. Fine without a pin; the hint is idle if its time is over."""
        if (pin := self._by_session.pop(session_id, None)) is not None:
            self._order(HintKv(session_id, pin.backend, KvAction.RELEASE))

    def swap_out(self, session_id: str, backend: str) -> None:
        """Instead of a pin: the blocks go to the host's memory and come back with the next turn."""
        self._by_session.pop(session_id, None)
        self._order(HintKv(session_id, backend, KvAction.SWAP_OUT))
