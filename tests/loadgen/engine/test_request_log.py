"""What an engine says that it served: each request once as it begins and once as it ends."""

import asyncio
from pathlib import Path

import httpx
import msgspec

from loadgen.engine.request_log import RequestLine
from tests.loadgen.engine.conftest import RunEngine


def lines(path: Path) -> list[tuple[str | None, str, int | None]]:
    found = [msgspec.json.decode(line, type=RequestLine) for line in path.read_bytes().splitlines()]
    return [(line.id, line.what, line.tokens) for line in found]


async def test_requests_are_told_by_their_id(run_engine: RunEngine, tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    async with run_engine(request_log=path) as engine:
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "min_tokens": 3}
        await engine.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "one"})
        await engine.http.post("/v1/chat/completions", json=body)
    assert lines(path) == [
        ("one", "begun", None),
        ("one", "finished", 3),
        (None, "begun", None),
        (None, "finished", 3),
    ]


async def test_a_client_that_leaves_has_aborted(run_engine: RunEngine, tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    async with run_engine(request_log=path, speed=1.0) as engine:
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9000, "min_tokens": 9000}
        async with httpx.AsyncClient(base_url=engine.url) as client:
            ask = client.post("/v1/chat/completions", json=body, headers={"x-request-id": "left"})
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(ask)
                await engine.until(lambda: bool(path.read_bytes()))
                asking.cancel()
        await engine.until(lambda: len(lines(path)) == 2)
    [(begun_id, begun, _), (ended_id, ended, tokens)] = lines(path)
    assert (begun_id, begun, ended_id, ended) == ("left", "begun", "left", "aborted")
    assert tokens is not None
    assert tokens < 9000
