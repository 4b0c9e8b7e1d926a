"""Names, files, modifiers and arrival processes become sessions with times."""

import re
from collections import Counter
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
from loadgen.options import WorkloadOptions
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


def test_long_gaps_are_clipped_after_they_are_scaled() -> None:
    turns = Modifiers(scale_gaps=2.0, max_gap_s=5.0).apply(session()).turns
    assert turns == [Turn(100, 10, ToolCall("bash", 4.0)), Turn(50, 20, think_s=5.0), Turn(30, 5)]


@pytest.mark.parametrize(
    ("modifiers", "option"),
    [
        (Modifiers(max_turns=0), "--max-turns"),
        (Modifiers(scale_tokens=0), "--scale-tokens"),
        (Modifiers(scale_gaps=-1), "--scale-gaps"),
        (Modifiers(max_context_tokens=1), "--max-context-tokens"),
        (Modifiers(max_gap_s=-1), "--max-gap-s"),
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


def write_file(path: Path, *names: str) -> str:
    write_sessions(path, [session(name, float(i)) for i, name in enumerate(names)])
    return str(path)


def test_bootstrapped_sessions_are_drawn_by_seed_with_fresh_ids(tmp_path: Path) -> None:
    path = write_file(tmp_path / "w.jsonl", *"abcd")
    drawn = open_workload(path, sessions=40, seed=1, bootstrap=True).sessions
    assert drawn == open_workload(path, sessions=60, seed=1, bootstrap=True).sessions[:40]
    assert drawn != open_workload(path, sessions=40, seed=2, bootstrap=True).sessions
    assert len({one.id for one in drawn}) == 40
    assert {one.id[0] for one in drawn} == set("abcd")
    assert {one.arrival_s for one in drawn} == {None}
    assert len(open_workload(path, bootstrap=True).sessions) == 4


def test_a_shared_prompt_is_taken_out_of_the_first_prompts(tmp_path: Path) -> None:
    long, short = ([Turn(100, 10), Turn(5, 5)], [Turn(30, 10)])
    path = tmp_path / "w.jsonl"
    write_sessions(path, [Session("a", long), Session("b", short), Session("c", long, system_tokens=7)])
    a, b, c = open_workload(str(path), shared_prompt_tokens=30).sessions
    assert (a.system_tokens, a.system_id, a.turns) == (30, "w.jsonl", [Turn(70, 10), Turn(5, 5)])
    assert (b.system_tokens, b.system_id) == (0, None)
    assert (c.system_tokens, c.system_id) == (7, None)


def test_sessions_that_cannot_begin_are_left_out_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    write_sessions(path, [Session("a", [Turn(90, 10)]), Session("b", [Turn(90, 11)])])
    fits = open_workload(str(path), modifiers=Modifiers(max_context_tokens=100))
    assert [one.id for one in fits.sessions] == ["a"]
    assert [one.id for one in open_workload(f"{path}?max_context_tokens=100").sessions] == ["a"]
    with pytest.raises(LoadgenError, match="no session can begin"):
        open_workload(str(path), modifiers=Modifiers(max_context_tokens=50))


def test_a_mixture_draws_each_session_by_weight(tmp_path: Path) -> None:
    path = write_file(tmp_path / "w.jsonl", "a", "b")
    name = f"mix:autonomous=50,tool-heavy=40,{path}=10"
    mixed = open_workload(name, sessions=1000, seed=3)
    assert mixed.name == "mix:autonomous=50,tool-heavy=40,w.jsonl=10"
    kinds = Counter(one.id.split("-")[0].split("~")[0] for one in mixed.sessions)
    assert kinds["autonomous"] == pytest.approx(500, rel=0.1)
    assert kinds["tool"] == pytest.approx(400, rel=0.1)
    assert kinds["a"] + kinds["b"] == pytest.approx(100, rel=0.25)
    assert min(kinds["a"], kinds["b"]) > 20
    assert len({one.id for one in mixed.sessions}) == 1000
    assert open_workload(name, sessions=50, seed=3).sessions == mixed.sessions[:50]
    assert open_workload(name, sessions=50, seed=4).sessions != mixed.sessions[:50]


def test_parts_have_settings_of_their_own_and_options_are_for_all(tmp_path: Path) -> None:
    path = write_file(tmp_path / "w.jsonl", "a")
    name = f"mix:demo?max_turns=2=1,{path}?shared_prompt_tokens=60=1"
    mixed = open_workload(
        name, sessions=40, seed=1, modifiers=Modifiers(scale_tokens=0.5), shared_prompt_tokens=20
    ).sessions
    assert {len(one.turns) for one in mixed if one.system_id == "demo"} == {2}
    # This one says itself that it has a system prompt.
    (traced,) = {(one.system_id, one.system_tokens) for one in mixed if one.system_id != "demo"}
    assert traced == (None, 20)
    assert {len(one.turns) for one in open_workload("demo?max_turns=2", sessions=9).sessions} == {2}


def test_a_fallback_stands_in_for_a_file_that_is_not_there(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.jsonl")
    stood_in = open_workload(absent, sessions=3, seed=5, select="src=x", fallback="demo")
    assert stood_in.stand_in
    assert stood_in.name == "absent.jsonl"
    assert stood_in.sessions == open_workload("demo", sessions=3, seed=5).sessions
    assert open_workload(f"mix:demo=1,{absent}?fallback=autonomous=1", sessions=9).stand_in
    there = write_file(tmp_path / "w.jsonl", "a")
    assert not open_workload(there, fallback="demo").stand_in
    assert not open_workload("autonomous", sessions=1, fallback="demo").stand_in


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mix:demo", "part 'demo' of a mixture has no weight"),
        ("mix:demo=0", "part 'demo=0' of a mixture"),
        ("mix:demo=many", "a number more than 0"),
        ("mix:", "part '' of a mixture"),
        ("mix:demo=1,no-such=1", "'no-such' is no file and no profile"),
        ("demo?turns=3", "unknown field `turns`; allowed after '?': src, shared_prompt_tokens"),
        ("demo?max_turns=x", "max_turns"),
        ("demo?max_turns=0", "--max-turns is 0"),
        ("demo?fallback=no-such", "--fallback is 'no-such'; allowed: autonomous, demo"),
        ("demo?shared_prompt_tokens=-1", "shared_prompt_tokens is -1; allowed"),
    ],
)
def test_a_name_that_says_nothing_is_refused(name: str, says: str) -> None:
    with pytest.raises(LoadgenError, match=re.escape(says)):
        open_workload(name, sessions=3)


def test_a_mixture_has_no_length_of_its_own() -> None:
    with pytest.raises(LoadgenError, match="--sessions is needed with 'mix:demo=1'"):
        open_workload("mix:demo=1")
    with pytest.raises(LoadgenError, match="--shared-prompt-tokens is -1"):
        open_workload("demo", sessions=1, shared_prompt_tokens=-1)


def test_the_options_of_the_command_line_say_the_same(tmp_path: Path) -> None:
    path = write_file(tmp_path / "w.jsonl", "a", "b")
    asked = WorkloadOptions(
        workload=path,
        sessions=9,
        max_gap_s=1.0,
        bootstrap=True,
        shared_prompt_tokens=20,
        fallback="demo",
    )
    same = open_workload(
        path, sessions=9, seed=4, modifiers=Modifiers(max_gap_s=1.0), bootstrap=True, shared_prompt_tokens=20
    )
    assert asked.open(4) == same
    with pytest.raises(LoadgenError, match="no session with tenant=red"):
        WorkloadOptions(workload=path, select="tenant=red").open(4)


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
