"""The child process's life: ready, failed to come up, told to stop, and nothing left of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from backend_patch.emulator.failures import CONTROL_FILE, Failures
from backend_patch.emulator.launch import LaunchError, LaunchOptions
from backend_patch.emulator.serve import EmulatedServer

pytestmark = pytest.mark.slow

STAND_IN = """
import http.server, subprocess, sys
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("grandchild", grandchild.pid, flush=True)
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""
BROKEN = "print('no such model', flush=True); raise SystemExit(3)"


class StandIn:
    """A small server in the place of vLLM."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(
        self, model_dir: Path, options: LaunchOptions, *, port: int, state_dir: Path, extra: Sequence[str]
    ) -> list[str]:
        return [sys.executable, "-c", self._program, str(port)]


def is_running(process: int) -> bool:
    """Neither gone nor a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until_gone(process: int) -> None:
    deadline_s = time.monotonic() + 30
    while is_running(process):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_server_is_ready_and_then_gone(tmp_path: Path) -> None:
    """With its children and its files."""
    with EmulatedServer(tmp_path, LaunchOptions(port=0), command=StandIn(STAND_IN)) as server:
        assert httpx.get(f"{server.url}/health").status_code == 200
        grandchild = int(server.last_lines().split()[-1])
        assert is_running(grandchild)
        assert server.report() is None
        server.fail(Failures(slow_step_every=2))
        state_dir = server.state_dir
        assert (state_dir / CONTROL_FILE).exists()
    until_gone(grandchild)
    assert not state_dir.exists()


def test_server_that_fails_shows_why(tmp_path: Path) -> None:
    server = EmulatedServer(tmp_path, LaunchOptions(port=0), command=StandIn(BROKEN))
    with pytest.raises(LaunchError, match="status 3:\nno such model"), server:
        pass
    assert not server.state_dir.exists()


def test_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    server = EmulatedServer(tmp_path, LaunchOptions(port=0), command=StandIn("input()"))
    server.start()
    try:
        with pytest.raises(LaunchError, match="not ready"):
            server.wait_until_healthy(timeout_s=0.1)
    finally:
        server.stop()
    assert server.process is None


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = EmulatedServer(tmp_path, LaunchOptions(port=port), command=StandIn(STAND_IN))
        with pytest.raises(LaunchError, match=f":{port}"):
            server.start()


def test_log_can_be_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with EmulatedServer(tmp_path, LaunchOptions(port=0), log=log, command=StandIn(STAND_IN)):
        pass
    assert "grandchild" in log.read_text()


def serve_stand_in(tmp_path: Path) -> subprocess.Popen[str]:
    """The command, with a stand-in for vLLM's interpreter."""
    program = tmp_path / "serve.py"
    program.write_text(
        "import functools, sys\n"
        "from pathlib import Path\n"
        "from backend_patch.emulator import serve\n"
        "from backend_patch.emulator.launch import LaunchOptions\n"
        "from tests.backend_patch.emulator.test_serve import STAND_IN, StandIn\n"
        "server = functools.partial(serve.EmulatedServer, command=StandIn(STAND_IN))\n"
        "sys.exit(serve.run(server(Path('.'), LaunchOptions(port=0))))\n"
    )
    env = os.environ | {"PYTHONPATH": os.getcwd()}  # noqa: PTH109 - where the tests were started
    return subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_says_when_it_is_ready_and_stops_when_told(tmp_path: Path, number: signal.Signals) -> None:
    with serve_stand_in(tmp_path) as command:
        assert command.stdout is not None
        url = command.stdout.readline().removeprefix("emulated vllm ready on ").strip()
        assert httpx.get(f"{url}/health").status_code == 200
        command.send_signal(number)
        assert command.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_command_refuses_a_missing_model(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "backend_patch.emulator", "serve", str(tmp_path / "none"), "--port", "0"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "config.json" in done.stderr
    assert "Traceback" not in done.stderr
