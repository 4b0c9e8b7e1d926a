"""Snapshots in shared memory: whole or nothing, whatever the writer is doing meanwhile."""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from backend_patch import snapshot
from backend_patch.snapshot import (
    MAX_BYTES,
    Memory,
    SnapshotReader,
    SnapshotTooLarge,
    SnapshotWriter,
    load,
    store,
)

PAYLOADS = [bytes([number]) * (20 + number) for number in range(1, 7)]
"""Each differs from the others in every byte, and in length."""

WRITER = """
import sys
from pathlib import Path
from backend_patch.snapshot import SnapshotWriter
writer = SnapshotWriter("process", 0, directory=Path(sys.argv[1]))
number = 0
while True:
    number += 1
    writer.write(bytes([number % 251]) * (1000 + number * 37 % 30000))
    if number == 1:
        print("ready", flush=True)
"""


class Racing:
    """Memory that a writer changes while it is read: a few of its stores before each half of each read.

    Wide stores are halved too. ``pace`` says how many go before which; ``frozen_counter`` is a machine
    on which the reader sees new bytes in the slots before it sees the counter that goes with them.
    """

    def __init__(
        self, stores: list[tuple[int, bytes]], pace: list[int], *, frozen_counter: bool = False
    ) -> None:
        self._bytes = bytearray(snapshot.FILE_BYTES)
        self._stores = iter(stores)
        self._pace = iter(pace)
        self._frozen = frozen_counter
        self._apply(4)  # The first write of the writer, which is four stores.
        self._first_counter = bytes(self._bytes[: snapshot.COUNTER_BYTES])

    def __getitem__(self, span: slice, /) -> bytes:
        if span.stop == snapshot.COUNTER_BYTES:
            self._apply(next(self._pace, 0))
            return self._first_counter if self._frozen else bytes(self._bytes[span])
        middle = (span.start + span.stop) // 2
        halves = []
        for start, stop in ((span.start, middle), (middle, span.stop)):
            self._apply(next(self._pace, 0))
            halves.append(bytes(self._bytes[start:stop]))
        return b"".join(halves)

    def __setitem__(self, span: slice, data: bytes, /) -> None:
        raise AssertionError("readers do not write")

    def _apply(self, count: int) -> None:
        for _, (start, data) in zip(range(count), self._stores, strict=False):
            self._bytes[start : start + len(data)] = data


class Recording:
    """Memory that notes what is stored, in order."""

    def __init__(self) -> None:
        self.stores: list[tuple[int, bytes]] = []

    def __getitem__(self, span: slice, /) -> bytes:
        raise AssertionError("writers do not read")

    def __setitem__(self, span: slice, data: bytes, /) -> None:
        start = span.start or 0
        half = len(data) // 2 if len(data) > snapshot.COUNTER_BYTES else len(data)
        self.stores += [(start, data[:half])] + [(start + half, data[half:])] * (half < len(data))


def written(checksum: Callable[[bytes], int]) -> list[tuple[int, bytes]]:
    recording = Recording()
    for count, payload in enumerate(PAYLOADS, start=1):
        store(recording, count, payload, checksum)
    return recording.stores


def no_checksum(data: bytes) -> int:
    return 0


def load_without_lock(memory: Memory) -> bytes | None:
    """What ``load`` would be if it trusted what it finds."""
    start = snapshot.COUNTER_BYTES + snapshot.counter(memory) % 2 * snapshot.SLOT_BYTES
    head = memory[start : start + snapshot.SLOT_HEAD_BYTES]
    body = start + snapshot.SLOT_HEAD_BYTES
    return memory[body : body + int.from_bytes(head[:4], "little")]


paces = st.lists(st.integers(0, 9), max_size=12)


@given(paces)
def test_the_counter_alone_keeps_reads_whole(pace: list[int]) -> None:
    """On a machine that keeps the order of stores no checksum is needed."""
    assert load(Racing(written(no_checksum), pace), no_checksum) in [None, *PAYLOADS]


@given(paces)
def test_the_checksum_alone_keeps_reads_whole(pace: list[int]) -> None:
    """On a machine that does not, the counter may lag behind the bytes."""
    racing = Racing(written(zlib.crc32), pace, frozen_counter=True)
    assert load(racing) in [None, *PAYLOADS]


@pytest.mark.parametrize("frozen_counter", [False, True])
def test_without_either_reads_are_torn(frozen_counter: bool) -> None:
    """The race above does tear what is not protected."""

    def is_torn(pace: list[int]) -> bool:
        racing = Racing(written(no_checksum), pace, frozen_counter=frozen_counter)
        return load_without_lock(racing) not in PAYLOADS

    assert is_torn(find(paces, is_torn))


