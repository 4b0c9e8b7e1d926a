"""What is learned from the past: whether sessions of a family come back, and how far byte estimates are off.

A family is a group of sessions that look alike (same system prompt and tools). Everything here is a
running figure over a bounded window; aborted and failed turns never reach it.
"""

from collections import OrderedDict

MAX_FAMILIES = 1_000
"""Families whose rates are remembered; the one that was quiet for longest goes first."""
COMEBACK_PRIOR_RESTS = 4.0
"""Rests that are supposed before any was seen, half of them with a return."""
COMEBACK_WINDOW = 200.0
"""Rests from which old ones fade."""
COMEBACK_LIKELY = 0.2
"""Rate from which idle blocks are worth their place among the others: a return saves a whole prefill,
their early end a few blocks of somebody else's."""
MOST_OFF = 2.0
"""By which factor others' token ratio is believed of a tenant that is new; prose and code of any language are
within it."""
MAX_RATIOS = 1_000
"""Tenants whose token ratio is remembered; the one that was quiet for longest goes first."""
RATIO_GAIN = 0.1
"""Weight of the newest turn in the token ratio: follows a new model within about twenty turns."""


class TokenRatio:
    """Real tokens per estimated token, over all turns whose usage came back."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.ratio = ratio

    def learn(self, estimate: int, actual: int) -> None:
        if estimate > 0 and actual > 0:
            # A template or an image can be off by any factor; one odd turn must not move the ratio far.
            seen = min(max(actual / estimate, 0.1), 10.0)
            self.ratio += RATIO_GAIN * (seen - self.ratio)

    def corrected(self, estimate: int) -> int:
        return round(estimate * self.ratio)


class TokenRatios:
    """The ratio of each tenant: what one sends, be it text that no tokenizer knows, must not make others'
    prompts seem ten times their size. One that is new starts with the ratio of all, as far as that can be
    believed.
    """

    def __init__(self) -> None:
        self._all = TokenRatio()
        self._own: OrderedDict[str, TokenRatio] = OrderedDict()

    def learn(self, tenant: str, estimate: int, actual: int) -> None:
        own = self._own.get(tenant)
        if own is None:
            own = self._own[tenant] = self._first()
            if len(self._own) > MAX_RATIOS:
                self._own.popitem(last=False)
        self._own.move_to_end(tenant)
        own.learn(estimate, actual)
        self._all.learn(estimate, actual)

    def corrected(self, tenant: str, estimate: int) -> int:
        own = self._own.get(tenant)
        return (self._first() if own is None else own).corrected(estimate)

    def _first(self) -> TokenRatio:
        return TokenRatio(min(max(self._all.ratio, 1 / MOST_OFF), MOST_OFF))


class ReturnRate:
    """How often a session goes on by itself after an answer that calls no tool, per family.

    Agents that act through plain text never make a tool call, so the answer alone does not tell a
    final answer from a step. A family is taken to be done until it has shown otherwise: most requests
    without tools are a single question, and waiting for each of them to come back would hold its budget
    for nothing.
    """

    def __init__(self) -> None:
        self._rates: OrderedDict[str, float] = OrderedDict()

    def learn(self, family: str, *, has_returned: bool) -> None:
        rate = self._rates.setdefault(family, 0.0)
        self._rates[family] = rate + RATIO_GAIN * (float(has_returned) - rate)
        self._rates.move_to_end(family)
        if len(self._rates) > MAX_FAMILIES:
            self._rates.popitem(last=False)

    def is_return_likely(self, family: str) -> bool:
        return self._rates.get(family, 0.0) > 0.5


class ComebackRate:
    """How often a session comes back at all after an answer that calls no tool, per family.

    Nobody says that a session is over, so the rests that nothing followed cannot be counted; rests and
    returns can, and their quotient is the same in the long run.
    """

    def __init__(self) -> None:
        self._rests: OrderedDict[str, list[float]] = OrderedDict()

    def rested(self, family: str) -> None:
        counts = self._rests.setdefault(family, [COMEBACK_PRIOR_RESTS, COMEBACK_PRIOR_RESTS / 2])
        counts[0] += 1
        if counts[0] > COMEBACK_WINDOW:
            counts[0] /= 2
            counts[1] /= 2
        self._rests.move_to_end(family)
        if len(self._rests) > MAX_FAMILIES:
            self._rests.popitem(last=False)

    def came_back(self, family: str) -> None:
        if (counts := self._rests.get(family)) is not None:
            counts[1] += 1

    def is_likely(self, family: str) -> bool:
        counts = self._rests.get(family)
        return counts is None or counts[1] / counts[0] >= COMEBACK_LIKELY
