"""The patch in vLLM's real scheduler and KV cache manager, in this process, step by step.

Contexts are in blocks of 16 tokens. Time is the test's; nothing is computed.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend_patch.protocol import KvAnswer, KvOp, KvStatus, RankHeadroom
from backend_patch.settings import SettingsError
from tests.bench.instructions import instructions_of
from tests.vllm.scheduler_bench import BLOCK, SchedulerBench, text

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

Make = Callable[..., SchedulerBench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made: list[SchedulerBench] = []

    def build(**options: Any) -> SchedulerBench:
        made.append(SchedulerBench(tmp_path, **options))
        return made[-1]

    yield build
    for bench in made:
        bench.scheduler.shutdown()


def hint(bench: SchedulerBench, op: KvOp, session: str, **more: object) -> KvAnswer:
    import msgspec

    body = json.dumps([{"op": op, "session": session, **more}])
    return msgspec.json.decode(bench.scheduler.mars_rpc("kv", body), type=list[KvAnswer])[0]


def headroom(bench: SchedulerBench) -> RankHeadroom:
    import msgspec

    return msgspec.json.decode(bench.scheduler.mars_rpc("headroom"), type=RankHeadroom)


def turn(bench: SchedulerBench, session: str, blocks: int, turn_number: int = 1, **more: Any) -> None:
    """One turn of a session, to its end: a prompt and an answer that fill so many blocks, and a token."""
    stream = int.from_bytes(session.encode()) % 1000
    ttl_ms = more.pop("mars_ttl_ms", 60_000)
    name = f"{session}{turn_number}"
    bench.add(name, stream, blocks * BLOCK, 2, session=session, mars_ttl_ms=ttl_ms, **more)
    bench.run()


def check_conserved(bench: SchedulerBench) -> None:
    """Every block is free, or in the hands of exactly as many as it says."""
    manager = bench.scheduler.kv_cache_manager
    counts = dict.fromkeys(range(1, len(bench.pool.blocks)), 0)
    for blocks in manager.coordinator.single_type_managers[0].req_to_blocks.values():
        for block in blocks:
            counts[block.block_id] += 1
    for lease in bench.scheduler.mars.leases:
        for block in lease.blocks:
            counts[block.block_id] += 1
    null = bench.pool.null_block
    assert {b.block_id: b.ref_cnt for b in bench.pool.blocks if b is not null} == counts
    free = bench.pool.free_block_queue.get_all_free_blocks()
    assert len(free) == bench.free_blocks == sum(count == 0 for count in counts.values())


# -- a lease's life --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("patched", "hit"), [(True, 40), (False, 0)])
def test_continuation_hits_after_others_filled_the_pool(
    make: Make, patched: bool, hit: int, is_async: bool
) -> None:
    """Forty blocks survive two hundred of other sessions; without the patch none does."""
    bench = make(patched=patched, is_async=is_async)
    turn(bench, "a", 40)
    for number in range(5):
        bench.add(f"filler{number}", 600 + number, 40 * BLOCK, 2)
        bench.run()
    turn(bench, "a", 50, 2, mars_ttl_ms=0)
    assert bench.cached_tokens("a2") == hit * BLOCK
    assert bench.free_blocks == 100


def test_lease_is_handed_over_and_says_so(make: Make) -> None:
    """Leased and hit tokens are what the proxy learns from."""
    bench = make()
    turn(bench, "a", 40)
    check_conserved(bench)
    state = headroom(bench)
    assert (state.free_blocks, state.leased_blocks, state.leases) == (60, 40, 1)
    bench.add("a2", 97, 50 * BLOCK, 2, session="a")
    assert headroom(bench).claimed_blocks == 40
    bench.run()
    check_conserved(bench)
    state = headroom(bench)
    assert [(e.session, e.how, e.tokens, e.hit_tokens) for e in state.endings] == [("a", "resumed", 640, 640)]
    assert (state.free_blocks, state.leases, state.claimed_blocks) == (100, 0, 0)


def test_hit_ends_where_the_history_was_changed(make: Make) -> None:
    """The client dropped what came after the tenth block."""
    bench = make()
    turn(bench, "a", 40)
    bench.add("a2", 5, 30 * BLOCK, 2, session="a", prefix=text(97, 10 * BLOCK))
    bench.run()
    (ending,) = headroom(bench).endings
    assert (ending.tokens, ending.hit_tokens) == (640, 160)


def test_lease_expires_with_the_step_after_its_deadline(make: Make) -> None:
    """The idle engine is told by nobody, so the next step or question applies it."""
    bench = make()
    turn(bench, "a", 10, mars_ttl_ms=500)
    bench.now_s += 1.0
    bench.add("other", 5, 16, 1)
    bench.step()
    (ending,) = headroom(bench).endings
    assert (ending.how, ending.tokens) == ("expired", 160)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_abort_leaves_no_lease(make: Make, is_waiting: bool) -> None:
    """Neither of one that waits nor of one that runs; what was leased before stays."""
    bench = make()
    turn(bench, "a", 10)
    bench.add("b1", 5, 20 * BLOCK, 50, session="b", mars_ttl_ms=60_000)
    bench.add("a2", 97, 20 * BLOCK, 50, session="a", mars_ttl_ms=60_000)
    if not is_waiting:
        bench.step()
    bench.abort("a2")
    bench.abort("b1")
    state = headroom(bench)
    assert state.leases == (1 if is_waiting else 0)
    assert state.claimed_blocks == 0
    check_conserved(bench)


def test_final_turn_is_forgotten_and_reused_first(make: Make) -> None:
    """Its blocks go to the front of the queue, last block first; they are still cached."""
    bench = make()
    turn(bench, "a", 10)
    turn(bench, "other", 10, mars_ttl_ms=0)
    turn(bench, "a", 20, 2, mars_final=1)
    free = bench.pool.free_block_queue.get_all_free_blocks()
    assert [block.block_hash is not None for block in free[:20]] == [True] * 20
    assert json.loads(bench.scheduler.mars_rpc("sessions", '{"session":"a"}')) == []
    assert bench.free_blocks == 100


def test_branches_have_leases_of_their_own(make: Make) -> None:
    """Sub-agents under one session id do not take each other's."""
    bench = make()
    for number, branch in enumerate(("main", "helper")):
        bench.add(branch, 50 + number, 10 * BLOCK, 2, session="a", mars_branch=branch, mars_ttl_ms=60_000)
    bench.run()
    states = json.loads(bench.scheduler.mars_rpc("sessions", '{"with_resident":true}'))
    assert [(s["branch"], s["leased_blocks"], s["resident_blocks"]) for s in states] == [
        ("main", 10, 10),
        ("helper", 10, 10),
    ]


