"""Names, files, modifiers and arrival processes become sessions with times."""

from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest

from loadgen.arrivals import (
    BURST_SESSIONS,
    Arrivals,
    AsTraced,
    ClosedLoop,
    OpenLoop,
    arrival_times,
    choose_load,
)
from loadgen.errors import LoadgenError
from loadgen.modifiers import Modifiers
from loadgen.source import open_workload
from loadgen.trace import write_sessions
from loadgen.workload import Session, ToolCall, Turn


def session(name: str = "a", arrival_s: float | None = None) -> Session:
    tool = ToolCall("bash", 2.0)
    turns = [Turn(100, 10, tool), Turn(50, 20, think_s=4.0), Turn(30, 5)]
    return Session(id=name, turns=turns, arrival_s=arrival_s, system_tokens=40)


def test_modifiers_change_every_turn() -> None:
    changed = Modifiers(max_turns=2, scale_tokens=0.5, scale_gaps=0.1).apply(session())
    assert changed == Session(
        id="a", turns=[Turn(50, 5, ToolCall("bash", 0.2)), Turn(25, 10)], system_tokens=20
    )


def test_a_context_limit_ends_the_session_before_the_turn_that_passes_it() -> None:
    assert len(Modifiers(max_context_tokens=40 + 110 + 70).apply(session()).turns) == 2
    assert len(Modifiers(max_context_tokens=40 + 110 + 69).apply(session()).turns) == 1


@pytest.mark.parametrize(
    ("modifiers", "option"),
    [
        (Modifiers(max_turns=0), "--max-turns"),
        (Modifiers(scale_tokens=0), "--scale-tokens"),
        (Modifiers(scale_gaps=-1), "--scale-gaps"),
        (Modifiers(max_context_tokens=1), "--max-context-tokens"),
    ],
)
def test_senseless_modifiers_are_refused(modifiers: Modifiers, option: str) -> None:
    with pytest.raises(LoadgenError, match=f"{option} is .*; allowed: "):
        modifiers.check()


def test_a_file_that_is_too_short_starts_again_with_new_ids(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    write_sessions(path, [session("a", 0.0), session("b", 1.0)])
    opened = open_workload(str(path), sessions=5)
    assert opened.name == "w.jsonl"
    assert [one.id for one in opened.sessions] == ["a", "b", "a~2", "b~2", "a~3"]
    assert [one.arrival_s for one in opened.sessions] == [0.0, 1.0, None, None, None]
    assert len(open_workload(str(path)).sessions) == 2


@pytest.mark.parametrize(
    ("name", "sessions", "says"),
    [
        ("demo", None, "--sessions is needed"),
        ("demo", 0, "--sessions is 0; allowed: 1 or more"),
        ("no-such", 3, "is no file and no profile; profiles: autonomous, demo"),
    ],
)
def test_an_unusable_workload_is_refused(name: str, sessions: int | None, says: str) -> None:
    with pytest.raises(LoadgenError, match=says):
        open_workload(name, sessions=sessions)


def test_more_sessions_begin_with_the_same() -> None:
    few, many = open_workload("demo", sessions=3, seed=9), open_workload("demo", sessions=30, seed=9)
    assert many.sessions[:3] == few.sessions


def test_open_loops_keep_their_rate() -> None:
    sessions = [session(str(i)) for i in range(2000)]
    for process in Arrivals:
        times = arrival_times(OpenLoop(4.0, process), sessions, seed=1)
        gaps = [after - before for before, after in pairwise(times)]
        assert times[0] == 0
        assert mean(gaps) == pytest.approx(0.25, rel=0.1)
        assert min(gaps) >= 0
    assert arrival_times(OpenLoop(2.0, Arrivals.FIXED), sessions[:3], seed=1) == [0.0, 0.5, 1.0]
    burst = arrival_times(OpenLoop(2.0, Arrivals.BURST), sessions[: BURST_SESSIONS + 1], seed=1)
    assert burst == [0.0] * BURST_SESSIONS + [BURST_SESSIONS / 2.0]


def test_arrivals_depend_on_the_seed_alone() -> None:
    sessions = [session(str(i)) for i in range(50)]
    first = arrival_times(OpenLoop(1.0), sessions, seed=1)
    assert first == arrival_times(OpenLoop(1.0), sessions, seed=1)
    assert first != arrival_times(OpenLoop(1.0), sessions, seed=2)
    assert first[:10] == arrival_times(OpenLoop(1.0), sessions[:10], seed=1)


def test_the_load_is_chosen_from_the_options() -> None:
    timed, untimed = [session("a", 3.0), session("b", 1.0)], [session()]
    assert choose_load(untimed, 2.0, None, Arrivals.FIXED) == OpenLoop(2.0, Arrivals.FIXED)
    assert choose_load(untimed, None, 8, Arrivals.POISSON) == ClosedLoop(8)
    assert choose_load(timed, None, None, Arrivals.POISSON) == AsTraced()
    assert arrival_times(AsTraced(), timed, seed=0) == [3.0, 1.0]


@pytest.mark.parametrize(
    ("rate", "concurrency", "says"),
    [
        (1.0, 1, "exclude each other"),
        (0.0, None, "--rate is 0.0; allowed: more than 0"),
        (float("nan"), None, "--rate is nan"),
        (None, 0, "--concurrency is 0; allowed: 1 or more"),
        (None, None, "--rate or --concurrency is needed"),
    ],
)
def test_a_senseless_load_is_refused(rate: float | None, concurrency: int | None, says: str) -> None:
    with pytest.raises(LoadgenError, match=says):
        choose_load([session()], rate, concurrency, Arrivals.POISSON)
