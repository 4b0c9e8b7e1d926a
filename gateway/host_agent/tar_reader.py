"""Reading a tar, plain or gzip, from pieces that come one after the other.

Bytes go in by ``feed``, events come out; memory stays small whatever the archive claims. It must not know
files: what a name may be is decided where things are written (``extraction``).

Theory of operation. A tar is a row of blocks of 512 bytes: a header, then as many blocks as its contents
need, and so on until two blocks of zeros. Some headers are no entries but tell of the next one: a long name
or link (GNU, types L and K) or fields of any kind (pax, type x). So the state is what the bytes to come
are: a header, contents of an entry, text about the next entry, padding, or nothing any more. ``tarfile``
decodes the headers themselves; it cannot be used for the rest, because it pulls and because it reads texts
of any length into memory.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK_BYTES = tarfile.BLOCKSIZE
MAX_TEXT_BYTES = 1 << 20
"""About one entry: names and links are below 4 KiB, a pax header may have more."""
INFLATE_BYTES = 256 << 10
"""Made of compressed bytes at a time: a small piece may hold a thousand times its size."""
_GZIP = b"\x1f\x8b"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX_NEXT, _PAX_GLOBAL = b"x", b"g"
_ENDING_BLOCKS = 2


class TarError(Exception):
    """What came is no tar that we read; the message says why."""


@dataclass(frozen=True)
class Entry:
    """An entry begins. If it is a file with contents, they follow."""

    name: str
    kind: bytes
    """Of ``tarfile``: REGTYPE, DIRTYPE, SYMTYPE, LNKTYPE or what we do not write."""
    size: int
    mode: int
    mtime_s: float
    target: str
    """Of a link."""


@dataclass(frozen=True)
class Contents:
    data: bytes
    is_last: bool


class TarReader:
    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate: zlib._Decompress | None = None
        self._head = b""
        self._knows_kind = False
        self._left = 0
        self._padding = 0
        self._text_kind: bytes | None = None
        self._about_next: dict[str, str] = {}
        self._zero_blocks = 0

    @property
    def is_complete(self) -> bool:
        """The end was seen: what is missing otherwise was lost on the way."""
        return self._zero_blocks >= _ENDING_BLOCKS

    def feed(self, data: bytes) -> Iterator[Entry | Contents]:
        """To be exhausted before the next piece. Raises TarError."""
        for plain in self._plain(data):
            self._buffer += plain
            yield from self._events()

    def _plain(self, data: bytes) -> Iterator[bytes]:
        if not self._knows_kind:
            self._head += data
            if len(self._head) < len(_GZIP):
                return
            data, self._head, self._knows_kind = self._head, b"", True
            self._inflate = _gunzip() if data.startswith(_GZIP) else None
        if self._inflate is None:
            yield data
        while self._inflate is not None and data:
            try:
                yield self._inflate.decompress(data, INFLATE_BYTES)
            except zlib.error as error:
                raise TarError("it is no valid gzip") from error
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:  # members may follow each other
                data = self._inflate.unused_data
                self._inflate = _gunzip()

    def _events(self) -> Iterator[Entry | Contents]:
        while not self.is_complete:
            if self._text_kind is not None:
                if not self._take_text():
                    return
            elif self._left:
                if not self._buffer:
                    return
                yield self._take_contents()
            elif len(self._buffer) < self._padding + BLOCK_BYTES:
                return
            else:
                entry = self._take_header()
                if entry is not None:
                    yield entry
        self._buffer.clear()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _take_contents(self) -> Contents:
        data = self._take(min(self._left, len(self._buffer)))
        self._left -= len(data)
        return Contents(data, is_last=not self._left)

    def _take_header(self) -> Entry | None:
        """None: it tells of the next entry, or is the end."""
        del self._buffer[: self._padding]
        self._padding = 0
        block = self._take(BLOCK_BYTES)
        if not any(block):
            self._zero_blocks += 1
            return None
        self._zero_blocks = 0
        found = self._decoded(block)
        if found.type in (_LONG_NAME, _LONG_LINK, _PAX_NEXT, _PAX_GLOBAL):
            self._expect_text(found)
            return None
        entry = self._entry(found)
        self._about_next = {}
        if entry.kind == tarfile.REGTYPE:
            self._left, self._padding = entry.size, -entry.size % BLOCK_BYTES
        return entry

    def _decoded(self, block: bytes) -> tarfile.TarInfo:
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise TarError("a header is broken") from error
        if found.size < 0:
            raise TarError("a header is broken")
        return found

    def _expect_text(self, header: tarfile.TarInfo) -> None:
        if header.size > MAX_TEXT_BYTES:
            raise TarError(f"a header of {header.size} bytes is too long")
        self._text_kind = header.type
        self._left, self._padding = header.size, -header.size % BLOCK_BYTES

    def _take_text(self) -> bool:
        """Whether all of it was there."""
        if len(self._buffer) < self._left:
            return False
        text, kind = self._take(self._left), self._text_kind
        self._left, self._text_kind = 0, None
        if kind == _LONG_NAME:
            self._about_next["path"] = _text(text.rstrip(b"\0"))
        elif kind == _LONG_LINK:
            self._about_next["linkpath"] = _text(text.rstrip(b"\0"))
        elif kind == _PAX_NEXT:
            self._about_next.update(_pax_fields(text))
        return True

    def _entry(self, header: tarfile.TarInfo) -> Entry:
        about = self._about_next
        if header.type == tarfile.GNUTYPE_SPARSE or any(name.startswith("GNU.sparse") for name in about):
            raise TarError("sparse files are not read")
        kind = tarfile.REGTYPE if header.type in _REGULAR else header.type
        try:
            size = int(about.get("size", header.size))
            mtime_s = float(about.get("mtime", header.mtime))
        except ValueError as error:
            raise TarError("a pax header is broken") from error
        if size < 0:
            raise TarError("a pax header is broken")
        name, target = about.get("path", header.name), about.get("linkpath", header.linkname)
        return Entry(name, kind, size, header.mode, mtime_s, target)


_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


def _gunzip() -> zlib._Decompress:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pax_fields(text: bytes) -> dict[str, str]:
    """Rows of "LENGTH NAME=VALUE\\n", the length counting the whole row."""
    fields = {}
    while text and text[0]:
        try:
            length = int(text.split(b" ", 1)[0])
            row = text[:length]
            name, value = row.split(b" ", 1)[1].split(b"=", 1)
        except (ValueError, IndexError) as error:
            raise TarError("a pax header is broken") from error
        if length != len(row) or not value.endswith(b"\n"):
            raise TarError("a pax header is broken")
        fields[_text(name)] = _text(value[:-1])
        text = text[length:]
    return fields
