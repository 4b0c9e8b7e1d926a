"""What a gateway finds on its hosts: of the gateway before it, and of the time when a host was gone."""

import asyncio
import base64
from dataclasses import replace

import pytest

from gateway.errors import Refusal
from gateway.host import EndedBy, HostSession
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES
from gateway.limits import Limits
from gateway.notes import SessionNote, read_record
from gateway.protocol import ExecRequest, ExecState, Persist, SessionRequest, StreamName, WorkspaceRequest
from gateway.store import MemoryStore
from tests.gateway.fake_gateway import ended, gateway_on, run, session_of, until
from tests.gateway.fake_host import FakeHost

pytestmark = pytest.mark.slow


class DurableStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__(Limits(), lambda: 0.0)

    @property
    def is_durable(self) -> bool:
        return True


async def test_next_gateway_goes_on_with_what_runs() -> None:
    host = FakeHost()
    async with gateway_on(host, on_stop="keep") as gateway:
        await session_of(gateway, labels={"a": "b"}, env={"X": "y"})
        name = (await run(gateway, "k", cpu=1.5)).id
    assert host.running() == [name]
    async with gateway_on(host) as gateway:
        record = await gateway.execs.get("", name)
        assert (record.state, record.session, record.labels) == (ExecState.RUNNING, "s", {"a": "b"})
        assert gateway.hosts.get("here").queue.used == 1.5
        assert gateway.sessions.get("", "s").settings.env == {"X": "y"}
        assert await run(gateway, "k", cpu=1.5) is record
        with pytest.raises(Refusal, match="another body"):
            await run(gateway, "k", "false")
        host.write(name, b"out")
        host.finish(name, returncode=3)
        await ended(record)
        status = await gateway.execs.status(record)
        assert (status.state, status.exit_code, status.stdout.text) == (ExecState.EXITED, 3, "out")
        assert gateway.hosts.get("here").queue.used == 0
    assert host.starts == [name]


@pytest.mark.parametrize("has_all", [True, False])
async def test_command_whose_gateway_died_before_all_of_its_input_had_come_is_cancelled(
    has_all: bool,
) -> None:
    host = FakeHost()
    async with gateway_on(host, on_stop="keep") as gateway:
        await session_of(gateway)
        data = bytes(MAX_PAYLOAD_BYTES + 10)
        name = (await run(gateway, stdin_b64=base64.b64encode(data).decode())).id
        await until(lambda: len(host.execs[name].stdin) == len(data))
    if not has_all:
        del host.execs[name].stdin[-1:]
    async with gateway_on(host, on_stop="keep") as gateway:
        record = await gateway.execs.get("", name)
        if has_all:
            host.finish(name)
        await ended(record)
        assert record.state is (ExecState.EXITED if has_all else ExecState.CANCELLED)
        assert record.reason == (None if has_all else "its gateway died before all of its input had come")


async def test_next_gateway_answers_for_what_is_over() -> None:
    host = FakeHost()
    async with gateway_on(host, on_stop="keep") as gateway:
        await session_of(gateway)
        name = (await run(gateway, "k")).id
    host.write(name, b"out")
    host.finish(name, returncode=3, run_s=2.5)
    async with gateway_on(host) as gateway:
        record = await run(gateway, "k")
        status = await gateway.execs.status(record)
        assert (record.id, status.exit_code, status.run_s, status.stdout.text) == (name, 3, 2.5, "out")
        assert (await gateway.execs.read(record, StreamName.STDOUT, 1, 10, 0)).data == b"ut"
    assert host.starts == [name]


async def test_host_that_booted_has_lost_what_ran() -> None:
    host = FakeHost()
    async with gateway_on(host, on_stop="keep") as gateway:
        await session_of(gateway)
        name = (await run(gateway)).id
    host.reboot()
    async with gateway_on(host) as gateway:
        status = await gateway.execs.status(await gateway.execs.get("", name))
        assert (status.state, status.exit_code) == (ExecState.LOST, None)


