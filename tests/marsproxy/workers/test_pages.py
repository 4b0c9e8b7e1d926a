"""A scrape sees all workers, those that are gone too."""

import asyncio

from prometheus_client import CollectorRegistry

from marsproxy import metrics_page
from marsproxy.core.commands import Reason
from marsproxy.core.evidence import Level
from marsproxy.metrics import Metrics
from marsproxy.metrics_page import Family, SharedPage, merge
from marsproxy.workers.frames import Frame, Kind
from marsproxy.workers.pages import PageExchange, Pages


class Worker:
    def __init__(self, number: int, rig: "Rig") -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.pages = Pages(lambda: metrics_page.encode(metrics_page.own_families(self.metrics)), self._send)
        self._number, self._rig = number, rig
        self.is_mute = False

    def _send(self, frame: Frame) -> None:
        if frame.kind is Kind.GATHER:
            self._rig.exchange.wanted(self._number, frame.number)
        else:
            self._rig.exchange.came(self._number, frame.payload)

    async def scrape(self) -> str:
        _, page = await SharedPage(self.metrics, self.pages.gather).render("")
        return page.decode()


class Rig:
    """The parent's side and some workers, without sockets between them."""

    def __init__(self, workers: int) -> None:
        self.exchange = PageExchange(self._send)
        self.workers = {number: Worker(number, self) for number in range(1, workers + 1)}
        for number in self.workers:
            self.exchange.serves(number)

    def _send(self, number: int, frame: Frame) -> None:
        worker = self.workers[number]
        if frame.kind is Kind.PAGES:
            worker.pages.take(frame)
        elif not worker.is_mute:
            worker.pages.show()


def value_of(page: str, name: str) -> float:
    [line] = [line for line in page.splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


NEW = 'mars_identity_total{level="new"}'
HELD = 'mars_held_turns{reason="kv_full"}'


async def test_a_scrape_is_the_sum_whoever_gets_it() -> None:
    rig = Rig(3)
    for number, worker in rig.workers.items():
        for _ in range(number):
            worker.metrics.turn_arrived(Level.NEW)
        worker.metrics.held(Reason.KV_FULL)
    for worker in rig.workers.values():
        page = await worker.scrape()
        assert value_of(page, NEW) == 6
        assert value_of(page, HELD) == 3


async def test_shared_gauges_are_not_added() -> None:
    """Each worker shows the same sessions."""
    rig = Rig(2)
    rig.workers[1].metrics.set_sessions({"idle": 5})
    rig.workers[2].metrics.set_sessions({"idle": 5})
    assert value_of(await rig.workers[1].scrape(), 'mars_sessions{phase="idle"}') == 5


async def test_what_one_does_not_know_another_does() -> None:
    """Readings of backends are shown by the worker that took them."""
    rig = Rig(2)
    for worker in rig.workers.values():
        worker.metrics.backend("http://gpu:1").set_kv_tokens(None, None, None)
    rig.workers[2].metrics.backend("http://gpu:1").set_kv_tokens(1.0, 2.0, 3)
    page = await rig.workers[1].scrape()
    assert value_of(page, 'mars_kv_tokens{backend="http://gpu:1",what="pool"}') == 3


async def test_counts_of_the_dead_stay() -> None:
    """Else a sum would go back, and a rate over it would be nonsense."""
    rig = Rig(3)
    for worker in rig.workers.values():
        worker.metrics.turn_arrived(Level.NEW)
        worker.metrics.held(Reason.KV_FULL)
    assert value_of(await rig.workers[1].scrape(), NEW) == 3
    rig.exchange.gone(2)
    rig.exchange.gone(3)
    page = await rig.workers[1].scrape()
    assert value_of(page, NEW) == 3
    assert value_of(page, HELD) == 1  # nobody is held by the dead


async def test_a_scrape_does_not_wait_for_the_dead() -> None:
    rig = Rig(2)
    rig.workers[2].metrics.turn_arrived(Level.NEW)
    await rig.workers[1].scrape()
    rig.workers[2].is_mute = True
    scrape = asyncio.get_running_loop().create_task(rig.workers[1].scrape())
    await asyncio.sleep(0)
    assert not scrape.done()
    rig.exchange.gone(2)
    assert value_of(await scrape, NEW) == 1


async def test_a_cancelled_scrape_leaves_nothing() -> None:
    rig = Rig(2)
    rig.workers[2].is_mute = True
    scrape = asyncio.get_running_loop().create_task(rig.workers[1].scrape())
    await asyncio.sleep(0)
    scrape.cancel()
    await asyncio.wait((scrape,))
    rig.workers[2].is_mute = False
    assert value_of(await rig.workers[2].scrape(), NEW) == 0
    assert value_of(await rig.workers[1].scrape(), NEW) == 0


def test_beginnings_are_the_earliest() -> None:
    """Start times are neither sums nor one worker's."""
    name = "process_start_time_seconds"
    pages = [[Family(name, "", "gauge", "", [(name, (), at_s)])] for at_s in (20.0, 10.0)]
    assert merge(pages)[0].samples == [(name, (), 10.0)]
