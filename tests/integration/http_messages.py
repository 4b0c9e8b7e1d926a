"""HTTP/1.1 messages as bytes, for tests: cut out of a connection's bytes, nothing normalised.

Only what the tests write and record: bodies with a length, in chunks, or up to the end of the connection.
"""

from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Message:
    """A request or an answer."""

    start: bytes
    """Request line or status line."""
    headers: Headers
    """In order, repeated ones too; names in lower case, which HTTP does not tell from upper."""
    body: bytes
    """Without the framing of chunks."""

    @property
    def method(self) -> bytes:
        return self.start.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


def parse_head(head: bytes) -> tuple[bytes, Headers]:
    """Start line and headers of everything before the empty line."""
    start, *lines = head.split(b"\r\n")
    pairs = [line.split(b":", 1) for line in lines]
    return start, [(name.lower(), value.strip(b" \t")) for name, value in pairs]


def cut_message(data: bytes, *, has_body: bool = True) -> tuple[Message, bytes] | None:
    """The first message and what follows it; None while it is incomplete.

    Args:
        has_body: False for the answer to HEAD, which announces a body that never comes.
    """
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    start, headers = parse_head(head)
    found = dict(headers)
    if not has_body or _is_bodiless(start):
        return Message(start, headers, b""), rest
    if found.get(b"transfer-encoding") == b"chunked":
        cut = _cut_chunks(rest)
        return None if cut is None else (Message(start, headers, cut[0]), cut[1])
    if b"content-length" in found:
        length = int(found[b"content-length"])
        return None if len(rest) < length else (Message(start, headers, rest[:length]), rest[length:])
    is_answer = start.startswith(b"HTTP/")
    return Message(start, headers, rest if is_answer else b""), b"" if is_answer else rest


def _is_bodiless(start: bytes) -> bool:
    return start.startswith(b"HTTP/") and start.split(b" ")[1] in (b"204", b"304")


def _cut_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        size_line, newline, data = data.partition(b"\r\n")
        if not newline:
            return None
        size = int(size_line, 16)
        if len(data) < size + 2:
            return None
        body, data = body + data[:size], data[size + 2 :]
        if size == 0:
            return body, data


def cut_interim(data: bytes) -> bytes:
    """Without the interim answers (``100 Continue``, ``103 Early Hints``) in front."""
    while data.startswith(b"HTTP/1.1 1"):
        data = data.partition(b"\r\n\r\n")[2]
    return data
