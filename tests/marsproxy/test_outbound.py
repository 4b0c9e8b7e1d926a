"""What becomes of headers."""

import pytest

from marsproxy import outbound
from marsproxy.core.commands import ForwardTurn, KvLease, YieldsTo
from marsproxy.core.evidence import Level, Resolution, TurnKind

FORWARD = ForwardTurn("t1", "gpu", 7, "new")


def test_headers_of_one_connection_stay_behind() -> None:
    """The others go out as they came, in their order, unknown and repeated ones included."""
    kept = [(b"authorization", b"Bearer k"), (b"x-odd", b"\xff"), (b"cookie", b"a"), (b"cookie", b"b")]
    dropped = [(name, b"x") for name in (b"host", b"connection", b"content-length", b"expect", b"te")]
    assert outbound.to_backend([*dropped, *kept], api_key=None) == kept


def test_a_stream_keeps_its_length() -> None:
    """Only the client knows it."""
    length = (b"content-length", b"5")
    assert outbound.to_backend([length, (b"host", b"h")], api_key=None, keeps_length=True) == [length]


def test_a_configured_key_replaces_the_clients() -> None:
    """Every form of it."""
    headers = [(b"authorization", b"Bearer mine"), (b"x-api-key", b"mine"), (b"a", b"b")]
    assert outbound.to_backend(headers, api_key="k") == [(b"a", b"b"), (b"authorization", b"Bearer k")]


def test_a_turn_is_tagged() -> None:
    """With what the client did not say itself."""
    headers = [(b"x-session-id", b"mine")]
    outbound.tag_turn(headers, FORWARD, "s1", sets_priority=False)
    assert headers == [(b"x-session-id", b"mine"), (b"x-vllm-priority", b"7")]


@pytest.mark.parametrize(
    ("headers", "sets_priority"), [([], True), ([(b"x-vllm-priority", b"1")], False)], ids=["body", "header"]
)
def test_a_clients_own_priority_stays(headers: list[tuple[bytes, bytes]], sets_priority: bool) -> None:
    """In its body or in a header."""
    tagged = list(headers)
    outbound.tag_turn(tagged, FORWARD, "s1", sets_priority=sets_priority)
    assert tagged == [*headers, (b"x-session-id", b"s1")]


def resolved(kind: TurnKind) -> Resolution:
    return Resolution("s1", kind, Level.HEADER, 2, 1)


def test_a_patch_is_told_whose_turn_it_is() -> None:
    """And whom it may push aside; nothing is kept unless it was asked for."""
    new = ForwardTurn("t1", "gpu", 7, "new", may_break_leases=False)
    said = outbound.turn_xargs(new, resolved(TurnKind.FIRST))
    assert said == {"mars_session": "s1", "mars_class": "new"}
    said = outbound.turn_xargs(FORWARD, resolved(TurnKind.CONTINUATION))
    assert said == {"mars_session": "s1", "mars_class": "continuation"}


@pytest.mark.parametrize(
    ("yields_to", "mode"),
    [(YieldsTo.ANYBODY, "open"), (YieldsTo.RETURNING, "soft"), (YieldsTo.NOBODY, "hard")],
)
def test_a_lease_goes_along(yields_to: YieldsTo, mode: str) -> None:
    """In whole milliseconds."""
    forward = ForwardTurn("t1", "gpu", 7, "continuation", lease=KvLease(2.0004, yields_to))
    said = outbound.turn_xargs(forward, resolved(TurnKind.CONTINUATION))
    assert (said["mars_ttl_ms"], said["mars_mode"]) == (2000, mode)


def test_a_side_call_is_a_branch() -> None:
    """It must not resume what is kept for the session's own next turn."""
    assert outbound.turn_xargs(FORWARD, resolved(TurnKind.SIDE))["mars_branch"] == "side"


def test_compression_is_refused_once() -> None:
    """In place of what the client takes."""
    headers = [(b"accept-encoding", b"gzip"), (b"a", b"b")]
    assert outbound.refuse_compression(headers) == [(b"a", b"b"), (b"accept-encoding", b"identity")]


def test_a_tenant_is_a_fingerprint_of_the_key() -> None:
    """The same for the same key, and the key is not in it."""
    key = (b"authorization", b"Bearer secret")
    assert outbound.tenant_of([key]) == outbound.tenant_of([(b"a", b"b"), key])
    assert outbound.tenant_of([key]) != outbound.tenant_of([(b"authorization", b"Bearer other")])
    assert "secret" not in outbound.tenant_of([key])
    assert outbound.tenant_of([(b"x-api-key", b"k")]) != ""
    assert outbound.tenant_of([]) == ""
