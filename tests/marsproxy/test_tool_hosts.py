"""What a gateway answers becomes an event for each host; what it does not answer becomes none."""

import asyncio

import httpx
import msgspec
import pytest

from marsproxy.core.events import Event, ToolHostsObserved
from marsproxy.tool_hosts import ToolHostsPoller, hosts_of


def host(**fields: object) -> dict[str, object]:
    return {"name": "a", "slots": 4.0, "running": 1, "queued": 2, "memory_available_mb": 100, **fields}


def page(*hosts: dict[str, object]) -> bytes:
    return msgspec.json.encode({"hosts": list(hosts)})


def test_each_host_is_told_by_its_name() -> None:
    """Slots are the cores that a gateway hands out; what it does not say is unknown."""
    full = host(
        name="b", memory_total_mb=1000, cpu_pressure=0.1, memory_pressure=0.4, queue_wait_s=3.0, slots=0.5
    )
    assert hosts_of(page(host(), full)) == [
        ToolHostsObserved(4.0, 1, 2, 100, "a"),
        ToolHostsObserved(0.5, 1, 2, 100, "b", 1000, 0.1, 0.4, 3.0),
    ]


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
    assert told[0] == ToolHostsObserved(4.0, 1, 2, 100, "a")
    assert (str(seen[0].url), seen[0].headers["authorization"]) == ("http://g:8090/v1/hosts", "Bearer secret")


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(401), httpx.Response(200, content=b"no gateway"), httpx.ConnectError("refused")],
)
async def test_a_missed_answer_tells_nothing(answer: httpx.Response | Exception) -> None:
    """What was known grows old by itself."""
    told: list[Event] = []
    assert await poller_of(answer, told, []).read() == []
    assert told == []
