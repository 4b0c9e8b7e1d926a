"""A model that says something new to every request, and a server for it that fails now and then.

Owns the answers, at random from a seed, and every way in which one gets lost. It must not know who asks:
what it says depends on chance and on whether there are tools to call.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.integration import fleet_answers
from tests.integration.fleet_answers import Answer
from tests.loadgen.upstream import Fake, begin, more, reply

TWIN_TASK = "the task that many agents were given"
TALKING_MODEL = "talks-now-and-then"
"""Answers some requests without a call, and then hears from a user."""
COUNTING_MODEL = "counts-its-calls"
"""Its call ids are ``functions.bash:0`` and so on in every conversation, as Kimi K2's are."""

_CALL_ID = {
    "/v1/chat/completions": "chatcmpl-tool-{}",
    "/v1/responses": "call_{}",
    "/v1/messages": "toolu_01{}",
}
_MAX_PIECES = 6
"""Into which a network cuts an answer."""
_PIECE_S = 0.001
"""Between two pieces, so that they arrive as two."""
_LINGER_S = 0.01
"""Between the end of a stream and the end of its connection or chunked body."""


_TAIL_BYTES = 20
"""An answer without them is no whole one for any reader."""


class CutOff(Exception):
    """The server dies in the middle of an answer."""


@dataclass
class FleetModel(Fake):
    seed: int = 0
    failure_ratio: float = 0.0
    """Of requests that get no answer, or a part of one."""
    stall_ratio: float = 0.0
    """Of requests that get none until the client has gone."""
    twins: int = 0
    """So many requests with the twins' task must be there before one of them is answered."""
    most_at_once: int = 0
    answered: int = 0
    failed: int = 0
    _at_once: int = 0
    _twins_seen: int = 0

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._twins_there = asyncio.Event()

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, send: Any) -> None:
        if path not in _CALL_ID:
            await reply(send, 404, {"error": {"message": "not here"}})
            return
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._wait_for_twins(body)
            await asyncio.sleep(self._dice.random() * 0.01)
            await self._answer_or_fail(path, msgspec.json.decode(body), send)
        finally:
            self._at_once -= 1

    async def _wait_for_twins(self, body: bytes) -> None:
        if TWIN_TASK.encode() in body and self._twins_seen < self.twins:
            self._twins_seen += 1
            if self._twins_seen == self.twins:
                self._twins_there.set()
            await self._twins_there.wait()

    async def _answer_or_fail(self, path: str, asked: dict[str, Any], send: Any) -> None:
        luck = self._dice.random()
        is_stream = asked.get("stream") is True
        if luck < self.stall_ratio:
            self.failed += 1
            await asyncio.sleep(3600)
        if luck < self.stall_ratio + self.failure_ratio / 2:
            self.failed += 1
            await reply(send, self._dice.choice([500, 502, 503]), {"error": {"message": "no"}})
            return
        answer = self._say(path, asked)
        content = fleet_answers.stream(path, answer)
        if not is_stream:
            content = msgspec.json.encode(fleet_answers.body(path, answer))
        is_cut = luck < self.stall_ratio + self.failure_ratio
        self.failed += is_cut
        self.answered += not is_cut
        await self._send(content, is_stream, is_cut, send)

    def _say(self, path: str, asked: dict[str, Any]) -> Answer:
        number = self.answered + self.failed
        least = 0 if asked["model"] == TALKING_MODEL else 1
        calls = self._dice.choice([least, 1, 1, 1, 2, 3]) if asked.get("tools") else 0
        ids = (f"{self._dice.getrandbits(128):032x}" for _ in range(calls))
        if asked["model"] == COUNTING_MODEL:
            call_ids = tuple(f"functions.bash:{n}" for n in range(calls))
        else:
            call_ids = tuple(_CALL_ID[path].format(each) for each in ids)
        # Two words and a number, with the line breaks that parsers leave around a model's words.
        text = f"\n\nI look\nat part {number}.\n" if not calls or self._dice.random() < 0.7 else ""
        return Answer(f"{self._dice.getrandbits(96):024x}", text, call_ids)

    async def _send(self, content: bytes, is_stream: bool, is_cut: bool, send: Any) -> None:
        kind = "text/event-stream" if is_stream else "application/json"
        headers = {"content-type": kind}
        if not is_stream and self._dice.random() < 0.5:
            headers["content-length"] = str(len(content))
        await begin(send, 200, headers)
        for piece in self._pieces(content[:-_TAIL_BYTES] if is_cut else content):
            await more(send, piece)
            await asyncio.sleep(_PIECE_S)
        if is_cut:
            raise CutOff
        if is_stream:
            await asyncio.sleep(_LINGER_S)
        await send({"type": "http.response.body", "body": b""})

    def _pieces(self, content: bytes) -> Iterator[bytes]:
        cuts = sorted(
            self._dice.sample(range(1, len(content) - _TAIL_BYTES), self._dice.randrange(_MAX_PIECES))
        )
        if self._dice.random() < 0.3:
            cuts.append(len(content) - self._dice.randrange(1, _TAIL_BYTES))
        for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            yield content[start:end]
