"""What a policy may ask about the future of a session.

The live policy is answered from what finished sessions taught it (``marsproxy.core.learned``). The
simulator has a second answer, the truth, which makes the same policy an oracle: how much better it
would be if it knew.
"""

from typing import Protocol

from marsproxy.core.events import ToolObserved, TurnEnded
from marsproxy.core.histogram import Curve
from marsproxy.core.sessions import SessionState


class Forecast(Protocol):
    """Expectations, each with a prior; only memory can be unknown. Tokens, seconds, megabytes.

    It is told of every main turn of a session, in order: ``turn_arrived``, ``turn_forwarded``,
    ``turn_ended``; side calls it is not told of.
    """

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        """Largest context that the session will reach before it next comes to rest; never less than it
        has now."""

    def work_s(self, session: SessionState) -> float:
        """Seconds from its admission to its end that the session's whole job takes where nothing makes
        it wait. For a session that has begun: of the job as a whole, not of what is left."""

    def gap_over_probability(self, session: SessionState, signature: str | None, within_s: float) -> float:
        """Chance that the gap that has just begun is over ``within_s`` seconds from its start."""

    def gap_curve(self, session: SessionState, signature: str | None) -> Curve:
        """The same for every ``within_s`` at once; its ``quantile`` says how long to wait for a return."""

    def run_curve(self, session: SessionState, program: str | None) -> Curve:
        """How long a tool of the session runs from its start, by the name of the program."""

    def echo_curve(self, session: SessionState) -> Curve:
        """How long after the last of its tools has ended the session comes back."""

    def memory_mb(self, signature: str | None, family: str) -> float | None:
        """Peak memory that a call of the tool will hardly exceed (95 %); of any tool of the family if the
        tool is None. None: nothing is known."""

    def memory_mean_mb(self, signature: str | None, family: str) -> float | None:
        """Mean of the peaks: many calls at once need about that much each."""

    def turn_arrived(self, session: SessionState, prompt_tokens: int, now: float) -> None:
        """A main turn came, with a prompt of about that size. The session's clock stands still until the
        turn is forwarded: being held is no work."""

    def turn_forwarded(self, session: SessionState, now: float) -> None:
        """It went to a backend; in the same call as its arrival if nothing holds it."""

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None:
        """A turn finished; aborted and failed ones are never told. ``session`` has its new context."""

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None:
        """The session came back after a gap that began with a call of that tool (None: plain text)."""

    def echo_ended(self, session: SessionState, echo_s: float) -> None:
        """The session came back so long after the last of its tools had ended."""

    def tool_finished(self, family: str, event: ToolObserved) -> None:
        """A tool of a session of that family has run."""

    def session_rested(self, session: SessionState, now: float) -> None:
        """Nothing more is expected of the session; if it comes back all the same, told again."""

    def session_forgotten(self, session: SessionState) -> None:
        """Its row is gone. If it was not at rest, its latest turn was its last."""
