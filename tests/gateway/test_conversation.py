"""One connection to an agent that a script plays."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.conversation import Conversation, KeepAlive, LinkBroken
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Frame, FrameError, Op
from tests.gateway.fake_agent import FakeAgent, ok, until

NEVER = KeepAlive(silence_s=3600)


@pytest.fixture
async def agent() -> AsyncIterator[FakeAgent]:
    agent = FakeAgent()
    yield agent
    await agent.close()


@pytest.fixture
async def conversation(agent: FakeAgent) -> AsyncIterator[Conversation]:
    conversation = Conversation(await agent.connect(), NEVER)
    yield conversation
    await conversation.close()
    assert conversation.in_flight == 0


async def test_answers_come_in_any_order(agent: FakeAgent, conversation: Conversation) -> None:
    """A long poll does not hold up what was asked after it."""
    first = asyncio.Event()

    async def answer(frame: Frame) -> Frame:
        if frame.header["exec"] == "slow":
            await first.wait()
        return ok(exec=frame.header["exec"], payload=frame.payload)

    agent.answers[Op.WAIT] = answer
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(conversation.ask(Op.WAIT, {"exec": "slow"}))
        fast = await conversation.ask(Op.WAIT, {"exec": "fast"})
        assert fast.header["exec"] == "fast"
        assert not slow.done()
        first.set()
    assert slow.result().header["exec"] == "slow"


async def test_payload_travels_both_ways(agent: FakeAgent, conversation: Conversation) -> None:
    """As it is, at its largest."""
    data = bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256)

    async def echo(frame: Frame) -> Frame:
        return ok(frame.payload)

    agent.answers[Op.STDIN] = echo
    assert (await conversation.ask(Op.STDIN, {}, data)).payload == data


async def test_too_large_is_refused_before_it_is_sent(agent: FakeAgent, conversation: Conversation) -> None:
    """And the connection serves on."""
    agent.on(Op.STDIN, ok())
    with pytest.raises(FrameError):
        await conversation.ask(Op.STDIN, {}, bytes(MAX_PAYLOAD_BYTES + 1))
    assert (await conversation.ask(Op.STDIN, {})).header["ok"]


async def test_break_tells_all_who_wait_and_all_who_come(
    agent: FakeAgent, conversation: Conversation
) -> None:
    """Those whose request went out cannot know what came of it; the others can."""
    agent.is_mute = True

    async def ask() -> LinkBroken:
        with pytest.raises(LinkBroken) as broken:
            await conversation.ask(Op.WAIT, {})
        return broken.value

    async with asyncio.TaskGroup() as tasks:
        asks = [tasks.create_task(ask()) for _ in range(3)]
        await until(lambda: len(agent.asked) == 3)
        agent.cut()
    assert [each.result().was_sent for each in asks] == [True] * 3
    assert not (await ask()).was_sent
    assert "connection" in await conversation.until_broken()


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff" * 8, b"\0\0\0\x02\0\0\0\0[]", b"\0\0\0\x02\0\0\0\0{x", b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["too large", "no object", "no JSON", "another protocol"],
)
async def test_what_is_no_frame_breaks_it(
    agent: FakeAgent, conversation: Conversation, nonsense: bytes
) -> None:
    """Nothing after it can be understood."""
    agent.send(nonsense)
    async with asyncio.timeout(20):
        await conversation.until_broken()


@pytest.mark.parametrize("header", [b'{"id":[]}', b'{"id":99}', b'{"id":null}', b"{}"])
async def test_answers_that_nobody_asked_for_are_let_go(
    agent: FakeAgent, conversation: Conversation, header: bytes
) -> None:
    """Whatever id they bear."""
    agent.send(len(header).to_bytes(4, "big") + bytes(4) + header)
    agent.on(Op.LIST, ok())
    assert (await conversation.ask(Op.LIST, {})).header["ok"]


async def test_cancelled_caller_is_told_to_the_agent(agent: FakeAgent, conversation: Conversation) -> None:
    """So that it does not work for nobody."""
    agent.is_mute = True
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(conversation.ask(Op.WAIT, {"exec": "a"}))
        await until(lambda: agent.ops() == [Op.WAIT])
        waiting.cancel()
    await until(lambda: agent.ops() == [Op.WAIT, Op.CANCEL])
    assert agent.asked[1].header["request"] == agent.asked[0].header["id"]
    assert conversation.in_flight == 0


async def test_agent_that_does_not_read_holds_writers_back(
    agent: FakeAgent, conversation: Conversation
) -> None:
    """What was given up before it could be written is never sent, nor cancelled."""
    agent.hears.clear()
    agent.on(Op.STDIN, ok())
    await asyncio.sleep(0)
    async with asyncio.TaskGroup() as tasks:
        asks = [
            tasks.create_task(conversation.ask(Op.STDIN, {"n": n}, bytes(MAX_PAYLOAD_BYTES)))
            for n in range(16)
        ]
        await asyncio.sleep(0.05)
        sent = conversation.in_flight
        assert 0 < sent < len(asks) / 2
        for each in asks[8:]:
            each.cancel()
        agent.hears.set()
    assert [frame.header.get("n") for frame in agent.asked] == list(range(8))


async def test_silence_is_broken_by_a_question(agent: FakeAgent) -> None:
    """And any answer to it will do."""
    conversation = Conversation(await agent.connect(), KeepAlive(silence_s=0.01, answer_s=20))
    await until(lambda: agent.ops()[:3] == [Op.LOOK] * 3)
    agent.on(Op.LIST, ok())
    assert (await conversation.ask(Op.LIST, {})).header["ok"]
    await conversation.close()


async def test_no_answer_to_it_is_a_break(agent: FakeAgent) -> None:
    """A host that was switched off says no goodbye."""
    agent.is_mute = True
    conversation = Conversation(await agent.connect(), KeepAlive(silence_s=0.01, answer_s=0.05))
    with pytest.raises(LinkBroken, match="did not answer"):
        await conversation.ask(Op.WAIT, {})
    await conversation.close()


async def test_agent_that_takes_nothing_is_a_break_too(agent: FakeAgent) -> None:
    """The question cannot even be sent."""
    agent.hears.clear()
    conversation = Conversation(await agent.connect(), KeepAlive(silence_s=0.05, answer_s=0.05))
    payload = bytes(MAX_PAYLOAD_BYTES)
    async with asyncio.timeout(20):
        results = await asyncio.gather(
            *(conversation.ask(Op.STDIN, {}, payload) for _ in range(8)), return_exceptions=True
        )
    assert {type(each) for each in results} == {LinkBroken}
    assert {each.was_sent for each in results if isinstance(each, LinkBroken)} == {True, False}
    await conversation.close()
