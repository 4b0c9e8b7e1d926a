"""Commands that begin where the last one ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.host_agent.shell_state import (
    MAX_STATE_BYTES,
    MAX_VARIABLE_BYTES,
    NoShell,
    ShellState,
    ShellStates,
    wrapped,
)
from tests.gateway.host_agent.host import Host, open_host

pytestmark = pytest.mark.slow  # real processes throughout


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path) as host:
        (host.directory / "workspaces/s/sub").mkdir(parents=True)
        yield host


async def out(host: Host, command: str, **fields: object) -> str:
    ended = await host.run(command, state="env_cwd", **fields)
    return str(ended["out"].decode())


async def test_directory_and_exports_go_on(host: Host) -> None:
    await out(host, "cd sub; export A='x y'; B=not-exported; f() { :; }; alias g=true")
    assert (await out(host, 'echo "${PWD##*/} $A ${B-none}"; type -t f g')) == "sub x y none\n"


async def test_values_are_data(host: Host) -> None:
    nasty = "$(touch pwned) `touch pwned` \"'; touch pwned\n\n\\ \t*"
    await out(host, 'export A="$GIVEN"', env={"GIVEN": nasty})
    assert await out(host, 'printf %s "$A"') == nasty
    assert not (host.directory / "workspaces/s/pwned").exists()


@pytest.mark.parametrize(
    "end", ["exit 3", "set -e; (exit 3); echo not reached", "set -eu; exit 3", "(exit 3)"]
)
async def test_the_end_is_the_commands_own(host: Host, end: str) -> None:
    ended = await host.run(f"export A=1; cd sub; {end}", state="env_cwd")
    assert (ended["returncode"], ended["state_saved"], ended["out"]) == (3, True, b"")
    assert await out(host, 'echo "$A ${PWD##*/}"') == "1 sub\n"


async def test_what_was_unset_stays_unset(host: Host) -> None:
    await out(host, "unset GIT_PAGER; export -n PAGER; unset A", env={"A": "1"})
    assert (
        await out(host, "echo ${GIT_PAGER-none} ${PAGER-none} ${A-none}", env={"A": "1"})
        == "none none none\n"
    )


async def test_who_orders_something_new_is_heard(host: Host) -> None:
    await out(host, "export A=mine; cd sub", env={"A": "yours"})
    assert await out(host, "echo $A", env={"A": "yours"}) == "mine\n"
    assert await out(host, 'echo "$A ${PWD##*/}"', env={"A": "new"}, cwd=".") == "new s\n"


async def test_a_variable_of_one_command_does_not_stay(host: Host) -> None:
    await out(host, "true", env={"ONCE": "1"})
    assert await out(host, "echo ${ONCE-none}") == "none\n"


async def test_sessions_and_stateless_commands_are_apart(host: Host) -> None:
    await out(host, "export A=1; cd sub")
    assert (await host.run('echo "${A-none} ${PWD##*/}"'))["out"] == b"none s\n"
    assert await out(host, 'echo "${A-none} ${PWD##*/}"', session="t") == "none t\n"


async def test_a_directory_that_is_gone_is_not_gone_back_to(host: Host) -> None:
    await out(host, "mkdir d; cd d; rmdir ../d; export A=1")
    assert await out(host, 'echo "$A ${PWD##*/}"') == "1 s\n"


@pytest.mark.parametrize(
    "failing",
    [
        "export A=2; exec true",
        "export A=2; trap 'true' EXIT; exit 0",
        "export A=2; kill -KILL $$",
        f"export A=2; export B=$(head -c {MAX_VARIABLE_BYTES + 1} /dev/zero | tr '\\0' x)",
    ],
)
async def test_a_snapshot_that_fails_leaves_the_old(host: Host, failing: str) -> None:
    await out(host, "export A=1")
    ended = await host.run(failing, state="env_cwd")
    assert ended["state_saved"] is False
    assert await out(host, "echo $A") == "1\n"


async def test_a_trap_of_its_own_runs_and_the_state_is_kept(host: Host) -> None:
    assert await out(host, "trap 'echo bye' EXIT; export A=1") == "bye\n"
    assert await out(host, "echo $A") == "1\n"


async def test_nothing_of_the_wrapper_shows(host: Host) -> None:
    ended = await host.run('echo "$0 $# $LINENO"; set -x; true; nosuch', state="env_cwd")
    assert ended["out"] == b"bash 0 1\n"
    assert ended["err"].endswith(b"line 1: nosuch: command not found\n")
    assert b"__mars" not in ended["err"]
    assert await out(host, "env") != ""
    assert "__mars" not in await out(host, "env")


async def test_functions_named_as_builtins_do_not_break_it(host: Host) -> None:
    await out(host, "printf() { :; }; read() { :; }; local() { :; }; export A=1; IFS=1; PATH=/none")
    assert (await host.run("echo $A", state="env_cwd"))["out"] == b"1\n"


async def test_stateless_commands_have_no_saved_state(host: Host) -> None:
    assert (await host.run("true"))["state_saved"] is None


async def test_it_goes_with_its_session(host: Host) -> None:
    await out(host, "export A=1")
    await host.execs.end_session("s")
    assert await out(host, "echo ${A-none}") == "none\n"


def test_only_a_bash_with_a_text_is_wrapped() -> None:
    assert wrapped(["/bin/bash", "-lc", "x"])[:2] == ["/bin/bash", "-lc"]
    for argv in (["sh", "-c", "x"], ["bash", "x"], ["bash", "-c"], ["bash", "-c", "x", "y"], ["true"]):
        with pytest.raises(NoShell):
            wrapped(argv)


def test_the_difference_is_applied_to_what_is_given_now() -> None:
    state = ShellState("", "/d", {"NEW": (None, "1"), "CHANGED": ("a", "b"), "UNSET": ("x", None)})
    assert state.environment({"CHANGED": "a", "UNSET": "x"}) == {"NEW": "1", "CHANGED": "b"}
    assert state.environment({"CHANGED": "c", "UNSET": "y", "NEW": "2"}) == {
        "CHANGED": "c",
        "UNSET": "y",
        "NEW": "2",
    }


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"/d\0A=1\0",
        b"/d\0A=1\0end",
        b"\0A=1\0end\0",
        b"/d\0" + b"".join(b"V%d=%s\0" % (n, b"x" * 100_000) for n in range(11)) + b"end\0",
        b"/d\0A=" + b"x" * MAX_VARIABLE_BYTES + b"\0end\0",
    ],
    ids=["empty", "cut", "cut in the mark", "nowhere", "too large", "a variable too large"],
)
def test_what_is_not_whole_is_not_kept(tmp_path: Path, left: bytes) -> None:
    states = ShellStates(tmp_path / "states")
    file = tmp_path / "left"
    file.write_bytes(b"/old\0A=old\0end\0")
    assert states.keep("s", file, "", {})
    file.write_bytes(left)
    assert not states.keep("s", file, "", {})
    assert not states.keep("s", tmp_path / "none", "", {})
    assert states.of("s") == ShellState("", "/old", {"A": (None, "old")})
    assert len(left) < 2 * MAX_STATE_BYTES


def test_a_broken_file_is_no_state(tmp_path: Path) -> None:
    states = ShellStates(tmp_path)
    (tmp_path / "left").write_bytes(b"/d\0A=\xff\0end\0")
    assert states.keep("s", tmp_path / "left", "", {})
    assert states.of("s").changed["A"] == (None, "\udcff")
    for file in tmp_path.iterdir():
        file.write_bytes(b"{}")
    assert states.of("s") == ShellState()
