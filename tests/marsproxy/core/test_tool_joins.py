"""A run is joined to the session that waits for it, and to no other one's."""

from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.events import ToolObserved, ToolPhase
from marsproxy.core.sessions import SessionState
from marsproxy.core.tool_joins import MAX_CLUES, MAX_PARTNERS, JoinedBy, Partners, ToolJoins


def session(session_id: str, tenant: str = "") -> SessionState:
    return SessionState(session_id, tenant, "family", 0.0, 0.0)


def run(digest: str | None = None, *, call: str | None = None, by: str | None = None) -> ToolObserved:
    return ToolObserved("x", ToolPhase.QUEUED, "place", None, call, digest, principal=by)


def waiting(*sessions: SessionState, digest: str = "ls") -> ToolJoins:
    joins = ToolJoins()
    for each in sessions:
        joins.expect(each, (), (digest,))
    return joins


# -- clues ----------------------------------------------------------------------------------------


def test_the_only_one_who_waits_for_a_command_is_found():
    a = session("a")
    joins = waiting(a)
    assert joins.try_find(run("ls")) == (a, JoinedBy.COMMAND)
    assert joins.try_find(run("pytest")) is None
    assert joins.try_find(run()) is None


def test_the_id_of_a_call_says_more_than_its_command():
    a, b = session("a"), session("b")
    joins = ToolJoins()
    joins.expect(a, ("call-a",), ("ls",))
    joins.expect(b, ("call-b",), ("ls",))
    assert joins.try_find(run("ls", call="call-b")) == (b, JoinedBy.CALL_ID)
    assert joins.try_find(run("ls", call="of nobody")) is None


def test_a_command_that_two_wait_for_is_nobodys_until_nobody_waits():
    """The one who is left need not be the one whose run is told late."""
    a, b = session("a"), session("b")
    joins = waiting(a, b)
    assert joins.try_find(run("ls")) is None
    joins.forget(a)
    assert joins.try_find(run("ls")) is None
    joins.forget(b)
    joins.expect(b, (), ("ls",))
    assert joins.try_find(run("ls")) == (b, JoinedBy.COMMAND)


def test_what_one_waits_with_is_bounded_and_goes_with_it():
    a, joins = session("a"), ToolJoins()
    joins.expect(a, (), [f"d{number}" for number in range(1_000)])
    assert len(joins) == MAX_CLUES
    joins.expect(a, ("call",), ("ls", "ls"))
    assert len(joins) == 2
    joins.forget(a)
    joins.forget(a)
    assert len(joins) == 0


# -- tenants and principals -----------------------------------------------------------------------


def test_a_principal_proven_to_be_one_tenants_joins_nobody_elses():
    a, b = session("a", "tenant-a"), session("b", "tenant-b")
    joins = waiting(b)
    joins.proven(run("make", by="alice"), a)
    assert joins.try_find(run("ls", by="alice")) is None
    assert joins.try_find(run("ls", by="bob")) == (b, JoinedBy.COMMAND)


def test_a_tenant_proven_to_be_one_principals_is_joined_by_nobody_else():
    a = session("a", "tenant-a")
    joins = waiting(a)
    joins.proven(run("make", by="alice"), session("other", "tenant-a"))
    assert joins.try_find(run("ls", by="bob")) is None
    assert joins.try_find(run("ls", by="alice")) == (a, JoinedBy.COMMAND)


def test_a_gateway_that_tells_nobody_apart_is_one_principal_to_all():
    a, b = session("a", "tenant-a"), session("b", "tenant-b")
    joins = waiting(b)
    joins.proven(run("make"), a)
    assert joins.try_find(run("ls")) == (b, JoinedBy.COMMAND)


def test_partners_are_bounded():
    partners = Partners()
    for number in range(MAX_PARTNERS + 1):
        partners.add("gateway", f"tenant-{number}")
    assert partners.may_be("gateway", "tenant-0")
    assert not partners.may_be("gateway", f"tenant-{MAX_PARTNERS}")
    assert partners.may_be("stranger", "anybody")


TENANT_OF = {"alice": "tenant-a", "bob": "tenant-b"}
"""In truth: each principal works for one tenant."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "return", "run", "run named"]),
        st.sampled_from([*TENANT_OF]),
        st.integers(0, 2),
        st.sampled_from(["ls", "make"]),
    ),
    max_size=40,
)


@given(STEPS)
def test_runs_cross_neither_tenants_nor_agents(steps: list[tuple[str, str, int, str]]):
    """Of tenants, once either side is proven; and what two wait for is nobody's."""
    sessions = {(who, n): session(f"{who}-{n}", TENANT_OF[who]) for who in TENANT_OF for n in range(3)}
    joins, proven, wanted = ToolJoins(), set[str](), dict[str, str]()
    for what, who, number, digest in steps:
        of = sessions[who, number]
        if what == "wait":
            joins.expect(of, (), (digest,))
            wanted[of.id] = digest
        elif what == "return":
            joins.forget(of)
            wanted.pop(of.id, None)
        elif what == "run named":
            joins.proven(run(digest, by=who), of)
            proven.add(who)
        elif (found := joins.try_find(run(digest, by=who))) is not None:
            assert [name for name in wanted if wanted[name] == digest] == [found[0].id]
            owner = found[0].id.split("-")[0]
            assert owner == who or proven.isdisjoint({owner, who})
