"""The file that says which hosts there are (``--hosts FILE``).

Owns its keys, their defaults and what is said of one that is wrong: its name and what is allowed. It must not
know how a host is reached. Without a file there is one host, the gateway's own, named ``local``.

```toml
[hosts.build1]
address = "10.0.0.5"
user = "runner"
key_file = "~/.ssh/id_ed25519"
jump = "bastion"
slots = 8
labels = { arch = "x86_64" }

[hosts.here]
kind = "local"

[jumps.bastion]
address = "bastion.example.org"
```
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import asyncssh
import msgspec
from msgspec import Meta, Struct

from gateway.host_agent.isolation import NO_SANDBOX, Isolation
from gateway.isolation_settings import isolation_from
from gateway.limits import ConfigError
from gateway.ssh_connection import DEFAULT_KNOWN_HOSTS, SshAddress

LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

LOST_AFTER_S = 300.0
"""A host that boots is back before; who waits for a command has given up by then."""
DIRECTORY = "~/.mars-agent"
"""Of the agent on a host behind SSH: not in /tmp, which is cleaned."""

T = TypeVar("T", bound=Struct)


@dataclass(frozen=True, slots=True)
class LocalWay:
    directory: Path | None = None
    """None: the gateway's own spool directory."""


@dataclass(frozen=True, slots=True)
class SshWay:
    address: SshAddress
    directory: str = DIRECTORY
    python: str = "python3"


@dataclass(frozen=True, slots=True)
class HostSettings:
    name: str
    way: LocalWay | SshWay
    slots: float | None = None
    """CPU slots to hand out there. None: its cores."""
    memory_mb: int | None = None
    """To set aside for commands. None: what it has."""
    labels: Mapping[str, str] = field(default_factory=dict)
    lost_after_s: float = LOST_AFTER_S
    isolation: Isolation = field(default_factory=Isolation)
    """What its agent is to keep commands to, or not run them."""


Slots = Annotated[float, Meta(gt=0, le=4096)]
Megabytes = Annotated[int, Meta(gt=0)]
LabelValues = Annotated[dict[str, Annotated[str, Meta(max_length=256)]], Meta(max_length=16)]
LostAfter = Annotated[float, Meta(gt=0, le=86400)]
Text = Annotated[str, Meta(min_length=1)]


class _SshTarget(Struct, frozen=True, forbid_unknown_fields=True):
    """What hosts and jump hosts have in common: the fields of ``SshAddress``."""

    address: Text
    port: Annotated[int, Meta(ge=1, le=65535)] = 22
    user: Text | None = None
    known_hosts: Text | None = None
    host_key: Text | None = None
    key_file: Text | None = None
    passphrase_env: Text | None = None
    jump: Text | None = None

    def __post_init__(self) -> None:
        if self.host_key is not None and self.known_hosts is not None:
            raise ValueError("Give `host_key` or `known_hosts`, not both")
        if self.passphrase_env is not None and self.key_file is None:
            raise ValueError("`passphrase_env` needs a `key_file`")


class _SshHost(_SshTarget, frozen=True, forbid_unknown_fields=True):
    kind: Literal["ssh"] = "ssh"
    directory: Text = DIRECTORY
    python: Text = "python3"
    slots: Slots | None = None
    memory_mb: Megabytes | None = None
    labels: LabelValues = {}
    lost_after_s: LostAfter = LOST_AFTER_S
    session_uids: Text | None = None
    sandbox: str = NO_SANDBOX


class _LocalHost(Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["local"]
    directory: Text | None = None
    slots: Slots | None = None
    memory_mb: Megabytes | None = None
    labels: LabelValues = {}
    lost_after_s: LostAfter = LOST_AFTER_S
    session_uids: Text | None = None
    sandbox: str = NO_SANDBOX


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    hosts: dict[str, dict[str, Any]]
    jumps: dict[str, dict[str, Any]] = {}


def local_host(isolation: Isolation | None = None) -> HostSettings:
    return HostSettings(LOCAL, LocalWay(), isolation=isolation or Isolation())


def read_hosts(path: Path) -> list[HostSettings]:
    """Raises ConfigError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"hosts: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"hosts: {path} is no TOML: {error}") from error
    try:
        return _hosts(tables)
    except ConfigError as error:
        raise ConfigError(f"hosts: {path}: {error}") from error


def _hosts(tables: dict[str, Any]) -> list[HostSettings]:
    file = _decode(tables, _File, "")
    if not file.hosts:
        raise ConfigError("there is no host; add a table such as [hosts.build1]")
    jumps = {name: _decode(table, _SshTarget, f"jumps.{name}") for name, table in file.jumps.items()}
    return [_host(name, table, jumps) for name, table in file.hosts.items()]


def _host(name: str, table: dict[str, Any], jumps: Mapping[str, _SshTarget]) -> HostSettings:
    where = f"hosts.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name is 1 to 64 letters, digits and ._-, the first a letter or digit")
    match table.get("kind", "ssh"):
        case "local":
            local = _decode(table, _LocalHost, where)
            directory = None if local.directory is None else Path(local.directory).expanduser()
            return _settings(name, LocalWay(directory), local, where)
        case "ssh":
            ssh = _decode(table, _SshHost, where)
            address = _address(ssh, where, jumps, ())
            return _settings(name, SshWay(address, ssh.directory, ssh.python), ssh, where)
        case other:
            raise ConfigError(f"{where}.kind: must be 'ssh' or 'local', not {other!r}")


def _settings(name: str, way: LocalWay | SshWay, host: _LocalHost | _SshHost, where: str) -> HostSettings:
    try:
        isolation = isolation_from(host.session_uids, host.sandbox)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error
    return HostSettings(name, way, host.slots, host.memory_mb, host.labels, host.lost_after_s, isolation)


def _address(
    target: _SshTarget, where: str, jumps: Mapping[str, _SshTarget], via: tuple[str, ...]
) -> SshAddress:
    _check_host_key(target, where)
    return SshAddress(
        address=target.address,
        port=target.port,
        user=target.user,
        known_hosts=DEFAULT_KNOWN_HOSTS if target.known_hosts is None else Path(target.known_hosts),
        host_key=target.host_key,
        key_file=None if target.key_file is None else Path(target.key_file),
        passphrase_env=target.passphrase_env,
        jump=None if target.jump is None else _jump(target.jump, where, jumps, via),
    )


def _jump(name: str, where: str, jumps: Mapping[str, _SshTarget], via: tuple[str, ...]) -> SshAddress:
    if name not in jumps:
        known = ", ".join(sorted(jumps)) or "none; add a table such as [jumps.bastion]"
        raise ConfigError(f"{where}.jump: there is no jump host {name!r}; known are {known}")
    if name in via:
        raise ConfigError(f"{where}.jump: {' -> '.join((*via, name))} goes round in a circle")
    return _address(jumps[name], f"jumps.{name}", jumps, (*via, name))


def _check_host_key(target: _SshTarget, where: str) -> None:
    if target.host_key is not None:
        try:
            asyncssh.import_public_key(target.host_key)
        except asyncssh.KeyImportError as error:
            raise ConfigError(f"{where}.host_key: must be a public key, 'ssh-ed25519 AAAA...'") from error


def _decode(table: dict[str, Any], kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        key = ".".join(filter(None, (where, path.strip("`").removeprefix("$").removeprefix("."))))
        if "unknown field" in what:
            what += f"; known are {', '.join(kind.__struct_fields__)}"
        raise ConfigError(f"{key}: {what}" if key else what) from error
