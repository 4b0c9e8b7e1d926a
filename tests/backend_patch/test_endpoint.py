"""The plugin's routes, over HTTP, on engines that are made up."""

import json
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from backend_patch.endpoint import MAX_BODY_BYTES, MarsEndpoint
from backend_patch.protocol import (
    BATCH_PATH,
    CAPABILITIES_PATH,
    HEADROOM_PATH,
    MAX_BATCH,
    SESSIONS_PATH,
    Capabilities,
    Headroom,
    KvAnswer,
    KvOp,
    KvStatus,
)
from backend_patch.snapshot import SnapshotWriter
from tests.backend_patch.fake_engine import (
    FakeRank,
    OneRankClient,
    RanksClient,
    StockRank,
    engine_client,
    rank_headroom,
)


@asynccontextmanager
async def served(client: Any) -> AsyncIterator[httpx.AsyncClient]:
    """As vLLM does it: routes first, state when the engine is there."""
    app, plugin = FastAPI(), MarsEndpoint()
    plugin.attach_router(app)
    await plugin.init_state(client, app.state, Namespace())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://vllm") as http:
        yield http


@pytest.fixture
def rank() -> FakeRank:
    return FakeRank(0, "a", "with/slash")


@pytest.fixture
async def http(rank: FakeRank) -> AsyncIterator[httpx.AsyncClient]:
    async with served(engine_client(OneRankClient(rank))) as client:
        yield client


