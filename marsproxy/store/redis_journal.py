"""The journal of a replica that shares its state: records go to a log in Redis and come back in one order.

Theory of operation
-------------------

Three states. **Joining**: what is appended waits. **Together**: four tasks. The sender puts what
waits at the end of the log, one batch at a time; the same call brings back all that came before it, so a
turn has its verdict after one round trip. The reader brings what others append, in gulps. The heart renews
the lease, learns the store's time, and has those given up whose leases are over. The leader writes
checkpoints. **Alone**: the store has not answered for ``patience_s``; records are applied here as they are
appended, ``MemberAlone`` first, and the store is looked for.

All entries go through ``_take``: whoever brings them, each is applied once, in the order of their ids. A
batch whose fate is not known is sent again under its number, which the log takes once. A member that was
given up joins under a new id, with the state of the checkpoint and all that came after it; what waits here
goes along.

Who comes (back) and finds no log founds a new epoch of it, with its own state for all to begin from. So does
who comes back from being alone and finds nobody there: what it has is what was there, and what came since.
Of several, the first is the founder and the others adopt. Times are the log's own, in seconds: nobody's
clock is asked, and where a new log's would be before those of the state that it begins with, they are moved.
"""

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from marsproxy.core.shared_state import Happening, MemberAlone, MemberJoined, MemberLeft, SharedState
from marsproxy.journal import Replica
from marsproxy.store.checkpoint_codec import (
    Unusable,
    compressed,
    decompressed,
    pickled,
    unpickled,
)
from marsproxy.store.company import Company
from marsproxy.store.log import (
    READ_ENTRIES,
    Admission,
    Beat,
    Epoch,
    Fenced,
    Log,
    LogEntry,
    LogLost,
    Raced,
    Seen,
    StoreGone,
    id_order,
)
from marsproxy.store.outbox import Outbox
from marsproxy.store.record_codec import Entry, RecordCodec, Unreadable
from marsproxy.store.status import StoreState, StoreStatus
from marsproxy.tasks import TaskOwner

log = logging.getLogger(__name__)

T = TypeVar("T")

