"""Playbooks: what is offered, ended and measured, and exactly what is granted thereby."""

from typing import Any

import pytest

from gateway.admission import AdmissionSettings, Ask, HostQueue, Offer, Shortage
from gateway.host import ExecUse, Reading

TENANT = "t"


def ask(ask_id: str, session: str | None = None, *, tenant: str = TENANT, **fields: Any) -> Ask:
    """``a1`` is of session ``a`` unless said otherwise."""
    return Ask(ask_id, (tenant, session or ask_id[0]), **fields)


def queue_of(slots: float = 1, **settings: Any) -> HostQueue:
    return HostQueue(AdmissionSettings(slots=slots, **settings))


def fill(queue: HostQueue, *asks: Ask, now: float = 0) -> str:
    """One letter for each answer."""
    return "".join(queue.offer(each, now).value[0] for each in asks)


def reading(total_mb: int | None = 4000, available_mb: int | None = 4000, **fields: Any) -> Reading:
    return Reading(cores=2, memory_total_mb=total_mb, memory_available_mb=available_mb, **fields)


def drain(queue: HostQueue, first: str, now: float = 0) -> list[str]:
    """End whatever runs, the oldest first, until nothing does."""
    order, running = [], [first]
    while running:
        granted = queue.end(running.pop(0), now)
        order += granted
        running += granted
    return order


class TestSlots:
    def test_grants_at_once_while_there_is_room(self) -> None:
        queue = queue_of(2)
        assert fill(queue, ask("a"), ask("b"), ask("c")) == "ggq"
        assert repr(queue) == "<HostQueue [slots: 2.0/2.0 | running: 2, queued: 1]>"
        assert queue.end("a", 1) == ["c"]

    def test_full_queue_remembers_nothing(self) -> None:
        queue = queue_of(queue_limit=1)
        assert fill(queue, ask("a"), ask("b"), ask("c")) == "gqf"
        with pytest.raises(KeyError):
            queue.end("c", 1)
        assert queue.end("a", 1) == ["b"]

    def test_no_queue_at_all(self) -> None:
        assert fill(queue_of(queue_limit=0), ask("a"), ask("b")) == "gf"

    def test_sleepers_are_charged_too(self) -> None:
        queue = queue_of()
        assert fill(queue, *(ask(f"s{n}", cpu=0) for n in range(21))) == "g" * 20 + "q"

    def test_what_is_wider_than_the_host_takes_all_of_it(self) -> None:
        queue = queue_of(2)
        assert fill(queue, ask("a"), ask("w", cpu=8)) == "gq"
        assert queue.end("a", 1) == ["w"]
        assert queue.used == 2

    def test_slots_are_the_cores_once_they_are_known(self) -> None:
        queue = HostQueue(AdmissionSettings())
        assert fill(queue, ask("a"), ask("b"), ask("c"), ask("d")) == "gqqq"
        assert queue.observe(Reading(cores=3), 1) == ["b", "c"]

    def test_what_was_running_before_us_is_charged_room_or_not(self) -> None:
        queue = queue_of()
        queue.adopt(ask("a"), 0)
        queue.adopt(ask("b"), 0)
        assert (queue.used, queue.running) == (2, 2)
        assert fill(queue, ask("c")) == "q"
        assert queue.end("a", 1) == []
        assert queue.end("b", 1) == ["c"]


