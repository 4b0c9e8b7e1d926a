"""What a command will take, by its signature: run time, CPU and memory.

Owns what was learned of each signature, and how good the predictions were; it must not know who asks, nor
what the commands were beyond their signatures. Time is an argument.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import log2
from statistics import NormalDist

from gateway.tool_signature import signature_parts
from marsproxy.core.histogram import Curve, DecayedHistogram, log_edges

_MAX_SIGNATURES = 2000
"""Of about 5 kB each. The one that was met least recently goes first."""
_TTL_S = 7 * 86_400.0
"""A program that nobody ran for a week is met as a stranger."""
_LEAST_SAMPLES = 3
"""Runs after which a run time is predicted. Memory is from the first on: what took 3 GB may do so again."""
_PRIOR_SAMPLES = 5.0
"""Runs that a prior counts for; as much as the proxy gives to all tools for one tool (``toolpast``)."""
_ERROR_WEIGHT = 0.02
"""Of the newest prediction in the measures of their quality; about the last hundred count."""

_RUN_EDGES_S = log_edges(-3, 5, 6)
_MEMORY_EDGES_MB = log_edges(0, 6, 8)

_SMALL_PRIORS = {
    (0.15, 0.4): "basename,cat,chmod,cp,cut,date,diff,dirname,echo,file,head,id,ln,ls,mkdir,mv,nl,printf,pwd,"
    "readlink,realpath,rm,sort,stat,tail,tee,test,touch,tr,true,uname,uniq,wc,which,whoami,"
    "git branch,git diff,git log,git ls-files,git rev-parse,git show,git status",
    (0.11, 0.4): "egrep,fgrep,grep,rg",
    (0.165, 2.7): "find",
}
"""Median and ninth decile of run times in seconds: of viewing and creating files, of grep and of find in 48
sessions of a coding agent (ThunderAgent's SWE-agent trace; 0.4 is the ninth decile of all its tool calls, and
what only reads a repository is put with them). What runs other code has none: a test may take a second or an
hour. In a simulation of a full host, strangers that read were what waited longest."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """None is unknown."""

    run_s: float | None = None
    """Half of its kind take less."""
    run_p90_s: float | None = None
    """Nine in ten do: what ``Ask.expected_s`` wants."""
    cpu_s: float | None = None
    """Half of its kind take less."""
    memory_mb: float | None = None
    """Peak that nineteen in twenty stay below: what ``Ask.memory_mb`` wants where nobody asked."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Of the predictions made lately, each measured when its command had ended. None: there were none."""

    known_ratio: float | None = None
    """Commands whose run time was predicted at all."""
    run_within_ratio: float | None = None
    """Of those, that took at most ``run_p90_s``: 0.9 is right."""
    run_factor: float | None = None
    """By which the run time was off from ``run_s``, up or down, as a geometric mean."""
    memory_within_ratio: float | None = None
    """That stayed within ``memory_mb``, of those for which it was predicted: 0.95 is right."""


@dataclass(slots=True)
class _Mean:
    """Moving: a plain mean at first."""

    value: float | None = None
    weight: float = 1.0

    def add(self, value: float) -> None:
        self.value = value if self.value is None else self.value + self.weight * (value - self.value)
        self.weight = max(_ERROR_WEIGHT, self.weight / (1 + self.weight))


@dataclass(slots=True)
class _Past:
    """Of one signature."""

    at_s: float
    run_s: DecayedHistogram = field(default_factory=partial(DecayedHistogram, _RUN_EDGES_S))
    cpu_s: DecayedHistogram = field(default_factory=partial(DecayedHistogram, _RUN_EDGES_S))
    memory_mb: DecayedHistogram = field(default_factory=partial(DecayedHistogram, _MEMORY_EDGES_MB))


