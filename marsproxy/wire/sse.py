"""Server-sent events as bytes: where they end and what they carry.

Lines may end in LF or CRLF. Lines that end in a lone CR, which the standard allows, are not told apart: no
backend writes them.
"""

import re
from collections.abc import Iterator

EVENT_END = re.compile(rb"\n\r?\n")
DONE = b"[DONE]"


def cut(data: bytes) -> tuple[bytes, bytes]:
    """The complete events in front, and the rest."""
    lf, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
    end = max(lf + 2 if lf >= 0 else 0, crlf + 3 if crlf >= 0 else 0)
    return data[:end], data[end:]


def plain_lines(events: bytes) -> bytes | None:
    """The data of all events, one a line, if each event is one ``data: `` line and nothing else.

    That is how vLLM writes its streams, and a decoder takes lines many times faster than single events.
    None if anything is different: a line end more than there are events shows it.
    """
    if not (events.startswith(b"data: ") and events.endswith(b"\n\n")):
        return None
    data = events[6:-2].split(b"\n\ndata: ")
    lines = b"\n".join(data)
    return lines if lines.count(b"\n") == len(data) - 1 else None


def payloads(data: bytes) -> Iterator[bytes]:
    """The data of each event; comments and events without data have none."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    for event in data.split(b"\n\n"):
        if event.startswith(b"data:") and b"\n" not in event:
            yield event[5:].strip()
        elif lines := [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]:
            yield b"\n".join(lines)
