"""The patch's routes over HTTP: what comes back, or that nothing did."""

import httpx
import msgspec
import pytest

from backend_patch.protocol import Headroom, KvAnswer, KvOp, KvRequest, KvStatus
from marsproxy.backend_address import BackendAddress
from marsproxy.patch import Finding, PatchState
from marsproxy.patch_client import PatchClient, PatchFailed
from tests.integration.patched_backend import PATCH, rank

HEADROOM = Headroom((rank(),))
PINS = [KvRequest(KvOp.PIN, "a", "", 800), KvRequest(KvOp.END, "b")]
ANSWERS = [KvAnswer(KvStatus.ACCEPTED, "a", KvOp.PIN, 1, 16), KvAnswer(KvStatus.MISSING, "b", KvOp.END)]


class Rig:
    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        self.client = PatchClient(client, BackendAddress.of("http://gpu/", "k"))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def ok(content: object) -> httpx.Response:
    return httpx.Response(200, content=msgspec.json.encode(content))


FAILURES = [
    httpx.Response(500),
    httpx.Response(404),
    httpx.Response(200, content=b"\xff"),
    httpx.Response(200, content=b"{}"),
    httpx.Response(200, content=b"[3]"),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
]
every_failure = pytest.mark.parametrize("answer", FAILURES, ids=repr)


async def test_asking() -> None:
    """With the key."""
    rig = Rig(ok(PATCH))
    assert await rig.client.ask() == Finding(PatchState.WORKING, capabilities=PATCH)
    [request] = rig.requests
    assert str(request.url) == "http://gpu/v1/mars/capabilities"
    assert request.headers["authorization"] == "Bearer k"


async def test_a_backend_that_is_away_is_not_known() -> None:
    """Nor a stock one."""
    assert await Rig(httpx.ConnectError("")).client.ask() == Finding(PatchState.UNKNOWN, "ConnectError")


@pytest.mark.parametrize(("after", "query"), [("", b""), ("0:7,1:3", b"after=0:7,1:3")])
async def test_headroom(after: str, query: bytes) -> None:
    """With the endings after those that were read."""
    rig = Rig(ok(HEADROOM))
    assert await rig.client.headroom(after) == HEADROOM
    assert rig.requests[0].url.query == query


@every_failure
async def test_headroom_that_cannot_be_read(answer: httpx.Response | Exception) -> None:
    """Is one kind of failure."""
    with pytest.raises(PatchFailed):
        await Rig(answer).client.headroom("")


async def test_a_batch() -> None:
    """Of what differs from the default."""
    rig = Rig(ok(ANSWERS))
    assert await rig.client.send(PINS) == ANSWERS
    assert rig.requests[0].content == (
        b'[{"op":"pin","session":"a","branch":"","ttl_ms":800},{"op":"end","session":"b"}]'
    )


@every_failure
async def test_a_batch_that_fails(answer: httpx.Response | Exception) -> None:
    """Is sent once."""
    rig = Rig(answer)
    with pytest.raises(PatchFailed):
        await rig.client.send(PINS)
    assert len(rig.requests) == 1


async def test_answers_that_fit_no_request() -> None:
    """Are no answers."""
    with pytest.raises(PatchFailed, match="one answer for each"):
        await Rig(ok(ANSWERS[:1])).client.send(PINS)
