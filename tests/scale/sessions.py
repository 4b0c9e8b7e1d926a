"""Agent sessions, small and many: each asks its turns one after the other, over a new connection each.

A turn is a chat completion whose prompt is the session's history; an attempt is one request for it, known
by an ``X-Request-Id`` of its own, so that what the backends served can be held against what was asked.
An attempt whose connection died, or that was told to come again, is followed by another one. Half of the
sessions say who they are, the others are recognised; half of them stream. Owns what clients saw; must not
know what was broken.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import aiohttp

ATTEMPTS = 120
"""After so many, a minute of refused connections, a turn is lost."""
ATTEMPT_S = 90.0
"""A turn that is silent for longer is a fault of its own."""
LONG_ATTEMPT_S = 600.0
"""Where more ask than fit: the proxy holds nobody for longer than ``hold.max_hold_s`` (570 s)."""
PAUSE_S = 0.5
"""Before a turn is asked again."""
WORDS = (
    "the",
    "parser",
    "reads",
    "each",
    "line",
    "and",
    "calls",
    "what",
    "it",
    "finds",
    "there",
    "once",
    "more",
)


class Seen(Enum):
    """How an attempt ended, for its client."""

    ANSWERED = "answered"
    DIED = "died"
    """The connection broke, before the answer or in it, or the proxy said that the backend's did."""
    REFUSED = "refused"
    """The proxy said to come again later: nothing was asked of a backend."""
    WRONG = "wrong"
    """Anything else: an error that no fault excuses, an answer without its end."""
    SILENT = "silent"


BACKEND_DIED = {502, 504}
COME_AGAIN = {429, 503}


@dataclass(slots=True)
class Attempt:
    id: str
    session: int
    turn: int
    asked_s: float
    """Seconds since 1970, as everywhere here: what others wrote down must be comparable."""
    ended_s: float = 0.0
    seen: Seen = Seen.SILENT
    status: int | None = None
    mars_session: str | None = None
    why: str = ""
    is_named: bool = False
    """Its session says who it is."""


@dataclass
class Crowd:
    """Sessions that run until their turns are over, or until it is told to stop."""

    url: str
    count: int
    turns: int | None = 6
    """Of each session; None: for ever."""
    gap_s: float = 0.5
    """Mean pause between two turns, as of a tool."""
    seed: int = 1
    tokens: int = 24
    """Of an answer."""
    patience_s: float = ATTEMPT_S
    attempts: list[Attempt] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Turns that were given up."""
    _is_over: bool = False

    def stop(self) -> None:
        """Turns under way are finished, no more are begun."""
        self._is_over = True

    @property
    def answered(self) -> int:
        return sum(attempt.seen is Seen.ANSWERED for attempt in self.attempts)

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=self.patience_s)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(self.count):
                tasks.create_task(self._session(http, number))

    async def _session(self, http: aiohttp.ClientSession, number: int) -> None:
        draw = random.Random(f"{self.seed}/{number}")
        generation = 0
        await asyncio.sleep(draw.uniform(0, 2 * self.gap_s))
        while not self._is_over:
            await self._agent(http, number, generation, draw)
            if self.turns is not None:
                return
            generation += 1

    async def _agent(
        self, http: aiohttp.ClientSession, number: int, generation: int, draw: random.Random
    ) -> None:
        """One agent's life. With no end set, it is as long as a draw says, and another one follows."""
        name = f"{self.seed}-{number}-{generation}"
        turns = self.turns or draw.randint(3, 12)
        messages = [_message("user", f"task {name}: {_prose(draw, 200)}")]
        for turn in range(turns):
            if self._is_over:
                return
            answer = await self._turn(http, number, name, turn, turn == turns - 1, messages)
            if answer is None:
                self.lost.append(f"{name}.{turn}")
                return
            messages.append(_message("assistant", answer))
            messages.append(_message("user", f"result {turn}: {_prose(draw, 60)}"))
            await asyncio.sleep(draw.expovariate(1 / self.gap_s))

    async def _turn(
        self,
        http: aiohttp.ClientSession,
        number: int,
        name: str,
        turn: int,
        is_last: bool,
        messages: list[dict[str, str]],
    ) -> str | None:
        body = {"messages": messages, "max_tokens": self.tokens, "stream": number % 4 < 2}
        for again in range(ATTEMPTS):
            attempt = Attempt(f"{name}.{turn}.{again}", number, turn, time.time())
            self.attempts.append(attempt)
            headers = {"x-request-id": attempt.id}
            if number % 2:
                headers["x-mars-session"] = f"session-{name}"
                attempt.is_named = True
            if is_last:
                headers["x-mars-session-final"] = "true"
            text = ""
            with _ending(attempt):
                text = await self._ask(http, attempt, headers, body)
            if attempt.seen is Seen.ANSWERED:
                return text
            await asyncio.sleep(PAUSE_S)
        return None

    async def _ask(
        self, http: aiohttp.ClientSession, attempt: Attempt, headers: dict[str, str], body: dict[str, Any]
    ) -> str:
        async with http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            attempt.status = answer.status
            attempt.mars_session = answer.headers.get("x-mars-session")
            if answer.status != 200:
                attempt.why = (await answer.text())[:300]
                attempt.seen = _seen_of(answer.status)
                return ""
            if not body["stream"]:
                text = (await answer.json())["choices"][0]["message"]["content"]
                attempt.seen = Seen.ANSWERED
                return str(text)
            return _read_stream(await answer.read(), attempt)


def _read_stream(raw: bytes, attempt: Attempt) -> str:
    """The text, if the stream has its end; an error that came as an event is what its status would be."""
    text: list[str] = []
    for line in raw.decode().splitlines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            attempt.seen = Seen.DIED if attempt.why else Seen.ANSWERED
            continue
        event = json.loads(line[6:])
        if "error" in event:
            attempt.why = json.dumps(event["error"])[:300]
        text += [choice["delta"].get("content") or "" for choice in event.get("choices", ())]
    if attempt.why:
        attempt.seen = Seen.DIED
    elif attempt.seen is not Seen.ANSWERED:
        attempt.seen, attempt.why = Seen.WRONG, "the stream has no end"
    return "".join(text)


def _seen_of(status: int) -> Seen:
    if status in BACKEND_DIED:
        return Seen.DIED
    return Seen.REFUSED if status in COME_AGAIN else Seen.WRONG


@contextmanager
def _ending(attempt: Attempt) -> Iterator[None]:
    """What a client's library raises, in our words."""
    try:
        yield
    except TimeoutError:
        attempt.seen, attempt.why = Seen.SILENT, "no end within its time"
    except (aiohttp.ClientError, OSError) as exc:
        attempt.seen, attempt.why = Seen.DIED, type(exc).__name__
    finally:
        attempt.ended_s = time.time()


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _prose(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))
