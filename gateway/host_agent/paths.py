"""Finding a file below a directory without ever leaving it, whatever links lie in the way.

Owns the walk from a *root* to a *place*: the open directory that holds a name, and the name. Every step is
taken from a descriptor that is held open and never through a link: a link is read and its text walked like
the rest of the path, ".." goes back to the descriptor that we came from. So what is swapped for a link while
we walk is refused, not followed. It must not know sessions, nor what is done at the place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.host_agent.operations import Refused
from gateway.host_agent.owner import Owner, is_root_on_disk
from gateway.host_agent.wire import Fault

MAX_LINKS = 40
"""In one path: the kernel's own bound (MAXSYMLINKS)."""
MAX_DEPTH = 256
"""Directories below the root, each of which holds a descriptor while we walk."""

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FAULTS = {
    errno.ELOOP: Fault.OUTSIDE,  # a link where none was a moment ago
    errno.ENOENT: Fault.NOT_FOUND,
    errno.ENOTDIR: Fault.NOT_FOUND,
    errno.EISDIR: Fault.BAD_REQUEST,
    errno.EEXIST: Fault.BAD_REQUEST,
    errno.ENOTEMPTY: Fault.BAD_REQUEST,
    errno.ENAMETOOLONG: Fault.BAD_REQUEST,
    errno.EINVAL: Fault.BAD_REQUEST,
    errno.ENXIO: Fault.BAD_REQUEST,
    errno.EXDEV: Fault.BAD_REQUEST,
    errno.EBUSY: Fault.FORBIDDEN,
    errno.EACCES: Fault.FORBIDDEN,
    errno.EPERM: Fault.FORBIDDEN,
    errno.EROFS: Fault.FORBIDDEN,
    errno.ETXTBSY: Fault.FORBIDDEN,
    errno.EFBIG: Fault.TOO_LARGE,
    errno.ENOSPC: Fault.NO_SPACE,
    errno.EDQUOT: Fault.NO_SPACE,
}


class Place:
    """A name in an open directory. Nothing need be there. The name "." is the root itself."""

    def __init__(self, directory: int, name: str) -> None:
        self.directory = directory
        self.name = name

    def stat(self) -> os.stat_result | None:
        """Of what is there now, a link itself included."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, flags: int, mode: int = 0o666) -> int:
        """Never through a link; a FIFO that nobody writes does not keep us waiting."""
        safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags | safe, mode, dir_fd=self.directory)


class Root:
    """A directory, open until ``close``. ``path`` is its absolute path, for absolute paths into it; ``owner``
    the user that it belongs to, if that is not us: whatever is done below is done ``acting_as`` that one."""

    def __init__(self, fd: int, path: Path, owner: Owner | None = None) -> None:
        self.fd = fd
        self.path = path
        self.owner = owner

    @classmethod
    def open(cls, path: Path, owner: Owner | None = None) -> Root:
        return cls(os.open(path, OPEN_DIRECTORY), path, owner)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def place(self, path: str, *, follows_last: bool = True, makes_parents: bool = False) -> Iterator[Place]:
        """Where ``path`` leads, after links as long as they stay below the root. Raises Refused, OSError."""
        walk = _Walk(self, makes_parents)
        try:
            yield walk.to(path, follows_last)
        finally:
            walk.close()

    def directory(self, path: str, *, makes: bool = False) -> Root:
        """The directory at ``path`` as a root of its own; ``makes`` it if it is not there."""
        with self.place(path, makes_parents=makes) as place:
            if makes and place.stat() is None:
                os.mkdir(place.name, dir_fd=place.directory)
                own_like_directory(place)
            fd = os.open(place.name, OPEN_DIRECTORY, dir_fd=place.directory)
            return Root(fd, self.path / path, self.owner)


class _Walk:
    def __init__(self, root: Root, makes_parents: bool) -> None:
        self._root = root
        self._makes_parents = makes_parents
        self._descent: list[int] = []
        self._links = 0

    def to(self, path: str, follows_last: bool) -> Place:
        todo = self._parts(path)
        while todo:
            name = todo.pop()
            if name == "..":
                self._ascend()
            elif (target := self._link(name) if todo or follows_last else None) is not None:
                todo += self._parts(target, from_link=True)
            elif todo:
                self._descend(name)
            else:
                return Place(self._here, name)
        return Place(self._here, ".")

    def close(self) -> None:
        while self._descent:
            os.close(self._descent.pop())

    @property
    def _here(self) -> int:
        return self._descent[-1] if self._descent else self._root.fd

    def _parts(self, path: str, *, from_link: bool = False) -> list[str]:
        """Names of ``path``, last first. An absolute one must lie in the root and begins there."""
        if "\0" in path:
            raise Refused(Fault.BAD_REQUEST, "path: it has a NUL byte")
        if path.startswith("/"):
            root = str(self._root.path)
            if path != root and not path.startswith(root.rstrip("/") + "/"):
                raise _outside("a link of it" if from_link else "it")
            path = path[len(root) :]
            self.close()
        return [part for part in reversed(path.split("/")) if part not in ("", ".")]

    def _ascend(self) -> None:
        if not self._descent:
            raise _outside("it")
        os.close(self._descent.pop())

    def _descend(self, name: str) -> None:
        if len(self._descent) >= MAX_DEPTH:
            raise Refused(Fault.BAD_REQUEST, f"path: it has more than {MAX_DEPTH} directories")
        try:
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=self._here)
        except FileNotFoundError:
            if not self._makes_parents:
                raise
            os.mkdir(name, dir_fd=self._here)
            own_like_directory(Place(self._here, name))
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=self._here)
        self._descent.append(fd)

    def _link(self, name: str) -> str | None:
        """Text of the link of that name; None if it is no link."""
        try:
            target = os.readlink(name, dir_fd=self._here)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise
        self._links += 1
        if self._links > MAX_LINKS:
            raise Refused(Fault.BAD_REQUEST, f"path: it leads through more than {MAX_LINKS} links")
        return target


def own_like_directory(place: Place) -> None:
    """What root makes in the directory of another user belongs to that user."""
    if is_root_on_disk():
        owner = os.fstat(place.directory)
        os.chown(place.name, owner.st_uid, owner.st_gid, dir_fd=place.directory, follow_symlinks=False)


def open_regular(place: Place, flags: int = os.O_RDONLY) -> int:
    """Raises Refused for what is no regular file, without opening it."""
    before = place.stat()
    if before is None:
        raise Refused(Fault.NOT_FOUND, "path: there is no such file")
    _must_be_regular(before)
    fd = place.open(flags)
    try:
        _must_be_regular(os.fstat(fd))
    except Refused:
        os.close(fd)
        raise
    return fd


@contextlib.contextmanager
def refusing_errors() -> Iterator[None]:
    """The world's failures at a path as refusals. Others are failures of ours."""
    try:
        yield
    except OSError as error:
        fault = _FAULTS.get(error.errno or 0)
        if fault is None:
            raise
        raise Refused(fault, f"path: {os.strerror(error.errno or 0)}") from error
    except UnicodeEncodeError as error:
        raise Refused(Fault.BAD_REQUEST, "path: it cannot be a name of this file system") from error


def _must_be_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise Refused(Fault.BAD_REQUEST, "path: it is a directory; an archive holds directories")
    if not stat.S_ISREG(found.st_mode):
        raise Refused(Fault.BAD_REQUEST, "path: it is no regular file")


def _outside(what: str) -> Refused:
    return Refused(Fault.OUTSIDE, f"path: {what} leaves the workspace")