class TestTurns:
    def test_sessions_take_turns(self) -> None:
        """A session with many commands does not make one with few wait for all of them."""
        queue = queue_of()
        fill(queue, ask("x"), *map(ask, ("a1", "a2", "a3", "b1", "b2", "c1")))
        order = ["a1", "b1", "c1", "a2", "b2", "a3"]
        assert [queue.position(each) for each in order] == list(range(6))
        assert drain(queue, "x") == order

    def test_tenants_take_turns_however_many_sessions_they_have(self) -> None:
        queue = queue_of(queue_limit=2000)
        fill(queue, ask("x", tenant="many"))
        fill(queue, *(ask(f"m{n}", f"m{n}", tenant="many") for n in range(1000)))
        fill(queue, ask("f1", tenant="few"), ask("f2", tenant="few"))
        assert [queue.position("f1"), queue.position("f2")] == [1, 3]
        assert drain(queue, "x")[:5] == ["m0", "f1", "m1", "f2", "m2"]

    def test_priority_is_a_share_not_a_right_of_way(self) -> None:
        """Ten more is four times the turns, and the other still has its own."""
        queue = queue_of()
        fill(queue, ask("x"), *(ask(f"l{n}") for n in range(2)))
        fill(queue, *(ask(f"h{n}", priority=10) for n in range(6)))
        order = ["h0", "h1", "h2", "l0", "h3", "h4", "h5", "l1"]
        assert [queue.position(each) for each in order] == list(range(8))
        assert drain(queue, "x") == order

    def test_who_comes_again_and_again_overtakes_nobody(self) -> None:
        """A session that asks anew after each command is behind one that has been waiting."""
        queue = queue_of()
        fill(queue, ask("a0"), ask("b1"), ask("b2"), ask("a1"))
        assert queue.end("a0", 1) == ["b1"]
        fill(queue, ask("a2"))
        assert queue.end("b1", 2) == ["a1"]
        fill(queue, ask("a3"))
        assert queue.end("a1", 3) == ["b2"]

    def test_a_tenant_cannot_fill_the_queue_for_others(self) -> None:
        queue = queue_of(queue_limit=4)
        assert fill(queue, *(ask(f"a{n}", tenant="a") for n in range(6))) == "gqqqqf"
        assert fill(queue, *(ask(f"b{n}", tenant="b") for n in range(3))) == "qqf"
        assert fill(queue, *(ask(f"c{n}", tenant="c") for n in range(2))) == "qf"

    def test_giving_up_leaves_the_others_their_places(self) -> None:
        queue = queue_of()
        fill(queue, ask("x"), ask("a1"), ask("a2"), ask("b1"))
        assert queue.end("a1", 1) == []
        assert [queue.position(each) for each in ("a1", "a2", "b1")] == [None, 0, 1]


class TestOvertaking:
    def test_what_fits_passes_what_does_not_for_a_while(self) -> None:
        queue = queue_of(2)
        assert fill(queue, ask("a"), ask("w", cpu=2), ask("n")) == "gqg"
        assert fill(queue, ask("m"), now=4) == "q"
        assert queue.end("n", 4.9) == ["m"]
        assert fill(queue, ask("l"), now=5) == "q"
        assert queue.end("m", 6) == []
        assert queue.shortage("w", 6) is Shortage.CPU
        assert queue.shortage("l", 6) is Shortage.TURN
        assert queue.end("a", 6) == ["w"]
        assert queue.end("w", 7) == ["l"]

    def test_giving_up_a_wide_one_lets_the_rest_go(self) -> None:
        queue = queue_of(2)
        assert fill(queue, ask("a"), ask("w", cpu=2)) == "gq"
        assert fill(queue, ask("n"), now=9) == "q"
        assert queue.end("w", 10) == ["n"]


