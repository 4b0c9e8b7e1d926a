"""The file of hosts: what it says, and what is said of mistakes in it."""

from pathlib import Path

import pytest

from gateway.host_agent.isolation import Isolation
from gateway.hosts_file import HostSettings, LocalWay, SshWay, local_host, read_hosts
from gateway.limits import ConfigError
from gateway.ssh_connection import DEFAULT_KNOWN_HOSTS, SshAddress

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3VnXcN4yTgBGZcYk1KtYJDLhm0EZx1xV0K3jvSDzIm"


def read(directory: Path, text: str) -> list[HostSettings]:
    path = directory / "hosts.toml"
    path.write_text(text)
    return read_hosts(path)


def test_without_a_file_there_is_the_gateways_own() -> None:
    """In its own directory."""
    assert local_host() == HostSettings("local", LocalWay(None))


def test_all_that_can_be_said(tmp_path: Path) -> None:
    """In the order of the file."""
    hosts = read(
        tmp_path,
        f"""
        [hosts.build1]
        address = "10.0.0.5"
        port = 2222
        user = "runner"
        host_key = "{KEY}"
        key_file = "~/.ssh/id"
        passphrase_env = "KEY_WORDS"
        jump = "bastion"
        directory = "/var/lib/mars"
        python = "/opt/python/bin/python3"
        slots = 7.5
        memory_mb = 16000
        labels = {{ arch = "arm64" }}
        lost_after_s = 60

        [hosts.here]
        kind = "local"
        directory = "/srv/mars"
        session_uids = "200000-265535"
        sandbox = "bwrap"

        [jumps.bastion]
        address = "b.example.org"
        jump = "outer"

        [jumps.outer]
        address = "o.example.org"
        known_hosts = "/etc/ssh/known"
        """,
    )
    outer = SshAddress("o.example.org", known_hosts=Path("/etc/ssh/known"))
    address = SshAddress(
        "10.0.0.5",
        port=2222,
        user="runner",
        host_key=KEY,
        key_file=Path("~/.ssh/id"),
        passphrase_env="KEY_WORDS",
        jump=SshAddress("b.example.org", jump=outer),
    )
    way = SshWay(address, "/var/lib/mars", "/opt/python/bin/python3")
    build1 = HostSettings("build1", way, 7.5, 16000, {"arch": "arm64"}, 60)
    isolation = Isolation((200_000, 265_535), "bwrap")
    here = HostSettings("here", LocalWay(Path("/srv/mars")), isolation=isolation)
    assert hosts == [build1, here]


def test_least_that_has_to_be_said(tmp_path: Path) -> None:
    """The host's key is looked for among the known ones of the user."""
    (host,) = read(tmp_path, '[hosts.a]\naddress = "a"')
    assert isinstance(host.way, SshWay)
    assert host.way.address == SshAddress("a", known_hosts=DEFAULT_KNOWN_HOSTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "missing required field `hosts`"),
        ("hosts = {}", r"there is no host; add a table such as \[hosts.build1\]"),
        ("[hosts.a", "is no TOML"),
        ("[hosts.a]", "hosts.a: .*missing required field `address`"),
        ('[hosts.a]\naddress = ""', "hosts.a.address: .*length >= 1"),
        ('[hosts.a]\naddress = "a"\nport = 70000', "hosts.a.port: .*<= 65535"),
        ('[hosts.a]\naddress = "a"\nport = "22"', "hosts.a.port: Expected `int`, got `str`"),
        ('[hosts.a]\naddress = "a"\nslots = 0', "hosts.a.slots: .*> 0"),
        ('[hosts.a]\naddress = "a"\nlabels = {x = 1}', "hosts.a.labels.*: Expected `str`, got `int`"),
        ('[hosts.a]\naddress = "a"\ncolour = 1', "hosts.a: .*`colour`; known are .*address.*lost_after_s"),
        ('[hosts.a]\naddress = "a"\nknown_hosts = false', "hosts.a.known_hosts: Expected `str"),
        ('[hosts.a]\naddress = "a"\nstrict_host_key_checking = false', "hosts.a: .*unknown field"),
        (f'[hosts.a]\naddress = "a"\nhost_key = "{KEY}"\nknown_hosts = "k"', "hosts.a: .*not both"),
        ('[hosts.a]\naddress = "a"\nhost_key = "any"', "hosts.a.host_key: must be a public key"),
        ('[hosts.a]\naddress = "a"\npassphrase_env = "P"', "hosts.a: .*needs a `key_file`"),
        ('[hosts.a]\nkind = "docker"', "hosts.a.kind: must be 'ssh' or 'local', not 'docker'"),
        ('[hosts.a]\nkind = "local"\naddress = "a"', "hosts.a: .*`address`; known are .*directory"),
        (
            '[hosts.a]\naddress = "a"\nsandbox = "jail"',
            "hosts.a.sandbox: must be one of none",
        ),
        ('[hosts.a]\naddress = "a"\nsession_uids = "0-9"', "hosts.a.session_uids: must be a range such as"),
        ('[hosts.a]\naddress = "a"\nsession_uids = 2000', "hosts.a.session_uids: Expected `str"),
        ('[hosts."a b"]\naddress = "a"', "hosts.a b: a name is"),
        ('[hosts.a]\naddress = "a"\njump = "j"', "hosts.a.jump: there is no jump host 'j'; known are none"),
        (
            '[hosts.a]\naddress = "a"\njump = "j"\n[jumps.j]\naddress = "j"\njump = "j"',
            "jumps.j.jump: j -> j goes round in a circle",
        ),
        ('[hosts.a]\naddress = "a"\n[jumps.j]\nport = 1', "jumps.j: .*`address`"),
        ('[hosts.a]\naddress = "a"\n[other]\nx = 1', "unknown field `other`; known are hosts, jumps"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    """By file and key, with what is allowed."""
    with pytest.raises(ConfigError, match=rf"hosts: .*hosts\.toml.*{expected}"):
        read(tmp_path, text)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        read_hosts(tmp_path / "none.toml")
