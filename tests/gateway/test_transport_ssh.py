"""The way to an agent through a real sshd."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.agent_bundle import AgentBundle, build_agent
from gateway.agent_client import AgentHost
from gateway.conversation import KeepAlive
from gateway.host import EndedBy
from gateway.introduction import Introduction
from gateway.link import ConnectError, Link, LinkSettings, LinkState
from gateway.protocol import StreamName
from gateway.ssh_connection import SshAddress, SshConnections
from gateway.transport_ssh import SshTransport
from tests.gateway.fake_agent import until
from tests.gateway.orders import order
from tests.gateway.ssh_host import SshHost, make_key, running_ssh_host

pytestmark = pytest.mark.slow  # real processes throughout

MakeHost = Callable[..., SshHost]
Connect = Callable[..., "contextlib.AbstractAsyncContextManager[Link]"]


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[MakeHost]:
    with contextlib.ExitStack() as hosts:

        def make(name: str = "host", **settings: str) -> SshHost:
            return hosts.enter_context(running_ssh_host(tmp_path / name, settings))

        yield make


@pytest.fixture(scope="module")
def bundle() -> AgentBundle:
    return build_agent()


def address_of(host: SshHost, **changes: Any) -> SshAddress:
    fields = {
        "address": host.address,
        "port": host.port,
        "user": host.user,
        "known_hosts": host.known_hosts,
        "key_file": host.key,
    }
    return SshAddress(**{**fields, **changes})


class Way:
    """All that is between a host and us."""

    def __init__(
        self,
        address: SshAddress,
        bundle: AgentBundle,
        *,
        environ: Mapping[str, str] | None = None,
        directory: str = "~/agent",
        python: str = "python3",
        keep_alive: KeepAlive | None = None,
    ) -> None:
        self.connections = SshConnections(environ or {})
        self.transport = SshTransport(
            self.connections.to(address), bundle, directory=directory, python=python
        )
        settings = LinkSettings(first_wait_s=0.02, longest_wait_s=0.2, keep_alive=keep_alive or KeepAlive())
        self.link = Link("h", self.transport, Introduction("gw", bundle.digest), settings=settings)
        self.host = AgentHost(self.link, lost_after_s=60)

    async def __aenter__(self) -> "Way":
        self.link.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.close()
        await self.connections.close()

    async def trouble(self) -> str:
        await until(lambda: self.link.state is LinkState.DOWN)
        assert self.link.trouble is not None
        return self.link.trouble


def agents(host: SshHost) -> list[int]:
    return [pid for pid in host.processes() if b"\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_puts_the_agent_there_and_starts_it(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Once: the next gateway finds both."""
    host = make_host()
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert way.link.hello is not None
        assert way.link.hello.agent == bundle.digest
        instance = way.link.hello.instance
        assert (await way.host.observe()).cores is not None
    program = host.directory / "agent" / bundle.file_name
    assert program.read_bytes() == bundle.data
    written = program.stat().st_mtime_ns
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert way.link.hello is not None
        assert way.link.hello.instance == instance
    assert program.stat().st_mtime_ns == written
    assert len(agents(host)) == 1
    assert (host.directory / "agent").stat().st_mode & 0o777 == 0o700


async def test_one_channel_per_connection_is_enough(make_host: MakeHost, bundle: AgentBundle) -> None:
    """For a host that allows no more (MaxSessions), also when the program has to be sent."""
    host = make_host(MaxSessions="1")
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert (await way.host.observe()).cores is not None


