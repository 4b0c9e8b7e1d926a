"""``gwsh -i`` on a terminal, as OpenHands starts a shell: the bytes of bash, and leases while it works."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.shims.shim import ROOM, Shims, sleeping, unique_seconds
from tests.gateway.shims.test_gwsh_lease import DOWN, leases_held, leases_over
from tests.gateway_live.processes import HANG_S, eventually
from tests.gateway_live.world import World

pytestmark = pytest.mark.slow

PROMPT = b"<prompt>"
EDITS = b"\x1b[?2004h"
"""What bash writes when it begins to read a line, before its prompt."""


class Screen:
    """The other side of a terminal."""

    def __init__(self, master: int, shell: "subprocess.Popen[bytes]") -> None:
        self.master = master
        self.shell = shell
        self.seen = b""

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def until(self, text: bytes, times: int = 1) -> None:
        deadline_s = time.monotonic() + HANG_S
        while self.seen.count(text) < times:
            assert time.monotonic() < deadline_s, self.seen
            self.take()

    def take(self) -> bool:
        """False: nothing more comes."""
        if not select.select([self.master], [], [], 0.1)[0]:
            return self.shell.poll() is None
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:
            return False
        self.seen += data
        return data != b""

    def command(self, text: bytes, prompts: int) -> None:
        """Typed, and waited for until the prompt is there for the ``prompts``-th time."""
        self.type(text + b"\n")
        self.until(PROMPT, prompts)


@contextlib.contextmanager
def terminal(
    program: str, shims: Shims, *, is_controlled: bool, words: tuple[str, ...] = ()
) -> Iterator[Screen]:
    """A shell that leads a session, on a terminal that controls it or, as frameworks do it, does not."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))

    def control() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    shell = subprocess.Popen(
        [program, "--norc", "-i", *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=control if is_controlled else None,
        env={**shims.environment, "PS1": PROMPT.decode(), "TERM": "xterm-256color"},
        cwd=shims.directory,
    )
    os.close(slave)
    try:
        screen = Screen(master, shell)
        screen.until(PROMPT)
        yield screen
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        os.close(master)


def conversation(program: str, shims: Shims, *, is_controlled: bool) -> tuple[bytes, int]:
    """All bytes of it, and the exit code."""
    with terminal(program, shims, is_controlled=is_controlled) as screen:
        lines = [
            b"echo $((6*7)); stty size; tty > /dev/null && echo tty",
            b"printf 'a\\tb\\033[1mbold\\033[0m\\r\\nx\\377y\\n'; echo $-",
            b"for i in 1 2 3; do echo $i; sleep 0.1; done",
            b"cat <<EOF\nline one\nline two\nEOF",
            b"read x; echo got $x\nanswer",
            b"python3 -c 'print(\"z\" * 20000)'",
            b"false | true; echo ${PIPESTATUS[*]}",
            b"stty -echo; echo silent",
            b"stty echo",
            b"(exit 3); echo $?; set +m; kill -TERM $$",
        ]
        for count, line in enumerate(lines, start=2):
            screen.command(line, count)
        screen.type(b"exit 5\n")
        while screen.take():
            pass
        return screen.seen, screen.shell.wait()


@pytest.mark.parametrize("is_controlled", [True, False])
@pytest.mark.parametrize("is_up", [True, False], ids=["gateway", "no gateway"])
def test_bytes_are_those_of_bash(shims: Shims, is_controlled: bool, is_up: bool) -> None:
    real = conversation("/bin/bash", shims, is_controlled=is_controlled)
    if not is_up:
        shims.url = DOWN
    assert conversation(shims.gwsh, shims, is_controlled=is_controlled) == real
    assert real[1] == 5


def test_lease_is_held_while_it_works_only(shims: Shims, world: World) -> None:
    goon = shims.directory / "goon"
    with terminal(shims.gwsh, shims, is_controlled=False) as screen:
        eventually(lambda: leases_held(world) == 0, "it rests at its prompt")
        before = leases_over(world)
        screen.type(b"until [ -e %s ]; do :; done\n" % bytes(goon))
        eventually(lambda: leases_held(world) == 1, "it works")
        goon.touch()
        eventually(lambda: leases_held(world) == 0, "it rests again")
        assert leases_over(world) == before + 1
        screen.type(b"exit\n")


def test_what_only_waits_holds_nothing(shims: Shims, world: World) -> None:
    with terminal(shims.gwsh, shims, is_controlled=True) as screen:
        screen.type(b"cat\n")
        screen.until(b"cat\r\n")
        eventually(lambda: leases_held(world) == 0, "cat waits for input")
        screen.type(b"through\n")
        screen.until(b"through\r\nthrough\r\n")


def test_work_waits_for_room(shims: Shims, world: World) -> None:
    """A line is withheld while others have all slots; Ctrl-C is not."""
    trace = shims.directory / "trace"
    with contextlib.ExitStack() as holders:
        for name in ("first", "second", "third"):
            shims.settings |= {"MARS_GATEWAY_SESSION": name, "MARS_GWSH_QUEUE_S": "50"}
            holder = holders.enter_context(shims.started("-c", f"sleep {unique_seconds()}; true"))
        eventually(lambda: leases_held(world) == ROOM, "all slots are taken")
        shims.settings["MARS_GATEWAY_SESSION"] = "fourth"
        with terminal(shims.gwsh, shims, is_controlled=False) as screen:
            screen.type(b"touch %s\n" % bytes(trace))
            time.sleep(0.5)  # Nothing happens.
            assert not trace.exists()
            os.killpg(holder.pid, signal.SIGKILL)
            eventually(trace.exists, "there was room for it")
            screen.type(b"exit\n")


def test_signals_to_its_group_interrupt_as_they_interrupt_bash(shims: Shims) -> None:
    """A terminal that controls the shell gives it job control; Ctrl-C reaches what is in front."""
    seconds = unique_seconds()
    with terminal(shims.gwsh, shims, is_controlled=True) as screen:
        screen.type(f"sleep {seconds}\n".encode())
        eventually(lambda: sleeping(seconds), "it runs")
        screen.type(b"\x03")
        screen.command(b"echo code $?", 3)
        assert b"code 130" in screen.seen
        lines = screen.seen.count(EDITS)
        os.killpg(screen.shell.pid, signal.SIGINT)  # At its prompt: a new line, and no end.
        screen.until(EDITS, lines + 1)
        screen.type(b"\n")  # bash loses the first key where the signal came between its prompt and its read.
        screen.type(b"echo al$((1))ive\n")
        screen.until(b"al1ive")


def test_killed_shim_leaves_nothing_behind(shims: Shims, world: World) -> None:
    seconds = unique_seconds()
    with terminal(shims.gwsh, shims, is_controlled=False) as screen:
        screen.type(f"setsid sleep {seconds} & sleep {seconds}\n".encode())
        eventually(lambda: len(sleeping(seconds)) == 2, "both run")
        screen.shell.kill()
        screen.shell.wait()
        eventually(lambda: not sleeping(seconds), "both are gone")
    eventually(lambda: leases_held(world) == 0, "its lease ended by itself")


def test_terminal_that_hangs_up_ends_it(shims: Shims) -> None:
    with terminal(shims.gwsh, shims, is_controlled=False) as screen:
        spare = os.open(os.devnull, os.O_RDONLY)
        os.dup2(spare, screen.master)  # Closes it.
        os.close(spare)
        assert screen.shell.wait(HANG_S) != 0


def test_new_size_is_passed_on(shims: Shims) -> None:
    with terminal(shims.gwsh, shims, is_controlled=True) as screen:
        fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 77, 0, 0))
        screen.type(b"sleep 0.1; stty size\n")
        screen.until(b"44 77")


