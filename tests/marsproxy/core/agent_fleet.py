"""Agents as the proxy sees them: what a framework sends turn by turn, and a fleet of them in virtual time.

Owns the message histories and the truth about who sent what. It must not know how identity decides.
``Agent`` asks and takes answers; ``Fleet`` plays many against a ``SessionIndex``. A test over HTTP drives
the same agents: ``chat_message`` gives a message its OpenAI form.
"""

import hashlib
import heapq
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from marsproxy.core.evidence import AnswerEvidence, Digest, Level, Resolution, Schema, TurnEvidence
from marsproxy.core.identity import SessionIndex


def digest(*parts: object) -> Digest:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    text: str
    call_ids: tuple[str, ...] = ()
    """Of an assistant's message the calls that it makes, of a tool's the one that it answers."""

    @property
    def digest(self) -> Digest:
        return digest(self.role, self.text, self.call_ids)


def chat_message(message: Message) -> dict[str, Any]:
    """As the chat completions API has it; every call is ``bash`` with the text as its command."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_ids[0], "content": message.text}
    if not message.call_ids:
        return {"role": message.role, "content": message.text}
    calls = [
        {"id": call, "type": "function", "function": {"name": "bash", "arguments": '{"command": "true"}'}}
        for call in message.call_ids
    ]
    return {"role": message.role, "content": message.text, "tool_calls": calls}


@dataclass(frozen=True, slots=True)
class Shape:
    """What an agent's run looks like from outside."""

    name: str
    """Unique; the truth that sessions are judged by."""
    turns: int
    system: str = "You are an agent."
    task: str = "Fix the bug."
    has_tools: bool = True
    has_call_ids: bool = True
    """Off: text mode, the tool's result is a user message."""
    parallel_calls: int = 1
    voice: str = ""
    """Agents of one voice say the same and see the same; by default an agent's words are its own."""
    condense_at: int | None = None
    """Before this turn the history becomes: ``keep_first`` messages, a summary, ``keep_last`` messages."""
    keep_first: int = 1
    keep_last: int = 3
    drop_answers_at: frozenset[int] = frozenset()
    """Turns whose answer the client drops for a complaint (a format error)."""
    flattens: bool = False
    """The client sends answers back in words of its own."""
    rewrites: bool = False
    """The client puts files of the moment before each new message (aider)."""
    side_calls_at: frozenset[int] = frozenset()
    """Calls without tools, before these turns; before turn 1 it is the title."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, as it leaves the client."""

    messages: tuple[Message, ...]
    has_tools: bool
    is_side: bool = False

    @property
    def body_digest(self) -> Digest:
        return digest([m.digest for m in self.messages], self.has_tools)

    def evidence(self, **more: Any) -> TurnEvidence:
        """Without ids unless ``more`` has them. Call ids are echoed by the results in the history."""
        fields: dict[str, Any] = {
            "schema": Schema.CHAT,
            "tenant": "",
            "message_digests": tuple(m.digest for m in self.messages),
            "body_digest": self.body_digest,
            "has_tools": self.has_tools,
            "echoed_call_ids": tuple(c for m in self.messages if m.role == "tool" for c in m.call_ids),
        }
        return TurnEvidence(**(fields | more))


@dataclass
class Agent:
    """Asks one request at a time; ``take`` gives it the answer to the latest."""

    shape: Shape
    turn: int = 0
    history: list[Message] = field(default_factory=list)
    _asked: Ask | None = None
    _sides_done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.history += [Message("system", self.shape.system), Message("user", self.shape.task)]

    def ask(self) -> Ask | None:
        """The next request, the same again until it is answered; None at the end."""
        if self._asked is None and self.turn < self.shape.turns:
            self._asked = self._next()
        return self._asked

    def answer(self, nonce: str = "") -> Message:
        """What a model would say to the latest request; ``nonce`` tells samples apart."""
        if self._asked is not None and self._asked.is_side:
            return Message("assistant", "A title.")
        calls = self.shape.parallel_calls if self.shape.has_call_ids and self.shape.has_tools else 0
        ids = tuple(f"call_{digest(self.shape.name, self.turn, nonce, i).hex()}" for i in range(calls))
        return Message("assistant", f"{self.shape.voice or self.shape.name}: step {self.turn} {nonce}", ids)

    def take(self, answer: Message) -> None:
        asked, self._asked = self._asked, None
        assert asked is not None, "an answer to nothing"
        if asked.is_side:
            return
        self.turn += 1
        if self.turn in self.shape.drop_answers_at:
            self.history.append(Message("user", f"{self.shape.name}: format error in step {self.turn}"))
        else:
            self.history += [self._as_sent_back(answer), *self._results(answer)]

    def _next(self) -> Ask:
        upcoming = self.turn + 1
        if upcoming in self.shape.side_calls_at and upcoming not in self._sides_done:
            self._sides_done.add(upcoming)
            side = (Message("system", "Write a title."), Message("user", f"{self.shape.task} {upcoming}"))
            return Ask(side, has_tools=False, is_side=True)
        if upcoming == self.shape.condense_at:
            self._condense()
        sent = list(self.history)
        if self.shape.rewrites:
            sent.insert(-1, Message("user", f"{self.shape.name}: files before turn {upcoming}"))
        return Ask(tuple(sent), self.shape.has_tools)

    def _condense(self) -> None:
        first, last = self.history[: self.shape.keep_first], self.history[-self.shape.keep_last :]
        self.history = [*first, Message("user", f"Summary of {self.shape.name}."), *last]

    def _as_sent_back(self, answer: Message) -> Message:
        return Message(answer.role, f"I said: {answer.text}") if self.shape.flattens else answer

    def _results(self, answer: Message) -> list[Message]:
        output = f"{self.shape.voice or self.shape.name}: output of step {self.turn}"
        if not answer.call_ids or self.shape.flattens:
            return [Message("user", output)]
        return [Message("tool", f"{output} {i}", (call,)) for i, call in enumerate(answer.call_ids)]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of the fleet and what identity made of it."""

    agent: str
    turn: int
    is_side: bool
    was_answered: bool
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class FleetReport:
    turns: list[Turn]

    @property
    def main(self) -> list[Turn]:
        """Attempts that got no answer do not count before the first that did: identical first requests
        are interchangeable until one is answered."""
        began: set[str] = set()
        counted = []
        for turn in self.turns:
            if turn.is_side or (turn.agent not in began and not turn.was_answered):
                continue
            began.add(turn.agent)
            counted.append(turn)
        return counted

    @property
    def strays(self) -> list[Turn]:
        """Turns that did not join the session of their agent's first answered turn."""
        home: dict[str, str] = {}
        return [
            t
            for t in self.main
            if home.setdefault(t.agent, t.resolution.session_id) != t.resolution.session_id
        ]

    @property
    def merged_sessions(self) -> list[str]:
        """Sessions in which turns of more than one agent ended up."""
        agents: dict[str, set[str]] = defaultdict(set)
        for turn in self.main:
            agents[turn.resolution.session_id].add(turn.agent)
        return [session for session, names in agents.items() if len(names) > 1]


