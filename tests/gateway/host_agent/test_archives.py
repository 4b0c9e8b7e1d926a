"""Trees as tar, both ways: whole, safe, in small pieces, and never left half open."""

import asyncio
import contextlib
import gzip
import io
import os
import subprocess
import tarfile
import tempfile
import tracemalloc
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.host_agent.archives import ARCHIVE_TTL_S, MAX_ARCHIVES, Archives
from gateway.host_agent.extraction import ExtractionBounds
from gateway.host_agent.operations import Refused
from gateway.host_agent.paths import Root
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault, Op
from tests.gateway.host_agent.asking import Asking


class Rig:
    def __init__(self, top: Path, bounds: ExtractionBounds | None = None) -> None:
        top.mkdir(exist_ok=True)
        self.now = 0.0
        self.top = top
        self.archives = Archives(lambda session: Root.open(top), lambda: self.now, bounds, step_s=0)
        self.ask = Asking(self.archives.operations())

    async def open(self, mode: str, path: str = "") -> str:
        answer = await self.ask(Op.ARCHIVE_OPEN, session="s", path=path, mode=mode)
        return str(answer.header["archive"])

    async def read(self, path: str = "") -> bytes:
        handle, data, is_eof = await self.open("read", path), b"", False
        while not is_eof:
            answer = await self.ask(Op.ARCHIVE_READ, archive=handle)
            data += answer.payload
            is_eof = answer.header["is_eof"]
        await self.ask(Op.ARCHIVE_CLOSE, archive=handle)
        return data

    async def write(self, data: bytes, path: str = "", piece_bytes: int = MAX_PAYLOAD_BYTES) -> int:
        handle = await self.open("write", path)
        for start in range(0, max(1, len(data)), piece_bytes):
            is_last = start + piece_bytes >= len(data)
            piece = data[start : start + piece_bytes]
            answer = await self.ask(Op.ARCHIVE_WRITE, piece, archive=handle, is_last=is_last)
        return int(answer.header["entries"])

    async def write_fault(self, data: bytes, path: str = "") -> str:
        with pytest.raises(Refused) as caught:
            await self.write(data, path)
        return caught.value.fault


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "top")


