"""``mars-gateway`` as a client, as a process, of a gateway with real commands."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

pytestmark = pytest.mark.slow


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = subprocess.Popen(
        command("serve", "--port", "0", "--slots", "4", "--spool-dir", str(tmp_path_factory.mktemp("spool"))),
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@contextlib.contextmanager
def client(url: str, *arguments: str, **pipes: Any) -> Iterator["subprocess.Popen[bytes]"]:
    environment = {**ENVIRONMENT, "MARS_GATEWAY_URL": url}
    with subprocess.Popen(command(*arguments), env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def run(url: str, *arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    environment = {**ENVIRONMENT, "MARS_GATEWAY_URL": url}
    return subprocess.run(command(*arguments), env=environment, input=stdin, capture_output=True, timeout=60)


def active(url: str, session: str) -> int:
    count: int = httpx.get(f"{url}/v1/sessions/{session}").json()["execs_active"]
    return count


def wait_idle(url: str, session: str) -> None:
    while active(url, session):
        time.sleep(0.05)


def test_input_is_piped_through_to_its_end(url: str) -> None:
    data = os.urandom(3_000_000)
    done = run(url, "exec", "--session", "in", "--stdin", "--", "cat", stdin=data)
    assert (done.returncode, done.stdout == data) == (0, True)
    without = run(url, "exec", "--session", "in", "--", "cat", stdin=b"not passed on")
    assert (without.returncode, without.stdout) == (0, b"")


def test_input_comes_as_it_is_written(url: str) -> None:
    with client(
        url, "exec", "--session", "in", "--stdin", "--", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.wait(30) == 0


def test_the_first_interrupt_goes_to_the_command(url: str) -> None:
    script = "trap 'echo got it; exit 7' INT; echo up; while :; do sleep 0.1; done"
    with client(
        url, "exec", "--session", "int", "--", "bash", "-c", script, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"got it\n"
        assert process.wait(30) == 7


def test_the_second_interrupt_ends_it(url: str) -> None:
    script = "trap 'echo no' INT; echo up; while :; do sleep 0.1; done"
    with client(
        url, "exec", "--session", "int2", "--", "bash", "-c", script, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"no\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert active(url, "int2") == 0


def test_an_interrupt_of_what_does_not_mind_ends_it_as_here(url: str) -> None:
    script = "echo up; exec sleep 300"
    with client(
        url, "exec", "--session", "int3", "--", "bash", "-c", script, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.parametrize("ties", [True, False])
def test_a_client_killed_without_a_word(url: str, ties: bool) -> None:
    """The command goes on, unless it was tied to its client."""
    session, more = f"gone{ties:d}", ["--cancel-on-disconnect"] if ties else []
    script = "echo up; sleep 300"
    arguments = ["exec", "--session", session, *more, "--", "bash", "-c", script]
    with client(url, *arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
        process.wait()
    if ties:
        wait_idle(url, session)
    assert active(url, session) == (0 if ties else 1)
    httpx.delete(f"{url}/v1/sessions/{session}", timeout=30)


def test_a_reader_that_leaves_ends_it(url: str) -> None:
    with client(url, "exec", "--session", "pipe", "--", "yes", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
    wait_idle(url, "pipe")


def test_state_is_kept_between_commands(url: str) -> None:
    shell = ["exec", "--session", "state", "--state", "--"]
    assert run(url, *shell, "mkdir -p sub && cd sub && export COLOUR=blue").returncode == 0
    done = run(url, *shell, "echo $COLOUR; basename $PWD")
    assert done.stdout == b"blue\nsub\n"


def test_a_terminal(url: str) -> None:
    master, slave = pty.openpty()
    with client(
        url,
        "exec",
        "--session",
        "tty",
        "--tty",
        "--",
        "bash",
        "--norc",
        "-i",
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        os.write(master, b"tty && echo $((6*7))\r")
        seen = read_until(master, b"42")
        assert b"/dev/pts/" in seen
        os.write(master, b"sleep 300\r")
        read_until(master, b"sleep 300")
        time.sleep(0.5)  # The shell gives the terminal to what it starts a moment after it echoes the line.
        os.write(master, b"\x03")
        os.write(master, b"exit 5\r")
        read_until(master, b"exit 5")
        while process.poll() is None:
            read_some(master)
        assert process.returncode == 5
    os.close(master)


def read_some(master: int) -> bytes:
    if not select.select([master], [], [], 0.1)[0]:
        return b""
    try:
        return os.read(master, 65536)
    except OSError:
        return b""


def read_until(master: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += read_some(master)
    return seen


def test_copying_in_and_out(url: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(os.urandom(2_000_000))
    (source / "run.sh").write_text("echo ran")
    (source / "run.sh").chmod(0o755)
    assert run(url, "cp", str(source), "cp:there").returncode == 0
    assert run(url, "cp", "cp:there", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back/deep/file").read_bytes() == (source / "deep/file").read_bytes()
    assert os.access(tmp_path / "back/run.sh", os.X_OK)
    assert run(url, "cp", str(source / "run.sh"), "cp:one.sh").returncode == 0
    assert run(url, "cp", "cp:one.sh", str(tmp_path / "one.sh")).returncode == 0
    assert (tmp_path / "one.sh").read_text() == "echo ran"
    missing = run(url, "cp", "cp:nothing", str(tmp_path / "nothing"))
    assert (missing.returncode, (tmp_path / "nothing").exists()) == (2, False)
    assert run(url, "cp", "a", "b").stderr.startswith(b"mars-gateway: one of the two must be SESSION:PATH")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "one.sh", "source"]


def test_hosts_and_draining(url: str) -> None:
    assert run(url, "hosts").stdout.startswith(b"local up: ")
    assert run(url, "drain", "local").stdout.startswith(b"local draining: ")
    assert run(url, "drain", "local", "--end").stdout.startswith(b"local up: ")
    assert run(url, "exec", "--session", "d", "--", "true").returncode == 0


def test_a_terminal_over_a_websocket(url: str) -> None:
    """The shell outlives its clients; what they missed is replayed."""
    httpx.put(f"{url}/v1/sessions/ws")
    address = f"{url.replace('http', 'ws')}/v1/sessions/ws/pty?cols=97&rows=31"
    with connect(address) as socket:
        socket.send(b"stty size; export KEPT=yes\r")
        first = receive_until(socket, b"31 97")
        socket.send('{"resize": {"cols": 61, "rows": 20}}')
        socket.send(b"stty size; (sleep 0.3; echo la''ter) &\r")
        receive_until(socket, b"20 61")
    with connect(f"{address}&since=0") as socket:
        assert receive_until(socket, b"later").startswith(first[:20])
        socket.send(b"echo $KEPT; exit 4\r")
        receive_until(socket, b"yes")
        *_, last = [frame for frame in socket if isinstance(frame, str)]
    assert json.loads(last)["exit"]["exit_code"] == 4


def receive_until(socket: Any, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        frame = socket.recv(timeout=60)
        seen += frame if isinstance(frame, bytes) else b""
    return seen
