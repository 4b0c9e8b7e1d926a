"""What the tests say to one vLLM: turns of sessions as token ids, and the patch's own paths.

Token ids go in and come back, so that a continuation is the earlier context to the token. Knows the
names in ``backend_patch.protocol`` and nothing of how the engine keeps them.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from backend_patch.protocol import (
    BATCH_PATH,
    CAPABILITIES_PATH,
    HEADROOM_PATH,
    SESSIONS_PATH,
    Capabilities,
    Headroom,
    KvAnswer,
    KvOp,
    KvRequest,
    RankHeadroom,
    SessionState,
    XArg,
)

MODEL = "tiny"
ANSWER_TIMEOUT_S = 300.0
"""Of a hang."""
FIRST_TOKEN, TOKENS = 300, 600
"""Ids that prompts are made of: words of the tokenizer, no tags."""


@dataclass
class Turn:
    """One answer as its client saw it."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    output: list[int] = field(default_factory=list)
    ttft_s: float = 0.0
    best: list[float] = field(default_factory=list)
    """Log probability of each token of the output, where they were asked for."""
    gaps: list[float] = field(default_factory=list)
    """To the next best one."""


@dataclass
class Context:
    """A session's tokens so far; unlike those of any other session."""

    session: str
    chance: random.Random
    tokens: list[int] = field(default_factory=list)

    def more(self, tokens: int) -> list[int]:
        """A prompt: what there is and so many new tokens."""
        self.tokens += self.chance.choices(range(FIRST_TOKEN, FIRST_TOKEN + TOKENS), k=tokens)
        return list(self.tokens)


@dataclass(frozen=True)
class EngineClient:
    url: str
    http: aiohttp.ClientSession
    with_logprobs: bool = False

    async def turn(
        self, context: Context, new_tokens: int, output_tokens: int = 4, priority: int = 0, **xargs: Any
    ) -> Turn:
        """One turn of a session, streamed to its end; the context grows by it."""
        prompt = context.more(new_tokens)
        turn = await self.complete(
            prompt, output_tokens, priority, xargs | {XArg.SESSION.value: context.session}
        )
        context.tokens += turn.output
        return turn

    async def complete(
        self, prompt: Sequence[int], output_tokens: int, priority: int, xargs: dict[str, Any]
    ) -> Turn:
        body = {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "priority": priority,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "vllm_xargs": xargs,
        } | ({"logprobs": 2} if self.with_logprobs else {})
        turn, sent_s = Turn(), time.perf_counter()
        async with self.http.post(f"{self.url}/v1/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            async for event in _events(answer):
                assert "error" not in event, event
                if event["choices"] and not turn.output:
                    turn.ttft_s = time.perf_counter() - sent_s
                _take(event, turn)
        return turn

    async def headroom(self) -> RankHeadroom:
        """Of the only rank."""
        [rank] = msgspec.json.decode(await self.get(HEADROOM_PATH), type=Headroom).ranks
        return rank

    async def headroom_since(self, seq: int) -> RankHeadroom:
        """With the lease endings after that one."""
        path = f"{HEADROOM_PATH}?after=0:{seq}"
        [rank] = msgspec.json.decode(await self.get(path), type=Headroom).ranks
        return rank

    async def headroom_during(self, turn: Coroutine[Any, Any, Turn]) -> list[RankHeadroom]:
        """What the headroom said, again and again, while the turn was under way."""
        seen: list[RankHeadroom] = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(turn)
            while not task.done():
                seen.append(await self.headroom())
                await asyncio.sleep(0.02)
        return seen

    async def capabilities(self) -> Capabilities:
        return msgspec.json.decode(await self.get(CAPABILITIES_PATH), type=Capabilities)

    async def sessions(self) -> list[SessionState]:
        """Asks the engine, which answers between two steps."""
        return msgspec.json.decode(await self.get(SESSIONS_PATH), type=list[SessionState])

    async def kv(self, session: str, op: KvOp, **members: Any) -> KvAnswer:
        request = KvRequest(op=op, session=session, **members)
        answer = await self.post(f"{SESSIONS_PATH}/{session}/kv", request)
        return msgspec.json.decode(answer, type=KvAnswer)

    async def batch(self, requests: Sequence[KvRequest]) -> list[KvAnswer]:
        return msgspec.json.decode(await self.post(BATCH_PATH, requests), type=list[KvAnswer])

    async def reset_prefix_cache(self) -> bool:
        """Only in vLLM's development mode. False while blocks are held."""
        success: bool = msgspec.json.decode(await self.post("/reset_prefix_cache"))["success"]
        return success

    async def status(self, path: str) -> int:
        async with self.http.get(self.url + path) as answer:
            return answer.status

    async def metric(self, name: str) -> float:
        """Summed over API servers and engines."""
        async with self.http.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        values = [float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        assert values, f"{name} is not in /metrics"
        return sum(values)

    async def get(self, path: str) -> bytes:
        async with self.http.get(self.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()

    async def post(self, path: str, body: Any = None) -> bytes:
        headers = {"content-type": "application/json"}
        data = msgspec.json.encode(body)
        async with self.http.post(self.url + path, data=data, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


@asynccontextmanager
async def engine_client(url: str, *, with_logprobs: bool = False) -> AsyncIterator[EngineClient]:
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        yield EngineClient(url, http, with_logprobs)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data: {"):
            yield msgspec.json.decode(line[len(b"data: ") :])


def _take(event: dict[str, Any], turn: Turn) -> None:
    for choice in event["choices"]:
        turn.output += choice.get("token_ids") or []
        for candidates in (choice.get("logprobs") or {}).get("top_logprobs", ()):
            best, *others = sorted(candidates.values(), reverse=True)
            turn.best.append(best)
            turn.gaps += [best - other for other in others[:1]]
        turn.finish_reason = choice["finish_reason"] or turn.finish_reason
    if usage := event.get("usage"):
        turn.prompt_tokens = usage["prompt_tokens"]
        turn.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
