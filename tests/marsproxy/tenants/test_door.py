"""Who comes in, and what for."""

from pathlib import Path

import pytest

from marsproxy.core.evidence import Schema
from marsproxy.outbound import tenant_of
from marsproxy.tenants.door import Caller, Door, NotAdmitted
from marsproxy.tenants.file import read_tenants, tenant_id
from marsproxy.tenants.keys import new_key
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import ParsedRequest, read_request
from tests.marsproxy.tenants.guests import Guests

NAMED = Caller("id", "red")


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    guests = Guests(tmp_path / "tenants.toml")
    guests.write(red="", blue="expires = 1970-01-01T00:01:40Z")
    return guests


def door_of(guests: Guests, now: float = 0.0) -> Door:
    door = Door(lambda: now)
    door.guard(read_tenants(guests.path))
    return door


def bearer(key: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {key}".encode()


def test_an_open_door_lets_everybody_in_by_the_fingerprint_of_the_key() -> None:
    door, headers = Door(), [(b"authorization", b"Bearer whatever")]
    assert not door.is_guarded
    assert door.admit(headers) == Caller(tenant_of(headers))
    assert door.admit([]) == Caller("")
    assert not door.admit(headers).is_named


def test_a_key_is_taken_as_clients_of_either_api_send_it(guests: Guests) -> None:
    door, key = door_of(guests), guests.keys["red"]
    red = Caller(tenant_id("red"), "red")
    headers = (
        [bearer(key)],
        [(b"authorization", f"bearer  {key} ".encode())],
        [(b"x-api-key", key.encode())],
    )
    for each in headers:
        assert door.admit(each) == red
    assert door.admit([(b"x-api-key", b"an-old-habit"), bearer(key)]) == red


def test_whoever_has_no_key_that_is_known_stays_outside(guests: Guests) -> None:
    door, red, blue = door_of(guests), guests.keys["red"], guests.keys["blue"]
    changed = red[:-1] + ("A" if red[-1] != "A" else "B")
    stranger, _ = new_key()
    refused: list[list[tuple[bytes, bytes]]] = [
        [],
        [(b"authorization", red.encode())],
        [(b"authorization", f"Basic {red}".encode())],
        [bearer(changed)],
        [bearer(stranger)],
        [bearer("")],
        [bearer("x" * 60_000)],
        [(b"authorization", b"Bearer \xff\xfe")],
        [bearer(red), (b"x-api-key", blue.encode())],  # no request is two tenants'
    ]
    for headers in refused:
        with pytest.raises(NotAdmitted) as caught:
            door.admit(headers)
        assert (caught.value.refusal.status, caught.value.refusal.code) == (401, "invalid_api_key")
        assert red not in caught.value.refusal.message


def test_a_key_expires(guests: Guests) -> None:
    headers = [bearer(guests.keys["blue"])]
    assert door_of(guests, now=99.9).admit(headers).name == "blue"
    with pytest.raises(NotAdmitted, match="invalid_api_key"):
        door_of(guests, now=100.0).admit(headers)


def test_a_tenant_is_the_same_with_another_key(guests: Guests) -> None:
    before = door_of(guests).admit([bearer(guests.keys["red"])])
    old = guests.rotate("red")
    guests.write(red="")
    door = door_of(guests)
    assert door.admit([bearer(guests.keys["red"])]) == before
    with pytest.raises(NotAdmitted):
        door.admit([bearer(old)])


@pytest.mark.parametrize(
    ("method", "path", "is_open"),
    [
        ("GET", "/v1/models", True),
        ("POST", "/v1/embeddings", True),
        ("GET", "/v1/responses/resp_1", True),
        ("POST", "/tokenize", True),
        ("GET", "/health", True),
        ("GET", "/v1/models/org%2Fname", True),
        ("POST", "/sleep", False),
        ("POST", "/v1/load_lora_adapter", False),
        ("POST", "/v1/load_lora_adapter/", False),
        ("POST", "/v1/load%5Flora_adapter", False),
        ("POST", "/v1/../sleep", False),
        ("POST", "/v1/%2e%2e/sleep", False),
        ("POST", "/v1/%252e%252e/sleep", False),
        ("POST", "//sleep", False),
        ("POST", "/v1//load_lora_adapter", False),
        ("POST", "/v1/chat%2Fcompletions", False),
        ("POST", "/reset_prefix_cache", False),
        ("GET", "/docs", False),
    ],
)
def test_what_a_tenant_may_ask_of_the_backend_beside_its_turns(method: str, path: str, is_open: bool) -> None:
    """As the backend will read the path, not as it is written."""
    Caller("fingerprint").check_path(method, path)  # without tenants everything is the backend's business
    if is_open:
        NAMED.check_path(method, path)
        return
    with pytest.raises(NotAdmitted) as caught:
        NAMED.check_path(method, path)
    assert caught.value.refusal.status == 403


def parsed(body: bytes) -> ParsedRequest | None:
    forms = NormalForms(seed=1)
    return read_request(Schema.CHAT, [], body, tenant="id", url_session=None, normal_forms=forms)


def test_a_tenant_with_models_may_use_those() -> None:
    caller = Caller("id", "red", frozenset({"small"}))
    caller.check_request(parsed(b'{"model":"small","messages":[]}'))
    for body in (b'{"model":"large","messages":[]}', b'{"messages":[]}', b'{"model":7,"messages":[]}'):
        with pytest.raises(NotAdmitted, match="not_allowed"):
            caller.check_request(parsed(body))


def test_a_tenant_does_not_speak_to_the_backend_in_our_name() -> None:
    """Of another's session it could have the blocks thrown away."""
    for member in ("mars_session", "mars_final", "\\u006dars_session"):
        body = b'{"model":"m","messages":[],"vllm_xargs":{"%s":"x"}}' % member.encode()
        with pytest.raises(NotAdmitted, match="not_allowed"):
            NAMED.check_request(parsed(body))
        Caller("fingerprint").check_request(parsed(body))
    NAMED.check_request(parsed(b'{"model":"m","messages":[],"vllm_xargs":{"theirs":"x"}}'))


def test_what_cannot_be_read_has_no_owner() -> None:
    with pytest.raises(NotAdmitted, match="bad_body"):
        NAMED.check_request(parsed(b"{"))
    Caller("fingerprint").check_request(None)
