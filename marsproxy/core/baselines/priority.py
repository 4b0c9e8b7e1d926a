"""Stock vLLM with ``--scheduling-policy priority``: continuations are tagged before new sessions.

The engine settles ties by arrival. Nothing is held.
"""

from marsproxy.core.baselines.base import FollowedTurn, Follower
from marsproxy.core.priority import TurnClass

CONTINUATION, NEW = 0, 1


class ContinuationsFirst(Follower):
    """A side call blocks its agent like a continuation does, and is tagged as one."""

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        is_new = turn.turn_class is TurnClass.NEW
        self.forward(turn, self.home_of(turn.session), NEW if is_new else CONTINUATION)
