"""Sessions and their leases together: turns, and every hint's answer."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from backend_patch.lease_table import LeaseTable
from backend_patch.protocol import KvAnswer, KvOp, KvRequest, KvStatus, LeaseMode
from backend_patch.request_meta import RequestMeta
from backend_patch.retention import Retention
from backend_patch.settings import PatchSettings
from tests.backend_patch.fake_pool import BLOCK_TOKENS, FakePool, sequence

NOW = 100.0


class Engine:
    """A pool of twenty blocks, and turns that run and end."""

    def __init__(self, *, blocks: int = 20, has_host_tier: bool = False, **settings: Any) -> None:
        self.pool = FakePool(blocks, has_host_tier)
        patch = PatchSettings(**settings)
        table = LeaseTable(self.pool, int(patch.max_leased_share * blocks), BLOCK_TOKENS)
        self.kept = Retention(patch, self.pool, table, blocks)

    def turn(
        self, session: str, length: int, *, ttl_s: float = 0.0, branch: str = "", shared: Sequence[Any] = ()
    ) -> None:
        hashes = sequence(session + branch, length, shared)
        record = self.kept.arrived((session, branch), NOW, NOW)
        hit = len(self.pool.cached(hashes)) * BLOCK_TOKENS
        blocks = self.pool.run(hashes)
        self.kept.scheduled(record, hashes, hit)
        self.kept.sessions.learn(record, hashes, length * BLOCK_TOKENS)
        self.kept.sessions.ended(record, NOW)
        self.kept.pin(record, blocks, RequestMeta(session, branch, ttl_s), NOW)
        self.pool.end(blocks)

    def hint(self, op: KvOp, session: str = "a", **more: Any) -> KvAnswer:
        return self.kept.apply(KvRequest(op, session, **more), NOW)

    @property
    def free(self) -> int:
        return len(self.pool.free)


def accepted(op: KvOp, blocks: int = 0) -> KvAnswer:
    return KvAnswer(KvStatus.ACCEPTED, "a", op, blocks, blocks * BLOCK_TOKENS)


def test_a_turn_that_asks_for_a_lease_gets_one() -> None:
    """The next one ends it."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    assert engine.free == 15
    engine.turn("a", 7)
    assert engine.free == 20
    (ending,) = engine.kept.leases.endings.after(0)
    assert (ending.tokens, ending.hit_tokens) == (80, 80)


def test_longest_lease() -> None:
    """A turn cannot ask for more."""
    engine = Engine(max_ttl_s=5.0)
    engine.turn("a", 5, ttl_s=1000)
    assert engine.kept.leases.next_expiry_s == NOW + 5


@pytest.mark.parametrize("op", [KvOp.RELEASE, KvOp.RECYCLE, KvOp.EVICT, KvOp.END, KvOp.PIN])
def test_strangers_are_missing(op: KvOp) -> None:
    """And so is a branch that never was."""
    engine = Engine()
    engine.turn("a", 5)
    assert engine.hint(op, "b").status is KvStatus.MISSING
    assert engine.hint(op, branch="b").status is KvStatus.MISSING


def test_pin() -> None:
    """Of the branch that ended last; for as long as allowed unless told."""
    engine = Engine(max_ttl_s=60.0)
    engine.turn("a", 5)
    engine.turn("a", 3, branch="helper")
    answer = msgspec.structs.replace(accepted(KvOp.PIN, 3), expires_in_ms=60_000)
    assert engine.hint(KvOp.PIN) == answer
    answer = msgspec.structs.replace(accepted(KvOp.PIN, 5), expires_in_ms=1500)
    assert engine.hint(KvOp.PIN, branch="", ttl_ms=1500, mode=LeaseMode.HARD) == answer
    assert engine.free == 12


def test_pin_in_part() -> None:
    """A shorter time or a shorter prefix is said to be clipped; nothing at all is refused."""
    engine = Engine(max_leased_share=0.2, max_ttl_s=60.0)
    engine.turn("a", 3)
    engine.turn("b", 3)
    engine.turn("c", 3)
    long = engine.hint(KvOp.PIN, ttl_ms=90_000)
    assert (long.status, long.blocks, long.expires_in_ms) == (KvStatus.CLIPPED, 3, 60_000)
    assert (engine.hint(KvOp.PIN, "b").status, engine.hint(KvOp.PIN, "b").blocks) == (KvStatus.CLIPPED, 1)
    assert engine.hint(KvOp.PIN, "c").reason == "budget"


