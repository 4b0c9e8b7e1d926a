"""opencode names its sessions itself, and has each titled beside the work, without tools."""

from pathlib import Path

import pytest

from marsproxy.core.evidence import TurnKind
from tests.agents.answers import mends_with
from tests.agents.environments import Environments
from tests.agents.expectations import assert_done, assert_tools_matched
from tests.agents.opencode import NAME, OpenCode
from tests.agents.tasks import make_tasks
from tests.agents.world import World

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


async def test_eight_whose_shell_is_ours(world: World, environments: Environments, tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, "opencode", 8)
    world.model.will_say({"tools": False}, [{"text": "Prices"}])
    mends_with(world.model, tasks, "bash", description="The next step")
    programs, homes = environments.programs(NAME), tmp_path / "homes"
    ends = await OpenCode(programs, f"{world.proxy_url}/v1", homes, world.gateway_url).run(tasks)
    assert [end.failure for end in ends if end.failure] == []
    assert_done(tasks)
    seen = await world.observed()
    assert len(seen.roots) == len(seen.sessions) == len(tasks)
    assert seen.unfinished() == []
    assert seen.levels == {"header": 6 * len(tasks)}
    for session in seen.sessions.values():
        work = [turn.kind for turn in session.turns if turn.arrived.has_tools]
        titles = [turn.kind for turn in session.turns if not turn.arrived.has_tools]
        assert work == [TurnKind.FIRST, *[TurnKind.CONTINUATION] * 4]
        # Whichever of the two comes first opens the session.
        assert titles in ([TurnKind.FIRST], [TurnKind.SIDE])
    assert_tools_matched(seen, tasks)
