"""Request bodies as msgspec sees them, and the histories inside them.

Owns which members are read and what the history of each API is made of. Members stay raw slices and are
decoded one by one, so that a wrong type in one costs only that one.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from marsproxy.core.evidence import Digest, Schema
from marsproxy.wire import normal, prompts
from marsproxy.wire.forms import NormalForms, Shape
from marsproxy.wire.normal import NormalForm


class Body(msgspec.Struct):
    model: Raw = Raw()
    stream: Raw = Raw()
    stream_options: Raw = Raw()
    vllm_xargs: Raw = Raw()
    priority: Raw = Raw()
    n: Raw = Raw()
    max_tokens: Raw = Raw()
    max_completion_tokens: Raw = Raw()
    max_output_tokens: Raw = Raw()
    tools: Raw = Raw()
    functions: Raw = Raw()
    user: Raw = Raw()
    prompt_cache_key: Raw = Raw()
    session_id: Raw = Raw()
    client_metadata: Raw = Raw()
    metadata: Raw = Raw()
    litellm_session_id: Raw = Raw()
    program_id: Raw = Raw()
    conversation: Raw = Raw()
    previous_response_id: Raw = Raw()


class ChatBody(Body, kw_only=True):
    messages: list[Raw]


class MessagesBody(Body, kw_only=True):
    messages: list[Raw]
    system: Raw = Raw()


class ResponsesBody(Body):
    input: str | list[Raw] = ""
    instructions: Raw = Raw()


class CompletionsBody(Body):
    prompt: Raw = Raw()


AnyBody = ChatBody | MessagesBody | ResponsesBody | CompletionsBody


@dataclass(frozen=True, slots=True)
class History:
    digests: tuple[Digest, ...]
    prompt_bytes: int
    answered_call_ids: tuple[str, ...] = ()
    system: Digest | None = None
    """Of the system prompt, where the history opens with one."""
    prompts: int = 1
    """Prompts in one request: more than one only in batches of the completions API."""


def decode_body(schema: Schema, body: bytes) -> AnyBody:
    """Raises one of ``normal.UNREADABLE``."""
    decoder: msgspec.json.Decoder[AnyBody] = _DECODERS[schema]
    return decoder.decode(body)


def read_history(body: AnyBody, forms: NormalForms) -> History:
    match body:
        case ChatBody():
            return _of_forms(forms.of(Shape.CHAT_MESSAGE, body.messages))
        case MessagesBody():
            system = forms.of(Shape.SYSTEM, [body.system]) if given(body.system) else []
            return _of_forms(system + forms.of(Shape.MESSAGES_MESSAGE, body.messages))
        case ResponsesBody():
            return _of_responses(body, forms)
        case CompletionsBody():
            prompt = value(body.prompt)
            count = prompts.prompt_count(prompt)
            return History(prompts.prompt_digests(prompt), len(body.prompt), prompts=count)


def value(raw: Raw) -> Any:
    """The decoded member; None when it is absent, null or unreadable."""
    if not raw:
        return None
    try:
        return normal.read_json(raw)
    except normal.UNREADABLE:
        return None


def given(raw: Raw) -> bytes | None:
    """The member's JSON as it came; None when it is absent."""
    return bytes(raw) if raw else None


def _of_responses(body: ResponsesBody, forms: NormalForms) -> History:
    found = forms.of(Shape.SYSTEM, [body.instructions]) if value(body.instructions) else []
    if isinstance(body.input, str):
        found.append(normal.responses_form({"role": "user", "content": body.input}))
    else:
        found += forms.of(Shape.RESPONSES_ITEM, body.input)
    return _of_forms(found, normal.history_digests(found))


def _of_forms(forms: list[NormalForm], digests: tuple[Digest, ...] | None = None) -> History:
    if digests is None:
        digests = tuple([form.digest for form in forms if form.digest is not None])
    return History(
        digests=digests,
        prompt_bytes=sum([form.prompt_bytes for form in forms]),
        answered_call_ids=tuple([call_id for form in forms for call_id in form.answered_call_ids]),
        system=forms[0].digest if forms and forms[0].is_system else None,
    )


_DECODERS: dict[Schema, Any] = {
    Schema.CHAT: msgspec.json.Decoder(ChatBody),
    Schema.COMPLETIONS: msgspec.json.Decoder(CompletionsBody),
    Schema.RESPONSES: msgspec.json.Decoder(ResponsesBody),
    Schema.MESSAGES: msgspec.json.Decoder(MessagesBody),
}
