"""The schedulers behind an API server's process: what they wrote down, and what they answer.

Owns the two ways to them. Headroom comes from shared memory, so that it costs the engine nothing and is
there while a step runs; where there is none (another host), it is asked for as everything else is: by
``protocol.RPC_METHOD``, which vLLM runs between two steps.

An engine without the patch is one that steps aside: it has no headroom to tell and rejects operations.
It must not know HTTP. vLLM comes in through ``EngineClient``, so that this runs where there is none.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from backend_patch import contract
from backend_patch.protocol import (
    RPC_METHOD,
    Capabilities,
    Headroom,
    HeadroomQuery,
    KvAnswer,
    KvRequest,
    KvStatus,
    RankHeadroom,
    Rpc,
    SessionsQuery,
)
from backend_patch.rank_answers import first, merge_batches
from backend_patch.snapshot import SnapshotReader

RPC_TIMEOUT_S = 30.0
"""Many steps: one of 8,192 prefill tokens is 0.4 s on an H100, on a CPU some seconds."""
STOCK = "the engine runs vLLM's own scheduler: --scheduler-cls is not given"
NO_RPC = "the engine has no patched scheduler, though --scheduler-cls is given; its log may say why"


class CoreClient(Protocol):
    """What is used of vLLM's client of its engine processes. With several data parallel ranks it also
    has ``core_engines``, ``engine_ranks_managed`` and, from 0.32, ``call_utility_all_async``."""

    async def call_utility_async(self, method: str, *args: Any) -> Any: ...


class EngineClient(Protocol):
    """What is used of ``vllm.engine.protocol.EngineClient``, as ``AsyncLLM`` has it."""

    engine_core: CoreClient
    vllm_config: Any


class EngineUnreachable(Exception):
    """It did not answer in time, or with an error."""


class EngineRanks:
    """The ranks that one API server's process has to do with; the others have servers of their own."""

    def __init__(self, client: EngineClient, *, rpc_timeout_s: float = RPC_TIMEOUT_S) -> None:
        self._core = client.engine_core
        self._config = client.vllm_config
        self._rpc_timeout_s = rpc_timeout_s
        self._readers: list[SnapshotReader] = []
        is_stock = self._config.scheduler_config.scheduler_cls is None
        self._unpatched = STOCK if is_stock else None

    async def headroom(self, after: Mapping[int, int]) -> Headroom:
        """Of every rank, with the lease endings later than the given ones; without any of ranks that
        ``after`` does not name. Without ranks where the engine is not patched."""
        if self._unpatched:
            return Headroom(ranks=())
        raw: Sequence[bytes | str] = await self._snapshots()
        if not raw:
            query = HeadroomQuery(after=min(after.values(), default=0))
            raw = await self._call_all(Rpc.HEADROOM, query)
        ranks = (msgspec.json.decode(each, type=RankHeadroom) for each in raw)
        return Headroom(ranks=tuple(with_endings_after(rank, after.get(rank.rank)) for rank in ranks))

    async def apply(self, requests: Sequence[KvRequest]) -> list[KvAnswer]:
        """One remote call, however many."""
        raw = await self._call_all(Rpc.KV, requests)
        ranks = [msgspec.json.decode(each, type=list[KvAnswer]) for each in raw]
        if not ranks:
            return [
                KvAnswer(KvStatus.REJECTED, each.session, each.op, reason="passthrough") for each in requests
            ]
        return merge_batches(ranks)

    async def sessions(self, query: SessionsQuery) -> list[msgspec.Raw]:
        ranks = await self._call_all(Rpc.SESSIONS, query)
        return [session for each in ranks for session in msgspec.json.decode(each, type=list[msgspec.Raw])]

    async def capabilities(self) -> Capabilities:
        """Those of the first rank, all ranks being alike; but that any has stepped aside counts."""
        ranks = [
            msgspec.json.decode(each, type=Capabilities) for each in await self._call_all(Rpc.CAPABILITIES)
        ]
        if not ranks:
            return unpatched_capabilities(self._unpatched)
        return msgspec.structs.replace(ranks[0], passthrough=first(rank.passthrough for rank in ranks))

    async def _snapshots(self) -> list[bytes]:
        """None at all unless there is one of every rank."""
        ranks = getattr(self._core, "engine_ranks_managed", None) or [0]
        if len(self._readers) != len(ranks):
            await self._find_snapshots(ranks)
        found = [data for reader in self._readers if (data := reader.try_read()) is not None]
        return found if len(found) == len(ranks) else []

    async def _find_snapshots(self, ranks: Sequence[int]) -> None:
        """The engines are asked for the name, once: each API server's process makes a configuration of its
        own, with another instance id, where there are several (vLLM 0.28 to 0.33)."""
        told = [
            msgspec.json.decode(each, type=Capabilities) for each in await self._call_all(Rpc.CAPABILITIES)
        ]
        for reader in self._readers:
            reader.close()
        self._readers = [
            SnapshotReader(each.instance_id or self._config.instance_id, rank)
            for rank, each in zip(ranks, told, strict=False)
        ]

    async def _call_all(self, op: Rpc, body: object = None) -> list[str]:
        """One answer for each rank; none where the engine is not patched."""
        if self._unpatched:
            return []
        text = msgspec.json.encode({} if body is None else body).decode()
        try:
            async with asyncio.timeout(self._rpc_timeout_s):
                return await call_all_ranks(self._core, op.value, text)
        except TimeoutError as exc:
            message = f"the engine has not answered within {self._rpc_timeout_s:g} s"
            raise EngineUnreachable(message) from exc
        except Exception as exc:  # vLLM hands on whatever failed in its engine as a plain one
            if f"has no attribute '{RPC_METHOD}'" not in str(exc):
                raise EngineUnreachable(f"the engine answered with an error: {type(exc).__name__}") from exc
            self._unpatched = NO_RPC
            return []


async def call_all_ranks(core: Any, op: str, body: str) -> list[str]:
    """vLLM's own way to all ranks, or before 0.32 what it is made of."""
    if len(getattr(core, "core_engines", ())) < 2:
        return [await core.call_utility_async(RPC_METHOD, op, body)]
    if hasattr(core, "call_utility_all_async"):
        return list(await core.call_utility_all_async(RPC_METHOD, op, body))
    calls = (core._call_utility_async(RPC_METHOD, op, body, engine=engine) for engine in core.core_engines)
    return list(await asyncio.gather(*calls))


def with_endings_after(rank: RankHeadroom, seq: int | None) -> RankHeadroom:
    if not rank.endings:
        return rank
    wanted = () if seq is None else tuple(each for each in rank.endings if each.seq > seq)
    return msgspec.structs.replace(rank, endings=wanted)


def unpatched_capabilities(reason: str | None) -> Capabilities:
    return Capabilities(
        patch_version=contract.patch_version(),
        vllm_version=contract.installed_version() or "unknown",
        ops=(),
        passthrough=reason,
    )
