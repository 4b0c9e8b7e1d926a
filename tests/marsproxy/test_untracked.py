"""Requests of no session, with several backends: where they go, and when they go once more."""

import asyncio
import json

import pytest

from marsproxy.untracked import model_of
from marsproxy.upstream import UpstreamUnreachable
from tests.marsproxy.asgi import FakeConnection
from tests.marsproxy.test_failover import NAMES, Rig, failing, rig_of
from tests.marsproxy.test_relay import FakeUpstream


def untracked(method: str, path: str, body: bytes | None = None) -> FakeConnection:
    if body is None:
        return FakeConnection(method, path).sends(b"")
    return FakeConnection(method, path, content_length=str(len(body))).sends(body)


def embeddings(model: str = "m") -> FakeConnection:
    return untracked("POST", "/v1/embeddings", json.dumps({"model": model, "input": "x"}).encode())


def unreachable(*, may_have_begun: bool) -> FakeUpstream:
    return failing(UpstreamUnreachable(NAMES[0], "x", may_have_begun=may_have_begun))


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/v1/embeddings", b'{"model": "m"}', "m"),
        ("/v1/embeddings", b'{"model": 7}', None),
        ("/v1/embeddings", b"{", None),
        ("/v1/embeddings", b"\xff", None),
        ("/v1/embeddings", None, None),
        ("/v1/models/org%2Fname", None, "org/name"),
        ("/v1/models/org/name", None, "org/name"),
    ],
)
def test_the_model_that_a_request_names(path: str, body: bytes | None, model: str | None) -> None:
    """In its body, or in the path of a model."""
    assert model_of(path, body) == model


async def test_it_goes_where_its_model_is() -> None:
    """Not to the first."""
    rig = rig_of(FakeUpstream(), FakeUpstream())
    rig.backend(NAMES[0]).models, rig.backend(NAMES[1]).models = frozenset("x"), frozenset("m")
    await rig.handle(embeddings("m"))
    await rig.handle(embeddings("x"))
    await rig.handle(untracked("GET", "/v1/models/m"))
    await rig.handle(untracked("GET", "/health"))
    assert [[sent[1] for sent in each.sent] for each in rig.upstreams.values()] == [
        ["/v1/embeddings", "/health"],
        ["/v1/embeddings", "/v1/models/m"],
    ]


@pytest.mark.parametrize(
    ("connection", "may_have_begun", "is_repeated"),
    [
        (embeddings, False, True),
        (embeddings, True, False),
        (lambda: untracked("GET", "/v1/responses/1"), True, True),
        (lambda: untracked("DELETE", "/v1/responses/1"), True, False),
    ],
    ids=["post-not-sent", "post-sent", "get-sent", "delete-sent"],
)
async def test_once_more_elsewhere_where_that_does_nothing_twice(
    connection: object, may_have_begun: bool, is_repeated: bool
) -> None:
    """Nothing was sent, or nothing is asked to be done."""
    rig = rig_of(unreachable(may_have_begun=may_have_begun), FakeUpstream())
    asked = connection()  # type: ignore[operator]
    await rig.handle(asked)
    assert (asked.status, rig.sent) == ((200, [1, 1]) if is_repeated else (502, [1, 0]))
    await rig.assert_nothing_is_left()


async def test_a_body_that_is_a_stream_is_sent_once() -> None:
    """Part of it is gone."""
    rig = rig_of(unreachable(may_have_begun=False), FakeUpstream())
    connection = FakeConnection(path="/v1/audio/transcriptions", transfer_encoding="chunked").sends(b"x")
    await rig.handle(connection)
    assert (connection.status, rig.sent) == (502, [1, 0])


def lists(*names: str) -> FakeUpstream:
    return FakeUpstream((json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode(),))


async def listed(rig: Rig) -> tuple[int, bytes]:
    connection = untracked("GET", "/v1/models")
    await rig.handle(connection)
    await rig.assert_nothing_is_left()
    return connection.status, connection.body


async def test_models_of_all() -> None:
    """Those that do not answer are left out."""
    rig = rig_of(lists("a", "b"), lists("b", "c"), unreachable(may_have_begun=False))
    status, body = await listed(rig)
    assert (status, [card["id"] for card in json.loads(body)["data"]]) == (200, ["a", "b", "c"])


async def test_models_of_the_only_one_that_answers() -> None:
    """Byte for byte, as of one by itself."""
    rig = rig_of(FakeUpstream((b'{ "data": [] }',)), unreachable(may_have_begun=False))
    assert await listed(rig) == (200, b'{ "data": [] }')
    assert await listed(rig_of(FakeUpstream((b"anything",)))) == (200, b"anything")


async def test_models_that_nobody_lists() -> None:
    """What one of them said, or that none can be reached."""
    refusing = FakeUpstream((b'{"error": "key"}',), fails_with_status=401)
    assert await listed(rig_of(unreachable(may_have_begun=False), refusing)) == (401, b'{"error": "key"}')
    status, _ = await listed(rig_of(unreachable(may_have_begun=False), unreachable(may_have_begun=False)))
    assert status == 502


async def test_no_backend_at_all() -> None:
    """Is said, with when to come back."""
    rig = rig_of(FakeUpstream())
    rig.backends._known.clear()
    for connection in (embeddings(), untracked("GET", "/v1/models")):
        await rig.handle(connection)
        assert (connection.status, connection.headers[b"x-mars-reason"]) == (503, b"backend_unavailable")


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_a_client_that_goes_while_all_are_asked(how: str) -> None:
    """Every question is given up."""
    rig = rig_of(FakeUpstream(stops_before_chunk=0), FakeUpstream(waits_for_head=True))
    connection = untracked("GET", "/v1/models")
    handling = asyncio.get_running_loop().create_task(rig.handle(connection))
    await asyncio.sleep(0.05)
    assert not handling.done()
    if how == "disconnect":
        connection.disconnects()
    else:
        handling.cancel()
    await asyncio.wait((handling,), timeout=5)
    assert handling.cancelled() == (how == "cancel")
    await rig.assert_nothing_is_left()
