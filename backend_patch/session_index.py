"""What the engine has seen of each session: the block hashes of its last turn, its age, its live turns.

Owns the records, their bound and their expiry, and the question how long a prefix a sequence shares with
others. It knows neither leases nor which blocks are still cached.

A block's hash covers all blocks before it, so two sequences that have one hash in common agree up to there.
The index counts by hash how many records have it: along a sequence these counts only fall, and the length
of what is shared with anybody is found by bisection, whatever the number of sessions.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

from backend_patch.ending_log import SessionKey
from backend_patch.holders import Holders


@dataclass(slots=True, eq=False)
class SessionRecord:
    """One branch of a session."""

    key: SessionKey
    session_arrival_s: float
    """Of the session's first request, by the requests' clock."""
    last_seen_s: float
    turns: int = 0
    """That ended well."""
    tokens: int = 0
    """Prompt and answer of the last one."""
    hashes: Sequence[Hashable] = ()
    """Of the last one; empty if forgotten for want of room."""
    live: int = 0
    """Requests waiting or running."""
    waiting: int = 0
    """Of those, never scheduled yet."""
    is_ending: bool = False
    """Told to end while a request was live: ends with that."""


class SessionIndex:
    def __init__(self, max_records: int, expiry_s: float, max_hashes: int) -> None:
        """``max_hashes`` in all records: beyond a few times the number of blocks there is nothing to find
        of the least recent ones, and a hash takes about a hundred bytes."""
        self._max_records = max_records
        self._expiry_s = expiry_s
        self._max_hashes = max_hashes
        self._records: OrderedDict[SessionKey, SessionRecord] = OrderedDict()
        """The least recently seen first."""
        self._sessions: dict[str, dict[str, SessionRecord]] = {}
        """The same by session and branch."""
        self._with_hashes: OrderedDict[SessionKey, SessionRecord] = OrderedDict()
        self._hash_count = 0
        self._holders: Holders[Hashable] = Holders()
        """By hash, the records that have it."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SessionRecord]:
        return iter(list(self._records.values()))

    def get(self, key: SessionKey) -> SessionRecord | None:
        return self._records.get(key)

    def of_session(self, session: str) -> list[SessionRecord]:
        """The one seen last comes last."""
        records = self._sessions.get(session, {}).values()
        return sorted(records, key=lambda record: record.last_seen_s)

    # -- turns -----------------------------------------------------------------------------------

    def arrived(self, key: SessionKey, arrival_s: float, now: float) -> SessionRecord:
        """Of a new request; makes the record, and room for it."""
        self._expire(now)
        record = self._records.get(key) or self._add(key, arrival_s, now)
        record.live += 1
        record.waiting += 1
        self._seen(record, now)
        return record

    def scheduled(self, record: SessionRecord) -> None:
        record.waiting = max(0, record.waiting - 1)

    def ended(self, record: SessionRecord, now: float) -> None:
        record.live = max(0, record.live - 1)
        if record.key in self._records:
            self._seen(record, now)

    def learn(self, record: SessionRecord, hashes: Sequence[Hashable], tokens: int) -> None:
        """A turn ended well with this sequence."""
        record.turns += 1
        record.tokens = tokens
        if self._records.get(record.key) is record:
            self._set_hashes(record, hashes)
            while self._hash_count > self._max_hashes:
                self._set_hashes(next(iter(self._with_hashes.values())), ())

    def forget(self, record: SessionRecord) -> None:
        if self._records.get(record.key) is not record:
            return
        self._set_hashes(record, ())
        del self._records[record.key]
        session, branch = record.key
        del self._sessions[session][branch]
        if not self._sessions[session]:
            del self._sessions[session]

    def forget_hashes(self) -> None:
        """The cache was emptied."""
        for record in list(self._with_hashes.values()):
            self._set_hashes(record, ())

    def _add(self, key: SessionKey, arrival_s: float, now: float) -> SessionRecord:
        while len(self._records) >= self._max_records:
            self.forget(self._least_recent())
        branches = self._sessions.setdefault(key[0], {})
        siblings = (sibling.session_arrival_s for sibling in branches.values())
        record = SessionRecord(key, min(siblings, default=arrival_s), now)
        self._records[key] = branches[key[1]] = record
        return record

    def _least_recent(self) -> SessionRecord:
        """Live ones sit at the end, as they were seen when they arrived; the first may be one all the same
        where all are live, and its turn ends as that of a stranger."""
        return next(iter(self._records.values()))

    def _seen(self, record: SessionRecord, now: float) -> None:
        record.last_seen_s = now
        self._records.move_to_end(record.key)

    def _expire(self, now: float) -> None:
        """Live ones that are older than this stop it until they end, which moves them."""
        while self._records:
            record = self._least_recent()
            if record.live or record.last_seen_s + self._expiry_s > now:
                return
            self.forget(record)

    # -- shared prefixes -------------------------------------------------------------------------

    def shared_hashes(self, record: SessionRecord, but: Collection[SessionRecord]) -> int:
        """Length of the longest prefix that a record other than ``but`` has as well."""
        ours = [each for each in {*but, record} if each.hashes]

        def is_exclusive(index: int) -> bool:
            wanted = record.hashes[index]
            known = sum(index < len(each.hashes) and each.hashes[index] == wanted for each in ours)
            return self._holders.of(wanted) <= known

        return bisect_left(range(len(record.hashes)), True, key=is_exclusive)

    def _set_hashes(self, record: SessionRecord, hashes: Sequence[Hashable]) -> None:
        common = common_prefix(record.hashes, hashes)
        self._holders.remove(record.hashes[common:])
        self._holders.add(hashes[common:])
        self._hash_count += len(hashes) - len(record.hashes)
        record.hashes = hashes
        self._with_hashes.pop(record.key, None)
        if hashes:
            self._with_hashes[record.key] = record


def common_prefix(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """How many hashes two sequences have in common, by bisection."""
    length = min(len(one), len(other))
    return bisect_left(range(length), True, key=lambda index: one[index] != other[index])
