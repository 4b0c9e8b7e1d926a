"""The order of the backends, against asking all of them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.events import BackendObserved
from marsproxy.core.fleet import Fleet, Load, Wanted
from marsproxy.core.headroom import BackendState

STALE_S = 10.0
NAMES = [f"b{number}" for number in range(5)]

backends = st.sampled_from(NAMES)
steps = st.one_of(
    st.tuples(st.just("observe"), backends, st.sampled_from([None, 1_000, 4_000])),
    st.tuples(st.just("promise"), backends, st.integers(-500, 2_000)),
    st.tuples(st.just("lose"), backends, st.none()),
    st.tuples(st.just("wait"), st.none(), st.integers(0, 12)),
)


def load_of(backend: BackendState, index: int, now: float) -> Load:
    pool = backend.known_pool_tokens(now, STALE_S)
    if pool is not None:
        return (False, backend.reserved_tokens / pool, index)
    return (not backend.is_reachable, float(len(backend.counted)), index)


@given(st.lists(steps, max_size=40))
def test_the_roomiest_is_the_one_that_asking_all_would_find(taken: list[tuple[str, str, int | None]]) -> None:
    fleet, now = Fleet(NAMES, STALE_S), 0.0
    for step, name, amount in taken:
        match step:
            case "observe":
                fleet.observe(BackendObserved(name, kv_tokens_total=amount), now)
            case "promise":
                fleet.states[name].reserved_tokens += amount or 0
                fleet.changed(fleet.states[name])
            case "lose":
                fleet.lost(name)
            case "wait":
                now += amount or 0
        states = [fleet.states[each] for each in NAMES]
        expected = min(load_of(state, index, now) for index, state in enumerate(states))
        assert next(fleet.roomiest_first(Wanted(), now)) is states[expected[2]]
        pools = [state.kv_tokens_total or -math.inf for state in states]
        assert (fleet.largest_pool_tokens or -math.inf) == max(pools)


def test_a_backend_with_room_comes_before_one_that_is_not_known() -> None:
    fleet = Fleet(["a", "b"], STALE_S)
    fleet.observe(BackendObserved("b", kv_tokens_total=1_000), 0.0)
    fleet.states["b"].reserved_tokens = 999.0
    fleet.changed(fleet.states["b"])
    fleet.lost("a")
    assert next(fleet.roomiest_first(Wanted(), STALE_S)).name == "b"
    assert fleet.known_pool(fleet.states["b"], STALE_S) == 1_000
    assert fleet.known_pool(fleet.states["b"], STALE_S + 1) is None
