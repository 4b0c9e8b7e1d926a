"""The metrics pages of all workers, for the one that was asked: the parent's part and the worker's.

The parent passes pages on, and keeps the latest of each: what a dead worker has counted stays in the sums, so
a scrape never shows less than the one before. Owns these pages and their ways; ``marsproxy.metrics_page``
makes one of them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marsproxy import metrics_page
from marsproxy.metrics_page import Family
from marsproxy.workers.frames import Frame, Kind

GATHER_TIMEOUT_S = 5.0
"""For the pages of all workers; Prometheus gives up on a scrape after 10 s unless told otherwise."""
MAX_GATHERS = 64
"""Scrapes under way; Prometheus sends one at a time."""


class Pages:
    """A worker's side.

    Args:
        own: makes the page of this worker.
        send: to the parent.
    """

    def __init__(self, own: Callable[[], bytes], send: Callable[[Frame], None]) -> None:
        self._own = own
        self._send = send
        self._asked: dict[int, asyncio.Future[list[bytes]]] = {}
        self._requests = 0

    async def gather(self) -> Sequence[bytes]:
        """Of all workers, this one's first; only this one's if the others' do not come."""
        self._requests += 1
        request = self._requests
        pages = self._asked[request] = asyncio.get_running_loop().create_future()
        try:
            self._send(Frame(Kind.GATHER, request))
            async with asyncio.timeout(GATHER_TIMEOUT_S):
                return [self._own(), *await pages]
        except TimeoutError:
            return [self._own()]
        finally:
            del self._asked[request]

    def show(self) -> None:
        """Give the parent this worker's page as it stands: asked for, or as the last one."""
        self._send(Frame(Kind.PAGE, payload=self._own()))

    def take(self, frame: Frame) -> None:
        pages = self._asked.get(frame.number)
        if pages is not None and not pages.done():
            pages.set_result(_split(frame.payload))


@dataclass(slots=True, eq=False)
class _Gather:
    asker: int
    request: int
    missing: set[int]


class PageExchange:
    """The parent's side. Workers are known by number.

    Args:
        send: a frame to a worker; nothing if it is gone.
    """

    def __init__(self, send: Callable[[int, Frame], None]) -> None:
        self._send = send
        self._latest: dict[int, bytes] = {}
        """Of each worker that serves; empty before its first page."""
        self._gathers: list[_Gather] = []
        self._retired: list[Family] = []

    def serves(self, worker: int) -> None:
        self._latest[worker] = b""

    def gone(self, worker: int) -> None:
        page = self._latest.pop(worker, b"")
        if page:
            left = metrics_page.remains(metrics_page.decode(page))
            self._retired = metrics_page.merge([self._retired, left])
        for gather in list(self._gathers):
            self._answered(gather, worker)

    def wanted(self, asker: int, request: int) -> None:
        if len(self._gathers) >= MAX_GATHERS:
            self._answer(self._gathers[0])
        gather = _Gather(asker, request, set(self._latest) - {asker})
        self._gathers.append(gather)
        for worker in list(gather.missing):
            self._send(worker, Frame(Kind.ASK_PAGE))
        self._answered(gather, asker)

    def came(self, worker: int, page: bytes) -> None:
        if worker in self._latest:
            self._latest[worker] = page
        for gather in list(self._gathers):
            self._answered(gather, worker)

    def _answered(self, gather: _Gather, worker: int) -> None:
        gather.missing.discard(worker)
        if not gather.missing and gather in self._gathers:
            self._answer(gather)

    def _answer(self, gather: _Gather) -> None:
        self._gathers.remove(gather)
        others = [page for worker, page in self._latest.items() if page and worker != gather.asker]
        pages = _joined([*others, metrics_page.encode(self._retired)])
        self._send(gather.asker, Frame(Kind.PAGES, gather.request, payload=pages))


def _joined(pages: Sequence[bytes]) -> bytes:
    return b"".join(len(page).to_bytes(4, "little") + page for page in pages)


def _split(payload: bytes) -> list[bytes]:
    pages, start = [], 0
    while start < len(payload):
        size = int.from_bytes(payload[start : start + 4], "little")
        pages.append(payload[start + 4 : start + 4 + size])
        start += 4 + size
    return pages
