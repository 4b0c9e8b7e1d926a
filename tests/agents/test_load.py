"""``loadgen agents`` with the real frameworks: three agents each, on the embedded engine."""

from pathlib import Path

import pytest
from rich.console import Console

from loadgen.agents.run import AgentRun, AgentSettings
from loadgen.agents.task import dialect_of, tasks_of
from loadgen.arrivals import ClosedLoop
from loadgen.run_files import read_run
from tests.agents.environments import Environments
from tests.integration.running import running_engine
from tests.loadgen.agents.building import session_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.mark.parametrize("framework", ["openhands", "mini-swe-agent"])
async def test_agents_do_their_tasks_and_every_turn_is_recorded(
    environments: Environments, tmp_path: Path, framework: str
) -> None:
    tasks = tasks_of([session_of(f"s-{i}", steps=3) for i in range(3)], 4.0)
    script = tmp_path / "script.jsonl"
    script.write_bytes(b"".join(task.script_line(dialect_of(framework)) for task in tasks))
    async with running_engine(script=script) as (url, _):
        settings = AgentSettings(
            framework=framework,
            python=environments.programs(framework) / "python",
            target=url,
            load=ClosedLoop(3),
            seed=1,
            out_dir=tmp_path / "out",
            workload="few",
            timeout_s=120.0,
        )
        await AgentRun(settings, tasks, Console(quiet=True)).play()
    run = read_run(tmp_path / "out")
    assert [session.error for session in run.sessions] == [None] * 3
    assert sorted((turn.session, turn.turn) for turn in run.turns) == [
        (f"s-{i}", turn) for i in range(3) for turn in range(1, 5)
    ]
    assert all(turn.error is None and turn.retries == 0 for turn in run.turns)
    # The answer of the turn before comes back in the tokens that it had.
    continuations = [turn for turn in run.turns if turn.is_continuation]
    assert all((turn.cached_tokens or 0) > 0.8 * (turn.prompt_tokens or 0) for turn in continuations)
