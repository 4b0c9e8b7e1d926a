"""Refusals as the clients' own libraries read them."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import anthropic
import msgspec
import openai
import pytest

from marsproxy import errors
from marsproxy.core.commands import Reason
from marsproxy.core.evidence import Schema

EVERY_REFUSAL = [
    *(errors.rejected(reason, 5.0) for reason in Reason),
    errors.backend_unreachable("http://h:1"),
    errors.backend_timeout("http://h:1"),
    errors.backend_broke_off("http://h:1"),
    errors.backend_unavailable("http://h:1", 1.0),
    errors.backend_unavailable(None, 1.0),
    errors.body_too_large(10),
    errors.headers_too_large(10),
    errors.headers_too_slow(1.5),
    errors.body_too_slow(1.5),
    errors.bad_request("bad_json", "the body is not JSON"),
    errors.bad_length(),
    errors.not_http(),
    errors.too_many_connections(3),
    errors.not_found("session"),
]


@pytest.mark.parametrize("refusal", EVERY_REFUSAL, ids=lambda refusal: refusal.code)
def test_both_shapes_of_every_refusal(refusal: errors.Refusal) -> None:
    """OpenAI's body everywhere, Anthropic's for the Messages API; length and type are right."""
    for schema in (None, *Schema):
        answer = errors.as_answer(refusal, schema)
        headers = dict(answer.headers)
        body = msgspec.json.decode(answer.body)
        assert headers[b"content-length"] == str(len(answer.body)).encode()
        assert headers[b"content-type"] == b"application/json"
        assert headers[b"x-mars-reason"].decode() == refusal.code
        assert answer.status == refusal.status
        assert body["error"]["message"] == refusal.message
        if schema is Schema.MESSAGES:
            assert body["type"] == "error"
            assert set(body["error"]) == {"type", "message"}
        else:
            assert set(body) == {"error"}
            assert set(body["error"]) == {"message", "type", "param", "code"}


def test_statuses() -> None:
    """What is the client's rate is 429, a backend's failure 502; everything else is our capacity."""
    statuses = {reason: errors.rejected(reason, 1.0).status for reason in Reason}
    rates = (Reason.QUEUE_FULL, Reason.TENANT_TURNS, Reason.TENANT_SESSIONS, Reason.TENANT_TOKENS)
    assert {statuses.pop(reason) for reason in rates} == {429}
    assert statuses.pop(Reason.BACKEND_LOST) == 502
    assert set(statuses.values()) == {503}
    assert errors.backend_unreachable("http://h").status == 502
    assert errors.backend_timeout("http://h").status == 504


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.0, b"1"), (1.2, b"2"), (30.0, b"30")])
def test_retry_after_is_whole_seconds(retry_after_s: float, header: bytes) -> None:
    """Rounded up, never 0."""
    answer = errors.as_answer(errors.rejected(Reason.QUEUE_FULL, retry_after_s))
    assert dict(answer.headers)[b"retry-after"] == header


def test_connection_is_closed_where_the_body_was_not_read() -> None:
    """The rest of it would be taken for the next request."""
    closes = {refusal.code for refusal in EVERY_REFUSAL if refusal.closes_connection}
    assert {"body_too_large", "headers_too_large", "body_too_slow", "bad_length"} <= closes
    for refusal in EVERY_REFUSAL:
        is_closed = dict(errors.as_answer(refusal).headers).get(b"connection") == b"close"
        assert is_closed is refusal.closes_connection


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://user:hunter2@host:8000/v1?key=abc", "http://host:8000"),
        ("https://host/", "https://host"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_backend_is_named_without_credentials(url: str, name: str) -> None:
    """Which one, and no more."""
    assert errors.public_name(url) == name
    message = errors.backend_unreachable(url).message
    assert name in message
    assert "hunter2" not in message
    assert "abc" not in message


@contextmanager
def server_answering(content: bytes, content_type: str, status: int = 200) -> Iterator[str]:
    """Base URL of a server that gives the same answer to everything."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


HELD = errors.rejected(Reason.HELD_TOO_LONG, 5.0)


def held_stream(schema: Schema) -> bytes:
    return b": held\n\n" + errors.as_event(HELD, schema)


def test_openai_library_understands_chat_event() -> None:
    """It raises with our message instead of ending the stream."""
    with (
        server_answering(held_stream(Schema.CHAT), "text/event-stream") as url,
        openai.OpenAI(api_key="k", base_url=url) as client,
        pytest.raises(openai.APIError, match="held"),
    ):
        list(client.chat.completions.create(model="m", messages=[], stream=True))


def test_openai_library_understands_responses_event() -> None:
    """Likewise on the responses API, whose own error event it would pass on silently."""
    with (
        server_answering(held_stream(Schema.RESPONSES), "text/event-stream") as url,
        openai.OpenAI(api_key="k", base_url=url) as client,
        pytest.raises(openai.APIError, match="held"),
    ):
        list(client.responses.create(model="m", input="x", stream=True))


def test_anthropic_library_understands_messages_event() -> None:
    """The event name is what it looks at."""
    with (
        server_answering(held_stream(Schema.MESSAGES), "text/event-stream") as url,
        anthropic.Anthropic(api_key="k", base_url=url) as client,
        pytest.raises(anthropic.APIStatusError, match="held"),
    ):
        list(client.messages.create(model="m", messages=[], max_tokens=1, stream=True))


def test_openai_library_understands_plain_answer() -> None:
    """Status and code arrive as the library's own exception."""
    answer = errors.as_answer(errors.rejected(Reason.QUEUE_FULL, 5.0), Schema.CHAT)
    with (
        server_answering(answer.body, "application/json", answer.status) as url,
        openai.OpenAI(api_key="k", base_url=url, max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[])
    assert caught.value.code == "queue_full"
