"""Normal forms: what of a message stays the same when a client sends it again.

Owns the rule that decides whether two JSON shapes are the same message, for the chat, responses and
messages APIs, in requests and in answers alike. It must not know sessions, headers or transport.

A normal form is (role, content, id of the answered call, calls). What clients were seen to change between
turns does not reach it:

- ``cache_control`` marks move from message to message (SWE-agent, Claude Code);
- a string becomes a list with one text block (OpenHands); ``null``, ``""`` and no content are the same;
- arguments are parsed and written again with other spaces and key order (the ai-sdk, LangChain);
- SDKs add members of their own (litellm: ``provider_specific_fields``, ``index``) or drop ``status``, ``id``;
- reasoning is sent back by some, dropped by most;
- clients trim what the model wrote (a tool parser leaves the line breaks in front of a call).

``developer`` is the later name of ``system``. Pictures and sound count by a digest of their data.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from marsproxy.core.evidence import Digest
from marsproxy.wire.call_ids import is_unique_looking

DIGEST_BYTES = 16

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError, ValueError)
"""All that decoding or encoding JSON from outside can raise."""

Segment = str | tuple[str, ...] | tuple[str, str, list[Any]]
Call = tuple[str, str, str]
"""Id, name, arguments in canonical form."""

_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
_THOUGHT_TYPES = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text"})
_DECORATION = frozenset({"cache_control", "detail", "id", "status", "index", "provider_specific_fields"})
_DATA_KEYS = (
    "url",
    "data",
    "file_data",
    "file_id",
    "image_url",
    "audio_url",
    "video_url",
    "input_audio",
    "source",
)

_BILLING_MARK = "x-anthropic-billing-header"
"""Claude Code opens its system prompt with a block that changes on every request; vLLM drops it as well."""


@dataclass(frozen=True, slots=True)
class NormalForm:
    """One message or item, as identity needs it."""

    digest: Digest | None
    """None for what leaves no trace in the history, such as reasoning."""
    prompt_bytes: int
    """Text that reaches the prompt; media count as the bytes of their digest."""
    answered_call_ids: tuple[str, ...] = ()
    """Unique-looking ids of the tool calls whose results this carries."""
    is_system: bool = False
    is_generated: bool = False
    """Came from the model. Of the responses API, neighbours of this kind are one answer."""


def digest_of(data: bytes) -> Digest:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def read_json(data: bytes | str | msgspec.Raw) -> Any:
    """Raises one of UNREADABLE. Whole floats become ints, as they do in clients written in JavaScript."""
    return _DECODER.decode(data)


def canonical_arguments(arguments: object) -> str:
    """The same text for the same JSON value, however it was written; other text as it is."""
    if not isinstance(arguments, str):
        return _canonical({} if arguments is None else arguments)
    if not arguments.strip():
        return "{}"
    try:
        return _canonical(read_json(arguments))
    except UNREADABLE:
        return arguments


def chat_form(message: object) -> NormalForm:
    """A message of ``/v1/chat/completions``."""
    if not isinstance(message, dict):
        return _foreign(message)
    calls = [_chat_call(call) for call in _dicts(message.get("tool_calls"))]
    if isinstance(function_call := message.get("function_call"), dict):
        calls.append(_chat_call({"function": function_call}))
    return _form(message.get("role"), message.get("content"), _text(message.get("tool_call_id")), calls)


def messages_form(message: object) -> NormalForm:
    """A message of ``/v1/messages``."""
    if not isinstance(message, dict):
        return _foreign(message)
    content = message.get("content")
    calls = [
        (_text(block.get("id")), _text(block.get("name")), canonical_arguments(block.get("input")))
        for block in _dicts(content)
        if block.get("type") == "tool_use"
    ]
    return _form(message.get("role"), content, "", calls)


def responses_form(item: object) -> NormalForm:
    """An item of ``input`` or ``output`` of ``/v1/responses``."""
    if not isinstance(item, dict):
        return _foreign(item)
    kind = _text(item.get("type"))
    if kind in ("", "message"):
        form = _form(item.get("role"), item.get("content"), "", [])
        # An answer may open with an empty message; some clients leave it out of the history.
        return form if form.prompt_bytes or not form.is_generated else _NO_TRACE
    if kind == "reasoning":
        return _NO_TRACE
    call_id = _text(item.get("call_id"))
    if kind.endswith("_output"):
        return _form("tool", item.get("output"), call_id, [])
    if kind in ("function_call", "custom_tool_call"):
        arguments = item.get("arguments") if kind == "function_call" else item.get("input")
        return _form(
            "assistant", None, "", [(call_id, _text(item.get("name")), canonical_arguments(arguments))]
        )
    if kind == "item_reference":
        return _form("reference", item.get("id"), "", [])
    return _foreign(item, is_generated=kind.endswith("_call"))


def system_form(content: object) -> NormalForm:
    """``system`` of the messages API, ``instructions`` of the responses API."""
    return _form("system", content, "", [])


def history_digests(forms: Iterable[NormalForm]) -> tuple[Digest, ...]:
    """Digests of a responses history, in which neighbouring items of the model count as one answer."""
    digests: list[Digest] = []
    answer: list[Digest] = []
    for form in forms:
        if form.is_generated:
            if form.digest is not None:
                answer.append(form.digest)
            continue
        if answer:
            digests.append(joined_digest(answer))
            answer.clear()
        if form.digest is not None:
            digests.append(form.digest)
    if answer:
        digests.append(joined_digest(answer))
    return tuple(digests)


def joined_digest(digests: Sequence[Digest]) -> Digest:
    """One digest for an answer of several items; of one item its own."""
    return digests[0] if len(digests) == 1 else digest_of(b"".join(digests))


def flat_text(content: object) -> str:
    """The text of a content field, without media."""
    return "\n".join(segment for segment in _segments(content) if isinstance(segment, str))


def _form(role: object, content: object, answered_call_id: str, calls: list[Call]) -> NormalForm:
    role = "system" if role == "developer" else _text(role)
    segments = _segments(content)
    if role == "assistant":
        segments = _trimmed(segments)
    packed = _pack((role, segments, answered_call_id, calls))
    answered = [answered_call_id, *(segment[1] for segment in segments if _is_result(segment))]
    return NormalForm(
        digest=digest_of(packed),
        prompt_bytes=len(packed) if segments or calls else 0,
        answered_call_ids=tuple(call_id for call_id in answered if is_unique_looking(call_id)),
        is_system=role == "system",
        is_generated=role == "assistant",
    )


def _foreign(value: object, *, is_generated: bool = False) -> NormalForm:
    """Something this module has no rule for: all of it counts, decoration aside."""
    packed = _canonical(_undecorated(value)).encode()
    return NormalForm(digest=digest_of(packed), prompt_bytes=len(packed), is_generated=is_generated)


def _segments(content: object) -> list[Segment]:
    """Content as texts, results and media; neighbouring texts are joined by a line break, as in vLLM."""
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [content]
    segments: list[Segment] = []
    texts: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        segment = _segment(part)
        if isinstance(segment, str):
            texts.append(segment)
        elif segment is not None:
            _flush(texts, segments)
            segments.append(segment)
    _flush(texts, segments)
    return segments


def _segment(part: object) -> Segment | None:
    if isinstance(part, str):
        return part or None
    if not isinstance(part, dict):
        return ("media", _canonical(part))
    kind = part.get("type")
    if kind in _TEXT_TYPES or kind is None:
        text = _text(part.get("text"))
        return None if not text or text.startswith(_BILLING_MARK) else text
    if kind == "tool_result":
        return ("result", _text(part.get("tool_use_id")), _segments(part.get("content")))
    if kind in _THOUGHT_TYPES or kind == "tool_use":
        return None
    return ("media", digest_of(_media_data(part).encode()).hex())


def _media_data(part: dict[str, Any]) -> str:
    """The data or address of a picture, sound or file: base64 text is not copied into canonical JSON."""
    for value in (part, *(part[key] for key in part if isinstance(part[key], dict))):
        for key in _DATA_KEYS:
            if isinstance(data := value.get(key), str):
                return data
    return _canonical(_undecorated(part))


def _flush(texts: list[str], segments: list[Segment]) -> None:
    if texts:
        segments.append("\n".join(texts))
        texts.clear()


def _trimmed(segments: list[Segment]) -> list[Segment]:
    trimmed = (segment.strip() if isinstance(segment, str) else segment for segment in segments)
    return [segment for segment in trimmed if segment]


def _is_result(segment: Segment) -> bool:
    return isinstance(segment, tuple) and segment[0] == "result"


def _chat_call(call: dict[str, Any]) -> Call:
    function = call.get("function")
    if not isinstance(function, dict):
        function = call.get("custom")
    if not isinstance(function, dict):
        return (_text(call.get("id")), "", _canonical(_undecorated(call)))
    arguments = function["input"] if "input" in function else function.get("arguments")
    return (_text(call.get("id")), _text(function.get("name")), canonical_arguments(arguments))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _undecorated(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: member for key, member in value.items() if key not in _DECORATION}


def _canonical(value: object) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def _whole(number: str) -> float | int:
    value = float(number)
    # Beyond 2**53 a float no longer says which integer was meant.
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_DECODER = msgspec.json.Decoder(float_hook=_whole)
_pack = msgspec.msgpack.Encoder().encode
_NO_TRACE = NormalForm(digest=None, prompt_bytes=0, is_generated=True)
