"""What sessions and tools teach the forecast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.events import Ending, ToolObserved, ToolPhase, TurnEnded
from marsproxy.core.forecast import Forecast
from marsproxy.core.learned import MAX_COURSES, PRIOR_WORK_S, LearnedForecast
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings

STEPS = ("arrive", "forward", "end", "rest", "gap", "forget")
FINISHED = TurnEnded("t", Ending.FINISHED)


def forecast() -> LearnedForecast:
    return LearnedForecast(AdmissionSettings())


def session_of(family: str, name: str = "new") -> SessionState:
    return SessionState(name, "", family, 0.0, 0.0)


def run_turn(learned: Forecast, session: SessionState, context: int, start_s: float, end_s: float) -> None:
    learned.turn_arrived(session, 500, start_s)
    learned.turn_forwarded(session, start_s)
    session.grow_to(context)
    learned.turn_ended(session, FINISHED, end_s)


def run_session(learned: Forecast, name: str, family: str, peak: int, seconds: float) -> SessionState:
    session = session_of(family, name)
    run_turn(learned, session, peak, 0.0, seconds)
    learned.session_rested(session, seconds)
    return session


def ran(signature: str | None, memory_mb: float | None) -> ToolObserved:
    return ToolObserved("e", ToolPhase.FINISHED, "g", tool_signature=signature, memory_peak_mb=memory_mb)


def test_a_new_family_is_expected_to_be_like_the_prior_and_not_larger_than_the_pool_can_take() -> None:
    assert forecast().peak_tokens(session_of("f"), None) == pytest.approx(35_000, rel=1e-3)
    assert forecast().peak_tokens(session_of("f"), 80_000) == pytest.approx(10_000, rel=1e-3)
    assert forecast().work_s(session_of("f")) == pytest.approx(PRIOR_WORK_S, rel=1e-3)


def test_families_of_different_size_separate_after_five_sessions_each() -> None:
    learned = forecast()
    for number in range(5):
        run_session(learned, f"short-{number}", "short", 10_000, 60.0)
        run_session(learned, f"long-{number}", "long", 80_000, 1_800.0)
    short, long = session_of("short"), session_of("long")
    assert learned.work_s(long) > 2 * learned.work_s(short)
    assert learned.peak_tokens(long, None) > 2 * learned.peak_tokens(short, None)


def test_a_session_that_has_outgrown_its_family_is_still_expected_to_grow() -> None:
    learned = forecast()
    for number in range(30):
        run_session(learned, f"s{number}", "f", 10_000 + 100 * number, 60.0)
    session = session_of("f")
    for tokens in (9_000, 12_950, 30_000, 2_000_000):
        session.grow_to(tokens)
        assert learned.peak_tokens(session, None) > tokens


def test_a_first_prompt_counts_before_its_turn_has_run() -> None:
    learned, session = forecast(), session_of("f")
    learned.turn_arrived(session, 90_000, 0.0)
    assert learned.peak_tokens(session, None) > 90_000


def test_being_held_is_no_work_and_a_tool_is() -> None:
    held, free = forecast(), forecast()
    for number in range(20):
        session = session_of("f", f"s{number}")
        run_turn(free, session, 1_000, 0.0, 30.0)
        run_turn(free, session, 2_000, 90.0, 100.0)
        free.session_rested(session, 130.0)

        session = session_of("f", f"s{number}")
        held.turn_arrived(session, 500, 0.0)
        held.turn_forwarded(session, 500.0)
        session.grow_to(1_000)
        held.turn_ended(session, FINISHED, 530.0)
        held.turn_arrived(session, 1_500, 590.0)
        held.turn_forwarded(session, 2_590.0)
        session.grow_to(2_000)
        held.turn_ended(session, FINISHED, 2_600.0)
        held.session_rested(session, 2_630.0)
    new = session_of("f")
    assert held.work_s(new) == pytest.approx(free.work_s(new)) == pytest.approx(100, rel=0.1)


def test_a_second_turn_in_flight_is_not_counted_twice() -> None:
    learned = forecast()
    for number in range(60):
        session = session_of("f", f"s{number}")
        learned.turn_arrived(session, 500, 0.0)
        learned.turn_forwarded(session, 0.0)
        session.main_turns.add("t")
        learned.turn_arrived(session, 500, 10.0)
        learned.turn_forwarded(session, 20.0)
        session.grow_to(1_000)
        learned.turn_ended(session, FINISHED, 40.0)
        learned.turn_ended(session, FINISHED, 60.0)
        learned.session_rested(session, 60.0)
    assert learned.work_s(session_of("f")) == pytest.approx(60, rel=0.1)


def test_the_work_of_a_session_that_came_back_is_that_of_its_whole_job() -> None:
    learned = forecast()
    for number in range(30):
        session = session_of("f", f"s{number}")
        for turn in range(5):
            run_turn(learned, session, 1_000 * (turn + 1), 1_000.0 * turn, 1_000.0 * turn + 100)
            learned.session_rested(session, 1_000.0 * turn + 100)
    assert learned.work_s(session_of("f")) == pytest.approx(500, rel=0.1)


def test_the_peak_of_a_session_that_comes_back_is_up_to_its_next_rest() -> None:
    learned = forecast()
    for number in range(30):
        session = session_of("f", f"s{number}")
        for context in (10_000, 20_000, 40_000, 80_000):
            run_turn(learned, session, context, 0.0, 1.0)
            learned.session_rested(session, 1.0)
    session = session_of("f")
    assert learned.peak_tokens(session, None) == pytest.approx(10_000, rel=0.1)
    session.grow_to(24_000)
    assert learned.peak_tokens(session, None) == pytest.approx(40_000, rel=0.1)


def test_a_session_that_never_rests_has_ended_when_it_is_forgotten() -> None:
    rested, forgotten = forecast(), forecast()
    for number in range(30):
        rested.session_forgotten(run_session(rested, f"s{number}", "f", 10_000, 60.0))
        session = session_of("f", f"s{number}")
        run_turn(forgotten, session, 10_000, 0.0, 60.0)
        forgotten.session_forgotten(session)
    new = session_of("f")
    assert forgotten.peak_tokens(new, None) == rested.peak_tokens(new, None)
    assert forgotten.work_s(new) == rested.work_s(new)


def test_a_turn_that_was_given_up_takes_nothing_from_the_work_before_it() -> None:
    learned = forecast()
    for number in range(60):
        session = session_of("f", f"s{number}")
        run_turn(learned, session, 1_000, 0.0, 60.0)
        learned.turn_arrived(session, 1_000, 60.0)
        learned.turn_forwarded(session, 900.0)
        learned.session_rested(session, 950.0)
        run_turn(learned, session, 2_000, 1_000.0, 1_040.0)
        learned.session_rested(session, 1_040.0)
    assert learned.work_s(session_of("f")) == pytest.approx(100, rel=0.1)


def test_nothing_is_learned_of_a_session_of_which_no_turn_finished() -> None:
    learned, session = forecast(), session_of("f")
    learned.turn_arrived(session, 500, 0.0)
    learned.turn_forwarded(session, 0.0)
    learned.session_rested(session, 900.0)
    learned.session_forgotten(session)
    assert learned.work_s(session_of("f")) == pytest.approx(PRIOR_WORK_S, rel=1e-3)


def test_gaps_are_learned_by_tool_and_pauses_of_users_apart_from_them() -> None:
    learned, session = forecast(), session_of("f")
    assert learned.gap_over_probability(session, "bash", 1.0) > 0.5
    assert learned.gap_over_probability(session, None, 10.0) < 0.1
    for _ in range(50):
        learned.gap_ended(session, "bash", 60.0)
        learned.gap_ended(session, None, 2.0)
    assert learned.gap_over_probability(session, "bash", 1.0) < 0.2
    assert learned.gap_over_probability(session, None, 10.0) > 0.8
    assert 30 < learned.gap_curve(session, "bash").quantile(0.95) < 120


def test_memory_is_unknown_until_it_was_measured() -> None:
    learned = forecast()
    learned.tool_finished("f", ran("bash", None))
    assert learned.memory_mb("bash", "f") is None
    assert learned.memory_mean_mb("bash", "f") is None


def test_one_measurement_of_memory_is_not_the_whole_truth() -> None:
    learned = forecast()
    learned.tool_finished("f", ran("bash", 50.0))
    high = learned.memory_mb("bash", "f")
    assert high is not None
    assert 300 < high < 2_000
    assert learned.memory_mean_mb("bash", "f") == 50


def test_memory_is_known_by_tool_and_by_family() -> None:
    learned = forecast()
    for _ in range(19):
        learned.tool_finished("f", ran("bash", 50.0))
    learned.tool_finished("f", ran("make", 2_000.0))
    bash, make, anything = (learned.memory_mb(tool, "f") for tool in ("bash", "make", None))
    assert bash is not None
    assert make is not None
    assert anything is not None
    assert 40 < bash < 100 < make
    assert learned.memory_mean_mb(None, "f") == pytest.approx((19 * 50 + 2_000) / 20, rel=0.1)


def test_what_is_known_of_live_sessions_is_bounded() -> None:
    learned = forecast()
    for number in range(MAX_COURSES + 10):
        learned.turn_arrived(session_of("f", f"s{number}"), 500, 0.0)
    assert learned.courses == MAX_COURSES
    forgotten = session_of("f", "s0")
    forgotten.grow_to(1_000)
    learned.turn_ended(forgotten, FINISHED, 1.0)
    learned.session_rested(forgotten, 1.0)
    assert learned.peak_tokens(forgotten, None) > 1_000


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.floats(0, 400)), max_size=60))
def test_whatever_it_is_told_it_answers_sensibly(told: list[tuple[str, int, float]]) -> None:
    learned, now = forecast(), 0.0
    sessions = [session_of("even" if number % 2 else "odd", f"s{number}") for number in range(3)]
    for step, number, amount in told:
        session, now = sessions[number], now + amount
        match step:
            case "arrive":
                learned.turn_arrived(session, round(amount * 100), now)
            case "forward":
                learned.turn_forwarded(session, now)
            case "end":
                session.grow_to(round(amount * 500))
                learned.turn_ended(session, FINISHED, now)
            case "rest":
                learned.session_rested(session, now)
            case "gap":
                learned.gap_ended(session, None if number else "bash", amount)
            case _:
                learned.session_forgotten(session)
    for session in sessions:
        assert learned.peak_tokens(session, 400_000) > session.context_tokens
        assert 0 < learned.work_s(session) < 1e6
        assert 0 <= learned.gap_over_probability(session, "bash", 30.0) <= 1