def test_reset_drops_leases_first(make: Make) -> None:
    """vLLM refuses to reset a cache whose blocks are in use."""
    bench = make()
    turn(bench, "a", 40)
    assert bench.scheduler.reset_prefix_cache()
    assert (bench.free_blocks, headroom(bench).leases) == (100, 0)
    turn(bench, "a", 45, 2)
    assert bench.cached_tokens("a2") == 0


# -- hints -----------------------------------------------------------------------------------------


def test_evict_keeps_what_others_share(make: Make) -> None:
    """A system prompt of twenty blocks stays."""
    bench = make()
    prompt = text(1, 20 * BLOCK)
    turn(bench, "a", 40, prefix=prompt)
    turn(bench, "b", 30, prefix=prompt)
    answer = hint(bench, KvOp.EVICT, "a")
    assert (answer.status, answer.blocks, answer.tokens) == (KvStatus.ACCEPTED, 20, 320)
    check_conserved(bench)
    turn(bench, "b", 35, 2, prefix=prompt)
    turn(bench, "a", 41, 2, prefix=prompt)
    assert (bench.cached_tokens("b2"), bench.cached_tokens("a2")) == (30 * BLOCK, 20 * BLOCK)


def test_recycled_blocks_are_reused_before_others(make: Make) -> None:
    """An older session's blocks outlive those that were recycled, but the shared ones are left alone."""
    bench = make()
    prompt = text(1, 5 * BLOCK)
    turn(bench, "a", 30, prefix=prompt, mars_ttl_ms=0)
    turn(bench, "b", 30, prefix=prompt)
    assert hint(bench, KvOp.RECYCLE, "b").blocks == 25
    turn(bench, "c", 60, mars_ttl_ms=0)
    turn(bench, "a", 31, 2, prefix=prompt, mars_ttl_ms=0)
    assert bench.cached_tokens("a2") == 30 * BLOCK
    check_conserved(bench)


