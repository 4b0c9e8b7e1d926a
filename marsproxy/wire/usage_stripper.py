"""Taking usage that only the proxy asked for out of an event stream."""

import re

import msgspec
from msgspec import Raw

from marsproxy.wire import sse
from marsproxy.wire.normal import UNREADABLE

MAX_EVENT_BYTES = 1 << 20
"""Larger than any event but those with the token ids or log probabilities of a long prompt."""

_END_BYTES = 2
"""Bytes that an unfinished end of event can have: CRLF CR."""


class _Event(msgspec.Struct):
    choices: Raw = Raw()
    usage: Raw = Raw()
    system_fingerprint: Raw = Raw()


_EVENTS = msgspec.json.Decoder(_Event)
_NULL_USAGE = re.compile(rb',[ \t]*"usage"[ \t]*:[ \t]*null|"usage"[ \t]*:[ \t]*null[ \t]*,[ \t]*')
_NULL = Raw(b"null")
_NO_CHOICES = Raw(b"[]")
_USAGE = b'"usage"'
_ENDING = b'"finish_reason":"'
_ENDING_SPACED = b'"finish_reason": "'


class UsageStripper:
    """Takes out of an event stream what only our asking for usage put there; all else is byte for byte.

    What asking changes in a backend's stream:

    1. an event with empty ``choices`` and the usage comes before ``[DONE]``: dropped;
    2. other events may say ``"usage":null`` (OpenAI's documentation): the member is dropped;
    3. vLLM (0.32, ``chat_completion/serving.py``) then writes ``system_fingerprint`` into that event instead
       of the one that ends the choice: put back. For this the ending event waits for the next one, which a
       backend sends at once.

    A backend that gives usage together with a choice does so unasked (``--enable-force-include-usage`` in
    vLLM); from there on nothing is touched. At most two events are held, the unfinished one up to
    ``max_event_bytes``: a longer one passes as it is.
    """

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial = bytearray()
        self._ending: bytes | None = None
        self._is_passing_all = False
        self._is_passing_event = False
        """The front of the event in ``_partial`` has gone out unread."""

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets for these bytes; b"" is common."""
        if self._is_passing_all or self._is_plain(chunk):
            return chunk
        scan_from = max(0, len(self._partial) - _END_BYTES)
        self._partial += chunk
        out: list[bytes] = []
        start = 0
        while end := sse.EVENT_END.search(self._partial, max(start, scan_from)):
            out.append(self._event(bytes(self._partial[start : end.end()])))
            start = end.end()
        del self._partial[:start]
        out.append(self._overflow())
        return b"".join(out)

    def flush(self) -> bytes:
        """What is left when the stream ends, whole event or not. Half an event of ours is left out."""
        rest = self._taken(len(self._partial))
        is_ours = self._ending is not None and b'"choices":[]' in rest
        return self._released() + (b"" if is_ours else rest)

    def _is_plain(self, chunk: bytes) -> bool:
        """Whole events with nothing in them that asking may have changed, and none held before them."""
        return (
            chunk.endswith(b"\n\n")
            and not self._partial
            and self._ending is None
            and _USAGE not in chunk
            and _ENDING not in chunk
            and _ENDING_SPACED not in chunk
        )

    def _event(self, event: bytes) -> bytes:
        if self._is_passing_event:
            self._is_passing_event = False
            return event
        if self._is_passing_all:
            return event
        if _USAGE in event:
            parts = _parts(event)
            if parts.usage and parts.usage != _NULL:
                if parts.choices == _NO_CHOICES:
                    return self._released(parts.system_fingerprint)
                self._is_passing_all = bool(parts.choices)
            elif parts.usage:
                event = _without_null_usage(event)
        released = self._released()
        if not self._is_passing_all and (_ENDING in event or _ENDING_SPACED in event):
            self._ending = event
            return released
        return released + event

    def _released(self, fingerprint: Raw | None = None) -> bytes:
        ending, self._ending = self._ending or b"", None
        if fingerprint and ending and not _parts(ending).system_fingerprint:
            brace = ending.rfind(b"}")
            return b"".join((ending[:brace], b',"system_fingerprint":', bytes(fingerprint), ending[brace:]))
        return ending

    def _overflow(self) -> bytes:
        if self._is_passing_all:
            return self.flush()
        allowed = _END_BYTES if self._is_passing_event else self._max_event_bytes
        if len(self._partial) <= allowed:
            return b""
        self._is_passing_event = True
        # The last bytes stay, for they may be half of the event's end.
        return self._released() + self._taken(len(self._partial) - _END_BYTES)

    def _taken(self, count: int) -> bytes:
        taken = bytes(self._partial[:count])
        del self._partial[:count]
        return taken


def _parts(event: bytes) -> _Event:
    payload = next(sse.payloads(event), b"")
    try:
        return _EVENTS.decode(payload)
    except UNREADABLE:
        return _Event()


def _without_null_usage(event: bytes) -> bytes:
    """A member of that name deeper inside is not ours: with two of them, neither is touched."""
    changed, count = _NULL_USAGE.subn(b"", event)
    return changed if count == 1 else event
