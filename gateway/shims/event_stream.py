"""The events of a command, taken from a connection as they come, beside other things that are waited for.

Owns taking server-sent events apart. It must not know what they mean. A stream that ends says nothing by
itself: ``is_over`` without an ``exit`` before means that one comes back with the id of the last event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from gateway.shims.calls import Answer, Chunks

_READ_BYTES = 256 << 10
Event = tuple[str, dict[str, object]]


class EventStream:
    def __init__(self, answer: Answer) -> None:
        self._connection = answer.connection
        self._connection.setblocking(False)
        self._chunks = Chunks()
        self._rest = b""
        self._began_with = answer.rest
        self.last_id: str | None = None
        self.is_over = answer.status == 204

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def ready(self) -> Iterator[Event]:
        """What is there by now. Call it once at the beginning, too: some came with the head."""
        data, self._began_with = self._began_with, b""
        while True:
            yield from self._events(data)
            if self.is_over:
                return
            try:
                data = self._connection.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                # What TLS says when there is no whole record yet is an OSError of its own.
                self.is_over = type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError")
                return
            self.is_over = not data

    def _events(self, data: bytes) -> Iterator[Event]:
        self._rest += b"".join(self._chunks.feed(data))
        self.is_over = self.is_over or self._chunks.is_over
        *frames, self._rest = self._rest.split(b"\n\n")
        for frame in frames:
            fields = dict(line.split(": ", 1) for line in frame.decode().split("\n") if ": " in line)
            self.last_id = fields.get("id", self.last_id)
            if "event" in fields and "data" in fields:
                yield fields["event"], json.loads(fields["data"])
