"""Each session is a user of the host: what its commands may not do to others, and whose all is that it has.
Where we are not root there are none, and that is what is tested (``test_confines``)."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.host_agent.cgroups import Cgroups
from gateway.host_agent.containment import Containment
from gateway.host_agent.operations import Refused
from gateway.host_agent.session_uids import SessionUids, owner_in, uids_of_processes
from gateway.host_agent.wire import Fault, Op
from tests.gateway.host_agent.confined import FIRST, IS_ROOT, USERS, Agent, agent_of, open_directory

pytestmark = pytest.mark.slow  # real processes throughout

if not IS_ROOT:

    def test_there_are_none(tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        with pytest.raises(Refused, match="as root"):
            SessionUids(tmp_path, []).take((FIRST, FIRST), tmp_path / "home")
        assert owner_in(tmp_path / "home") is None

else:

    @pytest.fixture
    def directory() -> Iterator[Path]:
        with open_directory() as directory:
            yield directory

    @pytest.fixture
    async def agent(directory: Path) -> AsyncIterator[Agent]:
        async with agent_of(directory, USERS) as agent:
            yield agent

    async def test_a_command_is_its_sessions_user(agent: Agent) -> None:
        """In no other group, and no program makes it more."""
        workspace = await agent.put("s")
        found = workspace.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (FIRST, FIRST, 0o700)
        said = await agent.out(
            "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; echo $HOME; pwd; touch made"
        )
        assert said == f"{FIRST}\n{FIRST}\n{FIRST}\nNoNewPrivs:\t1\n{workspace}\n{workspace}\n"
        assert (workspace / "made").stat().st_uid == FIRST

    async def test_sessions_cannot_read_each_other(agent: Agent) -> None:
        one, two = await agent.put("one"), await agent.put("two")
        assert (one.stat().st_uid, two.stat().st_uid) == (FIRST, FIRST + 1)
        await agent.out("mkdir open; echo secret > open/file; chmod -R 777 open", session="one")
        reach = f"cat {one}/open/file; ls {one}; cd {one}; ls {agent.directory} {agent.directory}/execs; :"
        tried = await agent.run(reach, session="two")
        assert tried["out"] == b""
        assert tried["err"].count(b"Permission denied") == 5
        for cwd in (str(one), str(one / "open")):
            refused = await agent.refused_command(session="two", cwd=cwd, allow_outside=True)
            assert "Permission denied" in refused or "no directory" in refused

    async def test_sessions_cannot_signal_each_other(agent: Agent) -> None:
        await agent.put("one")
        await agent.put("two")
        victim = await agent.start("echo $$; sleep 300", session="one", env={"TOKEN": "secret"})
        pid = int(await agent.printed(victim, b"\n"))
        tried = await agent.run(
            f"kill -9 {pid}; kill -9 -- -{pid}; cat /proc/{pid}/environ; :", session="two"
        )
        assert (tried["out"], tried["err"].count(b"not permitted")) == (b"", 2)
        assert b"environ: Permission denied" in tried["err"]
        assert (await agent.ask(Op.LOOK, exec=victim)).header["state"] == "running"

    async def test_the_agent_can_end_them(agent: Agent) -> None:
        """By signal, by order with what it left, by its deadline."""
        await agent.put("s")
        exec_id = await agent.start("trap 'exit 3' INT; echo up; sleep 300 & wait")
        await agent.printed(exec_id, b"up")
        await agent.ask(Op.SIGNAL, exec=exec_id, signal="INT", scope="group")
        assert (await agent.ended(exec_id))["returncode"] == 3
        late = await agent.run("setsid sleep 300 & echo $!; sleep 300", timeout_s=0.5, kill_grace_s=0)
        assert late["ended_by"] == "timeout"
        assert FIRST not in uids_of_processes()

    async def test_a_session_ends_with_all_that_its_user_runs(directory: Path) -> None:
        """Also what no group and no mark would find. Then its number is free."""
        containment = Containment(Cgroups(()), str(directory))
        async with agent_of(directory, USERS, containment) as agent:
            await agent.put("s")
            await agent.put("other")
            kept = await agent.start("echo up; sleep 300", session="other")
            await agent.printed(kept, b"up")
            hide = "env -i setsid bash -c 'trap \"\" HUP TERM; echo x > up; while :; do sleep 0.1; done' & "
            await agent.out(hide + "until [ -s up ]; do sleep 0.01; done")
            assert FIRST in uids_of_processes()
            await agent.remove("s")
            assert FIRST not in uids_of_processes()
            assert (await agent.ask(Op.LOOK, exec=kept)).header["state"] == "running"

    async def test_the_next_agent_agrees(directory: Path) -> None:
        async with agent_of(directory, USERS) as agent:
            await agent.put("s")
        async with agent_of(directory, USERS) as agent:
            await agent.put("s")
            assert (await agent.put("t")).stat().st_uid == FIRST + 1
            assert await agent.out("id -u") == f"{FIRST}\n"

    async def test_numbers_go_round(agent: Agent, directory: Path) -> None:
        """All are used before one is used again; when none is left that is said, and leaves nothing."""
        for name in ("a", "b", "c"):
            await agent.put(name)
        refused = await agent.refused(Op.SESSION_PUT, session="d", record={})
        assert (refused.fault, f"from {FIRST} to {FIRST + 2}" in refused.message) == (Fault.NO_SPACE, True)
        assert not (directory / "sessions/d").exists()
        await agent.remove("b")
        assert (await agent.put("d")).stat().st_uid == FIRST + 1
        await agent.remove("a")
        await agent.remove("c")
        assert [(await agent.put(name)).stat().st_uid for name in ("e", "f")] == [FIRST + 2, FIRST]

    async def test_a_number_with_a_living_process_is_not_given(agent: Agent) -> None:
        with somebody(FIRST):
            assert (await agent.put("s")).stat().st_uid == FIRST + 1

    async def test_a_kept_workspace_keeps_its_user(agent: Agent) -> None:
        await agent.put("s")
        await agent.out("echo mine > file")
        await agent.ask(Op.SESSION_REMOVE, session="s", keeps_workspace=True)
        assert (await agent.put("t")).stat().st_uid == FIRST + 1
        await agent.put("s")
        assert await agent.out("id -u; cat file") == f"{FIRST}\nmine\n"

    async def test_streams_can_be_opened_by_name(agent: Agent) -> None:
        await agent.put("s")
        text = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr"
        ended = await agent.run(text, stdin=b"in\n")
        assert (ended["out"], ended["err"], ended["returncode"]) == (b"in\nout\n", b"err\n", 0)
        said = await agent.out("echo t > /dev/tty; echo $(tty)", tty={"cols": 80, "rows": 24})
        assert said.startswith("t\r\n/dev/pts/")
        assert os.stat(os.devnull).st_uid == 0  # noqa: PTH116

    async def test_a_shells_state_is_kept(agent: Agent) -> None:
        workspace = await agent.put("s")
        ended = await agent.run("mkdir deep; cd deep; export KEPT=yes; exit 3", state="env_cwd")
        assert (ended["returncode"], ended["state_saved"], ended["err"]) == (3, True, b"")
        assert await agent.out("pwd; echo $KEPT", state="env_cwd") == f"{workspace}/deep\nyes\n"

    async def test_a_state_in_a_directory_that_its_user_closed(agent: Agent) -> None:
        """The next command begins where it was ordered."""
        workspace = await agent.put("s")
        await agent.out("mkdir -p shut/in; cd shut/in; chmod 0 ..", state="env_cwd")
        assert await agent.out("pwd", state="env_cwd") == f"{workspace}\n"

    async def test_a_directory_to_start_in_is_its_users_to_see(agent: Agent, directory: Path) -> None:
        """What is there outside, its gateway does not learn through a link of the session's."""
        await agent.put("s")
        (directory / "ours").mkdir(mode=0o700)
        (directory / "ours/in").mkdir()
        await agent.out(f"ln -s {directory}/ours/in one; ln -s {directory}/ours/none two")
        said = []
        for name in ("one", "two"):
            with pytest.raises(Refused) as refused:
                await agent.start("true", cwd=name)
            said.append((refused.value.fault, refused.value.message.replace(name, "NAME")))
        assert said[0] == said[1]

    async def test_what_we_write_is_its_users(agent: Agent) -> None:
        workspace = await agent.put("s")
        file = {
            "session": "s",
            "path": "new/dir/file",
            "upload": "u",
            "offset": 0,
            "is_last": True,
            "mode": 0o640,
        }
        await agent.ask(Op.FILE_WRITE, b"text", **file)
        opened = await agent.ask(Op.ARCHIVE_OPEN, session="s", path="tree", mode="write")
        await agent.ask(Op.ARCHIVE_WRITE, archive_of(), archive=opened.header["archive"], is_last=True)
        everything = [path for path in workspace.rglob("*") if path != workspace]
        assert len(everything) == 8
        assert {(path.lstat().st_uid, path.lstat().st_gid) for path in everything} == {(FIRST, FIRST)}
        assert (workspace / "new/dir/file").stat().st_mode & 0o777 == 0o640
        assert await agent.out("cat new/dir/file tree/link; rm -r tree") == "textcontents"

    async def test_links_out_of_a_workspace_lead_nowhere(agent: Agent, directory: Path) -> None:
        """By whatever name it is reached, a file of ours is not read, changed or given away."""
        workspace = await agent.put("s")
        ours = directory / "ours"
        ours.mkdir(mode=0o700)
        (ours / "file").write_text("secret")
        (ours / "file").chmod(0o600)
        await agent.out(f"ln -s {ours} out; ln -s {ours}/file link")
        os.link(
            ours / "file", workspace / "hard"
        )  # Where the kernel lets anybody (fs.protected_hardlinks=0).
        write = {"session": "s", "upload": "u", "offset": 0, "is_last": True}
        for path in ("out/file", "link", "out/new"):
            for op, more in ((Op.FILE_READ, {"session": "s"}), (Op.FILE_WRITE, write)):
                assert (await agent.refused(op, path=path, **more)).fault == Fault.OUTSIDE
        assert (await agent.refused(Op.FILE_READ, session="s", path="hard")).fault == Fault.FORBIDDEN
        opened = await agent.ask(Op.ARCHIVE_OPEN, session="s", path=".", mode="read")
        refused = await agent.refused(Op.ARCHIVE_READ, archive=opened.header["archive"])
        assert refused.fault == Fault.FORBIDDEN
        await agent.ask(Op.FILE_WRITE, b"theirs", path="hard", **write)
        assert (workspace / "hard").stat().st_uid == FIRST
        found = (ours / "file").stat()
        assert ((ours / "file").read_text(), found.st_uid, found.st_mode & 0o777) == ("secret", 0, 0o600)
        assert [each.name for each in ours.iterdir()] == ["file"]

    async def test_a_directory_that_its_user_closed(agent: Agent) -> None:
        """We may no more than its user while we read, and remove it all the same."""
        await agent.put("s")
        await agent.out("mkdir -p shut/in; touch shut/in/file; chmod 0 shut")
        assert (await agent.refused(Op.FILE_READ, session="s", path="shut/in/file")).fault == Fault.FORBIDDEN
        assert (await agent.ask(Op.FILE_REMOVE, session="s", path="shut")).header["was_there"]
        await agent.remove("s")

    async def test_of_the_hosts_settings_none_changes_ours(agent: Agent, directory: Path) -> None:
        """Afterwards we are root on the disk again, with our groups."""
        groups = os.getgroups()
        await agent.put("s")
        await agent.ask(Op.FILE_WRITE, b"x", session="s", path="f", upload="u", offset=0, is_last=True)
        (directory / "ours").write_text("x")
        assert ((directory / "ours").stat().st_uid, os.getgroups()) == (0, groups)

    def test_a_range_that_changed(directory: Path) -> None:
        """The one that was given last is outside of it."""
        for home in ("a", "b"):
            (directory / "sessions" / home).mkdir(parents=True)
        SessionUids(directory, []).take((FIRST, FIRST), directory / "sessions/a")
        uids = SessionUids(directory, [directory / "sessions/a"])
        assert uids.take((FIRST + 10, FIRST + 11), directory / "sessions/b").uid == FIRST + 10
        assert owner_in(directory / "sessions/b") is not None


@contextlib.contextmanager
def somebody(uid: int) -> Iterator[None]:
    """A process of that user, which we did not start."""
    command = [sys.executable, "-c", SLEEP_AS, str(uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


SLEEP_AS = """
import os, sys, time
os.setuid(int(sys.argv[1]))
print(1, flush=True)
time.sleep(300)
"""


def archive_of() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        directory = tarfile.TarInfo("d")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        file = tarfile.TarInfo("d/file")
        file.size, file.mode = 8, 0o644
        tar.addfile(file, io.BytesIO(b"contents"))
        for name, kind, target in (("link", tarfile.SYMTYPE, "d/file"), ("hard", tarfile.LNKTYPE, "d/file")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            tar.addfile(link)
    return data.getvalue()
