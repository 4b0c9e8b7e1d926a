"""A tree as a tar, made piece by piece while it is asked for.

Owns the walk and the format (pax). Links are kept as links and followed nowhere; what is neither file,
directory nor link is left out; what vanishes while we walk too. Owners are left out: they mean nothing on
another host.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Generator

from gateway.host_agent.paths import OPEN_DIRECTORY, Place

READ_BYTES = 256 << 10
MAX_HARD_LINKS = 100_000
"""Files of several names whose first name is remembered; more of them go in twice."""
MAX_DEPTH = 256
"""Directories in each other; each holds a descriptor or two."""


class TooDeep(Exception):
    """The tree has more than ``MAX_DEPTH`` directories in each other."""


class TarWriter:
    def __init__(self) -> None:
        self._names: dict[tuple[int, int], str] = {}

    def directory(self, fd: int) -> Generator[bytes, None, None]:
        """What is in an open directory, the directory itself left out. Raises OSError, TooDeep."""
        yield from self._within(fd, "", 0)
        yield _END

    def file(self, place: Place) -> Generator[bytes, None, None]:
        """One file or link."""
        yield from self._entry(place, place.name, 0)
        yield _END

    def _within(self, fd: int, prefix: str, depth: int) -> Generator[bytes, None, None]:
        if depth > MAX_DEPTH:
            raise TooDeep
        for name in sorted(os.listdir(fd)):
            yield from self._entry(Place(fd, name), prefix + name, depth)

    def _entry(self, place: Place, name: str, depth: int) -> Generator[bytes, None, None]:
        found = place.stat()
        if found is None:
            return
        kind = stat.S_IFMT(found.st_mode)
        try:
            if kind == stat.S_IFDIR:
                yield from self._directory(place, name, found, depth)
            elif kind == stat.S_IFLNK:
                target = os.readlink(place.name, dir_fd=place.directory)
                yield _header(name, tarfile.SYMTYPE, found, target=target)
            elif kind == stat.S_IFREG:
                yield from self._regular(place, name)
        except FileNotFoundError:
            return

    def _directory(
        self, place: Place, name: str, found: os.stat_result, depth: int
    ) -> Generator[bytes, None, None]:
        fd = os.open(place.name, OPEN_DIRECTORY, dir_fd=place.directory)
        try:
            yield _header(name, tarfile.DIRTYPE, found)
            yield from self._within(fd, name + "/", depth + 1)
        finally:
            os.close(fd)

    def _regular(self, place: Place, name: str) -> Generator[bytes, None, None]:
        fd = place.open(os.O_RDONLY)
        try:
            found = os.fstat(fd)
            first = self._first_name(found, name)
            if first is not None:
                yield _header(name, tarfile.LNKTYPE, found, target=first)
                return
            yield _header(name, tarfile.REGTYPE, found, size=found.st_size)
            yield from _contents(fd, found.st_size)
        finally:
            os.close(fd)

    def _first_name(self, found: os.stat_result, name: str) -> str | None:
        if found.st_nlink < 2:
            return None
        key = (found.st_dev, found.st_ino)
        if key not in self._names and len(self._names) < MAX_HARD_LINKS:
            self._names[key] = name
            return None
        return self._names.get(key)


_END = bytes(2 * tarfile.BLOCKSIZE)


def _contents(fd: int, size: int) -> Generator[bytes, None, None]:
    """Exactly ``size`` bytes, as the header says: a file that shrinks meanwhile is filled up with zeros."""
    left = size
    while left:
        data = os.read(fd, min(left, READ_BYTES)) or bytes(min(left, READ_BYTES))
        left -= len(data)
        yield data
    yield bytes(-size % tarfile.BLOCKSIZE)


def _header(name: str, kind: bytes, found: os.stat_result, *, target: str = "", size: int = 0) -> bytes:
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = kind, target, size
    header.mode, header.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
