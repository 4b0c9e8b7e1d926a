"""A light parse of a request body: what scheduling needs, nothing else.

Contract (``read_request``): never raises, whatever the bytes; ``None`` means "not understood, pass it
through untouched". Members of a wrong type count as absent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from marsproxy.core.evidence import Schema, TurnEvidence
from marsproxy.wire import bodies, normal, session_ids
from marsproxy.wire.bodies import Body, History, value
from marsproxy.wire.forms import NormalForms, Shape
from marsproxy.wire.session_ids import Headers, SessionIds

__all__ = [
    "Headers",
    "ParsedRequest",
    "model_of",
    "names_own_xargs",
    "read_request",
    "split_session_url",
    "tracked_schema",
]

MAX_ECHOED_CALL_IDS = 64
"""Calls of one turn are a handful, and the last ones decide."""

MAX_COUNT = 2**31 - 1

OWN_XARGS = "mars_"
"""How all members of ``XArg`` begin."""

UTF8_BOM = b"\xef\xbb\xbf"
"""Legal in front of JSON for Python's parser, hence for the backend."""

_SCHEMAS = {
    "/v1/chat/completions": Schema.CHAT,
    "/v1/completions": Schema.COMPLETIONS,
    "/v1/responses": Schema.RESPONSES,
    "/v1/messages": Schema.MESSAGES,
}
_USAGE_ON_REQUEST = frozenset({Schema.CHAT, Schema.COMPLETIONS})


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    schema: Schema
    evidence: TurnEvidence
    model: str | None
    is_streaming: bool
    asks_usage: bool
    """The answer will carry usage without our help (every unary answer, responses, messages)."""
    max_tokens: int | None
    samples: int
    """``n``: answers asked for, times the prompts of a batch."""
    prompt_bytes: int
    """Bytes of the body that end up in the prompt, roughly: an estimate of tokens starts from it."""
    sets_priority: bool
    """The client chose a priority itself; ours must not replace it."""
    is_final: bool = False
    """The client says that this is the session's last turn."""
    stream_options: bytes | None = None
    """JSON of the member as it came, None when absent; ``splice`` needs it."""
    vllm_xargs: bytes | None = None
    """The same."""


class _NamedModel(Struct):
    model: Any = None


_NAMED_MODEL = Decoder(_NamedModel)


def tracked_schema(method: str, path: str) -> Schema | None:
    """Of a path without session prefix; None for every request that is passed through unread."""
    return _SCHEMAS.get(path) if method == "POST" else None


def split_session_url(path: str) -> tuple[str | None, str]:
    """``/s/<session>/v1/...`` is (session, ``/v1/...``); any other path comes back as it is."""
    if path.startswith("/s/"):
        session, _, rest = path[3:].partition("/")
        session_id = session_ids.valid_id(session)
        if session_id and (rest == "v1" or rest.startswith("v1/")):
            return session_id, "/" + rest
    return None, path


def read_request(
    schema: Schema,
    headers: Headers,
    body: bytes,
    *,
    tenant: str,
    url_session: str | None,
    normal_forms: NormalForms,
    extra_session_headers: Iterable[str] = (),
) -> ParsedRequest | None:
    """``tenant`` is the fingerprint of the API key; ``url_session`` what ``split_session_url`` found."""
    try:
        parts = bodies.decode_body(schema, body.removeprefix(UTF8_BOM))
    except normal.UNREADABLE:
        return None
    facts = session_ids.read_headers(headers, extra_session_headers)
    history = bodies.read_history(parts, normal_forms)
    tools = normal_forms.of(Shape.TOOLS, [raw for raw in (parts.tools, parts.functions) if raw])
    is_streaming = value(parts.stream) is True
    ids = session_ids.first_of(url_session, facts.ids, _ids_in(parts))
    evidence = TurnEvidence(
        schema=schema,
        tenant=tenant,
        message_digests=history.digests,
        # A pass over half a megabyte, so only where nothing else tells two requests apart.
        body_digest=b"" if history.digests else normal_forms.body_digest(body),
        has_tools=any(form.digest for form in tools),
        explicit_id=ids.session,
        explicit_level=ids.level,
        parent_id=ids.parent,
        group_id=session_ids.valid_id(value(parts.prompt_cache_key)),
        family=_family(parts, history, [form.digest for form in tools if form.digest]),
        previous_response_id=session_ids.valid_id(value(parts.previous_response_id)),
        echoed_call_ids=history.answered_call_ids[-MAX_ECHOED_CALL_IDS:],
        retry_count=facts.retry_count,
    )
    return ParsedRequest(
        schema=schema,
        evidence=evidence,
        model=_string(parts.model),
        is_streaming=is_streaming,
        asks_usage=not is_streaming
        or schema not in _USAGE_ON_REQUEST
        or _includes_usage(parts.stream_options),
        max_tokens=_first_count(parts.max_completion_tokens, parts.max_tokens, parts.max_output_tokens),
        samples=(_first_count(parts.n) or 1) * history.prompts,
        prompt_bytes=history.prompt_bytes + len(parts.tools) + len(parts.functions),
        sets_priority=facts.sets_priority or value(parts.priority) is not None,
        is_final=facts.is_final,
        stream_options=bodies.given(parts.stream_options),
        vllm_xargs=bodies.given(parts.vllm_xargs),
    )


def names_own_xargs(request: ParsedRequest) -> bool:
    """Whether the client sets members of ``vllm_xargs`` that the backend patch reads."""
    members = value(Raw(request.vllm_xargs)) if request.vllm_xargs else None
    return isinstance(members, dict) and any(name.startswith(OWN_XARGS) for name in members)


def model_of(body: bytes) -> str | None:
    """Of a request of any kind; None where there is none to be read."""
    try:
        found = _NAMED_MODEL.decode(body.removeprefix(UTF8_BOM)).model
    except normal.UNREADABLE:
        return None
    return found if isinstance(found, str) else None


def _ids_in(parts: Body) -> SessionIds:
    raws = {
        "session_id": parts.session_id,
        "client_metadata": parts.client_metadata,
        "metadata": parts.metadata,
        "litellm_session_id": parts.litellm_session_id,
        "program_id": parts.program_id,
        "conversation": parts.conversation,
        "vllm_xargs": parts.vllm_xargs,
    }
    members = {name: value(raw) for name, raw in raws.items() if raw}
    return session_ids.body_ids(members) if members else SessionIds()


def _family(parts: Body, history: History, tools: list[bytes]) -> str | None:
    """A fingerprint in every case: a user's name must not reach the event log.

    ``metadata.user_id`` is where Claude Code puts the ids of account and session, its sub-agents' too.
    """
    metadata = value(parts.metadata)
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    for name in (value(parts.prompt_cache_key), value(parts.user), user_id):
        if isinstance(name, str) and name:
            return normal.digest_of(name.encode()).hex()
    known = [history.system, *tools] if history.system else tools
    return normal.digest_of(b"".join(known)).hex() if known else None


def _includes_usage(stream_options: Raw) -> bool:
    options = value(stream_options)
    return isinstance(options, dict) and options.get("include_usage") is True


def _first_count(*raws: Raw) -> int | None:
    """The first that is a positive integer (``true`` is not) within reason."""
    for raw in raws:
        count = value(raw)
        if type(count) is int and 0 < count <= MAX_COUNT:
            return count
    return None


def _string(raw: Raw) -> str | None:
    text = value(raw)
    return text if isinstance(text, str) else None
