"""What one tenant's sessions do teaches nobody what another's will do."""

from itertools import count

import pytest

from marsproxy.core.events import (
    BackendObserved,
    Ending,
    SessionEnded,
    TenantLimits,
    TenantsChanged,
    TurnArrived,
    TurnEnded,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policies import POLICIES
from marsproxy.core.sessions import Phase
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.tenant_limits import LimitedPolicy

FAMILY = "the same agent"
NAMED = (TenantLimits("calm"), TenantLimits("bad"))
SETTINGS = PolicySettings(AdmissionSettings(telemetry_stale_s=1e9))


class World:
    """Sessions of several tenants, one turn after the other."""

    def __init__(self, tenants: tuple[TenantLimits, ...]) -> None:
        self.policy = LimitedPolicy(POLICIES["mars"].make(SETTINGS, ("a",)))
        self._numbers = count()
        self._now = 0.0
        self.policy.handle(TenantsChanged(tenants), 0.0)
        self.policy.handle(BackendObserved("a", kv_tokens_total=1_000_000), 0.0)

    def turn(self, tenant: str, session: str, kind: TurnKind, tokens: int = 1000) -> None:
        """One that is answered with text."""
        turn_id = f"turn {next(self._numbers)}"
        self._now += 1.0
        self.policy.handle(TurnArrived(turn_id, session, kind, tenant, FAMILY, tokens), self._now)
        self.policy.handle(TurnEnded(turn_id, Ending.FINISHED, tokens, 0, 10), self._now)

    def goes_on_after_text(self, tenant: str, sessions: int) -> None:
        for number in range(sessions):
            session = f"{tenant} {number}"
            self.turn(tenant, session, TurnKind.FIRST)
            self.turn(tenant, session, TurnKind.CONTINUATION)

    def phase(self, session: str) -> Phase:
        found = self.policy.sessions.get(session)
        assert found is not None
        return found.phase

    def reserved_by(self, session: str) -> float:
        before = self.policy.reserved_tokens(self._now)["a"]
        self._now += 1.0
        self.policy.handle(
            TurnArrived(f"first of {session}", session, TurnKind.FIRST, "calm", FAMILY, 1000), self._now
        )
        return self.policy.reserved_tokens(self._now)["a"] - before


@pytest.mark.parametrize(
    ("tenants", "wanted"), [(NAMED, Phase.IDLE), ((), Phase.TOOL_GAP)], ids=["named", "everybody"]
)
def test_whether_text_ends_a_session(tenants: tuple[TenantLimits, ...], wanted: Phase) -> None:
    """Without tenants nobody can tell users from impostors, and all teach all."""
    world = World(tenants)
    world.goes_on_after_text("bad", 20)
    world.turn("calm", "calm", TurnKind.FIRST)
    assert world.phase("calm") is wanted


def test_how_large_a_session_becomes() -> None:
    """What a first session of the calm tenant reserves is what it would without the other's."""
    alone, beside = World(NAMED), World(NAMED)
    for number in range(50):
        session = f"bad {number}"
        beside.turn("bad", session, TurnKind.FIRST)
        beside.turn("bad", session, TurnKind.CONTINUATION, 200_000)
        beside.policy.handle(SessionEnded(session), 1000.0)
    for world in (alone, beside):
        world.turn("calm", "calm 1", TurnKind.FIRST)
    assert alone.reserved_by("calm 2") == pytest.approx(beside.reserved_by("calm 2"))
