"""When readings come: while something goes on, and else right before they are needed."""

from loadgen.sim.tool_hosts import ToolHostShape
from loadgen.workload import Turn
from marsproxy.core.commands import SetTimer
from marsproxy.core.events import BackendObserved, TimerFired, ToolHostsObserved, TurnArrived
from tests.loadgen.sim.playing import Scripted, go, play, session, tool

HOSTS = ToolHostShape(1.0, 1_000.0)


def test_a_busy_time_is_read_every_second() -> None:
    played = play([session("a", Turn(10, 4), at_s=2.5)], backends=2, tools=HOSTS)
    # Before the arrival is told, and then as long as the turn is open; its last step ends at 6.5.
    readings = [(now, event.backend) for now, event in played.heard(BackendObserved)]
    times = [2.5, 3.5, 4.5, 5.5, 6.5]
    assert readings == [(at_s, name) for at_s in times for name in ("engine-0", "engine-1")]
    assert [now for now, _ in played.heard(ToolHostsObserved)] == times
    assert isinstance(played.log[0][1], BackendObserved)


def test_the_interval_is_a_setting() -> None:
    played = play([session("a", Turn(10, 9))], telemetry_interval_s=2.5)
    assert [now for now, _ in played.heard(BackendObserved)] == [0.0, 2.5, 5.0, 7.5]


def test_a_long_tool_is_not_read_along() -> None:
    asks = [session("a", Turn(10, 1, tool(5_000.0)), Turn(10, 1))]
    played = play(asks, Scripted(lambda _event, _now: None), tools=HOSTS)
    # The turn is over at 1.0, with the last reading; the end of the tool is told on a new one.
    assert [now for now, _ in played.heard(ToolHostsObserved)] == [0.0, 1.0, 5_001.0, 5_002.0]


def test_whatever_is_told_the_reading_is_no_older_than_an_interval() -> None:
    sessions = [
        session(f"s{i}", Turn(10, 2, tool(3.0 + 7 * i)), Turn(10, 2, think_s=40.0), Turn(10, 1), at_s=11 * i)
        for i in range(5)
    ]
    last_s = -100.0
    played = play(sessions, "mars", tools=HOSTS)
    for now, event, _ in played.log:
        if isinstance(event, BackendObserved):
            last_s = now
        assert now - last_s <= 1.0


def test_a_timer_in_a_quiet_time_gets_a_reading_first() -> None:
    def answer(event, now):
        return [go(event), SetTimer(500.0)] if isinstance(event, TurnArrived) else []

    played = play([session("a", Turn(10, 1, think_s=900.0), Turn(10, 1))], Scripted(answer))
    told = [(now, type(event)) for now, event, _ in played.log if now == 500.0]
    assert told == [(500.0, BackendObserved), (500.0, TimerFired)]


def test_a_delayed_reading_is_as_old_as_that() -> None:
    played = play([session("a", Turn(160, 9))], telemetry_delay_s=2.5)
    readings = [(now, event.running, event.kv_used_ratio) for now, event in played.heard(BackendObserved)]
    # What was there before the first arrival is known at once: nothing had changed. Then 2.5 s behind:
    # taken at 1.0, with the prompt in 10 of 1,000 blocks, and so on.
    assert readings[:3] == [(0.0, 0, 0.0), (3.5, 1, 0.01), (4.5, 1, 0.011)]
    assert [now for now, _, _ in readings[3:]] == [5.5, 6.5, 7.5, 8.5]


def test_with_a_delay_tools_are_read_along() -> None:
    played = play([session("a", Turn(10, 1, tool(6.0)), Turn(10, 1))], tools=HOSTS, telemetry_delay_s=2.5)
    running = [(now, event.running) for now, event in played.heard(ToolHostsObserved)]
    assert running == [(0.0, 0), (3.5, 1), (4.5, 1), (5.5, 1), (6.5, 1), (7.5, 1)]
