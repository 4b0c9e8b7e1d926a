"""Which agent we stay with."""

from collections.abc import AsyncIterator

import pytest

from gateway.conversation import Conversation, KeepAlive
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.wire import VERSION, Fault, Frame, Op
from gateway.introduction import Hello, Introduction, Unsuitable
from tests.gateway.fake_agent import CAPABILITIES, FakeAgent, fault, ok


@pytest.fixture
async def agent() -> AsyncIterator[FakeAgent]:
    agent = FakeAgent()
    agent.build = "theirs"
    yield agent
    await agent.close()


async def meet(introduction: Introduction, agent: FakeAgent) -> Hello | None:
    conversation = Conversation(await agent.connect(), KeepAlive())
    try:
        return await introduction.meet(conversation)
    finally:
        await conversation.close()


def hello(**changes: object) -> Frame:
    fields = {"version": VERSION, "agent": "theirs", "instance": "i", "capabilities": CAPABILITIES}
    return ok(**{**fields, **changes})


async def test_we_say_who_we_are(agent: FakeAgent) -> None:
    """And what we can speak."""
    assert await meet(Introduction("gw"), agent) is not None
    assert agent.asked[0].header == {"id": 1, "op": Op.HELLO, "gateway": "gw", "versions": [VERSION]}


async def test_agent_of_our_build_stays(agent: FakeAgent) -> None:
    """It is not even asked."""
    assert await meet(Introduction("gw", "theirs"), agent) is not None
    assert agent.ops() == [Op.HELLO]


async def test_idle_agent_of_another_build_retires(agent: FakeAgent) -> None:
    """Once: should it be there again, somebody else wants it."""
    agent.on(Op.RETIRE, ok(did_retire=True))
    introduction = Introduction("gw", "ours")
    assert await meet(introduction, agent) is None
    assert agent.asked[1].header["end_running"] is False
    assert await meet(introduction, agent) is not None
    assert agent.ops().count(Op.RETIRE) == 1


DEMANDS = Isolation((200_000, 265_535), "bwrap")
HOLDS = {**CAPABILITIES, "isolates_sessions": True, "sandbox": "bwrap"}


async def test_an_agent_is_told_what_it_is_to_keep_commands_to(agent: FakeAgent) -> None:
    agent.on(Op.HELLO, hello(capabilities=HOLDS))
    met = await meet(Introduction("gw", "theirs", DEMANDS), agent)
    assert agent.asked[0].header["isolation"] == {"session_uids": [200_000, 265_535], "sandbox": "bwrap"}
    assert met is not None
    assert met.capabilities is not None
    assert (met.capabilities.isolates_sessions, met.capabilities.sandbox) == (True, "bwrap")


async def test_an_agent_that_refuses_commands_is_one_to_stay_with(agent: FakeAgent) -> None:
    """It says why, and what runs there from before can be asked for."""
    agent.on(Op.HELLO, hello(capabilities={**CAPABILITIES, "refuses_commands": "sandbox: no bwrap"}))
    met = await meet(Introduction("gw", "theirs", DEMANDS), agent)
    assert met is not None
    assert met.capabilities is not None
    assert met.capabilities.refuses_commands == "sandbox: no bwrap"


@pytest.mark.parametrize(
    "capabilities",
    [None, CAPABILITIES, {**HOLDS, "sandbox": "none"}, {**HOLDS, "isolates_sessions": False}],
    ids=["tells nothing", "never heard of it", "only users", "only sandboxes"],
)
async def test_an_agent_that_would_run_commands_with_less_is_none(
    agent: FakeAgent, capabilities: object
) -> None:
    agent.on(Op.HELLO, hello(capabilities=capabilities))
    with pytest.raises(Unsuitable, match="does not know session_uids and sandbox"):
        await meet(Introduction("gw", "theirs", DEMANDS), agent)


async def test_busy_agent_of_another_build_stays(agent: FakeAgent) -> None:
    """Its commands are worth more than our build. It is asked again on the next connection."""
    agent.on(Op.RETIRE, ok(did_retire=False))
    introduction = Introduction("gw", "ours")
    assert await meet(introduction, agent) is not None
    assert await meet(introduction, agent) is not None
    assert agent.ops().count(Op.RETIRE) == 2


async def test_agent_that_we_cannot_talk_to(agent: FakeAgent) -> None:
    """It has closed its ears: somebody has to know why there is no host."""
    agent.on(Op.HELLO, fault(Fault.NO_COMMON_VERSION, versions=[7, 8]))
    with pytest.raises(Unsuitable, match=r"speaks versions \[7, 8\], we speak 1"):
        await meet(Introduction("gw", "ours"), agent)


@pytest.mark.parametrize("changes", [{"version": "1"}, {"agent": None}, {"instance": 7}, {"boot_id": []}])
async def test_hello_of_nonsense(agent: FakeAgent, changes: dict[str, object]) -> None:
    """Is refused with the name of the field."""
    agent.on(Op.HELLO, hello(**changes))
    with pytest.raises(Unsuitable, match=next(iter(changes))):
        await meet(Introduction("gw"), agent)


@pytest.mark.parametrize("capabilities", [None, 7, {}, {**CAPABILITIES, "can_limit_cpu": "yes"}])
async def test_capabilities_that_we_do_not_understand_are_unknown(
    agent: FakeAgent, capabilities: object
) -> None:
    """An older agent may know fewer."""
    agent.on(Op.HELLO, hello(capabilities=capabilities))
    met = await meet(Introduction("gw"), agent)
    assert met is not None
    assert met.capabilities is None


async def test_refusal_is_told_in_the_agents_words(agent: FakeAgent) -> None:
    """A few of them."""
    agent.on(Op.HELLO, Frame({"ok": False, "error": Fault.INTERNAL, "message": "x" * 10_000}))
    with pytest.raises(Unsuitable, match="refused us: xxx") as refusal:
        await meet(Introduction("gw"), agent)
    assert len(str(refusal.value)) < 400
