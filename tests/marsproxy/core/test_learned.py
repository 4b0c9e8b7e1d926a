"""What finished sessions teach the forecast."""

from marsproxy.core.events import Ending, TurnEnded
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings

FINISHED = TurnEnded("t", Ending.FINISHED)


def run_session(
    forecast: LearnedForecast, name: str, family: str, first: int, peak: int, seconds: float
) -> None:
    session = SessionState(name, "", family, 0.0, 0.0)
    forecast.turn_arrived(session, first, 0.0)
    forecast.turn_forwarded(session, 0.0)
    session.grow_to(peak)
    forecast.turn_ended(session, FINISHED, seconds)
    forecast.session_rested(session, seconds)


def test_families_of_different_size_separate_after_five_sessions_each():
    forecast = LearnedForecast(AdmissionSettings())
    for number in range(5):
        run_session(forecast, f"short-{number}", "short", 500, 10_000, 60.0)
        run_session(forecast, f"long-{number}", "long", 500, 80_000, 1_800.0)
    short, long = (SessionState("new", "", family, 0.0, 0.0) for family in ("short", "long"))
    assert forecast.work_s(long) > 2 * forecast.work_s(short)
    assert forecast.peak_tokens(long, None) > 2 * forecast.peak_tokens(short, None)
