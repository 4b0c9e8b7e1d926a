"""A stand-in for vLLM's client of its engine processes: what the patched schedulers would answer."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from backend_patch.protocol import (
    Capabilities,
    Ending,
    KvAnswer,
    KvRequest,
    KvStatus,
    LeaseEnding,
    RankHeadroom,
)

Answer = Callable[[str, str], Awaitable[str]]


class FakeRank:
    """One scheduler behind ``mars_rpc``. Knows the sessions that it is given, and keeps what it is asked."""

    def __init__(self, rank: int = 0, *sessions: str, instance_id: str | None = None) -> None:
        self.rank = rank
        self.instance_id = instance_id
        self.sessions = sessions
        self.calls: list[tuple[str, str]] = []
        self.passthrough: str | None = None

    async def mars_rpc(self, op: str, argument: str) -> str:
        self.calls.append((op, argument))
        await asyncio.sleep(0)
        return msgspec.json.encode(self._answer(op, argument)).decode()

    def _answer(self, op: str, argument: str) -> Any:
        match op:
            case "headroom":
                return rank_headroom(self.rank)
            case "kv":
                return [self._apply(each) for each in msgspec.json.decode(argument, type=list[KvRequest])]
            case "sessions":
                return [
                    {"session": name, "branch": "", "turns": 1, "tokens": 5, "live": 0}
                    for name in self.sessions
                ]
            case "capabilities":
                return Capabilities(
                    "0.1.0", "0.32.0", passthrough=self.passthrough, instance_id=self.instance_id
                )
        raise AssertionError(op)

    def _apply(self, request: KvRequest) -> KvAnswer:
        is_known = request.session in self.sessions
        status = KvStatus.ACCEPTED if is_known else KvStatus.MISSING
        return KvAnswer(status, request.session, request.op, blocks=10 * is_known, tokens=160 * is_known)


class StockRank:
    """vLLM's own scheduler: the method is not there."""

    def __init__(self) -> None:
        self.calls = 0

    async def mars_rpc(self, op: str, argument: str) -> str:
        self.calls += 1
        message = "Call to mars_rpc method failed: 'EngineCoreProc' object has no attribute 'mars_rpc'"
        raise Exception(message)  # As vLLM's client does.


class OneRankClient:
    """``AsyncMPClient``."""

    def __init__(self, rank: Any) -> None:
        self._rank = rank

    async def call_utility_async(self, method: str, *args: Any) -> Any:
        return await getattr(self._rank, method)(*args)


class RanksClient:
    """``DPLBAsyncMPClient`` up to 0.31."""

    def __init__(self, *ranks: FakeRank) -> None:
        self._all = ranks
        self.manage(len(ranks))

    def manage(self, count: int) -> None:
        """As after scaling: only the first ones."""
        ranks = self._all[:count]
        self.core_engines = [rank.rank.to_bytes(2, "little") for rank in ranks]
        self.engine_ranks_managed = [rank.rank for rank in ranks]
        self._ranks = dict(zip(self.core_engines, ranks, strict=True))

    async def call_utility_async(self, method: str, *args: Any) -> Any:
        assert len(self._ranks) == 1, "it answers for the first rank only"
        return await getattr(self._all[0], method)(*args)

    async def _call_utility_async(self, method: str, *args: Any, engine: bytes) -> Any:
        return await getattr(self._ranks[engine], method)(*args)


class NewRanksClient(RanksClient):
    """From 0.32."""

    async def call_utility_all_async(self, method: str, *args: Any) -> list[Any]:
        return [await getattr(rank, method)(*args) for rank in self._ranks.values()]


def engine_client(core: Any, *, instance_id: str = "none0", scheduler_cls: str | None = "mars") -> Any:
    config = SimpleNamespace(
        instance_id=instance_id, scheduler_config=SimpleNamespace(scheduler_cls=scheduler_cls)
    )
    return SimpleNamespace(engine_core=core, vllm_config=config)


def rank_headroom(rank: int, *, endings: int = 0, step: int = 1) -> RankHeadroom:
    return RankHeadroom(
        rank=rank,
        step=step,
        at_s=1.5,
        block_tokens=16,
        blocks=5085,
        free_blocks=4000,
        leased_blocks=250,
        claimed_blocks=0,
        running=3,
        waiting=1,
        waiting_continuations=1,
        waiting_prefill_tokens=2048,
        preemptions_total=0,
        prefix_queries_total=100,
        prefix_hits_total=50,
        endings=tuple(LeaseEnding(seq, f"s{seq}", Ending.EXPIRED, 160) for seq in range(1, endings + 1)),
        last_seq=endings,
    )
