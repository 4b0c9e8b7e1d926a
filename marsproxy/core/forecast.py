"""What a policy may ask about the future of a session.

The live policy is answered from what finished sessions taught it (``marsproxy.core.learned``). The
simulator has a second answer, the truth, which makes the same policy an oracle: how much better it
would be if it knew.
"""

from typing import Protocol

from marsproxy.core.events import TurnEnded
from marsproxy.core.sessions import SessionState


class Forecast(Protocol):
    """Expectations, each with a prior, never unknown. Tokens and seconds."""

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        """Largest context that the session will reach."""

    def work_s(self, session: SessionState) -> float:
        """Seconds from its admission to its end that the session's whole job takes where nothing makes
        it wait. For a session that has begun: of the job as a whole, not of what is left."""

    def gap_over_probability(self, session: SessionState, signature: str | None, within_s: float) -> float:
        """Chance that the gap that has just begun is over ``within_s`` seconds from its start."""

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None:
        """A turn finished; aborted and failed ones are never told."""

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None:
        """The session came back after a gap that began with a call of that tool (None: plain text)."""

    def session_rested(self, session: SessionState, now: float) -> None:
        """Nothing more is expected of the session; if it comes back all the same, told again."""