async def test_strangers_on_the_host_are_left_alone() -> None:
    host = FakeHost()
    async with gateway_on(host, on_stop="keep") as gateway:
        await session_of(gateway)
        name = (await run(gateway)).id
    order = replace(host.execs[name].order, record={"somebody": "else"})
    host.execs[name].order = order
    host.sessions["x"] = HostSession("x", "/x", False, {"v": 2})
    async with gateway_on(host) as gateway:
        assert gateway.execs.find(name) is None
        assert len(gateway.sessions) == 1
    assert host.running() == [name]


async def test_keys_wait_until_every_host_was_asked() -> None:
    """Else one that runs on the host that is not back yet would run again."""
    here, away = FakeHost("here"), FakeHost("away")
    async with gateway_on(here, away, on_stop="keep") as gateway:
        await session_of(gateway, "s", host="here")
        await session_of(gateway, "t", host="away")
        name = (await run(gateway, "k", session="t")).id
    away.lose()
    async with gateway_on(here, away) as gateway:
        for session in ("s", "t"):
            with pytest.raises(Refusal) as refused:
                await run(gateway, "k", session=session)
            assert (refused.value.status, refused.value.code) == (503, "adopting")
            assert refused.value.retry_after_s is not None
        with pytest.raises(Refusal) as refused:
            await gateway.execs.get("", name)
        assert refused.value.code == "adopting"
        with pytest.raises(Refusal) as refused:
            await session_of(gateway, "new")
        assert refused.value.code == "adopting"
        assert (await run(gateway)).state is ExecState.RUNNING
        away.come_back()
        await until(lambda: gateway.hosts.are_asked)
        assert (await run(gateway, "k", session="t")).id == name
    assert away.starts == [name]


async def test_a_host_that_stays_away_keeps_keys_busy_for_a_while_only() -> None:
    here, away = FakeHost("here"), FakeHost("away")
    away.lose()
    async with gateway_on(here, away, adoption_timeout_s=0.1) as gateway:
        await until(lambda: gateway.hosts.are_asked)
        await session_of(gateway)
        assert (await run(gateway, "k")).state is ExecState.RUNNING


async def test_what_was_lost_is_stopped_when_its_host_is_back() -> None:
    """The answer that was given stays."""
    host = FakeHost()
    async with gateway_on(host) as gateway:
        await session_of(gateway)
        record = await run(gateway)
        host.lose()
        await ended(record)
        await until(lambda: gateway.hosts.get("here").is_gone)
        host.come_back()
        await until(lambda: not host.running())
        await until(lambda: not gateway.hosts.get("here").is_gone)
        assert (record.state, record.exit_code) == (ExecState.LOST, None)
        assert (await run(gateway)).state is ExecState.RUNNING


async def test_key_in_use_for_another_body_does_not_run_on_the_host_that_has_it() -> None:
    """Its claim was in memory, and its host away for longer than keys waited."""
    host = FakeHost()
    async with gateway_on(host, on_stop="keep") as gateway:
        await session_of(gateway)
        name = (await run(gateway, "k")).id
    (there,) = host.sessions.values()
    host.lose()
    async with gateway_on(host, adoption_timeout_s=0.0) as gateway:
        await until(lambda: gateway.hosts.get("here").is_gone)
        note = read_record(there.record, SessionNote)
        assert note is not None
        gateway.sessions.adopt(gateway.hosts.get("here"), there.name, there.workspace, note)
        session = gateway.sessions.use("", "s")
        other = await gateway.submission.submit(session, ExecRequest(command="false"), "k")
        host.come_back()
        await ended(other)
        assert other.id == name
        assert (other.state, other.run_s(0.0)) == (ExecState.CANCELLED, None)
        assert "another body" in (other.reason or "")
    assert host.starts == [name]


