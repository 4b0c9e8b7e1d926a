"""Sessions and their leases: what a turn's arrival, start and end do to them, and what hints may do.

Owns the joining of index and leases; the cache itself is behind ``Cache``. No clock and no vLLM: requests are
seen through what they say, times are arguments.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol

from backend_patch.ending_log import SessionKey
from backend_patch.lease import Block, Lease
from backend_patch.lease_table import LeaseTable
from backend_patch.protocol import KvAnswer, KvOp, KvRequest, KvStatus, LeaseMode, SessionState
from backend_patch.request_meta import RequestMeta
from backend_patch.session_index import SessionIndex, SessionRecord, common_prefix
from backend_patch.settings import PatchSettings

HASHES_PER_BLOCK = 4
"""Hashes remembered for each block of the pool: what is not cached any more need not be known."""
MIN_HASHES = 65_536


class Cache(Protocol):
    """vLLM's KV cache manager, as little of it as serves."""

    @property
    def has_host_tier(self) -> bool:
        """Whether a copy in host memory exists of what was computed."""

    @property
    def hash_tokens(self) -> int:
        """Tokens that one hash of a sequence stands for."""

    def cached(self, hashes: Sequence[Hashable]) -> list[Block]:
        """The longest cached prefix, first block first."""

    def blocks_in(self, hashes: int) -> int:
        """How many whole blocks so many hashes stand for."""

    def reuse_first(self, blocks: Sequence[Block]) -> int:
        """Of these, put those without a reference at the front of the free queue, in this order."""

    def evict(self, blocks: Sequence[Block]) -> int:
        """Of these, drop those without a reference from the cache."""


