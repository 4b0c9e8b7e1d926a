"""Charges and what keeps a session out, without a queue around them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.budgets import Budgets
from marsproxy.core.commands import Reason
from marsproxy.core.correction import DWELL_S
from marsproxy.core.events import BackendObserved, Ending, ToolHostsObserved, TurnArrived, TurnEnded
from marsproxy.core.evidence import TurnKind
from marsproxy.core.fleet import Wanted
from marsproxy.core.histogram import Curve, certain
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import Parts, PolicySettings
from tests.marsproxy.core.playbook import ROUND_NUMBERS, Foretold, arrives

NEW, RETURN = TurnClass.NEW, TurnClass.RETURN


def budgets_of(
    *backends: str,
    pool: int | None = 100_000,
    parts: Parts | None = None,
    takes_hints: bool = False,
    **changes: Any,
) -> Budgets:
    admission = replace(ROUND_NUMBERS, **changes)
    budgets = Budgets(
        PolicySettings(admission, parts=parts or Parts()), backends or ("gpu",), Foretold(admission)
    )
    if pool is not None:
        for name in budgets.backends:
            observe(budgets, BackendObserved(name, pool, takes_hints=takes_hints))
    return budgets


def observe(
    budgets: Budgets, event: BackendObserved, now: float = 0.0, *, is_waited_for: bool = False
) -> None:
    budgets.observe(event, now, is_waited_for=is_waited_for)


def session(name: str, family: str = "family") -> SessionState:
    return SessionState(name, "", family, 0.0, 0.0)


def charged(
    budgets: Budgets, name: str, tokens: int, backend: str = "gpu", family: str = "family"
) -> SessionState:
    one = session(name, family)
    budgets.charge(one, budgets.backends[backend], tokens)
    return one


def ran(
    budgets: Budgets, one: SessionState, prompt: int, cached: int | None = None, ttft_s: float | None = None
):
    """A turn of the session has finished."""
    ended = TurnEnded("t", Ending.FINISHED, prompt, cached, completion_tokens=0)
    budgets.returned(one, ended)
    one.turns += 1
    one.grow_to(prompt)
    budgets.computed(one, ended, ttft_s)
    budgets.recharge(one)


def obstacle(budgets: Budgets, tokens: int, turn_class: TurnClass = NEW, now: float = 0.0) -> Reason | None:
    chosen = budgets.choose(session("newcomer"), turn_class, tokens, Wanted(), now)
    return chosen if isinstance(chosen, Reason) else None


# -- what keeps a session out ---------------------------------------------------------------------


def test_it_fits_to_the_last_token_of_the_target():
    budgets = budgets_of()
    charged(budgets, "a", 60_000)
    assert obstacle(budgets, 30_000) is None
    assert obstacle(budgets, 30_001) is Reason.KV_FULL


def test_where_nothing_is_counted_anything_fits():
    assert obstacle(budgets_of(), 10_000_000) is None
    assert obstacle(budgets_of(pool=None), 10_000_000) is None


@pytest.mark.parametrize("turn_class", [NEW, RETURN])
def test_an_unknown_pool_takes_so_many_sessions(turn_class):
    budgets = budgets_of(pool=None, fallback_concurrency=2)
    charged(budgets, "a", 1)
    assert obstacle(budgets, 10_000_000, turn_class) is None
    charged(budgets, "b", 1)
    assert obstacle(budgets, 1, turn_class) is Reason.TELEMETRY_UNKNOWN


def test_busy_tool_hosts_keep_new_sessions_out_and_no_others():
    budgets = budgets_of()
    budgets.tools.hosts.observe(ToolHostsObserved(cores=1.0, running=99, queued=0), 0.0)
    assert obstacle(budgets, 1) is None
    charged(budgets, "a", 1)
    assert obstacle(budgets, 1) is Reason.TOOLS_BUSY
    assert obstacle(budgets, 1, RETURN) is None


def test_blocks_that_new_sessions_cannot_take_may_all_be_promised():
    budgets = budgets_of(takes_hints=True)
    charged(budgets, "a", 60_000)
    assert obstacle(budgets, 40_000) is None
    assert obstacle(budgets, 40_001) is Reason.KV_FULL


def test_without_retention_nothing_is_protected_and_the_rest_is_kept_free():
    budgets = budgets_of(takes_hints=True, parts=Parts(retention=False))
    charged(budgets, "a", 60_000)
    assert obstacle(budgets, 30_001) is Reason.KV_FULL


def test_without_the_gpu_budget_memory_keeps_nobody_out():
    budgets = budgets_of(parts=Parts(gpu_budget=False))
    charged(budgets, "a", 90_000)
    assert obstacle(budgets, 90_000) is None


def test_growth_is_reserved_with_the_context():
    """Half of the way to the 20,000 that a session is expected to reach."""
    budgets = budgets_of(growth_beta=0.5)
    one = charged(budgets, "a", 1_000)
    assert 10_000 <= one.charged_tokens <= 11_000


@given(st.integers(0, 40_000), st.integers(0, 40_000), st.sampled_from([0.0, 0.5, 1.0]))
def test_what_is_found_free_is_what_is_taken(known, brought, beta):
    """The forecast is asked about the context that the turn brings, not about the one that was known."""
    budgets = budgets_of(growth_beta=beta)
    charged(budgets, "other", 62_000)
    one = session("a")
    one.context_tokens = known
    chosen = budgets.choose(one, RETURN, brought, Wanted(), 0.0)
    budgets.charge(one, budgets.backends["gpu"], brought)
    assert (budgets.loads(0.0)["gpu"] <= 90_000) == (chosen is budgets.backends["gpu"])


# -- charges --------------------------------------------------------------------------------------


def test_a_charge_is_given_back_as_it_was_taken():
    budgets = budgets_of(growth_beta=0.5)
    one = charged(budgets, "a", 15_000)
    one.context_tokens = 40_000
    budgets.release(one, 0.0)
    assert budgets.loads(0.0) == {"gpu": 0.0}
    budgets.release(one, 0.0)
    assert budgets.loads(0.0) == {"gpu": 0.0}


def test_what_a_family_shares_is_charged_with_its_first_and_given_back_with_its_last():
    budgets = budgets_of()
    budgets.learn_shared(session("past"), 10_000)
    a, b = charged(budgets, "a", 15_000), charged(budgets, "b", 15_000)
    assert budgets.loads(0.0) == {"gpu": 20_000}
    budgets.release(a, 0.0)
    assert budgets.loads(0.0) == {"gpu": 15_000}
    budgets.release(b, 0.0)
    assert budgets.loads(0.0) == {"gpu": 0}


def test_the_first_of_a_family_needs_room_for_what_it_shares():
    budgets = budgets_of()
    charged(budgets, "a", 76_000, family="other")
    budgets.learn_shared(session("past"), 10_000)
    assert obstacle(budgets, 15_000) is Reason.KV_FULL
    assert obstacle(budgets, 14_000) is None


def test_what_is_learned_of_a_family_at_work_moves_its_shared_charge_at_once():
    budgets = budgets_of()
    a = charged(budgets, "a", 15_000)
    budgets.learn_shared(a, 10_000)
    assert budgets.loads(0.0) == {"gpu": 25_000}, "until its next turn its own charge is as it was"
    budgets.recharge(a)
    assert budgets.loads(0.0) == {"gpu": 15_000}
    budgets.release(a, 0.0)
    assert budgets.loads(0.0) == {"gpu": 0}


steps = st.lists(
    st.tuples(
        st.sampled_from(["toggle", "grow", "learn"]),
        st.integers(0, 5),
        st.integers(0, 60_000),
        st.sampled_from(["one", "two"]),
    ),
    max_size=60,
)


@given(steps, st.sampled_from([0.0, 0.5, 1.0]))
def test_the_sums_are_those_of_the_sessions_whatever_comes(steps, beta):
    """No decision looks at every session, so the running sums must be what looking would find."""
    budgets = budgets_of("one", "two", growth_beta=beta)
    sessions = [session(f"s{number}", family="fg"[number % 2]) for number in range(6)]
    for step, number, tokens, backend in steps:
        one = sessions[number]
        if step == "learn":
            budgets.learn_shared(one, tokens)
        elif step == "grow":
            one.context_tokens = tokens
            budgets.recharge(one)
        elif one.is_counted:
            budgets.release(one, 0.0)
        else:
            budgets.charge(one, budgets.backends[backend], tokens)
        for name, state in budgets.backends.items():
            counted = [each for each in sessions if each.is_counted and each.backend == name]
            shared = sum(budgets.shared.of(family, name) for family in {each.family for each in counted})
            assert list(state.counted.values()) == sorted(counted, key=list(state.counted.values()).index)
            assert state.reserved_tokens == pytest.approx(
                shared + sum(each.charged_tokens for each in counted), abs=1e-3
            )
            assert state.context_tokens == shared + sum(each.charged_context for each in counted)
            assert sum(state.families.values()) == len(counted)


# -- warmth ---------------------------------------------------------------------------------------


def idle(budgets: Budgets, tokens: int = 15_000) -> SessionState:
    one = charged(budgets, "idle", tokens)
    ran(budgets, one, tokens)
    budgets.release(one, 0.0)
    return one


def test_idle_blocks_last_until_the_free_ones_and_half_of_them_are_used():
    budgets = budgets_of()
    other = charged(budgets, "other", 60_000)
    one = idle(budgets)
    room = 100_000 - 60_000 - 15_000
    ran(budgets, other, room + 7_500)
    assert budgets.is_warm(one)
    ran(budgets, other, 1)
    assert not budgets.is_warm(one)


def test_who_never_ran_is_not_warm():
    budgets = budgets_of()
    one = charged(budgets, "a", 15_000)
    budgets.release(one, 0.0)
    assert not budgets.is_warm(one)
    assert not budgets.is_warm(session("b"))


def test_where_the_pool_is_unknown_only_half_of_its_own_blocks_are_left_to_use():
    budgets = budgets_of(pool=None)
    other = charged(budgets, "other", 1)
    one = idle(budgets)
    ran(budgets, other, 7_500)
    assert budgets.is_warm(one)
    ran(budgets, other, 1)
    assert not budgets.is_warm(one)


def test_nothing_is_warm_on_a_backend_that_cannot_be_reached():
    budgets = budgets_of()
    one = idle(budgets)
    budgets.fleet.lost("gpu")
    assert not budgets.is_warm(one)


# -- correction -----------------------------------------------------------------------------------


def test_what_counted_sessions_lose_makes_the_promise_smaller():
    budgets = budgets_of()
    a = charged(budgets, "a", 60_000)
    ran(budgets, a, 60_000, cached=0)
    ran(budgets, a, 60_000, cached=50_000)
    observe(budgets, BackendObserved("gpu", 100_000), DWELL_S)
    assert budgets.target(budgets.backends["gpu"]) == pytest.approx(0.9 * 0.95)


def test_the_last_block_of_a_prefix_is_never_cached_and_never_lost():
    budgets = budgets_of()
    a = charged(budgets, "a", 1_000)
    ran(budgets, a, 1_000)
    ran(budgets, a, 1_040, cached=976)
    observe(budgets, BackendObserved("gpu", 100_000), DWELL_S, is_waited_for=True)
    assert budgets.target(budgets.backends["gpu"]) == pytest.approx(0.9 * 1.02)


def test_only_preemptions_since_the_last_reading_count():
    """The first reading may be of an engine that has run for days; one started anew begins at 0 again."""
    budgets = budgets_of()
    for now, total in [(0.0, 500), (DWELL_S, 500), (DWELL_S + 1, 3)]:
        observe(budgets, BackendObserved("gpu", 100_000, preemptions_total=total), now)
    observe(budgets, BackendObserved("gpu", 100_000), 2 * DWELL_S)
    assert budgets.corrections["gpu"].factor == 1.0
    observe(budgets, BackendObserved("gpu", 100_000, preemptions_total=4), 2 * DWELL_S + 1)
    observe(budgets, BackendObserved("gpu", 100_000), 3 * DWELL_S)
    assert budgets.corrections["gpu"].factor == 0.95


def test_without_correction_the_target_stays():
    budgets = budgets_of(parts=Parts(correction=False))
    budgets.corrections["gpu"].factor = 0.7
    assert budgets.target(budgets.backends["gpu"]) == 0.9


# -- what a place is worth ------------------------------------------------------------------------


def test_a_place_is_kept_to_the_end_where_the_pool_is_unknown():
    budgets = budgets_of(pool=None)
    assert budgets.best_keep_s(charged(budgets, "a", 15_000), certain(1e6), 30.0, 0.0) == 30.0


def test_a_place_is_worth_its_prefill_and_costs_its_share_of_the_pool():
    """1.5 s of prefill against 0.03 s of the engine for every second."""
    budgets = budgets_of()
    a = charged(budgets, "a", 15_000)
    soon, late = Curve((0.0, 49.0), (0.0, 1.0)), Curve((48.0, 52.0), (0.0, 1.0))
    assert budgets.best_keep_s(a, soon, 120.0, 0.0) == 49.0
    assert budgets.best_keep_s(a, late, 120.0, 0.0) == 0.0


def test_the_pool_is_overfull_when_what_is_really_there_passes_the_valve():
    budgets = budgets_of(valve=0.95, growth_beta=1.0)
    a = charged(budgets, "a", 10)
    a.context_tokens = 95_000
    budgets.recharge(a)
    assert not budgets.is_overfull(budgets.backends["gpu"], 0.0)
    a.context_tokens = 95_001
    budgets.recharge(a)
    assert budgets.is_overfull(budgets.backends["gpu"], 0.0)
    assert not budgets.is_overfull(budgets.backends["gpu"], 1e10), "unknown by then"


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "known", "brought", "context"),
    [
        (TurnKind.CONTINUATION, 20_000, 15_000, 20_000),
        (TurnKind.CONTINUATION, 20_000, 25_000, 25_000),
        (TurnKind.CONDENSED, 20_000, 15_000, 15_000),
    ],
)
def test_a_prompt_is_as_long_as_was_known_unless_it_brings_more_or_was_rewritten(
    kind, known, brought, context
):
    one = session("a")
    one.context_tokens = known
    arrival: TurnArrived = arrives("a1", tokens=brought, kind=kind)
    assert budgets_of().context_of(arrival, one) == context


def test_a_size_is_compared_with_those_admitted_of_late():
    budgets = budgets_of()
    assert budgets.relative_size(session("b"), 30_000) == 1.0
    charged(budgets, "a", 15_000)
    assert budgets.relative_size(session("b"), 30_000) == 2.0


def test_loads_are_told_of_known_pools_only():
    budgets = budgets_of("one", "two", pool=None)
    observe(budgets, BackendObserved("two", 100_000))
    charged(budgets, "a", 15_000, backend="two")
    assert budgets.loads(0.0) == {"two": 15_000}