def test_pin_of_what_is_gone() -> None:
    """The session is known, its blocks have been reused."""
    engine = Engine()
    engine.turn("a", 5)
    engine.turn("big", 20)
    assert engine.hint(KvOp.PIN).status is KvStatus.MISSING


def test_leases_switched_off() -> None:
    """Neither with the turn nor later."""
    engine = Engine(leases=False)
    engine.turn("a", 5, ttl_s=10)
    assert (engine.free, engine.hint(KvOp.PIN).reason) == (20, "leases_off")


def test_release() -> None:
    """As many as become free; twice is none."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    assert engine.hint(KvOp.RELEASE) == accepted(KvOp.RELEASE, 5)
    assert engine.hint(KvOp.RELEASE) == accepted(KvOp.RELEASE)


def test_recycle_leaves_shared_ones_alone() -> None:
    """The others are the first to be reused, last one first, and still found until then."""
    engine = Engine()
    prompt = sequence("prompt", 2)
    engine.turn("b", 4, shared=prompt)
    engine.turn("a", 5, ttl_s=10, shared=prompt)
    assert engine.hint(KvOp.RECYCLE) == accepted(KvOp.RECYCLE, 3)
    assert [block.block_hash for block in engine.pool.free[:3]] == ["a2", "a1", "a0"]
    engine.turn("a", 5, shared=prompt)
    assert engine.free == 20


def test_evict_all_branches() -> None:
    """What only they share among themselves goes as well."""
    engine = Engine()
    prompt, common = sequence("prompt", 2), sequence("common", 4, sequence("prompt", 2))
    engine.turn("b", 4, shared=prompt)
    engine.turn("a", 6, ttl_s=10, shared=common)
    engine.turn("a", 7, ttl_s=10, branch="helper", shared=common)
    assert engine.hint(KvOp.EVICT) == accepted(KvOp.EVICT, 2 + 2 + 3)
    assert len(engine.pool.cached(common)) == 2
    assert (engine.free, engine.kept.evicted_total) == (20, 7)


def test_nothing_of_a_live_session_is_dropped() -> None:
    """Its next turn is here already."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    engine.kept.arrived(("a", ""), NOW, NOW)
    for op in (KvOp.RECYCLE, KvOp.EVICT, KvOp.DEMOTE):
        assert engine.hint(op).reason == "running"
    assert engine.free == 15


@pytest.mark.parametrize("has_host_tier", [True, False])
def test_demote(has_host_tier: bool) -> None:
    """Only where another copy is."""
    engine = Engine(has_host_tier=has_host_tier)
    engine.turn("a", 5, ttl_s=10)
    answer = engine.hint(KvOp.DEMOTE)
    assert (answer.blocks, answer.reason) == ((5, None) if has_host_tier else (0, "no_host_tier"))


def test_end() -> None:
    """Forgotten, or when its last turn is over."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    assert engine.hint(KvOp.END) == accepted(KvOp.END, 5)
    assert engine.hint(KvOp.END).status is KvStatus.MISSING
    live = engine.kept.arrived(("a", ""), NOW, NOW)
    assert engine.hint(KvOp.END) == accepted(KvOp.END)
    assert live.is_ending


def test_states() -> None:
    """Of all or of one; what is cached only if asked."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    engine.turn("b", 2)
    engine.kept.arrived(("a", ""), NOW, NOW)
    states = engine.kept.states(None, with_resident=True, now=NOW + 4)
    assert [(each.session, each.leased_blocks, each.resident_blocks) for each in states] == [
        ("b", 0, 2),
        ("a", 5, 5),
    ]
    (state,) = engine.kept.states("a", with_resident=False, now=NOW + 4)
    assert (state.resident_blocks, state.expires_in_ms, state.is_claimed, state.live) == (None, 6000, True, 1)


def test_withdrawn_turn_leaves_the_lease() -> None:
    """An abort of who waited."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    record = engine.kept.arrived(("a", ""), NOW, NOW)
    engine.kept.withdrawn(record)
    assert (record.waiting, engine.kept.leases.claimed_blocks, engine.free) == (0, 0, 15)


def test_reset() -> None:
    """Nothing is held and nothing is known to be cached."""
    engine = Engine()
    engine.turn("a", 5, ttl_s=10)
    engine.kept.reset()
    assert engine.free == 20
    assert engine.hint(KvOp.PIN).status is KvStatus.MISSING
