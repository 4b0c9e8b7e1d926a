"""One world, one crowd, one fault: what came of it, in figures.

Owns the course of a case and its report; what has to hold is said by the tests.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.scale.budgets_seen import BudgetsSeen, ask, look_until_cancelled
from tests.scale.faults import Fault
from tests.scale.log_audit import LogFindings, audit_logs
from tests.scale.sessions import Crowd, Seen
from tests.scale.turn_books import TurnBooks, balance, longest_silence_s, read_served, recovered_s
from tests.scale.world import Sizes, World, open_world

HANG_S = 240.0
"""A case takes tens of seconds."""


@dataclass(frozen=True)
class Course:
    """How a case goes."""

    sessions: int = 300
    turns: int = 4
    strikes_after_share: float = 0.2
    """Of the turns that the crowd will ask."""
    lasts_s: float = 5.0
    victim: int = 1
    """Number of the replica or backend that it is about."""
    seed: int = 1


@dataclass(frozen=True)
class CaseReport:
    fault: str
    seconds: float
    turns_per_s: float
    recovered_s: float | None
    """From the fault to the end of the first turn that was asked after it."""
    longest_silence_s: float
    """Between two answers, from the fault to its mending and as long again."""
    books: TurnBooks
    logs: LogFindings
    budgets: BudgetsSeen
    """Until it was mended."""
    budgets_after: BudgetsSeen
    log_errors: list[str]
    """Lines in the programs' logs that call themselves errors."""

    @property
    def violations(self) -> list[str]:
        return [*self.books.violations, *self.logs.violations, *self.log_errors]


async def run_case(sizes: Sizes, fault: Fault, course: Course, name: str | None = None) -> CaseReport:
    """``name``: in the report; else the fault's."""
    async with open_world(sizes) as world:
        crowd = Crowd(world.url, course.sessions, turns=course.turns, seed=course.seed)
        began_s = time.time()
        async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(crowd.run())
            await _until_answered(crowd, course)
            whole = await ask(world.replicas)
            budgets, budgets_after = BudgetsSeen(whole), BudgetsSeen(whole)
            struck_s = time.time()
            await fault.strike(world, course.victim)
            looking = tasks.create_task(look_until_cancelled(world.replicas, budgets))
            await asyncio.sleep(course.lasts_s)
            looking.cancel()
            await fault.mend(world, course.victim)
            mended_s = time.time()
            looking = tasks.create_task(look_until_cancelled(world.replicas, budgets_after))
            await running
            looking.cancel()
        seconds = time.time() - began_s
        await settle(world)
        await world.stop()
        books = books_of(world, crowd)
        logs = audit_logs(world.event_logs())
        errors = [f"{each.name}: {line}" for each in world.programs for line in each.errors()]
    last_s = max((a.ended_s for a in crowd.attempts if a.seen is Seen.ANSWERED), default=mended_s)
    return CaseReport(
        fault=name or fault.name,
        seconds=seconds,
        turns_per_s=books.answered / seconds,
        recovered_s=recovered_s(crowd.attempts, struck_s),
        longest_silence_s=longest_silence_s(crowd.attempts, struck_s, min(last_s, mended_s + course.lasts_s)),
        books=books,
        logs=logs,
        budgets=budgets,
        budgets_after=budgets_after,
        log_errors=errors,
    )


def books_of(world: World, crowd: Crowd) -> TurnBooks:
    served = read_served(map(world.request_log, world.backends))
    return balance(crowd.attempts, served, crowd.lost)


async def settle(world: World) -> None:
    """All have told what they have to tell: the longest flush of a log is a fifth of a second."""
    await asyncio.sleep(0.5)


async def _until_answered(crowd: Crowd, course: Course) -> None:
    wanted = course.sessions * course.turns * course.strikes_after_share
    while crowd.answered < wanted:  # noqa: ASYNC110 - nobody tells of an answer
        await asyncio.sleep(0.05)


def as_json(reports: Sequence[CaseReport]) -> list[dict[str, Any]]:
    return [asdict(report) | {"violations": report.violations} for report in reports]


def as_table(reports: Sequence[CaseReport]) -> str:
    """Markdown."""
    head = (
        "| fault | turns | connections died | asked again | most attempts | lost or doubled "
        "| not known again, named / not | recovered, s | longest silence, s | fullest budget "
        "| budgets of all alone | of some alone | of all alone, after | of some, after | violations |"
    )
    rows = [head, "|---" * head.count(" |") + "|"]
    rows += ["| " + " | ".join(map(str, _cells(report))) + " |" for report in reports]
    return "\n".join(rows) + "\n"


def _cells(report: CaseReport) -> list[object]:
    books, budgets = report.books, report.budgets
    return [
        report.fault,
        books.turns,
        books.died,
        books.turns_asked_again,
        books.most_attempts,
        len(books.violations),
        f"{books.changed_named} / {books.changed_sessions - books.changed_named}",
        "never" if report.recovered_s is None else f"{report.recovered_s:.2f}",
        f"{report.longest_silence_s:.2f}",
        f"{report.logs.fullest_ratio:.3f}",
        _ratio(budgets.all_alone_ratio),
        _ratio(budgets.some_alone_ratio),
        _ratio(report.budgets_after.all_alone_ratio),
        _ratio(report.budgets_after.some_alone_ratio),
        len(report.violations),
    ]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
