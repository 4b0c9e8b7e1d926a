"""What replicas say that they may promise, asked of all of them while something is broken.

The event logs are audited afterwards, each against its own budget; this is the sum over those who do not
hear each other, which no log has. Owns the asking and the sums; what has to hold is said by the tests.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.scale.programs import Program

INTERVAL_S = 0.25
TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Said:
    """One replica's page of metrics."""

    state: str
    """``together``, ``alone`` or ``joining``."""
    budgets: Mapping[str, float]
    """Tokens that it may promise, by backend; none for one whose pool it does not know."""


@dataclass
class BudgetsSeen:
    """Largest sums of what may be promised on a backend, over what may be when nothing is broken."""

    whole: InitVar[Iterable[Said]]
    """Before the fault: what all together may promise."""
    looks: int = 0
    """While all that answered were alone, and nobody else was there to."""
    all_alone_ratio: float | None = None
    some_alone_ratio: float | None = None
    """Those alone and those together, who have all once they gave the others up."""
    _limits: dict[str, float] = field(default_factory=dict)

    def __post_init__(self, whole: Iterable[Said]) -> None:
        for each in whole:
            if each.state == "together":
                self._limits |= {name: value for name, value in each.budgets.items() if value > 0}

    def note(self, said: Iterable[Said], replicas: int) -> None:
        """While something is broken."""
        said = list(said)
        alone = [each for each in said if each.state == "alone"]
        together = [each for each in said if each.state == "together"]
        if not alone or not self._limits:
            return
        if len(alone) == replicas:
            self.looks += 1
            self.all_alone_ratio = max(self.all_alone_ratio or 0.0, self._ratio(alone))
        elif together:
            ratio = self._ratio([*alone, together[0]])
            self.some_alone_ratio = max(self.some_alone_ratio or 0.0, ratio)

    def _ratio(self, promising: Iterable[Said]) -> float:
        sums: dict[str, float] = defaultdict(float)
        for each in promising:
            for name, value in each.budgets.items():
                sums[name] += value
        return max(sums[name] / limit for name, limit in self._limits.items())


def read_page(page: str) -> Said:
    state, budgets = "", {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "mars_store_state" and sample.value:
                state = sample.labels["state"]
            if sample.name == "mars_kv_tokens" and sample.labels["what"] == "budget":
                budgets[sample.labels["backend"]] = sample.value
    return Said(state, {name: value for name, value in budgets.items() if value == value})  # NaN: unknown


async def ask(replicas: Iterable[Program]) -> list[Said]:
    """Those that answer."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        pages = await asyncio.gather(*(_page(http, each) for each in replicas))
    return [read_page(page) for page in pages if page is not None]


async def look_until_cancelled(replicas: list[Program], seen: BudgetsSeen) -> None:
    while True:
        seen.note(await ask(replicas), len(replicas))
        await asyncio.sleep(INTERVAL_S)


async def _page(http: aiohttp.ClientSession, replica: Program) -> str | None:
    """None of one that is dead or paused."""
    try:
        async with http.get(f"{replica.url}/metrics") as answer:
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
