"""Who keeps KV and who may take it: playbooks on a pool of ten blocks of four tokens, and properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.engine.chains import ChainStore
from loadgen.engine.leases import Ending, How
from loadgen.engine.requests import EngineRequest, Phase
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from marsproxy.core.commands import KvLease, YieldsTo

BLOCK = 4
MAX_TTL_S = 300.0
LIMITS = SchedulerLimits(kv_blocks=10, block_tokens=BLOCK, max_batched_tokens=64)


class Engine:
    """A scheduler over chains that finishes requests one after the other."""

    def __init__(
        self, limits: SchedulerLimits = LIMITS, host_blocks: int = 0, max_leased_share: float = 1.0
    ) -> None:
        self.store = ChainStore(
            limits.kv_blocks,
            limits.block_tokens,
            host_blocks=host_blocks,
            max_leased_share=max_leased_share,
            max_ttl_s=MAX_TTL_S,
        )
        self.scheduler = Scheduler(limits, self.store)

    def add(
        self, chain: str, prompt: int, output: int = 1, *, new: bool = False, lease: KvLease | None = None
    ) -> EngineRequest:
        request = EngineRequest(
            f"{chain}/{prompt}", prompt, output, chain=chain, may_break_leases=not new, lease=lease
        )
        self.scheduler.add(request)
        return request

    def step(self, now: float = 0.0) -> dict[str, int]:
        batch = self.scheduler.schedule(now)
        self.scheduler.complete(batch, now)
        return {each.request_id: tokens for each, tokens in batch.scheduled.items()}

    def reclaimed(self) -> list[tuple[str, int]]:
        endings = self.store.take_endings()
        return [(each.chain, each.blocks * BLOCK) for each in endings if each.how is How.RECLAIMED]

    def finished(
        self, chain: str, prompt: int, output: int = 1, *, lease: KvLease | None = None, now: float = 0.0
    ) -> EngineRequest:
        request = self.add(chain, prompt, output, lease=lease)
        while not request.is_over:
            self.step(now)
        return request

    def kept(
        self,
        chain: str,
        blocks: int,
        yields_to: YieldsTo = YieldsTo.RETURNING,
        *,
        ttl_s: float | None = None,
        now: float = 0.0,
    ) -> int:
        """A chain of that many blocks, finished and kept."""
        self.finished(chain, blocks * BLOCK)
        return self.store.keep(chain, ttl_s, yields_to, now)


def test_kept_blocks_outlive_those_that_were_used_later() -> None:
    engine = Engine()
    assert engine.kept("kept", 3) == 12
    engine.finished("loose", 12)
    engine.finished("other", 28)

    assert engine.store.resident_tokens("kept") == 12
    assert engine.store.resident_tokens("loose") == 0
    assert engine.finished("kept", 20).cached_tokens == 12


def test_without_a_lease_they_would_be_gone() -> None:
    engine = Engine()
    engine.finished("kept", 12)
    engine.finished("loose", 12)
    engine.finished("other", 28)
    assert engine.finished("kept", 20).cached_tokens == 0


def test_leased_blocks_are_neither_free_nor_used() -> None:
    engine = Engine()
    engine.kept("a", 3)
    assert (engine.store.free_blocks, engine.store.used_blocks, engine.store.leased_tokens) == (7, 0, 12)
    assert engine.scheduler.kv_used_ratio == 0.0


def test_a_lease_ends_with_the_next_request_of_its_chain() -> None:
    engine = Engine()
    engine.kept("a", 3)
    engine.add("a", 16, 4)
    engine.step()
    assert (engine.store.leased_tokens, engine.store.used_blocks) == (0, 4)


def test_a_lease_ends_at_its_deadline_and_not_before() -> None:
    engine = Engine()
    engine.kept("a", 3, ttl_s=5.0, now=10.0)
    engine.store.expire(14.9)
    assert (engine.store.leased_tokens, engine.store.next_expiry_s) == (12, 15.0)
    engine.store.expire(15.0)
    assert (engine.store.leased_tokens, engine.store.next_expiry_s) == (0, None)
    assert engine.store.resident_tokens("a") == 12


def test_keeping_again_replaces_the_deadline() -> None:
    engine = Engine()
    engine.kept("a", 3, ttl_s=5.0)
    engine.store.keep("a", None, YieldsTo.NOBODY, 1.0)
    engine.store.expire(100.0)
    assert (engine.store.leased_tokens, engine.store.next_expiry_s) == (12, 301.0)


def test_keep_said_during_the_request_begins_when_it_finishes() -> None:
    engine = Engine()
    engine.add("a", 8, 6)
    engine.step(1.0)
    assert engine.store.keep("a", 5.0, YieldsTo.RETURNING, 1.0) == 0
    while engine.scheduler.has_work:
        engine.step(3.0)
    assert (engine.store.leased_tokens, engine.store.next_expiry_s) == (12, 8.0)


def test_keep_said_during_the_request_dies_with_an_abort() -> None:
    engine = Engine()
    request = engine.add("a", 8, 6)
    engine.step()
    engine.store.keep("a", None, YieldsTo.RETURNING, 0.0)
    engine.scheduler.abort(request)
    assert engine.store.leased_tokens == 0


# -- asked for with the request ------------------------------------------------------------------


def asks(ttl_s: float = 5.0, yields_to: YieldsTo = YieldsTo.RETURNING) -> KvLease:
    return KvLease(ttl_s, yields_to)


def test_a_lease_asked_for_with_the_request_begins_at_its_end() -> None:
    engine = Engine()
    engine.add("a", 8, 6, lease=asks())
    engine.step(1.0)
    assert engine.store.leased_tokens == 0
    while engine.scheduler.has_work:
        engine.step(3.0)
    assert (engine.store.leased_tokens, engine.store.next_expiry_s) == (12, 8.0)


def test_it_dies_with_an_abort() -> None:
    engine = Engine()
    request = engine.add("a", 8, 6, lease=asks())
    engine.step()
    engine.scheduler.abort(request)
    assert engine.store.leased_tokens == 0


def test_a_hint_in_between_takes_its_place() -> None:
    engine = Engine()
    engine.add("a", 8, 6, lease=asks())
    engine.step()
    engine.store.keep("a", 50.0, YieldsTo.NOBODY, 0.0)
    while engine.scheduler.has_work:
        engine.step(3.0)
    assert engine.store.next_expiry_s == 53.0


def test_a_hint_at_its_end_ends_it() -> None:
    engine = Engine()
    engine.finished("a", 12, lease=asks())
    engine.store.demote("a")
    assert engine.store.leased_tokens == 0
    engine.finished("b", 12)
    assert engine.store.take_endings() == [], "who ends it himself need not be told"


def test_what_lies_beyond_the_budget_is_not_kept() -> None:
    engine = Engine(max_leased_share=0.5)
    engine.finished("a", 12, lease=asks())
    engine.finished("b", 12, lease=asks())
    assert engine.store.leased_tokens == 20
    assert engine.store.resident_tokens("b") == 12
    assert engine.store.keep("b", 5.0, YieldsTo.RETURNING, 0.0) == 8, "its own blocks are no new ones"
    engine.finished("c", 8, lease=asks())
    assert engine.store.leased_tokens == 20


def test_blocks_that_a_lease_holds_already_cost_no_budget() -> None:
    engine = Engine(max_leased_share=0.5)
    for name in ("a", "b"):
        request = shared(name, 16)
        request.lease = asks()
        engine.scheduler.add(request)
        engine.step()
    # Two blocks of the prompt, two of a's own, and one is left for b's.
    assert engine.store.leased_tokens == 20


# -- how they end --------------------------------------------------------------------------------


def test_the_next_request_says_how_much_of_its_lease_it_found() -> None:
    engine = Engine()
    engine.finished("a", 12, 2, lease=asks())
    engine.finished("a", 24)
    assert engine.store.take_endings() == [Ending("a", How.RESUMED, 3, 3)]
    assert engine.store.take_endings() == []


def test_a_shorter_history_finds_less() -> None:
    engine = Engine()
    engine.finished("a", 20, lease=asks())
    engine.finished("a", 9)
    assert engine.store.take_endings() == [Ending("a", How.RESUMED, 5, 2)]


def test_a_lease_that_expires_says_so() -> None:
    engine = Engine()
    engine.finished("a", 12, lease=asks())
    engine.step(5.0)
    assert engine.store.take_endings() == [Ending("a", How.EXPIRED, 3)]


def test_what_was_taken_of_a_lease_is_told_before_its_end() -> None:
    engine = Engine()
    engine.finished("a", 20, lease=asks())
    engine.add("runs", 8, 4)
    engine.step()
    engine.add("b", 20, 1)
    engine.step()
    engine.step()
    engine.finished("a", 24)
    assert engine.store.take_endings() == [Ending("a", How.RECLAIMED, 3), Ending("a", How.RESUMED, 2, 2)]


# -- claims --------------------------------------------------------------------------------------


def full_engine() -> Engine:
    """``runs`` has seven blocks and no end, ``a`` has leased two, and one is free."""
    engine = Engine(SchedulerLimits(10, BLOCK, 64, max_running=2))
    engine.finished("a", 8, lease=asks())
    engine.add("runs", 28, 12)
    engine.step()
    return engine


def test_the_time_of_a_lease_stands_still_while_its_next_request_waits() -> None:
    engine = full_engine()
    engine.add("first", 20, new=True)  # does not fit, and nobody goes past it
    request = engine.add("a", 12, 1)
    engine.step(20.0)
    assert (engine.store.leased_tokens, engine.store.next_expiry_s) == (8, None)
    engine.scheduler.abort(request)
    assert engine.store.next_expiry_s == 5.0
    engine.step(21.0)
    assert engine.store.take_endings() == [Ending("a", How.EXPIRED, 2)]


def test_a_lease_of_one_whose_request_waits_is_claimed_from_the_start() -> None:
    engine = full_engine()
    engine.add("first", 20, new=True)
    engine.add("a", 12, 1)
    assert engine.store.keep("a", 1.0, YieldsTo.RETURNING, 0.0) == 8
    engine.step(20.0)
    assert engine.store.leased_tokens == 8


def test_claimed_ones_give_way_after_those_whose_session_is_not_here() -> None:
    engine = Engine(SchedulerLimits(12, BLOCK, 64, policy="priority"))
    engine.kept("claimed", 3)
    engine.kept("away", 3)
    engine.add("runs", 16, 8)
    engine.step()
    waits = engine.add("claimed", 40, 1)
    waits.priority = 1
    engine.add("takes", 12, 1)
    engine.step()
    assert engine.reclaimed() == [("away", 8)]


def test_release_makes_them_idle_as_if_just_freed() -> None:
    engine = Engine()
    engine.kept("a", 3)
    engine.finished("b", 12)
    engine.store.release("a")
    engine.finished("c", 24)
    assert (engine.store.resident_tokens("a"), engine.store.resident_tokens("b")) == (12, 4)


def test_demoted_blocks_go_first_the_last_of_them_before_the_others() -> None:
    engine = Engine()
    engine.finished("a", 12)
    engine.kept("b", 4)
    engine.store.demote("b")
    engine.finished("c", 20)
    assert (engine.store.resident_tokens("a"), engine.store.resident_tokens("b")) == (12, 8)


# -- who may take it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yields_to", "new", "starts"),
    [
        (YieldsTo.ANYBODY, True, True),
        (YieldsTo.ANYBODY, False, True),
        (YieldsTo.RETURNING, True, False),
        (YieldsTo.RETURNING, False, True),
        (YieldsTo.NOBODY, True, False),
        (YieldsTo.NOBODY, False, False),
    ],
)
def test_the_head_of_the_queue_takes_only_what_yields_to_it(
    yields_to: YieldsTo, new: bool, starts: bool
) -> None:
    engine = Engine()
    engine.kept("kept", 5, yields_to)
    engine.add("runs", 8, 4)
    engine.step()
    engine.add("waits", 15, 1, new=new)

    assert ("waits/15" in engine.step()) is starts
    assert engine.reclaimed() == ([("kept", 8)] if starts else [])
    assert engine.store.resident_tokens("kept") == (12 if starts else 20)


@pytest.mark.parametrize("yields_to", YieldsTo)
def test_when_nothing_runs_any_lease_gives_way(yields_to: YieldsTo) -> None:
    engine = Engine()
    engine.kept("kept", 8, yields_to)
    engine.add("new", 32, 1, new=True)
    assert engine.step() == {"new/32": 32}
    assert engine.reclaimed() == [("kept", 24)]


def test_those_that_yield_to_anybody_go_first_and_those_that_yield_to_nobody_last() -> None:
    engine = Engine(SchedulerLimits(12, BLOCK, 64))
    engine.kept("hard", 3, YieldsTo.NOBODY)
    engine.kept("soft", 3, YieldsTo.RETURNING)
    engine.kept("open", 3, YieldsTo.ANYBODY)
    engine.add("all", 44, 1)
    engine.step()
    assert engine.reclaimed() == [("open", 12), ("soft", 12), ("hard", 8)]


def test_the_own_lease_never_stands_in_the_way() -> None:
    engine = Engine()
    engine.kept("a", 9, YieldsTo.NOBODY)
    engine.add("runs", 1, 3)
    engine.step()
    engine.add("a", 9, 20)  # the history was cut: only two blocks of the lease are of use

    assert "a/9" in engine.step()


def test_no_lease_is_broken_for_a_request_that_would_not_fit_all_the_same() -> None:
    engine = Engine()
    engine.kept("kept", 3, YieldsTo.ANYBODY)
    engine.add("runs", 20, 4)
    engine.step()
    engine.add("waits", 24, 1)
    engine.step()
    assert engine.store.leased_tokens == 12


def test_the_earliest_kept_gives_way_first() -> None:
    engine = Engine()
    engine.kept("first", 3)
    engine.kept("second", 3)
    engine.store.keep("first", None, YieldsTo.RETURNING, 1.0)  # and is now the later one
    engine.add("runs", 4, 4)
    engine.step()
    engine.add("waits", 20, 1)
    engine.step()
    assert engine.reclaimed() == [("second", 12)]


def test_running_requests_break_leases_before_they_preempt() -> None:
    engine = Engine()
    engine.kept("kept", 2)
    a, b = engine.add("a", 16, 4), engine.add("b", 16, 4)
    engine.step()
    engine.step()
    assert (a.preemptions, b.preemptions) == (0, 0)
    assert engine.reclaimed() == [("kept", 8)]


def test_running_requests_preempt_rather_than_break_what_yields_to_nobody() -> None:
    engine = Engine()
    engine.kept("kept", 2, YieldsTo.NOBODY)
    a, b = engine.add("a", 16, 4), engine.add("b", 16, 4)
    engine.step()
    engine.step()
    assert (b.phase, b.preemptions) == (Phase.WAITING, 1)
    assert engine.store.leased_tokens == 8
    while engine.scheduler.has_work:
        engine.step()
    assert a.generated_tokens == b.generated_tokens == 4


def test_the_only_running_request_breaks_any_lease() -> None:
    engine = Engine()
    engine.kept("kept", 5, YieldsTo.NOBODY)
    only = engine.add("only", 20, 8)
    while not only.is_over:
        engine.step()
    assert (only.preemptions, engine.reclaimed()) == (0, [("kept", 8)])


# -- shared prompts and the host ---------------------------------------------------------------


def shared(chain: str, prompt: int) -> EngineRequest:
    return EngineRequest(chain, prompt, 1, chain=chain, shared_chain="system", shared_tokens=8)


def test_a_lease_keeps_the_shared_prompt_that_it_stands_on() -> None:
    engine = Engine()
    for request in (shared("a", 16), shared("b", 16)):
        engine.scheduler.add(request)
        engine.step()
    assert engine.store.keep("a", None, YieldsTo.RETURNING, 0.0) == 16
    assert engine.store.keep("b", None, YieldsTo.RETURNING, 0.0) == 16
    assert engine.store.leased_tokens == 24, "the prompt counts once"
    engine.store.release("a")
    assert engine.store.leased_tokens == 16
    engine.store.demote("b")
    assert (engine.store.leased_tokens, engine.store.free_blocks) == (0, 10)


def test_reclaiming_spares_the_shared_prompt_that_the_taker_hits() -> None:
    engine = Engine()
    engine.scheduler.add(shared("a", 32))
    engine.step()
    engine.store.keep("a", None, YieldsTo.RETURNING, 0.0)
    request = shared("b", 38)
    engine.scheduler.add(request)
    engine.step()
    assert request.cached_tokens == 8


def test_swapped_out_blocks_are_cached_but_cost_new_blocks_and_a_copy() -> None:
    engine = Engine(host_blocks=10)
    engine.kept("a", 3)
    assert engine.store.swap_out("a") == 12
    assert (engine.store.resident_tokens("a"), engine.store.free_blocks) == (0, 10)
    back = engine.add("a", 20, 1)
    batch = engine.scheduler.schedule(0.0)
    assert (batch.loaded_tokens, back.cached_tokens) == (12, 12)
    assert batch.scheduled == {back: 8}
    assert engine.store.used_blocks == 5


def test_without_a_host_tier_nothing_is_swapped_out() -> None:
    engine = Engine()
    engine.kept("a", 3)
    assert engine.store.swap_out("a") == 0
    assert engine.store.resident_tokens("a") == 12


def test_the_shared_prompt_stays_on_the_accelerator() -> None:
    engine = Engine(host_blocks=10)
    engine.scheduler.add(shared("a", 16))
    engine.step()
    assert engine.store.swap_out("a") == 8
    back = shared("a", 20)
    engine.scheduler.add(back)
    batch = engine.scheduler.schedule(0.0)
    assert (batch.loaded_tokens, back.cached_tokens) == (8, 16)


# -- in any order ------------------------------------------------------------------------------

turns = st.tuples(st.just("turn"), st.integers(0, 4), st.integers(1, 12), st.booleans())
keeps = st.tuples(
    st.just("keep"), st.integers(0, 4), st.sampled_from([None, 1.0, 4.0]), st.sampled_from(YieldsTo)
)
others = st.tuples(st.sampled_from(["release", "demote", "swap_out", "abort"]), st.integers(0, 4))
steps = st.just(("step",))


@given(
    st.lists(st.one_of(turns, keeps, others, steps, steps), max_size=80),
    st.sampled_from(["fcfs", "priority"]),
)
@settings(max_examples=200, deadline=None)
def test_in_any_order_blocks_are_conserved_and_everybody_finishes(script: list[tuple], policy: str) -> None:  # type: ignore[type-arg]
    engine = Engine(SchedulerLimits(12, BLOCK, 20, 4, policy), host_blocks=6)  # type: ignore[arg-type]
    context: dict[int, int] = {}
    requests: list[EngineRequest] = []
    now = 0.0
    for action in script:
        match action:
            case ("turn", chain, tokens, new) if context.get(chain, 0) + tokens + 3 <= 48:
                prompt = context.get(chain, 0) + tokens
                context[chain] = prompt + 3
                request = engine.add(f"c{chain}", prompt, 3, new=new)
                requests.append(request)
            case ("keep", chain, ttl_s, yields_to):
                engine.store.keep(f"c{chain}", ttl_s, yields_to, now)
            case ("abort", chain):
                for request in requests:
                    if request.chain == f"c{chain}":
                        engine.scheduler.abort(request)
            case (kind, chain):
                getattr(engine.store, kind)(f"c{chain}")
            case ("step",):
                now += 0.5
                engine.step(now)
        check(engine)
    for _ in range(500):
        if not engine.scheduler.has_work:
            break
        now += 0.5
        engine.step(now)
        check(engine)
    assert all(request.is_over for request in requests), "a lease may delay, never deadlock"
    for chain in range(5):
        engine.store.release(f"c{chain}")
    assert engine.store.free_blocks == engine.store.total_blocks


def check(engine: Engine) -> None:
    """The pool's counts against what the holders have."""
    store = engine.store
    held = {extent: 0 for request in engine.scheduler.running for extent in request.extents}
    loose = sum(each.held_blocks - each.registered_blocks for each in engine.scheduler.running)
    assert store.used_blocks == sum(extent.blocks for extent in held) + loose
    assert store.free_blocks + store.used_blocks + store.leased_blocks == store.total_blocks
    assert min(store.free_blocks, store.leased_blocks) >= 0