class Predictions:
    def __init__(self) -> None:
        self._pasts: OrderedDict[str, _Past] = OrderedDict()
        """Least recently met first."""
        self._priors = {
            part: _lognormal(*quantiles)
            for quantiles, parts in _SMALL_PRIORS.items()
            for part in parts.split(",")
        }
        self._known, self._run_within, self._run_off, self._memory_within = (_Mean() for _ in range(4))

    def __len__(self) -> int:
        return len(self._pasts)

    @property
    def quality(self) -> Quality:
        off = self._run_off.value
        factor = None if off is None else 2.0**off
        return Quality(self._known.value, self._run_within.value, factor, self._memory_within.value)

    def predict(self, signature: str | None, now: float) -> Prediction:
        """Of a stranger nothing, or what is public of its kind."""
        if signature is None:
            return Prediction()
        past, prior = self._find(signature, now), self._prior(signature)
        if past is None:
            return Prediction() if prior is None else Prediction(prior.quantile(0.5), prior.quantile(0.9))
        run = _run_curve(past, prior)
        cpu = _plain(past.cpu_s, _RUN_EDGES_S, _LEAST_SAMPLES)
        memory = _plain(past.memory_mb, _MEMORY_EDGES_MB, 1)
        return Prediction(
            run_s=None if run is None else run.quantile(0.5),
            run_p90_s=None if run is None else run.quantile(0.9),
            cpu_s=None if cpu is None else cpu.quantile(0.5),
            memory_mb=None if memory is None else _edge_above(memory.quantile(0.95)),
        )

    def learn(
        self,
        signature: str | None,
        now: float,
        *,
        run_s: float | None,
        cpu_s: float | None = None,
        memory_mb: float | None = None,
    ) -> None:
        """Of a command that ended by itself. One that was stopped, or killed for its memory, tells only what
        memory it had reached: give ``memory_mb`` alone."""
        if signature is None:
            return
        self._judge(self.predict(signature, now), run_s, memory_mb)
        past = self._meet(signature, now)
        for histogram, value in ((past.run_s, run_s), (past.cpu_s, cpu_s), (past.memory_mb, memory_mb)):
            if value is not None:
                histogram.add(value)

    def _judge(self, predicted: Prediction, run_s: float | None, memory_mb: float | None) -> None:
        if run_s is not None:
            self._known.add(predicted.run_s is not None)
            if predicted.run_s is not None and predicted.run_p90_s is not None:
                self._run_within.add(run_s <= predicted.run_p90_s)
                self._run_off.add(abs(log2(max(run_s, _RUN_EDGES_S[0]) / predicted.run_s)))
        if memory_mb is not None and predicted.memory_mb is not None:
            self._memory_within.add(memory_mb <= predicted.memory_mb)

    def _find(self, signature: str, now: float) -> _Past | None:
        past = self._pasts.get(signature)
        return None if past is None or now - past.at_s > _TTL_S else past

    def _meet(self, signature: str, now: float) -> _Past:
        past = self._find(signature, now) or _Past(now)
        past.at_s = now
        self._pasts[signature] = past
        self._pasts.move_to_end(signature)
        oldest = next(iter(self._pasts))
        if len(self._pasts) > _MAX_SIGNATURES or self._find(oldest, now) is None:
            del self._pasts[oldest]
        return past

    def _prior(self, signature: str) -> Curve | None:
        """Of several programs, that of the slowest; None where one of them has none."""
        priors = [self._priors.get(part) for part in signature_parts(signature)]
        known = [prior for prior in priors if prior is not None]
        return max(known, key=lambda each: each.quantile(0.9)) if len(known) == len(priors) else None


def _run_curve(past: _Past, prior: Curve | None) -> Curve | None:
    if prior is None:
        return _plain(past.run_s, _RUN_EDGES_S, _LEAST_SAMPLES)
    return past.run_s.mixed(prior, _PRIOR_SAMPLES)


def _plain(histogram: DecayedHistogram, edges: Sequence[float], least_samples: int) -> Curve | None:
    """What was measured and nothing else; None of fewer samples."""
    if histogram.samples < least_samples - 0.5:  # They decay from the first on.
        return None
    return histogram.mixed(Curve(edges, [0.0] * len(edges)), 0.0)


def _edge_above(memory_mb: float) -> float:
    """Too little costs a command, too much a few others' wait."""
    return _MEMORY_EDGES_MB[bisect_left(_MEMORY_EDGES_MB, memory_mb)]


def _lognormal(median_s: float, ninth_decile_s: float) -> Curve:
    """As durations of one kind are, roughly."""
    sigma = log2(ninth_decile_s / median_s) / NormalDist().inv_cdf(0.9)
    normal = NormalDist(log2(median_s), sigma)
    return Curve(_RUN_EDGES_S, [normal.cdf(log2(edge)) for edge in _RUN_EDGES_S])
