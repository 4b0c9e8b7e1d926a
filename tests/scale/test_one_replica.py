"""One proxy without a store, and backends or a gateway that die: the same books as with many."""

import pytest

from tests.scale import faults
from tests.scale.case import Course, as_json, as_table, run_case
from tests.scale.faults import Fault
from tests.scale.world import Sizes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIZES = Sizes(replicas=1, store=False, kv_tokens=10_000)
COURSE = Course(sessions=80, lasts_s=2.0)


@pytest.mark.parametrize(
    "fault",
    [faults.BACKEND_KILLED, faults.GATEWAY_KILLED, faults.CUT_FROM_BACKEND],
    ids=lambda fault: fault.name,
)
async def test_nothing_is_lost(fault: Fault) -> None:
    report = await run_case(SIZES, fault, COURSE)
    assert report.violations == []
    assert report.books.answered == report.books.turns == COURSE.sessions * COURSE.turns
    assert report.books.changed_sessions == 0
    assert 0 < report.logs.fullest_ratio <= 1.000001
    assert report.logs.replayed == report.logs.decisions > 0
    assert (report.books.died > 0) == (report.books.turns_asked_again > 0)


async def test_a_proxy_that_is_killed_takes_the_connections_and_nothing_else() -> None:
    report = await run_case(SIZES, faults.REPLICA_KILLED, COURSE)
    assert report.violations == []
    assert report.books.answered == report.books.turns == COURSE.sessions * COURSE.turns
    assert report.books.died > 0
    assert report.logs.stretches == 2
    [row] = as_table([report]).splitlines()[2:]
    assert row.startswith("| replica killed | 320 |")
    assert as_json([report])[0]["books"]["turns"] == 320
