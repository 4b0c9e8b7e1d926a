"""Writing the entries of a tar below a directory, and nowhere else.

Owns what an entry may be and how much there may be in all: names stay inside, no devices, no set-id bits. A
symbolic link is data, wherever it points: the interpreter of a virtual environment is one that points out. No
name leads through one that leaves (``paths``), neither here nor where files are read and written. What was
written when an archive turns out broken stays. It must not know how a tar is coded (``tar_reader``) or comes
here (``archives``).
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath

from gateway.host_agent.operations import Refused
from gateway.host_agent.owner import acting_as
from gateway.host_agent.paths import Place, Root, own_like_directory
from gateway.host_agent.tar_reader import Contents, Entry
from gateway.host_agent.wire import Fault

_OWNER_CAN_WRITE = stat.S_IWUSR | stat.S_IXUSR


@dataclass(frozen=True)
class ExtractionBounds:
    max_bytes: int = 16 << 30
    """Of contents, unpacked."""
    max_entries: int = 1_000_000


class Extraction:
    """Owns ``root`` from now on."""

    def __init__(self, root: Root, bounds: ExtractionBounds) -> None:
        self.entries = 0
        self._root = root
        self._bounds = bounds
        self._bytes = 0
        self._file: _OpenFile | None = None
        self._modes_for_later: list[tuple[str, int]] = []

    def take(self, event: Entry | Contents) -> None:
        """Raises Refused, OSError."""
        with acting_as(self._root.owner):
            if isinstance(event, Contents):
                self._write(event)
            else:
                self._begin(event)

    def finish(self) -> None:
        """All entries are there: directories that nobody may write in get their modes, innermost first."""
        with acting_as(self._root.owner):
            for name, mode in reversed(self._modes_for_later):
                with self._root.directory(name) as directory:
                    os.fchmod(directory.fd, mode)

    def close(self) -> None:
        """A file that is not whole is removed."""
        if self._file is not None:
            with contextlib.suppress(OSError), acting_as(self._root.owner):
                self._file.drop()
            self._file = None
        self._root.close()

    def _begin(self, entry: Entry) -> None:
        self.entries += 1
        self._bytes += entry.size if entry.kind == tarfile.REGTYPE else 0
        self._check_bounds()
        name = _inside(entry.name)
        if entry.kind == tarfile.DIRTYPE:
            self._make_directory(name, entry.mode)
            return
        if not name:
            raise _refused(entry, "it is no directory and names the directory itself")
        with self._root.place(name, follows_last=False, makes_parents=True) as place:
            if place.name in (".", ".."):
                raise _refused(entry, "it has no name")
            self._clear(place, entry)
            self._make(place, entry)

    def _check_bounds(self) -> None:
        bounds = self._bounds
        if self._bytes > bounds.max_bytes:
            raise Refused(Fault.TOO_LARGE, f"the archive unpacks to more than {bounds.max_bytes} bytes")
        if self.entries > bounds.max_entries:
            raise Refused(Fault.TOO_LARGE, f"the archive has more than {bounds.max_entries} entries")

    def _make(self, place: Place, entry: Entry) -> None:
        if entry.kind == tarfile.REGTYPE:
            self._file = _OpenFile(place, entry)
            if not entry.size:
                self._end_file()
        elif entry.kind == tarfile.SYMTYPE:
            if "\0" in entry.target:
                raise _refused(entry, "its target has a NUL byte")
            os.symlink(entry.target, place.name, dir_fd=place.directory)
            own_like_directory(place)
        elif entry.kind == tarfile.LNKTYPE:
            self._link(place, entry)
        else:
            raise _refused(entry, "only files, directories and links are unpacked")

    def _make_directory(self, name: str, mode: int) -> None:
        mode &= 0o777
        with self._root.directory(name, makes=True) as directory:
            if mode & _OWNER_CAN_WRITE != _OWNER_CAN_WRITE:
                self._modes_for_later.append((name, mode))
            elif name:
                os.fchmod(directory.fd, mode)

    def _link(self, place: Place, entry: Entry) -> None:
        with self._root.place(_inside(entry.target), follows_last=False) as existing:
            os.link(
                existing.name,
                place.name,
                src_dir_fd=existing.directory,
                dst_dir_fd=place.directory,
                follow_symlinks=False,
            )

    def _clear(self, place: Place, entry: Entry) -> None:
        found = place.stat()
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            raise _refused(entry, "a directory of that name is there")
        os.unlink(place.name, dir_fd=place.directory)

    def _write(self, contents: Contents) -> None:
        assert self._file is not None, "contents follow an entry with a size"
        self._file.write(contents.data)
        if contents.is_last:
            self._end_file()

    def _end_file(self) -> None:
        assert self._file is not None
        self._file.finish()
        self._file = None


class _OpenFile:
    """A file that is being written, under its own name: it was not there before."""

    def __init__(self, place: Place, entry: Entry) -> None:
        self._mode, self._mtime_s = entry.mode & 0o777, entry.mtime_s
        self._directory = os.dup(place.directory)
        self._place = Place(self._directory, place.name)
        try:
            self._fd = self._place.open(os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            os.close(self._directory)
            raise
        own_like_directory(self._place)

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def finish(self) -> None:
        os.fchmod(self._fd, self._mode)
        os.utime(self._fd, (self._mtime_s, self._mtime_s))
        self._close()

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._place.name, dir_fd=self._directory)
        self._close()

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._directory)


def _inside(name: str) -> str:
    """As the walk wants it. Raises Refused for what a careful archive does not have."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise Refused(Fault.OUTSIDE, f"entry {name!r:.200} leaves the directory")
    return "" if path == PurePosixPath() else str(path)


def _refused(entry: Entry, why: str) -> Refused:
    return Refused(Fault.BAD_REQUEST, f"entry {entry.name!r:.200}: {why}")
