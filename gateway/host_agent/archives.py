"""Trees of a workspace as tar, in pieces: out by ``archive.read``, in by ``archive.write``.

Owns the archives that are open: each belongs to one connection and ends with it, or when nobody has asked
for ``ARCHIVE_TTL_S``. No archive is ever in memory or on disk as a whole. It must not know the format or
the walk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator

from gateway.host_agent import exec_fields as read
from gateway.host_agent.extraction import Extraction, ExtractionBounds
from gateway.host_agent.operations import Caller, Operations, Refused
from gateway.host_agent.owner import acting_as
from gateway.host_agent.paths import OPEN_DIRECTORY, Place, Root, refusing_errors
from gateway.host_agent.tar_reader import TarError, TarReader
from gateway.host_agent.tar_writer import TarWriter, TooDeep
from gateway.host_agent.turns import STEP_S, Turns
from gateway.host_agent.wire import Fault, Frame, Op

MAX_ARCHIVES = 64
ARCHIVE_TTL_S = 600.0
PIECE_BYTES = 512 << 10

OpenRoot = Callable[[str], Root]


class Archives:
    def __init__(
        self,
        open_root: OpenRoot,
        clock: Callable[[], float],
        bounds: ExtractionBounds | None = None,
        step_s: float = STEP_S,
    ) -> None:
        self._open_root = open_root
        self._clock = clock
        self._step_s = step_s
        self._bounds = bounds or ExtractionBounds()
        self._open: OrderedDict[str, _Archive] = OrderedDict()

    def operations(self) -> Operations:
        return {
            Op.ARCHIVE_OPEN: self._open_one,
            Op.ARCHIVE_READ: self._read,
            Op.ARCHIVE_WRITE: self._write,
            Op.ARCHIVE_CLOSE: self._close_one,
        }

    def expire(self) -> None:
        """To be called now and then."""
        oldest_s = self._clock() - ARCHIVE_TTL_S
        while self._open and (first := next(iter(self._open.values()))).active_at_s < oldest_s:
            self._end(first)

    async def end_session(self, session: str) -> None:
        for archive in [each for each in self._open.values() if each.session == session]:
            self._end(archive)

    def close(self) -> None:
        for archive in list(self._open.values()):
            self._end(archive)

    async def _open_one(self, request: Frame, caller: Caller) -> Frame:
        self.expire()
        if len(self._open) >= MAX_ARCHIVES:
            raise Refused(Fault.NO_SPACE, f"archive: {MAX_ARCHIVES} are open, which is this host's limit")
        session, path = read.text(request.header, "session"), read.text(request.header, "path")
        mode = read.one_of(request.header, "mode", ("read", "write"))
        with refusing_errors(), self._open_root(session) as root, acting_as(root.owner):
            tar: _Reading | _Writing
            if mode == "read":
                tar = _Reading(root, path)
            else:
                tar = _Writing(Extraction(root.directory(path, makes=True), self._bounds))
        archive = _Archive(secrets.token_hex(16), session, caller, tar, self._clock())
        self._open[archive.handle] = archive
        caller.at_end(archive.handle, lambda: self._end(archive))
        return Frame({"archive": archive.handle})

    async def _read(self, request: Frame, caller: Caller) -> Frame:
        archive = self._find(request, caller)
        if not isinstance(archive.tar, _Reading):
            raise Refused(Fault.BAD_REQUEST, "archive: it was opened to write")
        with self._ending_on_failure(archive):
            async with archive.one_at_a_time:
                data, is_eof = await archive.tar.next_piece(Turns(self._step_s))
        return Frame({"is_eof": is_eof}, data)

    async def _write(self, request: Frame, caller: Caller) -> Frame:
        archive = self._find(request, caller)
        if not isinstance(archive.tar, _Writing):
            raise Refused(Fault.BAD_REQUEST, "archive: it was opened to read")
        is_last = read.flag(request.header, "is_last")
        with self._ending_on_failure(archive):
            async with archive.one_at_a_time:
                await archive.tar.take(request.payload, Turns(self._step_s), is_last=is_last)
        if is_last:
            self._end(archive)
        return Frame({"entries": archive.tar.entries})

    async def _close_one(self, request: Frame, caller: Caller) -> Frame:
        self._end(self._find(request, caller))
        return Frame({})

    def _find(self, request: Frame, caller: Caller) -> _Archive:
        archive = self._open.get(read.text(request.header, "archive"))
        if archive is None or archive.caller is not caller:
            raise Refused(Fault.UNKNOWN_ARCHIVE, "archive: it is not open, or not on this connection")
        archive.active_at_s = self._clock()
        self._open.move_to_end(archive.handle)
        return archive

    def _end(self, archive: _Archive) -> None:
        """Once or again."""
        if self._open.pop(archive.handle, None) is not None:
            archive.caller.not_at_end(archive.handle)
            archive.tar.close()

    @contextlib.contextmanager
    def _ending_on_failure(self, archive: _Archive) -> Iterator[None]:
        """An archive of which a piece failed, or was given up half done, cannot go on."""
        try:
            with refusing_errors():
                yield
        except TarError as error:
            self._end(archive)
            raise Refused(Fault.BAD_REQUEST, f"the archive cannot be read: {error}") from error
        except TooDeep as error:
            self._end(archive)
            raise Refused(Fault.TOO_LARGE, "path: its directories are too deep for an archive") from error
        except BaseException:
            self._end(archive)
            raise


class _Archive:
    def __init__(
        self, handle: str, session: str, caller: Caller, tar: _Reading | _Writing, now: float
    ) -> None:
        self.handle = handle
        self.session = session
        self.caller = caller
        self.tar = tar
        self.active_at_s = now
        self.one_at_a_time = asyncio.Lock()


class _Reading:
    def __init__(self, root: Root, path: str) -> None:
        self._is_closed = False
        self._owner = root.owner
        with root.place(path) as place:
            found = place.stat()
            if found is None:
                raise Refused(Fault.NOT_FOUND, "path: there is nothing")
            if stat.S_ISDIR(found.st_mode):
                self._fd = os.open(place.name, OPEN_DIRECTORY, dir_fd=place.directory)
                self._pieces = TarWriter().directory(self._fd)
            else:
                self._fd = os.dup(place.directory)
                self._pieces = TarWriter().file(Place(self._fd, place.name))

    async def next_piece(self, turns: Turns) -> tuple[bytes, bool]:
        """And whether it was the last."""
        data = bytearray()
        while len(data) < PIECE_BYTES:
            _must_be_open(self._is_closed)
            with acting_as(self._owner):
                some = next(self._pieces, None)
            if some is None:
                return bytes(data), True
            data += some
            await turns.give()
        return bytes(data), False

    def close(self) -> None:
        self._is_closed = True
        self._pieces.close()
        os.close(self._fd)


class _Writing:
    def __init__(self, extraction: Extraction) -> None:
        self._extraction = extraction
        self._reader = TarReader()
        self._is_closed = False

    @property
    def entries(self) -> int:
        return self._extraction.entries

    async def take(self, data: bytes, turns: Turns, *, is_last: bool) -> None:
        for event in self._reader.feed(data):
            self._extraction.take(event)
            await turns.give()
            _must_be_open(self._is_closed)
        if is_last:
            if not self._reader.is_complete:
                raise TarError("its end is missing")
            self._extraction.finish()

    def close(self) -> None:
        self._is_closed = True
        self._extraction.close()


def _must_be_open(is_closed: bool) -> None:
    """Someone may have ended it while we let others go first."""
    if is_closed:
        raise Refused(Fault.UNKNOWN_ARCHIVE, "archive: it was ended")
