"""Three replicas, three backends, three hundred sessions, and one thing that breaks.

Whatever breaks: no turn is lost or done twice beyond the connections that died with it, a turn is asked
twice at most, all replicas decide alike, and what is promised fits.
"""

import pytest

from tests.scale import faults
from tests.scale.case import CaseReport, Course, run_case
from tests.scale.faults import Fault
from tests.scale.world import Sizes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COURSE = Course()
ROUNDING = 1e-6
UNREAD_RATIO = 0.1
"""Of the limit: what one replica had let in and the others had not yet read as all parted (0.05 seen)."""


def assert_sound(report: CaseReport) -> None:
    """What holds whatever broke."""
    books, logs = report.books, report.logs
    assert report.violations == []
    assert books.answered == books.turns == COURSE.sessions * COURSE.turns
    assert books.most_attempts <= 2
    assert report.recovered_s is not None
    assert logs.admissions > 0
    # The sessions want more than there is, and get it, as far as whole sessions fit (0.78 seen).
    assert 0.6 < logs.fullest_ratio <= 1 + ROUNDING


@pytest.mark.parametrize(
    ("fault", "persists"),
    [
        (faults.GATEWAY_KILLED, True),
        (faults.STORE_SLOW, True),
        (faults.STORE_KILLED, True),
        (faults.STORE_KILLED, False),
        (faults.CUT_FROM_STORE, True),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "kept" if value else "forgets",
)
async def test_what_is_not_on_the_way_of_a_turn_costs_none(fault: Fault, persists: bool) -> None:
    """No connection dies, so nothing is asked again."""
    report = await run_case(Sizes(persists=persists), fault, COURSE)
    assert_sound(report)
    assert (report.books.died, report.books.most_attempts) == (0, 1)
    assert report.logs.compared > 0
    if fault is faults.STORE_KILLED:
        assert report.logs.alone >= Sizes().replicas, "more often where one parts again before all are back"
        assert report.logs.separations
        assert report.budgets.looks > 0
        assert report.budgets.all_alone_ratio is not None
        assert report.budgets.all_alone_ratio <= 1 + UNREAD_RATIO
        for separation in report.logs.separations:
            assert all(separation.allowed[name] <= whole for name, whole in separation.whole.items())
    if not fault.breaks_store:
        assert report.books.changed_sessions == 0


@pytest.mark.parametrize(
    "fault", [faults.REPLICA_KILLED, faults.BACKEND_KILLED], ids=lambda fault: fault.name
)
async def test_what_carries_turns_takes_only_its_own_with_it(fault: Fault) -> None:
    report = await run_case(Sizes(), fault, COURSE)
    assert_sound(report)
    assert report.books.turns_asked_again <= report.books.died
    assert report.books.changed_sessions <= report.books.died
    assert report.logs.compared > 0


@pytest.mark.parametrize(
    "fault", [faults.CUT_FROM_BACKEND, faults.REPLICA_PAUSED], ids=lambda fault: fault.name
)
async def test_what_is_silent_for_a_while_is_waited_for(fault: Fault) -> None:
    report = await run_case(Sizes(), fault, COURSE)
    assert_sound(report)
    assert report.books.changed_named == 0
    if fault is faults.CUT_FROM_BACKEND:
        assert report.books.changed_sessions == 0


async def test_a_cable_that_is_pulled() -> None:
    """The partition once more, as the kernel makes it: the replica's namespace has no way to the store."""
    report = await run_case(Sizes(namespaces=True), faults.UNPLUGGED_FROM_STORE, COURSE)
    assert_sound(report)
    assert (report.books.died, report.books.most_attempts) == (0, 1)
    assert report.logs.alone > 0