def error(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["code"] == answer.status_code
    return body


async def test_plugin_is_what_vllm_asks_for() -> None:
    """vllm/plugins/endpoint_plugins/interface.py: a class of no arguments; servers without an engine, such
    as one that only renders prompts, are left out by the task."""
    plugin = MarsEndpoint()
    assert plugin.name == "mars"
    assert plugin.required_tasks == ("generate",)


@pytest.fixture
def writer(instance_id: str) -> Iterator[SnapshotWriter]:
    writer = SnapshotWriter(instance_id, 0)
    yield writer
    writer.close()


async def test_headroom(writer: SnapshotWriter, instance_id: str, rank: FakeRank) -> None:
    writer.write(msgspec.json.encode(rank_headroom(0, endings=3)))
    async with served(engine_client(OneRankClient(rank), instance_id=instance_id)) as http:
        plain = await http.get(HEADROOM_PATH)
        after = await http.get(HEADROOM_PATH, params={"after": "0:2,1:7"})
    assert plain.headers["content-type"] == "application/json"
    assert msgspec.json.decode(plain.content, type=Headroom).ranks[0].endings == ()
    (ending,) = msgspec.json.decode(after.content, type=Headroom).ranks[0].endings
    assert ending.seq == 3
    assert [op for op, _body in rank.calls] == ["capabilities"]


@pytest.mark.parametrize("after", ["1", "0:", "0:-1", "0:1,", "0:1;1:2", "0:1 ,1:2", "0:" + "9" * 30])
async def test_after_that_is_not_understood(http: httpx.AsyncClient, after: str) -> None:
    answer = await http.get(HEADROOM_PATH, params={"after": after})
    assert answer.status_code == 400
    assert error(answer)["param"] == "after"


async def test_capabilities(http: httpx.AsyncClient) -> None:
    answer = await http.get(CAPABILITIES_PATH)
    assert msgspec.json.decode(answer.content, type=Capabilities).ops == tuple(KvOp)


async def test_sessions(http: httpx.AsyncClient) -> None:
    assert [each["session"] for each in (await http.get(SESSIONS_PATH)).json()] == ["a", "with/slash"]


async def test_one_session(http: httpx.AsyncClient, rank: FakeRank) -> None:
    await http.get(SESSIONS_PATH, params={"session": "a", "resident": "1"})
    await http.get(SESSIONS_PATH, params={"resident": "0"})
    assert [json.loads(body) for _op, body in rank.calls] == [{"session": "a", "with_resident": True}, {}]
    answer = await http.get(SESSIONS_PATH, params={"resident": "yes"})
    assert (answer.status_code, error(answer)["param"]) == (400, "resident")


@pytest.mark.parametrize(
    ("path", "session"), [("a", "a"), ("with/slash", "with/slash"), ("with%2Fslash", "with/slash")]
)
async def test_one_operation(http: httpx.AsyncClient, rank: FakeRank, path: str, session: str) -> None:
    """The session is the path's, whatever the body says."""
    answer = await http.post(f"{SESSIONS_PATH}/{path}/kv", json={"op": "pin", "ttl_ms": 8000, "session": "x"})
    expected = KvAnswer(KvStatus.ACCEPTED, session, KvOp.PIN, blocks=10, tokens=160)
    assert msgspec.json.decode(answer.content, type=KvAnswer) == expected
    assert msgspec.json.decode(rank.calls[0][1]) == [{"op": "pin", "session": session, "ttl_ms": 8000}]


async def test_batch_is_one_call(http: httpx.AsyncClient, rank: FakeRank) -> None:
    """Unknown members are somebody's newer ones."""
    operations = [
        {"op": "pin", "session": "a", "mode": "hard", "newer": [1]},
        {"op": "evict", "session": "b"},
    ]
    answer = await http.post(BATCH_PATH, json=operations)
    assert [each["status"] for each in answer.json()] == ["accepted", "missing"]
    assert len(rank.calls) == 1


async def test_empty_batch_is_no_call(http: httpx.AsyncClient, rank: FakeRank) -> None:
    answer = await http.post(BATCH_PATH, json=[])
    assert (answer.status_code, answer.json(), rank.calls) == (200, [], [])


async def test_largest_batch(http: httpx.AsyncClient) -> None:
    operations = [{"op": "release", "session": "x" * 256, "branch": "y" * 256}] * MAX_BATCH
    assert len((await http.post(BATCH_PATH, json=operations)).json()) == MAX_BATCH
    answer = await http.post(BATCH_PATH, json=[*operations, operations[0]])
    assert (answer.status_code, error(answer)["message"]) == (
        400,
        "1025 operations; at most 1024 go in one batch",
    )


@pytest.mark.parametrize(
    ("operation", "param", "says"),
    [
        ({"op": "pinn", "session": "a"}, "[1].op", "allowed: pin, release, recycle, evict, demote, end"),
        ({"op": "pin", "session": "a", "mode": "softer"}, "[1].mode", "allowed: open, soft, hard"),
        ({"op": "pin", "session": "a", "ttl_ms": "8"}, "[1].ttl_ms", "Expected `int | null`, got `str`"),
        ({"op": "pin", "session": "a", "ttl_ms": 0}, "[1].ttl_ms", "more than 0"),
        ({"op": "pin", "session": ""}, "[1].session", "1 to 256 characters"),
        ({"op": "pin"}, "[1].session", "1 to 256 characters"),
        ({"op": "pin", "session": "s" * 257}, "[1].session", "1 to 256 characters"),
        ({"op": "pin", "session": "a", "branch": "b" * 257}, "[1].branch", "at most 256 characters"),
        ({"session": "a"}, "[1]", "missing required field `op`"),
        ("pin", "[1]", "Expected `object`"),
    ],
)
async def test_bad_member_is_named(
    http: httpx.AsyncClient, rank: FakeRank, operation: object, param: str, says: str
) -> None:
    """And nothing of the batch is done."""
    answer = await http.post(BATCH_PATH, json=[{"op": "pin", "session": "a"}, operation])
    assert answer.status_code == 400
    assert error(answer)["param"] == param
    assert says in error(answer)["message"]
    assert rank.calls == []


async def test_bad_member_of_one_operation(http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{SESSIONS_PATH}/a/kv", json={"op": "pinn"})
    assert (answer.status_code, error(answer)["param"]) == (400, "op")
    answer = await http.post(f"{SESSIONS_PATH}/{'a' * 257}/kv", json={"op": "pin"})
    assert (answer.status_code, error(answer)["param"]) == (400, "session")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[", 400), (b"\xff", 400), (b"{}", 400), (b" " * (MAX_BODY_BYTES + 1), 413)],
)
async def test_body_that_is_not_a_batch(http: httpx.AsyncClient, body: bytes, status: int) -> None:
    answer = await http.post(BATCH_PATH, content=body)
    assert answer.status_code == status
    assert error(answer)["type"] == "BadRequestError"


async def test_engine_that_fails(http: httpx.AsyncClient) -> None:
    class Broken:
        async def call_utility_async(self, method: str, *args: object) -> object:
            raise Exception("EngineCore encountered an issue")

    async with served(engine_client(Broken())) as broken:
        answer = await broken.post(BATCH_PATH, json=[{"op": "pin", "session": "a"}])
    assert (answer.status_code, error(answer)["type"]) == (503, "ServiceUnavailableError")


async def test_stock_engine() -> None:
    """Nothing breaks: it says that there is no patch, and rejects."""
    async with served(engine_client(OneRankClient(StockRank()), scheduler_cls=None)) as http:
        capabilities = await http.get(CAPABILITIES_PATH)
        operation = await http.post(f"{SESSIONS_PATH}/a/kv", json={"op": "pin"})
        headroom = await http.get(HEADROOM_PATH)
        sessions = await http.get(SESSIONS_PATH)
    assert "--scheduler-cls" in capabilities.json()["passthrough"]
    assert operation.json() == {"status": "rejected", "session": "a", "op": "pin", "reason": "passthrough"}
    assert headroom.json()["ranks"] == []
    assert sessions.json() == []


async def test_two_ranks() -> None:
    async with served(engine_client(RanksClient(FakeRank(0, "a"), FakeRank(1, "b")))) as http:
        headroom = await http.get(HEADROOM_PATH)
        answers = await http.post(BATCH_PATH, json=[{"op": "end", "session": "b"}])
    assert [rank["rank"] for rank in headroom.json()["ranks"]] == [0, 1]
    assert answers.json()[0]["status"] == "accepted"