class TestMemory:
    def test_reservations_stay_within_what_was_measured(self) -> None:
        """4000 MB, less a tenth, less 600 in others' use, less 128 for a place of the short lane."""
        queue = queue_of(8, short_places=1)
        queue.observe(reading(available_mb=3400), 0)
        assert queue.memory_budget_mb(0) == 3000
        fits, over = ask("a", memory_mb=2000), ask("b", memory_mb=873)
        assert fill(queue, fits, over, ask("c", memory_mb=872)) == "gqg"
        assert queue.memory_reserved_mb == 2872
        assert queue.shortage("b", 0) is Shortage.MEMORY
        assert queue.end("c", 1) == []
        assert queue.end("a", 1) == ["b"]

    def test_what_a_command_uses_counts_once(self) -> None:
        """Not also as others' use; and what it uses beyond its reservation is reserved too."""
        queue = queue_of(8, short_places=0)
        fill(queue, ask("a", memory_mb=1000))
        queue.observe(reading(available_mb=3200, execs={"a": ExecUse(None, 800)}), 1)
        assert (queue.memory_reserved_mb, queue.memory_budget_mb(1)) == (1000, 3600)
        queue.observe(reading(available_mb=1500, execs={"a": ExecUse(None, 2500.5)}), 2)
        assert (queue.memory_reserved_mb, queue.memory_budget_mb(2)) == (2501, 3600)
        assert fill(queue, ask("b", memory_mb=1100), now=2) == "q"
        assert queue.end("a", 3) == ["b"]
        assert queue.memory_reserved_mb == 1100

    def test_what_a_lease_uses_counts_once_where_its_caller_says(self) -> None:
        """The host knows nothing of it, so until then it is others' use as well."""
        queue = queue_of(8, short_places=0)
        fill(queue, ask("lease", memory_mb=1000))
        queue.observe(reading(available_mb=3200), 1)
        assert (queue.memory_reserved_mb, queue.memory_budget_mb(1)) == (1000, 2800)
        assert fill(queue, ask("b", memory_mb=2500), now=1) == "q"
        queue.measured("lease", ExecUse(None, 800), 2)
        assert queue.observe(reading(available_mb=3200), 3) == ["b"]
        assert (queue.memory_reserved_mb, queue.memory_budget_mb(3)) == (3500, 3600)
        queue.end("lease", 4)
        queue.measured("lease", ExecUse(None, 800), 5)
        assert queue.memory_reserved_mb == 2500

    def test_of_an_unknown_command_something_is_set_aside(self) -> None:
        queue = queue_of()
        fill(queue, ask("a"))
        assert queue.memory_reserved_mb == 256

    def test_one_command_may_always_run(self) -> None:
        """However much it is predicted to need: on its own."""
        queue = queue_of(2)
        queue.observe(reading(), 0)
        assert fill(queue, ask("a"), ask("b", memory_mb=64_000), ask("c")) == "gqg"
        assert queue.end("a", 6) == []
        assert queue.end("c", 6) == ["b"]
        assert fill(queue, ask("d"), now=7) == "q"
        assert queue.end("b", 8) == ["d"]

    def test_host_that_tells_nothing_has_half_of_what_it_told(self) -> None:
        queue = queue_of(8, short_places=0)
        queue.observe(reading(), 0)
        assert [queue.memory_budget_mb(now) for now in (10, 10.1)] == [3600, 2000]
        assert queue.reading_age_s(10.1) == 10.1
        assert fill(queue, ask("a", memory_mb=1500), ask("b", memory_mb=1000), now=11) == "gq"
        assert queue.observe(reading(), 12) == ["b"]

    def test_reading_without_memory_is_no_reading_of_it(self) -> None:
        queue = queue_of(8)
        queue.observe(reading(available_mb=None), 0)
        assert queue.memory_budget_mb(0) == 2000

    def test_nothing_is_known_so_memory_holds_nobody(self) -> None:
        queue = queue_of(8)
        assert queue.reading_age_s(0) is None
        assert queue.memory_budget_mb(0) is None
        assert fill(queue, ask("a", memory_mb=1e6), ask("b", memory_mb=1e6)) == "gg"

    def test_configured_memory_bounds_what_is_measured(self) -> None:
        queue = queue_of(8, memory_mb=1000)
        assert queue.memory_budget_mb(0) == 500
        queue.observe(reading(), 0)
        assert queue.memory_budget_mb(0) == 1000


