"""The tables: who owns a piece of evidence, and in which order the owners queue."""

from marsproxy.core.frontiers import Frontier, Session, State
from marsproxy.core.tenant import Owners, Prefixes, Tenant


def frontier(session: Session | None = None, key: bytes = b"key") -> Frontier:
    return Frontier(session or Session("s", "t"), turn=1, length=2, request_key=key, has_tools=True)


def test_evidence_of_two_sessions_has_no_sole_owner() -> None:
    owners: Owners[str] = Owners()
    one, two = frontier(), frontier()
    owners.add("id", one)
    assert owners.sole("id") is one
    owners.add("id", two)
    assert owners.sole("id") is None
    assert owners.few("id", 2) == (one, two)
    assert owners.few("id", 1) == ()
    owners.drop("id", one)
    assert owners.sole("id") is two
    owners.drop("id", two)
    assert list(owners) == []


def test_latest_of_one_session_owns_alone() -> None:
    owners: Owners[str] = Owners()
    session = Session("s", "t")
    first, second = frontier(session), frontier(session)
    owners.add("id", first)
    owners.add("id", second)
    assert owners.sole("id") is second


def test_dropping_what_another_owns_changes_nothing() -> None:
    owners: Owners[str] = Owners()
    one = frontier()
    owners.add("id", one)
    owners.drop("id", frontier())
    owners.drop("other", one)
    assert owners.sole("id") is one


def test_first_is_the_one_longest_in_that_state() -> None:
    tenant = Tenant("t")
    one, two, three = frontier(), frontier(), frontier()
    for f in (one, two, three):
        tenant.add(f)
    for f in (two, three, one):
        tenant.move(f, State.WAITING)
    assert tenant.requests.first(b"key", State.WAITING) is two
    assert tenant.requests.first(b"key", State.RUNNING) is None
    tenant.move(two, State.CLOSED)
    assert tenant.requests.first(b"key", State.WAITING) is three
    assert tenant.requests.first(b"key", State.CLOSED) is two
    assert len(tenant.requests.some(b"key", 2)) == 2


def test_shared_key_shrinks_to_nothing() -> None:
    prefixes = Prefixes()
    one, two = frontier(), frontier()
    prefixes.add(b"key", one)
    prefixes.add(b"key", two)
    prefixes.drop(b"key", one)
    assert prefixes.some(b"key", 9) == [two]
    prefixes.drop(b"key", two)
    prefixes.drop(b"key", two)
    assert list(prefixes) == []
    assert prefixes.some(b"key", 9) == []


def test_thousands_share_a_key_first_come_first_served() -> None:
    """A benchmark's first prompt."""
    tenant = Tenant("t")
    frontiers = [frontier() for _ in range(3_000)]
    for f in frontiers:
        tenant.add(f)
        tenant.move(f, State.WAITING)
    for f in frontiers:
        assert tenant.requests.first(b"key", State.WAITING) is f
        tenant.move(f, State.CLOSED)