async def test_shell_that_greets(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Before and after our words, on both streams: frames are frames."""
    host = make_host()
    greeting = "echo; echo 'Welcome to mars-0 ready'; printf no-newline; echo warning >&2\n"
    (host.directory / ".bashrc").write_text(greeting * 100)
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert (await way.host.observe()).cores is not None


@pytest.mark.slow
async def test_connection_cut_in_mid_command(make_host: MakeHost, bundle: AgentBundle) -> None:
    """The command does not notice, nothing runs twice, and no output is lost or comes twice."""
    host = make_host()
    ran = host.directory / "ran"
    async with Way(address_of(host), bundle) as way:
        await way.host.put_session("s", {})
        await way.host.start(
            order(f"echo once >> {ran}; for n in 1 2 3 4 5 6; do echo $n; sleep 0.1; done; exit 7", "ex-1")
        )
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(way.host.wait("ex-1", 30, inline_bytes=100))
            for generation in (2, 3):
                assert host.cut() > 0
                await until(lambda wanted=generation: way.link.generation == wanted)  # type: ignore[misc]
        ended = waiting.result()
        assert (ended.ended_by, ended.returncode) == (EndedBy.ITSELF, 7)
        assert ended.head is not None
        assert ended.head[StreamName.STDOUT] == b"1\n2\n3\n4\n5\n6\n"
    assert ran.read_text() == "once\n"


@pytest.mark.slow
async def test_start_under_cuts_runs_once(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Wherever the connection breaks: before the request, after it, or after the answer was sent."""
    host = make_host(MaxStartups="100")
    ran = host.directory / "ran"
    async with Way(address_of(host), bundle) as way:
        await way.host.put_session("s", {})
        async with asyncio.TaskGroup() as tasks:
            starts = [
                tasks.create_task(way.host.start(order(f"echo {n} >> {ran}", f"ex-{n}"))) for n in range(40)
            ]
            for delay_s in (0.0, 0.02, 0.05):
                await asyncio.sleep(delay_s)
                host.cut()
                await way.link.until_up()
        for each in starts:
            ended = await way.host.wait(each.result().exec_id, 20)
            assert (ended.ended_by, ended.returncode) == (EndedBy.ITSELF, 0)
    assert sorted(map(int, ran.read_text().split())) == list(range(40))


async def test_host_that_booted_in_mid_command(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Nobody knows how it ended, and it is not run again."""
    host = make_host()
    ran = host.directory / "ran"
    async with Way(address_of(host), bundle) as way:
        await way.host.put_session("s", {})
        asked = order(f"echo once >> {ran}; exec sleep 1000", "ex-1")
        await way.host.start(asked)
        host.reboot()
        host.start()
        ended = await way.host.wait("ex-1", 20)
        assert (ended.ended_by, ended.returncode) == (EndedBy.NOBODY, None)
        assert (await way.host.start(asked)).existed
    assert ran.read_text() == "once\n"


async def test_comes_back_after_the_connection_was_cut(make_host: MakeHost, bundle: AgentBundle) -> None:
    """To the agent that went on meanwhile."""
    host = make_host()
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert way.link.hello is not None
        instance = way.link.hello.instance
        for generation in (2, 3):
            assert host.cut() > 0
            await until(lambda wanted=generation: way.link.generation == wanted)  # type: ignore[misc]
            assert (await way.host.observe()).cores is not None
            assert way.link.hello.instance == instance


async def test_comes_back_after_sshd_was_down(make_host: MakeHost, bundle: AgentBundle) -> None:
    """And says so meanwhile."""
    host = make_host()
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        host.kill()
        assert "refused" in (await way.trouble()).lower()
        host.start()
        assert (await way.host.observe()).cores is not None


async def test_agent_that_was_killed_is_started_again(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Over the same SSH connection; the new one says that it is another."""
    host = make_host()
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert way.link.hello is not None
        instance = way.link.hello.instance
        connection = await way.connections.to(address_of(host)).get()
        (agent,) = agents(host)
        os.kill(agent, signal.SIGKILL)
        await until(lambda: way.link.generation == 2)
        assert way.link.hello.instance != instance
        assert not connection.is_closed()


async def test_unknown_host_is_refused(make_host: MakeHost, bundle: AgentBundle, tmp_path: Path) -> None:
    """With what an administrator has to compare. Nothing was said to it."""
    host = make_host()
    known = tmp_path / "known"
    known.write_text("")
    async with Way(address_of(host, known_hosts=known), bundle) as way:
        trouble = await way.trouble()
    assert "SHA256:" in trouble
    assert str(known) in trouble
    assert host.processes() == []


async def test_host_with_another_key_than_before_is_refused(
    make_host: MakeHost, bundle: AgentBundle, tmp_path: Path
) -> None:
    """The one that is known or the one that is pinned."""
    host, other = make_host("one"), make_host("other")
    key = host.host_key.with_suffix(".pub").read_text()
    known = tmp_path / "known"
    known.write_text(f"[{other.address}]:{other.port} {key}")
    for changes in ({"known_hosts": known}, {"host_key": key}):
        async with Way(address_of(other, **changes), bundle) as way:
            assert "is not the one in" in await way.trouble()
    async with Way(address_of(host, host_key=key, known_hosts=tmp_path / "none"), bundle) as way:
        await way.link.until_up()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"known_hosts": Path("/nowhere/known_hosts")}, "known_hosts: /nowhere/known_hosts cannot be read"),
        ({"key_file": Path("/nowhere/key")}, "key_file: /nowhere/key cannot be read"),
        ({"passphrase_env": "NO_SUCH"}, "passphrase_env: NO_SUCH is not set"),
        ({"user": "nobody"}, "does not let us in"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_what_is_wrong_is_named(
    make_host: MakeHost, bundle: AgentBundle, changes: dict[str, Any], expected: str
) -> None:
    """By the key of the file of hosts."""
    async with Way(address_of(make_host(), **changes), bundle) as way:
        assert expected in await way.trouble()


async def test_key_that_the_host_does_not_know(
    make_host: MakeHost, bundle: AgentBundle, tmp_path: Path
) -> None:
    """Is told, and tried again later: it may be added any time."""
    host = make_host()
    make_key(tmp_path / "key")
    async with Way(address_of(host, key_file=tmp_path / "key"), bundle) as way:
        assert "does not let us in" in await way.trouble()
        with (host.directory / "authorized_keys").open("a") as keys:
            keys.write((tmp_path / "key.pub").read_text())
        await way.link.until_up()


async def test_passphrase_is_read_from_the_environment(
    make_host: MakeHost, bundle: AgentBundle, tmp_path: Path
) -> None:
    """Never from a file of settings."""
    host = make_host()
    # Of a form that is decrypted without the bcrypt that OpenSSH's own needs.
    make_key(tmp_path / "key", "secret words", "-m", "PKCS8", "-t", "ecdsa")
    (host.directory / "authorized_keys").write_text((tmp_path / "key.pub").read_text())
    address = address_of(host, key_file=tmp_path / "key", passphrase_env="KEY")
    async with Way(address, bundle, environ={"KEY": "secret words"}) as way:
        await way.link.until_up()
    async with Way(address, bundle, environ={"KEY": "wrong"}) as way:
        trouble = await way.trouble()
    assert "key_file" in trouble
    assert "wrong" not in trouble
    async with Way(address_of(host, key_file=tmp_path / "key"), bundle) as way:
        assert "assphrase" in await way.trouble()


@pytest.fixture
def ssh_agent(tmp_path: Path) -> Iterator[Path]:
    """Socket of one that has no key yet."""
    socket = tmp_path / "a.sock"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as agent:
        try:
            while not socket.exists():
                assert agent.poll() is None
                time.sleep(0.01)
            yield socket
        finally:
            agent.terminate()


async def test_keys_of_the_ssh_agent(make_host: MakeHost, bundle: AgentBundle, ssh_agent: Path) -> None:
    """Where no file is named."""
    host = make_host()
    environ = {"SSH_AUTH_SOCK": str(ssh_agent)}
    async with Way(address_of(host, key_file=None), bundle, environ=environ) as way:
        assert "does not let us in" in await way.trouble()
        add_key(host.key, environ)
        await way.link.until_up()


def add_key(key: Path, environ: Mapping[str, str]) -> None:
    subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, **environ}, check=True)


