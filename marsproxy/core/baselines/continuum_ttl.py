"""How long Continuum pins (arXiv 2511.02230): as its preview does, and as its cost model says."""

from dataclasses import dataclass
from typing import Protocol

from marsproxy.core.baselines.prefill_times import PrefillTimes
from marsproxy.core.baselines.retention_value import GapDistribution, Memoryfulness
from marsproxy.core.baselines.tool_gaps import MAX_SIGNATURES, MeanGaps
from marsproxy.core.baselines.windows import LatestNames, MeanWindow

FIXED_TTL_S = 2.0
"""The paper's T_default, 2.0 s in its preview; there also the longest mean gap that is worth a pin."""
MIN_RECORDS = 100
"""The paper's K: a distribution of no more records than this is not trusted (section 4.2)."""
DELAY_WINDOW = 200
"""Latest queueing delays in their mean: the preview's; the paper says a sliding window."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is known of a finished turn of a session."""

    prompt_tokens: int
    cached_tokens: int
    ttft_s: float
    is_unpinned_return: bool
    """It continued a session whose pin was over, or had none."""


class TtlRule(Protocol):
    def ttl_s(self, signature: str | None, context_tokens: int) -> float:
        """Seconds to pin such a context for after a call of that tool; 0 is not at all."""

    def gap_ended(self, signature: str | None, gap_s: float) -> None: ...

    def turn_served(self, served: Served) -> None: ...

    def session_rested(self, session_id: str, turns: int) -> None:
        """The session has come to an end, as far as one can see, after so many turns."""


class FixedTtl:
    """The same time for every tool that is back within it on average, and for those not seen yet."""

    def __init__(self) -> None:
        self._gaps = MeanGaps()

    def ttl_s(self, signature: str | None, context_tokens: int) -> float:
        mean_s = self._gaps.mean_s(signature)
        return FIXED_TTL_S if mean_s is None or mean_s <= FIXED_TTL_S else 0.0

    def gap_ended(self, signature: str | None, gap_s: float) -> None:
        self._gaps.learn(signature, gap_s)

    def turn_served(self, served: Served) -> None:
        pass

    def session_rested(self, session_id: str, turns: int) -> None:
        pass


class ValuedTtl:
    """The time that is worth most: see ``retention_value``.

    What losing the blocks costs is T * eta + reload: T the mean queueing delay of returns without a pin
    (0 until one was seen), eta the memoryfulness, reload the prefill of the whole context, as the paper
    takes it. The delay is what the time to first token has beyond the prefill of what was not cached.
    """

    def __init__(self) -> None:
        self._all = GapDistribution()
        self._by_signature = LatestNames(MAX_SIGNATURES, GapDistribution)
        self._delays = MeanWindow(DELAY_WINDOW)
        self._memoryfulness = Memoryfulness()
        self._prefill = PrefillTimes()

    def ttl_s(self, signature: str | None, context_tokens: int) -> float:
        gaps = self._gaps_of(signature)
        return FIXED_TTL_S if gaps is None else gaps.best_ttl_s(self._benefit_s(context_tokens))

    def gap_ended(self, signature: str | None, gap_s: float) -> None:
        self._all.add(gap_s)
        if signature is not None:
            self._by_signature.use(signature).add(gap_s)

    def turn_served(self, served: Served) -> None:
        self._prefill.learn(served.prompt_tokens, served.cached_tokens, served.ttft_s)
        if served.is_unpinned_return:
            prefill_s = self._prefill.seconds(max(0, served.prompt_tokens - served.cached_tokens))
            self._delays.add(max(0.0, served.ttft_s - prefill_s))

    def session_rested(self, session_id: str, turns: int) -> None:
        self._memoryfulness.finished(session_id, turns)

    def _gaps_of(self, signature: str | None) -> GapDistribution | None:
        """The tool's own once it has enough of them, else all; None before there are enough at all."""
        own = None if signature is None else self._by_signature.get(signature)
        if own is not None and len(own) > MIN_RECORDS:
            return own
        return self._all if len(self._all) > MIN_RECORDS else None

    def _benefit_s(self, context_tokens: int) -> float:
        delay_s = self._delays.mean or 0.0
        return delay_s * self._memoryfulness.eta + self._prefill.seconds(context_tokens)
