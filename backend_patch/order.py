"""Who goes first: the key of the waiting queue and the order of those that run.

Owns the two orders and nothing else; it knows neither queues nor leases nor the clock.

Waiting: who has waited too long, or was preempted, in order of arrival; then by priority (vLLM's: lower is
earlier), class, the session's first arrival (a session that began earlier ends earlier) and arrival.
Running: decodes, in the order they came; then prefills, continuations and short rests first. Where vLLM
runs out of blocks it preempts the last one of that list.
"""

from enum import IntEnum
from typing import TypeAlias

WaitingKey: TypeAlias = tuple[int, int, int, float, float, int]
PrefillKey: TypeAlias = tuple[int, int, int]


class WaitClass(IntEnum):
    WARM = 0
    """A continuation whose blocks are leased."""
    COLD = 1
    """A continuation that has to be computed, at least in part."""
    NEW = 2


def waiting_key(
    *,
    goes_first: bool,
    priority: int,
    wait_class: WaitClass,
    session_arrival_s: float,
    arrival_s: float,
    number: int,
) -> WaitingKey:
    """``number`` counts requests, so no two keys are equal."""
    if goes_first:
        return (0, 0, 0, 0.0, arrival_s, number)
    return (1, priority, wait_class, session_arrival_s, arrival_s, number)


def prefill_key(*, priority: int, is_continuation: bool, remaining_tokens: int) -> PrefillKey:
    return (priority, 0 if is_continuation else 1, remaining_tokens)
