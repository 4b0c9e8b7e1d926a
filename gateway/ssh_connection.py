"""SSH connections to hosts: made when asked for, kept, shared, and made again when they are gone.

Owns who we are there and whom we take the other side for: the host's key is always verified, and there is no
setting that says otherwise. Every failure is put into words that help an administrator. It must not know what
runs over a connection. Nothing of the gateway's environment is sent.
"""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from gateway.link import ConnectError

_TCP_S = 15.0
_LOGIN_S = 30.0
"""As sshd's LoginGraceTime is 120 s, but nobody types a password here."""
_KEEPALIVE_S = 15.0
_KEEPALIVES = 3
"""Unanswered ones that end a connection; as in ``conversation.KeepAlive``, one layer below."""
_CLOSE_S = 5.0
DEFAULT_KNOWN_HOSTS = Path("~/.ssh/known_hosts")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where a host is, who we are there, and how it proves to be it."""

    address: str
    port: int = 22
    user: str | None = None
    """None: the user that the gateway runs as."""
    known_hosts: Path = DEFAULT_KNOWN_HOSTS
    host_key: str | None = None
    """Its public key, ``ssh-ed25519 AAAA...``, instead of a file of known hosts."""
    key_file: Path | None = None
    """Our private key. None: what the SSH agent offers (SSH_AUTH_SOCK), then the default ones in ~/.ssh."""
    passphrase_env: str | None = None
    """Variable of the gateway's environment that has the passphrase of ``key_file``."""
    jump: "SshAddress | None" = None
    """Reached through this one."""

    def __str__(self) -> str:
        return f"{self.user or ''}{'@' if self.user else ''}{self.address}:{self.port}"


class SshConnections:
    """One connection per address, however many hosts are behind it. ``close`` it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """``environ``: where passphrases are."""
        self._environ = environ
        self._connections: dict[SshAddress, SshConnection] = {}

    def to(self, address: SshAddress) -> "SshConnection":
        """Made at its first ``get``. There are as many as are configured."""
        if address not in self._connections:
            jump = None if address.jump is None else self.to(address.jump)
            self._connections[address] = SshConnection(address, jump, self._environ)
        return self._connections[address]

    async def close(self) -> None:
        while self._connections:
            await self._connections.popitem()[1].close()  # The last first: hosts before their jump hosts.


class SshConnection:
    def __init__(self, address: SshAddress, jump: "SshConnection | None", environ: Mapping[str, str]) -> None:
        self._address = address
        self._jump = jump
        self._environ = environ
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()

    async def get(self) -> asyncssh.SSHClientConnection:
        """The one there is, or a new one. Raises ConnectError."""
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                tunnel = None if self._jump is None else await self._jump.get()
                self._connection = await self._connect(tunnel)
            return self._connection

    def drop(self, connection: asyncssh.SSHClientConnection | None = None) -> None:
        """It is not to be trusted: the next ``get`` makes another. ``connection``: that one, though there may
        be another already."""
        dropped = connection or self._connection
        if dropped is not None:
            dropped.abort()
        if dropped is self._connection:
            self._connection = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
                async with asyncio.timeout(_CLOSE_S):
                    await connection.wait_closed()

    async def _connect(self, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
        shown = _ShownKey()
        try:
            return await asyncssh.connect(
                self._address.address,
                self._address.port,
                config=None,  # What ~/.ssh/config says of known hosts or variables to send is not ours.
                tunnel=tunnel,
                username=self._address.user or (),
                client_factory=lambda: shown,
                known_hosts=_known_hosts(self._address),
                preferred_auth="publickey",
                compression_algs=["none"],
                connect_timeout=_TCP_S,
                login_timeout=_LOGIN_S,
                keepalive_interval=_KEEPALIVE_S,
                keepalive_count_max=_KEEPALIVES,
                **_credentials(self._address, self._environ),
            )
        except (OSError, ValueError, asyncssh.Error) as error:  # ValueError: of a key file, or one of its kin
            raise ConnectError(f"SSH to {self._address}: {_words(error, self._address, shown)}") from error


class _ShownKey(asyncssh.SSHClient):
    """Keeps what key a host showed that we do not know, to be able to say it."""

    def __init__(self) -> None:
        self.fingerprint: str | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Asked only about keys that are not among the known ones: no."""
        self.fingerprint = key.get_fingerprint()
        return False


def _known_hosts(address: SshAddress) -> Any:
    """Never None, which to asyncssh means that any host will do."""
    if address.host_key is not None:
        return ([asyncssh.import_public_key(address.host_key)], [], [])
    try:
        return asyncssh.read_known_hosts(str(address.known_hosts.expanduser()))
    except OSError as error:
        message = f"known_hosts: {address.known_hosts} cannot be read: {error.strerror}"
        raise ConnectError(f"SSH to {address}: {message}") from error
    except ValueError as error:
        raise ConnectError(f"SSH to {address}: known_hosts: {address.known_hosts}: {error}") from error


def _credentials(address: SshAddress, environ: Mapping[str, str]) -> dict[str, Any]:
    if address.key_file is None:
        return {"agent_path": environ.get("SSH_AUTH_SOCK") or None}
    credentials: dict[str, Any] = {"client_keys": [str(address.key_file.expanduser())], "agent_path": None}
    if address.passphrase_env is not None:
        if address.passphrase_env not in environ:
            raise ConnectError(f"SSH to {address}: passphrase_env: {address.passphrase_env} is not set")
        credentials["passphrase"] = environ[address.passphrase_env]
    return credentials


def _words(error: Exception, address: SshAddress, shown: _ShownKey) -> str:
    where = "host_key" if address.host_key is not None else f"known_hosts ({address.known_hosts})"
    match error:
        case asyncssh.HostKeyNotVerifiable():
            key = f"the key that it shows ({shown.fingerprint})" if shown.fingerprint else "its key"
            return f"{key} is not the one in {where}; if it is right, add it there"
        case asyncssh.PermissionDenied():
            return "it does not let us in with the keys that we have"
        case asyncssh.KeyEncryptionError() | asyncssh.KeyImportError():
            return f"key_file: {address.key_file} cannot be used: {error}"
        case asyncssh.Error():
            return error.reason
        case TimeoutError():
            return f"no answer within {_TCP_S:g} s"
        case OSError(filename=str(name)):
            return f"key_file: {name} cannot be read: {error.strerror}"
        case ConnectionError(errno=int(number)):  # asyncio's own words are "Connect call failed"
            return os.strerror(number)
    return str(error)
