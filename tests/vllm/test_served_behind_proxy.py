"""The whole of it: an official client, the proxy, the patched engine. The client knows nothing of leases.

An agent's session as it is on the wire: every turn answers with a tool call, and the next one brings its
result and the whole history.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend_patch.protocol import Ending
from marsproxy.config import Backend
from marsproxy.server import Server
from tests.integration.conftest import running_proxy
from tests.integration.official_clients import CHAT_TOOL, openai_client
from tests.vllm.engine_client import EngineClient
from tests.vllm.scenes import assert_conserved, endings, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

TURNS = 4
TASK = "Find out why the tests of the parser fail, and mend it. " * 100
SESSION = "agent-1"
CALL = {"text": "Let me look.", "tool": "bash", "args": {"command": "pytest -q tests/parser"}}
RESULT = "1 failed, 12 passed. The parser does not know the closing bracket. " * 30


@pytest.fixture
async def patched_proxy(engine: EngineClient) -> AsyncIterator[Server]:
    """Once it has found the patch and read the headroom."""
    async with running_proxy(engine.url, backend=Backend(headroom_interval_s=0.05)) as server:
        await until(lambda: reads_headroom(server))
        yield server


async def reads_headroom(server: Server) -> bool:
    async with httpx.AsyncClient() as http:
        [backend] = (await http.get(f"{server.url}/readyz")).json()["backends"].values()
    is_working: bool = backend["patch"]["state"] == "working" and backend["reachable"]
    return is_working


async def agents_turn(server: Server, messages: list[dict[str, Any]]) -> int:
    """The history grows by the call and its result. Tokens that were found in the cache."""
    async with openai_client(server.url, default_headers={"X-Mars-Session": SESSION}) as client:
        answer = await client.chat.completions.create(
            model="tiny",
            messages=messages,
            tools=[CHAT_TOOL],
            extra_body={"vllm_xargs": {"mars_answer": json.dumps(CALL)}},
        )
    [choice] = answer.choices
    [call] = choice.message.tool_calls
    messages.append(choice.message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": RESULT})
    return answer.usage.prompt_tokens_details.cached_tokens


async def test_an_agents_session_keeps_its_blocks_and_gives_them_back(
    patched_proxy: Server, engine: EngineClient
) -> None:
    since = (await engine.headroom()).last_seq
    messages: list[dict[str, Any]] = [{"role": "user", "content": TASK}]
    cached, leased = [], []
    for _ in range(TURNS):
        cached.append(await agents_turn(patched_proxy, messages))
        # The answer is complete when the client has it, and the lease is as old as the answer.
        leased.append((await assert_conserved(engine)).leased_blocks)
    assert leased == sorted(set(leased)), "each turn leases more than the one before"
    assert leased[0] > 0
    assert cached[0] == 0
    block_tokens = (await engine.headroom()).block_tokens
    # All that was leased is found again; of the answer, the template adds a few tokens of its own.
    assert [each // block_tokens for each in cached[1:]] == leased[:-1]
    [(session, ways)] = (await endings(engine, since)).items()
    assert ways == [Ending.RESUMED] * (TURNS - 1)
    assert [state.session for state in await engine.sessions()] == [session]

    async with httpx.AsyncClient() as http:
        [known] = (await http.get(f"{patched_proxy.url}/mars/v1/sessions")).json()["sessions"]
        answer = await http.delete(f"{patched_proxy.url}/mars/v1/sessions/{known['id']}")
    assert answer.status_code == 204

    async def is_forgotten() -> bool:
        return await engine.sessions() == []

    await until(is_forgotten)
    headroom = await assert_conserved(engine)
    assert headroom.free_blocks == headroom.blocks


async def test_the_proxy_reads_what_the_engine_says(patched_proxy: Server, engine: EngineClient) -> None:
    """The patch's headroom, not the metrics."""
    headroom = await engine.headroom()
    async with httpx.AsyncClient() as http:
        [backend] = (await http.get(f"{patched_proxy.url}/readyz")).json()["backends"].values()
    assert backend["headroom"]["source"] == "patch"
    assert backend["kv_tokens_total"] == headroom.blocks * headroom.block_tokens
    assert backend["patch"]["vllm_version"] == (await engine.capabilities()).vllm_version
