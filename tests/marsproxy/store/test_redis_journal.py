"""Several replicas on a real Redis, and what happens to them when it goes."""

import asyncio
import itertools

from marsproxy.core.shared_state import MemberLeft
from tests.marsproxy.store.redis_process import RedisProcess
from tests.marsproxy.store.replicas import Member, members, observed, until


async def test_two_members_see_one_order(redis: RedisProcess) -> None:
    """Whoever told a record, both apply it at one place and at one time."""
    async with members(redis.url, 2) as (first, second):
        for number in range(200):
            (first if number % 2 else second).journal.append(observed())
            first.arrive(f"a{number}")
            second.arrive(f"b{number}")
            if number % 10 == 0:
                await asyncio.sleep(0)
        await first.journal.settle()
        await second.journal.settle()
        await until(lambda: first.records[-1] == second.records[-1])
        both = min(len(first.records), len(second.records))
        assert first.records[-both:] == second.records[-both:]
        assert both >= 600
        times = [now for _, _, now in first.records]
        assert all(earlier <= later for earlier, later in itertools.pairwise(times))
        own = [each.turn_id for each in first.told if getattr(each, "turn_id", "").startswith("a")]  # type: ignore[union-attr]
        assert own == [f"a{number}" for number in range(200)]


async def test_a_store_that_is_gone_and_comes_back_empty(redis: RedisProcess) -> None:
    """Both go on alone with what they know; the first that comes back founds, the other adopts, and what is
    open is open in both."""
    async with members(redis.url, 2) as both:
        first, second = both
        first.journal.append(observed())
        first.arrive("a1")
        second.arrive("b1")
        await until(lambda: first.forwarded == ["a1"] and second.forwarded == ["b1"])
        redis.kill()
        first.arrive("a2")
        await until(lambda: first.is_alone and second.is_alone)
        await until(lambda: first.forwarded == ["a1", "a2"])
        redis.start()
        await until(lambda: first.is_together and second.is_together)
        await until(lambda: all(each.state.policy.open_turns == 3 for each in both))
        await until(lambda: all(len(each.state.members) == 2 for each in both))
        assert sum(each.status.foundings for each in both) == 2
        assert sum(each.adopted for each in both) == 2
        for turn, member in (("a1", first), ("a2", first), ("b1", second)):
            member.end(turn)
        await until(lambda: all(each.state.policy.open_turns == 0 for each in both))
        assert [each.forwarded for each in both] == [["a1", "a2"], ["b1"]]


async def test_a_member_that_says_nothing_is_given_up_and_joins_anew(redis: RedisProcess) -> None:
    """Its turns are nobody's until it is back; then they are open again."""
    async with members(redis.url, 2) as (first, second):
        second.arrive("b1")
        await until(lambda: first.state.policy.open_turns == 1)
        before = second.journal.member
        second.redis_journal._log._lease_ms = 1  # it does not renew any more
        await until(lambda: second.status.given_up > 0)
        second.redis_journal._log._lease_ms = 1000
        await until(lambda: second.is_together and before not in first.state.members)
        assert second.journal.member != before
        await until(lambda: len(first.state.members) == 2 and len(second.state.members) == 2)
        await until(lambda: first.state.policy.open_turns == 1)
        assert second.status.given_up >= 1


async def test_one_that_leaves_is_gone_at_once(redis: RedisProcess) -> None:
    async with members(redis.url, 1) as (first,):
        other = Member(redis.url)
        async with other.redis_journal.open():
            await until(lambda: len(first.state.members) == 2)
            other.arrive("b1")
            await until(lambda: first.state.policy.open_turns == 1)
        await until(lambda: first.state.policy.open_turns == 0)
        assert MemberLeft(other.journal.member) in first.told
