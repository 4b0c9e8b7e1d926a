"""The number that vLLM orders its queue by: lower runs earlier.

It is a virtual deadline in tenths of a second: the session's first arrival, plus a delay by class. So
within a class older sessions come first, a continuation comes before a new session, and nobody
starves: only sessions that arrived within the delay after a turn can ever overtake it.
"""

from enum import Enum

TICKS_PER_S = 10
"""Chosen: finer than anything that the order of agents depends on."""


class TurnClass(Enum):
    CONTINUATION = "continuation"
    RETURN = "return"
    """The session's blocks are probably gone: it costs a prefill, but its agent has waited before."""
    NEW = "new"
    SIDE = "side"


DELAY_S = {
    TurnClass.CONTINUATION: 0.0,
    TurnClass.RETURN: 60.0,
    TurnClass.NEW: 600.0,
    TurnClass.SIDE: 0.0,
}
"""Ten minutes is longer than any prefill queue that admission lets build up, and still an end to waiting.
A side call blocks its agent like a continuation does."""


def priority(turn_class: TurnClass, first_arrival_s: float) -> int:
    return round((first_arrival_s + DELAY_S[turn_class]) * TICKS_PER_S)
