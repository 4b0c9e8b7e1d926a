"""Tokens that may be spent at a steady rate, saved up to a bound, and owed beyond it.

Owns one balance and its refilling; it must not know who spends, or on what. Time is the caller's, so the
balance is the same wherever the same things happen at the same times.

What a turn costs is known when it ends, so a balance is let go below nothing: spending is never refused
here, and a debt is paid off at the same rate.
"""

DEFAULT_BURST_S = 60.0
"""Of the rate, saved up where no bound is given: a minute, as the APIs that clients come from count."""


class TokenBucket:
    """
    Args:
        rate: tokens per second, above 0.
        burst: most that is saved up, above 0; it begins with that.
    """

    __slots__ = ("_at_s", "_balance", "burst", "rate")

    def __init__(self, rate: float, burst: float | None, now: float) -> None:
        self.rate = rate
        self.burst = rate * DEFAULT_BURST_S if burst is None else burst
        self._balance = self.burst
        self._at_s = now

    def balance(self, now: float) -> float:
        """Tokens there are; below 0 they are owed."""
        return min(self.burst, self._balance + self.rate * max(0.0, now - self._at_s))

    def spend(self, tokens: float, now: float) -> None:
        self._balance = self.balance(now) - tokens
        self._at_s = max(self._at_s, now)

    def change(self, rate: float, burst: float | None, now: float) -> None:
        """Other terms from now on; what is owed stays owed."""
        self._balance, self._at_s = self.balance(now), now
        self.rate = rate
        self.burst = rate * DEFAULT_BURST_S if burst is None else burst
        self._balance = min(self._balance, self.burst)

    def wait_s(self, tokens: float, now: float) -> float:
        """Seconds until the balance is ``tokens``, if nothing is spent before."""
        return max(0.0, (tokens - self.balance(now)) / self.rate)
