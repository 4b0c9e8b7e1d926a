"""Reading an answer on the side, while its bytes go to the client untouched.

Owns how much of an answer is kept and when it is parsed. ``feed`` costs a reference until
``PARSE_EVERY_BYTES`` have come together; then they are parsed and let go, so that neither a long answer nor
its end holds up the event loop. Nothing here raises on anything that a backend sends.
"""

import re
import zlib
from dataclasses import dataclass

from marsproxy.core.evidence import AnswerEvidence, Digest, Schema
from marsproxy.wire import sse
from marsproxy.wire.answer_chat import ChatAnswer, CompletionAnswer
from marsproxy.wire.answer_messages import MessagesAnswer
from marsproxy.wire.answer_parts import AnswerParser, AnswerParts, ToolCall
from marsproxy.wire.answer_responses import ResponsesAnswer
from marsproxy.wire.call_ids import is_unique_looking
from marsproxy.wire.stream_end import StreamEnd

__all__ = ["AnswerRead", "AnswerReader", "ToolCall"]

PARSE_EVERY_BYTES = 32 * 1024
"""About 150 events of vLLM: some 300 microseconds of parsing at a time."""
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""The last event of a responses stream repeats the answer, and the instructions."""
MAX_BYTES = 64 * 1024 * 1024
"""Of one answer, decoded; a million tokens streamed one by one stay below it in text."""

_PARSERS: dict[Schema, type[AnswerParser]] = {
    Schema.CHAT: ChatAnswer,
    Schema.COMPLETIONS: CompletionAnswer,
    Schema.RESPONSES: ResponsesAnswer,
    Schema.MESSAGES: MessagesAnswer,
}
# What only an event with generated tokens has. Before them come a chunk with nothing but the role, the
# events response.created and message_start, and comments.
_FIRST_TOKEN = {
    Schema.CHAT: re.compile(
        rb'"(?:content|reasoning|reasoning_content|refusal|arguments)" ?: ?"[^"]|"tool_calls" ?: ?\[ ?\{'
    ),
    Schema.COMPLETIONS: re.compile(rb'"text" ?: ?"[^"]'),
    Schema.RESPONSES: re.compile(rb'\.delta"'),
    Schema.MESSAGES: re.compile(rb'"content_block_'),
}


_COMPLETION_TOKENS = re.compile(rb'"(?:completion|output)_tokens" ?: ?(\d{1,9})')


@dataclass(frozen=True, slots=True)
class AnswerRead:
    evidence: AnswerEvidence
    others: tuple[Digest, ...] = ()
    """Other digests under which the answer may come back: further samples (``n``), or the items of a
    responses stream where they differ from the whole."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    """In the words of the chat API, whatever the schema: stop, length, tool_calls, content_filter."""
    tool_calls: tuple[ToolCall, ...] = ()
    is_complete: bool | None = None
    """The backend said that it was done; None when the answer could not be read at all."""
    has_error: bool = False


class AnswerReader:
    def __init__(
        self,
        schema: Schema,
        *,
        is_streaming: bool,
        content_encoding: str | None = None,
        content_length: int | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.saw_first_token = False
        """At the latest one chunk late, when the first token was cut in two."""
        self.is_at_end = False
        """The client can know now that the answer is complete, though its connection may stay open."""
        self.events = 0
        """Server-sent events so far, or at least about as many."""
        self._bytes_left = content_length
        self._stream_end = StreamEnd(schema)
        self._answer = _PARSERS[schema]()
        self._first_token = _FIRST_TOKEN[schema]
        self._is_streaming = is_streaming
        self._max_bytes = max_bytes
        self._encoding = (content_encoding or "identity").strip().lower()
        self._inflate = zlib.decompressobj(wbits=47) if self._encoding in _INFLATED else None
        self._has_plain_events = is_streaming and self._encoding == "identity"
        self._is_readable = self._inflate is not None or self._encoding == "identity"
        self._most_pending_bytes = PARSE_EVERY_BYTES if is_streaming else max_bytes
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._rest = b""
        self._total_bytes = 0
        self._has_events = False
        self._is_too_large = False

    def feed(self, chunk: bytes) -> None:
        """Bytes as they came from the backend, before anything is taken out of them."""
        if not self.saw_first_token:
            self.saw_first_token = self._has_first_token(chunk)
        self._watch_for_end(chunk)
        if self._has_plain_events:
            self.events += chunk.count(b"\n\n")
        if not self._is_readable:
            return
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        if self._pending_bytes > self._most_pending_bytes:
            self._take_pending()

    def tokens_so_far(self, chunk: bytes) -> int:
        """Generated tokens: by the usage that ``chunk``, the latest one, has in it, else one for each event.

        Engines that put several tokens into an event and say no usage on the way are undercounted.
        """
        said = _COMPLETION_TOKENS.findall(chunk)
        return int(said[-1]) if said else self.events

    def _watch_for_end(self, chunk: bytes) -> None:
        if self._bytes_left is not None:
            self._bytes_left -= len(chunk)
            self.is_at_end = self._bytes_left <= 0
        elif self._is_streaming and not self.is_at_end:
            self.is_at_end = self._stream_end.is_reached_by(chunk)

    def finish(self, status: int) -> AnswerRead:
        """``status`` is the HTTP status of the answer. Call it once, at the end or when it broke off."""
        self._take_pending()
        if not self._is_readable:
            return AnswerRead(AnswerEvidence(None), has_error=status >= 400)
        if self._has_events:
            self._add_events(self._rest)
        else:
            self._answer.add_body(self._rest)
        return self._read(self._answer.parts(), status)

    def _read(self, parts: AnswerParts, status: int) -> AnswerRead:
        has_error = parts.has_error or status >= 400
        digests = () if has_error else parts.digests
        return AnswerRead(
            evidence=AnswerEvidence(
                digest=digests[0] if digests else None,
                call_ids=tuple(call_id for call_id in parts.call_ids if is_unique_looking(call_id)),
                response_id=parts.response_id,
            ),
            others=tuple(digest for digest in digests[1:] if digest is not None),
            prompt_tokens=parts.usage.prompt_tokens,
            cached_tokens=parts.usage.cached_tokens,
            completion_tokens=parts.usage.completion_tokens,
            finish_reason=parts.finish_reason,
            tool_calls=parts.tool_calls,
            is_complete=parts.is_complete if self._has_events or not self._is_too_large else None,
            has_error=has_error,
        )

    def _has_first_token(self, chunk: bytes) -> bool:
        """Of a compressed answer, or one that comes in one piece, the first byte has to do."""
        if not self._has_plain_events:
            return bool(chunk)
        return self._first_token.search(chunk) is not None

    def _take_pending(self) -> None:
        data = self._decoded(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0
        self._total_bytes += len(data)
        self._rest += data
        if self._is_streaming:
            events, self._rest = sse.cut(self._rest)
            self._add_events(events)
        most_rest = MAX_EVENT_BYTES if self._is_streaming else self._max_bytes
        if self._total_bytes > self._max_bytes or len(self._rest) > most_rest:
            self._is_too_large = True
            self._answer.forget()
            self._rest = self._rest if self._is_streaming and len(self._rest) <= most_rest else b""

    def _add_events(self, events: bytes) -> None:
        self._has_events |= self._answer.add_events(events)

    def _decoded(self, data: bytes) -> bytes:
        if self._inflate is None or not data or not self._is_readable:
            return data if self._is_readable else b""
        try:
            decoded = self._inflate.decompress(data, self._max_bytes)
        except zlib.error:
            self._is_readable = False
            return b""
        # A bomb: what would not fit is not unpacked.
        self._is_readable = not self._inflate.unconsumed_tail
        return decoded


_INFLATED = frozenset({"gzip", "x-gzip", "deflate"})
