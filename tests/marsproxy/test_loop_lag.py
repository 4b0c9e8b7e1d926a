"""A blocked loop shows."""

import asyncio
import time

from marsproxy.loop_lag import watch_loop_lag


async def test_a_stall_is_observed() -> None:
    """Blocking for 50 ms makes a timer of 10 ms at least 40 ms late."""
    lags: list[float] = []
    has_lag = asyncio.Event()

    def observe(lag_s: float) -> None:
        lags.append(lag_s)
        has_lag.set()

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch_loop_lag(observe, interval_s=0.01))
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 (the point of the test)
        await has_lag.wait()
        watching.cancel()
    assert lags[0] >= 0.039
