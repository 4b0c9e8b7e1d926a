"""The worked example of ``docs/policy.md``: its rows are fed to the policy, its sums are summed again.

Every number is read out of the page, so page and policy cannot drift apart.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from marsproxy.core.admission import HoldQueue
from marsproxy.core.budgets import BLOCK_SLACK_TOKENS, MEMORY_PRICE
from marsproxy.core.commands import Command, ForwardTurn, HoldTurn
from marsproxy.core.correction import Correction
from marsproxy.core.events import BackendObserved, Event, TimerFired, TurnArrived
from marsproxy.core.evidence import TurnKind
from marsproxy.core.histogram import Curve
from marsproxy.core.lanes import HeldTurn
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.policy import Policy
from marsproxy.core.retention import PrefillRate, best_keep
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings, Parts
from tests.marsproxy.core.playbook import (
    POOL_TOKENS,
    Playbook,
    answers,
    arrives,
    calls_tool,
    goes,
    reading,
    waits,
)

PAGE = Path(__file__).parents[3] / "docs/policy.md"
ADMISSION = AdmissionSettings(telemetry_stale_s=60.0)
TOOL_GAP = Curve((1.0, 10.0, 100.0), (0.5, 0.9, 0.95))
"""Half are back within 1 s, 90 % within 10 s, 95 % within 100 s."""
SUM = re.compile(r"`([\d,.\s()+×/−]+) = ([\d,.]+)`")


def number(text: str) -> float:
    return float(text.replace(",", ""))


def tokens(cell: str) -> int | None:
    return int(number(cell)) if cell else None


def example() -> str:
    found = re.search(r"^## A worked example\n(.*?)^## ", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def rows_below(heading: str) -> Iterator[list[str]]:
    """Cells of the table that begins with that row."""
    _, _, table = example().partition(heading + "\n")
    for line in table.splitlines()[1:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line[1:-1].split("|")]


@dataclass(frozen=True)
class Expected:
    """What the example supposes of a session."""

    family: str
    peak_tokens: float
    work_s: float


@dataclass(frozen=True)
class Row:
    at_s: float
    turn: str
    what: str
    prompt: int | None
    cached: int | None
    answer: int | None
    orders: str
    charge: int | None
    promised: int | None


def expectations() -> dict[str, Expected]:
    rows = rows_below("| session | family | E[peak] | E[work] s |")
    return {name: Expected(family, number(peak), number(work)) for name, family, peak, work in rows}


def story() -> list[Row]:
    heading = "| s | turn | what happens | prompt | cached | answer | orders | its charge | promised |"
    return [
        Row(number(s), turn, what, *map(tokens, sizes), orders, tokens(charge), tokens(promised))
        for s, turn, what, *sizes, orders, charge, promised in rows_below(heading)
    ]


class Supposed(LearnedForecast):
    """Expects of sessions what the page says."""

    def __init__(self, expected: Mapping[str, Expected]) -> None:
        super().__init__(ADMISSION)
        self._expected = expected

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        return max(session.context_tokens, self._expected[session.id].peak_tokens)

    def work_s(self, session: SessionState) -> float:
        return self._expected[session.id].work_s

    def gap_curve(self, session: SessionState, signature: str | None) -> Curve:
        return TOOL_GAP


class NotedQueue(HoldQueue):
    """Remembers the deadlines of all who were ever in it."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[float] = []

    def add(self, held: HeldTurn) -> None:
        super().add(held)
        self.deadlines.append(held.deadline_s)


def event_of(row: Row, expected: Mapping[str, Expected]) -> Event:
    match row.what:
        case "arrives":
            kind = TurnKind.FIRST if row.turn.endswith("1") else TurnKind.CONTINUATION
            family = expected[row.turn[0]].family
            assert row.prompt is not None
            return arrives(row.turn, row.prompt, family=family, kind=kind)
        case "calls a tool":
            return calls_tool(row.turn, row.prompt, cached_tokens=row.cached, completion_tokens=row.answer)
        case "answers":
            return answers(row.turn, row.prompt, cached_tokens=row.cached, completion_tokens=row.answer)
        case "timer":
            return TimerFired()
        case "reading":
            return reading()
        case _:
            raise AssertionError(row.what)


def orders_of(row: Row) -> list[Command]:
    if not row.orders:
        return []
    turn, word = row.orders.split()
    return [waits(turn) if word == "waits" else goes(turn, word)]


