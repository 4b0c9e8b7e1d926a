"""Workers over real socket pairs: one order, a state for who joins, an end for who goes."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from marsproxy.core.shared_state import MemberJoined, MemberLeft
from marsproxy.workers import record_order
from marsproxy.workers.frames import Frame, FrameSocket, Kind, encode
from marsproxy.workers.journal import WorkerJournal
from marsproxy.workers.record_order import Member, RecordOrder
from tests.marsproxy.workers.replica import RecordingReplica, arrival

HANG_S = 10.0


class Rig:
    """The parent's order and as many workers as a test wants, in one loop."""

    def __init__(self) -> None:
        clock = itertools.count(100)
        self.order = RecordOrder(lambda: float(next(clock)))
        self._numbers = itertools.count(1)
        self.sockets: list[FrameSocket] = []

    async def connect(self, take: Callable[[list[Frame]], None]) -> tuple[FrameSocket, Member]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        link = FrameSocket(lambda frames: self.order.take(member, frames), lambda: self.order.gone(member))
        member = self.order.connected(next(self._numbers), link)
        await loop.create_unix_connection(lambda: link, sock=ours)
        end = FrameSocket(take, lambda: None)
        await loop.create_unix_connection(lambda: end, sock=theirs)
        self.sockets += [link, end]
        return end, member

    async def worker(self) -> "Worker":
        replica = RecordingReplica()
        journal = WorkerJournal(replica, lambda frame: end.send(frame))
        end, member = await self.connect(lambda frames: [journal.take(frame) for frame in frames] and None)
        worker = Worker(replica, journal, end, member)
        async with asyncio.timeout(HANG_S):
            await journal.join()
        return worker

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.002)


class Worker:
    def __init__(
        self, replica: RecordingReplica, journal: WorkerJournal, socket: FrameSocket, member: Member
    ) -> None:
        self.replica, self.journal, self.socket, self.member = replica, journal, socket, member


@asynccontextmanager
async def a_rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    for each in rig.sockets:
        each.abort()
    await asyncio.sleep(0)


async def test_all_apply_the_same_records_in_one_order() -> None:
    """With times that never go back; each worker's own in the order in which it told them."""
    async with a_rig() as rig:
        workers = [await rig.worker() for _ in range(3)]
        for number in range(50):
            for worker in workers:
                worker.journal.append(arrival(f"{worker.journal.member}.{number}", f"{number}"))
        for worker in workers:
            await worker.journal.settle()
        await rig.until(lambda: all(len(worker.replica.turns) == 150 for worker in workers))
        first, *others = (worker.replica for worker in workers)
        for other in others:
            assert other.records == first.records[-len(other.records) :]
        times = [now for _, _, now in first.records]
        assert times == sorted(times)
        for worker in workers:
            own = [turn for turn in first.turns if turn.startswith(worker.journal.member + ".")]
            assert own == [f"{worker.journal.member}.{number}" for number in range(50)]


async def test_settle_waits_for_its_place() -> None:
    """Who appends after it comes after it."""
    async with a_rig() as rig:
        one, other = await rig.worker(), await rig.worker()
        one.journal.append(arrival("one.1"))
        await one.journal.settle()
        other.journal.append(arrival("other.1"))
        await other.journal.settle()
        assert one.replica.turns == ["one.1", "other.1"] == other.replica.turns


async def test_who_joins_has_the_state_of_the_others() -> None:
    """And every record behind it, while others go on telling."""
    async with a_rig() as rig:
        old = await rig.worker()
        for number in range(20):
            old.journal.append(arrival(f"old.{number}", f"before {number}"))
        joining = asyncio.get_running_loop().create_task(rig.worker())
        for number in range(20, 40):
            old.journal.append(arrival(f"old.{number}", f"while {number}"))
            await asyncio.sleep(0)
        new = await joining
        await old.journal.settle()
        await rig.until(lambda: new.replica.records[-1:] == old.replica.records[-1:])
        assert new.replica.adoptions == 1
        assert old.replica.adoptions == 0
        assert [s.id for s in new.replica.state.policy.sessions] == [
            s.id for s in old.replica.state.policy.sessions
        ]
        assert list(new.replica.state.members) == [old.journal.member, new.journal.member]
        assert len(list(new.replica.state.policy.sessions)) == 40


async def test_the_oldest_leads_and_a_death_is_told() -> None:
    """To all that are left; its turns are over."""
    async with a_rig() as rig:
        first, second = await rig.worker(), await rig.worker()
        await rig.until(lambda: len(first.replica.state.members) == 2)
        assert (first.journal.leads, second.journal.leads) == (True, False)
        first.journal.append(arrival(f"{first.journal.member}.1"))
        await first.journal.settle()
        await rig.until(lambda: second.replica.state.policy.open_turns == 1)
        first.socket.abort()
        await rig.until(lambda: second.journal.leads)
        assert second.replica.records[-1][0] == MemberLeft(first.journal.member)
        assert second.replica.state.policy.open_turns == 0


async def test_another_gives_the_state_when_the_first_who_was_asked_dies() -> None:
    async with a_rig() as rig:
        asked: list[Frame] = []
        mute, member = await rig.connect(asked.extend)
        mute.send(Frame(Kind.JOIN))
        await rig.until(lambda: member.has_joined)
        joining = asyncio.get_running_loop().create_task(rig.worker())
        await rig.until(lambda: any(frame.kind is Kind.ASK_STATE for frame in asked))
        mute.abort()
        worker = await joining
        await rig.until(lambda: worker.journal.leads)
        assert worker.replica.adoptions == 0
        assert worker.replica.records[0][0] == MemberJoined(worker.journal.member)


async def test_who_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its records would fill the parent's memory; nothing that it says later counts."""
    monkeypatch.setattr(record_order, "MAX_WAITING_BYTES", 200_000)
    async with a_rig() as rig:
        worker = await rig.worker()
        ours, theirs = socket.socketpair()
        with theirs:
            link = FrameSocket(lambda frames: rig.order.take(member, frames), lambda: None)
            member = rig.order.connected(99, link)
            rig.sockets.append(link)
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
            theirs.sendall(encode(Frame(Kind.JOIN)))
            await rig.until(lambda: member.behind is not None or member.has_joined)
            for number in range(4000):
                worker.journal.append(arrival(f"w.{number}"))
                if number % 100 == 0:
                    await worker.journal.settle()
            await rig.until(lambda: rig.order.joined == 1)
            told = rig.order.records
            rig.order.take(member, [Frame(Kind.APPEND, payload=b"late")])
            assert rig.order.records == told


async def test_settling_and_joining_survive_cancellation() -> None:
    async with a_rig() as rig:
        worker = await rig.worker()
        worker.journal.append(arrival("w.1"))
        settling = asyncio.get_running_loop().create_task(worker.journal.settle())
        await asyncio.sleep(0)
        settling.cancel()
        worker.journal.append(arrival("w.2"))
        await worker.journal.settle()
        assert settling.cancelled()
        assert worker.replica.turns == ["w.1", "w.2"]
