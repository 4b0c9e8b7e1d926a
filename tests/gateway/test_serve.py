"""The programs, as processes: ``serve``, ``exec``, signals, what a crash leaves."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.gateway.redis_server import RedisServer

pytestmark = pytest.mark.slow  # real processes throughout

ProcessesOf = Callable[[str], list[int]]
TOKEN = "a-token-of-enough-characters"


def gateway_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **extra}


@contextlib.contextmanager
def serving(
    *arguments: str, log: Path = Path(os.devnull), **env: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            gateway_command("serve", "--port", "0", *arguments),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(**env),
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("mars-gateway ready on http://127.0.0.1:")
        yield process, line.split()[-1]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def agents_of(directory: Path) -> list[int]:
    """One of a directory that is kept is nobody's child."""
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if str(directory).encode() in words and b"serve" in words and b"-I" in words:
                    found.append(int(entry.name))
    return found


def run_client(url: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = gateway_command("exec", "--session", "cli", "--gateway", url, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(**env))


def failing(*arguments: str, **env: str) -> str:
    done = subprocess.run(
        gateway_command(*arguments), capture_output=True, text=True, timeout=60, env=environment(**env)
    )
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.slow
def test_client_is_like_running_it_here() -> None:
    with serving() as (_, url):
        done = run_client(url, "--", "bash", "-c", "echo out; echo err >&2; exit 3")
        assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)
        assert run_client(url, "--timeout-s", "0.1", "--", "sleep", "300").returncode == 124
        assert "there is no command" in run_client(url).stderr
    assert "does not answer" in run_client(url, "--", "true").stderr


@pytest.mark.slow
def test_client_says_why_a_program_was_not_started() -> None:
    """A command line in one string is the usual mistake, and an exit code alone does not explain it."""
    with serving() as (_, url):
        done = run_client(url, "--", "echo hello")
    assert done.returncode == 127
    assert done.stderr.startswith("mars-gateway: echo hello: ")
    assert "bash -c" in done.stderr


@pytest.mark.slow
def test_interrupted_client_cancels() -> None:
    with serving() as (_, url):
        command = gateway_command(
            "exec", "--session", "cli", "--gateway", url, "--", "bash", "-c", "echo up; sleep 300"
        )
        client = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        client.send_signal(signal.SIGINT)
        assert client.wait(30) == 130
        client.stdout.close()
        for _ in range(200):
            if httpx.get(f"{url}/v1/sessions/cli").json()["execs_active"] == 0:
                break
        assert httpx.get(f"{url}/v1/hosts").json()["hosts"][0]["running"] == 0


@pytest.mark.slow
def test_sigterm_ends_what_was_started_and_answers_who_waits(
    processes_of: ProcessesOf, tmp_path: Path
) -> None:
    stranger = subprocess.Popen(["sleep", "300"])
    with serving("--spool-dir", str(tmp_path / "spool")) as (process, url), httpx.Client(timeout=60) as http:
        http.put(f"{url}/v1/sessions/s")
        body = {"command": "setsid sleep 300 & sleep 300"}
        running = http.post(f"{url}/v1/sessions/s/execs", json=body).json()["id"]
        http.post(f"{url}/v1/sessions/s/execs", json={"command": f"kill -TERM {process.pid}"})
        answer = http.get(f"{url}/v1/execs/{running}", params={"wait": 30}).json()
        assert (answer["state"], answer["reason"]) == ("cancelled", "the gateway is shutting down")
        assert process.wait(30) == 0
        assert processes_of(running) == []
        assert list((tmp_path / "spool" / "sessions").iterdir()) == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.slow
def test_refusals_are_no_errors_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log=log) as (_, url):
        httpx.put(f"{url}/v1/sessions/s")
        for key in ("a", "b"):
            refused = httpx.post(
                f"{url}/v1/sessions/s/execs",
                json={"command": "ls", "cwd": ".."},
                headers={"Idempotency-Key": key},
            )
            assert refused.status_code == 400
        terminal = f"ws{url.removeprefix('http')}/v1/sessions/none/pty"
        with pytest.raises(InvalidStatus, match="404"), connect(terminal):
            raise AssertionError
    assert log.read_text() == ""


@pytest.mark.slow
def test_stop_that_keeps_commands_lets_go_who_waits_for_output(
    processes_of: ProcessesOf, tmp_path: Path
) -> None:
    """Their waits are of a minute, and the process is over long before."""
    with serving("--spool-dir", str(tmp_path), "--on-stop", "keep") as (process, url):
        httpx.put(f"{url}/v1/sessions/s")
        exec_id = httpx.post(f"{url}/v1/sessions/s/execs", json={"command": "sleep 300"}).json()["id"]
        until(lambda: bool(processes_of(exec_id)))
        with ThreadPoolExecutor() as pool:
            at, wait = f"{url}/v1/execs/{exec_id}", {"wait": 60}
            asked = [
                pool.submit(httpx.get, f"{at}/output", params=wait, timeout=90),
                pool.submit(httpx.get, at, params=wait, timeout=90),
                pool.submit(httpx.get, f"{at}/events", timeout=90),
            ]
            time.sleep(0.5)  # They are under way: should one of them not be, it proves less.
            process.terminate()
            assert process.wait(30) == 0
            output, status, events = (each.result(30) for each in asked)
        assert (output.status_code, output.content, output.headers["X-Eof"]) == (200, b"", "false")
        assert status.json()["state"] == "running"
        assert "event: exit" not in events.text
    with serving("--spool-dir", str(tmp_path)):
        pass
    assert processes_of(exec_id) == []
    until(lambda: not agents_of(tmp_path))


