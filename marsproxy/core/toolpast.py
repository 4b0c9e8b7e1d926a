"""What tools have taken so far, by tool and by family: time until the session went on, and memory.

Owns the hierarchy of histograms: all tools, a tool, a tool in the hands of one family. A family counts
because a tool's name alone says little: a "bash" call takes a tenth of a second with one agent and a
minute with another. Each is drawn towards the one above it while it has few samples.
"""

from collections import OrderedDict
from dataclasses import dataclass

from marsproxy.core.histogram import Curve, DecayedHistogram

MAX_TOOLS = 4_000
"""Histograms of one kind; the one that was quiet for longest goes first."""
PSEUDO_SAMPLES = 5.0
"""Samples that the histogram above counts for, as for sizes (lab)."""
REFRESH = 16
"""A curve is computed anew when its histogram has changed by one part in so many."""

ANY = ""
"""In place of a family or a tool: all of them."""

Key = tuple[str, str]
"""Family and tool, either of them ``ANY``."""


def keys(family: str, signature: str | None) -> tuple[Key, ...]:
    """The histograms that a call belongs to, from the most special to that of all calls. Of a tool that
    is not known, the family is all that can be said."""
    if signature is None:
        return ((family, ANY), (ANY, ANY))
    return ((family, signature), (ANY, signature), (ANY, ANY))


@dataclass(slots=True)
class Past:
    """One histogram, and its curve as long as that is good enough."""

    histogram: DecayedHistogram
    news: int = 0
    """Samples since the curve was made."""
    curve: Curve | None = None

    def mixed(self, above: Curve) -> Curve:
        if self.curve is None or self.news * REFRESH > self.histogram.samples:
            self.news = 0
            self.curve = self.histogram.mixed(above, PSEUDO_SAMPLES)
        return self.curve


class ToolPast:
    """Histograms of one measure."""

    def __init__(self, prior: Curve) -> None:
        self._prior = prior
        self._pasts: OrderedDict[Key, Past] = OrderedDict()

    def add(self, family: str, signature: str | None, value: float) -> None:
        for key in dict.fromkeys((*keys(family, signature), (family, ANY))):
            past = self._pasts.get(key)
            if past is None:
                past = self._pasts[key] = Past(DecayedHistogram(self._prior.edges))
            past.histogram.add(value)
            past.news += 1
            self._pasts.move_to_end(key)
        while len(self._pasts) > MAX_TOOLS:
            self._pasts.popitem(last=False)

    def curve(self, family: str, signature: str | None) -> Curve:
        curve = self._prior
        for key in reversed(keys(family, signature)):
            if (past := self._pasts.get(key)) is not None:
                curve = past.mixed(curve)
        return curve

    def mean(self, family: str, signature: str | None) -> float | None:
        """Drawn towards the one above in the same way; None before the first sample."""
        mean: float | None = None
        for key in reversed(keys(family, signature)):
            if (past := self._pasts.get(key)) is not None:
                own = past.histogram
                above = own.mean if mean is None else mean
                mean = (own.mean * own.samples + above * PSEUDO_SAMPLES) / (own.samples + PSEUDO_SAMPLES)
        return mean
