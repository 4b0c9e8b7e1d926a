"""State of the server while the run goes on: its ``/metrics``, once a second.

Knows the names that vLLM and the proxy give their metrics, and takes what is there; a metric that is
missing, and a server that does not answer, leave None. Never fails a run.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from loadgen.records import GaugeSample

PERIOD_S = 1.0
TIMEOUT_S = 5.0
KV_USED = "vllm:kv_cache_usage_perc"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
PREEMPTIONS = "vllm:num_preemptions_total"
HELD = "mars_held_turns"
TOOLS_RUNNING = ("mars_gateway_execs_running", "mars_tools_running")
TOOLS_QUEUED = ("mars_gateway_execs_queued", "mars_tools_queued")
"""The gateway's own word first; the proxy repeats what the gateway told it."""
NAMES = frozenset({KV_USED, RUNNING, WAITING, PREEMPTIONS, HELD, *TOOLS_RUNNING, *TOOLS_QUEUED})


@dataclass(frozen=True, slots=True)
class Reading:
    """The wanted metrics of one or several servers, each with the values of all its label sets."""

    values: dict[str, list[float]]

    def total(self, *names: str) -> int | None:
        """Over all label sets, of the first name that is there and known."""
        for name in names:
            found = self.values.get(name)
            if found is not None and math.isfinite(sum(found)):
                return round(sum(found))
        return None

    def mean(self, name: str) -> float | None:
        found = self.values.get(name)
        return None if found is None or not math.isfinite(sum(found)) else sum(found) / len(found)


def parse_metrics(text: str) -> dict[str, list[float]]:
    """Only the wanted names of a Prometheus text page, which may be long."""
    values: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name = line.partition("{")[0].partition(" ")[0]
        if name in NAMES:
            after_labels = line.rpartition("}")[2] if "}" in line else line[len(name) :]
            try:
                value = float(after_labels.split()[0])
            except (ValueError, IndexError):
                continue
            values.setdefault(name, []).append(value)
    return values


class GaugeSampler:
    def __init__(
        self,
        http: httpx.AsyncClient,
        urls: list[str],
        clock: Callable[[], float],
        on_sample: Callable[[GaugeSample], None],
    ) -> None:
        self._http = http
        self._urls = list(dict.fromkeys(f"{url}/metrics" for url in urls))
        self._clock = clock
        self._on_sample = on_sample
        self._first_preemptions: int | None = None
        self.preemptions: int | None = None
        """Since the first sample."""

    async def watch(self) -> None:
        while True:
            await self.sample()
            await asyncio.sleep(PERIOD_S)

    async def sample(self) -> None:
        values: dict[str, list[float]] = {}
        for url in self._urls:
            # Two servers may both tell the same metric (a proxy repeats its backend's): the first counts.
            values = await self._read(url) | values
        if values:
            self._note(Reading(values))

    def _note(self, reading: Reading) -> None:
        if (preempted := reading.total(PREEMPTIONS)) is not None:
            if self._first_preemptions is None:
                self._first_preemptions = preempted
            self.preemptions = preempted - self._first_preemptions
        self._on_sample(
            GaugeSample(
                at_s=self._clock(),
                kv_used_ratio=reading.mean(KV_USED),
                running=reading.total(RUNNING),
                waiting=reading.total(WAITING),
                held_sessions=reading.total(HELD),
                tools_running=reading.total(*TOOLS_RUNNING),
                tools_queued=reading.total(*TOOLS_QUEUED),
            )
        )

    async def _read(self, url: str) -> dict[str, list[float]]:
        try:
            response = await self._http.get(url, timeout=TIMEOUT_S)
        except (httpx.HTTPError, OSError, TimeoutError):
            return {}
        return parse_metrics(response.text) if response.status_code == 200 else {}
