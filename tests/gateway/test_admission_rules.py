"""Whatever is offered, ended and measured, and however time passes: bounds hold, nothing that may start is
left waiting, everything ends, and the same events give the same answers."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from gateway.admission import AdmissionSettings, Ask, HostQueue, Offer, Shortage
from gateway.holdings import Lane
from gateway.host import ExecUse, Reading
from gateway.room import MOST_BORROWERS

PATIENCE_S = 5.0
SESSIONS = [("t", "a"), ("t", "b"), ("t", "c"), ("u", "a"), ("u", "d"), ("v", "e")]
FAMILIES = {("t", "a"): "f", ("t", "b"): "f", ("u", "a"): "g"}
MEMORY_MB = st.none() | st.sampled_from([0.0, 50.0, 128.0, 500.0, 1500.0, 9000.0])
PRESSURE = st.none() | st.sampled_from([0.0, 0.15, 0.3, 0.9])


class Admission(RuleBasedStateMachine):
    asks = Bundle("asks")

    @initialize(
        slots=st.sampled_from([None, 1, 2, 3.5]),
        queue_limit=st.integers(0, 12),
        short_places=st.sampled_from([None, 0, 2]),
        memory_mb=st.none() | st.sampled_from([600.0, 3000.0]),
    )
    def begin(self, **fields: Any) -> None:
        self.settings = AdmissionSettings(**fields)
        self.queue = HostQueue(self.settings)
        self.now = 0.0
        self.number = 0
        self.waiting: dict[str, Ask] = {}
        self.running: dict[str, Ask] = {}
        self.blocked_s: dict[str, float] = {}
        self.log: list[tuple[Callable[[HostQueue], Any], Any]] = []

    def do(self, event: Callable[[HostQueue], Any]) -> Any:
        answer = event(self.queue)
        self.log.append((event, answer))
        return answer

    def granted(self, ids: list[str]) -> None:
        for ask_id in ids:
            self.running[ask_id] = self.waiting.pop(ask_id)
        self.check_what_was_granted(ids)

    @rule(
        target=asks,
        session=st.sampled_from(SESSIONS),
        cpu=st.sampled_from([0, 0.3, 1, 1, 1, 2, 9]),
        memory_mb=MEMORY_MB,
        expected_s=st.sampled_from([None, None, 0.1, 30]),
        priority=st.sampled_from([0, 0, 10, -10]),
    )
    def offer(self, session: tuple[str, str], **fields: Any) -> str:
        self.number += 1
        ask, now = Ask(str(self.number), session, FAMILIES.get(session), **fields), self.now
        answer = self.do(lambda queue: queue.offer(ask, now))
        if answer is Offer.FULL:
            assert len(self.waiting) >= self.settings.queue_limit
            assert self.queue.position(ask.id) is None
        else:
            self.waiting[ask.id] = ask
            self.granted([ask.id] if answer is Offer.GRANTED else [])
        # An offer grants nobody else, though it may change whose turn it is: the next tick sees to that.
        self.granted(self.do(lambda queue: queue.tick(now)))
        return ask.id

    @rule(ask_id=consumes(asks))
    def end(self, ask_id: str) -> None:
        if ask_id not in self.waiting and ask_id not in self.running:
            return  # It was refused.
        self.waiting.pop(ask_id, None)
        self.running.pop(ask_id, None)
        now = self.now
        self.granted(self.do(lambda queue: queue.end(ask_id, now)))

    @rule(seconds=st.sampled_from([0.1, 1, 2, 5, 11, 40]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        now = self.now
        self.granted(self.do(lambda queue: queue.tick(now)))

    @rule(
        cores=st.sampled_from([None, 1.0, 2.0, 4.0]),
        total_mb=st.sampled_from([None, 2000, 4000]),
        available_ratio=st.none() | st.sampled_from([0.05, 0.5, 1.0]),
        cpu_busy=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
        cpu_pressure=PRESSURE,
        memory_pressure=PRESSURE,
        data=st.data(),
    )
    def observe(
        self,
        total_mb: int | None,
        available_ratio: float | None,
        data: st.DataObject,
        **fields: Any,
    ) -> None:
        available = None if total_mb is None or available_ratio is None else round(total_mb * available_ratio)
        use = st.builds(
            ExecUse, st.none() | st.just(self.now * 0.5), st.none() | st.sampled_from([10.0, 400.0, 3000.0])
        )
        execs = {ask_id: data.draw(use) for ask_id in list(self.running)[:3]}
        reading = Reading(
            memory_total_mb=total_mb,
            memory_available_mb=available,
            execs={"foreign": ExecUse(1, 1), **execs},
            **fields,
        )
        now = self.now
        self.granted(self.do(lambda queue: queue.observe(reading, now)))

    @rule()
    def pause_and_resume(self) -> None:
        now = self.now
        self.do(lambda queue: queue.pause())
        assert self.do(lambda queue: queue.tick(now)) == []
        self.granted(self.do(lambda queue: queue.resume(now)))

    def lanes(self, *wanted: Lane) -> list[str]:
        holdings = self.queue._room.holdings
        return [ask_id for ask_id in self.running if holdings._by_id[ask_id].lane in wanted]

    def check_what_was_granted(self, ids: list[str]) -> None:
        """Memory, which may be short of what was granted before."""
        holdings, budget_mb = self.queue._room.holdings, self.queue.memory_budget_mb(self.now)
        if budget_mb is None or not ids or set(ids) & set(self.lanes(Lane.LENT)):
            return
        normal, short = (set(ids) & set(self.lanes(lane)) for lane in (Lane.NORMAL, Lane.SHORT))
        lane_mb = min(self.queue.short_places * self.settings.short_memory_mb, budget_mb // 4)
        if normal and holdings.normal > 1:
            assert holdings.reserved_mb - holdings.short_reserved_mb <= budget_mb - lane_mb
        if short and holdings.short > 1:
            assert holdings.short_reserved_mb <= lane_mb

    @invariant()
    def tables_agree(self) -> None:
        queue = self.queue
        assert (queue.running, queue.queued) == (len(self.running), len(self.waiting))
        assert len(queue._nested) <= len({a.family for a in self.waiting.values()} - {None})
        assert queue._normal.tenants + queue._short.tenants <= 2 * len(
            {a.session for a in self.waiting.values()}
        )

    @invariant()
    def no_tenant_is_refused_its_part(self) -> None:
        limit = self.settings.queue_limit
        for turns in (self.queue._normal, self.queue._short):
            assert len(turns) <= limit * (1 + turns.tenants)

    @invariant()
    def slots_and_places_are_not_exceeded(self) -> None:
        """But by borrowers, who are bounded on their own."""
        holdings = self.queue._room.holdings
        borrowers = [holdings._by_id[ask_id] for ask_id in self.lanes(Lane.LENT)]
        charged = holdings.charged_milli - sum(each.charged_milli for each in borrowers)
        slots, places = round(self.queue.slots * 1000), self.queue.short_places * 1000
        if self.settings.slots is not None:
            assert charged + holdings.short * 1000 <= slots + places
        for family in holdings.families.values():
            assert family.lent_milli <= slots + places + MOST_BORROWERS * slots

    @invariant()
    def nothing_that_may_start_is_left_waiting(self) -> None:
        queue, now = self.queue, self.now
        if not self.waiting:
            return
        assert self.running, "one may always run"
        shorts = [a for a in self.waiting.values() if queue._queued[a.id].need.is_short]
        normals = [a for a in self.waiting.values() if a not in shorts]
        for ask in shorts:
            assert not queue._room.fits_short(queue._queued[ask.id].need, now)
        first = next((a for a in normals if queue.position(a.id) == 0), None)
        if first is None:
            assert all(queue.shortage(a.id, now) is not Shortage.TURN for a in shorts)
            return
        assert queue.shortage(first.id, now) is not Shortage.TURN
        if now - self.blocked_s.setdefault(first.id, now) < PATIENCE_S:
            oldest: dict[Any, Ask] = {}
            for ask in normals:
                oldest.setdefault(ask.session, ask)
            assert all(queue.shortage(a.id, now) is not Shortage.TURN for a in oldest.values())

    @invariant()
    def places_in_the_queue_are_an_order(self) -> None:
        for turns in (self.queue._normal, self.queue._short):
            places = [turns.rank(ask_id) for ask_id in self.waiting if ask_id in turns]
            assert sorted(places) == list(range(len(places)))

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        while self.running:
            ask_id = next(iter(self.running))
            del self.running[ask_id]
            now = self.now
            self.granted(self.do(lambda queue, ask_id=ask_id, now=now: queue.end(ask_id, now)))  # type: ignore[misc]
        assert not self.waiting, "everything is granted in the end"
        holdings = self.queue._room.holdings
        assert (holdings.charged_milli, holdings.lent_milli, holdings.reserved_mb) == (0, 0, 0)
        assert not holdings.families
        assert not self.queue._nested
        again = HostQueue(self.settings)
        assert [event(again) for event, _ in self.log] == [answer for _, answer in self.log]


TestAdmission = pytest.mark.filterwarnings("default")(Admission.TestCase)
TestAdmission.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
