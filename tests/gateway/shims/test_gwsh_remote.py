"""``gwsh`` in remote mode, on a real gateway: the command runs there as if it ran here."""

import hashlib
import os
import random
import signal
import subprocess
import time

import pytest

from tests.gateway.shims.shim import Shims, sleeping, unique_seconds
from tests.gateway_live.processes import descendants, eventually
from tests.gateway_live.world import World

pytestmark = pytest.mark.slow


@pytest.fixture
def remote(shims: Shims) -> Shims:
    shims.settings |= {
        "MARS_GWSH_MODE": "remote",
        "MARS_GATEWAY_SESSION": f"remote-{random.randrange(10**9)}",
    }
    return shims


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["-c", "echo out; echo err >&2; exit 7"], 7, "out\n", "err\n"),
        (["-lc", "shopt -q login_shell && echo login"], 0, "login\n", ""),
        (["-l", "-c", 'echo "$0 $1"', "zero", "one"], 0, "zero one\n", ""),
        (["-c", "kill -9 $$"], 137, "", ""),
        (["-c", "printf '\\377\\001é'"], 0, "\udcff\x01é", ""),
        (["echo a && echo b"], 0, "a\nb\n", ""),
        (["-c", "read x; echo ${x:-nothing}"], 0, "nothing\n", ""),
    ],
)
def test_it_runs_there(remote: Shims, words: list[str], code: int, out: str, err: str) -> None:
    answer = remote.shell(*words, errors="surrogateescape", encoding="utf-8")
    assert (answer.returncode, answer.stdout, answer.stderr) == (code, out, err)


def test_input_goes_there_and_output_comes_back_whole(remote: Shims) -> None:
    data = random.randbytes(3_000_000).hex()
    answer = remote.shell("-c", "tee >(sha256sum >&2); wait", input=data)
    assert answer.stdout == data
    assert answer.stderr.split()[0] == hashlib.sha256(data.encode()).hexdigest()


def test_script_from_input(remote: Shims) -> None:
    assert remote.shell("-s", "a", input="echo $1; read x; echo $x\nline\n").stdout == "a\nline\n"


def test_output_comes_as_it_is_written(remote: Shims) -> None:
    goon = remote.directory / "goon"
    with remote.started("-c", f"echo first; until [ -e {goon} ]; do sleep 0.02; done; echo last") as shim:
        assert shim.stdout is not None
        assert shim.stdout.readline() == "first\n"
        goon.touch()
        assert shim.stdout.read() == "last\n"


def test_both_streams_into_one_keep_their_order(remote: Shims) -> None:
    script = "for i in 1 2 3 4; do echo o$i; echo e$i >&2; done"
    answer = remote.shell("-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert answer.stdout.split() == ["o1", "e1", "o2", "e2", "o3", "e3", "o4", "e4"]


def test_it_starts_in_the_same_directory(remote: Shims) -> None:
    assert remote.shell("-c", "pwd").stdout.strip() == str(remote.directory)


def test_root_stands_for_the_workspace(remote: Shims) -> None:
    remote.settings["MARS_GWSH_ROOT"] = str(remote.directory)
    (remote.directory / "below").mkdir()
    workspace = remote.shell("-c", "mkdir below; pwd").stdout.strip()
    assert workspace.endswith("/workspace")
    assert remote.shell("-c", "pwd", cwd=remote.directory / "below").stdout.strip() == f"{workspace}/below"
    elsewhere = remote.shell("-c", "pwd", cwd="/")
    assert (elsewhere.returncode, elsewhere.stdout) == (125, "")
    assert "MARS_GWSH_ROOT" in elsewhere.stderr


def test_environment_goes_by_the_list(remote: Shims) -> None:
    more = {"PAGER": "less", "LC_TIME": "C", "SECRET": "s", "WANTED": "w"}
    script = 'echo "$PAGER $LC_TIME [$SECRET] [$WANTED]"'
    given = {**remote.environment, **more}
    assert remote.shell("-c", script, env=given).stdout == "less C [] []\n"
    given["MARS_GWSH_ENV"] = "WANT*,PAGER"
    assert remote.shell("-c", script, env=given).stdout == "less  [] [w]\n"


def test_time_limit(remote: Shims) -> None:
    remote.settings["MARS_GWSH_TIMEOUT_S"] = "0.3"
    assert remote.shell("-c", "echo before; sleep 1000").returncode == 124


def test_commands_below_it_are_not_sent_again(remote: Shims, world: World) -> None:
    script = f"export MARS_GATEWAY_URL=http://127.0.0.1:9; {remote.gwsh} -c 'echo nested $MARS_EXEC_ID'"
    assert remote.shell("-c", script).stdout.startswith("nested ex-")


def test_without_a_gateway_nothing_runs(remote: Shims) -> None:
    remote.url = "http://127.0.0.1:9"
    answer = remote.shell("-c", "echo never")
    assert (answer.returncode, answer.stdout) == (125, "")
    assert "127.0.0.1:9" in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_go_there(remote: Shims, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with remote.started(
        "-c", f"trap 'echo got {name}; exit 9' {name}; echo ready; sleep 1000 & wait"
    ) as shim:
        assert shim.stdout is not None
        assert shim.stdout.readline() == "ready\n"
        shim.send_signal(number)
        assert shim.wait() == 9
        assert shim.stdout.read() == f"got {name}\n"


def test_second_interrupt_ends_what_ignores_the_first(remote: Shims) -> None:
    with remote.started("-c", "trap '' INT TERM; echo ready; sleep 1000; true") as shim:
        assert shim.stdout is not None
        assert shim.stdout.readline() == "ready\n"
        shim.send_signal(signal.SIGINT)
        time.sleep(0.3)  # Two at once would be one.
        shim.send_signal(signal.SIGINT)
        assert shim.wait() in (130, 137)


def test_killed_shim_ends_its_command(remote: Shims) -> None:
    seconds = unique_seconds()
    with remote.started("-c", f"setsid sleep {seconds} & sleep {seconds}; true") as shim:
        eventually(lambda: len(sleeping(seconds)) >= 2, "it runs")
        shim.kill()
    eventually(lambda: not sleeping(seconds), "it is gone")


def test_when_all_that_is_ours_is_killed_the_gateway_ends_it(remote: Shims) -> None:
    seconds = unique_seconds()
    with remote.started("-c", f"sleep {seconds}; true") as shim:
        eventually(lambda: sleeping(seconds), "it runs")
        (vigil,) = descendants(shim.pid)
        os.kill(vigil, signal.SIGKILL)
        shim.kill()
        shim.wait()
    eventually(lambda: not sleeping(seconds), "it is gone")


def test_reader_that_leaves_ends_it(remote: Shims) -> None:
    seconds = unique_seconds()
    with remote.started("-c", f"echo first; while sleep 0.05; do echo more; done; sleep {seconds}") as shim:
        assert shim.stdout is not None
        shim.stdout.readline()
        shim.stdout.close()
        assert shim.wait() == 141


def test_label_and_family_of_the_agent(remote: Shims, world: World) -> None:
    """Ids that frameworks give their tools name the session and tell the proxy which agent it is."""
    del remote.settings["MARS_GATEWAY_SESSION"]
    remote.settings |= {"CODEX_THREAD_ID": "thread-7", "CODEX_TOOL_CALL_ID": "call_1"}
    exec_id = remote.shell("-c", "echo $MARS_EXEC_ID").stdout.strip()
    record = world.caller.look(exec_id)
    assert record["session"] == "codex-thread-7"
    assert record["labels"] == {"tool_call_id": "call_1"}
