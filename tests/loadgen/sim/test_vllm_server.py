"""What the real engine is told of the policy's orders, and what the policy is told of it."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from backend_patch.protocol import Ending, KvAnswer, KvOp, KvRequest, KvStatus, LeaseEnding, LeaseMode
from backend_patch.virtual_engine import EngineMeters, EngineShape, EngineTurn, TurnUpdate
from loadgen.arrivals import AsTraced
from loadgen.errors import LoadgenError
from loadgen.records import TurnRecord
from loadgen.sim.backend import SimTurn
from loadgen.sim.settings import EngineKind, SimulationSettings
from loadgen.sim.vllm_server import VllmServer, shape_of
from loadgen.workload import Turn
from marsproxy.core.commands import ForwardTurn, HintKv, KvAction, KvLease, YieldsTo
from marsproxy.core.events import (
    BackendObserved,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    TurnProgressed,
)


class FakeEngine:
    """Remembers what it was told; says what a test put there."""

    about = "fake"

    def __init__(self) -> None:
        self.step_ends_s: float | None = None
        self.added: list[EngineTurn] = []
        self.asked: list[KvRequest] = []
        self.updates: list[TurnUpdate] = []
        self.answers: list[KvAnswer] = []
        self.endings: list[LeaseEnding] = []
        self.running: list[tuple[str, int]] = []
        self.passthrough: str | None = None

    @property
    def has_work(self) -> bool:
        return bool(self.added)

    def add(self, turn: EngineTurn, now: float) -> None:
        self.added.append(turn)

    def kv(self, requests: Sequence[KvRequest], now: float) -> None:
        self.asked += requests

    def start(self, now: float) -> None: ...

    def finish_step(self) -> list[TurnUpdate]:
        return self.updates

    def generated(self) -> Iterable[tuple[str, int]]:
        return self.running

    def take_answers(self) -> list[KvAnswer]:
        return self.answers

    def take_endings(self) -> list[LeaseEnding]:
        return self.endings

    def meters(self) -> EngineMeters:
        return EngineMeters(100, 25, 30, 2, 3, 4, 1000, 400, 9, self.passthrough)


def server(engine: FakeEngine, *, is_patched: bool = True) -> VllmServer:
    return VllmServer("e", EngineShape(100, is_patched=is_patched), engine)


def sim_turn(system_id: str | None = "sys") -> SimTurn:
    record = TurnRecord("s", 1, False, 0.0, 0.0)
    return SimTurn("t1", "s", system_id, 300, 900, Turn(900, 50), record)


def forward(**changes: Any) -> ForwardTurn:
    return ForwardTurn("t1", "e", 7, "new", **changes)


def settings(policy: str, **changes: Any) -> SimulationSettings:
    return SimulationSettings(policy, AsTraced(), engine=EngineKind.VLLM, **changes)


def test_a_turn_goes_with_all_the_engine_needs() -> None:
    engine = FakeEngine()
    lease = KvLease(2.5, YieldsTo.RETURNING)
    server(engine).forward(sim_turn(), forward(may_break_leases=False, lease=lease), 0.0)
    xargs = {"mars_session": "s", "mars_class": "new", "mars_ttl_ms": 2500, "mars_mode": "soft"}
    assert engine.added == [EngineTurn("t1", "s", 900, 50, "sys", 300, 7, xargs)]


def test_a_stock_engine_hears_of_no_lease_and_no_hint() -> None:
    engine = FakeEngine()
    stock = server(engine, is_patched=False)
    stock.forward(sim_turn(None), forward(lease=KvLease(2.5, YieldsTo.RETURNING)), 0.0)
    assert engine.added == [EngineTurn("t1", "s", 900, 50, None, 0, 7, {})]
    assert stock.try_hint(HintKv("s", "e", KvAction.KEEP), 0.0) is None
    assert engine.asked == []


@pytest.mark.parametrize(
    ("hint", "asked"),
    [
        (
            HintKv("s", "e", KvAction.KEEP, 1.5, YieldsTo.NOBODY),
            KvRequest(KvOp.PIN, "s", ttl_ms=1500, mode=LeaseMode.HARD),
        ),
        (HintKv("s", "e", KvAction.RELEASE), KvRequest(KvOp.RELEASE, "s")),
        (HintKv("s", "e", KvAction.DEMOTE), KvRequest(KvOp.RECYCLE, "s")),
        (HintKv("s", "e", KvAction.SWAP_OUT), KvRequest(KvOp.DEMOTE, "s")),
    ],
)
def test_hints_in_the_words_of_the_patch(hint: HintKv, asked: KvRequest) -> None:
    engine = FakeEngine()
    server(engine).try_hint(hint, 0.0)
    assert engine.asked == [asked]


def test_an_idle_engine_answers_at_once_and_a_busy_one_later() -> None:
    engine = FakeEngine()
    engine.answers = [KvAnswer(KvStatus.CLIPPED, "s", KvOp.PIN, tokens=160)]
    hint = HintKv("s", "e", KvAction.KEEP)
    assert server(engine).try_hint(hint, 0.0) == HintAnswered("s", "e", 160)
    engine.step_ends_s = 1.0
    busy = server(engine)
    assert busy.try_hint(hint, 0.0) is None
    assert busy.take_events() == [HintAnswered("s", "e", 160)]


def test_what_is_leased_of_a_turn_that_runs_is_not_known_yet() -> None:
    engine = FakeEngine()
    engine.answers = [
        KvAnswer(KvStatus.REJECTED, "s", KvOp.PIN, reason="running"),
        KvAnswer(KvStatus.ACCEPTED, "s", KvOp.RELEASE, tokens=16),
    ]
    assert server(engine).take_events() == [HintAnswered("s", "e", None)]


def test_leases_end_in_three_ways() -> None:
    engine = FakeEngine()
    engine.endings = [
        LeaseEnding(1, "a", Ending.RESUMED, 320, 300),
        LeaseEnding(2, "b", Ending.RECLAIMED, 160),
        LeaseEnding(3, "c", Ending.EXPIRED, 48),
    ]
    assert server(engine).take_events() == [
        LeaseResumed("a", "e", 320, 300), KvReclaimed("b", "e", 160), LeaseExpired("c", "e", 48),
    ]  # fmt: skip


def test_first_and_last_tokens_and_what_was_cached() -> None:
    engine, turn = FakeEngine(), sim_turn()
    one = server(engine)
    one.forward(turn, forward(), 0.0)
    engine.updates = [TurnUpdate("t1", 1, 320, is_over=False)]
    assert one.finish_step() == ([turn], [])
    engine.updates = [TurnUpdate("t1", 50, 320, is_over=True)]
    assert one.finish_step() == ([], [turn])
    assert turn.cached_tokens == 320


def test_progress_is_told_once_for_each_so_many_tokens() -> None:
    engine = FakeEngine()
    one = server(engine)
    one.forward(sim_turn(), forward(), 0.0)
    told = []
    for generated in (255, 256, 300, 512):
        engine.running = [("t1", generated)]
        told.append(list(one.progress(0.0)))
    assert told == [[], [TurnProgressed("t1", 256)], [], [TurnProgressed("t1", 512)]]


def test_a_reading() -> None:
    engine = FakeEngine()
    expected = BackendObserved(
        "e", kv_tokens_total=1600, kv_used_ratio=0.25, running=2, waiting=3, preemptions_total=4,
        prefix_queries_total=1000, prefix_hits_total=400, takes_hints=True, kv_leased_tokens=480,
    )  # fmt: skip
    assert server(engine).reading(0.0) == expected
    engine.passthrough = "an error"
    assert not server(engine).reading(0.0).takes_hints


def test_only_policies_that_hint_get_the_patch() -> None:
    assert not shape_of(settings("fcfs"), 1_615).is_patched
    assert shape_of(settings("continuum"), 1_615).is_patched
    assert not shape_of(settings("mars", takes_hints=False), 1_615).is_patched
    assert shape_of(settings("mars"), 1_615).kv_blocks == 100
    assert shape_of(settings("mars"), 1_615).policy == "priority"


def test_a_real_engine_has_no_host_tier() -> None:
    with pytest.raises(LoadgenError, match="--host-kv-tokens"):
        settings("mars", host_kv_tokens=1600)


def test_a_step_of_a_real_engine_has_room_for_all_that_run() -> None:
    with pytest.raises(LoadgenError, match="--max-num-batched-tokens"):
        settings("mars", max_batched_tokens=64)
