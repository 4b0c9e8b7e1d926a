"""Which header or member names the session, framework by framework."""

import pytest

from marsproxy.core.evidence import Level
from marsproxy.wire.session_ids import (
    MAX_ID_BYTES,
    SessionIds,
    body_ids,
    first_of,
    read_headers,
    valid_id,
)

CODEX = (b"user-agent", b"codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm")


def headers(**named: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]


@pytest.mark.parametrize(
    ("sent", "session", "parent"),
    [
        (headers(x_litellm_session_id="conv-1"), "conv-1", None),
        (headers(x_session_affinity="ses_1", x_session_id="ses_1"), "ses_1", None),
        (headers(x_session_id="ses_2", x_parent_session_id="ses_1"), "ses_2", "ses_1"),
        (headers(x_session_affinity="ses_3"), "ses_3", None),
        (headers(x_claude_code_session_id="cc"), "cc", None),
        (headers(x_claude_code_session_id="cc", x_claude_code_agent_id="a1"), "cc/a1", "cc"),
        (
            headers(
                x_claude_code_session_id="cc",
                x_claude_code_agent_id="a2",
                x_claude_code_parent_agent_id="a1",
            ),
            "cc/a2",
            "cc/a1",
        ),
        ([*headers(session_id="root", thread_id="root"), CODEX], "root", None),
        ([*headers(session_id="root", thread_id="sub"), CODEX], "sub", "root"),
        ([*headers(session_id="root"), CODEX], "root", None),
        (headers(x_dynamo_session_id="d", x_dynamo_parent_session_id="p"), "d", "p"),
        (headers(baggage="user=1, session.id=a%2Db;meta=x"), "a-b", None),
        (headers(x_mars_session="mine", x_session_id="theirs", x_litellm_session_id="other"), "mine", None),
    ],
)
def test_frameworks(sent: list[tuple[bytes, bytes]], session: str, parent: str | None) -> None:
    assert read_headers(sent).ids == SessionIds(session, Level.HEADER, parent)


@pytest.mark.parametrize(
    "sent",
    [
        headers(x_request_id="r1", x_client_request_id="r2", traceparent="00-aa-bb-01", x_trace_id="t"),
        headers(session_id="s", thread_id="t", user_agent="Mozilla/5.0 codex"),
        headers(x_session_id="two words"),
        headers(x_session_id="x" * (MAX_ID_BYTES + 1)),
        headers(x_session_id="", x_litellm_session_id="undefined"),
        [(b"x-session-id", b"caf\xe9")],
        headers(x_claude_code_agent_id="agent-without-session"),
    ],
)
def test_what_never_names_a_session(sent: list[tuple[bytes, bytes]]) -> None:
    assert read_headers(sent).ids == SessionIds()


def test_the_parent_header_alone_names_only_the_parent() -> None:
    assert read_headers(headers(x_parent_session_id="p")).ids == SessionIds(None, None, "p")


def test_an_invalid_id_gives_way_to_the_next_header() -> None:
    assert read_headers(headers(x_session_id="null", x_session_affinity="ses")).ids.session == "ses"


def test_the_first_of_repeated_headers_counts() -> None:
    sent = headers(x_session_id="first") + headers(x_session_id="second")
    assert read_headers(sent).ids.session == "first"


def test_configured_headers_come_after_the_known_ones() -> None:
    sent = headers(x_acme_run="run-7")
    assert read_headers(sent, ["X-Acme-Run"]).ids.session == "run-7"
    assert read_headers([*sent, *headers(x_session_id="s")], ["X-Acme-Run"]).ids.session == "s"
    assert read_headers(sent).ids.session is None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"session_id": "s", "program_id": "p"}, SessionIds("s", Level.BODY)),
        ({"client_metadata": {"thread_id": "t", "session_id": "r"}}, SessionIds("t", Level.BODY, "r")),
        ({"client_metadata": {"thread_id": "t", "session_id": "t"}}, SessionIds("t", Level.BODY)),
        ({"client_metadata": {"session_id": "r"}}, SessionIds("r", Level.BODY)),
        ({"metadata": {"session_id": "m"}}, SessionIds("m", Level.BODY)),
        ({"litellm_session_id": "l"}, SessionIds("l", Level.BODY)),
        ({"program_id": "p"}, SessionIds("p", Level.BODY)),
        ({"conversation": "c"}, SessionIds("c", Level.BODY)),
        ({"conversation": {"id": "c"}}, SessionIds("c", Level.BODY)),
        ({"vllm_xargs": {"session_id": "x"}}, SessionIds("x", Level.BODY)),
        ({"session_id": 7, "metadata": [], "client_metadata": "x", "conversation": None}, SessionIds()),
    ],
)
def test_members_of_the_body(members: dict[str, object], expected: SessionIds) -> None:
    assert body_ids(members) == expected


def test_url_before_header_before_body() -> None:
    header, body = SessionIds("h", Level.HEADER, "hp"), SessionIds("b", Level.BODY, "bp")
    assert first_of("u", header, body) == SessionIds("u", Level.URL, "hp")
    assert first_of(None, header, body) == header
    assert first_of(None, SessionIds(), body) == body
    assert first_of("not an id", SessionIds(), SessionIds()) == SessionIds()


def test_nobody_is_their_own_parent() -> None:
    assert first_of("root", SessionIds(), SessionIds("t", Level.BODY, "root")).parent is None


def test_retry_final_and_priority_headers() -> None:
    facts = read_headers(
        headers(x_stainless_retry_count="2", x_mars_session_final="True", x_vllm_priority="3")
    )
    assert (facts.retry_count, facts.is_final, facts.sets_priority) == (2, True, True)
    facts = read_headers(headers(x_stainless_retry_count="-1", x_dynamo_session_final="false"))
    assert (facts.retry_count, facts.is_final, facts.sets_priority) == (None, False, False)
    assert read_headers(headers(x_dynamo_session_final="true")).is_final
    assert read_headers(headers(x_stainless_retry_count="9" * 5000)).retry_count is None


def test_ids_are_trimmed_but_not_otherwise_changed() -> None:
    assert valid_id(" Abc/1:2 ") == "Abc/1:2"
    assert valid_id(None) is None
