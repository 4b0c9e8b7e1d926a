"""What an answer about capabilities means, and that each change is said once."""

import logging
from dataclasses import dataclass, field

import msgspec
import pytest

from backend_patch.protocol import PROTOCOL, Capabilities, Headroom
from marsproxy.patch import BackendPatch, Finding, HeadroomSource, PatchState, judge, stepped_aside
from tests.integration.patched_backend import PATCH, rank

WORKING = Finding(PatchState.WORKING, capabilities=PATCH)
STOCK = Finding(PatchState.STOCK, "status 404")


def body_of(**fields: object) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(PATCH, **fields))


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, body_of(), PatchState.WORKING),
        (200, body_of(passthrough="contract"), PatchState.PASSTHROUGH),
        (200, body_of(protocol=PROTOCOL + 1), PatchState.TOO_NEW),
        (200, b'{"protocol": %d, "patch": {"all": "else"}}' % (PROTOCOL + 1), PatchState.TOO_NEW),
        (200, b"<html>hello</html>", PatchState.STOCK),
        (200, b"\xff\xfe", PatchState.STOCK),
        (200, b"{}", PatchState.STOCK),
        (200, b'{"protocol": 1}', PatchState.STOCK),
        (404, b'{"detail":"Not Found"}', PatchState.STOCK),
        (405, b"", PatchState.STOCK),
        (302, b"", PatchState.STOCK),
        (401, b'{"error":"Unauthorized"}', PatchState.STOCK),
        (503, b"", PatchState.UNKNOWN),
        (429, b"", PatchState.UNKNOWN),
    ],
)
def test_answers(status: int, body: bytes, state: PatchState) -> None:
    """Anything odd is a stock vLLM; what may pass by itself is asked again."""
    assert judge(status, body).state is state


def test_what_is_new_in_a_patch_is_passed_over() -> None:
    """As long as the protocol is ours."""
    body = body_of().replace(b"{", b'{"not_yet_known": 1, ', 1)
    assert judge(200, body).capabilities == PATCH


def test_a_missing_key_is_named() -> None:
    """It is what to do."""
    assert "backend.api_key" in judge(401, b"").why


def test_one_rank_that_stepped_aside_is_enough() -> None:
    """Sessions are spread over all of them."""
    well, aside = rank(), rank(rank=1, passthrough="an error")
    assert stepped_aside(Headroom((well, well))) is None
    assert stepped_aside(Headroom((well, aside))) == "an error"


@dataclass
class Gauges:
    shown: list[object] = field(default_factory=list)

    def set_state(self, state: PatchState) -> None:
        self.shown.append(state)

    def set_source(self, source: HeadroomSource) -> None:
        self.shown.append(source)


def test_each_change_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """With what to do; not knowing is no news."""
    caplog.set_level(logging.INFO, "marsproxy.patch")
    patch = BackendPatch("gpu", Gauges())
    unknown = Finding(PatchState.UNKNOWN, "ConnectError")
    for finding in (unknown, STOCK, STOCK, unknown, STOCK, WORKING, unknown, WORKING):
        patch.found(finding)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    stock, working = (record.getMessage() for record in caplog.records)
    assert stock.startswith("gpu has no backend patch (/v1/mars/capabilities: status 404)")
    assert "install the patch" in stock
    assert working == "gpu has the backend patch 0.1 on vLLM 0.32.0: leases and hints are on"


@pytest.mark.parametrize("state", [PatchState.PASSTHROUGH, PatchState.TOO_NEW])
def test_a_patch_that_is_there_and_not_used_is_a_warning(
    state: PatchState, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line of bounded length, whatever the backend says."""
    patch = BackendPatch("gpu", Gauges())
    patch.found(Finding(state, "x" * 10_000, PATCH))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert len(record.getMessage()) < 500
    assert patch.capabilities is None


def test_sources_are_said_where_there_is_a_patch(caplog: pytest.LogCaptureFixture) -> None:
    """A stock backend has only one."""
    caplog.set_level(logging.INFO, "marsproxy.patch")
    gauges = Gauges()
    patch = BackendPatch("gpu", gauges)
    patch.reads_from(HeadroomSource.METRICS)
    patch.found(WORKING)
    caplog.clear()
    metrics, own, nobody = HeadroomSource.METRICS, HeadroomSource.PATCH, HeadroomSource.NONE
    for source in (metrics, own, own, metrics, metrics, own, nobody):
        patch.reads_from(source)
    assert [record.getMessage() for record in caplog.records] == [
        "gpu: headroom comes from its patch",
        "gpu: its patch tells no headroom; it is read from /metrics",
        "gpu: headroom comes from its patch",
        "gpu: does not answer",
    ]
    assert gauges.shown[-1] is nobody


def test_capabilities_say_their_protocol() -> None:
    """Also where it is the one that the writer has by default, which the reader need not have."""
    assert msgspec.json.decode(msgspec.json.encode(Capabilities("1", "2")))["protocol"] == PROTOCOL
