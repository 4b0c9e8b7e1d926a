"""When a client can know that a stream is over, though its connection may stay open.

Owns the names of the last events. Clients leave at that point or ask for the next turn (Codex at
``response.completed``, the OpenAI SDK at ``[DONE]``), so a turn whose end is taken from the connection may
look as if the client had gone in the middle. Chunks end anywhere; the responses API's last event, which
repeats the answer and the instructions, is larger than most.
"""

import re

from marsproxy.core.evidence import Schema

# At the beginning of a line: in the text of a model, which is JSON, a line break is written as an escape.
_LAST_EVENT = {
    Schema.CHAT: re.compile(rb"\ndata: ?\[DONE\]"),
    Schema.COMPLETIONS: re.compile(rb"\ndata: ?\[DONE\]"),
    Schema.RESPONSES: re.compile(rb"\nevent: ?response\.(?:completed|incomplete|failed)\r?\ndata:"),
    Schema.MESSAGES: re.compile(rb"\nevent: ?message_stop\r?\ndata:"),
}
_LONGEST_BYTES = 40
"""``\\nevent: response.incomplete\\r\\ndata:`` has 35: so much of a chunk is looked at
again with the next."""


class StreamEnd:
    def __init__(self, schema: Schema) -> None:
        self._last_event = _LAST_EVENT[schema]
        self._has_begun = False
        self._tail = b"\n"

    def is_reached_by(self, chunk: bytes) -> bool:
        """Take the next chunk in; True when it completes the last event's data, a single line: clients that
        read by line do not wait for the empty one after it."""
        seen = self._tail + chunk
        self._has_begun = self._has_begun or self._last_event.search(seen) is not None
        self._tail = seen[-_LONGEST_BYTES:]
        return self._has_begun and seen.endswith(b"\n")
