"""What a gateway answers becomes one event; what it does not answer becomes none."""

import asyncio

import httpx
import msgspec
import pytest

from marsproxy.core.events import Event, ToolHostsObserved
from marsproxy.tool_hosts import ToolHostsPoller, headroom_of


def host(**fields: object) -> dict[str, object]:
    return {"name": "a", "slots": 4.0, "running": 1, "queued": 2, "memory_available_mb": 100, **fields}


def page(*hosts: dict[str, object]) -> bytes:
    return msgspec.json.encode({"hosts": list(hosts)})


def test_hosts_are_added_up() -> None:
    """Slots are the cores that a gateway hands out."""
    assert headroom_of(page(host(), host(slots=0.5, running=3))) == ToolHostsObserved(4.5, 4, 4, 200)


def test_memory_of_all_is_unknown_if_one_does_not_say() -> None:
    """Unknown is not zero."""
    assert headroom_of(page(host(), host(memory_available_mb=None))).memory_available_mb is None


def test_the_worst_host_is_the_one_that_stalls() -> None:
    """A mean would hide it; one that does not say is left out."""
    seen = headroom_of(
        page(
            host(memory_total_mb=1000, cpu_pressure=0.1, memory_pressure=0.4, queue_wait_s=3.0),
            host(memory_total_mb=500, cpu_pressure=0.2, memory_pressure=None, queue_wait_s=None),
        )
    )
    assert (seen.memory_total_mb, seen.cpu_pressure, seen.memory_pressure, seen.queue_wait_s) == (
        1500,
        0.2,
        0.4,
        3.0,
    )
    assert headroom_of(page(host())).cpu_pressure is None


def poller_of(
    answer: httpx.Response | Exception, told: list[Event], seen: list[httpx.Request]
) -> ToolHostsPoller:
    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    return ToolHostsPoller(client, told.append, url="http://g:8090/", token="secret", interval_s=0.01)


async def test_the_gateway_is_asked_with_the_token() -> None:
    """And asked again."""
    told: list[Event] = []
    seen: list[httpx.Request] = []
    polling = asyncio.get_running_loop().create_task(
        poller_of(httpx.Response(200, content=page(host())), told, seen).run()
    )
    async with asyncio.timeout(5):
        while len(told) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    polling.cancel()
    assert told[0] == ToolHostsObserved(4.0, 1, 2, 100)
    assert (str(seen[0].url), seen[0].headers["authorization"]) == ("http://g:8090/v1/hosts", "Bearer secret")


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(401), httpx.Response(200, content=b"no gateway"), httpx.ConnectError("refused")],
)
async def test_a_missed_answer_tells_nothing(answer: httpx.Response | Exception) -> None:
    """What was known grows old by itself."""
    told: list[Event] = []
    assert await poller_of(answer, told, []).read() is None
    assert told == []
