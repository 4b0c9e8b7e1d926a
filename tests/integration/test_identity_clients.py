"""The official clients' tool loops, with no ids of their own: each turn joins its session, none another's."""

import asyncio

import pytest

from tests.integration.agent_loops import (
    CALLS,
    Loop,
    Toolsmith,
    chat_loop,
    messages_loop,
    responses_chain,
    responses_history,
)
from tests.integration.byte_backend import ByteBackend, Pause
from tests.integration.comparison import Paths
from tests.integration.http_messages import Message

LOOPS: dict[str, Loop] = {
    "chat": chat_loop,
    "responses, chained": responses_chain,
    "responses, whole history": responses_history,
    "messages": messages_loop,
}
TURNS = CALLS + 1


def serve(backend: ByteBackend, toolsmith: Toolsmith) -> None:
    backend.answer("POST", "/v1/chat/completions", lambda request: (Pause(), *toolsmith.chat(request)))
    backend.answer("POST", "/v1/responses", lambda request: (Pause(), *toolsmith.responses(request)))
    backend.answer("POST", "/v1/messages", lambda request: (Pause(), *toolsmith.messages(request)))


def turns_by_session(paths: Paths) -> dict[bytes, list[tuple[int, bytes]]]:
    """What the clients were told: turn number and decision of every answer."""
    told: dict[bytes, list[tuple[int, bytes]]] = {}
    for _, answer in paths.proxied.exchanges():
        of = dict(answer.headers)
        told.setdefault(of[b"x-mars-session"], []).append((int(of[b"x-mars-turn"]), of[b"x-mars-decision"]))
    return told


def tags_by_session(backend: ByteBackend) -> dict[bytes, list[Message]]:
    """What the backend was told."""
    tagged: dict[bytes, list[Message]] = {}
    for request in backend.requests:
        tagged.setdefault(request.header(b"x-session-id") or b"", []).append(request)
    return tagged


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("counts_ids", [False, True], ids=["random ids", "counted ids"])
async def test_a_tool_loop_is_one_session(paths: Paths, loop: str, counts_ids: bool) -> None:
    serve(paths.backend, Toolsmith(counts_ids=counts_ids))
    assert await LOOPS[loop](paths.proxied.url, "Fix the bug.") == TURNS
    [told] = turns_by_session(paths).values()
    assert [turn for turn, _ in told] == [1, 2, 3, 4]
    assert [decision for _, decision in told] == [b"new", *[b"continuation"] * 3]
    [requests] = tags_by_session(paths.backend).values()
    first, *rest = [int(request.header(b"x-vllm-priority") or 0) for request in requests]
    assert all(priority < first for priority in rest)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("counts_ids", [False, True], ids=["random ids", "counted ids"])
async def test_the_same_task_eight_times_at_once_is_eight_sessions(
    paths: Paths, loop: str, counts_ids: bool
) -> None:
    """Answers differ only by their ids, if by anything; without ids, agents in the same state may be taken
    for each other, which changes nothing: each session still gets each of its turns once.
    """
    serve(paths.backend, Toolsmith(counts_ids=counts_ids))
    url = paths.proxied.url
    assert await asyncio.gather(*(LOOPS[loop](url, "Fix the bug.") for _ in range(8))) == [TURNS] * 8
    told = turns_by_session(paths)
    assert len(told) == 8
    assert [sorted(turn for turn, _ in turns) for turns in told.values()] == [[1, 2, 3, 4]] * 8


async def test_all_loops_at_once_stay_apart(paths: Paths) -> None:
    serve(paths.backend, Toolsmith())
    url = paths.proxied.url
    tasks = [(loop, f"Fix bug {number}.") for loop in LOOPS.values() for number in range(3)]
    await asyncio.gather(*(loop(url, task) for loop, task in tasks))
    tagged = tags_by_session(paths.backend)
    assert len(tagged) == len(tasks)
    assert all(len(requests) == TURNS for requests in tagged.values())
    assert all(len({request.target for request in requests}) == 1 for requests in tagged.values())