class TestPressure:
    def test_memory_pressure_holds_starts_until_it_is_over(self) -> None:
        queue = queue_of(4)
        fill(queue, ask("a"))
        queue.observe(reading(memory_pressure=0.2), 1)
        assert fill(queue, ask("b"), now=1) == "q"
        assert queue.shortage("b", 1) is Shortage.PRESSURE
        assert queue.observe(reading(memory_pressure=0.15), 2) == []
        assert queue.observe(reading(memory_pressure=0.1), 3) == ["b"]

    def test_but_never_for_ever(self) -> None:
        """One start every half minute."""
        queue = queue_of(4)
        fill(queue, ask("a"))
        pressed = reading(memory_pressure=0.9)
        queue.observe(pressed, 0)
        assert fill(queue, ask("b"), ask("c")) == "qq"
        granted = {now: queue.observe(pressed, now) for now in range(1, 65)}
        assert {now: ids for now, ids in granted.items() if ids} == {30: ["b"], 60: ["c"]}

    def test_nor_a_host_on_which_nothing_runs(self) -> None:
        queue = queue_of(4)
        queue.observe(reading(memory_pressure=0.9), 0)
        assert fill(queue, ask("a"), ask("b")) == "gq"

    def test_nor_one_that_tells_nothing_any_more(self) -> None:
        queue = queue_of(4)
        fill(queue, ask("a"))
        queue.observe(reading(memory_pressure=0.9), 0)
        assert fill(queue, ask("b"), now=1) == "q"
        assert queue.tick(10.1) == ["b"]

    def test_slots_that_others_use_do_not_count(self) -> None:
        """Two cores, 1.5 of them busy with a stranger's work and half a core forgiven: one slot is left."""
        queue = queue_of(2)
        queue.observe(reading(cpu_busy=0.75, cpu_pressure=0.5), 0)
        assert fill(queue, ask("a"), ask("b")) == "gq"
        execs = {"a": ExecUse(0.5, None)}
        assert queue.observe(reading(cpu_busy=1.0, cpu_pressure=0.3, execs=execs), 1) == []
        assert queue.observe(reading(cpu_busy=1.0, cpu_pressure=0.2, execs=execs), 2) == ["b"]

    def test_our_own_commands_are_no_strangers(self) -> None:
        """However loudly they stall each other, and be they over by now."""
        queue = queue_of(2)
        queue.observe(reading(), 0)
        fill(queue, ask("a"), ask("b"))
        queue.end("a", 1)
        queue.end("b", 1)
        queue.observe(reading(cpu_busy=1.0, cpu_pressure=1.0), 1)
        assert fill(queue, ask("c"), ask("d"), now=1) == "gg"
        queue.observe(
            reading(cpu_busy=1, cpu_pressure=1, execs={"c": ExecUse(1.9, None), "d": ExecUse(0.1, None)}), 2
        )
        queue.end("c", 2)
        assert fill(queue, ask("e"), now=2) == "g"

    def test_who_is_crowded_out_entirely_still_runs_one(self) -> None:
        queue = queue_of(2)
        queue.observe(Reading(cores=16, cpu_busy=1.0, cpu_pressure=0.9), 0)
        assert fill(queue, ask("a"), ask("b")) == "gq"
        assert queue.end("a", 1) == ["b"]


class TestShortLane:
    def test_a_short_one_never_waits_behind_builds(self) -> None:
        queue = queue_of(2)
        assert (
            fill(queue, *(ask(f"b{n}") for n in range(9)), ask("s", expected_s=0.2)) == "gg" + "q" * 7 + "g"
        )
        assert (queue.used, queue.short_running, queue.short_places) == (2, 1, 1)
        assert queue.end("s", 0.1) == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"expected_s": None},
            {"expected_s": 1.1},
            {"expected_s": 0.1, "cpu": 1.1},
            {"expected_s": 0.1, "memory_mb": 129},
        ],
        ids=str,
    )
    def test_what_is_not_known_to_be_small_is_not_short(self, fields: dict[str, Any]) -> None:
        assert fill(queue_of(), ask("a"), ask("b", **fields)) == "gq"

    def test_the_lane_has_turns_of_its_own(self) -> None:
        queue = queue_of()
        fill(queue, ask("b"), *(ask(each, expected_s=0.1) for each in ("x1", "x2", "x3", "y1")))
        assert [queue.position(each) for each in ("x2", "y1", "x3")] == [0, 1, 2]
        assert drain(queue, "x1", 0.1) == ["x2", "y1", "x3"]

    def test_free_slots_are_for_short_ones_too(self) -> None:
        queue = queue_of(2, short_places=1)
        assert fill(queue, *(ask(f"s{n}", expected_s=0.1) for n in range(4))) == "gggq"
        assert (queue.used, queue.short_running) == (2, 1)
        assert queue.end("s0", 0.1) == ["s3"]

    def test_one_that_takes_longer_is_charged_like_any_other(self) -> None:
        """And the lane is closed until the slots have room for it."""
        queue = queue_of(short_places=1)
        fill(queue, ask("b1"), ask("s1", expected_s=0.1), ask("s2", expected_s=0.1), ask("b2"))
        assert queue.tick(1.9) == []
        assert (queue.used, queue.short_running) == (1, 1)
        assert queue.tick(2.0) == []
        assert (queue.used, queue.short_running) == (2, 0)
        assert queue.end("b1", 3) == ["s2"]
        assert queue.end("s1", 4) == ["b2"]

    def test_its_memory_is_its_own(self) -> None:
        """Neither do large commands take it, nor does the lane take more; but one may always run."""
        queue = queue_of(8, short_places=4)
        queue.observe(reading(total_mb=1000, available_mb=1000), 0)
        assert queue.memory_budget_mb(0) == 900
        assert fill(queue, ask("a", memory_mb=675), ask("b", memory_mb=1)) == "gq"
        assert fill(queue, *(ask(f"s{n}", expected_s=0.1, memory_mb=100) for n in range(3))) == "ggq"
        queue.observe(reading(total_mb=1000, available_mb=0, execs={"a": ExecUse(None, 1000)}), 1)
        assert queue.end("s0", 1) == []
        assert queue.end("s1", 1) == ["s2"]

    def test_pressure_does_not_hold_it(self) -> None:
        queue = queue_of(4)
        fill(queue, ask("a"))
        queue.observe(reading(memory_pressure=0.9), 0)
        assert fill(queue, ask("s", expected_s=0.1)) == "g"


