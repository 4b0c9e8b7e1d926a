"""Real processes, through the operations that a gateway has. What each host has for containment is used; what
must hold without it is also tried without."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.recovery import boot_id
from gateway.host_agent.wire import STATUS_FIELDS, Fault, Op
from tests.gateway.host_agent.host import Host, open_host, processes_of

pytestmark = pytest.mark.slow  # real processes throughout


@pytest.fixture(params=[True, False], ids=["cgroups", "no-cgroups"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    async with open_host(tmp_path, cgroups=request.param) as host:
        yield host


async def test_output_and_exit_code(host: Host) -> None:
    ended = await host.run("echo out; echo err >&2; exit 3")
    assert (ended["ended_by"], ended["returncode"]) == ("itself", 3)
    assert (ended["out"], ended["err"]) == (b"out\n", b"err\n")
    assert (ended["stdout"], ended["stderr"]) == ((4, 4), (4, 4))
    assert set(STATUS_FIELDS) <= set(ended)


async def test_died_of_a_signal(host: Host) -> None:
    ended = await host.run("kill -SEGV $$")
    assert (ended["ended_by"], ended["returncode"]) == ("itself", -signal.SIGSEGV)


async def test_merged_streams_keep_their_order(host: Host) -> None:
    ended = await host.run("echo 1; echo 2 >&2; echo 3", output={"max_bytes": 100, "merge": True})
    assert (ended["out"], ended["err"]) == (b"1\n2\n3\n", b"")


async def test_reopening_stderr_keeps_what_was_written(host: Host) -> None:
    """On a regular file `> /dev/stderr` would truncate it."""
    ended = await host.run("echo first >&2; echo second > /dev/stderr; echo third > /dev/stderr")
    assert ended["err"] == b"first\nsecond\nthird\n"


async def test_it_has_a_session_of_its_own_and_no_descriptor_of_ours(host: Host) -> None:
    ended = await host.run(
        argv=[
            "python3",
            "-c",
            "import os; print(os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')))",
        ]
    )
    assert ended["out"] == b"True ['0', '1', '2', '3']\n"  # 3 is the directory that is read


async def test_its_environment_is_the_default_and_what_was_ordered(host: Host) -> None:
    ended = await host.run(argv=["env"], env={"A": "b c", "PAGER": "less"})
    found = dict(line.split("=", 1) for line in ended["out"].decode().splitlines())
    found.pop("TZ", None)
    assert found == {
        "PATH": os.environ["PATH"],
        "HOME": str(host.directory / "workspaces" / "s"),
        "GIT_TERMINAL_PROMPT": "0",
        "DEBIAN_FRONTEND": "noninteractive",
        "PAGER": "less",
        "GIT_PAGER": "cat",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "A": "b c",
        "MARS_EXEC_AGENT": found.get("MARS_EXEC_AGENT"),
        "MARS_EXEC_ID": ended["exec"],
    }


async def test_signals_that_the_agent_ignores_reach_it(host: Host) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ended = await host.run("kill -HUP $$")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended["returncode"] == -signal.SIGHUP


@pytest.mark.parametrize(
    ("fields", "exit_code", "reason"),
    [
        ({"argv": ["no-such-program-x"]}, 127, "no such program"),
        ({"argv": ["/etc/passwd"]}, 126, "may not be entered"),
        ({"cwd": "no/such"}, None, "no such directory"),
        ({"argv": ["true"], "state": "env_cwd"}, None, "needs argv to be bash"),
    ],
)
async def test_what_cannot_start_is_refused_and_says_so_again(
    host: Host, fields: dict[str, Any], exit_code: int | None, reason: str
) -> None:
    for _ in range(2):
        with pytest.raises(Refused, match=reason) as refused:
            await host.start(**fields, exec="ex-1")
        assert refused.value.fault == Fault.NOT_STARTED
        assert refused.value.fields == {"exit_code": exit_code}
    with pytest.raises(Refused) as refused:
        await host.ask(Op.LOOK, exec="ex-1")
    assert refused.value.fault == Fault.NOT_STARTED
    assert host.execs.running == 0


async def test_one_of_another_life_of_the_host_is_not_started_unless_it_is_known(host: Host) -> None:
    """Its directory may be gone with the power, and with it what it did."""
    known = await host.start("echo once")
    await host.ended(known)
    for session in ("s", "gone"):
        with pytest.raises(Refused) as refused:
            await host.start("true", exec="ex-other", session=session, boot_id="another life")
        assert refused.value.fault == Fault.GONE
    again = await host.start_frame("echo once", exec=known, boot_id="another life")
    assert (again.header["existed"], again.header["returncode"]) == (True, 0)
    await host.start("true", exec="ex-other", boot_id=boot_id())


async def test_an_unknown_session_leaves_the_id_free(host: Host) -> None:
    with pytest.raises(Refused) as refused:
        await host.start(session="no-such", exec="ex-1")
    assert refused.value.fault == Fault.UNKNOWN_SESSION
    assert (await host.run(exec="ex-1"))["returncode"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exec", "../x"),
        ("exec", ".x"),
        ("argv", []),
        ("argv", ["a\0b"]),
        ("env", {"A=B": "c"}),
        ("timeout_s", -1),
        ("timeout_s", "1"),
        ("timeout_s", True),
        ("state", "all"),
        ("on_exit", "stay"),
        ("keep_stdin", 1),
        ("limits", {"pids": 0}),
        ("output", {"max_bytes": 1.5}),
        ("tty", {"cols": 0, "rows": 1}),
        ("record", []),
    ],
)
async def test_a_bad_field_is_named(host: Host, field: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        await host.start(**{field: value})
    assert refused.value.fault == Fault.BAD_REQUEST
    named = next(iter(value)) if isinstance(value, dict) and field != "env" else field
    assert refused.value.message.startswith(f"{named}: ")


# The end.


async def test_timeout_ends_the_group_and_keeps_the_output(host: Host) -> None:
    ended = await host.run("echo so far; (sleep 300 & sleep 300) & sleep 300", timeout_s=0.3)
    assert (ended["ended_by"], ended["returncode"]) == ("timeout", -signal.SIGTERM)
    assert ended["out"] == b"so far\n"
    assert processes_of(ended["exec"]) == []


async def test_timeout_ends_who_ignores_sigterm(host: Host) -> None:
    ended = await host.run("trap '' TERM; while :; do sleep 0.05; done", timeout_s=0.2, kill_grace_s=0.1)
    assert (ended["ended_by"], ended["returncode"]) == ("timeout", -signal.SIGKILL)
    assert processes_of(ended["exec"]) == []


async def test_timeout_leaves_time_to_clean_up(host: Host) -> None:
    ended = await host.run("trap 'echo tidy; exit 0' TERM; while :; do sleep 0.02; done", timeout_s=0.5)
    assert (ended["ended_by"], ended["returncode"], ended["out"]) == ("timeout", 0, b"tidy\n")


async def test_timeout_reaches_one_that_was_stopped(host: Host) -> None:
    ended = await host.run("kill -STOP $$", timeout_s=0.3, kill_grace_s=300)
    assert ended["returncode"] == -signal.SIGTERM


async def test_a_jump_of_the_wall_clock_has_no_effect(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    exec_id = await host.start("echo up; sleep 0.5; echo done", timeout_s=50)
    await host.printed(exec_id, b"up")
    monkeypatch.setattr("time.time", lambda: 1e10)
    ended = await host.ended(exec_id)
    assert ended["ended_by"] == "itself"
    assert 0.4 < ended["run_s"] < 50


async def test_setsid_escapee_dies_with_its_command(host: Host) -> None:
    """It left the process group; group or marker finds it."""
    ended = await host.run("setsid bash -c 'trap \"\" HUP TERM; echo away; sleep 300' & sleep 0.3; exit 4")
    assert (ended["returncode"], ended["out"]) == (4, b"away\n")
    assert processes_of(ended["exec"]) == []


async def test_background_child_with_the_pipe_does_not_delay(host: Host) -> None:
    ended = await host.run("sleep 300 & echo done")
    assert (ended["ended_by"], ended["returncode"], ended["out"]) == ("itself", 0, b"done\n")
    assert processes_of(ended["exec"]) == []


async def test_stop_gives_the_grace_it_carries_and_again_is_as_once(host: Host) -> None:
    exec_id = await host.start("trap '' TERM; echo up; while :; do sleep 0.05; done", kill_grace_s=300)
    await host.printed(exec_id, b"up")
    for _ in range(2):
        assert (await host.ask(Op.STOP, exec=exec_id, grace_s=0.1)).header["state"] == "running"
    ended = await host.ended(exec_id)
    assert (ended["ended_by"], ended["returncode"]) == ("stop", -signal.SIGKILL)
    assert (await host.ask(Op.STOP, exec=exec_id, grace_s=0.1)).header["state"] == "ended"


async def test_a_shorter_grace_counts(host: Host) -> None:
    exec_id = await host.start("trap '' TERM; echo up; while :; do sleep 0.05; done")
    await host.printed(exec_id, b"up")
    await host.ask(Op.STOP, exec=exec_id, grace_s=300)
    await host.ask(Op.STOP, exec=exec_id, grace_s=0)
    assert (await host.ended(exec_id))["returncode"] == -signal.SIGKILL


async def test_signals_by_name(host: Host) -> None:
    exec_id = await host.start("trap 'echo got it; exit 0' USR1; echo up; while :; do sleep 0.02; done")
    await host.printed(exec_id, b"up")
    assert (await host.ask(Op.SIGNAL, exec=exec_id, signal="SIGUSR1", scope="group")).header["was_sent"]
    assert (await host.ended(exec_id))["returncode"] == 0
    assert await host.output(exec_id) == b"up\ngot it\n"
    assert not (await host.ask(Op.SIGNAL, exec=exec_id, signal="TERM", scope="tree")).header["was_sent"]
    with pytest.raises(Refused, match="must be the name of a signal"):
        await host.ask(Op.SIGNAL, exec=exec_id, signal="SIGNOTHING")


async def test_the_tree_is_more_than_the_group(host: Host) -> None:
    """The leader ignores it; who left its group hears it."""
    exec_id = await host.start(
        "trap '' USR1; setsid python3 -c 'import os, signal, time\n"
        'signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"heard\\n"))\n'
        'os.write(1, b"up\\n")\n'
        "while True: time.sleep(1)' & wait"
    )
    await host.printed(exec_id, b"up")
    assert (await host.ask(Op.SIGNAL, exec=exec_id, signal="USR1", scope="group")).header["was_sent"]
    assert await host.output(exec_id) == b"up\n"
    assert (await host.ask(Op.SIGNAL, exec=exec_id, signal="USR1", scope="tree")).header["was_sent"]
    assert await host.printed(exec_id, b"heard") == b"up\nheard\n"


# Output.


async def test_fifty_megabytes_that_nobody_reads(host: Host) -> None:
    ended = await host.run("head -c 50000000 /dev/zero", output={"max_bytes": 1000})
    assert (ended["returncode"], ended["stdout"]) == (0, (50_000_000, 1000))
    assert (host.directory / "execs" / ended["exec"] / "stdout").stat().st_size == 1000
    assert not ended["is_spool_full"]


async def test_a_loud_command_does_not_starve_the_others(host: Host) -> None:
    loud = await host.start("yes", output={"max_bytes": 1 << 20})
    for _ in range(5):
        assert (await host.run("echo quiet"))["out"] == b"quiet\n"
    await host.ask(Op.STOP, exec=loud, grace_s=0)
    total, kept = (await host.ended(loud))["stdout"]
    assert (kept, total > kept) == (1 << 20, True)


async def test_output_is_read_while_it_runs(host: Host) -> None:
    exec_id = await host.start("echo up; read -r line", keep_stdin=True)
    assert await host.printed(exec_id, b"up") == b"up\n"
    answer = await host.ask(Op.READ, exec=exec_id, stream="stdout", offset=3, limit=10, wait_s=0.05)
    assert (answer.payload, answer.header["is_eof"], answer.header["next_offset"]) == (b"", False, 3)
    await host.ask(Op.STDIN, b"\n", exec=exec_id, offset=0, is_eof=True)
    answer = await host.ask(Op.READ, exec=exec_id, stream="stdout", offset=3, limit=10, wait_s=30)
    assert (answer.payload, answer.header["is_eof"]) == (b"", True)


async def test_the_end_of_a_wait_brings_the_beginning_of_the_output(host: Host) -> None:
    exec_id = await host.start("echo out; echo err >&2")
    answer = await host.ask(Op.WAIT, exec=exec_id, wait_s=50, inline_bytes=3)
    assert (answer.payload, answer.header["inline"]) == (b"outerr", [3, 3])


async def test_a_wait_that_is_cancelled_has_no_effect(host: Host) -> None:
    exec_id = await host.start("sleep 0.3; echo done")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(host.ask(Op.WAIT, exec=exec_id, wait_s=50), 0.05)
    assert (await host.ended(exec_id))["returncode"] == 0


# Input.


async def test_stdin_is_empty_by_default(host: Host) -> None:
    assert (await host.run("cat; echo done"))["out"] == b"done\n"


async def test_stdin_at_once(host: Host) -> None:
    assert (await host.run("wc -c", stdin=b"x" * 1_000_000))["out"] == b"1000000\n"
    assert (await host.run("true", stdin=b"x" * 1_000_000))["returncode"] == 0


async def test_stdin_streams_and_repeats_are_not_written_twice(host: Host) -> None:
    exec_id = await host.start("cat", keep_stdin=True, stdin=b"a\n")
    answers = [
        await host.ask(Op.STDIN, b"b\n", exec=exec_id, offset=2, is_eof=False),
        await host.ask(Op.STDIN, b"b\n", exec=exec_id, offset=2, is_eof=False),
        await host.ask(Op.STDIN, b"a\nb\nc\n", exec=exec_id, offset=0, is_eof=False),
    ]
    assert [answer.header["next_offset"] for answer in answers] == [4, 4, 6]
    with pytest.raises(Refused) as refused:
        await host.ask(Op.STDIN, b"z", exec=exec_id, offset=7, is_eof=False)
    assert (refused.value.fault, refused.value.fields["next_offset"]) == (Fault.BAD_REQUEST, 6)
    await host.printed(exec_id, b"c")
    for _ in range(2):
        await host.ask(Op.STDIN, b"", exec=exec_id, offset=6, is_eof=True)
    assert (await host.ended(exec_id))["returncode"] == 0
    assert await host.output(exec_id) == b"a\nb\nc\n"


async def test_stdin_of_one_that_does_not_read_waits_for_room(host: Host) -> None:
    """More than buffer and pipe hold is taken as it reads, from where the answer says."""
    exec_id = await host.start("sleep 0.5; wc -c", keep_stdin=True)
    sent, total = 0, 3_000_000
    while sent < total:
        piece = b"x" * min(1 << 20, total - sent)
        answer = await host.ask(Op.STDIN, piece, exec=exec_id, offset=sent, is_eof=sent + len(piece) == total)
        sent = answer.header["next_offset"]
    assert (await host.ended(exec_id))["returncode"] == 0
    assert await host.output(exec_id) == b"3000000\n"


async def test_stdin_of_one_that_closed_it_is_dropped(host: Host) -> None:
    exec_id = await host.start("exec 0<&-; echo closed; sleep 0.5", keep_stdin=True)
    await host.printed(exec_id, b"closed")
    for n in range(3):
        await host.ask(Op.STDIN, b"x" * 100, exec=exec_id, offset=100 * n, is_eof=False)
    assert (await host.ended(exec_id))["returncode"] == 0
    answer = await host.ask(Op.STDIN, b"x" * 100, exec=exec_id, offset=300, is_eof=True)
    assert answer.header["next_offset"] == 400


async def test_stdin_needs_to_have_been_asked_for(host: Host) -> None:
    exec_id = await host.start("sleep 300")
    with pytest.raises(Refused, match="without keep_stdin"):
        await host.ask(Op.STDIN, b"x", exec=exec_id, offset=0, is_eof=False)


# Terminals.


async def test_terminal_echoes_and_is_resized(host: Host) -> None:
    exec_id = await host.start(
        "tty; stty size; trap 'stty size' WINCH; echo up; read -r line; echo got $line; test -t 2",
        tty={"cols": 100, "rows": 30},
        keep_stdin=True,
    )
    assert b"30 100\r\n" in await host.printed(exec_id, b"up")
    await host.ask(Op.RESIZE, exec=exec_id, cols=90, rows=20)
    await host.ask(Op.STDIN, b"hello\n", exec=exec_id, offset=0, is_eof=False)
    assert (await host.ended(exec_id))["returncode"] == 0
    out = await host.output(exec_id)
    assert b"20 90\r\n" in out
    assert b"hello\r\n" in out
    assert b"got hello\r\n" in out


async def test_terminal_takes_ctrl_c_and_the_end_of_input(host: Host) -> None:
    exec_id = await host.start("echo up; sleep 300", tty={"cols": 80, "rows": 24}, keep_stdin=True)
    await host.printed(exec_id, b"up")
    await host.ask(Op.STDIN, b"\x03", exec=exec_id, offset=0, is_eof=False)
    assert (await host.ended(exec_id))["returncode"] == -signal.SIGINT
    exec_id = await host.start("cat; echo over", tty={"cols": 80, "rows": 24}, keep_stdin=True)
    await host.ask(Op.STDIN, b"half a line", exec=exec_id, offset=0, is_eof=True)
    assert (await host.ended(exec_id))["returncode"] == 0
    assert (await host.output(exec_id)).endswith(b"half a lineover\r\n")


async def test_terminal_loses_none_of_what_came_last(host: Host) -> None:
    for _ in range(10):
        ended = await host.run("seq 1 2000", tty={"cols": 80, "rows": 24})
        assert ended["out"].endswith(b"1999\r\n2000\r\n")


async def test_only_a_terminal_has_a_size(host: Host) -> None:
    exec_id = await host.start("sleep 300")
    with pytest.raises(Refused, match="no terminal"):
        await host.ask(Op.RESIZE, exec=exec_id, cols=80, rows=24)


# What stays.


async def test_children_that_may_stay_die_with_their_session(host: Host) -> None:
    ended = await host.run(
        "(echo server up; while :; do echo noise; sleep 0.01; done) & sleep 0.2; echo done", on_exit="keep"
    )
    assert ended["returncode"] == 0
    assert processes_of(ended["exec"]) != []
    assert host.execs.running == 1
    await asyncio.sleep(0.1)  # Its output is dropped, and that does not kill it.
    assert (await host.ask(Op.LOOK, exec=ended["exec"])).header["stdout"] == ended["stdout"]
    assert processes_of(ended["exec"]) != []
    await host.execs.end_session("other")
    assert processes_of(ended["exec"]) != []
    await host.execs.end_session("s")
    assert processes_of(ended["exec"]) == []
    assert host.execs.running == 0


async def test_nothing_stays_of_one_that_was_stopped(host: Host) -> None:
    ended = await host.run("sleep 300 & sleep 300", on_exit="keep", timeout_s=0.2)
    assert processes_of(ended["exec"]) == []
    assert host.execs.running == 0


async def test_one_that_left_nothing_is_over(host: Host) -> None:
    await host.run("true", on_exit="keep")
    assert host.execs.running == 0


async def test_a_session_ends_with_what_runs_in_it(host: Host) -> None:
    ours, others = await host.start("sleep 300"), await host.start("sleep 300", session="t")
    await host.execs.end_session("s")
    assert (await host.ended(ours))["ended_by"] == "stop"
    assert (await host.ask(Op.LOOK, exec=others)).header["state"] == "running"


# Ids.


async def test_a_repeated_start_joins(host: Host) -> None:
    first = await host.start_frame("echo once >> log; sleep 0.2", exec="ex-1")
    again = await host.start_frame("echo once >> log; sleep 0.2", exec="ex-1")
    assert (first.header["existed"], again.header["existed"]) == (False, True)
    await host.ended("ex-1")
    again = await host.start_frame("echo once >> log; sleep 0.2", exec="ex-1")
    assert (again.header["existed"], again.header["state"]) == (True, "ended")
    assert (host.directory / "workspaces/s/log").read_text() == "once\n"


async def test_list_pages_by_id_and_has_the_records(host: Host) -> None:
    for n in (3, 1, 2):
        await host.run(exec=f"ex-{n}", record={"n": n})
    first = (await host.ask(Op.LIST, after="", limit=2)).header["execs"]
    rest = (await host.ask(Op.LIST, after=first[-1]["exec"], limit=2)).header["execs"]
    assert [(each["exec"], each["record"]) for each in [*first, *rest]] == [
        ("ex-1", {"n": 1}),
        ("ex-2", {"n": 2}),
        ("ex-3", {"n": 3}),
    ]


async def test_a_forgotten_one_is_gone_and_its_id_stays_taken(host: Host) -> None:
    await host.run("echo x", exec="ex-1")
    for _ in range(2):
        await host.ask(Op.FORGET, exec="ex-1")
    for op in (Op.LOOK, Op.WAIT, Op.READ):
        with pytest.raises(Refused) as refused:
            await host.ask(op, exec="ex-1", stream="stdout", offset=0, wait_s=0)
        assert refused.value.fault == Fault.GONE
    with pytest.raises(Refused) as refused:
        await host.start(exec="ex-1")
    assert refused.value.fault == Fault.GONE
    assert (await host.ask(Op.LIST, after="", limit=10)).header["execs"] == []


async def test_one_that_runs_is_not_forgotten(host: Host) -> None:
    exec_id = await host.start("sleep 300")
    with pytest.raises(Refused, match="still runs"):
        await host.ask(Op.FORGET, exec=exec_id)


async def test_an_unknown_one_was_never_started(host: Host) -> None:
    for op in (Op.LOOK, Op.WAIT, Op.STOP, Op.SIGNAL, Op.FORGET):
        with pytest.raises(Refused) as refused:
            await host.ask(op, exec="ex-none", wait_s=0, grace_s=0, signal="TERM")
        assert refused.value.fault == Fault.UNKNOWN_EXEC


# What is left of us.


async def test_no_descriptor_and_no_process_is_left(host: Host) -> None:
    def open_fds() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    await host.run()
    before = open_fds()
    await asyncio.gather(*(host.run("echo x; sleep 300 &") for _ in range(10)))
    await host.run("read -r", keep_stdin=True, timeout_s=0.1)
    await host.run(tty={"cols": 80, "rows": 24})
    for _ in range(3):
        with pytest.raises(Refused):
            await host.start(argv=["no-such-program-x"])
    assert open_fds() == before
    await asyncio.sleep(0.2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - it does not wait


async def test_secrets_are_not_on_the_disk(host: Host) -> None:
    await host.run("true", env={"TOKEN": "very-secret"}, stdin=b"very-secret", exec="ex-1")
    for file in (host.directory / "execs/ex-1").iterdir():
        assert b"very-secret" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0


async def test_usage_and_capabilities(host: Host) -> None:
    exec_id = await host.start("echo up; sleep 300")
    await host.printed(exec_id, b"up")
    assert set(host.execs.usage()) == {exec_id}
    use = host.execs.usage()[exec_id]
    assert use["cpu_s"] is None or use["cpu_s"] >= 0
    assert use["rss_mb"] is not None
    assert 0 < use["rss_mb"] < 100
    can = host.execs.capabilities()
    assert {"containment", "can_limit_memory", "can_limit_pids", "can_limit_cpu"} < set(can)
