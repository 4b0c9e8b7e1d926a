"""Fifty agents at once over HTTP: every turn joins its own session, whoever they are and whatever fails."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from marsproxy.core.commands import Command
from marsproxy.core.events import Ending, Event, TurnArrived, TurnEnded
from marsproxy.core.evidence import TurnKind
from marsproxy.log_reader import read_log
from tests.integration import fleet_wire
from tests.integration.fleet_clients import AgentClient, FleetOutcome, outcome, play
from tests.integration.fleet_frameworks import FRAMEWORKS, agent_of
from tests.integration.fleet_model import COUNTING_MODEL, TALKING_MODEL, TWIN_TASK, FleetModel
from tests.integration.fleet_proxy import proxy_in_front_of
from tests.loadgen.upstream import serving
from tests.marsproxy.core.agent_fleet import Agent, Shape

pytestmark = pytest.mark.slow

AGENTS = 50
TWINS = 8

WIRES = (
    fleet_wire.PLAIN,
    fleet_wire.OPENHANDS,
    fleet_wire.SWE_AGENT,
    fleet_wire.LANGCHAIN,
    fleet_wire.CODEX,
    fleet_wire.RESPONSES,
    fleet_wire.CLAUDE,
)


def http_client(url: str, read_timeout_s: float = 60.0) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(60, read=read_timeout_s),
        limits=httpx.Limits(max_connections=None),
        trust_env=False,
    )


def shape(number: int) -> Shape:
    is_twin = number < TWINS
    return Shape(
        name=f"agent-{number}",
        turns=8 + number % 7,
        task=TWIN_TASK if is_twin else f"task {number}",
        has_tools=number % 5 != 4,
        has_call_ids=number % 5 != 4,
        condense_at=5 + number % 3,
        keep_first=1 + number % 3,
        keep_last=7 + number % 3,
        # Not in the messages API, where the complaint would grow the message before the answer.
        drop_answers_at=frozenset({3})
        if number % 6 == 5 and number % 7 != 6 and not is_twin
        else frozenset(),
    )


def anonymous_agent(number: int, http: httpx.AsyncClient) -> AgentClient:
    """The twins speak one API, so that they are told apart by nothing before their first answer."""
    return AgentClient(
        http,
        Agent(shape(number)),
        fleet_wire.PLAIN if number < TWINS else WIRES[number % len(WIRES)],
        is_streaming=number % 2 == 0,
        leaves_early=number % 4 == 0,
        says_retry=number % 3 == 0,
        model=(TALKING_MODEL, COUNTING_MODEL, "m", "m")[number % 4],
    )


@dataclass(frozen=True, slots=True)
class Played:
    outcome: FleetOutcome
    model: FleetModel
    events: list[Event | Command]
    """What the proxy recorded."""

    @property
    def sessions(self) -> set[str]:
        return {event.session_id for event in self.events if isinstance(event, TurnArrived)}

    @property
    def kinds(self) -> Counter[TurnKind]:
        return Counter(event.kind for event in self.events if isinstance(event, TurnArrived))

    @property
    def endings(self) -> Counter[Ending]:
        return Counter(event.ending for event in self.events if isinstance(event, TurnEnded))

    @property
    def parents(self) -> dict[str, str]:
        """Of sessions that have one."""
        arrived = [event for event in self.events if isinstance(event, TurnArrived)]
        return {each.session_id: each.parent_session_id for each in arrived if each.parent_session_id}


async def play_all(
    make: Callable[[httpx.AsyncClient], list[AgentClient]],
    log_dir: Path,
    model: FleetModel,
    read_timeout_s: float = 60.0,
) -> Played:
    with serving(model):
        async with (
            proxy_in_front_of(model.url, log_dir) as proxy,
            http_client(proxy.url, read_timeout_s) as http,
        ):
            clients = make(http)
            await play(clients, random.Random(model.seed))
    return Played(outcome(clients), model, [entry.entry for entry in read_log(log_dir)])


def anonymous_agents(http: httpx.AsyncClient) -> list[AgentClient]:
    return [anonymous_agent(number, http) for number in range(AGENTS)]


def assert_joined(fleet: FleetOutcome) -> None:
    assert fleet.strays == []
    assert fleet.merged == {}
    assert fleet.miscounted == []
    assert fleet.answered_turns == fleet.turns_to_do


def assert_nothing_lost(played: Played) -> None:
    """What the model answered counts as answered, what it did not does not; no session but the agents'."""
    assert played.sessions == set(played.outcome.homes.values())
    assert played.model.failed > 0
    assert played.endings == {
        Ending.FINISHED: played.model.answered,
        Ending.FAILED: played.model.failed,
    }


async def test_fleet_without_ids(tmp_path: Path) -> None:
    played = await play_all(anonymous_agents, tmp_path, FleetModel(seed=7, failure_ratio=0.1, twins=TWINS))
    assert_joined(played.outcome)
    assert_nothing_lost(played)
    assert len(played.sessions) == AGENTS
    turns = sum(played.outcome.turns_to_do.values())
    assert played.kinds == {
        TurnKind.FIRST: AGENTS,
        TurnKind.CONDENSED: AGENTS,
        TurnKind.CONTINUATION: turns - 2 * AGENTS,
        TurnKind.RETRY: played.model.failed,
    }
    assert played.parents == {}
    assert played.model.most_at_once >= TWINS


async def test_fleet_that_gives_up_waiting(tmp_path: Path) -> None:
    """Attempts that the client broke off, whether it says so or only sends the same again.

    Without the twins: of equal first requests whose attempts were broken off and sent again, nothing tells
    which is whose, and two of them may swap.
    """
    model = FleetModel(seed=5, stall_ratio=0.02)
    played = await play_all(lambda http: anonymous_agents(http)[TWINS:], tmp_path, model, read_timeout_s=3.0)
    assert_joined(played.outcome)
    assert played.endings[Ending.ABORTED] > 0


async def test_fleet_with_the_ids_of_its_frameworks(tmp_path: Path) -> None:
    """All of one framework say the same at first, and their sub-agents ask for the same."""
    played = await play_all(
        lambda http: [agent_of(name, n, http) for name in FRAMEWORKS for n in range(12)],
        tmp_path,
        FleetModel(seed=11, failure_ratio=0.1),
    )
    assert_joined(played.outcome)
    assert_nothing_lost(played)
    homes = played.outcome.homes
    assert len(homes) == len(set(homes.values())) == 12 * (2 + 2 + 2 + 4)
    named = [name for name in homes if "/" in name]
    assert played.parents == {homes[name]: homes[name.split("/")[0]] for name in named}
    assert played.kinds[TurnKind.CONDENSED] == 12 * len(FRAMEWORKS)


async def test_side_calls_leave_the_sessions_that_they_name_alone(tmp_path: Path) -> None:
    """opencode's titles and OpenHands' condensers: the turns around them are counted as if they were not."""
    played = await play_all(
        lambda http: [agent_of(name, n, http) for name in ("opencode", "openhands") for n in range(5)],
        tmp_path,
        FleetModel(seed=3, failure_ratio=0.1),
    )
    assert_joined(played.outcome)
    sides = [each for each in played.outcome.sent if each.is_side and each.was_answered]
    homes = played.outcome.homes
    assert len(sides) == 10
    assert [each.session for each in sides] == [homes[each.agent] for each in sides]