def tar_of(*entries: tuple[str, Any], form: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """Name with bytes of a file, or with (type, target)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            data = what if isinstance(what, bytes) else b""
            info.size = len(data)
            if not isinstance(what, bytes):
                info.type, info.linkname = what
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar}


def fill(top: Path) -> None:
    (top / "dir" / "empty").mkdir(parents=True)
    (top / "dir" / "big").write_bytes(os.urandom(700_001))
    (top / "dir" / ("long" * 40)).write_bytes(b"x")
    (top / "dir" / "run").write_bytes(b"#!/bin/sh\n")
    (top / "dir" / "run").chmod(0o755)
    (top / "none").touch()
    (top / "ünïcode\udcff").write_bytes(b"bytes that are no UTF-8")
    (top / "link").symlink_to("dir/run")
    os.link(top / "dir" / "big", top / "same")
    (top / "closed").mkdir()
    (top / "closed" / "file").write_bytes(b"in a directory without write permission")
    (top / "closed").chmod(0o555)


def tree(top: Path) -> dict[str, Any]:
    found = {}
    for path in top.rglob("*"):
        what = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(top))] = (what, path.lstat().st_mode)
    return found


async def test_there_and_back(rig: Rig, tmp_path: Path) -> None:
    """Names of any length and any bytes, modes, links, hard links, directories that nobody may write in."""
    fill(rig.top)
    data = await rig.read()
    other = Rig(tmp_path / "other")
    assert await other.write(data, piece_bytes=10_007) == len(members(data))
    assert tree(other.top) == tree(rig.top)
    assert (other.top / "same").samefile(other.top / "dir" / "big")
    assert (other.top / "none").stat().st_mtime == int((rig.top / "none").stat().st_mtime)


async def test_tar_itself_agrees(rig: Rig, tmp_path: Path) -> None:
    """What we make it unpacks; what it makes, in each of its formats and packed, we unpack."""
    fill(rig.top)
    (tmp_path / "unpacked").mkdir()
    run = subprocess.run
    run(["tar", "-xf", "-", "-C", tmp_path / "unpacked"], input=await rig.read(), check=True)
    assert tree(tmp_path / "unpacked") == tree(rig.top)
    for number, flags in enumerate((["--format=gnu"], ["--format=pax"], ["--format=gnu", "-z"])):
        made = run(["tar", "-cf", "-", *flags, "-C", rig.top, "."], capture_output=True, check=True).stdout
        other = Rig(tmp_path / str(number))
        await other.write(made, piece_bytes=50_000)
        assert tree(other.top) == tree(rig.top)


async def test_pieces_of_any_size(tmp_path: Path) -> None:
    """The reader stops anywhere: in a header, in padding, in the middle of gzip's own."""
    plain = tar_of(("a/" + "n" * 200, b"x" * 600), ("b", b""), ("c", b"y"), form=tarfile.GNU_FORMAT)
    for number, data in enumerate((plain, gzip.compress(plain))):
        for piece_bytes in (1, 511, 512, 513):
            rig = Rig(tmp_path / f"{number}-{piece_bytes}")
            assert await rig.write(data, piece_bytes=piece_bytes) == 3
            assert (rig.top / "a" / ("n" * 200)).read_bytes() == b"x" * 600
            assert (rig.top / "c").read_bytes() == b"y"


async def test_gzip_members_in_a_row(rig: Rig) -> None:
    """As parallel compressors make them."""
    plain = tar_of(("a", b"1" * 5000), ("b", b"2"))
    await rig.write(gzip.compress(plain[:777]) + gzip.compress(plain[777:]))
    assert (rig.top / "b").read_bytes() == b"2"


async def test_a_subtree_and_a_single_file(rig: Rig) -> None:
    (rig.top / "dir" / "sub").mkdir(parents=True)
    (rig.top / "dir" / "sub" / "file").write_bytes(b"x")
    assert sorted(members(await rig.read("dir"))) == ["sub", "sub/file"]
    assert list(members(await rig.read("dir/sub/file"))) == ["file"]
    assert await rig.write(tar_of(("f", b"y")), "new/place") == 1
    assert (rig.top / "new" / "place" / "f").read_bytes() == b"y"


async def test_what_is_no_file_is_left_out(rig: Rig) -> None:
    os.mkfifo(rig.top / "fifo")
    (rig.top / "out").symlink_to("/etc/passwd")
    found = members(await rig.read())
    assert {name: member.type for name, member in found.items()} == {"out": tarfile.SYMTYPE}


@pytest.mark.parametrize(
    "entry",
    [
        ("/abs", b"x"),
        ("../up", b"x"),
        ("a/../../up", b"x"),
        ("hard", (tarfile.LNKTYPE, "../up")),
        ("hard", (tarfile.LNKTYPE, "/etc/passwd")),
    ],
)
async def test_entries_that_leave(rig: Rig, entry: tuple[str, Any]) -> None:
    (rig.top.parent / "up").write_bytes(b"untouched")
    assert await rig.write_fault(tar_of(entry)) == Fault.OUTSIDE
    assert (rig.top.parent / "up").read_bytes() == b"untouched"
    assert [path for path in rig.top.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("target", ["/etc/passwd", "../../up", "a/../..", "nowhere", "x" * 3000])
async def test_links_are_data_wherever_they_point(rig: Rig, tmp_path: Path, target: str) -> None:
    await rig.write(tar_of(("a/link", (tarfile.SYMTYPE, target))))
    assert str((rig.top / "a" / "link").readlink()) == target
    other = Rig(tmp_path / "other")
    await other.write(await rig.read())
    assert tree(other.top) == tree(rig.top)


@pytest.mark.parametrize(("target", "fault"), [("", Fault.NOT_FOUND), ("x" * 5000, Fault.BAD_REQUEST)])
async def test_links_that_no_file_system_has(rig: Rig, target: str, fault: str) -> None:
    assert await rig.write_fault(tar_of(("link", (tarfile.SYMTYPE, target)))) == fault
    pax = {"linkpath": "a\0b"}
    with_nul = tar_of(("link", (tarfile.SYMTYPE, "a")), form=tarfile.PAX_FORMAT, pax_headers=pax)
    assert await rig.write_fault(with_nul) == Fault.BAD_REQUEST
    assert list(rig.top.iterdir()) == []


@pytest.mark.slow
async def test_a_virtual_environment_there_and_back(rig: Rig, tmp_path: Path) -> None:
    """Its interpreter is a link to an absolute path."""
    venv.create(rig.top / "env", symlinks=True, with_pip=False)
    assert (rig.top / "env" / "bin" / "python").is_symlink()
    other = Rig(tmp_path / "other")
    await other.write(await rig.read())
    assert tree(other.top) == tree(rig.top)
    python, run = other.top / "env" / "bin" / "python", subprocess.run
    printed = run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, check=True).stdout
    assert printed.decode().strip() == str(other.top / "env")


PARTS = st.sampled_from(["a", "b", "c", "..", ".", ""])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
TARGETS = st.one_of(PATHS, PATHS.map("/".__add__), PATHS.map("OUTSIDE/".__add__), PATHS.map("TOP/".__add__))
KINDS = st.sampled_from([tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
WHAT = st.one_of(st.just(b"written"), st.tuples(KINDS, TARGETS))


@given(st.lists(st.tuples(st.one_of(PATHS, TARGETS), WHAT), max_size=12))
def test_no_archive_touches_what_is_outside(entries: list[tuple[str, Any]]) -> None:
    """Whatever links it brings, and then names things through."""
    with tempfile.TemporaryDirectory() as name:
        top, outside = Path(name).resolve() / "top", Path(name).resolve() / "outside"
        for directory in (outside / "a", outside / "b" / "a"):
            directory.mkdir(parents=True)
            (directory / "c").write_bytes(b"untouched")
        before = tree(outside)
        real = {"OUTSIDE": str(outside), "TOP": str(top)}

        def placed(path: str) -> str:
            first, slash, rest = path.partition("/")
            return real.get(first, first) + slash + rest

        hostile = [
            (placed(path), what if isinstance(what, bytes) else (what[0], placed(what[1])))
            for path, what in entries
        ]
        rig = Rig(top)
        for entry in hostile:  # One by one, so that what is refused does not end the attempt.
            with contextlib.suppress(Refused):
                asyncio.run(rig.write(tar_of(entry)))
        assert tree(outside) == before
        assert sorted(path.name for path in Path(name).iterdir()) == ["outside", "top"]
        inodes = {path.stat().st_ino for path in outside.rglob("*")}
        assert inodes.isdisjoint(path.lstat().st_ino for path in top.rglob("*"))


async def test_links_that_were_there_lead_nothing_out(rig: Rig) -> None:
    """A command made them, knowing what would be unpacked."""
    outside = rig.top.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"untouched")
    (rig.top / "dir").symlink_to(outside)
    (rig.top / "file").symlink_to(outside / "file")
    assert await rig.write_fault(tar_of(("dir/file", b"x"))) == Fault.OUTSIDE
    assert await rig.write_fault(tar_of(("dir/new", (tarfile.DIRTYPE, "")))) == Fault.OUTSIDE
    assert await rig.write_fault(tar_of(("hard", (tarfile.LNKTYPE, "dir/file")))) == Fault.OUTSIDE
    assert await rig.write(tar_of(("file", b"mine"))) == 1
    assert ((outside / "file").read_bytes(), (rig.top / "file").is_symlink()) == (b"untouched", False)
    assert [path.name for path in outside.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
async def test_devices_are_refused(rig: Rig, kind: bytes) -> None:
    assert await rig.write_fault(tar_of(("dev", (kind, "")))) == Fault.BAD_REQUEST
    assert list(rig.top.iterdir()) == []


async def test_set_id_bits_are_dropped(rig: Rig) -> None:
    await rig.write(tar_of(("file", b"x"), ("dir", (tarfile.DIRTYPE, "")), mode=0o7755))
    assert {path.stat().st_mode & 0o7777 for path in rig.top.iterdir()} == {0o755}


async def test_what_is_there_is_replaced(rig: Rig) -> None:
    """Files by files; directories stay and are filled."""
    (rig.top / "dir").mkdir()
    (rig.top / "dir" / "kept").touch()
    (rig.top / "file").write_bytes(b"old")
    await rig.write(tar_of(("dir", (tarfile.DIRTYPE, "")), ("dir/new", b""), ("file", b"new"), mode=0o700))
    assert sorted(p.name for p in (rig.top / "dir").iterdir()) == ["kept", "new"]
    assert (rig.top / "file").read_bytes() == b"new"
    assert await rig.write_fault(tar_of(("dir", b"x"))) == Fault.BAD_REQUEST
    assert await rig.write_fault(tar_of(("file/x", b"x"))) == Fault.NOT_FOUND


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0", id="one byte"),
        pytest.param(b"no tar at all" * 100, id="no tar"),
        pytest.param(tar_of(("file", b"x" * 2000))[:1500], id="cut in a file"),
        pytest.param(tar_of(("file", b"x" * 2000))[: 512 + 2048], id="without its end"),
        pytest.param(gzip.compress(tar_of(("file", b"x" * 2000)), mtime=0)[:-30], id="cut gzip"),
        pytest.param(b"\x1f\x8b no gzip", id="no gzip"),
        pytest.param(
            tar_of(("f", b"x"), form=tarfile.PAX_FORMAT, pax_headers={"size": "nonsense"}), id="nonsense size"
        ),
        pytest.param(tar_of(("f", (tarfile.GNUTYPE_SPARSE, ""))), id="sparse"),
    ],
)
async def test_broken_archives(rig: Rig, data: bytes, open_fds: Callable[[], int]) -> None:
    """Whatever is missing is told, a half file does not stay, and the handle is gone."""
    before = open_fds()
    handle = await rig.open("write")
    refused = await rig.ask.refused(Op.ARCHIVE_WRITE, data, archive=handle, is_last=True)
    assert refused.fault == Fault.BAD_REQUEST
    assert (await rig.ask.refused(Op.ARCHIVE_CLOSE, archive=handle)).fault == Fault.UNKNOWN_ARCHIVE
    assert [path for path in rig.top.iterdir() if path.stat().st_size not in (0, 2000)] == []
    assert open_fds() == before


async def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, with a bound of a megabyte: its header says enough."""
    rig = Rig(tmp_path / "top", ExtractionBounds(max_bytes=1 << 20, max_entries=10))
    assert await rig.write_fault(gzip.compress(tar_of(("zeros", bytes(2 << 20))))) == Fault.TOO_LARGE
    assert await rig.write_fault(tar_of(*((str(n), b"") for n in range(11)))) == Fault.TOO_LARGE
    assert not (rig.top / "zeros").exists()


async def test_long_texts_about_an_entry_are_refused(rig: Rig) -> None:
    """They would have to be held in memory."""
    data = tar_of(("f", b"x"), pax_headers={"comment": "x" * (2 << 20)})
    assert await rig.write_fault(data) == Fault.BAD_REQUEST


async def test_nobody_holds_a_big_archive(rig: Rig) -> None:
    """Memory of the agent does not follow the size of what it packs."""
    with (rig.top / "big").open("wb") as file:
        file.truncate(256 << 20)
    handle, total, is_eof = await rig.open("read"), 0, False
    tracemalloc.start()
    try:
        while not is_eof:
            answer = await rig.ask(Op.ARCHIVE_READ, archive=handle)
            assert len(answer.payload) <= MAX_PAYLOAD_BYTES
            total, is_eof = total + len(answer.payload), answer.header["is_eof"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await rig.ask(Op.ARCHIVE_CLOSE, archive=handle)
    assert total > 256 << 20
    assert peak < 8 << 20


async def test_a_file_that_shrinks_while_it_is_packed(rig: Rig) -> None:
    """Its header is out already: zeros fill it up, and what follows is where it should be."""
    (rig.top / "a").write_bytes(b"x" * (2 << 20))
    (rig.top / "b").write_bytes(b"after")
    handle = await rig.open("read")
    data = (await rig.ask(Op.ARCHIVE_READ, archive=handle)).payload
    os.truncate(rig.top / "a", 10)
    is_eof = False
    while not is_eof:
        answer = await rig.ask(Op.ARCHIVE_READ, archive=handle)
        data, is_eof = data + answer.payload, answer.header["is_eof"]
    assert {name: member.size for name, member in members(data).items()} == {"a": 2 << 20, "b": 5}
    rig.archives.close()


async def test_handles_belong_to_their_connection(rig: Rig, open_fds: Callable[[], int]) -> None:
    before = open_fds()
    handle = await rig.open("read")
    other = Asking(rig.archives.operations())
    assert (await other.refused(Op.ARCHIVE_READ, archive=handle)).fault == Fault.UNKNOWN_ARCHIVE
    assert (await rig.ask.refused(Op.ARCHIVE_WRITE, archive=handle)).fault == Fault.BAD_REQUEST
    rig.ask.caller.end()
    assert (await rig.ask.refused(Op.ARCHIVE_READ, archive=handle)).fault == Fault.UNKNOWN_ARCHIVE
    assert open_fds() == before


@pytest.mark.parametrize("end", ["expire", "end_session", "close"])
async def test_abandoned_archives_are_closed(rig: Rig, end: str, open_fds: Callable[[], int]) -> None:
    """With the half file that was being written."""
    before = open_fds()
    handle = await rig.open("write")
    await rig.open("read")
    await rig.ask(Op.ARCHIVE_WRITE, tar_of(("f", b"x" * 999))[:700], archive=handle, is_last=False)
    rig.now = ARCHIVE_TTL_S + 1
    if end == "end_session":
        await rig.archives.end_session("s")
    else:
        getattr(rig.archives, end)()
    assert (list(rig.top.iterdir()), open_fds()) == ([], before)


async def test_archives_have_a_bound(rig: Rig) -> None:
    for _ in range(MAX_ARCHIVES):
        await rig.open("read")
    fields = {"session": "s", "path": "", "mode": "read"}
    assert (await rig.ask.refused(Op.ARCHIVE_OPEN, **fields)).fault == Fault.NO_SPACE
    rig.now = ARCHIVE_TTL_S + 1
    await rig.open("read")
    rig.archives.close()


async def test_pieces_sent_at_once_stay_in_order(rig: Rig) -> None:
    """A gateway need not wait for each answer."""
    data = tar_of(*((str(n), bytes([n]) * 300) for n in range(200)))
    handle = await rig.open("write")
    pieces = [data[start : start + 40_000] for start in range(0, len(data), 40_000)]
    async with asyncio.TaskGroup() as group:
        for piece in pieces:
            is_last = piece is pieces[-1]
            group.create_task(rig.ask(Op.ARCHIVE_WRITE, piece, archive=handle, is_last=is_last))
    assert all((rig.top / str(n)).read_bytes() == bytes([n]) * 300 for n in range(200))


async def test_ended_while_a_piece_is_under_way(rig: Rig) -> None:
    """It is refused: half an archive must not pass for one."""
    for n in range(300):
        (rig.top / str(n)).write_bytes(b"x")
    handle = await rig.open("read")
    task = asyncio.get_running_loop().create_task(rig.ask.refused(Op.ARCHIVE_READ, archive=handle))
    await asyncio.sleep(0)
    rig.archives.close()
    assert (await task).fault == Fault.UNKNOWN_ARCHIVE


async def test_giving_up_in_the_middle_ends_the_archive(rig: Rig) -> None:
    """What was taken out of it would be missing."""
    for n in range(300):
        (rig.top / str(n)).write_bytes(b"x")
    handle = await rig.open("read")
    task = asyncio.get_running_loop().create_task(rig.ask(Op.ARCHIVE_READ, archive=handle))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await rig.ask.refused(Op.ARCHIVE_READ, archive=handle)).fault == Fault.UNKNOWN_ARCHIVE


async def test_paths(rig: Rig) -> None:
    for path, fault in (("none", Fault.NOT_FOUND), ("..", Fault.OUTSIDE), ("/etc", Fault.OUTSIDE)):
        refused = await rig.ask.refused(Op.ARCHIVE_OPEN, session="s", path=path, mode="read")
        assert refused.fault == fault
    refused = await rig.ask.refused(Op.ARCHIVE_OPEN, session="s", path="", mode="append")
    assert (refused.fault, refused.message) == (Fault.BAD_REQUEST, "mode: must be one of read, write")
