"""The soak, short, and that its judgement of a series finds growth; the long one is ``tests.scale.soak``."""

import pytest

from tests.scale.samples import LEAST_SAMPLES, Samples, growth
from tests.scale.soak import SHORT_EXPIRY, soak
from tests.scale.soak_page import page
from tests.scale.world import Sizes


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_three_minutes_in_which_everything_breaks() -> None:
    report = await soak(
        Sizes(settings=SHORT_EXPIRY), minutes=3, sessions=120, gap_s=4.0, faults_per_minute=6.0, seed=1
    )
    assert report.violations == []
    assert report.faults
    assert report.books.turns > 500
    assert report.logs.compared > 0
    assert report.series_judged > 10
    assert None not in report.recoveries_s


def test_growth_is_from_the_second_third_to_the_last() -> None:
    assert growth([1.0] * (LEAST_SAMPLES - 1)) is None
    warming = growth([0.0] * 4 + [10.0] * 8)
    assert warming is not None
    assert (warming.level, warming.by) == (10.0, 0.0)
    leaking = growth([float(n) for n in range(12)])
    assert leaking is not None
    assert (leaking.level, leaking.by) == (5.5, 4.0)


def test_a_leak_is_told_and_a_new_life_is_none() -> None:
    samples = Samples()
    for number in range(30):
        samples.add("resident, MB", "leaks", 100 + number * 2)
        samples.add("resident, MB", "restarted", 100 + number % 15, life=1 + number // 15)
        samples.add("open files", "steady", 20 + number % 3)
        samples.add("tasks", "dead", None)
    assert samples.growing() == ["resident, MB of leaks grew from 129.0 by 20.0, more than 18.4"]
    assert samples.judged == 4
    drawn = page(samples, {"nothing": 2}, samples.growing())
    assert "nothing 2 times" in drawn
    assert drawn.count("<svg") == 2
    assert "1 promises did not hold" in drawn
