"""What single parts of the proxy cost, in microseconds of one core: ``make bench``.

The figures in docstrings come from here. They are taken on the machine at hand, so compare within a run.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from marsproxy.config import Listen
from marsproxy.core.commands import Reason
from marsproxy.core.events import Ending, TurnArrived
from marsproxy.core.evidence import Level, Schema, TurnKind
from marsproxy.core.settings import PolicySettings
from marsproxy.eventlog import EventLog, new_header
from marsproxy.http_limits import limited_protocol
from marsproxy.metrics import Metrics
from marsproxy.wire.answers import AnswerReader

REPEATS = 5
"""The fastest counts: the others had company on the core."""


def cost_us(work: Callable[[], object], number: int = 20_000) -> float:
    def once() -> float:
        begin = time.perf_counter()
        for _ in range(number):
            work()
        return (time.perf_counter() - begin) / number * 1e6

    return min(once() for _ in range(REPEATS))


def bench_metrics() -> dict[str, float]:
    metrics = Metrics(CollectorRegistry())
    backend = metrics.backend("http://127.0.0.1:8000")

    def turn() -> None:
        metrics.turn_arrived(Level.PREFIX)
        metrics.decided("continuation")
        backend.connected(0.001)
        metrics.turn_ended(TurnKind.CONTINUATION, Ending.FINISHED, duration_s=30.0, ttft_s=0.7)

    def hold() -> None:
        metrics.held(Reason.KV_FULL)
        metrics.released(Reason.KV_FULL, held_s=4.0)

    return {"metrics of a turn": cost_us(turn), "metrics of a hold": cost_us(hold)}


def bench_event_log() -> dict[str, float]:
    event = TurnArrived(
        "turn-0123456789",
        "session-0123456789abcdef",
        TurnKind.CONTINUATION,
        "tenant",
        "family",
        12345,
        turn=4,
    )
    with tempfile.TemporaryDirectory() as directory:
        log = EventLog(Path(directory), 1 << 30, 1, new_header("mars", PolicySettings(), ["gpu"]))
        cost = cost_us(lambda: log.record(1.0, event), number=4000)  # below the bound of what may wait
        log.close()
    return {"line of the event log": cost}


def bench_stream() -> dict[str, float]:
    """Per chunk of one event, the parsing of every 150th included."""
    chunk = b"data: %s\n\n" % (
        b'{"choices":[{"index":0,"delta":{"content":" word"}}],"x":"' + b"y" * 150 + b'"}'
    )
    reader = AnswerReader(Schema.CHAT, is_streaming=True)
    watched = AnswerReader(Schema.CHAT, is_streaming=True)

    def watch() -> None:
        watched.feed(chunk)
        if watched.events >= 1 << 60:
            watched.tokens_so_far(chunk)

    return {
        "reading a chunk": cost_us(lambda: reader.feed(chunk)),
        "the same, watched for progress": cost_us(watch),
        "counting its events": cost_us(lambda: chunk.count(b"\n\n"), 200_000),
    }


class _NullTransport(asyncio.Transport):
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name.endswith("name") else default

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer key\r\n"
    b"content-type: application/json\r\naccept: */*\r\nuser-agent: bench\r\ncontent-length: 2\r\n\r\n{}"
)


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _request_us(protocol: type[HttpToolsProtocol], number: int = 5000) -> float:
    config = uvicorn.Config(_answer, http=protocol, log_level="critical", lifespan="off")
    connection = protocol(config, ServerState(), {})
    connection.connection_made(_NullTransport())
    begin = time.perf_counter()
    for _ in range(number):
        connection.data_received(REQUEST)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    cost = (time.perf_counter() - begin) / number * 1e6
    connection.connection_lost(None)
    return cost


async def bench_http() -> dict[str, float]:
    """Alternating, so that both meet the same neighbours."""
    plain, limited = HttpToolsProtocol, limited_protocol(Listen())
    costs = [(await _request_us(plain), await _request_us(limited)) for _ in range(REPEATS)]
    return {
        "request in uvicorn": min(cost for cost, _ in costs),
        "request with limits": min(cost for _, cost in costs),
    }


def main() -> None:
    table = Table("part", "microseconds")
    for name, cost in (
        bench_metrics() | bench_event_log() | bench_stream() | asyncio.run(bench_http())
    ).items():
        table.add_row(name, f"{cost:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
