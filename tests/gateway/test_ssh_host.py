"""The sshd that other tests take for a host."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.ssh_host import SshHost, running_ssh_host

pytestmark = pytest.mark.slow  # real processes throughout


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SshHost]:
    with running_ssh_host(tmp_path / "host") as host:
        yield host


def ssh(host: SshHost, command: str) -> subprocess.Popen[bytes]:
    options = {"BatchMode": "yes", "UserKnownHostsFile": str(host.known_hosts), "IdentitiesOnly": "yes"}
    arguments = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    where = ["-i", str(host.key), "-p", str(host.port), f"{host.user}@{host.address}"]
    return subprocess.Popen(
        ["ssh", "-F", "none", *arguments, *where, command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def output(host: SshHost, command: str) -> bytes:
    with ssh(host, command) as process:
        return process.communicate(timeout=20)[0]


def test_runs_commands_with_a_home_of_its_own(host: SshHost) -> None:
    """By which they are found."""
    assert output(host, "echo $HOME").decode().strip() == str(host.directory)


def test_stop_refuses_and_start_is_on_the_same_port(host: SshHost) -> None:
    """An administrator restarts it."""
    host.stop()
    assert output(host, "echo here") == b""
    host.start()
    assert output(host, "echo here") == b"here\n"


def test_cut_ends_a_connection_and_not_what_has_left_it(host: SshHost) -> None:
    """As when the network is gone in the middle of a command."""
    with ssh(host, "setsid sleep 100 >/dev/null 2>&1 & echo here; exec sleep 200") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        assert host.cut() > 0
        assert process.wait(timeout=20) == 255
    assert host.processes() != []
    assert output(host, "echo here") == b"here\n"


def test_nothing_is_left_after_a_reboot(host: SshHost) -> None:
    """Whatever session it put itself into."""
    with ssh(host, "setsid sleep 100 >/dev/null 2>&1 & echo here; exec sleep 200") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        host.reboot()
        assert process.wait(timeout=20) == 255
    assert host.processes() == []
