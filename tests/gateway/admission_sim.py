"""A host of two cores and 4 GB in virtual time, on which 200 mixed commands arrive within a minute.

What runs shares the cores equally; a command's memory grows over the first third of its work; when the host's
memory is exceeded, the largest command is killed. ``python -m tests.gateway.admission_sim`` prints the table.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from statistics import fmean, quantiles
from typing import Any

from gateway.admission import AdmissionSettings, Ask, HostQueue, Offer
from gateway.host import ExecUse, Reading
from gateway.predictions import Predictions

CORES = 2.0
MEMORY_MB = 4000
SYSTEM_MB = 300
READING_S = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    id: str
    arrives_s: float
    session: tuple[str, str]
    signature: str
    work_s: float
    """Core seconds."""
    memory_mb: float
    threads: int

    @property
    def is_short(self) -> bool:
        return self.signature in KINDS[0]


KINDS: tuple[Mapping[str, tuple[float, float, float, float, int]], ...] = (
    {"grep": (0.1, 0.6, 12, 0.5, 1), "cat": (0.03, 0.6, 5, 0.3, 1), "git status": (0.1, 0.6, 20, 0.5, 1)},
    {"pytest": (4.0, 1.0, 250, 0.4, 1), "python": (2.0, 1.2, 150, 0.6, 1)},
    {"make": (25.0, 0.6, 900, 0.3, 2), "cargo build": (30.0, 0.6, 1200, 0.3, 2)},
)
"""Medians and sigmas of work in seconds and of memory in MB, and threads. Of ten commands seven are of the
first, two of the second and one of the third: seven in ten under a second, as TraceLab counts."""


def workload(seed: int, commands: int = 200, within_s: float = 60.0) -> list[Command]:
    chance = random.Random(seed)
    made = []
    for number in range(commands):
        signature, kind = chance.choice(sorted(KINDS[chance.choices((0, 1, 2), (7, 2, 1))[0]].items()))
        work_s, work_sigma, memory_mb, memory_sigma, threads = kind
        made.append(
            Command(
                id=f"c{number}",
                arrives_s=chance.uniform(0, within_s),
                session=(f"t{number % 2}", f"s{number % 16}"),
                signature=signature,
                work_s=work_s * chance.lognormvariate(0, work_sigma),
                memory_mb=memory_mb * chance.lognormvariate(0, memory_sigma),
                threads=threads,
            )
        )
    return sorted(made, key=lambda command: command.arrives_s)


@dataclass(slots=True)
class Running:
    command: Command
    since_s: float
    done_s: float = 0.0

    @property
    def memory_mb(self) -> float:
        return self.command.memory_mb * min(1.0, self.done_s / self.command.work_s * 3)

    @property
    def left_s(self) -> float:
        return self.command.work_s - self.done_s


@dataclass(slots=True)
class Host:
    running: dict[str, Running] = field(default_factory=dict)
    busy_s: float = 0.0
    pressure: float = 0.0
    peak_mb: float = 0.0

    def rates(self) -> dict[str, float]:
        """Cores of each: an equal share of a core for every thread."""
        threads = sum(each.command.threads for each in self.running.values())
        share = min(1.0, CORES / threads) if threads else 0.0
        return {id_: share * each.command.threads for id_, each in self.running.items()}

    def next_end_s(self) -> float:
        rates = self.rates()
        return min((each.left_s / rates[id_] for id_, each in self.running.items()), default=float("inf"))

    def pass_time(self, seconds: float) -> None:
        rates = self.rates()
        for id_, each in self.running.items():
            each.done_s += rates[id_] * seconds
        self.busy_s += sum(rates.values()) * seconds
        stalled = any(rates[id_] < each.command.threads for id_, each in self.running.items())
        self.pressure += (stalled - self.pressure) * (1 - 0.5 ** (seconds / 7))
        self.peak_mb = max(self.peak_mb, self.used_mb)

    @property
    def used_mb(self) -> float:
        return SYSTEM_MB + sum(each.memory_mb for each in self.running.values())

    def reading(self, busy_s: float, seconds: float) -> Reading:
        return Reading(
            cores=CORES,
            cpu_busy=(self.busy_s - busy_s) / seconds / CORES,
            cpu_pressure=self.pressure,
            memory_pressure=0.5 if self.used_mb > 0.97 * MEMORY_MB else 0.0,
            memory_total_mb=MEMORY_MB,
            memory_available_mb=round(MEMORY_MB - self.used_mb),
            execs={id_: ExecUse(each.done_s, each.memory_mb) for id_, each in self.running.items()},
        )


@dataclass(slots=True)
class Outcome:
    short_s: list[float] = field(default_factory=list)
    """From arrival to end."""
    other_s: list[float] = field(default_factory=list)
    killed: int = 0
    refused: int = 0
    peak_mb: float = 0.0
    until_s: float = 0.0


class Everything:
    """No admission: all start at once."""

    def offer(self, ask: Ask, now: float) -> Offer:
        return Offer.GRANTED

    def end(self, ask_id: str, now: float) -> list[str]:
        return []

    def observe(self, reading: Reading, now: float) -> list[str]:
        return []


def simulate(
    commands: Iterable[Command], queue: HostQueue | Everything, predictions: Predictions | None
) -> Outcome:
    outcome, host, now, busy_s = Outcome(), Host(), 0.0, 0.0
    coming = list(reversed(list(commands)))
    by_id = {command.id: command for command in coming}
    beats = count(1)
    beat_s = next(beats) * READING_S

    def start(ids: Iterable[str]) -> None:
        for id_ in ids:
            host.running[id_] = Running(by_id[id_], now)

    def end(id_: str, *, was_killed: bool) -> None:
        ended = host.running.pop(id_)
        command = ended.command
        outcome.killed += was_killed
        (outcome.short_s if command.is_short else outcome.other_s).append(now - command.arrives_s)
        if predictions is not None:
            run_s = None if was_killed else now - ended.since_s
            predictions.learn(command.signature, now, run_s=run_s, memory_mb=ended.memory_mb)
        start(queue.end(id_, now))

    while coming or host.running:
        arrival_s = coming[-1].arrives_s if coming else float("inf")
        step_s = max(0.0, min(arrival_s, beat_s, now + host.next_end_s()) - now)
        now += step_s
        host.pass_time(step_s)
        while host.used_mb > MEMORY_MB:
            end(max(host.running, key=lambda id_: host.running[id_].memory_mb), was_killed=True)
        for id_ in [id_ for id_, each in host.running.items() if each.left_s < 1e-9]:
            end(id_, was_killed=False)
        if now >= arrival_s:
            command = coming.pop()
            offer = queue.offer(_ask(command, predictions, now), now)
            outcome.refused += offer is Offer.FULL
            start([command.id] if offer is Offer.GRANTED else [])
        if now >= beat_s:
            start(queue.observe(host.reading(busy_s, READING_S), now))
            busy_s, beat_s = host.busy_s, next(beats) * READING_S
    outcome.peak_mb, outcome.until_s = host.peak_mb, now
    return outcome


def _ask(command: Command, predictions: Predictions | None, now: float) -> Ask:
    if predictions is None:
        return Ask(command.id, command.session)
    predicted = predictions.predict(command.signature, now)
    return Ask(command.id, command.session, memory_mb=predicted.memory_mb, expected_s=predicted.run_p90_s)


def without(seed: int) -> Outcome:
    return simulate(workload(seed), Everything(), None)


def slots_only(seed: int) -> Outcome:
    settings = AdmissionSettings(slots=CORES, short_places=0, memory_headroom_ratio=-100.0)
    return simulate(workload(seed), HostQueue(settings), None)


def admitted(seed: int, *, is_warm: bool = True, **settings: Any) -> Outcome:
    """Warm: the day before was like today."""
    predictions = Predictions()
    if is_warm:
        simulate(workload(seed + 1000), HostQueue(AdmissionSettings(slots=CORES)), predictions)
    return simulate(workload(seed), HostQueue(AdmissionSettings(slots=CORES, **settings)), predictions)


def percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def line(name: str, outcomes: list[Outcome]) -> str:
    """Means over the seeds."""
    rows = [
        (
            percentile(each.short_s, 50),
            percentile(each.short_s, 95),
            percentile(each.other_s, 50),
            fmean(each.other_s),
            each.peak_mb,
            each.killed,
            each.until_s,
        )
        for each in outcomes
    ]
    p50, p95, *others = (fmean(column) for column in zip(*rows, strict=True))
    return f"| {name} | {p50:.2f} | {p95:.2f} | {' | '.join(f'{each:.0f}' for each in others)} |"


def main() -> None:
    seeds = range(8)
    print("| | short p50 s | p95 | others p50 s | mean | peak MB | killed | all done s |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|")  # noqa: T201
    rows = {
        "no admission": [without(seed) for seed in seeds],
        "slots only": [slots_only(seed) for seed in seeds],
        "admission, cold": [admitted(seed, is_warm=False) for seed in seeds],
        "admission, warm": [admitted(seed) for seed in seeds],
        **{f"{n} short places": [admitted(seed, short_places=n) for seed in seeds] for n in (0, 1, 2, 4)},
        **{f"short_s {s}": [admitted(seed, short_s=s) for seed in seeds] for s in (0.3, 0.5, 1, 2)},
    }
    for name, outcomes in rows.items():
        print(line(name, outcomes))  # noqa: T201


if __name__ == "__main__":
    main()
