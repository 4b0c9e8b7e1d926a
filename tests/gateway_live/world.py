"""A gateway, the host that runs its commands and a caller, with the accidents that may befall them.

Owns how a place ("local" or "ssh") is set up, broken and taken down, and where commands leave traces
(``traces``: files outside of every workspace). Tests say what has to hold, not how it is arranged.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import uuid
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.ssh_host import SshHost, running_ssh_host
from tests.gateway_live.caller import Caller, Session
from tests.gateway_live.gateway_process import GatewayProcess
from tests.gateway_live.processes import (
    carrying,
    command_name,
    descendants,
    environment,
    eventually,
    kill_all,
    named,
)

PLACES = ("local", "ssh")
AGENT_DIRECTORY = ".mars-agent"
"""Of a worker, in the home directory there."""

JUMPING = """
import pathlib, time
_real_time = time.time
def _offset_s():
    try:
        return float(pathlib.Path({offset!r}).read_text())
    except (OSError, ValueError):
        return 0.0
time.time = lambda: _real_time() + _offset_s()
time.time_ns = lambda: int(time.time() * 1e9)
"""


@dataclass
class World:
    place: str
    directory: Path
    gateway: GatewayProcess
    caller: Caller
    workers: dict[str, SshHost]
    """Hosts reached over SSH, by name; none in the place "local"."""

    @property
    def host(self) -> str:
        return next(iter(self.workers), "local")

    @property
    def traces(self) -> Path:
        return self.directory / "traces"

    def session(self, name: str | None = None, **settings: object) -> Session:
        return self.caller.session(name, **{"host": self.host, **settings})

    def trace(self) -> Path:
        """A file for a command to write to that survives its session."""
        return self.traces / uuid.uuid4().hex[:8]

    def agents(self) -> list[int]:
        """Pids of the agents of its hosts."""
        return named("agent", "serve", str(self.directory))

    def commands(self) -> list[int]:
        """Pids of all that its commands started: the agents give them homes in here."""
        return sorted(set(carrying("MARS_EXEC_ID=")) & set(carrying(str(self.directory))))

    def orphans(self, within_s: float = 15.0) -> list[str]:
        """What is still there, in words, when every command should be over. What is being ended gets
        ``within_s`` for it."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.commands(), "no command is left", within_s)
        return [
            f"{pid} of {environment(pid)['MARS_EXEC_ID']}: {command_name(pid)}" for pid in self.commands()
        ]

    def set_clock(self, ahead_s: float) -> None:
        """Of gateway and agents: how far it is ahead of the machine's."""
        (self.directory / "clock").write_text(str(ahead_s))

    def start_gateway(self) -> None:
        self.caller.move_to(self.gateway.start())
        eventually(self.is_up, "all hosts are up")

    def is_up(self) -> bool:
        """It has heard from every host, also what ran there before."""
        is_ready = self.caller.http.get("/readyz").status_code == 200
        return is_ready and all(host["state"] == "up" for host in self.caller.hosts().values())

    def kill_gateway(self) -> None:
        self.gateway.kill()

    def restart_gateway(self) -> None:
        self.kill_gateway()
        self.start_gateway()

    def kill_agent(self) -> None:
        kill_all(self.agents())

    def unplug(self, name: str) -> None:
        """A host cannot be reached until its ``start``; agent and commands go on."""
        worker = self.workers[name]
        (listener,) = named("sshd", str(worker.directory / "sshd_config"))
        connections = [pid for pid in descendants(listener) if command_name(pid) == "sshd"]
        worker.stop()
        kill_all(connections)

    def reboot_host(self) -> None:
        """Everything on it ends at once; the gateway's own host takes the gateway along."""
        if not self.workers:
            self.kill_gateway()
        for worker in self.workers.values():
            worker.reboot()
        self.kill_agent()
        kill_all(self.commands())
        for worker in self.workers.values():
            worker.start()
        if not self.workers:
            self.start_gateway()


@contextlib.contextmanager
def open_world(
    place: str,
    *arguments: str,
    slots: float = 8,
    workers: int = 1,
    lost_after_s: float | None = None,
    token: str | None = None,
    disk_mb: int | None = None,
    has_clock: bool = False,
    **environment: str,
) -> Iterator[World]:
    """Leaves nothing behind, whatever happened in it. The directory's name is short: sockets are in it.

    ``slots`` and ``lost_after_s`` are of each host. ``disk_mb``: agents' directories are on a disk of that
    size. ``has_clock``: ``World.set_clock`` works.
    """
    directory = Path(tempfile.mkdtemp(prefix="mars-live-"))
    (directory / "traces").mkdir()
    python = _jumping_python(directory) if has_clock else Path(sys.executable)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(_end_everything, str(directory))
        hosts = {}
        for name in [f"w{number + 1}" for number in range(workers if place == "ssh" else 0)]:
            home = directory / name
            hosts[name] = stack.enter_context(running_ssh_host(home))
        if disk_mb is not None:
            for each in [directory / name / AGENT_DIRECTORY for name in hosts] or [directory / "spool"]:
                stack.enter_context(_small_disk(each, disk_mb))
        settings = {"slots": slots, "lost_after_s": lost_after_s, "python": str(python)}
        where = _hosts_file(directory / "hosts.toml", hosts, **settings) if hosts else ["--slots", str(slots)]
        gateway = GatewayProcess(
            directory / "spool",
            directory / "gateway.log",
            [*where, *arguments],
            environment,
            python,
        )
        caller = Caller("http://not-started", token)
        stack.callback(caller.close)
        world = World(place, directory, gateway, caller, hosts)
        stack.callback(gateway.kill)
        world.start_gateway()
        yield world


def _end_everything(directory: str) -> None:
    """Agents clear up after themselves where they are let."""
    kill_all(named("serve", directory), signal.SIGTERM)
    with contextlib.suppress(AssertionError):
        eventually(lambda: not named("serve", directory), "agents end", within_s=5)
    kill_all({*carrying(directory), *named(directory)})


@contextlib.contextmanager
def _small_disk(directory: Path, size_mb: int) -> Iterator[None]:
    directory.mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "none", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def _jumping_python(directory: Path) -> Path:
    """This Python with a ``time.time`` of ours, also where it is told to ignore its environment."""
    home = directory / "python"
    venv.create(home, symlinks=True, with_pip=False)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    Path(packages, "jumping_clock.py").write_text(JUMPING.format(offset=str(directory / "clock")))
    Path(packages, "jumping.pth").write_text(f"{sysconfig.get_path('purelib')}\nimport jumping_clock\n")
    return home / "bin" / "python3"


def _hosts_file(path: Path, hosts: dict[str, SshHost], **settings: object) -> list[str]:
    """Arguments for ``serve``."""
    path.write_text("".join(_host_table(name, host, settings) for name, host in hosts.items()))
    return ["--hosts", str(path)]


def _host_table(name: str, host: SshHost, settings: dict[str, object]) -> str:
    fields = {
        "address": host.address,
        "port": host.port,
        "user": host.user,
        "key_file": str(host.key),
        "known_hosts": str(host.known_hosts),
        "directory": str(host.directory / AGENT_DIRECTORY),
        **settings,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items() if value is not None]
    return "\n".join([f"[hosts.{name}]", *lines, "\n"])
