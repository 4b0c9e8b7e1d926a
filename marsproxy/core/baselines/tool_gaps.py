"""Sessions that wait for a tool, and for how long they did.

A gap is the time from a turn's end to the session's next turn, as the server sees it: what Continuum
measures (arXiv 2511.02230, section 5.1) and what InferCept calls an interception. It is also what a pin has
to outlast, which the tool's own run time is not. Turns that called no tool begin no gap.
"""

from dataclasses import dataclass

from marsproxy.core.baselines.windows import LatestNames, MeanWindow

MAX_SIGNATURES = 256
"""Tools told apart; an agent framework has a dozen."""
MEAN_WINDOW = 100
"""Gaps per tool in its mean: as many as Continuum wants to have seen before it trusts a distribution."""


@dataclass(frozen=True, slots=True)
class Gap:
    signature: str | None
    began_s: float


class ToolGaps:
    """Gaps under way, one at most for each session."""

    def __init__(self) -> None:
        self._by_session: dict[str, Gap] = {}

    def __len__(self) -> int:
        return len(self._by_session)

    def begin(self, session_id: str, signature: str | None, now: float) -> None:
        self._by_session[session_id] = Gap(signature, now)

    def end(self, session_id: str) -> Gap | None:
        """The next turn came, or the session is gone. None if it was not in a gap."""
        return self._by_session.pop(session_id, None)


class MeanGaps:
    """Mean length in seconds of the gaps of each tool."""

    def __init__(self) -> None:
        self._by_signature = LatestNames(MAX_SIGNATURES, _new_window)

    def learn(self, signature: str | None, gap_s: float) -> None:
        if signature is not None:
            self._by_signature.use(signature).add(gap_s)

    def mean_s(self, signature: str | None) -> float | None:
        """None for a tool that was not seen yet."""
        gaps = None if signature is None else self._by_signature.get(signature)
        return None if gaps is None else gaps.mean


def _new_window() -> MeanWindow:
    return MeanWindow(MEAN_WINDOW)