@dataclass
class Told:
    """What came of the whole story."""

    deadlines: list[float]
    warm_until_tokens: float
    """Of B, when it had lost its place."""


def tell() -> Told:
    """Compares each row's commands and charges with the policy's."""
    expected = expectations()
    book = Playbook(ADMISSION, parts=Parts(), forecast=Supposed(expected))
    policy = book.policy
    policy.held = queue = NotedQueue()
    warm_until_tokens = 0.0
    for row in story():
        event, orders = event_of(row, expected), orders_of(row)
        if isinstance(event, TimerFired):
            book.fires(row.at_s, *orders)
            warm_until_tokens = session_of(policy, "B").warm_until_tokens
        else:
            book.at(row.at_s, event, *orders)
        assert policy.reserved_tokens(row.at_s)["gpu"] == row.promised, row
        if row.turn:
            session = session_of(policy, row.turn[0])
            assert (session.charged_tokens if session.is_counted else None) == row.charge, row
    return Told(queue.deadlines, warm_until_tokens)


def session_of(policy: Policy, name: str) -> SessionState:
    session = policy.sessions.get(name)
    assert session is not None
    return session


def sums() -> list[tuple[str, str]]:
    return SUM.findall(example())


def results() -> set[float]:
    return {number(result) for _, result in sums()}


def test_every_row_is_what_the_policy_does():
    tell()
    assert f"a pool of {POOL_TOKENS:,} tokens" in example()


@pytest.mark.parametrize(("terms", "result"), sums())
def test_every_sum_adds_up(terms, result):
    """To as many digits as are printed."""
    formula = terms.replace(",", "").replace("×", "*").replace("−", "-")
    assert re.fullmatch(r"[\d.\s()+*/-]+", formula)
    digits = len(result.partition(".")[2])
    assert round(eval(formula), digits) == number(result)


def test_deadlines_are_the_policys():
    deadlines = {round(deadline_s, 1) for deadline_s in tell().deadlines}
    assert len(deadlines) == 3
    assert deadlines <= results()


def test_priorities_are_the_policys():
    expected = expectations()
    policy = Playbook(ADMISSION, parts=Parts(), forecast=Supposed(expected)).policy
    policy.handle(BackendObserved("gpu", POOL_TOKENS), 0)
    commands = [each for row in story() for each in policy.handle(event_of(row, expected), row.at_s)]
    found = {each.turn_id: each.priority for each in commands if isinstance(each, ForwardTurn)}
    assert {found["A1"], found["A2"], found["B3"]} <= results()


def test_the_place_is_worth_keeping_for_as_long_as_the_page_says():
    saved_s, context = PrefillRate().seconds(12_000), 12_000
    kept = best_keep(TOOL_GAP, saved_s, context, MEMORY_PRICE / POOL_TOKENS, ADMISSION.idle_gap_s)
    assert {round(kept.value_s / saved_s, 3), 6 + kept.ttl_s} <= results()


def test_warmth_lasts_for_as_long_as_the_page_says():
    assert tell().warm_until_tokens == 90_000
    assert "90,000: it is warm" in " ".join(example().split())


def test_the_correction_sees_the_losses_of_the_table():
    """Of continuations: what the session had when it came back, and what was found."""
    correction = Correction()
    correction.update(0, is_waited_for=False, filled_share=0.5)
    context: dict[str, int] = {}
    lost = 0
    for row in story():
        if row.what not in ("calls a tool", "answers"):
            continue
        assert row.prompt is not None
        assert row.cached is not None
        assert row.answer is not None
        if (had := context.get(row.turn[0])) is not None:
            correction.returned(had, row.cached + BLOCK_SLACK_TOKENS)
            lost += max(0, had - row.cached - BLOCK_SLACK_TOKENS)
        context[row.turn[0]] = row.prompt + row.answer
    correction.update(50, is_waited_for=False, filled_share=0.5)
    assert lost == 12_000 - 8_000 - 32
    assert ADMISSION.kv_target * correction.factor * POOL_TOKENS in results()


def test_somebody_waits_and_somebody_goes():
    """A page without orders would pass for one whose orders are right."""
    orders = [order for row in story() for order in orders_of(row)]
    assert sum(isinstance(order, HoldTurn) for order in orders) == 2
    assert sum(isinstance(event_of(row, expectations()), TurnArrived) for row in story()) == 9
    assert len(sums()) > 30