class Retention:
    def __init__(self, settings: PatchSettings, cache: Cache, table: LeaseTable, blocks: int) -> None:
        self.leases = table
        self.sessions = SessionIndex(
            settings.max_sessions, settings.session_expiry_s, max(MIN_HASHES, HASHES_PER_BLOCK * blocks)
        )
        self.evicted_total = 0
        """Blocks."""
        self._settings = settings
        self._cache = cache

    # -- turns -----------------------------------------------------------------------------------

    def arrived(self, key: SessionKey, arrival_s: float, now: float) -> SessionRecord:
        self.leases.claim(key)
        return self.sessions.arrived(key, arrival_s, now)

    def scheduled(self, record: SessionRecord, hashes: Sequence[Hashable], hit_tokens: int) -> None:
        """For the first time; the lease ends. ``hit_tokens`` is what was cached of the prompt."""
        self.sessions.scheduled(record)
        lease = self.leases.get(record.key)
        if lease is not None:
            common_tokens = common_prefix(lease.hashes, hashes) * self._cache.hash_tokens
            self.leases.resume(record.key, min(hit_tokens, common_tokens))

    def withdrawn(self, record: SessionRecord) -> None:
        """Its turn ended without having been scheduled."""
        self.sessions.scheduled(record)
        self.leases.unclaim(record.key)

    def pin(self, record: SessionRecord, blocks: Sequence[Block], meta: RequestMeta, now: float) -> None:
        """A turn that asked for a lease ends well; its blocks are still its own."""
        ttl_s = min(meta.ttl_s, self._settings.max_ttl_s)
        if self._settings.leases and ttl_s > 0:
            self._pin(record, blocks, meta.mode, now + ttl_s)

    def finish(self, record: SessionRecord) -> int:
        """The session's last turn is over and its blocks are free."""
        moved = self._cache.reuse_first(self._give_up([record]))
        self.sessions.forget(record)
        return moved

    def reset(self) -> None:
        """The cache is about to be emptied."""
        self.leases.release_all()
        self.sessions.forget_hashes()

    def _pin(
        self, record: SessionRecord, blocks: Sequence[Block], mode: LeaseMode, expires_at_s: float
    ) -> Lease | None:
        return self.leases.pin(
            record.key, blocks, record.hashes, mode=mode, expires_at_s=expires_at_s, claims=record.waiting
        )

    # -- hints -----------------------------------------------------------------------------------

    def apply(self, request: KvRequest, now: float) -> KvAnswer:
        self.leases.expire(now)
        records = self._named(request)
        if not records:
            return _answer(request, KvStatus.MISSING)
        match request.op:
            case KvOp.PIN:
                return self._apply_pin(request, records[-1], now)
            case KvOp.RELEASE:
                return self._done(request, self._release(records))
            case KvOp.RECYCLE | KvOp.EVICT | KvOp.DEMOTE:
                return self._apply_to_idle(request, records)
            case KvOp.END:
                return self._done(request, self._end(records))

    def states(self, session: str | None, *, with_resident: bool, now: float) -> list[SessionState]:
        records = list(self.sessions) if session is None else self.sessions.of_session(session)
        return [self._state(record, with_resident, now) for record in records]

    def _named(self, request: KvRequest) -> list[SessionRecord]:
        records = self.sessions.of_session(request.session)
        return [each for each in records if request.branch in (None, each.key[1])]

    def _apply_pin(self, request: KvRequest, record: SessionRecord, now: float) -> KvAnswer:
        if not self._settings.leases:
            return _answer(request, KvStatus.REJECTED, reason="leases_off")
        blocks = self._cache.cached(record.hashes)
        if not blocks:
            return _answer(request, KvStatus.MISSING)
        max_ttl_s = self._settings.max_ttl_s
        wished_s = max_ttl_s if request.ttl_ms is None else request.ttl_ms / 1e3
        ttl_s = min(max(wished_s, 0.0), max_ttl_s)
        lease = self._pin(record, blocks, request.mode, now + ttl_s)
        if lease is None:
            return _answer(request, KvStatus.REJECTED, reason="budget")
        is_whole = len(lease.blocks) == len(blocks) and ttl_s >= wished_s
        return KvAnswer(
            KvStatus.ACCEPTED if is_whole else KvStatus.CLIPPED,
            request.session,
            request.op,
            blocks=len(lease.blocks),
            tokens=self.leases.tokens_of(lease),
            expires_in_ms=round(ttl_s * 1e3),
        )

    def _apply_to_idle(self, request: KvRequest, records: list[SessionRecord]) -> KvAnswer:
        if any(record.live for record in records):
            return _answer(request, KvStatus.REJECTED, reason="running")
        if request.op is KvOp.DEMOTE and not self._cache.has_host_tier:
            return _answer(request, KvStatus.REJECTED, reason="no_host_tier")
        if request.op is KvOp.RECYCLE:
            return self._done(request, self._cache.reuse_first(self._give_up(records)))
        return self._done(request, self._evict(records))

    def _release(self, records: list[SessionRecord]) -> int:
        freed = 0
        for record in records:
            freed += self.leases.count_freeable(record.key)
            self.leases.release(record.key)
        return freed

    def _end(self, records: list[SessionRecord]) -> int:
        """Those with a live turn end with it."""
        idle = [record for record in records if not record.live]
        moved = self._cache.reuse_first(self._give_up(idle))
        for record in records:
            if record.live:
                record.is_ending = True
            else:
                self.sessions.forget(record)
        return moved

    def _evict(self, records: Sequence[SessionRecord]) -> int:
        evicted = self._cache.evict(self._give_up(records))
        self.evicted_total += evicted
        return evicted

    def _give_up(self, records: Sequence[SessionRecord]) -> list[Block]:
        """End their leases; what is cached of them and not shared with sessions that stay, last first."""
        own: dict[int, Block] = {}
        for record in records:
            cached = self._cache.cached(record.hashes)
            kept = self._cache.blocks_in(self.sessions.shared_hashes(record, records))
            own.update((block.block_id, block) for block in reversed(cached[kept:]))
        for record in records:
            self.leases.release(record.key)
        return list(own.values())

    def _done(self, request: KvRequest, blocks: int) -> KvAnswer:
        tokens = self.leases.tokens_in(blocks)
        return KvAnswer(KvStatus.ACCEPTED, request.session, request.op, blocks=blocks, tokens=tokens)

    def _state(self, record: SessionRecord, with_resident: bool, now: float) -> SessionState:
        lease = self.leases.get(record.key)
        return SessionState(
            session=record.key[0],
            branch=record.key[1],
            turns=record.turns,
            tokens=record.tokens,
            live=record.live,
            leased_blocks=len(lease.blocks) if lease else 0,
            resident_blocks=len(self._cache.cached(record.hashes)) if with_resident else None,
            mode=lease.mode if lease else None,
            expires_in_ms=max(0, round((lease.expires_at_s - now) * 1e3)) if lease else None,
            is_claimed=bool(lease and lease.claims),
        )


def _answer(request: KvRequest, status: KvStatus, reason: str | None = None) -> KvAnswer:
    return KvAnswer(status, request.session, request.op, reason=reason)
