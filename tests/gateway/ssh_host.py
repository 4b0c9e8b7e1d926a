"""A real sshd on a loopback port, with keys and a home directory of its own: to tests, a host.

What runs on it is told from the rest of the machine by its home directory, which sshd puts into the
environment of everything that it starts.
"""

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_SSHD = "/usr/sbin/sshd"  # sshd wants to be called by its full path: it calls itself again.
_PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Where Debian's sshd locks its unprivileged half in; it is made at boot, which containers do not do."""
_SETTINGS = {
    "ListenAddress": "127.0.0.1",
    "PidFile": "none",
    "StrictModes": "no",
    "UsePAM": "no",
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PrintMotd": "no",
    "Subsystem": "sftp internal-sftp",
}


class SshHost:
    """``start`` it, and ``reboot`` it in the end: what it started outlives its connections."""

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        """``settings`` are for sshd_config, such as ``{"MaxSessions": "2"}``."""
        directory.mkdir(parents=True)
        self.user = getpass.getuser()
        self.address = "127.0.0.1"
        self.directory = directory
        """HOME of what runs there. The working directory is the user's own home all the same."""
        self.key = directory / "key"
        """Of the user."""
        self.host_key = directory / "host_key"
        self.known_hosts = directory / "known_hosts"
        self.log = directory / "sshd.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._reserved = _reserve_port()
        self.port = int(self._reserved.getsockname()[1])
        self._sshd: subprocess.Popen[bytes] | None = None
        for key in (self.key, self.host_key):
            make_key(key)
        self._write_files()

    def start(self) -> None:
        """Returns when it accepts connections. After a stop it has the same port and key as before."""
        assert self._sshd is None
        if os.geteuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self._sshd = subprocess.Popen(
            [_SSHD, "-D", "-e", "-f", str(self._config), "-E", str(self.log)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_it_listens()

    def stop(self) -> None:
        """As an administrator does: no new connections, those that are there stay."""
        self._end_listener(signal.SIGTERM)

    def cut(self) -> int:
        """Kill the processes that serve connections, and with them the connections. New ones are
        accepted. Returns how many there were."""
        return self._signal_connections(signal.SIGKILL)

    def freeze(self) -> int:
        """As ``cut``, but they are not killed: they only do nothing any more, until ``kill``."""
        return self._signal_connections(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill sshd, its connections and what they started; what has left them (the agent) stays."""
        if self._sshd is not None:
            self._sshd.send_signal(signal.SIGSTOP)  # It must not make another child meanwhile.
            _kill(descendants(self._sshd.pid))
        self._end_listener(signal.SIGKILL)

    def reboot(self) -> None:
        """Kill everything on this host. It is down until ``start``."""
        self.kill()
        while pids := self.processes():
            _kill(pids)
            time.sleep(0.01)

    def close(self) -> None:
        self.reboot()
        self._reserved.close()

    def processes(self, text: str = "") -> list[int]:
        """What runs on this host, connections apart: pids whose environment has its home directory in
        it, and ``text``."""
        here = str(self.directory).encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                environ = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
                is_here = here + b"\0" in environ or here + b"/" in environ
                if is_here and text.encode() in environ:
                    found.append(int(entry.name))
        return found

    @property
    def _config(self) -> Path:
        return self.directory / "sshd_config"

    def _write_files(self) -> None:
        authorized_keys = self.directory / "authorized_keys"
        authorized_keys.write_bytes(self.key.with_suffix(".pub").read_bytes())
        public = " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {public}\n")
        settings = {
            "Port": str(self.port),
            "HostKey": str(self.host_key),
            "AuthorizedKeysFile": str(authorized_keys),
            "SetEnv": f"HOME={self.directory}",
            **self._settings,
        }
        self._config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))

    def _signal_connections(self, number: signal.Signals) -> int:
        assert self._sshd is not None
        connections = [pid for pid in descendants(self._sshd.pid) if _command(pid) == "sshd"]
        _kill(connections, number)
        return len(connections)

    def _wait_until_it_listens(self) -> None:
        assert self._sshd is not None
        for _ in range(1000):
            assert self._sshd.poll() is None, self.log.read_text()
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection((self.address, self.port), timeout=10).close()
                return
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def _end_listener(self, number: signal.Signals) -> None:
        if self._sshd is not None:
            self._sshd.send_signal(number)
            self._sshd.wait(timeout=10)
            self._sshd = None


@contextlib.contextmanager
def running_ssh_host(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[SshHost]:
    host = SshHost(directory, settings)
    try:
        host.start()
        yield host
    finally:
        host.close()


def make_key(path: Path, passphrase: str = "", *kind: str) -> None:
    arguments = kind or ("-t", "ed25519")
    subprocess.run(
        ["ssh-keygen", "-q", *arguments, "-N", passphrase, "-C", "test", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def descendants(pid: int) -> list[int]:
    """Children and theirs. Not by process group: sshd makes each connection the leader of its own."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def _reserve_port() -> socket.socket:
    """Bound and never listening. Linux lets sshd, which sets SO_REUSEADDR too, listen there, and gives
    the port to nobody else while it is down."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
