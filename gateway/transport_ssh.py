"""The way to the agent of a host behind SSH: one channel to the agent's own ``connect``.

Owns getting the agent's program there, and a channel whose bytes are frames from the first one on. It must
not know frames.

Theory of operation. In the common case a connection takes one command there: its Python says "ready" and
becomes ``agent connect``. Where the program of our build is missing, it is sent over by a second command,
which checks the digest before it gives the file its name, and the first is said again. There is one channel
at a time, so a host that allows one per connection (MaxSessions) is served too. A channel that ends by itself
leaves its SSH connection to the next; one that we give up takes it along, since it may be what is broken.
"""

import asyncio
import contextlib

import asyncssh

from gateway import ssh_bootstrap
from gateway.agent_bundle import AgentBundle
from gateway.link import ConnectError
from gateway.ssh_bootstrap import NO_PROGRAM, READY, Words
from gateway.ssh_connection import SshConnection
from gateway.tasks import Tasks

_WINDOW_BYTES = 4 << 20
"""Of answers on their way to us: a megabyte of output and what comes beside it."""
_MAX_GREETING_BYTES = 1 << 20
"""That a login shell may print before our command answers."""
_KEPT_BYTES = 2000
"""Of the end of standard error."""
_CLOSE_S = 5.0


class SshTransport:
    """A ``link.Transport``. Its SSH connection may be shared and is somebody else's to close in the end."""

    def __init__(
        self, connection: SshConnection, bundle: AgentBundle, *, directory: str, python: str
    ) -> None:
        """``directory`` is on the host and may begin with ``~``."""
        self._connection = connection
        self._bundle = bundle
        self._directory = directory
        self._python = python

    async def connect(self) -> "SshChannel":
        try:
            return await self._connect()
        except (OSError, EOFError, asyncssh.Error) as error:
            self._connection.drop()
            reason = error.reason if isinstance(error, asyncssh.Error) else error
            raise ConnectError(f"the SSH connection failed: {reason}") from error
        except asyncio.CancelledError:  # It took too long, perhaps because the connection is dead.
            self._connection.drop()
            raise

    async def close(self) -> None:
        await self._connection.close()

    async def _connect(self) -> "SshChannel":
        words = ssh_bootstrap.connect_words(self._python, self._directory, self._bundle)
        channel = await self._say(words)
        if channel is None:
            await self._install()
            channel = await self._say(words)
        if channel is None:
            raise ConnectError(f"the agent's program does not stay in {self._directory}")
        return channel

    async def _install(self) -> None:
        words = ssh_bootstrap.install_words(self._python, self._directory, self._bundle)
        channel = await self._say(words, self._bundle.data)
        if channel is not None:
            await channel.close()

    async def _say(self, words: Words, data: bytes | None = None) -> "SshChannel | None":
        """None: the agent's program is not there. Raises ConnectError for every other answer but ready."""
        ssh = await self._connection.get()
        process = await ssh.create_process(words.command, encoding=None, window=_WINDOW_BYTES)
        channel = SshChannel(self._connection, ssh, process)
        answer: list[str] = []
        try:
            if data is not None:
                channel.write_all(data)
            answer = await channel.answer_to(words)
        finally:
            if answer != [READY]:
                await channel.close()
        if answer not in ([READY], [NO_PROGRAM]):
            raise ConnectError(ssh_bootstrap.trouble(answer, self._python, self._directory))
        return channel if answer == [READY] else None


class SshChannel:
    """A ``conversation.Channel``."""

    def __init__(
        self,
        connection: SshConnection,
        ssh: asyncssh.SSHClientConnection,
        process: "asyncssh.SSHClientProcess[bytes]",
    ) -> None:
        self._connection = connection
        self._ssh = ssh
        self._process = process
        self._has_ended = False
        self._errors = b""
        self._tasks = Tasks()
        self._tasks.spawn("read standard error", self._read_errors())

    async def answer_to(self, words: Words) -> list[str]:
        """Passes over what the login shell says. Raises ConnectError when it ends without an answer."""
        passed_bytes = 0
        while passed_bytes < _MAX_GREETING_BYTES:
            line = await self._process.stdout.readline()
            if not line.endswith(b"\n"):
                status = (await self._process.wait()).returncode
                raise ConnectError(
                    f"the login shell there ended (exit status {status}) instead of running our command"
                )
            if (answer := words.answer(line)) is not None:
                return answer
            passed_bytes += len(line)
        raise ConnectError(f"the login shell there says {_MAX_GREETING_BYTES} bytes and no end")

    async def read_exactly(self, n: int) -> bytes:
        try:
            return await self._process.stdout.readexactly(n)
        except EOFError as error:
            self._has_ended = True
            await self._tasks.join()
            raise ConnectionError(self._last_words()) from error
        except asyncssh.Error as error:
            raise ConnectionError(error.reason) from error

    def write(self, data: bytes) -> None:
        self._process.stdin.write(data)

    def write_all(self, data: bytes) -> None:
        self._process.stdin.write(data)
        self._process.stdin.write_eof()

    async def drain(self) -> None:
        try:
            await self._process.stdin.drain()
        except asyncssh.Error as error:
            raise ConnectionError(error.reason) from error

    def abort(self) -> None:
        if self._has_ended:
            self._process.channel.abort()
        else:
            self._connection.drop(self._ssh)

    async def close(self) -> None:
        self._process.channel.abort()
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(_CLOSE_S):
                await self._process.wait_closed()
        await self._tasks.close()

    async def _read_errors(self) -> None:
        """Read, or the window is used up by it. Only its end says why."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while data := await self._process.stderr.read(4096):
                self._errors = (self._errors + data)[-_KEPT_BYTES:]

    def _last_words(self) -> str:
        line = self._errors.decode(errors="replace").strip().rpartition("\n")[2]
        return f"the agent's connection ended: {line}" if line else "the agent's connection ended"
