"""Whole runs of a small framework on the embedded engine: what is recorded, and what counts as done."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from loadgen.agents.run import AgentRun, AgentSettings
from loadgen.agents.task import dialect_of, tasks_of
from loadgen.arrivals import ClosedLoop, Load, OpenLoop
from loadgen.comparison import compare_runs
from loadgen.errors import LoadgenError
from loadgen.run import RunResult
from loadgen.run_files import read_run
from loadgen.workload import Session
from tests.integration.running import running_engine
from tests.loadgen.agents.building import session_of, small_framework

pytestmark = pytest.mark.slow

SETTINGS = AgentSettings(
    framework="mini-swe-agent",
    python=Path("none"),
    target="",
    load=ClosedLoop(3),
    seed=1,
    out_dir=Path("none"),
    workload="few",
    timeout_s=60.0,
)


async def played(
    sessions: list[Session], folder: Path, *, load: Load = SETTINGS.load, processes: int = 1
) -> RunResult:
    tasks = tasks_of(sessions, 4.0)
    script = folder / "script.jsonl"
    script.write_bytes(b"".join(task.script_line(dialect_of(SETTINGS.framework)) for task in tasks))
    async with running_engine(script=script) as (url, _):
        settings = replace(
            SETTINGS,
            target=url,
            load=load,
            processes=processes,
            python=small_framework(folder),
            out_dir=folder / "out",
        )
        return await AgentRun(settings, tasks, Console(quiet=True)).play()


@pytest.mark.parametrize("load", [ClosedLoop(3), OpenLoop(20.0)], ids=str)
async def test_every_turn_of_every_agent_is_recorded(tmp_path: Path, load: Load) -> None:
    result = await played([session_of(f"s-{i}") for i in range(5)], tmp_path, load=load, processes=2)
    run = read_run(result.out_dir)
    assert run.notes == []
    assert (run.summary["completed"], run.summary["failed"], run.summary["turns"]) == (5, 0, 15)
    assert run.summary["framework_version"] == "1.0"
    assert sorted((turn.session, turn.turn) for turn in run.turns) == [
        (f"s-{i}", turn) for i in range(5) for turn in (1, 2, 3)
    ]
    for turn in run.turns:
        assert turn.is_continuation == (turn.turn > 1)
        assert (turn.tool, turn.error, turn.output_tokens) == ("bash", None, 60)
        assert (turn.tool_end_s is None) == (turn.turn == 3)
    assert all(each.turns_completed == 3 and each.jct_s is not None for each in run.sessions)
    assert (run.summary["continuation_hit_ratio"] or 0) > 0
    assert compare_runs({"one": [result.out_dir], "two": [result.out_dir]})["caveats"] == []


async def test_who_says_done_and_did_nothing_has_failed(tmp_path: Path) -> None:
    result = await played([session_of("honest"), session_of("liar")], tmp_path)
    sessions = {each.session: each for each in read_run(result.out_dir).sessions}
    assert sessions["honest"].error is None
    assert sessions["liar"].error == "the workspace shows 0 steps, 0 of them different; planned were 2"
    assert sessions["liar"].end_s is None
    assert result.has_failures


async def test_agents_of_a_process_that_ends_have_failed(tmp_path: Path) -> None:
    result = await played([session_of("quitter")], tmp_path)
    (session,) = read_run(result.out_dir).sessions
    assert session.error == "the framework's process ended"


async def test_a_run_that_is_stopped_ends_with_what_it_has(tmp_path: Path) -> None:
    """As Ctrl-C would, while an agent waits for its model and another for its command."""
    sessions = [session_of("waits", tool_s=0.0), session_of("works", tool_s=3600.0)]
    tasks, script = tasks_of(sessions, 4.0), tmp_path / "script.jsonl"
    script.write_bytes(b"".join(task.script_line(dialect_of(SETTINGS.framework)) for task in tasks))
    async with running_engine(script=script, speed=0.05) as (url, _):
        out, python = tmp_path / "out", small_framework(tmp_path)
        run = AgentRun(replace(SETTINGS, target=url, python=python, out_dir=out), tasks, Console(quiet=True))
        async with asyncio.timeout(60.0), asyncio.TaskGroup() as group:
            playing = group.create_task(run.play())
            while not (out / "gauges.jsonl").exists() or not (out / "gauges.jsonl").stat().st_size:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        assert playing.result().is_interrupted
    stopped = read_run(out)
    assert [(each.error, each.end_s) for each in stopped.sessions] == [(None, None)] * 2
    assert stopped.summary["unfinished"] == 2


async def test_a_python_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    async with running_engine() as (url, _):
        settings = replace(SETTINGS, target=url, python=tmp_path / "absent", out_dir=tmp_path / "out")
        with pytest.raises(LoadgenError, match=r"--python .*absent.* cannot be run"):
            await AgentRun(settings, tasks_of([session_of("a")], 4.0), Console(quiet=True)).play()


async def test_a_framework_that_does_not_start_says_its_last_lines(tmp_path: Path) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho no module named framework >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    async with running_engine() as (url, _):
        settings = replace(SETTINGS, target=url, python=program, out_dir=tmp_path / "out")
        with pytest.raises(LoadgenError, match="no module named framework"):
            await AgentRun(settings, tasks_of([session_of("a")], 4.0), Console(quiet=True)).play()