@pytest.mark.slow
def test_restart_after_a_crash_goes_on(processes_of: ProcessesOf, tmp_path: Path) -> None:
    """In a directory that is kept. The same key is the same command, and its output is whole."""
    waits = "until [ -e go ]; do sleep 0.1; done"
    command = {"command": f"echo one; {waits}; echo two; echo x >> ran; cat ran"}
    key = {"Idempotency-Key": "k"}
    with serving("--spool-dir", str(tmp_path)) as (process, url):
        workspace = Path(httpx.put(f"{url}/v1/sessions/s").json()["workspace"])
        exec_id = httpx.post(f"{url}/v1/sessions/s/execs", json=command, headers=key).json()["id"]
        endless = httpx.post(f"{url}/v1/sessions/s/execs", json={"command": "sleep 300"}).json()["id"]
        until(lambda: bool(processes_of(exec_id) and processes_of(endless)))
        assert "another gateway is using" in failing("serve", "--port", "0", "--spool-dir", str(tmp_path))
        process.kill()
        process.wait()
    assert processes_of(endless) != []
    with serving("--spool-dir", str(tmp_path)) as (_, url):
        (workspace / "go").touch()
        again = httpx.post(
            f"{url}/v1/sessions/s/execs", params={"wait": 60}, json=command, headers=key, timeout=90
        ).json()
        assert (again["id"], again["state"], again["exit_code"]) == (exec_id, "exited", 0)
        assert again["stdout"]["text"] == "one\ntwo\nx\n"
        assert httpx.get(f"{url}/v1/execs/{endless}").json()["state"] == "running"
    assert processes_of(endless) == [], "SIGTERM ends them"
    until(lambda: not agents_of(tmp_path))


@pytest.mark.slow
def test_crash_with_a_private_directory_leaves_nothing(processes_of: ProcessesOf) -> None:
    with serving() as (process, url):
        httpx.put(f"{url}/v1/sessions/s")
        exec_id = httpx.post(f"{url}/v1/sessions/s/execs", json={"command": "sleep 300"}).json()["id"]
        until(lambda: bool(processes_of(exec_id)))
        process.kill()
        process.wait()
        until(lambda: not processes_of(exec_id))


@pytest.mark.slow
def test_stop_that_keeps_commands(processes_of: ProcessesOf, tmp_path: Path) -> None:
    keep = ("--spool-dir", str(tmp_path), "--on-stop", "keep")
    with serving(*keep) as (_, url):
        httpx.put(f"{url}/v1/sessions/s")
        exec_id = httpx.post(f"{url}/v1/sessions/s/execs", json={"command": "sleep 300"}).json()["id"]
        until(lambda: bool(processes_of(exec_id)))
    assert processes_of(exec_id) != []
    with serving("--spool-dir", str(tmp_path)) as (_, url):
        ended = httpx.delete(f"{url}/v1/execs/{exec_id}", params={"wait": 30}, timeout=60).json()
        assert (ended["state"], ended["exit_code"]) == ("cancelled", 130)
    assert processes_of(exec_id) == []
    until(lambda: not agents_of(tmp_path))


@pytest.mark.slow
def test_keys_in_redis_outlive_the_gateway_and_its_host(tmp_path: Path, redis_server: RedisServer) -> None:
    """The second gateway has a new directory, so no host tells it of the command: only the store does."""
    body, key = {"argv": ["true"]}, {"Idempotency-Key": "k"}
    with serving("--store", redis_server.url) as (_, url), httpx.Client(timeout=60) as http:
        http.put(f"{url}/v1/sessions/s")
        first = http.post(f"{url}/v1/sessions/s/execs", params={"wait": 30}, json=body, headers=key).json()
        assert first["state"] == "exited"
    with serving("--store", redis_server.url) as (_, url), httpx.Client(timeout=60) as http:
        http.put(f"{url}/v1/sessions/s")
        run = {"url": f"{url}/v1/sessions/s/execs", "params": {"wait": 30}, "json": body}
        again = http.post(**run, headers=key).json()
        assert (again["id"], again["state"], again["exit_code"]) == (first["id"], "exited", 0)
        redis_server.stop()
        refused = http.post(**run, headers={"Idempotency-Key": "k2"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert "Retry-After" in refused.headers
        assert http.post(**run).json()["state"] == "exited"
        redis_server.start()
        assert http.post(**run, headers={"Idempotency-Key": "k2"}).json()["state"] == "exited"


@pytest.mark.slow
def test_tokens_open_other_addresses_and_the_client_sends_them() -> None:
    assert "set token_file or MARS_GATEWAY_TOKENS" in failing("serve", "--host", "0.0.0.0", "--port", "0")
    with serving(MARS_GATEWAY_TOKENS=f"alice:{TOKEN}") as (_, url):
        assert "bearer token" in run_client(url, "--", "true").stderr
        assert run_client(url, "--", "true", MARS_GATEWAY_TOKEN=TOKEN).returncode == 0