async def test_host_that_says_nothing_any_more(make_host: MakeHost, bundle: AgentBundle) -> None:
    """As one whose cable was pulled: the connection is given up, and another one is made."""
    host = make_host()
    keep_alive = KeepAlive(silence_s=0.2, answer_s=2)
    async with Way(address_of(host), bundle, keep_alive=keep_alive) as way:
        await way.link.until_up()
        assert host.freeze() > 0
        await until(lambda: way.link.generation == 2)
        assert (await way.host.observe()).cores is not None


@pytest.mark.slow
async def test_through_a_jump_host(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Whose key is verified as well, and whose connection two hosts share."""
    jump, one, two = make_host("jump"), make_host("one"), make_host("two")
    connections = SshConnections({})
    links = []
    for host in (one, two):
        address = address_of(host, jump=address_of(jump))
        transport = SshTransport(connections.to(address), bundle, directory="~/agent", python="python3")
        links.append(Link("h", transport, Introduction("gw"), settings=LinkSettings(first_wait_s=0.02)))
    for link in links:
        link.open()
        await link.until_up()
    assert jump.log.read_text().count("Accepted publickey") == 1
    assert one.log.read_text().count("Accepted publickey") == 1
    assert jump.processes() == []
    jump.kill()
    jump.start()
    for link in links:
        await until(lambda link=link: link.generation == 2)  # type: ignore[misc]
    for link in links:
        await link.close()
    await connections.close()


async def test_jump_host_that_is_not_known_is_refused(
    make_host: MakeHost, bundle: AgentBundle, tmp_path: Path
) -> None:
    """It could be anyone between us and the host."""
    jump, host = make_host("jump"), make_host("host")
    (tmp_path / "known").write_text("")
    address = address_of(host, jump=address_of(jump, known_hosts=tmp_path / "known"))
    async with Way(address, bundle) as way:
        trouble = await way.trouble()
    assert f":{jump.port}" in trouble
    assert "SHA256:" in trouble


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ("no-such-python", "there is no 'no-such-python' on its PATH"),
        ("{home}/old", "version 2.7 there; 3.9 or later is needed"),
        ("/bin/false", "ended (exit status 1) instead of running our command"),
    ],
)
async def test_host_without_a_python_for_us(
    make_host: MakeHost, bundle: AgentBundle, python: str, expected: str
) -> None:
    """Says which it needs."""
    host = make_host()
    old = host.directory / "old"
    old.write_text("""#!/bin/sh
program=$4
shift 4
exec python3 -c "import sys; sys.version_info = (2, 7, 18); $program" "$@"
""")
    old.chmod(0o755)
    async with Way(address_of(host), bundle, python=python.format(home=host.directory)) as way:
        assert expected in await way.trouble()


async def test_directory_that_cannot_be(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Is told with the reason."""
    host = make_host()
    (host.directory / "file").write_text("")
    async with Way(address_of(host), bundle, directory="~/file") as way:
        assert "cannot be made: File exists" in await way.trouble()


async def test_login_shell_that_lets_nobody_in(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Nothing that it prints is taken for the agent."""
    host = make_host(ForceCommand="echo This account is not available; exit 3")
    async with Way(address_of(host), bundle) as way:
        assert "ended (exit status 3)" in await way.trouble()


async def test_our_environment_stays_here(
    make_host: MakeHost, bundle: AgentBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has our secrets."""
    monkeypatch.setenv("MARS_GATEWAY_TOKENS", "acme:secret-of-ours")
    monkeypatch.setenv("LC_SECRET", "secret-of-ours")
    host = make_host(AcceptEnv="*")
    async with Way(address_of(host), bundle) as way:
        await way.link.until_up()
        assert host.processes() != []
        assert host.processes("secret-of-ours") == []


async def test_connect_may_be_cancelled_anywhere(make_host: MakeHost, bundle: AgentBundle) -> None:
    """And leaves no connection behind; the next attempt works."""
    host = make_host()
    connections = SshConnections({})
    transport = SshTransport(connections.to(address_of(host)), bundle, directory="~/agent", python="python3")
    for delay_s in (0.0, 0.01, 0.05, 0.1, 0.2, 0.4):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await (await transport.connect()).close()
    await (await transport.connect()).close()
    await connections.close()
    await until(lambda: host.cut() == 0)


async def test_refusal_is_a_connect_error(make_host: MakeHost, bundle: AgentBundle) -> None:
    """Of whatever kind it was."""
    host = make_host()
    host.stop()
    connections = SshConnections({})
    transport = SshTransport(connections.to(address_of(host)), bundle, directory="~/a", python="python3")
    with pytest.raises(ConnectError, match=str(host.port)):
        await transport.connect()
    await connections.close()
