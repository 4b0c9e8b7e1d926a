"""SWE-ReX' remote API with real commands: shells that go on, what ends them, and what is told of that."""

import asyncio
import hashlib
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from gateway.limits import Limits
from tests.gateway.compat.swerex_calls import Swerex, action
from tests.gateway.conftest import OpenRig

pytestmark = pytest.mark.slow  # real processes throughout


async def begun(swerex: Swerex, **fields: Any) -> None:
    assert await swerex.ask("create_session", **fields) == {"output": "", "session_type": "bash"}


async def has_begun(swerex: Swerex) -> None:
    waiting = "until [ -e /tmp/begun ]; do sleep 0.02; done"
    await swerex.ask("execute", command=waiting, shell=True, timeout=20)


async def test_a_shell_goes_on_where_its_last_command_left_it(swerex: Swerex) -> None:
    await begun(swerex, startup_timeout=10.0, session_type="bash")
    setting = "mkdir -p /swearepo && cd /swearepo && export A='1\n2' && B=3"
    functions = "f() { echo \"f $1\"; }; alias g='echo g'"
    assert (await swerex.run(f"{setting}; {functions}"))["exit_code"] == 0
    seen = await swerex.run('pwd; echo "$A$B"; f x; g; (exit 4)')
    assert seen == {
        "output": "/swearepo\n1\n23\nf x\ng\n",
        "exit_code": 4,
        "failure_reason": "",
        "expect_string": "SHELLPS1PREFIX",
        "session_type": "bash",
    }
    assert (await swerex.run("exit 5"))["exit_code"] == 5
    assert (await swerex.run("set -e; unset B; false"))["exit_code"] == 1
    assert (await swerex.run("pwd; false; echo ${B-unset}"))["output"] == "/swearepo\nunset\n"


async def test_startup_files_are_read(swerex: Swerex) -> None:
    await swerex.ask(
        "write_file", path="/root/.bashrc", content='echo welcome; export FROM_RC=1; [ -n "$PS1" ]'
    )
    created = await swerex.ask("create_session", startup_source=["/root/.bashrc"], startup_timeout=10.0)
    assert created["output"] == "welcome\n"
    assert (await swerex.run("echo $FROM_RC"))["output"] == "1\n"


async def test_two_runtimes_share_no_path(swerex: Swerex) -> None:
    other = Swerex(swerex.rig, "agent-2")
    for each in (swerex, other):
        await begun(each)
        await each.run(f"echo {each.session} | tee /root/state.json /tmp/note >/made-at-the-root")
    for each in (swerex, other):
        seen = await each.run("cat /root/state.json /tmp/note /made-at-the-root")
        assert seen["output"] == f"{each.session}\n" * 3


