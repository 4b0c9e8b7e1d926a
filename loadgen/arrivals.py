"""When sessions start: open loop (a rate, whatever the server does) or closed loop (N agents).

Pure: yields seconds after the start and knows no clock. The seed of the arrivals is the run's, so that
two targets of a comparison see the same instants.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import assert_never

from loadgen.errors import LoadgenError
from loadgen.workload import Session

BURST_SESSIONS = 10
"""Sessions that arrive together in the burst process; the bursts are spaced to keep the mean rate."""


class Arrivals(Enum):
    POISSON = "poisson"
    FIXED = "fixed"
    BURST = "burst"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    rate_per_s: float
    """Sessions a second."""
    process: Arrivals = Arrivals.POISSON


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    agents: int
    """Sessions in progress at any time, while there are any left."""


@dataclass(frozen=True, slots=True)
class AsTraced:
    """Every session says itself when it arrives."""


Load = OpenLoop | ClosedLoop | AsTraced


def choose_load(
    sessions: list[Session], rate: float | None, concurrency: int | None, process: Arrivals
) -> Load:
    if rate is not None and concurrency is not None:
        raise LoadgenError("--rate and --concurrency exclude each other: open loop or closed loop")
    if rate is not None:
        if not rate > 0:
            raise LoadgenError(f"--rate is {rate}; allowed: more than 0 sessions a second")
        return OpenLoop(rate, process)
    if concurrency is not None:
        if concurrency < 1:
            raise LoadgenError(f"--concurrency is {concurrency}; allowed: 1 or more agents")
        return ClosedLoop(concurrency)
    if all(session.arrival_s is not None for session in sessions):
        return AsTraced()
    raise LoadgenError(
        "--rate or --concurrency is needed: not every session of the workload has an arrival_s"
    )


def arrival_times(load: OpenLoop | AsTraced, sessions: list[Session], seed: int) -> list[float]:
    match load:
        case AsTraced():
            return [session.arrival_s or 0.0 for session in sessions]
        case OpenLoop(rate_per_s, process):
            gaps = gaps_between(process, rate_per_s, Random(f"arrivals/{seed}"))
            at, times = 0.0, []
            for _ in sessions:
                times.append(at)
                at += next(gaps)
            return times
        case _:
            assert_never(load)


def gaps_between(process: Arrivals, rate_per_s: float, rng: Random) -> Iterator[float]:
    while True:
        match process:
            case Arrivals.POISSON:
                yield rng.expovariate(rate_per_s)
            case Arrivals.FIXED:
                yield 1 / rate_per_s
            case Arrivals.BURST:
                yield from [0.0] * (BURST_SESSIONS - 1)
                yield BURST_SESSIONS / rate_per_s
            case _:
                assert_never(process)