def test_late_pin_and_release(make: Make) -> None:
    """By a hint after the turn, from what is still cached."""
    bench = make()
    turn(bench, "a", 40, mars_ttl_ms=0)
    pinned = hint(bench, KvOp.PIN, "a", ttl_ms=5000, mode="hard")
    assert (pinned.status, pinned.blocks, pinned.expires_in_ms) == (KvStatus.ACCEPTED, 40, 5000)
    assert hint(bench, KvOp.PIN, "a", ttl_ms=10**7).status is KvStatus.CLIPPED
    assert bench.free_blocks == 60
    assert hint(bench, KvOp.RELEASE, "a").blocks == 40
    assert bench.free_blocks == 100
    assert hint(bench, KvOp.PIN, "stranger").status is KvStatus.MISSING


def test_demoting_needs_a_host_tier(make: Make) -> None:
    """Without one the copy would be lost."""
    bench = make()
    turn(bench, "a", 40)
    answer = hint(bench, KvOp.DEMOTE, "a")
    assert (answer.status, answer.reason) == (KvStatus.REJECTED, "no_host_tier")
    assert headroom(bench).leased_blocks == 40


def test_session_that_runs_ends_with_its_turn(make: Make) -> None:
    """END reaches the engine before the turn is over."""
    bench = make()
    bench.add("a1", 97, 20 * BLOCK, 20, session="a", mars_ttl_ms=60_000)
    bench.step()
    assert hint(bench, KvOp.EVICT, "a").reason == "running"
    assert hint(bench, KvOp.END, "a").status is KvStatus.ACCEPTED
    bench.run()
    assert headroom(bench).leases == 0
    assert json.loads(bench.scheduler.mars_rpc("sessions")) == []


def test_budget_clips_and_refuses(make: Make) -> None:
    """Half of the pool, as set."""
    bench = make(mars={"max_leased_share": 0.5})
    turn(bench, "a", 40)
    turn(bench, "b", 40)
    turn(bench, "c", 10)
    state = headroom(bench)
    assert (state.leased_blocks, state.clipped_total, state.rejected_total) == (50, 1, 1)


# -- memory ----------------------------------------------------------------------------------------


def test_new_session_may_not_break_leases_while_others_run(make: Make) -> None:
    """It waits; a continuation that needs as much does not; nor does the new one once it has aged."""
    bench = make(mars={"aging_s": 5.0})
    turn(bench, "a", 80)
    bench.add("runs", 5, 8 * BLOCK, 2000)
    bench.step()
    bench.add("new", 6, 30 * BLOCK, 2)
    assert "new" not in bench.step()
    bench.add("returns", 7, 25 * BLOCK, 2, session="r", mars_class="continuation")
    assert "returns" in bench.step()
    bench.step()
    assert "new" not in bench.step()
    bench.now_s += 6.0
    assert "new" in bench.step()
    check_conserved(bench)


def test_hard_leases_give_way_to_those_that_run(make: Make) -> None:
    """To a continuation they do not, and nobody is preempted as long as they last."""
    bench = make()
    turn(bench, "a", 85, mars_mode="hard")
    bench.add("runs", 5, 13 * BLOCK, 20 * BLOCK)
    bench.step()
    bench.add("returns", 7, 10 * BLOCK, 2, session="r", mars_class="continuation")
    for _ in range(10 * BLOCK):
        bench.step()
        assert bench.requests["returns"].num_computed_tokens == 0
    state = headroom(bench)
    assert state.preemptions_total == 0
    assert 0 < state.leased_blocks < 85
    bench.run()
    check_conserved(bench)


@pytest.mark.parametrize("mode", ["open", "soft", "hard"])
@pytest.mark.parametrize("blocks", [15, 60, 98])
def test_leases_cannot_deadlock(make: Make, mode: str, blocks: int) -> None:
    """When nothing runs, whoever waits takes what it needs, and no more."""
    bench = make()
    for session in "abc":
        turn(bench, session, 30, mars_mode=mode)
    assert headroom(bench).leased_blocks == 90
    bench.add("new", 5, blocks * BLOCK, 2)
    bench.run(max_steps=30)
    assert bench.requests["new"].is_finished()
    assert headroom(bench).leased_blocks == 100 - blocks - 1
    check_conserved(bench)


