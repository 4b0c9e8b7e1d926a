"""What follows an answer that calls no tool: the agent's next step, a user's next message, or nothing.

The answer alone does not tell. Whether a session's place is kept hangs on whether it goes on by itself,
whether its blocks are worth a place among the idle ones on whether it comes back at all; both are
learned for each family, the first for each session too. Owns the session's three flags about it.
"""

from marsproxy.core.estimate import ComebackRate, ReturnRate
from marsproxy.core.sessions import SessionState


class TextRests:
    def __init__(self) -> None:
        self._steps = ReturnRate()
        self._comebacks = ComebackRate()

    def answered(self, session: SessionState, *, is_text: bool) -> None:
        """A turn of the session ended, and none other is in flight."""
        session.is_after_text = session.rests_after_text = is_text
        if is_text:
            self._comebacks.rested(session.family)

    def came_back(self, session: SessionState) -> None:
        """Its next turn arrived, however late."""
        if session.rests_after_text:
            session.rests_after_text = False
            self._comebacks.came_back(session.family)
        self._learn_step(session, has_returned=True)

    def nothing_came(self, session: SessionState) -> None:
        """It was waited for long enough: it did not go on by itself."""
        self._learn_step(session, has_returned=False)

    def expects_step(self, session: SessionState) -> bool:
        """Whether the agent is likely to go on by itself."""
        return session.goes_on_after_text or self._steps.is_return_likely(session.family)

    def expects_comeback(self, session: SessionState) -> bool:
        """Whether anybody is likely to come back to the session; after a tool call its agent is."""
        return not session.is_after_text or self._comebacks.is_likely(session.family)

    def _learn_step(self, session: SessionState, *, has_returned: bool) -> None:
        if session.is_after_text:
            session.is_after_text = False
            session.goes_on_after_text = has_returned
            self._steps.learn(session.family, has_returned=has_returned)