def test_shell_on_pipes_is_admitted_bit_by_bit(shims: Shims, world: World) -> None:
    """As frameworks keep one shell for many commands."""
    goon = shims.directory / "goon"
    with shims.started(stdin=subprocess.PIPE, bufsize=1) as shim:
        assert shim.stdin is not None
        assert shim.stdout is not None
        shim.stdin.write("cd /; echo one\n")
        assert shim.stdout.readline() == "one\n"
        eventually(lambda: leases_held(world) == 0, "it rests")
        shim.stdin.write(f"until [ -e {goon} ]; do :; done; pwd\n")
        eventually(lambda: leases_held(world) == 1, "it works")
        goon.touch()
        assert shim.stdout.readline() == "/\n"
        shim.stdin.write("exit 4\n")
        assert shim.wait(HANG_S) == 4


def test_interactive_shell_at_the_gateway(shims: Shims) -> None:
    shims.settings |= {"MARS_GWSH_MODE": "remote", "MARS_GATEWAY_SESSION": "far"}
    with terminal(shims.gwsh, shims, is_controlled=True) as screen:
        screen.type(b"test -t 0 && echo is-$((1))-tty $MARS_EXEC_ID; stty size\n")
        screen.until(b"is-1-tty ex-")
        screen.until(b"33 101")
        seconds = unique_seconds()
        screen.type(f"sleep {seconds}\n".encode())
        eventually(lambda: sleeping(seconds), "it runs in front")
        screen.type(b"\x03")
        screen.type(b"echo code $?\n")
        screen.until(b"code 130")
        screen.type(b"exit 5\n")
        while screen.take():
            pass
        assert screen.shell.wait(HANG_S) == 5


def test_output_elsewhere_than_input_is_not_admitted(shims: Shims, world: World, tmp_path: Path) -> None:
    before = leases_over(world)
    master, slave = os.openpty()
    with (tmp_path / "out").open("wb") as out:
        shell = subprocess.Popen([shims.gwsh], stdin=slave, stdout=out, stderr=out, env=shims.environment)
        os.close(slave)
        os.write(master, b"echo hello; exit\n")
        assert shell.wait(HANG_S) == 0
        os.close(master)
    assert b"hello" in (tmp_path / "out").read_bytes()
    assert leases_over(world) == before