def test_two_large_continuations_and_hard_leases(make: Make) -> None:
    """Each wants more than what is left, and they want each other's."""
    bench = make()
    for session in "ab":
        turn(bench, session, 45, mars_mode="hard")
    bench.add("a2", 97, 70 * BLOCK, 30, session="a", mars_ttl_ms=60_000, mars_mode="hard")
    bench.add("b2", 98, 70 * BLOCK, 30, session="b", mars_ttl_ms=60_000, mars_mode="hard")
    bench.run(max_steps=200)
    assert all(bench.requests[name].is_finished() for name in ("a2", "b2"))
    check_conserved(bench)


def test_preempted_requests_come_back(make: Make) -> None:
    """Decodes outgrow the pool; nothing is lost, and leases give way before anybody is preempted."""
    bench = make()
    turn(bench, "a", 20)
    for number in range(6):
        bench.add(f"r{number}", number, 10 * BLOCK, 15 * BLOCK, session=f"r{number}", mars_ttl_ms=60_000)
    bench.run(max_steps=5000)
    state = headroom(bench)
    assert state.preemptions_total > 0
    assert state.passthrough is None
    assert sum(e.tokens for e in state.endings if e.session == "a") == 20 * BLOCK
    check_conserved(bench)


# -- order -----------------------------------------------------------------------------------------


def test_continuations_go_before_new_sessions(make: Make) -> None:
    """Warm before cold before new, but priority goes before all that."""
    bench = make(max_running=1)
    for session in "wc":
        turn(bench, session, 5, mars_ttl_ms=60_000 if session == "w" else 0)
    bench.add("blocks", 5, 2 * BLOCK, 20)
    bench.step()
    bench.add("new", 6, 2 * BLOCK, 1)
    bench.add("c2", 99, 6 * BLOCK, 1, session="c")
    bench.add("w2", 119, 6 * BLOCK, 1, session="w")
    bench.add("urgent", 7, 2 * BLOCK, 1, priority=-1)
    started: list[str] = []
    for _ in range(40):
        started += [name for name in bench.step() if name not in started]
    assert started == ["blocks", "urgent", "w2", "c2", "new"]


def test_who_has_waited_long_goes_first(make: Make) -> None:
    """Nobody starves behind continuations."""
    bench = make(max_running=1, mars={"aging_s": 5.0})
    bench.add("blocks", 5, 2 * BLOCK, 20)
    bench.step()
    bench.add("new", 6, 2 * BLOCK, 1)
    bench.now_s += 6.0
    bench.add("returns", 7, 2 * BLOCK, 1, session="r", mars_class="continuation")
    bench.step()
    assert [request.request_id for request in bench.scheduler.waiting] == ["new", "returns"]


def test_long_prefills_are_halved_only_while_a_continuation_waits(make: Make) -> None:
    """So that its prefill fits into the step beside them."""
    bench = make(blocks=1000, max_batched_tokens=512)
    bench.add("long", 5, 300 * BLOCK, 2)
    assert bench.step() == {"long": 512}
    bench.add("new", 6, 4 * BLOCK, 2)
    assert bench.step() == {"long": 512}
    bench.add("returns", 7, 10 * BLOCK, 2, session="r", mars_class="continuation")
    assert bench.step()["returns"] == 160
    assert bench.step()["long"] >= 500


def test_long_prefill_runs_behind_decodes_and_short_ones(make: Make) -> None:
    """The longest rest comes last, so it is also who is preempted."""
    bench = make(blocks=1000, max_batched_tokens=512)
    bench.add("decodes", 4, 2 * BLOCK, 50)
    bench.add("long", 5, 300 * BLOCK, 2)
    bench.step()
    bench.add("returns", 7, 60 * BLOCK, 2, session="r", mars_class="continuation")
    bench.step()
    bench.step()
    assert [request.request_id for request in bench.running] == ["decodes", "returns", "long"]


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_switched_off_it_schedules_as_vllm_does(make: Make, policy: str) -> None:
    """The same steps, token for token."""
    off = {"order": False, "interleave": False, "leases": False}
    benches = [make(patched=patched, policy=policy, mars=off) for patched in (False, True)]
    steps: list[list[dict[str, int]]] = [[], []]
    for bench, taken in zip(benches, steps, strict=True):
        rng = random.Random(5)
        for number in range(120):
            if number % 2 == 0:
                stream, blocks = rng.randrange(8), rng.randrange(1, 30)
                bench.add(
                    f"r{number}", stream, blocks * BLOCK, rng.randrange(1, 90), priority=rng.randrange(3),
                    session=f"s{stream}", mars_ttl_ms=60_000,
                )  # fmt: skip
            taken.append(bench.step())
        bench.run(max_steps=5000)
    assert steps[0] == steps[1]


