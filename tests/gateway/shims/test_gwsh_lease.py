"""``gwsh`` in lease mode, on a real gateway: the shell is as it would be, and admitted."""

import contextlib
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gateway.shims.shim import ROOM, SLOTS_OF_ONE, Shims, sleeping, unique_seconds
from tests.gateway_live.processes import carrying, descendants, eventually, named
from tests.gateway_live.world import World

pytestmark = pytest.mark.slow

DOWN = "http://127.0.0.1:9"
"""Nobody listens on the port of "discard"."""


def leases_over(world: World) -> float:
    text = world.caller.http.get("/metrics").text
    return sum(float(each) for each in re.findall(r"^mars_gateway_leases_total\{[^}]*\} (\S+)", text, re.M))


def leases_held(world: World) -> float:
    return float(world.caller.hosts()["local"]["slots_used"]) / SLOTS_OF_ONE


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "echo out; echo err >&2; exit 7"],
        ["-lc", "shopt -q login_shell && echo login"],
        ["-c", "-l", "shopt -q login_shell; echo $?"],
        ["-l", "-c", 'echo "$0 $1 $#"', "zero", "one two"],
        ["--norc", "-o", "pipefail", "-c", "false | true"],
        ["-c", 'echo "$-"; pwd; umask; ulimit -n'],
        ["-c", "no-such-program-here"],
        ["-c", "("],
        ["-c", "kill -TERM $$"],
        ["-c", "kill -9 $$"],
        ["-e", "-c", "false; echo never"],
        ["-c", "env | grep -v -e ^_= -e ^MARS_ | sort"],
        ["-c", "trap -p; head -c1 /dev/zero | tr '\\0' x; yes | head -1; echo ${PIPESTATUS[0]}"],
        ["no-such-script.sh", "argument"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_it_is_the_shell_that_it_stands_for(shims: Shims, words: list[str]) -> None:
    """Output, exit code, signal: the same as of bash with these words."""
    ours = shims.shell(*words)
    real = subprocess.run(
        ["/bin/bash", *words],
        capture_output=True,
        text=True,
        env=shims.environment,
        cwd=shims.directory,
        stdin=subprocess.DEVNULL,
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (real.returncode, real.stdout, real.stderr)


def test_scripts_from_files_and_from_input(shims: Shims, world: World) -> None:
    (shims.directory / "script").write_text("echo script $1 $#; cat\n")
    before = leases_over(world)
    assert shims.shell("script", "a", "b", input="input").stdout == "script a 2\ninput"
    assert shims.shell("-s", "a", input="echo $1; read x; echo $x\nline\n").stdout == "a\nline\n"
    with (shims.directory / "script").open() as script:
        assert shims.shell(stdin=script).stdout == "script 0\n"
    assert leases_over(world) > before


def test_prefix_gets_the_whole_command_as_one_word(shims: Shims) -> None:
    assert shims.shell("echo a && echo 'b  c'").stdout == "a\nb  c\n"


def test_lease_is_held_while_it_runs_and_back_when_it_is_over(shims: Shims, world: World) -> None:
    before = leases_over(world)
    answer = shims.shell("-c", f"curl -s {shims.url}/v1/hosts")
    assert '"slots_used":20.0' in answer.stdout
    assert leases_over(world) == before + 1
    assert leases_held(world) == 0


def test_how_it_ended_is_told(shims: Shims, world: World) -> None:
    """Exit code, CPU and memory, for what is learned of commands."""
    for _ in range(4):
        shims.shell("-c", "expr 1 + 1")
    text = world.caller.http.get("/metrics").text
    assert re.search(r"mars_gateway_leases_total\{state=\"released\"\} [1-9]", text)


def test_commands_below_it_take_no_lease_of_their_own(shims: Shims, world: World) -> None:
    before = leases_over(world)
    nested = f"{shims.gwsh} -c 'echo $MARS_GWSH_COMMAND; {shims.gwsh} -c true'"
    answer = shims.shell("-c", f"echo $MARS_GWSH_COMMAND; {nested}", env={**shims.environment})
    outer, inner = answer.stdout.split()
    assert outer == inner
    assert leases_over(world) == before + 1


def test_no_more_run_at_a_time_than_there_are_slots(shims: Shims, world: World) -> None:
    """Twenty agents at once: all are served, and never more beside each other than there is room for."""
    shims.settings |= {"MARS_GWSH_ON_FAULT": "fail", "MARS_GWSH_QUEUE_S": "50"}
    running = shims.directory / "running"
    running.mkdir()
    work = "head -c 3000000 /dev/urandom | md5sum >&2"
    command = f"touch {running}/$$; ls {running} | wc -l; {work}; rm {running}/$$"

    def agent(number: int) -> "subprocess.CompletedProcess[str]":
        return shims.shell(
            "-c", command, env={**shims.environment, "MARS_GATEWAY_SESSION": f"agent-{number}"}
        )

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(agent, range(20)))
    assert [each.returncode for each in answers] == [0] * 20
    assert max(int(each.stdout) for each in answers) <= ROOM
    eventually(lambda: leases_held(world) == 0, "all leases are back")


def test_without_a_gateway_it_runs_here_and_says_nothing(shims: Shims) -> None:
    shims.url = DOWN
    answer = shims.shell("-c", "echo here; exit 3")
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "here\n", "")


