"""The first words on a new connection to an agent: hello, and whether this agent is to stay.

Owns which agents we work with. An agent of another build than ours is asked to retire, which it does when it
runs nothing, and the transport then starts ours; else it serves on as it is, if we have a version of the
protocol in common. One build is sent home once: two gateways of different builds on one host must not do that
to each other's agents for ever.
"""

from typing import Any

import msgspec

from gateway.conversation import Conversation
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.wire import VERSION, Fault, Frame, Op
from gateway.protocol import HostCapabilities

_MAX_BUILDS = 64
"""Builds that retired, remembered; more come by in no lifetime of a gateway."""


class Unsuitable(Exception):
    """We cannot work with the agent that is there; the message says why."""


class Hello(msgspec.Struct, frozen=True):
    """The agent's introduction."""

    version: int
    agent: str
    """Digest of its program."""
    instance: str
    """Another one means that it was started again since, and no longer knows what ran."""
    boot_id: str | None = None
    capabilities: HostCapabilities | None = None
    """None where what it says of them makes no sense to us."""


class Introduction:
    """Of one gateway to one host, over all its connections."""

    def __init__(self, gateway: str, build: str | None = None, isolation: Isolation | None = None) -> None:
        """``gateway``: our name. ``build``: digest of the agent that the transport would start; None: any
        will do. ``isolation``: what the agent is to keep our commands to."""
        self._isolation = isolation or Isolation()
        self._gateway = gateway
        self._build = build
        self._retired: set[str] = set()

    async def meet(self, conversation: Conversation) -> Hello | None:
        """None: the agent retired, and another will be in its place. Raises Unsuitable, LinkBroken."""
        answer = await conversation.ask(Op.HELLO, self._words())
        if answer.header.get("ok") is not True:
            if answer.header.get("error") == Fault.NO_COMMON_VERSION:
                theirs = str(answer.header.get("versions"))[:100]
                raise Unsuitable(
                    f"the agent there speaks versions {theirs}, we speak {VERSION}; end it there"
                )
            raise Unsuitable(f"the agent there refused us: {str(answer.header.get('message'))[:300]}")
        hello = _hello(answer)
        if hello.agent != self._build and await self._did_retire(conversation, hello.agent):
            return None
        if not _heeds(hello, self._isolation):
            raise Unsuitable(
                "the agent there is of another build, which does not know session_uids and sandbox, and still"
                " runs commands; end them, or it"
            )
        return hello

    def _words(self) -> dict[str, Any]:
        words: dict[str, Any] = {"gateway": self._gateway, "versions": [VERSION]}
        if self._isolation.is_any:
            words["isolation"] = self._isolation.on_wire()
        return words

    async def _did_retire(self, conversation: Conversation, build: str) -> bool:
        if self._build is None or build in self._retired:
            return False
        answer = await conversation.ask(Op.RETIRE, {"end_running": False})
        if answer.header.get("did_retire") is not True:
            return False
        if len(self._retired) < _MAX_BUILDS:
            self._retired.add(build)
        return True


def _heeds(hello: Hello, isolation: Isolation) -> bool:
    """What we demand holds, or the agent refuses commands. One that never heard of it would run them."""
    can = hello.capabilities
    if not isolation.is_any or (can is not None and can.refuses_commands is not None):
        return True
    has_uids = isolation.session_uids is None or (can is not None and can.isolates_sessions)
    return has_uids and can is not None and can.sandbox == isolation.sandbox


def _hello(answer: Frame) -> Hello:
    fields = {**answer.header, "capabilities": _capabilities(answer.header.get("capabilities"))}
    try:
        return msgspec.convert(fields, Hello)
    except msgspec.ValidationError as error:
        raise Unsuitable(f"the hello of the agent there makes no sense: {error}") from error


def _capabilities(value: Any) -> HostCapabilities | None:
    """An agent of another build may know others. That is no reason to do without it."""
    try:
        return msgspec.convert(value, HostCapabilities)
    except msgspec.ValidationError:
        return None