# -- when something goes wrong ---------------------------------------------------------------------


class Sabotage(Exception):
    """The error that a hook meets."""


class Broken:
    """Stands for a collaborator; one of its members fails."""

    def __init__(self, whole: Any, member: str) -> None:
        self._whole, self._member = whole, member

    def __getattr__(self, name: str) -> Any:
        if name == self._member:
            raise Sabotage(name)
        return getattr(self._whole, name)

    def __len__(self) -> int:
        return len(self._whole)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self._whole)


BROKEN = [
    ("retention", "arrived"),
    ("retention", "pin"),
    ("retention", "scheduled"),
    ("retention", "withdrawn"),
    ("retention", "reset"),
    ("retention", "apply"),
    ("retention", "states"),
    ("turns", "add"),
    ("turns", "get"),
    ("turns", "pop"),
    ("turns", "waiting_continuations"),
    ("leases", "expire"),
    ("room", "may_run_short"),
    ("cache", "of_request"),
    ("cache", "free_blocks"),
    ("meters", "scheduled"),
    ("meters", "ended"),
    ("queue", "refresh"),
    ("_publisher", "write"),
    ("_prefills", "discard"),
    ("_prefills", "count"),
    ("_prefills", "sort_running"),
    ("room", "make"),
]
"""Members of the hooks' collaborators, so that every hook fails in some case."""


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("part", "member"), BROKEN)
def test_after_an_error_vllm_serves_on(
    make: Make, part: str, member: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, no lease left, every request to its end, every block free."""
    bench = make(is_async=is_async)
    hooks = bench.scheduler.mars
    for session in "ab":
        turn(bench, session, 30)
    for number in range(6):
        bench.add(f"r{number}", number, 15 * BLOCK, 8 * BLOCK, session=f"r{number}", mars_ttl_ms=60_000)
    bench.step()
    whole = getattr(hooks, part)
    setattr(hooks, part, Broken(whole, member))
    bench.add("a2", 97, 35 * BLOCK, 3, session="a", mars_ttl_ms=60_000)
    bench.add("gone", 5, 3 * BLOCK, 3, session="gone")
    bench.abort("gone")
    for number in range(200):
        bench.step()
        if number == 20:
            hint(bench, KvOp.RELEASE, "b")
            bench.scheduler.mars_rpc("sessions")
    bench.run(max_steps=5000)
    bench.scheduler.reset_prefix_cache()
    bench.add("last", 9, 5 * BLOCK, 3, session="last", mars_ttl_ms=60_000)
    bench.run()
    setattr(hooks, part, whole)
    assert hooks.passthrough is not None, "nothing has failed: the case is worth nothing"
    assert headroom(bench).passthrough == hooks.passthrough
    assert "Sabotage" in hooks.passthrough
    assert bench.free_blocks == 100
    assert all(request.is_finished() for request in bench.requests.values())
    assert [record.message.count("failed") for record in caplog.records if "MARS" in record.message] == [1]
    answer = hint(bench, KvOp.PIN, "a")
    assert (answer.status, answer.reason) == (KvStatus.REJECTED, "passthrough")


def test_missing_hook_means_stock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM that lacks a place that is held on to runs its own scheduler."""
    from vllm.v1.core.sched.scheduler import Scheduler

    from backend_patch import contract
    from backend_patch.protocol import Hook

    monkeypatch.setattr(contract, "check", lambda: (Hook("Scheduler._free_blocks", fits=False),))
    assert type(make().scheduler) is Scheduler


def test_failure_to_put_the_patch_in_means_stock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own queue and allocation, and no hook."""
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue

    from backend_patch import vllm_scheduler

    def fails(*_: object) -> None:
        raise Sabotage

    monkeypatch.setattr(vllm_scheduler, "_cache_view", fails)
    bench = make(is_async=True)
    assert bench.scheduler.mars.passthrough == "not put in"
    assert isinstance(bench.scheduler.waiting, FCFSRequestQueue)
    for number in range(6):
        bench.add(f"r{number}", number, 20 * BLOCK, 9 * BLOCK, session="s", mars_ttl_ms=60_000)
    bench.abort("r5")
    bench.run(max_steps=5000)
    assert bench.scheduler.reset_prefix_cache()
    assert bench.free_blocks == 100


def test_bad_setting_stops_the_engine(make: Make) -> None:
    """At start-up, with the key's name."""
    with pytest.raises(SettingsError, match=r"additional_config\.mars\.aging_s"):
        make(mars={"aging_s": "soon"})


def test_async_scheduling_stays_async(make: Make) -> None:
    """A plain scheduler in its place would lose the overlap without a word."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    assert isinstance(make(is_async=True).scheduler, AsyncScheduler)
    capabilities = json.loads(make(is_async=True).scheduler.mars_rpc("capabilities"))
    assert capabilities["async_scheduling"]
    assert capabilities["passthrough"] is None


# -- anything, in any order ------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_conserved_whatever_happens(make: Make, seed: int, is_async: bool) -> None:
    """Turns, aborts, hints and resets at random; after every step the pool's books are right."""
    rng = random.Random(seed)
    bench = make(is_async=is_async, policy="fcfs" if seed % 2 else "priority", blocks=120)
    contexts: dict[str, int] = {}
    for number in range(400):
        bench.now_s += rng.random()
        if rng.random() < 0.4 and number < 350:
            name = f"s{rng.randrange(8)}"
            context = min(contexts.get(name, 0) + rng.randrange(8, 200), 60 * BLOCK)
            contexts[name] = 0 if context == 60 * BLOCK else context
            bench.add(
                f"r{number}", int(name[1:]), context, rng.randrange(1, 60), session=name,
                priority=rng.randrange(2), mars_branch=rng.choice(["", "b"]),
                mars_ttl_ms=rng.choice([0, 500, 20_000]), mars_mode=rng.choice(["open", "soft", "hard", "?"]),
                mars_final=rng.choice([0, 0, 0, 1]),
            )  # fmt: skip
        if rng.random() < 0.05 and bench.scheduler.requests:
            bench.abort(rng.choice(list(bench.scheduler.requests)))
        if rng.random() < 0.2:
            hint(bench, rng.choice(list(KvOp)), f"s{rng.randrange(8)}", ttl_ms=rng.randrange(9000))
        if rng.random() < 0.02:
            bench.scheduler.reset_prefix_cache()
        bench.step()
        check_conserved(bench)
    bench.run(max_steps=5000)
    bench.scheduler.mars.leases.release_all()
    assert bench.scheduler.mars.passthrough is None
    assert bench.free_blocks == 120
    assert all(request.is_finished() for request in bench.requests.values())
    assert not len(bench.scheduler.mars.turns)


# -- cost ------------------------------------------------------------------------------------------


def test_a_step_costs_the_same_however_many_sessions(make: Make) -> None:
    """Bytecode instructions that the patch adds to a decode step: few, and none for a known session, a
    lease or a waiting request."""

    def added(sessions: int, running: int) -> int:
        counts = []
        for patched in (False, True):
            bench = make(patched=patched, blocks=4000, max_running=64)
            for number in range(sessions):
                bench.add(f"s{number}", 100 + number, BLOCK, 1, session=f"s{number}", mars_ttl_ms=10**6)
            bench.run()
            for number in range(running):
                bench.add(f"r{number}", number, 4 * BLOCK, 900)
            for _ in range(12):
                bench.step(0.001)
            output = bench.scheduler.schedule
            counts.append(instructions_of(output))
            bench.scheduler.finish_requests(None, _aborted())
        return counts[1] - counts[0]

    few, many = added(10, 8), added(1000, 8)
    assert abs(many - few) < 50
    assert abs(added(10, 48) - few) < 50


def _aborted() -> Any:
    from vllm.v1.request import RequestStatus

    return RequestStatus.FINISHED_ABORTED
