"""A fake host that has files as well: a dictionary of paths for each session."""

import itertools
from collections import defaultdict

from gateway.host import FileChunk, HostFault
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault
from tests.gateway.fake_host import FakeExec, FakeHost


class FileHost(FakeHost):
    """An archive is its bytes, whatever they are: nothing is packed here."""

    def __init__(self, name: str = "here") -> None:
        super().__init__(name)
        self.files: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.modes: dict[str, int | None] = {}
        self.uploads: dict[str, bytes] = {}
        self.archives: dict[str, bytes] = {}
        self.largest_piece = 0
        self.fails: HostFault | None = None
        self.open_archives: dict[str, tuple[str, bytes]] = {}
        self.offsets: dict[str, int] = {}
        self._handles = itertools.count()

    async def _exec(self, call: str, exec_id: str) -> FakeExec:
        if self.fails is not None and call in ("read", "write_stdin", "signal", "resize"):
            raise self.fails
        return await super()._exec(call, exec_id)

    async def read_file(self, session: str, path: str, offset: int, limit: int) -> FileChunk:
        await self._file_call("read_file")
        if path not in self.files[session]:
            raise HostFault(Fault.NOT_FOUND, "there is no such file")
        data = self.files[session][path]
        piece = data[offset : offset + min(limit, MAX_PAYLOAD_BYTES)]
        return FileChunk(piece, len(data), 0o640, 1.5, offset + len(piece) >= len(data))

    async def write_file(
        self,
        session: str,
        path: str,
        upload: str,
        offset: int,
        data: bytes,
        *,
        is_last: bool,
        mode: int | None,
    ) -> int:
        await self._file_call("write_file")
        self.largest_piece = max(self.largest_piece, len(data))
        assert offset == len(self.uploads.get(upload, b""))
        whole = self.uploads[upload] = self.uploads.get(upload, b"") + data
        if is_last:
            self.files[session][path] = self.uploads.pop(upload)
            self.modes[path] = mode
        return len(whole)

    async def remove_file(self, session: str, path: str) -> bool:
        await self._file_call("remove_file")
        return self.files[session].pop(path, None) is not None

    async def open_archive(self, session: str, path: str, mode: str) -> str:
        await self._file_call("open_archive")
        handle = f"archive-{next(self._handles)}"
        if mode == "read" and path not in self.archives:
            raise HostFault(Fault.NOT_FOUND, "there is no such directory")
        self.open_archives[handle] = (path, self.archives[path] if mode == "read" else b"")
        return handle

    async def read_archive(self, handle: str) -> tuple[bytes, bool]:
        await self._file_call("read_archive")
        data, offset = self.open_archives[handle][1], self.offsets.get(handle, 0)
        self.offsets[handle] = following = offset + MAX_PAYLOAD_BYTES
        return data[offset:following], len(data) <= following

    async def write_archive(self, handle: str, data: bytes, *, is_last: bool) -> int:
        await self._file_call("write_archive")
        self.largest_piece = max(self.largest_piece, len(data))
        path, before = self.open_archives[handle]
        self.open_archives[handle] = (path, before + data)
        if is_last:
            self.archives[path] = before + data
        return 7 if is_last else 0

    async def close_archive(self, handle: str) -> None:
        await self._file_call("close_archive")
        if self.open_archives.pop(handle, None) is None:
            raise HostFault(Fault.UNKNOWN_ARCHIVE, "it is closed")

    async def _file_call(self, call: str) -> None:
        await self._reached(call)
        if self.fails is not None:
            raise self.fails