async def test_where_commands_may_start_anywhere_paths_are_the_hosts(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    async with open_rig(limits=Limits(slots=2, short_places=0, allow_absolute_cwd=True)) as rig:
        swerex = Swerex(rig)
        await begun(swerex)
        await swerex.ask("write_file", path=f"{tmp_path}/x/y", content="there")
        assert (tmp_path / "x" / "y").read_text() == "there"
        assert (await swerex.run(f"cd {tmp_path}/x; cat y"))["output"] == "there"
        assert (await swerex.run("pwd"))["output"] == f"{tmp_path}/x\n"


async def test_a_host_that_cannot_give_a_root_directory_says_so(swerex: Swerex, tmp_path: Path) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n")
    unshare.chmod(0o755)
    await swerex.rig.session("agent-1", env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    fault = await swerex.fault("create_session")
    assert fault["class_path"] == "swerex.exceptions.SwerexException"
    assert "unshare" in fault["message"]
    assert "allow_absolute_cwd" in fault["message"]


async def test_a_timeout_ends_the_work_and_keeps_its_output(swerex: Swerex) -> None:
    await begun(swerex)
    text = "echo before; (sleep 1; touch /tmp/late) & sleep 60"
    fault = await swerex.run_fault(text, timeout=0.3)
    assert fault["class_path"] == "swerex.exceptions.CommandTimeoutError"
    assert fault["message"] == f"timeout after 0.3 seconds while running command {text!r}"
    assert fault["extra_info"]["output"] == "before\n"
    assert (await swerex.run("sleep 1.2; ls /tmp; echo next"))["output"] == "next\n"


async def test_what_is_no_bash_is_not_begun(swerex: Swerex) -> None:
    await begun(swerex)
    fault = await swerex.run_fault("touch /tmp/begun\nif then")
    assert fault["class_path"] == "swerex.exceptions.BashIncorrectSyntaxError"
    assert "syntax error" in fault["extra_info"]["bash_stderr"]
    assert (await swerex.run("ls /tmp"))["output"] == ""


@pytest.mark.parametrize(("check", "exit_code"), [("silent", 3), ("ignore", None)])
async def test_exit_codes_are_told_as_asked(swerex: Swerex, check: str, exit_code: int | None) -> None:
    await begun(swerex)
    assert (await swerex.run("exit 3", check=check))["exit_code"] == exit_code


async def test_a_checked_command_that_fails_is_raised(swerex: Swerex) -> None:
    await begun(swerex)
    fault = await swerex.run_fault("echo out; exit 3", check="raise", error_msg="wanted")
    assert fault["class_path"] == "swerex.exceptions.NonZeroExitCodeError"
    assert fault["message"].startswith("wanted: Command 'echo out; exit 3' failed with exit code 3.")
    assert fault["extra_info"]["output"] == "out\n"


async def test_shells_are_made_once_and_closed_once(swerex: Swerex) -> None:
    missing = "swerex.exceptions.SessionDoesNotExistError"
    assert (await swerex.run_fault("true"))["class_path"] == missing
    await begun(swerex)
    assert (await swerex.run_fault("true", session="other"))["class_path"] == missing
    assert (await swerex.fault("create_session"))["class_path"] == "swerex.exceptions.SessionExistsError"
    await swerex.ask("close_session")
    assert (await swerex.fault("close_session"))["class_path"] == missing
    await begun(swerex)


async def test_a_request_that_comes_again_runs_once(swerex: Swerex) -> None:
    """While it runs, and after."""
    for _ in range(2):
        assert (await swerex.post("create_session", "made")).status_code == 200
    body = action("echo ran >>/tmp/runs; sleep 0.3; cat /tmp/runs")
    answers = await asyncio.gather(*(swerex.post("run_in_session", "again", **body) for _ in range(3)))
    answers.append(await swerex.post("run_in_session", "again", **body))
    assert [each.json()["output"] for each in answers] == ["ran\n"] * 4
    other = await swerex.post("run_in_session", "again", **action("echo other"))
    assert other.status_code == 511
    assert "idempotency_key_reused" in other.json()["swerexception"]["message"]


async def test_two_shells_run_at_once_and_one_shell_in_turn(swerex: Swerex) -> None:
    await begun(swerex)
    await begun(swerex, session="other")
    meet = "touch /tmp/{}; until [ -e /tmp/{} ]; do sleep 0.02; done; echo met"
    met = await asyncio.gather(
        swerex.run(meet.format("a", "b")), swerex.run(meet.format("b", "a"), session="other")
    )
    assert [each["output"] for each in met] == ["met\n", "met\n"]
    await asyncio.gather(*(swerex.run(f"N=$((N + {n}))") for n in (1, 2, 4)))
    assert (await swerex.run("echo $N"))["output"] == "7\n"


async def test_an_interrupt_ends_a_command_and_not_its_shell(swerex: Swerex) -> None:
    await begun(swerex)
    interrupt = {
        "session": "default",
        "timeout": 5,
        "n_retry": 3,
        "expect": [],
        "action_type": "bash_interrupt",
    }
    nothing = await swerex.ask("run_in_session", **interrupt)
    assert (nothing["output"], nothing["exit_code"]) == ("", None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(swerex.run("X=1; echo begun; touch /tmp/begun; sleep 60"))
        await has_begun(swerex)
        seen = await swerex.ask("run_in_session", **interrupt)
    assert (seen["output"], seen["exit_code"]) == ("begun", 130)
    assert running.result()["exit_code"] == 130
    assert (await swerex.run("echo $X"))["output"] == "1\n"


async def test_a_command_that_ignores_interrupts_is_ended_all_the_same(swerex: Swerex) -> None:
    await begun(swerex)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(swerex.run("trap '' INT; touch /tmp/begun; while :; do sleep 0.05; done"))
        await has_begun(swerex)
        interrupt = {"session": "default", "timeout": 0.1, "n_retry": 1, "action_type": "bash_interrupt"}
        assert (await swerex.ask("run_in_session", **interrupt))["failure_reason"].startswith("cancelled")
    assert running.result()["exit_code"] == 130


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"is_interactive_command": True}, "is_interactive_command"), ({"expect": ["(gdb)"]}, "expect")],
)
async def test_what_needs_a_terminal_is_said_to(swerex: Swerex, fields: dict[str, Any], named: str) -> None:
    await begun(swerex)
    fault = await swerex.run_fault("gdb", **fields)
    assert fault["class_path"] == "swerex.exceptions.SwerexException"
    assert fault["message"].startswith(named)


async def test_one_shot_commands(swerex: Swerex) -> None:
    words = await swerex.ask(
        "execute", command=["sh", "-c", "echo 'o  ut'; echo err >&2; exit 3"], timeout=None
    )
    assert words == {"stdout": "o  ut\n", "stderr": "err\n", "exit_code": 3}
    text = await swerex.ask(
        "execute",
        command="pwd; echo $A >&2",
        shell=True,
        cwd="/usr",
        env={"A": "1"},
        merge_output_streams=True,
    )
    assert text == {"stdout": "/usr\n1\n", "stderr": "", "exit_code": 0}
    assert (await swerex.ask("execute", command="echo 'a'"))["exit_code"] == 127
    path = await swerex.ask("execute", command="echo $PATH $0", shell=True, env={"PATH": "/usr/bin"})
    assert path["stdout"] == "/usr/bin bash\n"
    assert (await swerex.ask("execute", command="if then", shell=True))["exit_code"] == 2


