"""What is asked of which engine for a session's blocks."""

import pytest

from marsproxy.core.commands import HintKv, KvAction, KvLease, YieldsTo
from marsproxy.core.events import LeaseExpired, LeaseResumed
from marsproxy.core.headroom import BackendState
from marsproxy.core.lease_worth import LEAST_ENDS
from marsproxy.core.leases import Leases
from marsproxy.core.sessions import SessionState

TTL_S = 120.0
EXPIRED = LeaseExpired("a", "gpu", 1_000)
LEASE = KvLease(TTL_S, YieldsTo.RETURNING)


def leases(*, takes_hints: bool = True, is_on: bool = True) -> Leases:
    backends = {name: BackendState(name) for name in ("gpu", "stock")}
    backends["gpu"].takes_hints = takes_hints
    return Leases(backends, TTL_S, is_on=is_on)


def session(backend: str | None = "gpu", *, is_counted: bool = True) -> SessionState:
    made = SessionState("a", "", "family", 0.0, 0.0, backend=backend)
    made.is_counted = is_counted
    return made


def useless(of: SessionState) -> Leases:
    """Of the session's leases nothing was ever hit, and it has been asked."""
    made = leases()
    for _ in range(LEAST_ENDS):
        made.resumed(of, LeaseResumed("a", "gpu", 1_000, 0))
    assert made.try_ask(of) is None
    return made


def hint(action: KvAction, ttl_s: float | None = None) -> HintKv:
    return HintKv("a", "gpu", action, ttl_s)


def test_a_turn_asks_for_a_lease_that_yields_to_those_who_return():
    assert leases().try_ask(session()) == LEASE


def test_a_session_that_is_over_asks_for_none():
    over = session()
    over.is_over = True
    assert leases().try_ask(over) is None


@pytest.mark.parametrize(
    ("made", "of"),
    [
        (leases(takes_hints=False), session()),
        (leases(is_on=False), session()),
        (leases(), session("stock")),
        (leases(), session(None)),
    ],
)
def test_nobody_is_asked_who_does_not_take_hints(made: Leases, of: SessionState):
    assert made.try_ask(of) is None
    assert made.try_keep(of, 10.0) is None
    assert made.try_let_go(of, is_expected=True) is None
    assert made.try_renew(of, EXPIRED, 10.0, is_overdue=False) is None


def test_a_gap_that_began_without_a_lease_gets_one_for_as_long_as_it_may_last():
    assert leases().try_keep(session(), 30.0) == hint(KvAction.KEEP, 30.0)
    assert leases().try_keep(session(), 0.0) is None


@pytest.mark.parametrize(("is_expected", "action"), [(True, KvAction.RELEASE), (False, KvAction.DEMOTE)])
def test_who_lost_its_place_lets_go(is_expected: bool, action: KvAction):
    assert leases().try_let_go(session(), is_expected=is_expected) == hint(action)


def test_who_hits_nothing_is_kept_by_no_means_but_still_let_go():
    of = session()
    made = useless(of)
    assert made.try_keep(of, 30.0) is None
    assert made.try_let_go(of, is_expected=False) == hint(KvAction.DEMOTE)


def test_a_lease_that_ran_out_in_a_gap_is_renewed_and_held_against_nobody():
    of, made = session(), leases()
    for _ in range(5):
        assert made.try_renew(of, EXPIRED, 40.0, is_overdue=False) == hint(KvAction.KEEP, 40.0)
    assert made.try_ask(of) == LEASE


@pytest.mark.parametrize(
    ("of", "left_s"), [(session(), 0.0), (session(is_counted=False), 40.0), (session("stock"), 40.0)]
)
def test_a_lease_that_nobody_came_back_for_is_not(of: SessionState, left_s: float):
    made = leases()
    for _ in range(LEAST_ENDS):
        assert made.try_renew(of, EXPIRED, left_s, is_overdue=False) is None
    of.backend = "gpu"
    assert made.try_ask(of) is None


def test_a_lease_of_a_place_that_is_overdue_comes_back_when_the_session_is_about_to():
    of, made = session(), leases()
    for _ in range(LEAST_ENDS):
        assert made.try_renew(of, EXPIRED, 40.0, is_overdue=True) is None
        assert made.try_keep_again(of, 30.0) == hint(KvAction.KEEP, 30.0)
        assert made.try_keep_again(of, 30.0) is None
    assert made.try_ask(of) == LEASE


def test_a_lease_that_is_still_there_is_not_asked_for_again():
    of, made = session(), leases()
    assert made.try_ask(of) == LEASE
    assert made.try_keep_again(of, 30.0) is None


def test_what_a_session_taught_goes_with_it():
    of = session()
    made = useless(of)
    made.forget(of)
    another = SessionState("a", "", "another family", 0.0, 0.0, backend="gpu")
    assert made.try_ask(another) == LEASE
