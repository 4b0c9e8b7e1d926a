"""Sessions on a host: made, listed, found again by the next agent, removed with all they have."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault, Op
from gateway.host_agent.workspaces import LIST_BYTES, MAX_RECORD_BYTES, Workspaces
from tests.gateway.host_agent.asking import Asking


class Rig:
    def __init__(self, directory: Path, **bounds: int) -> None:
        self.workspaces = Workspaces(directory, **bounds)
        self.ask = Asking(self.workspaces.operations())

    async def put(self, name: str = "s", **record: Any) -> Path:
        return Path((await self.ask(Op.SESSION_PUT, session=name, record=record)).header["workspace"])


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_put_is_idempotent_and_the_last_record_counts(rig: Rig, tmp_path: Path) -> None:
    first = await rig.ask(Op.SESSION_PUT, session="s", record={"n": 1})
    workspace = Path(first.header["workspace"])
    assert (mode_of(workspace), first.header["is_new"]) == (0o700, True)
    (workspace / "file").touch()
    again = await rig.ask(Op.SESSION_PUT, session="s", record={"n": 2})
    assert (again.header["workspace"], again.header["is_new"]) == (str(workspace), False)
    assert (workspace / "file").exists()
    listed = (await Rig(tmp_path).ask(Op.SESSION_LIST)).header
    assert listed["sessions"] == [{"session": "s", "workspace": str(workspace), "record": {"n": 2}}]
    assert listed["is_last"] is True


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "-x", "a\0", "a\n", "n" * 201, None, 3, "ä"])
async def test_names_that_are_no_names(rig: Rig, name: Any) -> None:
    for op in (Op.SESSION_PUT, Op.SESSION_REMOVE):
        assert (await rig.ask.refused(op, session=name, record={})).fault == Fault.BAD_REQUEST
    with pytest.raises(Refused):
        rig.workspaces.path(name)


async def test_records_have_a_bound(rig: Rig) -> None:
    assert (await rig.ask.refused(Op.SESSION_PUT, session="s", record=[])).fault == Fault.BAD_REQUEST
    large = {"x": "y" * MAX_RECORD_BYTES}
    assert (await rig.ask.refused(Op.SESSION_PUT, session="s", record=large)).fault == Fault.BAD_REQUEST


async def test_a_long_list_comes_in_parts(rig: Rig) -> None:
    names = [f"s{n}" for n in range(7)]
    for name in names:
        await rig.put(name, text="x" * (LIST_BYTES // 3))
    found: list[str] = []
    answer = await rig.ask(Op.SESSION_LIST)
    while not answer.header["is_last"]:
        found += [each["session"] for each in answer.header["sessions"]]
        answer = await rig.ask(Op.SESSION_LIST, after=found[-1])
    assert [*found, *(each["session"] for each in answer.header["sessions"])] == names


async def test_unknown_sessions(rig: Rig) -> None:
    assert (await rig.ask.refused(Op.SESSION_REMOVE, session="s")).fault == Fault.UNKNOWN_SESSION
    with pytest.raises(Refused) as caught:
        rig.workspaces.path("s")
    assert caught.value.fault == Fault.UNKNOWN_SESSION


async def test_removal_ends_what_the_session_has_first(rig: Rig) -> None:
    """Nobody finds the session meanwhile, a second removal waits for the first, and the name is free then."""
    workspace = await rig.put()
    (workspace / "file").touch()
    may_end, seen = asyncio.Event(), []

    async def end(session: str) -> None:
        seen.append((session, workspace.exists()))
        await may_end.wait()

    rig.workspaces.before_removal(end)
    async with asyncio.TaskGroup() as group:
        removals = [group.create_task(rig.ask(Op.SESSION_REMOVE, session="s")) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Refused):
            rig.workspaces.path("s")
        put = group.create_task(rig.ask(Op.SESSION_PUT, session="s", record={}))
        await asyncio.sleep(0)
        assert not any(each.done() for each in (*removals, put))
        may_end.set()
    assert seen == [("s", True)]
    assert put.result().header["is_new"] is True
    assert list(rig.workspaces.path("s").iterdir()) == []


async def test_a_workspace_is_kept_for_a_session_to_come(rig: Rig, tmp_path: Path) -> None:
    """Until then there is no session; its commands ended."""
    ended: list[str] = []

    async def end(session: str) -> None:
        ended.append(session)

    workspace = await rig.put("s", n=1)
    (workspace / "file").touch()
    rig.workspaces.before_removal(end)
    await rig.ask(Op.SESSION_REMOVE, session="s", keeps_workspace=True)
    assert ended == ["s"]
    for each in (rig, Rig(tmp_path)):
        assert (await each.ask(Op.SESSION_LIST)).header["sessions"] == []
        with pytest.raises(Refused):
            each.workspaces.path("s")
    again = (await rig.ask(Op.SESSION_PUT, session="s", record={})).header
    assert (again["is_new"], again["workspace"], (workspace / "file").exists()) == (
        True,
        str(workspace),
        True,
    )
    await rig.ask(Op.SESSION_REMOVE, session="s", keeps_workspace=True)
    await rig.ask(Op.SESSION_REMOVE, session="s")
    assert not workspace.exists()


async def test_damaged_records(rig: Rig) -> None:
    """The session is there all the same, and so are the others."""
    for name, text in (("a", "{"), ("b", "[]")):
        (await rig.put(name)).with_name("record.json").write_text(text)
    sessions = (await rig.ask(Op.SESSION_LIST)).header["sessions"]
    assert [(each["session"], each["record"]) for each in sessions] == [("a", {}), ("b", {})]


async def test_a_removal_goes_on_without_its_caller(rig: Rig) -> None:
    workspace = await rig.put()
    may_end = asyncio.Event()

    async def end(session: str) -> None:
        await may_end.wait()

    rig.workspaces.before_removal(end)
    asked = asyncio.get_running_loop().create_task(rig.ask(Op.SESSION_REMOVE, session="s"))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    may_end.set()
    await rig.put("s")
    assert list(workspace.parent.parent.iterdir()) == [workspace.parent]


async def test_an_interrupted_removal_ends_at_the_next_start(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "trash" / "s.1234" / "workspace").mkdir(parents=True)
    (tmp_path / "trash" / "s.1234" / "workspace" / "file").touch()
    await Rig(tmp_path).workspaces.empty_trash()
    assert list((tmp_path / "trash").iterdir()) == []


async def test_where_a_command_starts(rig: Rig, tmp_path: Path) -> None:
    workspace = await rig.put()
    (workspace / "a").mkdir()
    (workspace / "in").symlink_to("a")
    (workspace / "out").symlink_to(tmp_path)
    (workspace / "file").touch()
    (workspace / "loop").symlink_to("loop")

    def start(cwd: str, allow_outside: bool = False) -> Path | str:
        try:
            return rig.workspaces.start_directory("s", cwd, allow_outside)
        except Refused as refused:
            return refused.fault

    assert start("") == start(".") == start(str(workspace)) == workspace
    assert start("a") == start("in") == start("a/../a") == workspace / "a"
    assert start("..") == start("/") == start("out") == start("a/../..") == Fault.OUTSIDE
    assert start("none") == start("file") == start("loop") == start("\0") == Fault.NOT_FOUND
    assert start("out", True) == tmp_path
    assert start("/", True) == Path("/")


async def test_there_is_a_limit(tmp_path: Path) -> None:
    """Also for an agent that finds sessions when it starts."""
    rig = Rig(tmp_path, max_sessions=2)
    for name in ("a", "b"):
        await rig.put(name)
    for each in (rig, Rig(tmp_path, max_sessions=2)):
        assert (await each.ask.refused(Op.SESSION_PUT, session="c", record={})).fault == Fault.NO_SPACE
    await rig.ask(Op.SESSION_REMOVE, session="a")
    await rig.put("c")


async def test_a_workspace_that_a_command_replaced_by_a_link(rig: Rig, tmp_path: Path) -> None:
    workspace = await rig.put()
    workspace.rename(tmp_path / "elsewhere")
    workspace.symlink_to("/etc")
    with pytest.raises(Refused):
        rig.workspaces.root("s")