class TestFamilies:
    def test_a_nested_command_uses_the_slot_that_its_parent_holds(self) -> None:
        queue = queue_of()
        assert fill(queue, ask("p", family="f"), ask("x"), ask("n", family="f")) == "gqg"
        assert (queue.used, queue.lent, queue.running) == (1, 1, 2)
        assert queue.end("n", 1) == []
        assert queue.end("p", 2) == ["x"]

    def test_once_not_for_each_that_it_starts(self) -> None:
        queue = queue_of()
        fill(queue, ask("p", family="f"))
        assert fill(queue, *(ask(f"{n}", family="f") for n in range(50))) == "g" + "q" * 49
        assert queue.end("0", 1) == ["1"]

    def test_when_the_parent_ends_first_its_slot_stays_with_the_child(self) -> None:
        queue = queue_of()
        fill(queue, ask("p", family="f"), ask("n", family="f"), ask("x"))
        assert queue.end("p", 1) == []
        assert (queue.used, queue.lent) == (1, 0)
        assert queue.end("n", 2) == ["x"]

    def test_a_family_cannot_keep_a_slot_by_lending_it_to_itself(self) -> None:
        queue = queue_of()
        assert fill(queue, ask("p", family="f"), ask("n", family="f"), ask("x")) == "ggq"
        queue.end("p", 1)
        assert fill(queue, ask("p2", family="f"), now=1) == "q"
        assert queue.end("n", 2) == ["x"]

    def test_parallel_calls_of_one_session_take_their_turns(self) -> None:
        queue = queue_of(2)
        assert fill(queue, *(ask(f"a{n}", family="f") for n in range(3)), ask("b")) == "ggqq"
        assert queue.end("a0", 1) == ["a2"]
        assert queue.end("a1", 1) == ["b"]

    @pytest.mark.parametrize("session", ["a", None], ids=["one session", "each its own"])
    def test_a_nest_of_any_likely_depth_comes_to_its_end(self, session: str | None) -> None:
        """Each command waits for the next one, and there is one slot."""
        queue = queue_of()
        fill(queue, ask("1", session, family="f"), ask("x"))
        for depth in range(2, 9):
            begin = depth * 100
            answer = queue.offer(ask(str(depth), session, family="f"), begin)
            if answer is Offer.QUEUED:
                granted = {now: queue.tick(now) for now in range(begin + 1, begin + 7)}
                assert {now: ids for now, ids in granted.items() if ids} == {begin + 5: [str(depth)]}
        assert queue.running == 8
        assert drain(queue, "8", 1000) == []
        for depth in range(7, 1, -1):
            assert queue.end(str(depth), 1000) == []
        assert queue.end("1", 1000) == ["x"]

    def test_a_family_that_computes_is_not_stuck(self) -> None:
        queue = queue_of()
        queue.observe(reading(), 0)
        fill(queue, ask("a1", family="f"), ask("a2", family="f"))
        for now in range(1, 30):
            assert queue.observe(reading(execs={"a1": ExecUse(now * 0.9, None)}), now) == []
        granted = {
            now: queue.observe(reading(execs={"a1": ExecUse(26.1 + (now - 29) * 0.02, None)}), now)
            for now in range(30, 40)
        }
        assert {now: ids for now, ids in granted.items() if ids} == {30: ["a2"]}

    def test_a_stuck_family_gets_memory_that_is_reserved_but_not_memory_that_is_used(self) -> None:
        queue = queue_of()
        used_mb = {"a1": 3500.0}
        fill(queue, ask("a1", family="f", memory_mb=3500), ask("a2", family="f", memory_mb=1000))

        def observe(now: float) -> list[str]:
            execs = {name: ExecUse(0, mb) for name, mb in used_mb.items()}
            return queue.observe(reading(available_mb=round(4000 - sum(used_mb.values())), execs=execs), now)

        assert [observe(now) for now in range(10)] == [[]] * 10
        used_mb["a1"] = 500
        assert observe(10) == ["a2"]

    def test_help_has_a_bound(self) -> None:
        queue = queue_of()
        fill(queue, *(ask(f"a{n:02}", family="f") for n in range(20)))
        for now in range(500):
            queue.tick(now)
        assert (queue.running, queue.queued) == (9, 11)

    def test_the_helped_are_charged_when_their_root_has_ended(self) -> None:
        queue = queue_of()
        fill(queue, *(ask(f"a{n}", family="f") for n in range(3)), ask("x"))
        for now in (6, 12):
            queue.tick(now)
        assert (queue.used, queue.lent) == (1, 2)
        assert queue.end("a0", 13) == []
        assert (queue.used, queue.lent) == (2, 0)
        assert queue.end("a1", 14) == []
        assert queue.end("a2", 14) == ["x"]


