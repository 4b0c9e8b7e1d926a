"""Agents as ordinary HTTP clients: ask, read, try again, run tools, go on; and what became of each request.

Owns the truth about which agent sent what, and sets it beside the session and turn that the proxy's headers
name. It must not know how the proxy decides.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.integration.fleet_wire import Wire
from tests.marsproxy.core.agent_fleet import Agent, Ask, Message

ATTEMPTS_OF_SDK = 3
"""The official clients send a request three times and count; tenacity around them starts over."""
BACKOFF_S = 0.1
"""Clients wait between attempts, half a second at least; long enough here for a proxy to notice."""
TITLE_LAG_S = 0.01
"""Titles are asked for beside the first turn: half of this before it, or half of this after it."""
MOST_GAP_S = 0.03


class Lost(Exception):
    """No answer, or not all of one."""


@dataclass(frozen=True, slots=True)
class Ids:
    """What a framework sends of its own accord."""

    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. ``session`` and ``mars_turn`` are the proxy's, None when it gave no answer at all."""

    agent: str
    turn: int
    """By the agent's own count, from 1."""
    is_side: bool
    was_answered: bool
    session: str | None
    mars_turn: int | None


@dataclass(eq=False)
class AgentClient:
    http: httpx.AsyncClient
    agent: Agent
    wire: Wire
    ids: Ids = field(default_factory=Ids)
    is_streaming: bool = False
    leaves_early: bool = False
    """Closes a stream at its last event; else reads on until the connection says that it is over."""
    says_retry: bool = False
    model: str = "m"
    has_title: bool = False
    """Asks for one beside its first turn."""
    sub_agents: list["AgentClient"] = field(default_factory=list)
    """At work during the gap after its second turn."""
    sent: list[Sent] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.agent.shape.name

    async def run(self, dice: random.Random) -> None:
        await asyncio.sleep(dice.random() * MOST_GAP_S)
        async with asyncio.TaskGroup() as group:
            if self.has_title:
                group.create_task(self._ask_for_title(dice.choice([0.0, TITLE_LAG_S])))
                await asyncio.sleep(TITLE_LAG_S / 2)
            while ask := self.agent.ask():
                self.agent.take(await self._until_answered(ask))
                if self.agent.turn == 2 and not ask.is_side:
                    await play(self.sub_agents, dice)
                await asyncio.sleep(dice.random() * MOST_GAP_S)

    async def _ask_for_title(self, lag_s: float) -> None:
        await asyncio.sleep(lag_s)
        messages = (Message("system", "You write titles."), Message("user", self.agent.shape.task))
        await self._until_answered(Ask(messages, has_tools=False, is_side=True))

    async def _until_answered(self, ask: Ask) -> Message:
        attempt = 0
        while True:
            turn, answer, headers = self.agent.turn + 1, None, httpx.Headers()
            try:
                async with self._request(ask, attempt) as response:
                    headers = response.headers
                    answer = await self._read(response)
            except (httpx.TransportError, Lost):
                attempt += 1
            self._note(turn, ask, answer is not None, headers)
            if answer is not None:
                return answer
            await asyncio.sleep(BACKOFF_S)

    def _request(self, ask: Ask, attempt: int) -> Any:
        body = {"model": self.model} | self.wire.history(ask.messages) | self.ids.body
        if ask.has_tools:
            body["tools"] = [self.wire.tool]
        if self.is_streaming:
            body["stream"] = True
        headers = {"authorization": "Bearer sk-shared"} | self.ids.headers
        if self.says_retry:
            headers["x-stainless-retry-count"] = str(attempt % ATTEMPTS_OF_SDK)
        return self.http.stream("POST", self.wire.path, json=body, headers=headers)

    async def _read(self, response: httpx.Response) -> Message:
        if response.status_code >= 500:
            raise Lost
        assert response.status_code == 200, await response.aread()
        if not self.is_streaming:
            return self.wire.read_body(json.loads(await response.aread()))
        events = [event async for event in self._events(response)]
        return self.wire.read_events(events)

    async def _events(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        is_over = False
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            payload = line.removeprefix("data: ")
            event = {} if payload == "[DONE]" else json.loads(payload)
            is_over = event.get("type") == self.wire.last_event if event else True
            if event:
                yield event
            if is_over and self.leaves_early:
                return
        if not is_over:
            raise Lost

    def _note(self, turn: int, ask: Ask, was_answered: bool, headers: httpx.Headers) -> None:
        said = headers.get("x-mars-turn")
        mars_turn = None if said is None else int(said)
        session = headers.get("x-mars-session")
        self.sent.append(Sent(self.name, turn, ask.is_side, was_answered, session, mars_turn))


async def play(clients: Sequence[AgentClient], dice: random.Random) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(dice))


@dataclass(frozen=True, slots=True)
class FleetOutcome:
    """Every request of a fleet, in each agent's order."""

    sent: list[Sent]
    turns_to_do: dict[str, int]
    """By agent."""

    @property
    def main(self) -> list[Sent]:
        """Answered requests and those that came after an agent's first answer: identical first requests
        are interchangeable until one is answered."""
        began: set[str] = set()
        counted = []
        for each in self.sent:
            if each.is_side or each.session is None or not (each.was_answered or each.agent in began):
                continue
            began.add(each.agent)
            counted.append(each)
        return counted

    @property
    def homes(self) -> dict[str, str]:
        """Each agent's session: that of its first answered turn."""
        homes: dict[str, str] = {}
        for each in self.main:
            homes.setdefault(each.agent, str(each.session))
        return homes

    @property
    def strays(self) -> list[Sent]:
        homes = self.homes
        return [each for each in self.main if each.session != homes[each.agent]]

    @property
    def merged(self) -> dict[str, set[str]]:
        """Sessions in which more than one agent ended up."""
        agents: dict[str, set[str]] = defaultdict(set)
        for each in self.main:
            agents[str(each.session)].add(each.agent)
        return {session: names for session, names in agents.items() if len(names) > 1}

    @property
    def miscounted(self) -> list[Sent]:
        """Answered turns whose number is not the agent's own."""
        return [each for each in self.main if each.was_answered and each.mars_turn != each.turn]

    @property
    def answered_turns(self) -> Counter[str]:
        return Counter(each.agent for each in self.main if each.was_answered)


def outcome(clients: Sequence[AgentClient]) -> FleetOutcome:
    everyone = [each for client in clients for each in (client, *client.sub_agents)]
    turns = {client.name: client.agent.shape.turns for client in everyone}
    return FleetOutcome([each for client in everyone for each in client.sent], turns)
