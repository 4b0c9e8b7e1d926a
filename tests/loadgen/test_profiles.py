"""The shipped profiles say what their sources say, and a seed is a workload."""

from collections.abc import Sequence
from statistics import mean, median

import pytest

from loadgen.errors import FieldError, LoadgenError
from loadgen.profiles import Profile, load_profile, profile_names
from loadgen.profiles.distribution import parse_distribution
from loadgen.workload import ToolCall, Turn

SESSIONS = 500


def drawn(name: str) -> tuple[Profile, list[list[Turn]]]:
    profile = load_profile(name)
    return profile, [profile.session(i, seed=7).turns for i in range(SESSIONS)]


def test_the_profiles_that_ship() -> None:
    assert profile_names() == [
        "autonomous",
        "demo",
        "heavy-tail-tools",
        "interactive",
        "memory-bound",
        "tool-heavy",
    ]


@pytest.mark.parametrize("name", ["autonomous", "heavy-tail-tools"])
def test_autonomous_contexts_match_their_source(name: str) -> None:
    profile, sessions = drawn(name)
    assert median(map(len, sessions)) == pytest.approx(39, rel=0.1)
    first = median(turns[0].new_tokens + profile.system_tokens for turns in sessions)
    assert first == pytest.approx(568, rel=0.1)
    assert median(turn.new_tokens for turns in sessions for turn in turns[1:]) == pytest.approx(441, rel=0.05)
    assert median(turn.output_tokens for turns in sessions for turn in turns) == pytest.approx(77, rel=0.05)
    # Not fitted, so a check of the whole: the published median of final contexts.
    assert median(final_context(profile, turns) for turns in sessions) == pytest.approx(37_600, rel=0.15)


def test_autonomous_tools_take_less_than_a_second() -> None:
    durations = sorted(tool_times(drawn("autonomous")[1]))
    assert median(durations) == pytest.approx(0.155, rel=0.03)
    assert durations[int(0.9 * len(durations))] == pytest.approx(0.395, rel=0.05)
    assert durations[int(0.99 * len(durations))] == pytest.approx(2.38, rel=0.2)


def test_interactive_sessions_match_their_source() -> None:
    profile, sessions = drawn("interactive")
    # Sessions that reach the context window end there, which costs the longest their last turns.
    assert median(map(len, sessions)) == pytest.approx(44, rel=0.15)
    assert median(tool_times(sessions)) == pytest.approx(9, rel=0.1)
    pauses = [turn.think_s for turns in sessions for turn in turns if turn.think_s is not None]
    assert median(pauses) == pytest.approx(122, rel=0.15)
    gaps = sum(len(turns) - 1 for turns in sessions)
    assert len(pauses) / gaps == pytest.approx(profile.user_pause_share, rel=0.1)
    assert median(final_context(profile, turns) for turns in sessions) == pytest.approx(148_000, rel=0.15)


def test_a_clients_own_time_is_no_load_on_a_tool_host() -> None:
    gaps = [turn for turns in drawn("interactive")[1] for turn in turns[:-1]]
    tools = [turn.tool for turn in gaps if turn.tool is not None]
    assert {(tool.name, tool.cores, tool.memory_mb) for tool in tools} == {("client", 0, 0)}
    assert all((turn.tool is None) != (turn.think_s is None) for turn in gaps)


@pytest.mark.parametrize("name", ["tool-heavy", "memory-bound"])
def test_tool_heavy_sessions_match_their_source(name: str) -> None:
    profile, sessions = drawn(name)
    counts = [len(turns) for turns in sessions]
    assert quantiles(counts) == pytest.approx((45, 92, 134), rel=0.1)
    assert median(turns[0].new_tokens for turns in sessions) + profile.system_tokens == pytest.approx(
        13_385, rel=0.01
    )
    new = [turn.new_tokens for turns in sessions for turn in turns[1:]]
    assert quantiles(new)[:2] == pytest.approx((180, 1_195), rel=0.05)
    output = [turn.output_tokens for turns in sessions for turn in turns]
    assert quantiles(output) == pytest.approx((145, 601, 1_400), rel=0.05)
    # Not fitted, so checks of the whole. The source's longest sessions grow less per turn (p90 84,300).
    assert median(final_context(profile, turns) for turns in sessions) == pytest.approx(54_500, rel=0.1)