def test_a_writer_asleep_in_the_middle_keeps_nobody_waiting() -> None:
    """The slot that it writes is not the one that is read."""
    every_store = written(zlib.crc32)
    for stopped_after in range(4, 7):
        assert load(Racing(every_store[:stopped_after], [9])) == PAYLOADS[0]


def test_another_process_writes_all_the_time(tmp_path: Path) -> None:
    """Real memory, real concurrency: what is read is always one of the things written."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            reader = SnapshotReader("process", 0, directory=tmp_path)
            seen: set[bytes | None] = set()
            while len(seen) < 50:
                seen.add(reader.try_read())
            reader.close()
        finally:
            process.kill()
    assert all(data is None or data == data[:1] * len(data) for data in seen)


@pytest.fixture
def writer(tmp_path: Path) -> SnapshotWriter:
    return SnapshotWriter("abc12", 3, directory=tmp_path)


@pytest.fixture
def reader(tmp_path: Path) -> SnapshotReader:
    return SnapshotReader("abc12", 3, directory=tmp_path)


def test_reads_the_latest(writer: SnapshotWriter, reader: SnapshotReader) -> None:
    assert reader.try_read() is None
    for data in (b"first", b"", b"third" * 100, b"4"):
        writer.write(data)
        assert reader.try_read() == data


def test_reader_may_come_first(tmp_path: Path, reader: SnapshotReader) -> None:
    assert reader.try_read() is None
    SnapshotWriter("abc12", 3, directory=tmp_path).write(b"now")
    assert reader.try_read() == b"now"


def test_nothing_is_left_after_close(tmp_path: Path, writer: SnapshotWriter, reader: SnapshotReader) -> None:
    writer.write(b"last")
    assert reader.try_read() == b"last"
    writer.close()
    writer.close()
    assert reader.try_read() is None
    assert list(tmp_path.iterdir()) == []


def test_a_crashed_writer_is_replaced(tmp_path: Path, writer: SnapshotWriter, reader: SnapshotReader) -> None:
    """Its readers find the new one, and its own late close does not take that one's file away."""
    writer.write(b"old")
    assert reader.try_read() == b"old"
    SnapshotWriter("abc12", 3, directory=tmp_path).write(b"new")
    assert reader.try_read() == b"new"
    writer.close()
    assert reader.try_read() == b"new"


def test_what_a_killed_engine_left_is_cleared_away(tmp_path: Path, writer: SnapshotWriter) -> None:
    """By the next engine, whatever its id; those of living ones and files of other kinds stay."""
    other = tmp_path / "mars-not-a-snapshot"
    other.write_bytes(b"x")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        SnapshotWriter("second", 0, directory=tmp_path).close()
        assert snapshot.snapshot_path("process", 0, tmp_path).exists()
        process.kill()
    SnapshotWriter("third", 0, directory=tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {"mars-abc12-3", other.name}


def test_too_large_is_refused_whole(writer: SnapshotWriter, reader: SnapshotReader) -> None:
    writer.write(b"x" * MAX_BYTES)
    with pytest.raises(SnapshotTooLarge, match=r"65537 bytes; at most 65536"):
        writer.write(b"y" * (MAX_BYTES + 1))
    assert reader.try_read() == b"x" * MAX_BYTES


def test_only_its_user_may_read(tmp_path: Path, writer: SnapshotWriter) -> None:
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_links_are_not_followed(tmp_path: Path, reader: SnapshotReader) -> None:
    """Neither into somebody's file, which would be emptied, nor out of one."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    path = snapshot.snapshot_path("abc12", 3, tmp_path)
    path.symlink_to(target)
    assert reader.try_read() is None
    SnapshotWriter("abc12", 3, directory=tmp_path).write(b"x")
    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_a_short_file_is_not_read(tmp_path: Path, reader: SnapshotReader) -> None:
    """Mapped memory past the end of a file kills who touches it."""
    snapshot.snapshot_path("abc12", 3, tmp_path).write_bytes(b"short")
    assert reader.try_read() is None


@pytest.mark.parametrize("instance_id", ["", "../etc", "a/b", "a b", "x" * 65])
def test_ids_that_are_not_names_are_refused(instance_id: str) -> None:
    with pytest.raises(ValueError, match="instance id"):
        SnapshotWriter(instance_id, 0)


def test_lives_in_memory_where_the_system_has_such_files() -> None:
    writer = SnapshotWriter(f"test-{os.getpid()}", 0)
    path = snapshot.snapshot_path(f"test-{os.getpid()}", 0)
    try:
        assert path.parent == snapshot.shared_directory()
        assert path.exists()
    finally:
        writer.close()
    assert not path.exists()
