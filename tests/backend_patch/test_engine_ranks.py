"""What an API server's process learns of its schedulers, and how it reaches them."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from backend_patch.engine_ranks import NO_RPC, STOCK, EngineRanks, EngineUnreachable
from backend_patch.protocol import KvOp, KvRequest, KvStatus, RankHeadroom, SessionsQuery
from backend_patch.snapshot import SnapshotWriter
from tests.backend_patch.fake_engine import (
    FakeRank,
    NewRanksClient,
    OneRankClient,
    RanksClient,
    StockRank,
    engine_client,
    rank_headroom,
)

PIN_A, PIN_B = KvRequest(KvOp.PIN, "a", ttl_ms=8000), KvRequest(KvOp.PIN, "b")


@pytest.fixture
def writers(instance_id: str) -> Iterator[list[SnapshotWriter]]:
    """Of two ranks."""
    both = [SnapshotWriter(instance_id, rank) for rank in range(2)]
    yield both
    for writer in both:
        writer.close()


def encoded(headroom: RankHeadroom) -> bytes:
    return msgspec.json.encode(headroom)


async def test_headroom_comes_from_shared_memory(writers: list[SnapshotWriter], instance_id: str) -> None:
    """The engine is not asked, however often one looks."""
    rank = FakeRank()
    ranks = EngineRanks(engine_client(OneRankClient(rank), instance_id=instance_id))
    for step in range(1, 4):
        writers[0].write(encoded(rank_headroom(0, step=step)))
        assert (await ranks.headroom({})).ranks == (rank_headroom(0, step=step),)
    assert rank.calls == [("capabilities", "{}")]


async def test_the_engine_says_where_it_writes(writers: list[SnapshotWriter], instance_id: str) -> None:
    """Each of several API servers has a configuration of its own, with an instance id of its own."""
    fakes = FakeRank(0, instance_id=instance_id), FakeRank(1, instance_id=instance_id)
    ranks = EngineRanks(engine_client(RanksClient(*fakes), instance_id="of-this-server"))
    for number, writer in enumerate(writers):
        writer.write(encoded(rank_headroom(number, step=77)))
    assert [rank.step for rank in (await ranks.headroom({})).ranks] == [77, 77]


async def test_ranks_that_are_added_are_looked_for(writers: list[SnapshotWriter], instance_id: str) -> None:
    client = RanksClient(FakeRank(0), FakeRank(1))
    ranks = EngineRanks(engine_client(client, instance_id=instance_id))
    for number, writer in enumerate(writers):
        writer.write(encoded(rank_headroom(number)))
    client.manage(1)
    assert len((await ranks.headroom({})).ranks) == 1
    client.manage(2)
    assert len((await ranks.headroom({})).ranks) == 2


async def test_headroom_of_every_rank(writers: list[SnapshotWriter], instance_id: str) -> None:
    ranks = EngineRanks(engine_client(RanksClient(FakeRank(0), FakeRank(1)), instance_id=instance_id))
    for number, writer in enumerate(writers):
        writer.write(encoded(rank_headroom(number)))
    assert [rank.rank for rank in (await ranks.headroom({})).ranks] == [0, 1]


async def test_a_rank_without_shared_memory_is_asked(writers: list[SnapshotWriter], instance_id: str) -> None:
    """Its engine runs on another host."""
    fakes = FakeRank(0), FakeRank(1)
    ranks = EngineRanks(engine_client(RanksClient(*fakes), instance_id=instance_id))
    writers[0].write(encoded(rank_headroom(0)))
    assert [rank.rank for rank in (await ranks.headroom({})).ranks] == [0, 1]
    assert ("headroom", "{}") in fakes[1].calls


async def test_only_the_endings_asked_for(writers: list[SnapshotWriter], instance_id: str) -> None:
    """Those of ranks that are not named are not sent; how far they count is."""
    ranks = EngineRanks(engine_client(RanksClient(FakeRank(0), FakeRank(1)), instance_id=instance_id))
    for number, writer in enumerate(writers):
        writer.write(encoded(rank_headroom(number, endings=5)))
    first, second = (await ranks.headroom({0: 3, 7: 1})).ranks
    assert [ending.seq for ending in first.endings] == [4, 5]
    assert second.endings == ()
    assert [first.last_seq, second.last_seq] == [5, 5]


@pytest.mark.parametrize("client", [RanksClient, NewRanksClient])
async def test_operations_go_to_all_ranks(client: type[RanksClient]) -> None:
    """Each session is where it was served."""
    fakes = FakeRank(0, "a"), FakeRank(1, "b")
    ranks = EngineRanks(engine_client(client(*fakes)))
    answers = await ranks.apply([PIN_A, PIN_B, KvRequest(KvOp.EVICT, "c")])
    assert [each.status for each in answers] == [KvStatus.ACCEPTED, KvStatus.ACCEPTED, KvStatus.MISSING]
    assert [len(fake.calls) for fake in fakes] == [1, 1]


async def test_the_sessions_of_all_ranks() -> None:
    ranks = EngineRanks(engine_client(RanksClient(FakeRank(0, "a"), FakeRank(1, "b"))))
    sessions = [msgspec.json.decode(each) for each in await ranks.sessions(SessionsQuery())]
    assert [each["session"] for each in sessions] == ["a", "b"]


async def test_one_rank_that_steps_aside_counts() -> None:
    fakes = FakeRank(0), FakeRank(1)
    ranks = EngineRanks(engine_client(RanksClient(*fakes)))
    assert (await ranks.capabilities()).passthrough is None
    fakes[1].passthrough = "error in schedule"
    assert (await ranks.capabilities()).passthrough == "error in schedule"


async def test_stock_engine_is_not_bothered() -> None:
    """Each call to it would put a traceback in its log."""
    stock = StockRank()
    ranks = EngineRanks(engine_client(OneRankClient(stock), scheduler_cls=None))
    await expect_passthrough(ranks, STOCK)
    assert stock.calls == 0


async def test_engine_of_another_scheduler_is_asked_once() -> None:
    stock = StockRank()
    ranks = EngineRanks(engine_client(OneRankClient(stock), scheduler_cls="somebody.elses"))
    assert (await ranks.headroom({})).ranks == ()
    await expect_passthrough(ranks, NO_RPC)
    assert stock.calls == 1


async def expect_passthrough(ranks: EngineRanks, reason: str) -> None:
    (answer,) = await ranks.apply([PIN_A])
    assert (answer.status, answer.reason) == (KvStatus.REJECTED, "passthrough")
    assert await ranks.sessions(SessionsQuery()) == []
    assert (await ranks.headroom({})).ranks == ()
    capabilities = await ranks.capabilities()
    assert (capabilities.passthrough, capabilities.ops) == (reason, ())


async def test_other_failures_are_not_taken_for_a_stock_engine() -> None:
    class Broken:
        async def call_utility_async(self, method: str, *args: object) -> object:
            raise Exception("Call to mars_rpc method failed: out of luck")

    ranks = EngineRanks(engine_client(Broken()))
    for _ in range(2):
        with pytest.raises(EngineUnreachable, match="with an error"):
            await ranks.apply([PIN_A])


async def test_an_engine_that_never_answers() -> None:
    class Mute:
        async def call_utility_async(self, method: str, *args: object) -> object:
            await asyncio.Event().wait()
            raise AssertionError

    ranks = EngineRanks(engine_client(Mute()), rpc_timeout_s=0.01)
    with pytest.raises(EngineUnreachable, match="not answered within"):
        await ranks.sessions(SessionsQuery())
