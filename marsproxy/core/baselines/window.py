"""CONCUR's control law: how many agents may be active, given what a backend's KV cache says.

Once per ``INTERVAL_S``, from the reading at its end and the hits since the last step::

    usage < USAGE_LOW                           W + INCREASE
    usage > USAGE_HIGH and hit rate < HIT_LOW   W * DECREASE
    else                                        W

A window that nobody presses against is not widened: how many agents would be too many was not tried.
Unknown usage or no prompt in the interval changes nothing.
"""

from dataclasses import dataclass

from marsproxy.core.events import BackendObserved, TurnEnded

USAGE_LOW, USAGE_HIGH = 0.2, 0.5
"""Of the pool, in blocks that running requests refer to (the paper's, by an abstract of it)."""
HIT_LOW = 0.5
"""Chosen: most of what was sent had been there and was gone. An agent's healthy turns find 0.8 and more;
0.8 as the mark was 5 % better in simulated interactive traffic and 6 % worse in autonomous (one seed)."""
INCREASE, DECREASE = 1, 0.5
"""Chosen: TCP's (RFC 5681)."""
INTERVAL_S = 5.0
"""Chosen: about as long as a step of an agent, so that a change is seen before the next."""


@dataclass(slots=True)
class Window:
    width: float
    """Agents; what is after the point does not count."""
    _stepped_s: float = 0.0
    _queries: int = 0
    _hits: int = 0
    _queries_total: int | None = None
    _hits_total: int | None = None

    @property
    def size(self) -> int:
        return int(self.width)

    def turn_ended(self, event: TurnEnded) -> None:
        """Counts where the backend does not tell how much of its prompts it found."""
        if self._queries_total is None and event.prompt_tokens and event.cached_tokens is not None:
            self._queries += event.prompt_tokens
            self._hits += event.cached_tokens

    def observe(self, event: BackendObserved, now: float, *, is_full: bool) -> None:
        self._count(event)
        if event.kv_used_ratio is None or now - self._stepped_s < INTERVAL_S:
            return
        self._step(event.kv_used_ratio, is_full=is_full)
        self._stepped_s, self._queries, self._hits = now, 0, 0

    def _count(self, event: BackendObserved) -> None:
        """Totals that went back are those of an engine that was started anew."""
        queries, hits = event.prefix_queries_total, event.prefix_hits_total
        if queries is not None and hits is not None:
            if self._queries_total is None or self._hits_total is None:
                self._queries = self._hits = 0
            elif queries >= self._queries_total and hits >= self._hits_total:
                self._queries += queries - self._queries_total
                self._hits += hits - self._hits_total
        self._queries_total, self._hits_total = queries, hits

    def _step(self, usage: float, *, is_full: bool) -> None:
        if usage < USAGE_LOW and is_full:
            self.width += INCREASE
        elif usage > USAGE_HIGH and self._queries and self._hits < HIT_LOW * self._queries:
            self.width = max(1.0, self.width * DECREASE)