@pytest.mark.parametrize("name", ["tool-heavy", "memory-bound"])
def test_tool_heavy_tools_take_a_third_of_the_time(name: str) -> None:
    sessions = drawn(name)[1]
    durations = tool_times(sessions)
    half, nine_tenths, last = quantiles(durations)
    # Where half the calls are short and half are long, the median hangs in between.
    assert 0.025 < half < 0.08
    assert (nine_tenths, last) == pytest.approx((9.5, 20.5), rel=0.1)
    calls = sum(map(len, sessions))
    assert sum(durations) / (sum(durations) + 5.832 * calls) == pytest.approx(0.364, abs=0.015)
    bash = quantiles(tool_times(sessions, "Bash"))
    assert bash == pytest.approx((6.8, 10.9, 28), rel=0.15)


def test_memory_peaks_are_many_times_the_mean() -> None:
    held = memory(drawn("memory-bound")[1], "Bash")
    assert mean(held) == pytest.approx(264, rel=0.1)
    assert max(held) / mean(held) == pytest.approx(15.4, rel=0.1)
    measured = memory(drawn("tool-heavy")[1], "Bash")
    assert mean(measured) == pytest.approx(17, rel=0.2)


def test_the_heavy_tail_holds_nearly_all_tool_time() -> None:
    durations = tool_times(drawn("heavy-tail-tools")[1])
    assert median(durations) == pytest.approx(0.3, rel=0.1)
    assert mean(durations) == pytest.approx(16.8, rel=0.15)
    long = [duration for duration in durations if duration > 60]
    assert len(long) / len(durations) == pytest.approx(0.049, rel=0.2)
    assert 0.75 < sum(long) / sum(durations) < 0.93


def test_demo_sessions_are_short() -> None:
    profile, sessions = drawn("demo")
    assert {len(turns) for turns in sessions} == {5, 6}
    assert all(3500 <= turns[0].new_tokens + profile.system_tokens <= 4500 for turns in sessions)
    assert all(1200 <= turn.new_tokens <= 1800 for turns in sessions for turn in turns[1:])
    assert all(40 <= turn.output_tokens <= 70 for turns in sessions for turn in turns)
    assert all(0.1 <= duration <= 0.5 for duration in tool_times(sessions))


@pytest.mark.parametrize("name", profile_names())
def test_a_session_depends_on_its_number_and_seed_alone(name: str) -> None:
    profile = load_profile(name)
    assert [profile.session(i, 3) for i in (5, 0, 5)] == [
        load_profile(name).session(5, 3),
        profile.session(0, 3),
        profile.session(5, 3),
    ]
    assert profile.session(0, 3).turns != profile.session(0, 4).turns
    assert profile.session(0, 3).turns != profile.session(1, 3).turns


@pytest.mark.parametrize("name", profile_names())
def test_sessions_fit_their_context_window_and_end_without_a_gap(name: str) -> None:
    profile, sessions = drawn(name)
    assert max(final_context(profile, turns) for turns in sessions) <= profile.max_context_tokens
    assert all(turns[-1].tool is None and turns[-1].think_s is None for turns in sessions)


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(LoadgenError, match="allowed: autonomous, demo, heavy-tail-tools, inter"):
        load_profile("fast")


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"median": 3},
        {"quantiles": [[0, 1]]},
        {"quantiles": [[0, 1], [50, 0.5], [100, 2]]},
        {"quantiles": [[0, 1], [90, 2]]},
        {"uniform": [-1, 1]},
    ],
)
def test_a_bad_distribution_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(FieldError, match="turns"):
        parse_distribution("turns", table)


def tools_of(sessions: list[list[Turn]], name: str | None) -> list[ToolCall]:
    tools = [turn.tool for turns in sessions for turn in turns if turn.tool is not None]
    return [tool for tool in tools if name in (None, tool.name)]


def tool_times(sessions: list[list[Turn]], name: str | None = None) -> list[float]:
    return [tool.duration_s for tool in tools_of(sessions, name)]


def memory(sessions: list[list[Turn]], name: str) -> list[float]:
    return [tool.memory_mb for tool in tools_of(sessions, name)]


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p90 and p99."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10], ordered[len(ordered) * 99 // 100]


def final_context(profile: Profile, turns: list[Turn]) -> int:
    return profile.system_tokens + sum(turn.new_tokens + turn.output_tokens for turn in turns)