def test_without_a_gateway_it_fails_if_that_is_wanted(shims: Shims) -> None:
    shims.url = DOWN
    shims.settings["MARS_GWSH_ON_FAULT"] = "fail"
    answer = shims.shell("-c", "echo here")
    assert (answer.returncode, answer.stdout) == (125, "")
    assert "127.0.0.1:9" in answer.stderr


def test_without_room_in_time_it_does_as_without_a_gateway(shims: Shims, world: World) -> None:
    shims.settings |= {"MARS_GWSH_QUEUE_S": "50", "MARS_GWSH_ON_FAULT": "fail"}
    with contextlib.ExitStack() as holders:
        for name in ("first", "second", "third"):  # Of one session, they would borrow from each other.
            shims.settings["MARS_GATEWAY_SESSION"] = name
            holders.enter_context(shims.started("-c", f"sleep {unique_seconds()}; true"))
        eventually(lambda: leases_held(world) == ROOM, "all slots are taken")
        shims.settings |= {"MARS_GWSH_QUEUE_S": "0.3", "MARS_GATEWAY_SESSION": "fourth"}
        refused = shims.shell("-c", "tar --version")
        assert refused.returncode == 125
        assert "slot" in refused.stderr
        shims.settings["MARS_GWSH_ON_FAULT"] = "run"
        assert shims.shell("-c", "tar --version").returncode == 0
    eventually(lambda: leases_held(world) == 0, "the slots of what was killed are back")


@pytest.mark.parametrize(
    "what", ["MARS_GWSH_MODE", "MARS_GWSH_ON_FAULT", "MARS_GWSH_CPU", "MARS_GATEWAY_URL"]
)
def test_a_setting_that_means_nothing_is_an_error(shims: Shims, what: str) -> None:
    answer = shims.shell("-c", "echo never", env={**shims.environment, what: "nonsense"})
    assert (answer.returncode, answer.stdout) == (125, "")
    assert what in answer.stderr
    assert "nonsense" in answer.stderr


def test_a_shell_that_is_not_there(shims: Shims, world: World) -> None:
    shims.settings["MARS_GWSH_SHELL"] = "/no/such/shell"
    answer = shims.shell("-c", "true")
    assert answer.returncode == 127
    assert "/no/such/shell" in answer.stderr
    assert leases_held(world) == 0


def test_killed_shim_leaves_nothing_behind(shims: Shims, world: World) -> None:
    """kill -9 of the shim alone: what it started, in its group or not, ends; the lease is back."""
    inside, outside = unique_seconds(), unique_seconds()
    with shims.started("-c", f"setsid sleep {outside} & sleep {inside}; true") as shim:
        eventually(lambda: sleeping(inside) and sleeping(outside), "both run")
        helpers = descendants(shim.pid)
        shim.kill()
    eventually(lambda: not sleeping(inside) and not sleeping(outside), "both are gone")
    eventually(lambda: leases_held(world) == 0, "the lease is back")
    eventually(lambda: not set(helpers) & set(named("")), "its helpers are gone")


