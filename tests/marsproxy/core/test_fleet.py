"""The roomiest backend is found without asking all, and is the one that asking all would find."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.events import BackendObserved
from marsproxy.core.fleet import Fleet
from marsproxy.core.sessions import SessionState

STALE_S = 10.0
NAMES = ("one", "two", "three")


def by_asking_all(fleet: Fleet, now: float) -> str:
    def load(name: str) -> tuple[bool, float]:
        backend = fleet.states[name]
        pool = fleet.known_pool(backend, now)
        if pool is None:
            return (not backend.is_reachable, float(len(backend.counted)))
        return (False, backend.reserved_tokens / pool)

    return min(NAMES, key=load)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "lost", "charge", "release", "wait"]),
            st.sampled_from(NAMES),
            st.sampled_from([None, 1_000, 50_000]),
        ),
        max_size=60,
    )
)
def test_the_roomiest_is_the_one_that_asking_all_would_find(steps):
    fleet, now = Fleet(NAMES, STALE_S), 0.0
    for number, (step, name, tokens) in enumerate(steps):
        now += 1.0
        backend = fleet.states[name]
        match step:
            case "read":
                fleet.observe(BackendObserved(name, tokens), now)
            case "lost":
                fleet.lost(name)
            case "wait":
                now += STALE_S
            case "charge":
                fleet.changed(backend)
                backend.charge(SessionState(f"s{number}", "", "family", now, now))
                backend.reserved_tokens += tokens or 0
            case "release" if backend.counted:
                fleet.changed(backend)
                backend.release(next(iter(backend.counted.values())))
                backend.reserved_tokens /= 2
        assert fleet.roomiest(now).name == by_asking_all(fleet, now)


def test_the_largest_pool_is_that_of_any_backend_that_told():
    fleet = Fleet(NAMES, STALE_S)
    assert fleet.largest_pool_tokens is None
    for name, tokens in [("one", 1_000), ("two", 5_000), ("three", None)]:
        fleet.observe(BackendObserved(name, tokens), 0.0)
    assert fleet.largest_pool_tokens == 5_000
