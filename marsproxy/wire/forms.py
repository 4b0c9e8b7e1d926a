"""A memory of normal forms, so that a continuation costs only its new messages.

Owns one bounded table from the bytes of a message to its normal form. The key is a fast hash with a secret
seed: without the seed nobody can make a message of theirs look up another's form.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

import msgspec
from xxhash import xxh3_128_digest

from marsproxy.core.evidence import Digest
from marsproxy.wire import normal
from marsproxy.wire.normal import NormalForm


class Shape(IntEnum):
    """What the bytes are; the same bytes have another normal form in each."""

    CHAT_MESSAGE = 1
    RESPONSES_ITEM = 2
    MESSAGES_MESSAGE = 3
    SYSTEM = 4
    TOOLS = 5


class NormalForms:
    """The least recently used form goes first. An entry takes about 400 bytes, however long its message."""

    def __init__(self, *, seed: int, max_entries: int = 65_536) -> None:
        self._seed = seed
        self._max_entries = max_entries
        self._forms: OrderedDict[bytes, NormalForm] = OrderedDict()

    @property
    def entries(self) -> int:
        return len(self._forms)

    def of(self, shape: Shape, raws: Iterable[msgspec.Raw]) -> list[NormalForm]:
        forms, seed, read = self._forms, self._seed + shape, _READERS[shape]
        found = []
        for raw in raws:
            key = xxh3_128_digest(raw, seed)
            form = forms.get(key)
            if form is None:
                form = self._remember(key, _form(read, raw))
            else:
                forms.move_to_end(key)
            found.append(form)
        return found

    def body_digest(self, body: bytes) -> Digest:
        """Equal for equal bodies, within the lifetime of one seed."""
        return xxh3_128_digest(body, self._seed)

    def _remember(self, key: bytes, form: NormalForm) -> NormalForm:
        if len(self._forms) >= self._max_entries:
            self._forms.popitem(last=False)
        self._forms[key] = form
        return form


def _form(read: Callable[[Any], NormalForm], raw: msgspec.Raw) -> NormalForm:
    try:
        return read(normal.read_json(raw))
    except normal.UNREADABLE:
        # Not for us to reject: the backend will. Equal bytes are still the same message.
        data = bytes(raw)
        return NormalForm(digest=normal.digest_of(data), prompt_bytes=len(data))


def _tools_form(tools: object) -> NormalForm:
    """Names only: descriptions carry dates and paths."""
    if not isinstance(tools, list) or not tools:
        return NormalForm(digest=None, prompt_bytes=0)
    names = [_tool_name(tool) for tool in tools]
    return NormalForm(digest=normal.digest_of("\n".join(names).encode()), prompt_bytes=0)


def _tool_name(tool: object) -> str:
    if not isinstance(tool, dict):
        return ""
    function = tool.get("function")
    name = (function if isinstance(function, dict) else tool).get("name", tool.get("type"))
    return name if isinstance(name, str) else ""


_READERS: dict[Shape, Callable[[Any], NormalForm]] = {
    Shape.CHAT_MESSAGE: normal.chat_form,
    Shape.RESPONSES_ITEM: normal.responses_form,
    Shape.MESSAGES_MESSAGE: normal.messages_form,
    Shape.SYSTEM: normal.system_form,
    Shape.TOOLS: _tools_form,
}