def test_shim_that_is_killed_while_it_waits_leaves_the_queue(shims: Shims, world: World) -> None:
    shims.settings["MARS_GWSH_QUEUE_S"] = "50"
    with contextlib.ExitStack() as holders:
        for name in ("first", "second", "third"):
            shims.settings["MARS_GATEWAY_SESSION"] = name
            holders.enter_context(shims.started("-c", f"sleep {unique_seconds()}; true"))
        eventually(lambda: leases_held(world) == ROOM, "all slots are taken")
        shims.settings["MARS_GATEWAY_SESSION"] = "fourth"
        with shims.started("-c", "true") as shim:
            eventually(lambda: world.caller.hosts()["local"]["queued"] == 1, "it waits")
            shim.kill()
        eventually(lambda: world.caller.hosts()["local"]["queued"] == 0, "it waits no more")


def test_closed_descriptors(shims: Shims) -> None:
    """Where they are, nothing of ours takes their places."""
    command = f"exec {shims.gwsh} -c 'cat; echo done' <&- 2>&-"
    answer = subprocess.run(["bash", "-c", command], env=shims.environment, stdout=subprocess.PIPE, text=True)
    assert (answer.returncode, answer.stdout) == (0, "done\n")


def test_killed_group_gives_the_lease_back(shims: Shims, world: World) -> None:
    """As agents end a command that takes too long."""
    seconds = unique_seconds()
    with shims.started("-c", f"sleep {seconds}; true") as shim:
        eventually(lambda: leases_held(world) == 1 and sleeping(seconds), "it runs")
        os.killpg(shim.pid, signal.SIGKILL)
        assert shim.wait() == -signal.SIGKILL
    eventually(lambda: leases_held(world) == 0 and not sleeping(seconds), "nothing is left")


@pytest.mark.parametrize("to_group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_command_gets_each_signal_once(shims: Shims, number: signal.Signals, to_group: bool) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got' {name}; echo ready; for i in $(seq 20); do sleep 0.05; done; echo end"
    with shims.started("-c", script) as shim:
        assert shim.stdout is not None
        assert shim.stdout.readline() == "ready\n"
        (os.killpg if to_group else os.kill)(shim.pid, number)
        out, _ = shim.communicate()
    assert out.count("got") == 1
    assert shim.returncode in (0, 128 + number, -number)


def test_interrupt_ends_it_as_it_ends_bash(shims: Shims) -> None:
    seconds = unique_seconds()
    with shims.started("-c", f"sleep {seconds}") as shim:
        eventually(lambda: sleeping(seconds), "it runs")
        os.killpg(shim.pid, signal.SIGINT)
        assert shim.wait() == -signal.SIGINT


def test_it_is_in_the_process_group_that_it_was_started_in(shims: Shims) -> None:
    with shims.started("-c", "ps -o pgid= -p $$; ps -o sid= -p $$") as shim:
        out, _ = shim.communicate()
    assert out.split() == [str(shim.pid)] * 2


def test_what_stays_in_the_background_is_left_alone(shims: Shims) -> None:
    """As bash leaves it; and it keeps nobody waiting who reads our output to its end, unless it holds it."""
    seconds = unique_seconds()
    answer = shims.shell("-c", f"sleep {seconds} >/dev/null 2>&1 & echo started")
    assert answer.stdout == "started\n"
    assert len(sleeping(seconds)) == 1
    for each in sleeping(seconds):
        os.kill(each, signal.SIGKILL)


def test_environment_is_as_it_was_given(shims: Shims) -> None:
    """No locale of Python's own, nothing but the mark."""
    bare = {"PATH": "/usr/bin:/bin", "MARS_GATEWAY_URL": shims.url}
    answer = shims.shell("-c", "env", env=bare)
    names = {line.split("=")[0] for line in answer.stdout.splitlines()}
    assert names == {"PATH", "MARS_GATEWAY_URL", "MARS_GWSH_COMMAND", "PWD", "SHLVL", "_"}


def test_nothing_of_it_is_left(shims: Shims) -> None:
    shims.shell("-c", "true")
    assert carrying(str(shims.directory)) == []


def test_what_it_uses_is_told_and_set_aside(shims: Shims, world: World) -> None:
    """So that it does not count as other programs' use as well."""
    used = "import time; used = b'x' * 700_000_000; time.sleep(1000)"
    with shims.started("-c", f'python3 -c "{used}"; true') as shim:
        eventually(lambda: world.caller.hosts()["local"]["memory_reserved_mb"] > 650, "it is known")
        shim.kill()
    eventually(lambda: world.caller.hosts()["local"]["memory_reserved_mb"] < 650, "it is free again")
