"""What goes over the socket between the parent and a worker: frames with a kind, a number, a time, a payload.

Owns the framing. It must not know what payloads mean: records are bytes to the parent.
"""

import asyncio
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

HEAD = struct.Struct("<IBQd")
"""Bytes of payload, kind, number, time in seconds."""
MAX_PAYLOAD_BYTES = 1 << 30
"""A state of some hundred thousand sessions; more is a broken stream."""


class Kind(IntEnum):
    ASSIGNMENT = 1
    """Parent: what the worker is to do. The first frame there is."""
    JOIN = 2
    """Worker: it wants to be a member."""
    FOUND = 3
    """Parent: you are member ``number``, and there is nobody whose state you could have."""
    ADOPT = 4
    """Parent: you are member ``number``, and this is the state that the others have, as of the time."""
    APPEND = 5
    """Worker: a record."""
    RECORD = 6
    """Parent: a record of member ``number`` has its place in the order, at the time."""
    ASK_STATE = 7
    """Parent: give me your state as it is now; ``number`` is whom it is for."""
    STATE = 8
    """Worker: here it is."""
    READY = 9
    """Worker: it listens."""
    GATHER = 10
    """Worker: I want the metrics page of everybody; ``number`` is the request."""
    ASK_PAGE = 11
    """Parent: give me yours."""
    PAGE = 12
    """Worker: here it is."""
    PAGES = 13
    """Parent: these are all."""
    STOP = 14
    """Parent: leave, in steps. ``number`` is 1 if nobody else goes on to serve the port."""
    STOP_NOW = 15
    """Parent: leave, and cut what is in flight."""


KINDS = frozenset(int(kind) for kind in Kind)


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    number: int = 0
    at_s: float = 0.0
    payload: bytes = b""


class BrokenStream(Exception):
    """What came is no frame."""


def encode(frame: Frame) -> bytes:
    return HEAD.pack(len(frame.payload), frame.kind, frame.number, frame.at_s) + frame.payload


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """
        Raises:
            BrokenStream
        """
        rest = self._rest
        rest += chunk
        start = 0
        while len(rest) - start >= HEAD.size:
            size, kind, number, at_s = HEAD.unpack_from(rest, start)
            if size > MAX_PAYLOAD_BYTES or kind not in KINDS:
                raise BrokenStream
            end = start + HEAD.size + size
            if len(rest) < end:
                break
            yield Frame(Kind(kind), number, at_s, bytes(rest[start + HEAD.size : end]))
            start = end
        del rest[:start]


class FrameSocket(asyncio.Protocol):
    """One end of the socket.

    Args:
        take: is given the frames of each read, in order.
        gone: called once when the other side is.
    """

    def __init__(self, take: Callable[[list[Frame]], None], gone: Callable[[], None]) -> None:
        self._take = take
        self._gone = gone
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            frames = list(self._reader.feed(data))
        except BrokenStream:
            self.close()
            return
        if frames:
            self._take(frames)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._gone()

    def send(self, *frames: Frame) -> None:
        """Nothing, if the other side is gone: its end is told by itself."""
        self.send_encoded(b"".join(encode(frame) for frame in frames))

    def send_encoded(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    @property
    def waiting_bytes(self) -> int:
        """That the other side has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """After what was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