IdsOf = Callable[[Shape], dict[str, Any]]


def no_ids(shape: Shape) -> dict[str, Any]:
    return {}


def header_ids(shape: Shape) -> dict[str, Any]:
    return {"explicit_id": f"id of {shape.name}", "explicit_level": Level.HEADER}


@dataclass
class AgentAtWork:
    """An agent against an index, a step at a time: a request goes out, its answer comes in."""

    index: SessionIndex
    agent: Agent
    ids: IdsOf = no_ids
    says_retry: bool = False
    """Counts its attempts like the OpenAI SDK; else it only sends the same again, like tenacity."""
    turns: list[Turn] = field(default_factory=list)
    attempt: int = 0
    _sent: int = 0
    _in_flight: tuple[str, Ask, Resolution] | None = None

    @property
    def is_done(self) -> bool:
        return self._in_flight is None and self.agent.ask() is None

    def step(self, now: float, fails: bool) -> None:
        """Send, or else receive; ``fails``: what would be received is lost."""
        if self._in_flight is None:
            self._send(now)
        else:
            self._receive(now, fails)

    def _send(self, now: float) -> None:
        ask = self.agent.ask()
        assert ask is not None, "nothing left to ask"
        turn_id = f"{self.agent.shape.name} {self._sent}"
        ids = self.ids(self.agent.shape)
        evidence = ask.evidence(**ids, retry_count=self.attempt if self.says_retry else 0)
        self._in_flight = turn_id, ask, self.index.resolve(turn_id, evidence, now)
        self._sent += 1

    def _receive(self, now: float, fails: bool) -> None:
        assert self._in_flight is not None
        turn_id, ask, resolution = self._in_flight
        self._in_flight = None
        self.attempt = self.attempt + 1 if fails else 0
        self.turns.append(
            Turn(self.agent.shape.name, self.agent.turn + 1, ask.is_side, not fails, resolution)
        )
        if fails:
            self.index.abandoned(turn_id, now)
        else:
            answer = self.agent.answer()
            self.index.answered(turn_id, AnswerEvidence(answer.digest, answer.call_ids), now)
            self.agent.take(answer)


@dataclass
class Fleet:
    """Agents in virtual time, all starting within ``start_s``, every other one counting its retries.

    An attempt fails with ``failure_ratio``, three times in a row at most.
    """

    index: SessionIndex
    seed: int
    ids: IdsOf = no_ids
    failure_ratio: float = 0.0
    start_s: float = 0.0

    def play(self, shapes: Iterable[Shape]) -> FleetReport:
        dice = random.Random(self.seed)
        agents = [
            AgentAtWork(self.index, Agent(shape), self.ids, says_retry=number % 2 == 0)
            for number, shape in enumerate(shapes)
        ]
        # Ties are broken by number, so a seed gives one course of events.
        queue = [(dice.random() * self.start_s, number) for number in range(len(agents))]
        heapq.heapify(queue)
        while queue:
            now, number = heapq.heappop(queue)
            agent = agents[number]
            agent.step(now, fails=agent.attempt < 3 and dice.random() < self.failure_ratio)
            if not agent.is_done:
                heapq.heappush(queue, (now + dice.lognormvariate(0.0, 1.0), number))
        return FleetReport([turn for agent in agents for turn in agent.turns])