class TestPause:
    def test_a_host_that_drains_or_is_gone_starts_nothing(self) -> None:
        queue = queue_of()
        fill(queue, ask("a"))
        queue.pause()
        assert fill(queue, ask("b"), ask("s", expected_s=0.1)) == "qq"
        assert queue.end("a", 1) == []
        assert queue.shortage("b", 1) is Shortage.PAUSED
        assert queue.is_paused
        assert queue.resume(2) == ["s", "b"]
        assert queue.shortage("b", 2) is None


class TestWaits:
    def test_wait_follows_the_latest_starts(self) -> None:
        """A fifth of the way with each; and fades when nothing starts any more."""
        queue = queue_of()
        assert queue.wait_s(0) is None
        fill(queue, ask("a"))
        assert queue.wait_s(0) == 0
        fill(queue, ask("b"))
        queue.end("a", 10)
        assert queue.wait_s(10) == pytest.approx(2)
        queue.end("b", 10)
        assert queue.wait_s(20) == pytest.approx(1)

    def test_wait_is_at_least_that_of_who_still_waits(self) -> None:
        queue = queue_of()
        for name, now in (("a", 0), ("b", 5), ("c", 50)):
            fill(queue, ask(name), now=now)
        assert queue.wait_s(65) == 60
        assert queue.oldest_wait_s(65) == 60
        queue.end("b", 65)
        assert queue.wait_s(65) == 15

    def test_retry_after_follows_run_times(self) -> None:
        queue = queue_of(2, queue_limit=0)
        assert queue.retry_after_s(0) == 1
        fill(queue, ask("a"))
        queue.end("a", 30)
        fill(queue, ask("b"), ask("c"), now=30)
        assert queue.retry_after_s(30) == 15
        assert queue.retry_after_s(100) == 35
        assert queue.retry_after_s(1000) == 60

    def test_hopeless_asks_are_told_at_once_if_one_wants_it(self) -> None:
        """Thirty seconds each, one after the other; five wait for no longer than one minute."""
        for refuses, answers in ((False, "gqqqqq"), (True, "gqqfff")):
            queue = queue_of(refuses_hopeless=refuses)
            fill(queue, ask("x"))
            queue.end("x", 30)
            asks = [ask(f"a{n}", queue_timeout_s=60) for n in range(6)]
            assert fill(queue, *asks, now=30) == answers
