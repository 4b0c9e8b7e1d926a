"""ASGI middleware of the emulated vLLM's API server: puts scripted answers into requests.

``vllm serve ... --middleware backend_patch.emulator.scripted.ScriptedAnswers``. A request's own answer
(``vllm_xargs.mars_answer``) goes before the script that ``MARS_EMULATOR_SCRIPT`` names. What the executor
is told is ``mars_output_text``, the markup of the answer, and ``mars_output_tokens``, the number of tokens
with the one that ends it. Every other member of the body keeps its bytes; a body that is no JSON object,
or larger than ``MAX_BODY_BYTES``, goes through untouched and is vLLM's to refuse. Logs no text.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
from xxhash import xxh3_64_intdigest

from backend_patch.emulator.asked import ASKED, session_of
from backend_patch.emulator.markup import Vocabulary, lengthened, render_answer, render_forced
from backend_patch.emulator.vocabulary import open_vocabulary
from backend_patch.script import Script, ScriptedAnswer, ScriptError, ScriptFile, parse_answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SCRIPT_VARIABLE = "MARS_EMULATOR_SCRIPT"
ROUTES = frozenset({*ASKED, "/v1/completions"})
MAX_BODY_BYTES = 64 << 20
"""A prompt of ten million tokens; what is larger is not read into memory here."""

PROMPTS = ("messages", "input", "prompt")
ANSWER, TEXT, TOKENS = "mars_answer", "mars_output_text", "mars_output_tokens"


class RefusedError(Exception):
    """The request's own answer is wrong."""

    def __init__(self, reason: str, param: str) -> None:
        super().__init__(reason)
        self.param = param

    def body(self) -> bytes:
        """In the words of the embedded engine, which are vLLM's for a malformed body."""
        message = f"1 validation error:\n  {self}"
        error = {"message": message, "type": "Bad Request", "param": f"body.{self.param}", "code": 400}
        return msgspec.json.encode({"error": error})


class ScriptedAnswers:
    def __init__(
        self,
        app: App,
        *,
        script: Script | ScriptFile | None = None,
        vocabulary_of: Callable[[Scope], Vocabulary | None] | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """vLLM gives only ``app``; the script is then that of the environment."""
        self._app = app
        self._script = script if script is not None else script_of_environment()
        self._vocabulary_of = vocabulary_of or ServedVocabulary()
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in ROUTES:
            return await self._app(scope, receive, send)
        received = await _read(receive, self._max_body_bytes)
        if received.body is not None:
            try:
                body = self._with_answer(scope, received.body)
            except RefusedError as exc:
                return await _refuse(exc, send)
            if body is not received.body:
                scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
                received.messages = [{"type": "http.request", "body": body, "more_body": False}]
        return await self._app(scope, received.then(receive), send)

    def _with_answer(self, scope: Scope, body: bytes) -> bytes:
        """The same object where there is nothing to put in."""
        if self._script.is_empty and ANSWER.encode() not in body:
            return body
        try:
            members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            xargs = msgspec.json.decode(members.get("vllm_xargs", b"null"), type=dict[str, Any] | None) or {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return body
        answer = own_answer(xargs) or self._scripted(scope, members, xargs)
        if answer is None:
            return body
        xargs.pop(ANSWER, None)
        tokens = answer.output_tokens if answer.output_tokens is not None else wanted_tokens(xargs)
        if answer.calls and (forced := forced_calls(members, answer)) is not None:
            xargs[TEXT], tokens = forced, None  # there is no place for filler
        else:
            xargs[TEXT] = self._text(scope, answer, tokens, seed_of(members))
        if tokens is not None:
            xargs[TOKENS] = tokens
        members["vllm_xargs"] = msgspec.Raw(msgspec.json.encode(xargs))
        return msgspec.json.encode(members)

    def _scripted(
        self, scope: Scope, members: dict[str, msgspec.Raw], xargs: dict[str, Any]
    ) -> ScriptedAnswer | None:
        asked_of = ASKED.get(scope["path"])
        if asked_of is None or self._script.is_empty:
            return None
        try:
            body = {name: msgspec.json.decode(value) for name, value in members.items()}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        header = dict(scope["headers"]).get(b"x-session-id")
        session = session_of(body, xargs, header.decode("latin-1") if header else None)
        return self._script.answer(asked_of(body, session))

    def _text(self, scope: Scope, answer: ScriptedAnswer, tokens: int | None, seed: int) -> str:
        text = render_answer(answer.text, answer.calls)
        if tokens is None and text:
            return text
        vocabulary = self._vocabulary_of(scope)
        if vocabulary is None:
            return text
        # An answer has one word at the least.
        return lengthened(answer, max(tokens or 0, 1 if text else 2), vocabulary, seed)


class ServedVocabulary:
    """Of the model that the API server serves, opened when first asked for."""

    def __init__(self) -> None:
        self._opened: dict[str, Vocabulary | None] = {}

    def __call__(self, scope: Scope) -> Vocabulary | None:
        folder = str(scope["app"].state.vllm_config.model_config.tokenizer)
        if folder not in self._opened:
            self._opened[folder] = open_vocabulary(Path(folder))
        return self._opened[folder]


def script_of_environment() -> Script | ScriptFile:
    path = os.environ.get(SCRIPT_VARIABLE)
    return ScriptFile(Path(path)) if path else Script()


def seed_of(members: dict[str, msgspec.Raw]) -> int:
    """The same prompt is answered alike, however the answer is asked for."""
    return xxh3_64_intdigest(b"".join(bytes(members.get(name, b"")) for name in PROMPTS))


def own_answer(xargs: dict[str, Any]) -> ScriptedAnswer | None:
    written = xargs.get(ANSWER)
    if written is None:
        return None
    try:
        return parse_answer(str(written))
    except ScriptError as exc:
        raise RefusedError(str(exc), f"vllm_xargs.{ANSWER}") from exc


def forced_calls(members: dict[str, msgspec.Raw], answer: ScriptedAnswer) -> str | None:
    """The answer's calls where ``tool_choice`` forces the model to write them, and nothing else; or None."""
    match msgspec.json.decode(members.get("tool_choice", b"null")):
        case "required" | {"type": "any"}:
            return render_forced(answer.calls)
        case {"type": "function" | "tool"}:
            return render_forced(answer.calls[:1])
    return None


def wanted_tokens(xargs: dict[str, Any]) -> int | None:
    """A value that is no count is left for the executor to refuse."""
    tokens = xargs.get(TOKENS)
    return tokens if isinstance(tokens, int) and tokens > 0 else None


class _Received:
    """What has come of a request, to be given to the application again."""

    def __init__(self, messages: list[Message], body: bytes | None) -> None:
        self.messages = messages
        self.body = body
        """None if it is too large, or if the client has gone."""

    def then(self, receive: Receive) -> Receive:
        async def again() -> Message:
            return self.messages.pop(0) if self.messages else await receive()

        return again


async def _read(receive: Receive, limit_bytes: int) -> _Received:
    messages: list[Message] = []
    size = 0
    while size <= limit_bytes:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return _Received(messages, None)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            is_whole = size <= limit_bytes
            return _Received(messages, b"".join(m.get("body", b"") for m in messages) if is_whole else None)
    return _Received(messages, None)


def _with_length(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    others = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return [*others, (b"content-length", str(length).encode())]


async def _refuse(exc: RefusedError, send: Send) -> None:
    body = exc.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
