"""The oracle knows what its workload says; the handicapped ones do not."""

import pytest

from loadgen.sim.forecasts import (
    PassedOn,
    ScaledForecast,
    TrueForecast,
    WithoutHistory,
    WithoutToolHistory,
)
from loadgen.workload import Session, ToolCall, Turn
from marsproxy.core.events import Ending, ToolObserved, ToolPhase, TurnEnded
from marsproxy.core.forecast import Forecast
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings

SESSION = Session(
    "s",
    [
        Turn(100, 10, ToolCall("bash", 2.0, memory_mb=50)),
        Turn(100, 10, None, think_s=60.0),
        Turn(500, 10, ToolCall("bash", 30.0, memory_mb=150)),
        Turn(100, 10),
    ],
    system_tokens=1_000,
)


def oracle() -> Forecast:
    return TrueForecast({"s": SESSION}, lambda session: 10.0 * len(session.turns))


def after(turns: int, context: int = 0) -> SessionState:
    return SessionState("s", "", "f", 0.0, 0.0, turns=turns, context_tokens=context)


@pytest.mark.parametrize(("turns", "peak"), [(0, 1_220), (1, 1_220), (2, 1_840), (3, 1_840), (4, 1_840)])
def test_the_oracle_knows_the_context_at_the_next_rest(turns: int, peak: int) -> None:
    assert oracle().peak_tokens(after(turns), None) == peak


def test_the_oracle_believes_its_eyes() -> None:
    assert oracle().peak_tokens(after(4, context=9_000), None) == 9_000


@pytest.mark.parametrize(("turns", "gap_s"), [(1, 2.0), (2, 60.0), (3, 30.0)])
def test_the_oracle_knows_when_a_gap_is_over(turns: int, gap_s: float) -> None:
    asked = [oracle().gap_over_probability(after(turns), "bash", within) for within in (gap_s - 1, gap_s)]
    assert asked == [0.0, 1.0]
    assert oracle().gap_curve(after(turns), "bash").quantile(0.5) == gap_s


def test_the_oracle_knows_work_and_memory() -> None:
    assert oracle().work_s(after(0)) == 40.0
    assert oracle().memory_mb("bash", "f") == oracle().memory_mb(None, "f") == 150
    assert oracle().memory_mean_mb("bash", "f") == oracle().memory_mean_mb(None, "f") == 100
    assert oracle().memory_mb("make", "f") is None


def test_the_oracle_learns_nothing() -> None:
    told = oracle()
    live(told)
    assert told.work_s(after(0)) == 40.0


def live(forecast: Forecast) -> None:
    """Thirty large sessions with long gaps."""
    for number in range(30):
        session = SessionState(f"s{number}", "", "f", 0.0, 0.0)
        forecast.turn_arrived(session, 500, 0.0)
        forecast.turn_forwarded(session, 0.0)
        session.grow_to(200_000)
        forecast.turn_ended(session, TurnEnded("t", Ending.FINISHED), 5_000.0)
        forecast.gap_ended(session, "bash", 500.0)
        forecast.tool_finished("f", ToolObserved("e", ToolPhase.FINISHED, "g", memory_peak_mb=900.0))
        forecast.session_rested(session, 5_000.0)
        forecast.session_forgotten(session)


def answers(forecast: Forecast) -> tuple[float | None, ...]:
    new = SessionState("new", "", "f", 0.0, 0.0)
    return (
        forecast.peak_tokens(new, None),
        forecast.work_s(new),
        forecast.gap_over_probability(new, "bash", 100.0),
        forecast.gap_curve(new, "bash").quantile(0.5),
        forecast.memory_mb(None, "f"),
        forecast.memory_mean_mb(None, "f"),
    )


def test_what_is_passed_on_is_passed_on_whole() -> None:
    plain, through = learned(), PassedOn(learned())
    live(plain)
    live(through)
    assert answers(through) == answers(plain)


def learned() -> LearnedForecast:
    return LearnedForecast(AdmissionSettings())


def test_a_factor_is_on_sizes_only() -> None:
    plain, scaled = learned(), ScaledForecast(learned(), 0.5)
    live(plain)
    live(scaled)
    peak, work, *rest = answers(plain)
    assert peak is not None
    assert work is not None
    assert answers(scaled) == (peak / 2, work / 2, *rest)


def test_a_session_is_never_expected_to_be_smaller_than_it_is() -> None:
    session = SessionState("s", "", "f", 0.0, 0.0, context_tokens=90_000)
    assert ScaledForecast(learned(), 0.1).peak_tokens(session, None) == 90_000


def test_without_history_all_is_as_on_the_first_day() -> None:
    told = WithoutHistory(learned())
    live(told)
    assert answers(told) == answers(learned())


def test_without_tool_history_only_sizes_are_learned() -> None:
    told, plain, new = WithoutToolHistory(learned()), learned(), learned()
    live(told)
    live(plain)
    assert answers(told) == answers(plain)[:2] + answers(new)[2:]
