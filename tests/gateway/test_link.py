"""The way to an agent that a script plays: up, broken, up again."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.conversation import KeepAlive, LinkBroken
from gateway.host_agent.wire import Op
from gateway.introduction import Introduction
from gateway.link import Link, LinkSettings, LinkState
from gateway.stream_channel import StreamChannel
from tests.gateway.fake_agent import FakeAgent, ok, until


class Waits:
    """Instead of sleeping between attempts: keeps what was to be waited."""

    def __init__(self) -> None:
        self.all_s: list[float] = []
        self.after: Callable[[int], None] = lambda attempts: None

    async def sleep(self, wait_s: float) -> None:
        self.all_s.append(wait_s)
        self.after(len(self.all_s))
        await asyncio.sleep(0)


@pytest.fixture
async def agent() -> AsyncIterator[FakeAgent]:
    agent = FakeAgent()
    yield agent
    await agent.close()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def link(agent: FakeAgent, waits: Waits) -> AsyncIterator[Link]:
    settings = LinkSettings(keep_alive=KeepAlive(silence_s=3600), max_in_flight=2)
    link = Link("h", agent, Introduction("gw"), settings=settings, rng=lambda: 1.0, sleep=waits.sleep)
    yield link
    await link.close()


async def test_comes_up_and_answers(agent: FakeAgent, link: Link) -> None:
    """After it said hello."""
    agent.on(Op.LIST, ok(execs=[]))
    assert link.state is LinkState.CONNECTING
    link.open()
    await link.until_up()
    assert (await link.ask(Op.LIST, {})).header["execs"] == []
    assert link.hello is not None
    assert link.hello.capabilities is not None
    assert (link.hello.agent, link.generation, link.not_up_s) == ("build-1", 1, 0.0)
    assert agent.ops() == [Op.HELLO, Op.LIST]


async def test_before_it_is_up_nothing_is_sent(link: Link) -> None:
    """Whoever asks knows that."""
    with pytest.raises(LinkBroken) as broken:
        await link.ask(Op.LIST, {})
    assert not broken.value.was_sent


async def test_waits_double_up_to_a_bound(agent: FakeAgent, link: Link, waits: Waits) -> None:
    """While there is no way; the reason is there to be read, and the state says down."""
    agent.refusal = "no route to host"

    def after(attempts: int) -> None:
        assert (link.state, link.trouble) == (LinkState.DOWN, "no route to host")
        if attempts == 12:
            agent.refusal = None

    waits.after = after
    link.open()
    await link.until_up()
    assert waits.all_s == [0.1 * 2**n for n in range(8)] + [15.0] * 4


async def test_chance_shortens_waits_to_half_at_most(agent: FakeAgent, waits: Waits) -> None:
    """Gateways that lost the same host do not come back in step."""
    agent.refusal = "no"
    waits.after = lambda attempts: setattr(agent, "refusal", None if attempts == 3 else "no")
    link = Link("h", agent, Introduction("gw"), rng=lambda: 0.0, sleep=waits.sleep)
    link.open()
    await link.until_up()
    assert waits.all_s == [0.05, 0.1, 0.2]
    await link.close()


async def test_comes_back_after_a_break(agent: FakeAgent, link: Link) -> None:
    """Who waited for an answer is told; the states can be watched."""
    states: list[LinkState] = []
    link.watch(states.append)
    link.open()
    await link.until_up()
    agent.is_mute = True
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_broken(link))
        await until(lambda: Op.WAIT in agent.ops())
        agent.is_mute = False
        agent.cut()
    assert waiting.result().was_sent
    await until(lambda: link.generation == 2)
    assert states == [LinkState.UP, LinkState.CONNECTING, LinkState.UP]
    assert link.hello is not None
    assert link.hello.instance == "i2"


async def _broken(link: Link) -> LinkBroken:
    with pytest.raises(LinkBroken) as broken:
        await link.ask(Op.WAIT, {})
    return broken.value


async def test_what_belongs_to_a_connection_is_not_asked_on_another(agent: FakeAgent, link: Link) -> None:
    """A handle may mean something else there."""
    agent.on(Op.ARCHIVE_READ, ok())
    link.open()
    await link.until_up()
    assert (await link.ask(Op.ARCHIVE_READ, {}, generation=1)).header["ok"]
    agent.cut()
    await until(lambda: link.generation == 2)
    with pytest.raises(LinkBroken) as broken:
        await link.ask(Op.ARCHIVE_READ, {}, generation=1)
    assert not broken.value.was_sent


async def test_one_that_breaks_at_once_is_not_made_again_at_once(
    agent: FakeAgent, link: Link, waits: Waits
) -> None:
    """An agent that dies of every hello would be started a thousand times a second."""
    link.watch(lambda state: agent.cut() if state is LinkState.UP else None)
    link.open()
    await until(lambda: len(waits.all_s) >= 6)
    assert waits.all_s[:6] == [0.1 * 2**n for n in range(6)]


async def test_requests_under_way_are_bounded(agent: FakeAgent, link: Link) -> None:
    """One more waits its turn, unsent."""
    link.open()
    await link.until_up()
    agent.is_mute = True
    async with asyncio.TaskGroup() as tasks:
        asks = [tasks.create_task(link.ask(Op.WAIT, {"n": n})) for n in range(3)]
        await until(lambda: agent.ops().count(Op.WAIT) == 2)
        asks[0].cancel()
        await until(lambda: agent.ops().count(Op.WAIT) == 3)
        for each in asks:
            each.cancel()


async def test_close_tells_who_waits(agent: FakeAgent, link: Link) -> None:
    """And leaves no connection."""
    link.open()
    await link.until_up()
    agent.is_mute = True
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_broken(link))
        await until(lambda: Op.WAIT in agent.ops())
        await link.close()
    assert waiting.result().trouble == "closed"


async def test_connecting_takes_only_so_long(agent: FakeAgent, waits: Waits) -> None:
    """To an agent that says nothing, for one."""
    agent.is_mute = True
    settings = LinkSettings(connect_timeout_s=0.05)
    link = Link("h", agent, Introduction("gw"), settings=settings, sleep=waits.sleep)
    link.open()
    await until(lambda: len(waits.all_s) > 1)
    assert link.trouble == "no connection within 0.05 s"
    agent.is_mute = False
    await link.until_up()
    await link.close()


class Faulty:
    """A transport with a mistake in it."""

    def __init__(self, agent: FakeAgent) -> None:
        self._agent = agent
        self._attempts = 0

    async def connect(self) -> StreamChannel:
        self._attempts += 1
        if self._attempts == 1:
            raise ZeroDivisionError
        return await self._agent.connect()

    async def close(self) -> None:
        pass


async def test_mistake_of_ours_is_logged_and_not_the_end(
    agent: FakeAgent, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    """The host would be gone until the gateway is started again."""
    link = Link("h", Faulty(agent), Introduction("gw"), sleep=waits.sleep)
    link.open()
    await link.until_up()
    assert "ZeroDivisionError" in caplog.text
    await link.close()
