"""Files of a workspace: read in pieces, written whole or not at all, removed.

Owns the uploads under way: each is a file of a temporary name beside its destination, which gets the name
when it is complete. An upload that nobody goes on with is dropped after ``UPLOAD_TTL_S``. It must not know
who asks, nor how a path is walked (``paths``).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator

from gateway.host_agent import exec_fields as read
from gateway.host_agent import removal
from gateway.host_agent.operations import Caller, Operations, Refused
from gateway.host_agent.owner import Owner, acting_as, is_root_on_disk
from gateway.host_agent.paths import Place, Root, open_regular, refusing_errors
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault, Frame, Op

MAX_UPLOADS = 256
"""Under way at a time; each holds two descriptors."""
UPLOAD_TTL_S = 600.0
"""Longer than a gateway tries to reach its host again."""
MAX_FINISHED = 4096
"""Uploads whose end is remembered, so that a last piece that comes again is no second file."""

OpenRoot = Callable[[str], Root]
_Key = tuple[str, str, str]
"""Session, path, upload."""


class Files:
    def __init__(self, open_root: OpenRoot, clock: Callable[[], float]) -> None:
        self._open_root = open_root
        self._clock = clock
        self._uploads: OrderedDict[_Key, _Upload] = OrderedDict()
        self._finished: OrderedDict[_Key, int] = OrderedDict()

    def operations(self) -> Operations:
        return {Op.FILE_READ: self._read, Op.FILE_WRITE: self._write, Op.FILE_REMOVE: self._remove}

    def expire(self) -> None:
        """To be called now and then."""
        oldest_s = self._clock() - UPLOAD_TTL_S
        while self._uploads and next(iter(self._uploads.values())).active_at_s < oldest_s:
            self._uploads.popitem(last=False)[1].drop()

    async def end_session(self, session: str) -> None:
        for key in [key for key in self._uploads if key[0] == session]:
            self._uploads.pop(key).drop()
        for key in [key for key in self._finished if key[0] == session]:
            del self._finished[key]

    def close(self) -> None:
        while self._uploads:
            self._uploads.popitem()[1].drop()

    async def _read(self, request: Frame, caller: Caller) -> Frame:
        offset = read.whole(request.header, "offset", default=0)
        limit = min(read.whole(request.header, "limit", default=MAX_PAYLOAD_BYTES), MAX_PAYLOAD_BYTES)
        path = read.text(request.header, "path")
        with self._place(request, path) as place:
            fd = open_regular(place)
            try:
                data = os.pread(fd, limit, offset)
                found = os.fstat(fd)
            finally:
                os.close(fd)
        fields = {"size": found.st_size, "mode": stat.S_IMODE(found.st_mode), "mtime_s": found.st_mtime}
        return Frame({**fields, "is_eof": offset + len(data) >= found.st_size}, data)

    async def _write(self, request: Frame, caller: Caller) -> Frame:
        key = _key(request)
        is_last, mode = read.flag(request.header, "is_last"), _mode(request)
        offset = read.whole(request.header, "offset")
        if (size := self._finished.get(key)) is not None:
            return Frame({"next_offset": size})
        with refusing_errors():
            upload = self._uploads.get(key) or self._begin(key, offset)
            try:
                upload.write(offset, request.payload)
                if is_last:
                    upload.finish(mode)
            except OSError:
                self._uploads.pop(key).drop()
                raise
        upload.active_at_s = self._clock()
        self._uploads.move_to_end(key)
        if is_last:
            del self._uploads[key]
            self._remember(key, upload.size)
        return Frame({"next_offset": upload.size})

    async def _remove(self, request: Frame, caller: Caller) -> Frame:
        path = read.text(request.header, "path")
        with refusing_errors(), self._at(request) as root:
            try:
                with root.place(path, follows_last=False) as place:
                    if place.name == ".":
                        raise Refused(Fault.BAD_REQUEST, "path: name what is to go, by its own name")
                    failed = await removal.remove(place.directory, place.name)
            except (FileNotFoundError, NotADirectoryError):
                return Frame({"was_there": False})
        if failed:
            raise Refused(Fault.FORBIDDEN, f"path: {failed} entries of it cannot be removed")
        return Frame({"was_there": True})

    @contextlib.contextmanager
    def _place(self, request: Frame, path: str) -> Iterator[Place]:
        """As its owner: nothing may be awaited there."""
        with refusing_errors(), self._at(request) as root, acting_as(root.owner), root.place(path) as place:
            yield place

    def _at(self, request: Frame) -> Root:
        return self._open_root(read.text(request.header, "session"))

    def _begin(self, key: _Key, offset: int) -> _Upload:
        self.expire()
        if len(self._uploads) >= MAX_UPLOADS:
            raise Refused(
                Fault.NO_SPACE, f"upload: {MAX_UPLOADS} are under way, which is the limit of this host"
            )
        if offset != 0:
            raise Refused(Fault.BAD_REQUEST, "offset: the upload is not known, it begins at 0", next_offset=0)
        session, path, _ = key
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(self._open_root(session))
            stack.enter_context(acting_as(root.owner))
            place = stack.enter_context(root.place(path, makes_parents=True))
            upload = self._uploads[key] = _Upload(place, root.owner)
        return upload

    def _remember(self, key: _Key, size: int) -> None:
        self._finished[key] = size
        if len(self._finished) > MAX_FINISHED:
            self._finished.popitem(last=False)


def _key(request: Frame) -> _Key:
    session, path, upload = (read.text(request.header, name) for name in ("session", "path", "upload"))
    return session, path, upload


def _mode(request: Frame) -> int | None:
    if request.header.get("mode") is None:
        return None
    return read.whole(request.header, "mode", most=0o7777)


class _Upload:
    """A file on its way. ``finish`` or ``drop`` ends it."""

    def __init__(self, destination: Place, owner: Owner | None) -> None:
        """To be made acting as the owner."""
        self._owner = owner
        name = destination.name
        found = destination.stat()
        if name == "." or (found is not None and stat.S_ISDIR(found.st_mode)):
            raise Refused(Fault.BAD_REQUEST, "path: it is a directory")
        self.size = 0
        self.active_at_s = 0.0
        self._name = name
        self._mode = None if found is None else stat.S_IMODE(found.st_mode)
        self._directory = os.dup(destination.directory)
        self._staged = f".upload-{os.urandom(8).hex()}"
        try:
            self._fd = self._place.open(os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError:
            os.close(self._directory)
            raise
        self._own_like(found or os.fstat(self._directory))

    def write(self, offset: int, data: bytes) -> None:
        """What lies before ``size`` came already."""
        if offset > self.size:
            message = f"offset: {offset} leaves a gap, {self.size} is next"
            raise Refused(Fault.BAD_REQUEST, message, next_offset=self.size)
        rest = memoryview(data)[self.size - offset :]
        while rest:
            written = os.pwrite(self._fd, rest, self.size)
            self.size += written
            rest = rest[written:]
        # The disk begins at once, so that the wait for it in ``finish`` is short.
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self, mode: int | None) -> None:
        chosen = self._mode if mode is None else mode
        with acting_as(self._owner):
            if chosen is not None:
                os.fchmod(self._fd, chosen)
            os.fsync(self._fd)
            os.rename(self._staged, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._close()

    def drop(self) -> None:
        with contextlib.suppress(OSError), acting_as(self._owner):  # its directory may be gone
            os.unlink(self._staged, dir_fd=self._directory)
        self._close()

    @property
    def _place(self) -> Place:
        return Place(self._directory, self._staged)

    def _own_like(self, owner: os.stat_result) -> None:
        if is_root_on_disk():
            os.fchown(self._fd, owner.st_uid, owner.st_gid)

    def _close(self) -> None:
        os.close(self._fd)
        os.close(self._directory)
