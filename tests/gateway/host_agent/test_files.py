"""Files of a workspace: whole or not at all, pieces that come again change nothing, nothing outside."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.host_agent.files import MAX_UPLOADS, UPLOAD_TTL_S, Files
from gateway.host_agent.paths import Root
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault, Op
from tests.gateway.host_agent.asking import Asking


class Rig:
    def __init__(self, top: Path) -> None:
        self.now = 0.0
        self.top = top
        self.files = Files(lambda session: Root.open(top), lambda: self.now)
        self.ask = Asking(self.files.operations())

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        offset: int = 0,
        is_last: bool = True,
        mode: int | None = None,
        upload: str = "u",
    ) -> int:
        fields = {"path": path, "offset": offset, "is_last": is_last, "mode": mode, "upload": upload}
        answer = await self.ask(Op.FILE_WRITE, data, session="s", **fields)
        return int(answer.header["next_offset"])

    async def write_fault(self, path: str, data: bytes = b"", *, offset: int = 0, upload: str = "u") -> str:
        fields = {"path": path, "offset": offset, "is_last": True, "upload": upload}
        return (await self.ask.refused(Op.FILE_WRITE, data, session="s", **fields)).fault

    def names(self) -> list[str]:
        return sorted(path.name for path in self.top.iterdir())


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    (tmp_path / "top").mkdir()
    return Rig(tmp_path / "top")


async def test_read_in_pieces(rig: Rig) -> None:
    (rig.top / "file").write_bytes(b"0123456789")
    (rig.top / "file").chmod(0o640)
    answer = await rig.ask(Op.FILE_READ, session="s", path="file", offset=2, limit=5)
    assert (answer.payload, answer.header["is_eof"], answer.header["size"]) == (b"23456", False, 10)
    assert (answer.header["mode"], answer.header["mtime_s"]) == (0o640, (rig.top / "file").stat().st_mtime)
    rest = await rig.ask(Op.FILE_READ, session="s", path="file", offset=7, limit=5)
    assert (rest.payload, rest.header["is_eof"]) == (b"789", True)
    beyond = await rig.ask(Op.FILE_READ, session="s", path="file", offset=99, limit=5)
    assert (beyond.payload, beyond.header["is_eof"]) == (b"", True)


async def test_a_piece_fits_a_frame(rig: Rig) -> None:
    with (rig.top / "file").open("wb") as file:
        file.truncate(MAX_PAYLOAD_BYTES + 1)
    answer = await rig.ask(Op.FILE_READ, session="s", path="file", offset=0, limit=1 << 40)
    assert (len(answer.payload), answer.header["is_eof"]) == (MAX_PAYLOAD_BYTES, False)


async def test_a_file_is_there_when_it_is_whole(rig: Rig) -> None:
    assert await rig.write("a/b/file", b"one", is_last=False) == 3
    assert not (rig.top / "a/b/file").exists()
    assert await rig.write("a/b/file", b"two", offset=3, mode=0o755) == 6
    assert (rig.top / "a/b/file").read_bytes() == b"onetwo"
    assert (rig.top / "a/b/file").stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in (rig.top / "a/b").iterdir()] == ["file"]


async def test_pieces_that_come_again(rig: Rig) -> None:
    """As after a break of the connection, when nobody knows what arrived."""
    for data, offset, expected in ((b"abc", 0, 3), (b"abc", 0, 3), (b"bcdef", 1, 6), (b"", 2, 6)):
        assert await rig.write("file", data, offset=offset, is_last=False) == expected
    assert await rig.write("file", b"g", offset=6) == 7
    (rig.top / "file").write_bytes(b"changed since")
    assert await rig.write("file", b"g", offset=6) == 7
    assert (rig.top / "file").read_bytes() == b"changed since"


async def test_gaps_are_refused_with_what_is_next(rig: Rig) -> None:
    await rig.write("file", b"abc", is_last=False)
    for upload, offset, expected in (("u", 4, 3), ("unknown", 3, 0)):
        fields = {"path": "file", "offset": offset, "is_last": True, "upload": upload}
        refused = await rig.ask.refused(Op.FILE_WRITE, b"x", session="s", **fields)
        assert (refused.fault, refused.fields) == (Fault.BAD_REQUEST, {"next_offset": expected})
    assert await rig.write("file", b"d", offset=3) == 4
    assert (rig.top / "file").read_bytes() == b"abcd"


async def test_replacing_keeps_the_mode(rig: Rig) -> None:
    (rig.top / "script").write_bytes(b"old")
    (rig.top / "script").chmod(0o750)
    await rig.write("script", b"new")
    assert (rig.top / "script").read_bytes() == b"new"
    assert (rig.top / "script").stat().st_mode & 0o7777 == 0o750


async def test_links(rig: Rig) -> None:
    """Written through when they lead inside; refused when not; removed themselves."""
    (rig.top / "real").write_bytes(b"old")
    (rig.top / "link").symlink_to("real")
    (rig.top / "out").symlink_to("../outside")
    await rig.write("link", b"new")
    assert ((rig.top / "real").read_bytes(), (rig.top / "link").is_symlink()) == (b"new", True)
    assert await rig.write_fault("out", b"x") == Fault.OUTSIDE
    assert await rig.write_fault("out/file", b"x") == Fault.OUTSIDE
    assert not (rig.top.parent / "outside").exists()
    assert (await rig.ask(Op.FILE_REMOVE, session="s", path="link")).header == {"was_there": True}
    assert rig.names() == ["out", "real"]


async def test_uploads_of_one_file_do_not_mix(rig: Rig) -> None:
    await rig.write("file", b"one", is_last=False, upload="1")
    await rig.write("file", b"zwei", is_last=False, upload="2")
    await rig.write("file", b"!", offset=3, upload="1")
    assert (rig.top / "file").read_bytes() == b"one!"
    await rig.write("file", b"?", offset=4, upload="2")
    assert (rig.top / "file").read_bytes() == b"zwei?"


@pytest.mark.parametrize("end", ["expire", "end_session", "close"])
async def test_abandoned_uploads_leave_nothing(rig: Rig, end: str, open_fds: Callable[[], int]) -> None:
    before = open_fds()
    await rig.write("file", b"part", is_last=False)
    rig.now = UPLOAD_TTL_S + 1
    if end == "end_session":
        await rig.files.end_session("other")
        assert len(rig.names()) == 1
        await rig.files.end_session("s")
    else:
        getattr(rig.files, end)()
    assert (rig.names(), open_fds()) == ([], before)


async def test_uploads_have_a_bound(rig: Rig) -> None:
    """Those that somebody goes on with are not dropped for it."""
    for n in range(MAX_UPLOADS):
        await rig.write("file", b"x", is_last=False, upload=str(n))
    assert await rig.write_fault("file", b"x", upload="more") == Fault.NO_SPACE
    rig.now = UPLOAD_TTL_S - 1
    await rig.write("file", b"y", offset=1, is_last=False, upload="0")
    rig.now = UPLOAD_TTL_S + 1
    await rig.write("file", b"x", is_last=False, upload="more")
    assert await rig.write("file", b"!", offset=2, upload="0") == 3
    rig.files.close()


async def test_directories_are_no_files(rig: Rig) -> None:
    (rig.top / "dir").mkdir()
    for path in ("dir", "", ".", "dir/.."):
        assert await rig.write_fault(path, b"x") == Fault.BAD_REQUEST
        assert (await rig.ask.refused(Op.FILE_READ, session="s", path=path)).fault == Fault.BAD_REQUEST
    (rig.top / "file").touch()
    assert await rig.write_fault("file/x", b"x") == Fault.NOT_FOUND
    assert rig.names() == ["dir", "file"]


async def test_a_failed_write_leaves_nothing(rig: Rig, open_fds: Callable[[], int]) -> None:
    """A directory takes the name while the upload is under way."""
    before = open_fds()
    await rig.write("name", b"x", is_last=False)
    (rig.top / "name").mkdir()
    assert await rig.write_fault("name", b"y", offset=1) == Fault.BAD_REQUEST
    assert (rig.names(), open_fds()) == (["name"], before)


async def test_removal(rig: Rig) -> None:
    (rig.top / "dir" / "sub").mkdir(parents=True)
    (rig.top / "dir" / "sub" / "file").touch()
    assert (await rig.ask(Op.FILE_REMOVE, session="s", path="dir")).header == {"was_there": True}
    assert (await rig.ask(Op.FILE_REMOVE, session="s", path="dir")).header == {"was_there": False}
    assert (await rig.ask(Op.FILE_REMOVE, session="s", path="no/such")).header == {"was_there": False}
    for path, fault in (("", Fault.BAD_REQUEST), ("..", Fault.OUTSIDE), ("/etc", Fault.OUTSIDE)):
        assert (await rig.ask.refused(Op.FILE_REMOVE, session="s", path=path)).fault == fault


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("path", 3),
        ("path", None),
        ("upload", None),
        ("offset", -1),
        ("offset", True),
        ("is_last", 1),
        ("mode", "7"),
    ],
)
async def test_fields_are_refused_by_name(rig: Rig, field: str, value: object) -> None:
    fields = {"path": "f", "upload": "u", "offset": 0, "is_last": True, "mode": None, field: value}
    refused = await rig.ask.refused(Op.FILE_WRITE, b"x", session="s", **fields)
    assert refused.fault == Fault.BAD_REQUEST
    assert refused.message.startswith(f"{field}: ")


async def test_new_files_belong_to_the_owner_of_the_workspace(rig: Rig) -> None:
    """Where we are root and the session is somebody else; elsewhere that somebody is ourselves."""
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(rig.top, owner, -1)
    await rig.write("a/file", b"x")
    assert {(rig.top / path).stat().st_uid for path in ("a", "a/file")} == {owner}
