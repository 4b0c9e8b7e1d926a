"""Where sessions go, and what becomes of them."""

import asyncio
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.host import EndedBy, HostFault, HostLost, Reading
from gateway.limits import Limits
from gateway.protocol import ExecState, SessionRequest
from gateway.session_record import host_name
from tests.gateway.fake_gateway import gateway_on, run, session_of, until
from tests.gateway.fake_host import FakeHost


async def refusal(awaitable: Any) -> tuple[int, str, str | None]:
    with pytest.raises(Refusal) as refused:
        await awaitable
    return refused.value.status, refused.value.code, refused.value.param


async def test_host_by_name_by_labels_and_by_parent() -> None:
    one, two = FakeHost("one"), FakeHost("two")
    labels = {"one": {"arch": "x86"}, "two": {"arch": "arm"}}
    async with gateway_on(one, two, labels=labels) as gateway:
        assert (await session_of(gateway, "a", host="two")).host == "two"
        assert (await session_of(gateway, "b", selector={"arch": "arm"})).host == "two"
        assert (await session_of(gateway, "c", parent="a")).host == "two"
        assert gateway.sessions.family(gateway.sessions.get("", "c")) == ("", "a")
        assert {host.name: host.sessions for host in gateway.hosts.statuses()} == {"one": 0, "two": 3}
        assert await refusal(session_of(gateway, "d", host="three")) == (400, "invalid_value", "host")
        assert await refusal(session_of(gateway, "d", selector={"arch": "z"})) == (
            400,
            "invalid_value",
            "selector",
        )
        gateway.hosts.drain("two", is_draining=True)
        assert await refusal(session_of(gateway, "d", host="two")) == (503, "no_host", None)
        assert (await session_of(gateway, "e")).host == "one"


async def test_a_ring_of_parents_ends() -> None:
    async with gateway_on(FakeHost()) as gateway:
        await session_of(gateway, "a", parent="b")
        await session_of(gateway, "b", parent="a")
        assert gateway.sessions.family(gateway.sessions.get("", "a")) in (("", "a"), ("", "b"))


async def test_put_again_replaces_settings_and_moves_nothing() -> None:
    one, two = FakeHost("one"), FakeHost("two")
    async with gateway_on(one, two) as gateway:
        session = await session_of(gateway, host="two")
        again, is_new = await gateway.sessions.put("", "s", SessionRequest(env={"A": "1"}))
        assert again is session
        assert (is_new, again.host, again.settings.env) == (False, "two", {"A": "1"})
        assert await refusal(session_of(gateway, host="one")) == (409, "session_elsewhere", "host")
        await until(lambda: two.sessions[session.name].record["settings"] == {"env": {"A": "1"}})


async def test_two_at_once_create_one() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        puts = [gateway.sessions.put("", "s", SessionRequest()) for _ in range(5)]
        answers = await asyncio.gather(*puts)
        assert len({session for session, _ in answers}) == 1
        assert host.calls.count("put_session") < 6
        assert len(gateway.sessions) == 1


async def test_caller_that_leaves_while_it_is_created() -> None:
    async with gateway_on(FakeHost()) as gateway:
        task = asyncio.get_running_loop().create_task(session_of(gateway))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: gateway.sessions.find("", "s") is not None)


@pytest.mark.parametrize(
    ("settings", "param"),
    [({"env": {"A=B": "c"}}, "env"), ({"cwd": "../x"}, "cwd"), ({"cwd": "a\0"}, "cwd")],
)
async def test_bad_settings_are_named(settings: dict[str, Any], param: str) -> None:
    async with gateway_on(FakeHost()) as gateway:
        assert await refusal(session_of(gateway, **settings)) == (400, "invalid_value", param)


async def test_host_that_cannot_make_a_workspace() -> None:
    class Full(FakeHost):
        async def put_session(self, name: str, record: Any) -> Any:
            raise HostFault("no_space", "the disk is full")

    async with gateway_on(Full()) as gateway:
        assert await refusal(session_of(gateway)) == (503, "no_workspace", None)
        assert len(gateway.sessions) == 0


async def test_sessions_are_bounded_also_while_they_are_made() -> None:
    async with gateway_on(FakeHost(), limits=Limits(slots=1, max_sessions=2)) as gateway:
        puts = [gateway.sessions.put("", name, SessionRequest()) for name in "abc"]
        answers = await asyncio.gather(*puts, return_exceptions=True)
        (refused,) = (answer for answer in answers if isinstance(answer, Refusal))
        assert (refused.status, refused.code) == (429, "too_many_sessions")


async def test_ending_stops_commands_and_then_removes() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        session = await session_of(gateway)
        record = await run(gateway)
        ends = [gateway.sessions.end(session, "it was deleted") for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*ends), 20)
        assert (record.state, record.reason) == (ExecState.CANCELLED, "it was deleted")
        assert host.removed == [session.name]
        assert host.calls.index("stop") < host.calls.index("remove_session")


@pytest.mark.slow
async def test_host_that_goes_while_a_session_is_ended_does_not_hold_it() -> None:
    class Deaf(FakeHost):
        """Answers no stop, and says of nothing that it is over."""

        async def stop(self, exec_id: str, grace_s: float) -> None:
            await asyncio.Event().wait()

        async def observe(self) -> Reading:
            if self.state == "down":
                raise HostLost("no connection")
            return await super().observe()

    host = Deaf()
    async with gateway_on(host, limits=Limits(slots=2, drain_hosts_s=0)) as gateway:
        session = await session_of(gateway)
        await run(gateway)
        ending = asyncio.get_running_loop().create_task(gateway.sessions.end(session, "it was deleted"))
        await asyncio.sleep(0.05)
        assert not ending.done()
        host.state = "down"
        await asyncio.wait_for(ending, 20)
        assert gateway.sessions.find("", "s") is None
        (exec_id,) = host.running()
        host.finish(exec_id, EndedBy.STOP, -15)


async def test_expiry_by_age_and_by_idleness() -> None:
    now = 100.0
    host = FakeHost()
    async with gateway_on(host, clock=lambda: now, housekeeping_s=0.01) as gateway:
        await session_of(gateway, "old", ttl_s=50)
        await session_of(gateway, "idle", idle_ttl_s=20)
        await session_of(gateway, "busy", idle_ttl_s=20)
        record = await run(gateway, session="busy")
        now += 30
        await until(lambda: gateway.sessions.find("", "idle") is None)
        assert gateway.sessions.find("", "busy") is not None
        assert record.state is ExecState.RUNNING
        now += 30
        await until(lambda: gateway.sessions.find("", "old") is None)


def test_names_on_hosts_keep_tenants_apart() -> None:
    assert host_name("a", "s") != host_name("b", "s")
    assert host_name("a", "s") == host_name("a", "s")
    assert host_name("a", "s").startswith("s.")
