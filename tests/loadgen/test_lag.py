"""The lag meter answers "largest since" for any moment."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.lag import TICK_S, LagMeter

lags = st.lists(st.floats(0, 10), min_size=1, max_size=50)


@given(lags, st.integers(0, 60))
def test_the_largest_since_is_the_maximum_of_the_tail(values: list[float], since: int) -> None:
    meter = LagMeter()
    for at, lag_s in enumerate(values):
        meter.add(at, lag_s)
    assert meter.largest_since(since, now=len(values) - 1) == max(values[since:], default=0.0)
    assert meter.largest_s == max(values)
    assert meter.samples == len(values)


def test_a_stall_counts_before_its_tick_came() -> None:
    meter = LagMeter()
    meter.add(1.0, 0.0)
    assert meter.largest_since(0.5, now=3.0) == pytest.approx(2.0 - TICK_S)
    assert meter.largest_since(2.5, now=3.0) == pytest.approx(0.5 - TICK_S)


def test_quantiles_are_unknown_before_the_first_tick() -> None:
    meter = LagMeter()
    assert meter.quantile_s(0.5) is None
    for i in range(100):
        meter.add(i, i / 100)
    assert meter.quantile_s(0.5) == 0.5
    assert meter.quantile_s(1.0) == 0.99


async def test_a_blocked_loop_shows() -> None:
    meter = LagMeter()
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(meter.watch(time.perf_counter))
        await asyncio.sleep(2 * TICK_S)
        start = time.perf_counter()
        time.sleep(5 * TICK_S)  # noqa: ASYNC251
        assert meter.largest_since(start, time.perf_counter()) >= 3 * TICK_S
        await asyncio.sleep(2 * TICK_S)
        watcher.cancel()
    assert meter.largest_s >= 3 * TICK_S
