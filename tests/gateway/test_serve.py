"""The programs, as processes: ``serve``, ``exec``, signals, what a crash leaves."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ProcessesOf = Callable[[str], list[int]]
TOKEN = "a-token-of-enough-characters"


def gateway_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def environment(**extra: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **extra}


@contextlib.contextmanager
def serving(*arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        gateway_command("serve", "--port", "0", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
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
        assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.slow
def test_restart_after_a_crash_clears_up(processes_of: ProcessesOf, tmp_path: Path) -> None:
    with serving("--spool-dir", str(tmp_path)) as (process, url):
        httpx.put(f"{url}/v1/sessions/s")
        exec_id = httpx.post(f"{url}/v1/sessions/s/execs", json={"command": "sleep 300"}).json()["id"]
        while not processes_of(exec_id):
            pass
        assert "another gateway is using" in failing("serve", "--port", "0", "--spool-dir", str(tmp_path))
        process.kill()
        process.wait()
    assert processes_of(exec_id) != []
    with serving("--spool-dir", str(tmp_path)) as (_, url):
        assert processes_of(exec_id) == []
        assert httpx.get(f"{url}/v1/execs/{exec_id}").status_code == 404


@pytest.mark.slow
def test_tokens_open_other_addresses_and_the_client_sends_them() -> None:
    assert "set token_file or MARS_GATEWAY_TOKENS" in failing("serve", "--host", "0.0.0.0", "--port", "0")
    with serving(MARS_GATEWAY_TOKENS=f"alice:{TOKEN}") as (_, url):
        assert "bearer token" in run_client(url, "--", "true").stderr
        assert run_client(url, "--", "true", MARS_GATEWAY_TOKEN=TOKEN).returncode == 0