READ_PAUSE_S = 0.02
"""After a read that brought something, so that the next brings more at a time."""
RETRY_S = 0.1
"""Between two attempts to reach a store that refuses, and between two looks for one that was given up, at
first; the latter grows to ``MAX_RETRY_S``."""
MAX_RETRY_S = 1.0
BEATS_PER_LEASE = 4
CHECKPOINT_SHARE = 0.005
"""Of the leader's time that goes into checkpoints, at most."""
MIN_CHECKPOINT_S = 10.0
"""Between two checkpoints, at least."""
MAX_CHECKPOINT_RECORDS = 20_000
"""Records after which the next checkpoint is due whatever it costs: a joiner has to apply them."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    patience_s: float = 2.0
    """For an answer of the store, before going on alone; also for being ready at the start."""
    lease_s: float = 5.0
    """Without a word of a member, before it is given up."""


class RedisJournal:
    """
    Args:
        replica: is given every record.
        open_log: makes the log, from the status to count in and what this process's member ids begin with.
        expected_replicas: share what there is, where the store is away before it could say how many.
    """

    def __init__(
        self,
        replica: Replica,
        open_log: Callable[[StoreStatus, str], Log],
        patience: Patience,
        *,
        expected_replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._replica = replica
        self._patience = patience
        self._company = Company(expected_replicas)
        self._clock = clock
        self.status = StoreStatus(StoreState.JOINING, members=0, is_leader=False)
        self._process = secrets.token_hex(4) + "-"
        self._incarnation = 1
        self.member = f"{self._process}1"
        self._log = open_log(self.status, self._process)
        self._codec = RecordCodec()
        self._outbox = Outbox()
        self._epoch: Epoch | None = None
        """The one that the state is of, or was before being alone."""
        self._position = ""
        """Id of the latest entry that is part of the state."""
        self._batch = 0
        self._ahead_s = wall_clock() - clock()
        """What record times are ahead of our clock."""
        self._latest_s = 0.0
        """Of the latest record."""
        self._gone: frozenset[str] = frozenset()
        """Members without a lease, as of the latest beat."""
        self._checkpoint_due = asyncio.Event()
        self._records_since_checkpoint = 0
        self._changed = asyncio.Event()
        """Set when the state of the store changes."""
        self._is_ending = False
        """No cancellation has to get through for the journal to end."""

    # -- Journal ----------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        match self.status.state:
            case StoreState.TOGETHER:
                live = (each for each in self._replica.state.members if each not in self._gone)
                return next(live, None) == self.member
            case StoreState.ALONE:
                return True
        return False

    def now(self) -> float:
        return max(self._latest_s, self._clock() + self._ahead_s)

    def append(self, happening: Happening) -> None:
        if self.status.state is StoreState.ALONE:
            self._apply(happening, self.member, self.now())
        else:
            self._outbox.put(happening)

    async def settle(self) -> None:
        if self.status.state is StoreState.TOGETHER:
            await self._outbox.settle(self._patience.patience_s)

    # -- life -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Runs the journal. Begins when it has joined, or is alone; leaves the others at the end."""
        tasks = TaskOwner()
        tasks.spawn("journal", self._live())
        try:
            while self.status.state is StoreState.JOINING:
                self._changed.clear()
                await self._changed.wait()
            yield
        finally:
            await self._end(tasks)

    async def _end(self, tasks: TaskOwner) -> None:
        """Bounded. The tasks go first: they would take the end of our own lease for having been given up."""
        try:
            await self.settle()
        finally:
            self._is_ending = True
            await tasks.close()
            await self._say_goodbye()
            await self._log.close()

    async def _say_goodbye(self) -> None:
        """So that nobody has to wait for the lease to be over. Not needed."""
        if self.status.state is not StoreState.TOGETHER or self._epoch is None:
            return
        entry = self._codec.encode(self.member, 0, [MemberLeft(self.member)])
        with contextlib.suppress(StoreGone, Fenced, LogLost, TimeoutError):
            async with asyncio.timeout(self._patience.patience_s):
                await self._log.leave(self._epoch, self.member, entry)

    async def _live(self) -> None:
        """Ends by cancellation or by ``_is_ending``: a TaskGroup whose tasks fail just as it is cancelled,
        and a client of Redis whose answer comes just then, keep the cancellation to themselves."""
        since_s, retry_s = self._clock(), RETRY_S
        while not self._must_end():
            try:
                await self._join()
            except (StoreGone, Raced, Fenced, LogLost, Unusable) as error:
                log.debug("store: not joined: %s", error or type(error).__name__)
                is_late = self._clock() - since_s >= self._patience.patience_s
                if is_late and self.status.state is StoreState.JOINING:
                    self._stand_alone()
                await asyncio.sleep(retry_s)
                retry_s = min(MAX_RETRY_S, retry_s * 2)
                continue
            if self._must_end():  # told so while joining
                return
            try:
                await self._be_together()
            except Exception:
                log.exception("store: an error of our own; joining anew")
                self._outbox.take_back()
                self._enter(StoreState.JOINING)
            since_s, retry_s = self._clock(), RETRY_S

    def _must_end(self) -> bool:
        return self._is_ending

    # -- joining ----------------------------------------------------------------------------------

    async def _join(self) -> None:
        """
        Raises:
            StoreGone: or what it says is not yet of use.
            Raced: somebody else was faster.
        """
        async with self._in_time():
            seen = await self._log.look()
        if self._is_founder(seen):
            await self._found(seen.epoch)
        else:
            assert seen.epoch is not None
            await self._adopt(seen.epoch)

    def _is_founder(self, seen: Seen) -> bool:
        """Whether our state is what there is to go on from: no other log, or nobody at it that we left."""
        if seen.epoch is None or not seen.has_log:
            return True
        is_descendant = self._epoch is not None and self._epoch.id == seen.epoch.id
        return is_descendant and seen.others == 0 and self.status.state is StoreState.ALONE

    async def _found(self, instead_of: Epoch | None) -> None:
        """What happens meanwhile waits, for it would be missing in the state that is written down."""
        was = self.status.state
        self._enter(StoreState.JOINING)
        others = [each for each in self._replica.state.members if each != self.member]
        happenings: list[Happening] = [MemberJoined(self.member), *map(MemberLeft, others)]
        try:
            async with self._in_time():
                epoch, position = await self._log.found(
                    instead_of,
                    secrets.token_hex(6),
                    self.member,
                    now_s=self._latest_s,
                    state=compressed(pickled(self._replica.state)),
                    blank=self._codec.encode(self.member, 0, ()),
                    first=self._codec.encode(self.member, 0, happenings),
                )
        except (StoreGone, Raced, Unusable):
            if was is StoreState.ALONE:
                self._go_on_alone()
            raise
        self._belong(epoch, position)
        self.status.foundings += 1
        self._take(await self._catch_up(position))
        self._enter(StoreState.TOGETHER)

    async def _adopt(self, epoch: Epoch) -> None:
        self._incarnation += 1
        member, old = f"{self._process}{self._incarnation}", self.member
        async with self._in_time():
            entry = self._codec.encode(member, 0, [MemberJoined(member)])
            admission = await self._log.join(epoch, member, entry)
        if admission is None:
            raise StoreGone("no checkpoint yet")
        state, position = await self._restored(epoch, member, admission)
        self.member = member
        self._belong(epoch, position)
        self._enter(StoreState.TOGETHER)
        self.status.adoptions += 1
        self._outbox.take_back()
        # Turns first, as they stand; then what is not told yet; what is left of the old member is nobody's.
        self._outbox.put_first(lambda: self._replica.adopt(state, self._latest_s))
        self._outbox.put(MemberLeft(old))

    async def _restored(self, epoch: Epoch, member: str, admission: Admission) -> tuple[SharedState, str]:
        """The state of the checkpoint, and what came after it up to our joining."""
        try:
            state = unpickled(await asyncio.to_thread(decompressed, admission.state))
        except Unusable as error:
            raise StoreGone(f"checkpoint: {error}") from error
        position = admission.position
        while id_order(position) < id_order(admission.joined_at):
            async with self._in_time():
                entries = await self._log.range(epoch, position)
                await self._log.beat(epoch, member, ())
            if not entries:
                raise StoreGone("the log ends before our joining")
            for entry in entries:
                if id_order(entry.id) <= id_order(admission.joined_at):
                    self._replay(state, epoch, entry)
                    position = entry.id
        return state, position

    def _replay(self, state: SharedState, epoch: Epoch, entry: LogEntry) -> None:
        decoded, at_s = self._decoded(entry), (entry.ms + epoch.offset_ms) / 1000
        self._latest_s = at_s
        if decoded is None:
            return
        for happening in decoded.happenings:
            try:
                state.apply(happening, decoded.member, at_s)
            except Exception:  # noqa: BLE001 - counted and logged
                self._failed(happening)

    def _belong(self, epoch: Epoch, position: str) -> None:
        self._epoch, self._position, self._batch = epoch, position, 0
        self._gone = frozenset()
        self._latest_s = (id_order(position)[0] + epoch.offset_ms) / 1000
        self._ahead_s = self._latest_s - self._clock()
        self._records_since_checkpoint = 0

    async def _catch_up(self, position: str) -> list[LogEntry]:
        assert self._epoch is not None
        async with self._in_time():
            return await self._log.range(self._epoch, position)

    # -- alone ------------------------------------------------------------------------------------

    def _stand_alone(self) -> None:
        log.warning("store: no answer; going on alone")
        self.status.separations += 1
        now = self.now()
        if self.member not in self._replica.state.members:
            self._apply(MemberJoined(self.member), self.member, now)
        if self._epoch is not None:
            self._company.met()
        replicas = self._company.lose(len(self._replica.state.members), self._clock())
        self._apply(MemberAlone(self.member, replicas), self.member, now)
        self._go_on_alone()

    def _go_on_alone(self) -> None:
        """With what was waiting, in its order; who appends in between comes after it."""
        for happening in self._outbox.drain():
            self._apply(happening, self.member, self.now())
        self._enter(StoreState.ALONE)

    def _enter(self, state: StoreState) -> None:
        if state is not self.status.state:
            log.info("store: %s, as member %s", state.value, self.member)
        self.status.state = state
        self._changed.set()

    # -- together ---------------------------------------------------------------------------------

    async def _be_together(self) -> None:
        """Until the store is gone, or we are given up."""
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self._send, self._read, self._beat, self._write_checkpoints):
                    group.create_task(part())
        except* (Fenced, LogLost):
            self._outbox.take_back()
            if self.status.state is StoreState.TOGETHER and not self._is_ending:
                log.warning("store: member %s was given up, or the log is lost; joining anew", self.member)
                self.status.given_up += 1
                self._enter(StoreState.JOINING)
        except* StoreGone:
            if self.status.state is StoreState.TOGETHER and not self._is_ending:
                self._stand_alone()

    async def _send(self) -> None:
        while True:
            happenings = await self._outbox.batch()
            if happenings:
                self._batch += 1
                payload = self._codec.encode(self.member, self._batch, happenings)
                await self._place(payload)

    async def _place(self, payload: bytes) -> None:
        batch = self._batch
        assert self._epoch is not None
        entries = await self._insist(
            lambda epoch: self._log.append(epoch, self.member, batch, payload, self._position)
        )
        self._take(entries)
        while len(entries) >= READ_ENTRIES:  # we are far behind, and our own is not among them
            entries = await self._insist(lambda epoch: self._log.range(epoch, self._position))
            self._take(entries)
        self.status.appends += 1

    async def _read(self) -> None:
        while True:
            entries = await self._insist(lambda epoch: self._log.wait(epoch, self._position), is_waiting=True)
            self._take(entries)
            if len(entries) < READ_ENTRIES:
                await asyncio.sleep(READ_PAUSE_S)

    async def _beat(self) -> None:
        while True:
            others = [each for each in self._replica.state.members if each != self.member]
            beat = await self._insist(functools.partial(self._renew, others))
            assert self._epoch is not None
            self._ahead_s = beat.store_s + self._epoch.offset_ms / 1000 - self._clock()
            self._gone = frozenset(beat.gone)
            self.status.members, self.status.is_leader = len(others) + 1 - len(beat.gone), self.leads
            if self.leads:
                for member in beat.gone:
                    log.warning("store: member %s has not been heard of; it is given up", member)
                    self.append(MemberLeft(member))
                if not beat.has_checkpoint:
                    self._checkpoint_due.set()
            await asyncio.sleep(self._patience.lease_s / BEATS_PER_LEASE)

    async def _renew(self, others: list[str], epoch: Epoch) -> Beat:
        return await self._log.beat(epoch, self.member, others)

    async def _write_checkpoints(self) -> None:
        pause_s = MIN_CHECKPOINT_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._checkpoint_due.wait()
            self._checkpoint_due.clear()
            if self.leads and self._records_since_checkpoint:
                took_s = await self._write_checkpoint()
                pause_s = max(MIN_CHECKPOINT_S, took_s / CHECKPOINT_SHARE)

    async def _write_checkpoint(self) -> float:
        began_s, position, self._records_since_checkpoint = self._clock(), self._position, 0
        try:
            content = pickled(self._replica.state)
            packed = await asyncio.to_thread(compressed, content)
        except Unusable as error:
            log.error("store: no checkpoint: %s", error)
            return self._clock() - began_s
        took_s = self._clock() - began_s
        await self._insist(lambda epoch: self._log.checkpoint(epoch, self.member, position, packed))
        self.status.checkpoint_bytes, self.status.checkpoint_s = len(packed), took_s
        return took_s

    # -- records ----------------------------------------------------------------------------------

    def _take(self, entries: list[LogEntry]) -> None:
        """Apply those that are not applied yet; the sender and the reader may bring the same."""
        assert self._epoch is not None
        for entry in entries:
            if id_order(entry.id) <= id_order(self._position):
                continue
            self._position = entry.id
            at_s = (entry.ms + self._epoch.offset_ms) / 1000
            decoded = self._decoded(entry)
            if decoded is None:
                continue
            if decoded.member != self.member:
                self.status.lag_s = max(0.0, self._clock() + self._ahead_s - at_s)
            for happening in decoded.happenings:
                self._apply(happening, decoded.member, at_s)
            if (decoded.member, decoded.batch) == (self.member, self._batch):
                self._outbox.placed()
        if self._records_since_checkpoint >= MAX_CHECKPOINT_RECORDS:
            self._checkpoint_due.set()

    def _apply(self, happening: Happening, member: str, now: float) -> None:
        self._latest_s = now
        self._records_since_checkpoint += 1
        self.status.records += 1
        try:
            self._replica.applied(happening, member, now)
        except Exception:  # noqa: BLE001 - counted and logged
            self._failed(happening)

    def _decoded(self, entry: LogEntry) -> Entry | None:
        try:
            return self._codec.decode(entry.payload)
        except Unreadable as error:
            self.status.failed_records += 1
            log.error("store: an entry of the log cannot be read: %s", error)
            return None

    def _failed(self, happening: Happening) -> None:
        """An error of ours, which all replicas make alike; the records after it must go on."""
        self.status.failed_records += 1
        log.exception("store: a record could not be applied: %s", type(happening).__name__)

    # -- time limits ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience.patience_s):
                yield
        except TimeoutError as error:
            raise StoreGone("no answer in time") from error

    async def _insist(self, call: Callable[[Epoch], Awaitable[T]], *, is_waiting: bool = False) -> T:
        """Try for as long as patience lasts, which a call that waits for news has for each try.

        Raises:
            StoreGone: it did not.
        """
        assert self._epoch is not None
        began_s = None if is_waiting else self._clock()
        while True:
            try:
                if is_waiting:
                    answer = await call(self._epoch)
                else:
                    async with self._in_time():
                        answer = await call(self._epoch)
                _stop_if_cancelled()
                return answer
            except StoreGone:
                _stop_if_cancelled()
                began_s = self._clock() if began_s is None else began_s
                if self._clock() - began_s >= self._patience.patience_s:
                    raise
            await asyncio.sleep(RETRY_S)


def _stop_if_cancelled() -> None:
    """A client of Redis that is cancelled just as its answer comes may keep the cancellation to itself
    (seen with redis-py 8.1), and whoever loops would never end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
