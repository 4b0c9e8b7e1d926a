"""The engine's latest state in shared memory: one writer per scheduler, readers in any process.

Owns the file and the way of reading it without waiting for the engine, whose remote calls answer only
between two steps. It must not know what the bytes mean.

Theory of operation. A file is a counter and two slots, each a length, a checksum and room for
``MAX_BYTES``. Write ``n`` fills slot ``n % 2`` and then sets the counter to ``n``; so the slot that the
counter names is never the one being written. A reader takes the counter, copies that slot, and looks at
the counter again: where it has not moved, no later write has ended, hence none has begun that could have
touched the slot. This is a sequence lock whose reader never has to wait for a writer that was put to
sleep, or died, in the middle. The checksum is for machines that reorder stores (Arm), where Python has
no fence to offer. Counter 0 says that nothing was written, or that the writer has closed.
"""

import fcntl
import mmap
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

MAX_BYTES = 64 * 1024
"""Of one snapshot: five hundred lease endings of 120 bytes each beside the numbers."""
TRIES = 16
"""A try takes microseconds and two writes are an engine step apart, so a second one is rare already."""

COUNTER_BYTES = 8
SLOT_HEAD_BYTES = 8
SLOT_BYTES = SLOT_HEAD_BYTES + MAX_BYTES
FILE_BYTES = COUNTER_BYTES + 2 * SLOT_BYTES
INSTANCE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Of vLLM's own there are two kinds: five hexadecimal digits, or a time in nanoseconds."""


class Memory(Protocol):
    """What is used of ``mmap.mmap``."""

    def __getitem__(self, span: slice, /) -> bytes: ...
    def __setitem__(self, span: slice, data: bytes, /) -> None: ...


class SnapshotTooLarge(ValueError):
    """More than ``MAX_BYTES``; nothing was written."""


class SnapshotWriter:
    """The one writer of a rank's snapshot. Takes the place of a file that a crashed one left, and clears
    away those that others left: engines are often ended by force, and a machine's memory is not for them.

    Raises:
        OSError: the file cannot be made, or one that is another user's is in its place.
    """

    def __init__(self, instance_id: str, rank: int, *, directory: Path | None = None) -> None:
        self._path = snapshot_path(instance_id, rank, directory)
        sweep(self._path.parent)
        descriptor = create_locked(self._path)
        try:
            os.ftruncate(descriptor, FILE_BYTES)
            self._file_id = file_id(os.fstat(descriptor))
            self._memory = mmap.mmap(descriptor, FILE_BYTES)
        finally:
            os.close(descriptor)
        self._count = 0

    def write(self, data: bytes) -> None:
        """
        Raises:
            SnapshotTooLarge: what was written before still holds.
        """
        if len(data) > MAX_BYTES:
            raise SnapshotTooLarge(f"a snapshot of {len(data)} bytes; at most {MAX_BYTES} fit")
        self._count += 1
        store(self._memory, self._count, data)

    def close(self) -> None:
        """Readers find nothing afterwards, those that have the file open too. May be called twice."""
        if self._memory.closed:
            return
        set_counter(self._memory, 0)
        self._memory.close()
        if names_file(self._path, self._file_id):
            self._path.unlink(missing_ok=True)


class SnapshotReader:
    """Looks for the file when read, so it may be made before its writer and outlive it."""

    def __init__(self, instance_id: str, rank: int, *, directory: Path | None = None) -> None:
        self._path = snapshot_path(instance_id, rank, directory)
        self._memory: mmap.mmap | None = None
        self._file_id = (0, 0)

    def try_read(self) -> bytes | None:
        """None where there is nothing, or no whole one after ``TRIES``. Never waits."""
        if self._memory is None or not names_file(self._path, self._file_id):
            self._open()
        return load(self._memory) if self._memory is not None else None

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _open(self) -> None:
        self.close()
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            status = os.fstat(descriptor)
            if is_ours(status):
                self._memory = mmap.mmap(descriptor, FILE_BYTES, access=mmap.ACCESS_READ)
                self._file_id = file_id(status)
        finally:
            os.close(descriptor)


Checksum = Callable[[bytes], int]
"""32 bits of it are kept."""


def store(memory: Memory, count: int, data: bytes, checksum: Checksum = zlib.crc32) -> None:
    """Write number ``count``, which is one more than the last."""
    start = COUNTER_BYTES + count % 2 * SLOT_BYTES
    memory[start : start + SLOT_HEAD_BYTES] = slot_head(data, checksum)
    memory[start + SLOT_HEAD_BYTES : start + SLOT_HEAD_BYTES + len(data)] = data
    set_counter(memory, count)


def load(memory: Memory, checksum: Checksum = zlib.crc32) -> bytes | None:
    for _ in range(TRIES):
        count = counter(memory)
        if not count:
            return None
        start = COUNTER_BYTES + count % 2 * SLOT_BYTES
        head = memory[start : start + SLOT_HEAD_BYTES]
        length = min(int.from_bytes(head[:4], "little"), MAX_BYTES)
        data = memory[start + SLOT_HEAD_BYTES : start + SLOT_HEAD_BYTES + length]
        if counter(memory) == count and slot_head(data, checksum) == head:
            return data
    return None


def slot_head(data: bytes, checksum: Checksum) -> bytes:
    return len(data).to_bytes(4, "little") + checksum(data).to_bytes(4, "little")


def counter(memory: Memory) -> int:
    return int.from_bytes(memory[:COUNTER_BYTES], "little")


def set_counter(memory: Memory, count: int) -> None:
    memory[:COUNTER_BYTES] = count.to_bytes(COUNTER_BYTES, "little")


def snapshot_path(instance_id: str, rank: int, directory: Path | None = None) -> Path:
    """
    Raises:
        ValueError: the id is not fit for a file's name.
    """
    if not INSTANCE_ID.fullmatch(instance_id):
        raise ValueError(f"instance id {instance_id!r}: 1 to 64 letters, digits, '-' or '_' are allowed")
    return (directory or shared_directory()) / f"mars-{instance_id}-{rank}"


def shared_directory() -> Path:
    """Where files are memory; the place for temporary ones where the system has no such directory."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else Path(tempfile.gettempdir())


def create_locked(path: Path) -> int:
    """A new file in the path's place, locked for as long as this process has it open or mapped: that is how
    others see that its writer lives."""
    while True:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if names_file(path, file_id(os.fstat(descriptor))):
            return descriptor
        os.close(descriptor)  # Swept away before it was locked.


def sweep(directory: Path) -> None:
    """Remove our user's files whose writers are gone."""
    for path in directory.glob("mars-*-*"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if is_ours(os.fstat(descriptor)) and try_lock(descriptor):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_ours(status: os.stat_result) -> bool:
    """A file of our own user, and whole: reading past the end of a mapped one kills the process."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_size == FILE_BYTES


def names_file(path: Path, expected: tuple[int, int]) -> bool:
    try:
        return file_id(path.lstat()) == expected
    except OSError:
        return False


def file_id(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
