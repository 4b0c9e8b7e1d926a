"""The pace of the wall clock, on a clock that the test owns."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from loadgen.engine.realtime import MAX_LAG_S, RealTimeEngine
from loadgen.engine.requests import EngineRequest, Phase
from loadgen.engine.scheduler import Scheduler, SchedulerLimits

STEP_S = 0.01


class FakeTime:
    """Every sleep takes ``oversleep_s`` more than asked, as an event loop's do."""

    def __init__(self, oversleep_s: float = 0.0) -> None:
        self.now = 100.0
        self._oversleep_s = oversleep_s

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds + self._oversleep_s
        await asyncio.sleep(0)


def request(prompt: int = 4, output: int = 1) -> EngineRequest:
    return EngineRequest("r", prompt, output, [hash(("r", i)) for i in range(prompt + output)])


def step_seconds(items: Iterable[tuple[float, int]]) -> float:
    return STEP_S if list(items) else 0.0


class Listener:
    def __init__(self) -> None:
        self.heard: list[int] = []
        self.over = asyncio.Event()

    def __call__(self, request: EngineRequest) -> None:
        self.heard.append(request.generated_tokens)
        if request.is_over:
            self.over.set()


@asynccontextmanager
async def running(fake: FakeTime, speed: float = 1.0) -> AsyncIterator[RealTimeEngine]:
    scheduler = Scheduler(SchedulerLimits(kv_blocks=100))
    engine = RealTimeEngine(scheduler, step_seconds, speed=speed, clock=fake.clock, sleep=fake.sleep)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(engine.run())
        yield engine
        loop.cancel()


@pytest.mark.parametrize("speed", [0.5, 1.0, 20.0])
async def test_each_step_lasts_what_the_model_says_divided_by_the_speed(speed: float) -> None:
    fake, listener = FakeTime(), Listener()
    async with running(fake, speed) as engine:
        engine.submit(request(output=100), listener)
        await listener.over.wait()

    assert listener.heard == list(range(1, 101))
    assert fake.now == pytest.approx(100.0 + 100 * STEP_S / speed)
    assert engine.behind_s == 0.0


async def test_late_wake_ups_are_made_up_for() -> None:
    fake, listener = FakeTime(oversleep_s=STEP_S / 2), Listener()
    async with running(fake) as engine:
        engine.submit(request(output=100), listener)
        await listener.over.wait()

    assert fake.now == pytest.approx(100.0 + 100 * STEP_S + STEP_S / 2)
    assert engine.behind_s == 0.0


async def test_a_machine_too_slow_for_the_speed_is_counted() -> None:
    fake, listener = FakeTime(oversleep_s=3 * STEP_S), Listener()
    async with running(fake) as engine:
        engine.submit(request(output=100), listener)
        await listener.over.wait()

    took_s = fake.now - 100.0
    assert took_s == pytest.approx(100 * 3 * STEP_S, rel=0.02)
    assert engine.behind_s == pytest.approx(took_s - 100 * STEP_S, abs=MAX_LAG_S + 3 * STEP_S)


async def test_idle_time_is_not_owed() -> None:
    fake = FakeTime()
    async with running(fake) as engine:
        for _ in range(2):
            listener = Listener()
            one = request()
            engine.submit(one, listener)
            await listener.over.wait()
            assert one.first_token_s == pytest.approx(one.arrival_s + STEP_S)
            fake.now += 3600.0
    assert engine.behind_s == 0.0


async def test_an_aborted_request_is_not_heard_of_again() -> None:
    fake, aborted, other = FakeTime(), Listener(), Listener()
    async with running(fake) as engine:
        gone = request(output=50)
        engine.submit(gone, aborted)
        engine.submit(request(output=50), other)
        for _ in range(10):
            await asyncio.sleep(0)
        assert 0 < gone.generated_tokens < 50
        engine.abort(gone)
        engine.abort(gone)
        heard = list(aborted.heard)
        await other.over.wait()

    assert gone.phase is Phase.ABORTED
    assert aborted.heard == heard
    assert engine.scheduler.pool.used_blocks == 0


async def test_a_stop_tells_everybody_once() -> None:
    fake, listener = FakeTime(), Listener()
    async with running(fake) as engine:
        one = request(output=50)
        engine.submit(one, listener)
        engine.stop()
        engine.stop()

    assert listener.heard == [0]
    assert one.phase is Phase.ABORTED
    assert not engine.scheduler.has_work


def test_a_speed_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="speed must be above 0"):
        RealTimeEngine(Scheduler(SchedulerLimits(kv_blocks=1)), step_seconds, speed=0.0)