async def test_sessions_of_a_host_that_is_away_are_known_from_the_store() -> None:
    host, store = FakeHost(), DurableStore()
    async with gateway_on(host, store=store, on_stop="keep") as gateway:
        await session_of(gateway, labels={"a": "b"})
        record = await run(gateway, "k")
        done = await run(gateway, "done")
        host.finish(done.id)
        await ended(done)
        await until(lambda: "put_session" in host.calls)
        await asyncio.sleep(0.01)
    host.lose()
    async with gateway_on(host, store=store) as gateway:
        session = gateway.sessions.get("", "s")
        assert (session.host, session.settings.labels) == ("here", {"a": "b"})
        known = await gateway.execs.get("", done.id)
        assert known.state is ExecState.EXITED
        with pytest.raises(Refusal) as refused:
            await run(gateway, "k")
        assert refused.value.code == "adopting"
        host.come_back()
        await until(lambda: gateway.hosts.are_asked)
        assert (await run(gateway, "k")).id == record.id
    assert host.starts == [record.id, done.id]


async def test_session_whose_workspace_its_host_has_lost_is_not_there() -> None:
    """And not there again with an empty one, as if nothing had been in it."""
    host, store = FakeHost(), DurableStore()
    async with gateway_on(host, store=store, on_stop="keep") as gateway:
        await session_of(gateway)
    host.sessions.clear()
    async with gateway_on(host, store=store) as gateway:
        assert gateway.sessions.find("", "s") is None
        assert gateway.hosts.get("here").session_count == 0
        assert await store.sessions() == []
        with pytest.raises(Refusal) as refused:
            gateway.sessions.get("", "s")
        assert refused.value.status == 404


async def test_session_that_was_deleted_while_its_host_was_gone_is_removed_there_later() -> None:
    host = FakeHost()
    async with gateway_on(host) as gateway:
        session = await session_of(gateway)
        host.lose()
        await until(lambda: gateway.hosts.get("here").is_gone)
        await asyncio.wait_for(gateway.sessions.end(session, "it was deleted"), 20)
        assert gateway.sessions.find("", "s") is None
        host.come_back()
        await until(lambda: host.removed == [session.name])
        assert gateway.sessions.find("", "s") is None
        assert gateway.hosts.get("here").session_count == 0


async def test_workspace_of_a_session_that_is_elsewhere_now_is_left_alone() -> None:
    """What is in it may be all that somebody has."""
    one, two = FakeHost("one"), FakeHost("two")
    async with gateway_on(one, two, on_stop="keep") as gateway:
        name = (await session_of(gateway, host="one")).name
    one.lose()
    async with gateway_on(one, two, adoption_timeout_s=0.0) as gateway:
        assert (await session_of(gateway)).host == "two"
        one.come_back()
        await until(lambda: gateway.hosts.are_asked and not gateway.hosts.get("one").is_gone)
        assert gateway.sessions.get("", "s").host == "two"
        assert (name in one.sessions, one.removed) == (True, [])


async def test_workspace_that_was_kept_is_no_session() -> None:
    host = FakeHost()
    settings = SessionRequest(workspace=WorkspaceRequest(persist=Persist.KEEP))
    async with gateway_on(host) as gateway:
        session, _ = await gateway.sessions.put("", "s", settings)
    assert list(host.kept) == [session.name]
    async with gateway_on(host) as gateway:
        assert gateway.sessions.find("", "s") is None
        session, is_new = await gateway.sessions.put("", "s", settings)
        assert is_new
        assert list(host.sessions) == [session.name]


async def test_endings_by_the_host_s_word_only() -> None:
    """A command that the host says nobody knows the end of is lost, whatever it wrote."""
    host = FakeHost()
    async with gateway_on(host) as gateway:
        await session_of(gateway)
        record = await run(gateway)
        host.write(record.id, b"all tests passed\n")
        host.finish(record.id, EndedBy.NOBODY, None)
        await ended(record)
        status = await gateway.execs.status(record)
        assert (status.state, status.exit_code) == (ExecState.LOST, None)
        assert status.stdout.text == "all tests passed\n"
