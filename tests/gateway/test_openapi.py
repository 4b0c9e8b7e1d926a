"""The OpenAPI document is what the gateway does: examples fit, and what it says is what one gets."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from gateway import protocol
from gateway.app import make_app
from gateway.limits import Limits
from gateway.openapi_examples import EXAMPLES
from tests.gateway.rest_rig import on_a_socket, open_rest

DOCUMENT: dict[str, Any] = make_app(lambda: contextlib.nullcontext()).openapi()  # type: ignore[arg-type,return-value]
OPERATIONS = [
    (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
schemathesis.serializer.alias(["application/x-tar", "application/gzip"], "application/octet-stream")
schema = schemathesis.openapi.from_dict(DOCUMENT)
SETTINGS = settings(
    max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@dataclass
class Served:
    url: str
    exec_id: str
    lease_id: str
    over_id: str
    """Of a command that has ended: its events have an end."""

    def names(self) -> dict[str, str]:
        """Of things that are there."""
        return {"sid": "s", "exec_id": self.exec_id, "lease_id": self.lease_id, "host": "here"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A gateway in a thread of its own, with one of each kind."""
    ready: list[Served] = []
    began, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        limits = Limits(max_file_bytes=1000, max_archive_bytes=1000)
        async with open_rest(slots=100, limits=limits) as rest, on_a_socket(rest.app) as address:
            exec_id = await rest.running(stdin_open=True, tty={})
            rest.host.write(exec_id, b"some output")
            lease = (await rest.http.post("/v1/leases", json={"session": "s", "ttl_s": 3600})).json()
            over_id = await rest.running()
            rest.host.write(over_id, b"some \xff output")
            rest.host.finish(over_id)
            ready.append(Served(f"http://{address}", exec_id, lease["id"], over_id))
            began.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert began.wait(60)
    yield ready[0]
    stop.set()
    thread.join(60)


@pytest.mark.slow
@schema.include(path_regex="events$").parametrize()
@SETTINGS
def test_whatever_events_are_asked_for_is_answered_as_documented(case: Any, served: Served) -> None:
    """Each stream is read to its end, with ids of its own and with whatever else."""
    if len(str(case.path_parameters["exec_id"])) % 4:
        case.path_parameters["exec_id"] = served.over_id
    name, given = "Last-Event-ID", next(iter((case.headers or {}).values()), "")
    if len(given) % 2:
        case.headers[name] = ("0.0.0", "1.0.0", "1.3.0", "2.13.0")[len(given) % 4]
    response = case.call(base_url=served.url, timeout=60)
    case.validate_response(response, checks=CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last_id", "status"), [(None, 200), ("1.0.0", 200), ("2.13.0", 204), ("nonsense", 400), ("1" * 65, 400)]
)
@pytest.mark.parametrize("is_there", [True, False])
def test_events_have_each_status_that_is_documented(
    served: Served, last_id: str | None, status: int, is_there: bool
) -> None:
    exec_id = served.over_id if is_there else "ex-none"
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    answer = httpx.get(f"{served.url}/v1/execs/{exec_id}/events", headers=headers, timeout=60)
    assert answer.status_code == (status if is_there or status == 400 else 404)
    (documented,) = (operation for _, path, operation in OPERATIONS if path.endswith("/events"))
    assert str(answer.status_code) in documented["responses"]
    if answer.status_code == 200:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.rstrip().rpartition("\n\n")[2].splitlines()[1] == "event: exit"


@pytest.mark.slow
@schema.exclude(path_regex="events$").parametrize()
@SETTINGS
def test_whatever_is_asked_is_answered_as_documented(case: Any, served: Served) -> None:
    for name, value in served.names().items():
        if name in case.path_parameters and len(str(case.path_parameters[name])) % 4:
            case.path_parameters[name] = value
    if (case.query or {}).get("wait"):
        case.query["wait"] = 0
    response = case.call(base_url=served.url, timeout=60)
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("kind", [*EXAMPLES], ids=lambda kind: kind.__name__)
def test_examples_are_of_their_kind(kind: type[msgspec.Struct]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(EXAMPLES[kind]), type=kind) == EXAMPLES[kind]


def test_every_body_of_the_protocol_has_an_example() -> None:
    bodies = {
        kind
        for kind in vars(protocol).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == protocol.__name__
    }
    parts = {
        protocol.LimitsRequest,
        protocol.WorkspaceRequest,
        protocol.OutputRequest,
        protocol.StreamStatus,
        protocol.HostCapabilities,
        protocol.ErrorDetail,
    }
    elsewhere = {protocol.ErrorBody, protocol.ToolReport}
    assert bodies - parts - elsewhere == set(EXAMPLES)


def test_each_operation_says_what_it_is_and_may_be_refused() -> None:
    assert len(OPERATIONS) >= 25
    for method, path, operation in OPERATIONS:
        assert operation["tags"], (method, path)
        assert "422" not in operation["responses"], (method, path)
        if path.startswith("/v1"):
            assert {"401", "403"} <= set(operation["responses"]), (method, path)
        if "429" in operation["responses"]:
            assert "Retry-After" in operation["responses"]["429"]["headers"], (method, path)


def test_every_reference_leads_somewhere() -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    used = {reference.rpartition("/")[2] for reference in references(DOCUMENT)}
    assert used == set(DOCUMENT["components"]["schemas"])
