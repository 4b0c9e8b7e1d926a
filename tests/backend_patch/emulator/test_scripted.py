"""What the middleware changes in a request, and what it leaves alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backend_patch.emulator.markup import Vocabulary
from backend_patch.emulator.scripted import (
    SCRIPT_VARIABLE,
    Message,
    Receive,
    Scope,
    ScriptedAnswers,
    Send,
    ServedVocabulary,
)
from backend_patch.script import Script, ScriptError

CALL = '{"tool": "bash", "args": {"command": "ls"}}'
USE = '{"name": "bash", "args": {"command": "ls"}}'
CALL_TEXT = '<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>'
CHAT = "/v1/chat/completions"


class Words:
    words: Sequence[str] = (" word",)

    def count(self, text: str) -> int:
        return len(re.findall(r"\S+", text))


@dataclass
class Server:
    """The application behind the middleware: keeps the request that it got."""

    scope: Scope = field(default_factory=dict)
    body: bytes = b""
    answers: list[Message] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        more = True
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)

    @property
    def length(self) -> bytes:
        return dict(self.scope["headers"])[b"content-length"]

    @property
    def xargs(self) -> dict[str, Any]:
        return msgspec.json.decode(self.body)["vllm_xargs"]


def script(tmp_path: Path, *lines: str) -> Script:
    path = tmp_path / "script.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return Script.read(path)


async def ask(
    body: bytes,
    *,
    path: str = CHAT,
    play: Script | None = None,
    vocabulary: Vocabulary | None = None,
    pieces: int = 1,
    **scope: Any,
) -> Server:
    server = Server()
    size = -(-len(body) // pieces)
    coming = [body[i * size : (i + 1) * size] for i in range(pieces)]

    async def receive() -> Message:
        return {"type": "http.request", "body": coming.pop(0), "more_body": bool(coming)}

    async def send(message: Message) -> None:
        server.answers.append(message)

    app = ScriptedAnswers(
        server, script=play or Script(), vocabulary_of=lambda _scope: vocabulary, max_body_bytes=1000
    )
    headers = [(b"Content-Length", str(len(body)).encode()), (b"x-session-id", b"s1")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers} | scope
    await app(scope, receive, send)
    return server


def with_answer(answer: str, **xargs: Any) -> bytes:
    said = msgspec.json.encode({"mars_answer": answer, "session_id": "s", **xargs})
    return b'{"model": "m",  "x": 1.50, "vllm_xargs": ' + said + b', "messages": []}'


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/messages", "/v1/responses"])
async def test_an_answer_of_the_request_becomes_what_the_model_says(path: str, pieces: int) -> None:
    server = await ask(with_answer(CALL), path=path, pieces=pieces)
    assert server.xargs == {"session_id": "s", "mars_output_text": CALL_TEXT}
    assert server.length == str(len(server.body)).encode()
    assert b'"x":1.50' in server.body, "the rest keeps its characters"
    assert server.body.startswith(b'{"model":"m",')


@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ('"required"', 2),
        ('{"type": "any"}', 2),
        ('{"type": "function", "function": {"name": "bash"}}', 1),
        ('{"type": "function", "name": "bash"}', 1),
        ('{"type": "tool", "name": "bash"}', 1),
    ],
)
async def test_forced_calls_are_written_without_any_text(choice: str, calls: int) -> None:
    def asked(answer: str) -> bytes:
        return with_answer(answer)[:-1] + b', "tool_choice": ' + choice.encode() + b"}"

    two = '{"text": "Look.", "tools": [' + f"{USE}, {USE}" + '], "output_tokens": 90}'
    server = await ask(asked(two), vocabulary=Words())
    assert server.xargs == {"session_id": "s", "mars_output_text": CALL_TEXT * calls}
    said = (await ask(asked('{"text": "Look."}'))).xargs["mars_output_text"]
    assert said == "Look.", "there is nothing to force"


async def test_the_length_asked_for_is_filled_up() -> None:
    answer = '{"text": "Look.", "tool": "bash", "args": {"command": "ls"}, "output_tokens": 20}'
    server = await ask(with_answer(answer), vocabulary=Words())
    text = server.xargs["mars_output_text"]
    assert server.xargs["mars_output_tokens"] == 20
    assert Words().count(text) == 19, "and the token that ends it"
    assert text.startswith("Look. word word")
    assert text.endswith(CALL_TEXT)


async def test_the_field_for_the_length_holds_where_the_answer_says_none() -> None:
    server = await ask(with_answer('{"text": "a"}', mars_output_tokens=5), vocabulary=Words())
    assert server.xargs["mars_output_text"] == "a word word word"
    server = await ask(with_answer('{"output_tokens": 3}', mars_output_tokens=5), vocabulary=Words())
    assert server.xargs["mars_output_text"] == " word word"
    assert server.xargs["mars_output_tokens"] == 3


async def test_a_prompt_is_answered_alike_streamed_or_not() -> None:
    class Many(Words):
        words = tuple(f" word{i}" for i in range(1000))

    def body(text: str, **more: Any) -> bytes:
        xargs = {"mars_answer": '{"output_tokens": 9}'}
        return msgspec.json.encode({"messages": [{"content": text}], "vllm_xargs": xargs, **more})

    texts = [
        (await ask(each, vocabulary=Many())).xargs["mars_output_text"]
        for each in (body("a"), body("a", stream=True), body("b"))
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_an_empty_answer_still_says_something() -> None:
    server = await ask(with_answer("{}"), vocabulary=Words())
    assert server.xargs["mars_output_text"] == " word"


async def test_without_a_vocabulary_the_executor_is_told_the_length() -> None:
    server = await ask(with_answer('{"text": "a", "output_tokens": 5}'))
    assert server.xargs == {"session_id": "s", "mars_output_text": "a", "mars_output_tokens": 5}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "fix"}], "tools": [{}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "fix"}], "tools": [{}]}),
        ("/v1/responses", {"input": "fix", "tools": [{}]}),
    ],
)
async def test_a_script_answers(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    play = script(tmp_path, f'{{"match": {{"user": "fix", "session": "s1"}}, "turns": [{CALL}]}}')
    server = await ask(msgspec.json.encode(body), path=path, play=play)
    assert server.xargs == {"mars_output_text": CALL_TEXT}
    assert {**body, "vllm_xargs": server.xargs} == msgspec.json.decode(server.body)

    own = msgspec.json.encode(body | {"vllm_xargs": {"mars_answer": '{"text": "own"}'}})
    assert (await ask(own, path=path, play=play)).xargs == {"mars_output_text": "own"}


async def test_a_script_says_nothing_to_others(tmp_path: Path) -> None:
    play = script(tmp_path, f'{{"match": {{"user": "fix"}}, "turns": [{CALL}]}}')
    for body in ({"messages": [{"role": "user", "content": "fix"}]}, {"messages": []}):
        raw = msgspec.json.encode(body)
        assert (await ask(raw, play=play)).body == raw
    completion = b'{"prompt": "fix"}'
    assert (await ask(completion, path="/v1/completions", play=play)).body == completion


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"mars_answer",
        b'["mars_answer"]',
        b'{"vllm_xargs": "mars_answer"}',
        b'{"prompt": "mars_answer"}',
        b'{"mars_answer": "{}"}',
        b'\xff"mars_answer"',
        b'{"vllm_xargs": {"mars_answer": "{}"}, "messages": ["' + b"x" * 1000 + b'"]}',
    ],
)
@pytest.mark.parametrize("pieces", [1, 2])
async def test_what_is_not_for_it_goes_through_untouched(body: bytes, pieces: int) -> None:
    server = await ask(body, pieces=pieces)
    assert server.body == body
    assert server.answers == []


@pytest.mark.parametrize("scope", [{"method": "GET"}, {"path": "/v1/models"}])
async def test_other_requests_are_not_read(scope: dict[str, Any]) -> None:
    body = with_answer(CALL)
    assert (await ask(body, **scope)).body == body


async def test_what_is_no_request_goes_through() -> None:
    """Startup and web sockets have no method and no body."""
    server = await ask(b"", type="lifespan")
    assert server.scope["type"] == "lifespan"


async def test_a_client_that_goes_while_it_sends_is_the_applications_to_see() -> None:
    seen: list[str] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    coming = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return coming.pop(0)

    async def send(_message: Message) -> None:
        raise AssertionError("nothing to answer")

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
    await ScriptedAnswers(app, script=Script())(scope, receive, send)
    assert seen == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("answer", ["{", '{"texts": "x"}', '{"output_tokens": "many"}'])
async def test_a_wrong_answer_is_refused_in_openais_shape(answer: str) -> None:
    server = await ask(with_answer(answer))
    start, end = server.answers
    assert start["status"] == 400
    error = msgspec.json.decode(end["body"])["error"]
    assert error["param"] == "body.vllm_xargs.mars_answer"
    assert (error["type"], error["code"]) == ("Bad Request", 400)
    assert error["message"].startswith("1 validation error:\n  mars_answer: ")
    assert server.scope == {}, "vLLM never sees it"


async def test_the_environment_names_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, '{"turns": [{"text": "scripted"}]}')
    monkeypatch.setenv(SCRIPT_VARIABLE, str(tmp_path / "script.jsonl"))
    server = Server()
    app = ScriptedAnswers(server)

    async def receive() -> Message:
        return {"type": "http.request", "body": b'{"messages": []}'}

    async def send(_message: Message) -> None:
        raise AssertionError("nothing is answered here")

    await app({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert server.xargs == {"mars_output_text": "scripted"}

    monkeypatch.setenv(SCRIPT_VARIABLE, str(tmp_path / "none.jsonl"))
    with pytest.raises(ScriptError, match="No such file"):
        ScriptedAnswers(server)


def test_a_model_folder_without_tokenizer_has_no_vocabulary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked twice, it warns once."""

    @dataclass
    class Model:
        tokenizer: str = str(tmp_path)

    @dataclass
    class Config:
        model_config: Model = field(default_factory=Model)

    @dataclass
    class State:
        vllm_config: Config = field(default_factory=Config)

    @dataclass
    class Application:
        state: State = field(default_factory=State)

    served = ServedVocabulary()
    scope = {"app": Application()}
    assert served(scope) is None
    assert served(scope) is None
    assert caplog.text.count("tokenizer.json") == 1
