"""What a decision costs does not grow with the crowd: instructions are counted, no clock is read.

Between a hundred sessions and three thousand lie five doublings, so a logarithm may grow by three
quarters; whatever looks at all sessions, tenants or backends grows thirtyfold.
"""

import pytest

from marsproxy.core.commands import Command
from marsproxy.core.events import Event
from tests.bench.crowd import Crowd, Shape
from tests.bench.instructions import instructions_of

pytestmark = pytest.mark.slow

MEASURED = 1_500
"""Decisions: some hundreds of each frequent kind."""
GROWTH = 1.75


def mean_and_p99(shape: Shape) -> tuple[float, float]:
    """Instructions of a decision of a crowd in its steady state."""
    crowd = Crowd(shape)
    crowd.gather()
    crowd.play(8 * shape.sessions)
    counts: list[int] = []
    handle = crowd.policy.handle

    def counting(event: Event, now: float) -> list[Command]:
        commands: list[Command] = []
        counts.append(instructions_of(lambda: commands.extend(handle(event, now))))
        return commands

    crowd.handle = counting
    crowd.play(MEASURED)
    counts.sort()
    return sum(counts) / len(counts), counts[int(0.99 * len(counts))]


@pytest.fixture(scope="module")
def small() -> tuple[float, float]:
    return mean_and_p99(Shape(100, tenants=10, families=10))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape(3_000, tenants=10, families=10), id="sessions"),
        pytest.param(Shape(3_000, tenants=3_000, families=10), id="tenants"),
        pytest.param(Shape(3_000, tenants=10, families=10, backends=64), id="backends"),
    ],
)
def test_a_decision_costs_no_more_in_a_large_crowd(shape: Shape, small: tuple[float, float]) -> None:
    mean, p99 = mean_and_p99(shape)
    assert mean < GROWTH * small[0]
    assert p99 < GROWTH * small[1]


def test_a_loop_is_counted() -> None:
    """Else the comparison above would hold for anything."""
    short, long = (instructions_of(lambda n=n: [None for _ in range(n)]) for n in (10, 1_000))
    assert long > 50 * short
