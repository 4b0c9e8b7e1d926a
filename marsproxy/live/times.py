"""How long first tokens and whole jobs have taken of late.

A job is over, as far as one can see, with an answer that asks for no tool; a session that goes on all the
same counts once, with its latest such answer.
"""

from collections import OrderedDict, deque
from typing import Any

MAX_TIMES = 2_000
"""Of each kind, whatever time they span."""
TTFT_WINDOW_S = 60.0
JCT_WINDOW_S = 600.0


class Times:
    def __init__(self) -> None:
        self._ttfts: deque[tuple[float, float]] = deque(maxlen=MAX_TIMES)
        """When, and seconds from arrival to first token."""
        self._jcts: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """The same from a session's first arrival to its latest answer that asked for no tool."""

    def first_token(self, now: float, ttft_s: float) -> None:
        self._ttfts.append((now, ttft_s))

    def job_done(self, session_id: str, now: float, jct_s: float) -> None:
        self._jcts[session_id] = now, jct_s
        self._jcts.move_to_end(session_id)
        if len(self._jcts) > MAX_TIMES:
            self._jcts.popitem(last=False)

    def of_late(self, now: float) -> dict[str, Any]:
        """Median and 95th percentile; ``None`` without one in the window."""
        ttfts = sorted(seconds for at_s, seconds in self._ttfts if now - at_s <= TTFT_WINDOW_S)
        jcts = sorted(seconds for at_s, seconds in self._jcts.values() if now - at_s <= JCT_WINDOW_S)
        return {"ttft": _shares(ttfts), "jct": _shares(jcts)}


def _shares(values: list[float]) -> dict[str, float | int | None]:
    def at(share: float) -> float | None:
        return round(values[min(len(values) - 1, int(share * len(values)))], 3) if values else None

    return {"n": len(values), "p50": at(0.5), "p95": at(0.95)}
