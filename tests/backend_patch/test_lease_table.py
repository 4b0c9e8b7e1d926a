"""Leases on a small pool: who gives way, how much, and that nothing is lost."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_patch.lease import TO_ALL, TO_CONTINUATION, TO_NEW, Rank
from backend_patch.lease_table import LeaseTable
from backend_patch.protocol import Ending, LeaseEnding, LeaseMode
from tests.backend_patch.fake_pool import BLOCK_TOKENS, FakeBlock, FakePool, sequence
from tests.bench.instructions import instructions_of

SOFT, HARD, OPEN = LeaseMode.SOFT, LeaseMode.HARD, LeaseMode.OPEN


class Leases:
    """A table and its pool, spoken to by session names."""

    def __init__(self, blocks: int = 20, budget: int | None = None) -> None:
        self.pool = FakePool(blocks)
        self.table = LeaseTable(self.pool, blocks if budget is None else budget, BLOCK_TOKENS)

    def keep(
        self,
        name: str,
        length: int,
        mode: LeaseMode = SOFT,
        *,
        until_s: float = 100.0,
        shared: Sequence[Any] = (),
    ) -> int:
        """A turn of that many blocks ends and asks for a lease; how many it got."""
        hashes = sequence(name, length, shared)
        blocks = self.pool.run(hashes)
        lease = self.table.pin((name, ""), blocks, hashes, mode=mode, expires_at_s=until_s)
        self.pool.end(blocks)
        return len(lease.blocks) if lease is not None else 0

    def length(self, name: str) -> int:
        lease = self.table.get((name, ""))
        return len(lease.blocks) if lease is not None else 0

    @property
    def free(self) -> int:
        return len(self.pool.free)

    @property
    def endings(self) -> list[tuple[str, str, int, int | None]]:
        return [(each.session, each.how.value, each.tokens, each.hit_tokens) for each in self.ended()]

    def ended(self) -> tuple[LeaseEnding, ...]:
        return self.table.endings.after(0)


# -- begin and end ---------------------------------------------------------------------------------


def test_leased_blocks_are_not_free() -> None:
    """A turn's blocks go from its hands into the lease's."""
    leases = Leases(20)
    assert leases.keep("a", 8) == 8
    assert (leases.free, leases.table.blocks) == (12, 8)


def test_released_blocks_are_the_last_to_be_reused() -> None:
    """Tail first among themselves, as after any turn."""
    leases = Leases(5)
    leases.keep("a", 3)
    leases.table.release(("a", ""))
    assert [block.block_hash for block in leases.pool.free] == [None, None, "a2", "a1", "a0"]
    assert leases.endings == []


def test_resumed_lease_says_what_was_hit() -> None:
    """At most what was leased."""
    leases = Leases()
    leases.keep("a", 4)
    leases.keep("b", 4)
    leases.table.resume(("a", ""), 48)
    leases.table.resume(("b", ""), 640)
    leases.table.resume(("nobody", ""), 16)
    assert leases.endings == [("a", "resumed", 64, 48), ("b", "resumed", 64, 64)]


def test_newer_lease_takes_the_place_of_the_older() -> None:
    """One for each branch; nothing is held twice."""
    leases = Leases(20)
    leases.keep("a", 4)
    hashes = sequence("a", 6)
    blocks = leases.pool.run(hashes)
    leases.table.pin(("a", ""), blocks, hashes, mode=HARD, expires_at_s=9)
    leases.pool.end(blocks)
    assert (leases.length("a"), leases.free, len(leases.table)) == (6, 14, 1)
    assert {block.ref_cnt for block in blocks} == {1}


def test_budget_clips_to_a_prefix() -> None:
    """And refuses when nothing fits."""
    leases = Leases(20, budget=10)
    assert leases.keep("a", 8) == 8
    assert leases.keep("b", 8) == 2
    assert leases.keep("c", 8) == 0
    table = leases.table
    assert [block.block_hash for block in table.get(("b", "")).blocks] == ["b0", "b1"]  # type: ignore[union-attr, attr-defined]
    assert (table.pinned_total, table.clipped_total, table.rejected_total, table.blocks) == (2, 1, 1, 10)


def test_budget_counts_shared_blocks_once() -> None:
    """A system prompt of three blocks costs three, however many sessions."""
    leases = Leases(20, budget=7)
    prompt = sequence("prompt", 3)
    assert [leases.keep(name, 5, shared=prompt) for name in "abc"] == [5, 5, 3]
    assert leases.table.blocks == 7


# -- deadlines and claims --------------------------------------------------------------------------


def test_leases_expire_in_order_of_their_deadlines() -> None:
    """At the deadline, not before."""
    leases = Leases()
    leases.keep("late", 2, until_s=20)
    leases.keep("soon", 3, until_s=10)
    assert leases.table.next_expiry_s == 10
    leases.table.expire(9.9)
    assert leases.endings == []
    leases.table.expire(20)
    assert leases.endings == [("soon", "expired", 48, None), ("late", "expired", 32, None)]
    assert leases.table.next_expiry_s is None


def test_claimed_lease_does_not_expire() -> None:
    """Its session is back and waits; gone again, the old deadline counts."""
    leases = Leases()
    leases.keep("a", 2, until_s=10)
    leases.table.claim(("a", ""))
    assert leases.table.claimed_blocks == 2
    assert leases.table.next_expiry_s is None
    leases.table.expire(50)
    assert leases.length("a") == 2
    leases.table.unclaim(("a", ""))
    assert leases.table.claimed_blocks == 0
    leases.table.expire(50)
    assert leases.endings == [("a", "expired", 32, None)]


def test_two_claims_are_taken_back_one_by_one() -> None:
    """Two requests of one branch may wait."""
    leases = Leases()
    leases.keep("a", 2, until_s=10)
    for change in ("claim", "claim", "unclaim"):
        getattr(leases.table, change)(("a", ""))
    leases.table.expire(50)
    assert leases.length("a") == 2


def test_deadlines_of_ended_leases_do_not_pile_up() -> None:
    """A session that renews its lease for hours keeps a heap of bounded size."""
    leases = Leases(4)
    for _ in range(1000):
        leases.keep("a", 2, until_s=1e9)
    assert len(leases.table._deadlines) < 100


# -- giving way ------------------------------------------------------------------------------------


def test_order_of_giving_way() -> None:
    """Open, soft, claimed, hard; within each who has been away for longest; tail first."""
    leases = Leases(24)
    for name, mode in (("hard", HARD), ("claimed", SOFT), ("old", SOFT), ("young", SOFT), ("open", OPEN)):
        leases.keep(name, 4, mode)
    leases.table.claim(("claimed", ""))
    taken = []
    for _ in range(5):
        before = {name: leases.length(name) for name in ("open", "old", "young", "claimed", "hard")}
        assert leases.table.reclaim(3, TO_ALL) == 3
        taken.append([name for name, length in before.items() if leases.length(name) < length])
    assert taken == [["open"], ["open", "old"], ["old", "young"], ["young"], ["claimed"]]
    assert [block.block_hash for block in leases.table.get(("claimed", "")).blocks] == ["claimed0"]  # type: ignore[union-attr, attr-defined]


def test_unclaimed_lease_goes_back_to_its_place() -> None:
    """By when it began, not by when its claim ended."""
    leases = Leases()
    for name in ("old", "young"):
        leases.keep(name, 4)
    leases.table.claim(("old", ""))
    leases.table.unclaim(("old", ""))
    leases.table.reclaim(1, TO_ALL)
    assert leases.length("old") == 3


@pytest.mark.parametrize(
    ("ranks", "freed"), [(TO_NEW, 0), (TO_CONTINUATION, 8), (TO_ALL, 12), ((Rank.OPEN,), 0)]
)
def test_who_may_take_what(ranks: Sequence[Rank], freed: int) -> None:
    """What is protected stays whole."""
    leases = Leases(12)
    leases.keep("soft", 4)
    leases.keep("claimed", 4)
    leases.table.claim(("claimed", ""))
    leases.keep("hard", 4, HARD)
    assert leases.table.reclaim(12, ranks, even_less=True) == freed


def test_nothing_is_taken_where_it_would_not_be_enough() -> None:
    """Blocks taken for nothing would be the worst of both."""
    leases = Leases(12)
    leases.keep("a", 4)
    leases.keep("hard", 4, HARD)
    assert leases.table.reclaim(5, TO_CONTINUATION) == 0
    assert not leases.table.may_suffice(5, TO_CONTINUATION)
    assert (leases.length("a"), leases.endings) == (4, [])


def test_one_ending_for_what_is_taken_bit_by_bit() -> None:
    """Before the one that ends the lease."""
    leases = Leases()
    leases.keep("a", 6)
    for _ in range(4):
        leases.table.reclaim(1, TO_ALL)
    leases.table.resume(("a", ""), 99)
    assert leases.endings == [("a", "reclaimed", 64, None), ("a", "resumed", 32, 32)]


def test_lease_that_is_used_up_is_over() -> None:
    """With its last block."""
    leases = Leases()
    leases.keep("a", 2)
    leases.table.reclaim(2, TO_ALL)
    assert (len(leases.table), leases.free) == (0, 20)
    leases.table.resume(("a", ""), 1)
    assert leases.endings == [("a", "reclaimed", 32, None)]


def test_blocks_that_requests_use_are_not_taken() -> None:
    """They would not become free: the other leases give way instead."""
    leases = Leases(20)
    leases.keep("a", 4)
    leases.keep("b", 4)
    leases.pool.run(sequence("a", 4))
    assert leases.table.reclaim(4, TO_ALL) == 4
    assert (leases.length("a"), leases.length("b")) == (4, 0)


def test_shared_blocks_become_free_with_the_last_lease() -> None:
    """Each lease is cut to the same depth, and no further than is needed."""
    leases = Leases(20)
    prompt = sequence("prompt", 3)
    leases.keep("a", 5, shared=prompt)
    leases.keep("b", 5, shared=prompt)
    assert leases.table.reclaim(5, TO_ALL) == 5
    assert (leases.length("a"), leases.length("b"), leases.free) == (2, 2, 18)


def test_lease_is_not_cut_for_nothing() -> None:
    """A hard lease shares the prompt, so a continuation gains nothing by cutting into it."""
    leases = Leases(20)
    prompt = sequence("prompt", 3)
    leases.keep("a", 5, shared=prompt)
    leases.keep("h", 5, HARD, shared=prompt)
    leases.keep("c", 5)
    assert leases.table.reclaim(4, TO_CONTINUATION) == 4
    assert (leases.length("a"), leases.length("h"), leases.length("c")) == (3, 5, 3)


def test_own_lease_gives_way_first_but_not_what_is_wanted() -> None:
    """A continuation that went another way after four blocks: its old tail is of no use to it."""
    leases = Leases(20)
    leases.keep("other", 6)
    leases.keep("own", 6, HARD)
    own = leases.table.get(("own", ""))
    assert own is not None
    wanted = {block.block_id for block in own.blocks[:4]}
    assert leases.table.reclaim(3, TO_CONTINUATION, own=("own", ""), wanted=wanted) == 3
    assert (leases.length("own"), leases.length("other")) == (4, 5)


def test_shared_with_requests() -> None:
    """Counted once, and only where a request has them."""
    leases = Leases(20)
    prompt = sequence("prompt", 3)
    for name in "ab":
        leases.keep(name, 5, shared=prompt)
    assert leases.table.count_shared() == 0
    leases.pool.run([*prompt, "else"])
    assert leases.table.count_shared() == 3


def test_cost_of_expiry_does_not_grow_with_leases() -> None:
    """A step in which nothing is due looks at one deadline."""

    def cost(count: int) -> int:
        leases = Leases(count)
        for number in range(count):
            leases.keep(f"s{number}", 1)
        return instructions_of(lambda: leases.table.expire(1.0))

    assert cost(500) == cost(5)


# -- properties ------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["keep", "claim", "unclaim", "release", "resume", "reclaim", "expire", "start", "stop", "all"]
        ),
        st.integers(0, 4),
        st.integers(1, 9),
        st.sampled_from(list(LeaseMode)),
    ),
    max_size=40,
)


class Course:
    """Any order of what may happen to leases and requests, checked after each."""

    def __init__(self, budget: int) -> None:
        self.leases = Leases(40, budget)
        self.running: list[list[FakeBlock]] = []
        self.now = 0.0

    def act(self, action: str, number: int, amount: int, mode: LeaseMode) -> None:
        table, name = self.leases.table, f"s{number}"
        key = (name, "")
        self.now += 1
        match action:
            case "keep":
                if self.leases.free >= amount:
                    shared = sequence("prompt", min(3, amount))
                    self.leases.keep(name, amount, mode, until_s=self.now + amount, shared=shared)
            case "reclaim":
                free = self.leases.free
                freed = table.reclaim(amount, TO_ALL[:number])
                assert freed in (0, amount)
                assert self.leases.free == free + freed
            case "expire":
                table.expire(self.now)
            case "start":
                if self.leases.free >= amount:
                    self.running.append(self.leases.pool.run(sequence("prompt", amount)))
            case "stop":
                if self.running:
                    self.leases.pool.end(self.running.pop(number % len(self.running)))
            case "resume":
                table.resume(key, amount * BLOCK_TOKENS)
            case "all":
                table.release_all()
            case _:
                getattr(table, action)(key)

    def check(self) -> None:
        table, pool = self.leases.table, self.leases.pool
        held = [block for lease in table for block in lease.blocks]
        used = [block for blocks in self.running for block in blocks]
        for block in pool.blocks:
            assert block.ref_cnt == held.count(block) + used.count(block)
        assert {block for block in pool.blocks if not block.ref_cnt} == set(pool.free)
        assert len(pool.free) == len(set(pool.free))
        assert table.blocks == len(set(held)) <= table.budget_blocks
        assert table.count_shared() == len(set(held) & set(used))
        assert table.claimed_blocks == sum(len(lease.blocks) for lease in table if lease.claims)
        for lease in table:
            assert [block.block_hash for block in lease.blocks] == list(lease.hashes[: len(lease.blocks)])
            assert lease.blocks
        deadlines = [lease.expires_at_s for lease in table if not lease.claims]
        assert table.next_expiry_s == min(deadlines, default=None)


@settings(max_examples=150, deadline=None)
@given(ACTIONS, st.integers(0, 40))
def test_nothing_leaks_in_any_order(actions: list[tuple[str, int, int, LeaseMode]], budget: int) -> None:
    """References, free list, budget and claims agree after every action; in the end all blocks are free."""
    course = Course(budget)
    for action in actions:
        course.act(*action)
        course.check()
    course.leases.table.release_all()
    for blocks in course.running:
        course.leases.pool.end(blocks)
    assert course.leases.free == 40


@settings(max_examples=100, deadline=None)
@given(ACTIONS)
def test_lease_ends_once(actions: list[tuple[str, int, int, LeaseMode]]) -> None:
    """No more tokens come back from a session's leases than were leased, and numbers have no gap."""
    course = Course(40)
    leased: dict[str, int] = {}
    for action, number, amount, mode in actions:
        before = course.leases.table.pinned_total
        course.act(action, number, amount, mode)
        if course.leases.table.pinned_total > before:
            name = f"s{number}"
            leased[name] = leased.get(name, 0) + course.leases.length(name) * BLOCK_TOKENS
    ended = course.leases.ended()
    assert [each.seq for each in ended] == list(range(1, len(ended) + 1))
    for name, tokens in leased.items():
        assert sum(each.tokens for each in ended if each.session == name) <= tokens
    finals = (Ending.RESUMED, Ending.EXPIRED)
    assert sum(each.how in finals for each in ended) <= course.leases.table.pinned_total