async def test_failures_of_one_shot_commands(swerex: Swerex) -> None:
    fault = await swerex.fault("execute", command="echo out; sleep 60", shell=True, timeout=0.3)
    assert fault["class_path"] == "swerex.exceptions.CommandTimeoutError"
    assert fault["extra_info"]["stdout"] == "out\n"
    fault = await swerex.fault("execute", command=["false"], check=True, error_msg="wanted")
    assert fault["message"].startswith("wanted: Command ['false'] failed with exit code 1.")
    fault = await swerex.fault("execute", command=["true"], cwd="/none")
    assert (fault["class_path"], "/none" in fault["message"]) == ("builtins.FileNotFoundError", True)


async def test_files_are_where_commands_see_them(swerex: Swerex) -> None:
    await swerex.ask("write_file", path="/root/a b/ü", content="text é")
    assert await swerex.ask("read_file", path="/root/a b/ü") == {"content": "text é"}
    assert (await swerex.ask("execute", command=["cat", "/root/a b/ü"]))["stdout"] == "text é"
    for path, kind in (("/root/none", "FileNotFoundError"), ("/root", "IsADirectoryError")):
        assert (await swerex.fault("read_file", path=path))["class_path"] == f"builtins.{kind}"
    await swerex.ask("execute", command="printf '\\377' >/tmp/bytes", shell=True)
    assert (await swerex.fault("read_file", path="/tmp/bytes"))["class_path"] == "builtins.ValueError"
    read = await swerex.ask("read_file", path="/tmp/bytes", encoding="utf-8", errors="backslashreplace")
    assert read == {"content": "\\xff"}
    assert (await swerex.ask("read_file", path="/etc/passwd"))["content"].startswith("root:")


async def test_uploads_of_a_file_and_of_a_directory(swerex: Swerex) -> None:
    large = bytes(range(256)) * 4096
    assert (await swerex.upload(large, "/root/deep/large", unzip=False)).json() == {}
    sizes = await swerex.ask("execute", command="sha256sum </root/deep/large; ls -A /.mars", shell=True)
    assert hashlib.sha256(large).hexdigest() in sizes["stdout"]
    assert "in-" not in sizes["stdout"]
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("sub/a.py", "print('a')\n")
    assert (await swerex.upload(packed.getvalue(), "/swearepo", unzip=True)).json() == {}
    assert (await swerex.ask("execute", command=["python3", "/swearepo/sub/a.py"]))["stdout"] == "a\n"
    answer = await swerex.upload(b"no zip", "/swearepo", unzip=True)
    assert (answer.status_code, answer.json()["swerexception"]["class_path"]) == (511, "builtins.OSError")


async def test_closing_ends_the_session_that_it_made(swerex: Swerex) -> None:
    await begun(swerex)
    await swerex.run("sleep 60 & echo left >/tmp/x")
    assert await swerex.ask("close") == {}
    assert (await swerex.rig.http.get("/v1/sessions/agent-1")).status_code == 404
    assert await swerex.ask("close") == {}


async def test_closing_leaves_a_session_that_was_there_before(swerex: Swerex) -> None:
    await swerex.rig.session("agent-1", env={"GIVEN": "1"})
    await begun(swerex)
    assert (await swerex.run("echo $GIVEN; echo kept >/root/kept"))["output"] == "1\n"
    await swerex.ask("close")
    kept = await swerex.rig.http.get("/v1/sessions/agent-1/files", params={"path": "root/kept"})
    assert kept.text == "kept\n"
    assert (await swerex.run_fault("true"))["class_path"] == "swerex.exceptions.SessionDoesNotExistError"


async def test_who_may_ask(open_rig: OpenRig) -> None:
    token = "alice-token-0123456789"
    async with open_rig(tokens={"alice": token}) as rig:
        url = "/compat/swerex/s/is_alive"
        denied = await rig.http.get(url, headers={"X-API-Key": "wrong"})
        assert (denied.status_code, "detail" in denied.json()) == (401, True)
        for headers in ({"X-API-Key": token}, {"Authorization": f"Bearer {token}"}):
            assert (await rig.http.get(url, headers=headers)).json() == {"is_alive": True, "message": ""}
        assert (await rig.http.get("/compat/swerex/s/", headers={"X-API-Key": token})).status_code == 200


async def test_bad_bodies_are_explained(swerex: Swerex) -> None:
    for call, body, named in (
        ("run_in_session", {"action_type": "bash"}, "command"),
        ("run_in_session", {"action_type": "gdb"}, "action_type"),
        ("run_in_session", action("x", check="maybe"), "check"),
        ("execute", {"command": 3}, "command"),
    ):
        fault = await swerex.fault(call, **body)
        assert fault["class_path"] == "builtins.ValueError"
        assert named in fault["message"]
    answer = await swerex.rig.http.post("/compat/swerex/s/upload", json={})
    assert (answer.status_code, answer.json()["swerexception"]["class_path"]) == (511, "builtins.ValueError")
