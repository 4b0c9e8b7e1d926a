"""The relay passes everything on as it is, and knows whose turn it was and how it went."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import httpx
import msgspec
import pytest

from loadgen.agents.relay import Relay
from loadgen.records import SessionRecord, TurnRecord
from tests.loadgen.upstream import FakeModel

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


def ticking() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


@asynccontextmanager
async def relaying(target: str, turns: list[TurnRecord]) -> AsyncIterator[tuple[Relay, httpx.AsyncClient]]:
    async with Relay(target, ticking(), turns.append, timeout_s=20.0) as relay, httpx.AsyncClient() as http:
        yield relay, http


async def test_turns_are_told_apart_by_the_address_and_counted(model: FakeModel) -> None:
    turns: list[TurnRecord] = []
    records = [SessionRecord(session=name, arrival_s=0.0) for name in ("a", "b")]
    async with relaying(model.url, turns) as (relay, http):
        urls = {record.session: relay.open(record) for record in records}
        for number, name in enumerate(("a", "b", "a"), start=1):
            asked = {**CHAT, "unknown": number}
            response = await http.post(f"{urls[name]}/chat/completions", json=asked)
            assert model.chats[-1] == asked
            message = response.json()["choices"][0]["message"]
            assert message["content"] == f"w{number}-0 w{number}-1 w{number}-2 "
        for record in records:
            relay.close(record.session)
    assert sorted((turn.session, turn.turn) for turn in turns) == [("a", 1), ("a", 2), ("b", 1)]
    assert all(turn.error is None and turn.first_token_s is None for turn in turns)
    assert [record.turns_completed for record in records] == [2, 1]
    assert all(record.prompt_tokens > 0 and record.end_s is not None for record in records)


async def test_streams_have_a_first_token(model: FakeModel) -> None:
    turns: list[TurnRecord] = []
    async with relaying(model.url, turns) as (relay, http):
        url = relay.open(SessionRecord(session="a", arrival_s=0.0))
        response = await http.post(f"{url}/chat/completions", json={**CHAT, "stream": True})
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text.rstrip().endswith("data: [DONE]")
        relay.close("a")
    (turn,) = turns
    assert turn.first_token_s is not None
    assert turn.last_token_s is not None
    assert turn.sent_s < turn.first_token_s < turn.last_token_s


async def test_a_request_that_failed_and_is_sent_again_is_one_turn(model: FakeModel) -> None:
    model.refusals = [500, 503]
    turns: list[TurnRecord] = []
    async with relaying(model.url, turns) as (relay, http):
        url = relay.open(SessionRecord(session="a", arrival_s=0.0))
        statuses = [(await http.post(f"{url}/chat/completions", json=CHAT)).status_code for _ in range(3)]
        relay.close("a")
    assert statuses == [500, 503, 200]
    (turn,) = turns
    assert (turn.turn, turn.retries, turn.error, turn.status) == (1, 2, None, 200)


async def test_a_failure_that_is_not_tried_again_stays_one(model: FakeModel) -> None:
    model.refusals = [500]
    turns: list[TurnRecord] = []
    record = SessionRecord(session="a", arrival_s=0.0)
    async with relaying(model.url, turns) as (relay, http):
        await http.post(f"{relay.open(record)}/chat/completions", json=CHAT)
        relay.close("a")
    assert [turn.error for turn in turns] == ["HTTP 500"]
    assert (record.turns_completed, record.end_s) == (0, None)


@pytest.mark.parametrize("breaks", ["cut", "error"])
async def test_a_broken_stream_is_a_failed_turn(model: FakeModel, breaks: str) -> None:
    model.breaks = breaks
    turns: list[TurnRecord] = []
    async with relaying(model.url, turns) as (relay, http):
        url = relay.open(SessionRecord(session="a", arrival_s=0.0))
        with contextlib.suppress(httpx.HTTPError):  # the client sees it, too
            await http.post(f"{url}/chat/completions", json={**CHAT, "stream": True})
        relay.close("a")
    assert len(turns) == 1
    assert turns[0].error is not None


async def test_an_unreachable_target_is_a_bad_gateway() -> None:
    turns: list[TurnRecord] = []
    async with relaying("http://127.0.0.1:9", turns) as (relay, http):
        url = relay.open(SessionRecord(session="a", arrival_s=0.0))
        response = await http.post(f"{url}/chat/completions", json=CHAT)
        relay.close("a")
    assert response.status_code == 502
    assert [turn.error for turn in turns] == ["connection: ClientConnectorError"]


async def test_who_is_over_is_refused(model: FakeModel) -> None:
    async with relaying(model.url, []) as (relay, http):
        url = relay.open(SessionRecord(session="a", arrival_s=0.0))
        relay.close("a")
        response = await http.post(f"{url}/chat/completions", json=CHAT)
        assert response.status_code == 404
        assert model.count("POST", "/v1/chat/completions") == 0


async def test_other_routes_are_no_turns(model: FakeModel) -> None:
    turns: list[TurnRecord] = []
    async with relaying(model.url, turns) as (relay, http):
        url = relay.open(SessionRecord(session="a", arrival_s=0.0))
        models = await http.get(f"{url}/models")
        relay.close("a")
    assert msgspec.json.decode(models.content)["data"]
    assert turns == []
