"""Fifty agents at once over HTTP: every turn joins its own session, whoever they are and whatever fails."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from marsproxy.config import Backend, Config, EventLog, Listen
from marsproxy.core.events import TurnArrived
from marsproxy.core.evidence import TurnKind
from marsproxy.eventlog import read_log
from marsproxy.server import Server
from tests.integration import fleet_wire
from tests.integration.fleet_clients import READ_TIMEOUT_S, AgentClient, FleetOutcome, outcome, play
from tests.integration.fleet_model import COUNTING_MODEL, TWIN_TASK, FleetModel
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


@asynccontextmanager
async def proxy_in_front_of(model: FleetModel, event_log: Path) -> AsyncIterator[str]:
    config = Config(
        backends=(model.url,),
        listen=Listen(port=0),
        backend=Backend(kv_tokens=100_000_000),
        event_log=EventLog(dir=event_log),
    )
    server = Server(config, [model.url])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        try:
            yield server.url
        finally:
            server.should_exit = True


def http_client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(30, read=READ_TIMEOUT_S),
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
        drop_answers_at=frozenset({3}) if number % 6 == 5 and number % 7 != 6 and not is_twin else frozenset(),
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
        model=COUNTING_MODEL if number % 11 == 10 else "m",
    )


async def test_fleet_without_ids(tmp_path: Path) -> None:
    model = FleetModel(seed=7, failure_ratio=0.1, stall_ratio=0.004, twins=TWINS)
    with serving(model):
        async with proxy_in_front_of(model, tmp_path) as url, http_client(url) as http:
            clients = [anonymous_agent(number, http) for number in range(AGENTS)]
            await play(clients, random.Random(7))
    fleet = outcome(clients)
    assert fleet.strays == []
    assert fleet.merged == {}
    assert fleet.miscounted == []
    assert fleet.answered_turns == {c.name: c.agent.shape.turns for c in clients}
    assert len(set(fleet.homes.values())) == AGENTS
