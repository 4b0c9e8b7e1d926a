"""Whose a terminal is, and which shell is its own."""

import asyncio
from typing import Any, cast

import pytest

from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.protocol import ExecRequest, ExecState
from gateway.session_record import Session
from gateway.terminals import Terminals


class Record:
    def __init__(self, state: ExecState = ExecState.RUNNING) -> None:
        self.state = state


class Place:
    tenant, id = "t", "s"


SESSION = cast(Session, Place())
PLACE = ("t", "s", "bash")


class FakeSubmission:
    """Keys of earlier shells are known to it, as they are to a store."""

    def __init__(self) -> None:
        self.by_key: dict[str, Record | Refusal] = {}
        self.asked: list[str] = []

    async def submit(self, session: Session, request: ExecRequest, idempotency_key: str | None) -> Exec:
        assert idempotency_key is not None
        self.asked.append(idempotency_key)
        found = self.by_key.setdefault(idempotency_key, Record())
        if isinstance(found, Refusal):
            raise found
        return cast(Exec, found)


def terminals(submission: Any, leaving_s: float = 0.0) -> Terminals:
    return Terminals(submission, timeout_s=100, max_output_bytes=100, leaving_s=leaving_s)


async def test_one_holder() -> None:
    held = terminals(FakeSubmission())
    first = await held.hold(PLACE, takes_over=False)
    assert first is not None
    assert await held.hold(PLACE, takes_over=False) is None
    assert await held.hold(("t", "s", "sh"), takes_over=False) is not None
    second = await held.hold(PLACE, takes_over=True)
    assert first.taken.is_set()
    held.leave(PLACE, first)
    assert await held.hold(PLACE, takes_over=False) is None, "who was taken over gives nothing back"
    assert second is not None
    held.leave(PLACE, second)
    assert await held.hold(PLACE, takes_over=False) is not None


async def test_one_who_is_leaving_is_waited_for() -> None:
    held = terminals(FakeSubmission(), leaving_s=60)
    first = await held.hold(PLACE, takes_over=False)
    assert first is not None
    async with asyncio.TaskGroup() as tasks:
        gone, second, third = (tasks.create_task(held.hold(PLACE, takes_over=False)) for _ in range(3))
        await asyncio.sleep(0)
        gone.cancel()
        held.leave(PLACE, first)
        hold = await second
        assert hold is not None
        assert not third.done()
        held.leave(PLACE, hold)
        assert await third is not None
    assert len(held) == 1


async def test_a_gateway_that_comes_back_finds_the_shell() -> None:
    submission = FakeSubmission()
    before = await terminals(submission).shell(SESSION, "bash")
    assert await terminals(submission).shell(SESSION, "bash") is before


@pytest.mark.parametrize(
    "spent",
    [
        Record(ExecState.EXITED),
        Record(ExecState.LOST),
        Refusal(410, "exec_forgotten", "gone"),
        Refusal(409, "idempotency_key_reused", "other settings then"),
    ],
)
async def test_a_shell_that_is_over_has_a_successor(spent: Record | Refusal) -> None:
    submission = FakeSubmission()
    mine = terminals(submission)
    first = await mine.shell(SESSION, "bash")
    submission.by_key[submission.asked[0]] = spent
    second = await mine.shell(SESSION, "bash")
    assert (second is not first, len(set(submission.asked))) == (True, 2)
    submission.asked.clear()
    assert await mine.shell(SESSION, "bash") is second
    assert len(submission.asked) == 1, "it begins where it was"


async def test_other_refusals_are_the_callers() -> None:
    class Full(FakeSubmission):
        async def submit(self, *_: Any) -> Exec:
            raise Refusal(429, "queue_full", "full")

    with pytest.raises(Refusal, match="full"):
        await terminals(Full()).shell(SESSION, "bash")


async def test_keys_are_no_clients() -> None:
    submission = FakeSubmission()
    await terminals(submission).shell(SESSION, "bash")
    assert "\n" in submission.asked[0]
