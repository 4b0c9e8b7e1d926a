"""Records as bytes: one entry of the log is a member, the number of its batch, and what happened.

MessagePack: ``[member, batch, [[name, fields], ...]]`` with the names and fields of ``marsproxy.core``, as
the event log has them; digests stay bytes. Only replicas of the same source share a log (``fingerprint``), so
there is no older reader to think of. ``SCHEMA`` rises all the same when the meaning of a key or an entry
changes, and is part of every key.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec

from marsproxy.core.shared_state import Happening

SCHEMA = 1


class Unreadable(Exception):
    """An entry that no replica of this code has written."""


@dataclass(frozen=True, slots=True)
class Entry:
    member: str
    batch: int
    """Counts the member's batches from 1; 0 is what a script added on its behalf."""
    happenings: tuple[Happening, ...]


class RecordCodec:
    """An arrival of 60 messages takes 1,350 bytes."""

    def __init__(self) -> None:
        kinds: tuple[type, ...] = get_args(Happening)
        self._encode = msgspec.msgpack.Encoder().encode
        self._open: Callable[[bytes], tuple[str, int, list[tuple[str, msgspec.Raw]]]] = (
            msgspec.msgpack.Decoder(tuple[str, int, list[tuple[str, msgspec.Raw]]]).decode
        )
        self._read: dict[str, Callable[[msgspec.Raw], Any]] = {
            kind.__name__: msgspec.msgpack.Decoder(kind).decode for kind in kinds
        }

    def encode(self, member: str, batch: int, happenings: Sequence[Happening]) -> bytes:
        return self._encode((member, batch, [(type(each).__name__, each) for each in happenings]))

    def decode(self, payload: bytes) -> Entry:
        """
        Raises:
            Unreadable: says which kind of record it was, never what was in it.
        """
        try:
            member, batch, records = self._open(payload)
        except msgspec.DecodeError as error:
            raise Unreadable("not an entry") from error
        return Entry(member, batch, tuple(self._happening(name, fields) for name, fields in records))

    def _happening(self, name: str, fields: msgspec.Raw) -> Happening:
        read = self._read.get(name)
        if read is None:
            raise Unreadable("a kind of record that is not known here")
        try:
            happening: Happening = read(fields)
        except msgspec.DecodeError as error:
            raise Unreadable(name) from error
        return happening
