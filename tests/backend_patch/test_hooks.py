"""The hooks on a scheduler of our own: a request's way, a step's work, and errors."""

import logging
from typing import Any

import msgspec
import pytest

from backend_patch.hooks import Hooks
from backend_patch.meters import Meters
from backend_patch.protocol import KvOp, KvRequest, RankHeadroom, SessionsQuery
from backend_patch.publishing import MIN_INTERVAL_S
from backend_patch.settings import PatchSettings
from tests.backend_patch.fake_manager import FakeManager, FakeRequest, FakeScheduler, step_output, view
from tests.backend_patch.fake_pool import BLOCK_TOKENS, sequence


class Published:
    """What was written."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.texts.append(data)

    def close(self) -> None:
        self.is_closed = True

    @property
    def last(self) -> RankHeadroom:
        return msgspec.json.decode(self.texts[-1], type=RankHeadroom)


class Engine:
    def __init__(self, blocks: int = 20, **settings: Any) -> None:
        self.scheduler = FakeScheduler()
        self.manager = FakeManager(blocks)
        self.published = Published()
        self.now_s = 100.0
        self.hooks = Hooks(
            PatchSettings(**settings),
            self.scheduler,
            view(self.manager),
            self.published,
            3,
            lambda: self.now_s,
        )

    def add(self, name: str, blocks: int = 4, **more: Any) -> FakeRequest:
        request = FakeRequest(
            name, blocks * BLOCK_TOKENS, block_hashes=sequence(more.get("session_id") or name, blocks), **more
        )
        self.hooks.request_added(request)
        self.scheduler.requests[name] = request
        return request

    def start(self, request: FakeRequest, hit: int = 0) -> None:
        name = request.request_id
        self.manager.req_to_blocks[name] = list(self.manager.block_pool.run(request.block_hashes))
        self.scheduler.running.append(request)
        request.status_name = "RUNNING"
        self.hooks.step_scheduled(step_output({name: 32}, {name: hit}))

    def end(self, request: FakeRequest, status: str = "FINISHED_STOPPED") -> None:
        name, request.status_name = request.request_id, status
        if request in self.scheduler.running:
            self.scheduler.running.remove(request)
        self.hooks.request_ended(request)
        self.hooks.blocks_freeing(request)
        self.manager.block_pool.end(self.manager.req_to_blocks.pop(name, []))
        del self.scheduler.requests[name]
        self.hooks.blocks_freed(request)

    def turn(self, name: str, session: str, blocks: int = 4, **args: Any) -> None:
        request = self.add(name, blocks, session_id=session, extra_args=args)
        self.start(request)
        self.end(request)


def test_turn_leaves_a_lease_and_the_next_one_takes_it() -> None:
    """Counted on the way."""
    engine = Engine()
    engine.turn("a1", "a", mars_ttl_ms=5000)
    state = engine.hooks.headroom(0)
    assert (state.rank, state.leases, state.leased_blocks, state.free_blocks) == (3, 1, 4, 16)
    request = engine.add("a2", 6, session_id="a")
    state = engine.hooks.headroom(0)
    assert (state.claimed_blocks, state.waiting_continuations) == (4, 1)
    assert state.waiting_prefill_tokens == 2 * BLOCK_TOKENS
    engine.start(request, hit=64)
    state = engine.hooks.headroom(0)
    assert (state.leases, state.waiting_continuations, state.waiting_prefill_tokens) == (0, 0, 0)
    assert (state.prefix_queries_total, state.prefix_hits_total) == (64 + 96, 64)
    (ending,) = state.endings
    assert (ending.tokens, ending.hit_tokens) == (64, 64)


@pytest.mark.parametrize("status", ["FINISHED_ABORTED", "FINISHED_ERROR", "FINISHED_IGNORED"])
def test_no_lease_after_a_bad_end(status: str) -> None:
    """And nothing is learnt of the session."""
    engine = Engine()
    request = engine.add("a1", session_id="a", extra_args={"mars_ttl_ms": 5000})
    engine.start(request)
    engine.end(request, status)
    (state,) = engine.hooks.states(SessionsQuery())
    assert (state.turns, state.leased_blocks, state.live) == (0, 0, 0)


def test_final_turn_waits_for_its_siblings() -> None:
    """Another request of the same session still runs."""
    engine = Engine()
    first = engine.add("a1", session_id="a", extra_args={"mars_final": 1})
    second = engine.add("a2", session_id="a", extra_args={"mars_ttl_ms": 5000})
    engine.start(first)
    engine.start(second)
    engine.end(first)
    assert len(engine.hooks.states(SessionsQuery())) == 1
    engine.end(second)
    assert engine.hooks.states(SessionsQuery()) == []
    assert engine.hooks.headroom(0).free_blocks == 20


def test_requests_without_a_session() -> None:
    """Are none of its business, but wait in the same queue."""
    engine = Engine()
    request = engine.add("r", extra_args={"mars_ttl_ms": 5000})
    assert engine.hooks.waiting_key(request)[2] == 2
    engine.start(request)
    engine.end(request)
    assert (len(engine.hooks.leases), len(engine.hooks.turns)) == (0, 0)


def test_streamed_input_is_one_turn() -> None:
    """Its later pieces come under the same id."""
    engine = Engine()
    request = engine.add("r", session_id="a")
    engine.hooks.request_added(request)
    (state,) = engine.hooks.states(SessionsQuery())
    assert state.live == 1


def test_chunks_are_short_only_while_a_continuation_waits() -> None:
    """The configured value is restored."""
    engine = Engine()
    config = engine.scheduler.scheduler_config
    seen = []
    request = engine.add("r", extra_args={"mars_class": "continuation"})
    for action in (lambda: None, lambda: engine.start(request)):
        action()
        engine.hooks.step_beginning()
        seen.append(config.long_prefill_token_threshold)
    assert seen == [128, 0]


def test_running_order() -> None:
    """Decodes as they came, then the continuation, then the shorter rest."""
    engine = Engine(blocks=100)
    names = {"long": 30, "decode1": 2, "short": 20, "returns": 25, "decode2": 2}
    for name, blocks in names.items():
        args = {"mars_class": "continuation"} if name == "returns" else {}
        request = engine.add(name, blocks, extra_args=args)
        request.is_prefill_chunk = not name.startswith("decode")
        engine.start(request)
    engine.hooks.step_beginning()
    order = [request.request_id for request in engine.scheduler.running]
    assert order == ["decode1", "decode2", "returns", "short", "long"]
    engine.scheduler.running[-2:] = engine.scheduler.running[:-3:-1]
    engine.hooks.step_beginning()
    assert [request.request_id for request in engine.scheduler.running] == order


def test_waiting_keys() -> None:
    """Preempted and aged ones first, then warm, cold and new."""
    engine = Engine(blocks=50, aging_s=10.0)
    engine.turn("w1", "w", mars_ttl_ms=60_000)
    engine.turn("c1", "c")
    aged = engine.add("aged")
    engine.now_s += 11
    requests = [
        aged,
        engine.add("preempted", status_name="PREEMPTED", arrival_time=1.0),
        engine.add("w2", session_id="w", arrival_time=3.0),
        engine.add("c2", session_id="c", arrival_time=2.0),
        engine.add("new", arrival_time=1.0),
    ]
    keys = [engine.hooks.waiting_key(request) for request in requests]
    assert keys == sorted(keys)


def test_memory_is_watched_only_when_it_may_run_short() -> None:
    """Without leases never; with them when what waits or runs might not fit."""
    engine = Engine(blocks=60)
    assert not engine.hooks.step_beginning()
    engine.turn("a1", "a", mars_ttl_ms=60_000)
    small = engine.add("small", 10)
    assert not engine.hooks.step_beginning()
    large = engine.add("large", 30)
    assert engine.hooks.step_beginning()
    engine.end(large, "FINISHED_ABORTED")
    assert not engine.hooks.step_beginning()
    engine.start(small)
    small.status_name = "PREEMPTED"
    engine.scheduler.running.remove(small)
    assert engine.hooks.step_beginning()


def test_making_room() -> None:
    """A new session must wait while another runs; a running one need not."""
    engine = Engine(blocks=10)
    engine.turn("a1", "a", 8, mars_ttl_ms=60_000)
    runs = engine.add("runs", 2)
    engine.start(runs)
    new = engine.add("new", 4)
    assert not engine.hooks.make_room(new, 64, {}, 0)
    runs.num_computed_tokens = 32
    assert engine.hooks.make_room(runs, 16, {}, 0)
    assert engine.hooks.headroom(0).free_blocks == 1
    returns = engine.add("returns", 4, extra_args={"mars_class": "continuation"})
    assert engine.hooks.make_room(returns, 64, {}, 0)
    assert engine.hooks.headroom(0).free_blocks == 4


def test_state_is_published_after_a_step_but_not_too_often() -> None:
    """And whenever nothing is left to do."""
    engine = Engine()
    first = engine.add("r")
    engine.start(first)
    output = step_output({"r": 1}, {})
    counts = []
    for _ in range(6):
        engine.now_s += MIN_INTERVAL_S * 0.6
        engine.hooks.step_ended(output)
        counts.append(len(engine.published.texts))
    assert counts == [1, 1, 2, 2, 3, 3]
    engine.end(first)
    engine.hooks.step_ended(output)
    assert len(engine.published.texts) == 4


def test_published_state_is_the_one_answered() -> None:
    """With all endings."""
    engine = Engine()
    engine.turn("a1", "a", mars_ttl_ms=60_000)
    engine.turn("a2", "a", 6, mars_ttl_ms=60_000)
    engine.hooks.publish()
    answered = msgspec.structs.replace(engine.hooks.headroom(0), at_s=0.0)
    assert msgspec.structs.replace(engine.published.last, at_s=0.0) == answered
    assert len(answered.endings) == 1


def test_idle_engine_expires_leases_when_asked() -> None:
    """By its state or its sessions."""
    engine = Engine()
    for question in (lambda: engine.hooks.headroom(0), lambda: engine.hooks.states(SessionsQuery())):
        engine.turn("a", "a", mars_ttl_ms=1000)
        engine.now_s += 2
        question()
        assert len(engine.hooks.leases) == 0


def test_after_an_error_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """Leases are released, the state says why, hints are refused, and the log has one line."""
    engine = Engine()
    engine.turn("a1", "a", mars_ttl_ms=60_000)
    request = engine.add("r", extra_args={"mars_class": "continuation"})
    engine.hooks.step_beginning()
    engine.hooks.meters = None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            engine.hooks.step_ended(step_output({"r": 1}, {}))
    assert len(caplog.records) == 1
    assert engine.hooks.passthrough == "step_ended: AttributeError"
    assert len(engine.manager.block_pool.free) == 20
    assert engine.scheduler.scheduler_config.long_prefill_token_threshold == 0
    (answer,) = engine.hooks.apply([KvRequest(KvOp.PIN, "a")])
    assert answer.reason == "passthrough"
    assert engine.hooks.states(SessionsQuery()) == []
    assert engine.hooks.waiting_key(request)[4] == request.arrival_time
    engine.hooks.close()
    assert engine.published.is_closed


class BrokenMeters(Meters):
    def ended(self, now: float) -> None:
        raise ArithmeticError


def test_what_is_published_after_an_error_stays_true() -> None:
    """The requests of that moment come to their ends, in vLLM's hands alone."""
    engine = Engine()
    request = engine.add("r")
    engine.start(request)
    engine.hooks.meters = BrokenMeters()
    engine.hooks.step_ended(step_output({"r": 1}, {}))
    assert (engine.published.last.running, engine.published.last.passthrough is None) == (1, False)
    engine.end(request)
    engine.hooks.step_ended(step_output({"r": 1}, {}))
    assert engine.published.last.running == 0
    assert engine.published.last.free_blocks == engine.published.last.blocks
