"""Lines of the audit log: one a call, whatever came of it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request

from marsproxy import audit
from marsproxy.app import answer_in_our_shape
from marsproxy.errors import Refuse, forbidden


async def check(request: Request) -> str:
    if "x-good" not in request.headers:
        raise Refuse(forbidden("not you"))
    return "token"


def app() -> FastAPI:
    api = FastAPI()
    answer_in_our_shape(api)
    caller = Depends(audit.audited(check))

    @api.post("/drain/{name}")
    async def drain(name: str, who: Annotated[str, caller]) -> str:
        if name == "missing":
            raise HTTPException(404)
        return who

    return api


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """As it was, afterwards: loggers are the process's."""
    logger = logging.getLogger(audit.LOGGER)
    before = (logger.level, logger.propagate, list(logger.handlers))
    yield logger
    for handler in set(logger.handlers) - set(before[2]):
        logger.removeHandler(handler)
        handler.close()
    logger.level, logger.propagate = before[:2]


async def test_each_call_leaves_a_line_in_the_file(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "audit.jsonl"
    audit.begin(path)
    good = {"x-good": "a-key-that-no-log-may-show"}
    transport = httpx.ASGITransport(app())
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        await client.post("/drain/gpu1?key=a-key-that-no-log-may-show", headers=good)
        path.rename(tmp_path / "audit.jsonl.1")
        await client.post("/drain/missing", headers=good)
        await client.post("/drain/gpu1%0Aforged" + "x" * 1000)
    first = (tmp_path / "audit.jsonl.1").read_text().splitlines()
    lines = [json.loads(line) for line in first + path.read_text().splitlines()]
    assert [(line["who"], line["what"][:16], line["outcome"]) for line in lines] == [
        ("token", "POST /drain/gpu1", "done"),
        ("token", "POST /drain/miss", "404"),
        ("nobody", "POST /drain/gpu1", "forbidden"),
    ]
    assert all(len(line["what"]) < 300 for line in lines)
    assert "no-log-may-show" not in str(lines)
