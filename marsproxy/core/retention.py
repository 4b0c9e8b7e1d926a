"""Whether a session's KV blocks are worth their memory while its tool runs, and for how long.

Keeping the blocks for up to ``ttl`` seconds is worth, in seconds of the engine::

    value(ttl) = F(ttl) * saved - price * tokens * integral from 0 to ttl of (1 - F)

F is the distribution of the gap; ``saved`` the prefill that a warm return does without; the integral the
seconds for which the blocks are expected to be held; ``price`` what a token of the pool is worth for a
second: 0 while there is room. Pure arithmetic: knows neither sessions nor commands.
"""

from dataclasses import dataclass
from math import exp, inf

from marsproxy.core.histogram import Curve

PRIOR_TOKENS_PER_S = 10_000.0
"""Before any turn was seen: one H200, between 21,000 for a prompt of 25,000 tokens and 6,000 for one of
120,000 (the lab's roofline of a 30B mixture of experts)."""
RATE_SHARE = 0.9
"""Share of turns that are slower than the rate."""
RATE_GAIN = 0.1
"""A rate ten times the prior is reached in 26 turns; at rest the steps are 9 % up and 1 % down."""
LEAST_PREFILL_TOKENS = 1_024
"""Fewer uncached tokens are a matter of overheads, not of the prefill rate."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Until when to keep, and what that is worth. A ``ttl_s`` of 0 says: demote them."""

    ttl_s: float
    value_s: float


DEMOTE = Keep(0.0, 0.0)
"""What is worth nothing."""


def best_keep(gap: Curve, saved_s: float, tokens: int, price: float, longest_s: float = inf) -> Keep:
    """The most valuable of the times at which the curve has a point, up to ``longest_s``.

    Ties go to the longer time: memory that costs nothing is kept to the end.

    Args:
        price: seconds lost per token and second held.
    """
    best_s, best_value_s, token_price = 0.0, 0.0, price * tokens
    for at_s, share, held_s in zip(gap.edges, gap.shares, gap.waited, strict=True):
        cost_s = token_price * held_s
        if at_s > longest_s or saved_s - cost_s < best_value_s:
            break
        value_s = share * saved_s - cost_s
        if value_s > 0 and value_s >= best_value_s:
            best_s, best_value_s = at_s, value_s
    return Keep(best_s, best_value_s)


def best_keep_after(
    wait_s: float, gap: Curve, saved_s: float, tokens: int, price: float, longest_s: float = inf
) -> Keep:
    """The same for a gap that begins only after ``wait_s``: keeping is only cost before that."""
    keep = best_keep(gap, saved_s, tokens, price, longest_s)
    value_s = keep.value_s - price * tokens * wait_s
    return Keep(wait_s + keep.ttl_s, value_s) if value_s > 0 or price == 0 else DEMOTE


class PrefillRate:
    """Tokens that the engine prefills per second when nothing is in the way, from times to first token.

    Queueing and batching can only make a first token later, so the truth is among the fastest; but one
    turn whose cached tokens were counted wrong can look as fast as it likes. So it is a high quantile,
    followed in steps of the logarithm: up by ``RATE_SHARE`` of the gain when a turn was faster, down by
    the rest of it when it was slower.
    """

    def __init__(self, prior_tokens_per_s: float = PRIOR_TOKENS_PER_S) -> None:
        self.tokens_per_s = prior_tokens_per_s

    def learn(self, uncached_tokens: int, ttft_s: float) -> None:
        if uncached_tokens < LEAST_PREFILL_TOKENS or ttft_s <= 0:
            return
        was_faster = uncached_tokens / ttft_s > self.tokens_per_s
        self.tokens_per_s *= exp(RATE_GAIN * (RATE_SHARE if was_faster else RATE_SHARE - 1))

    def seconds(self, tokens: int) -> float:
        return tokens / self.tokens_per_s
